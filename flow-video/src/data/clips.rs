//! A set of clips in memory, and windows of them as tensors.

use candle_core::{Device, Tensor};
use flow_core::hash::Fnv;
use flow_core::train::Fingerprint;
use flow_image::data::some_of;

use super::{Clip, FrameShape};
use crate::{Error, Result};

/// Clips of one frame shape, of the same or different lengths.
///
/// # Shapes
/// - clip `i`: `[T_i, C, H, W]`, each value in `0..levels`.
#[derive(Debug, Clone, PartialEq)]
pub struct Clips {
    clips: Vec<Clip>,
    shape: FrameShape,
    levels: usize,
    notes: Vec<String>,
    source: String,
}

impl Clips {
    /// A set of clips of 256 levels; `source` says where they come from. Where some have colour, grey ones get three equal
    /// channels.
    ///
    /// # Errors
    /// No clip, or frames of different sizes (both clips are named).
    pub fn new(clips: Vec<Clip>, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        let Some(first) = clips.first() else {
            return Err(Error::config(source, "there is no clip"));
        };
        let size = |clip: &Clip| [clip.shape()[1], clip.shape()[2]];
        if let Some(other) = clips.iter().find(|clip| size(clip) != size(first)) {
            let ([h, w], [other_h, other_w]) = (size(first), size(other));
            let reason = format!(
                "frames of {h}x{w} in {} but {other_h}x{other_w} in {}; bring them to one size with --size",
                first.name(),
                other.name()
            );
            return Err(Error::config(source, reason));
        }
        if let Some(other) = clips.iter().find(|clip| clip.action_size() != first.action_size()) {
            let reason = format!(
                "{} numbers are told beside a frame of {} but {} in {}",
                first.action_size(),
                first.name(),
                other.action_size(),
                other.name()
            );
            return Err(Error::config(source, reason));
        }
        let colour = clips.iter().map(|clip| clip.shape()[0]).max().unwrap_or(1) == 3;
        let clips: Vec<Clip> = if colour { clips.into_iter().map(Clip::into_colour).collect() } else { clips };
        let shape = clips.first().map_or([0; 3], Clip::shape);
        Ok(Clips { clips, shape, levels: 256, notes: Vec::new(), source })
    }

    /// The same clips with more to tell about how they were read.
    #[must_use]
    pub fn with_notes(mut self, notes: impl IntoIterator<Item = String>) -> Self {
        self.notes.extend(notes);
        self
    }

    /// The same clips described by another text.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Number of clips.
    pub fn len(&self) -> usize {
        self.clips.len()
    }

    /// Whether there are no clips, as in a part that nothing was held out for.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty()
    }

    /// `(C, H, W)` of every frame.
    pub fn shape(&self) -> FrameShape {
        self.shape
    }

    /// Number of integer levels: 256, or `2^bits` after [`Clips::reduce_bits`].
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// The clips in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Clip> {
        self.clips.iter()
    }

    /// One clip, if there are so many.
    pub fn get(&self, index: usize) -> Option<&Clip> {
        self.clips.get(index)
    }

    /// What was left out, changed, rounded or guessed in reading, a sentence for each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where the clips come from and what has been done to them.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Frames a second, where all clips have the same.
    pub fn fps(&self) -> Option<f64> {
        let first = self.clips.first()?.fps()?;
        self.clips.iter().all(|clip| clip.fps() == Some(first)).then_some(first)
    }

    /// Frames of all clips together.
    pub fn frames(&self) -> usize {
        self.clips.iter().map(Clip::frames).sum()
    }

    /// How many windows of `frames` frames there are in all clips together.
    pub fn windows(&self, frames: usize) -> usize {
        self.clips.iter().map(|clip| (clip.frames() + 1).saturating_sub(frames.max(1))).sum()
    }

    /// `(T, C, H, W)` in u8: `frames` frames of a clip from frame `from` on.
    ///
    /// # Errors
    /// A clip or frames beyond the end, which are named, or no frame.
    pub fn window(&self, clip: usize, from: usize, frames: usize) -> Result<Tensor> {
        let [c, h, w] = self.shape;
        Ok(Tensor::from_slice(self.values(clip, from, frames)?, (frames, c, h, w), &Device::Cpu)?)
    }

    /// `(B, T, C, H, W)` in u8: a window of `frames` frames for each pair of a clip and its first frame.
    ///
    /// # Errors
    /// No window, or those of [`Clips::window`].
    pub fn batch(&self, windows: &[(usize, usize)], frames: usize) -> Result<Tensor> {
        if windows.is_empty() {
            return Err(Error::config("batch", "of no windows"));
        }
        let [c, h, w] = self.shape;
        let mut values = Vec::with_capacity(windows.len() * frames.saturating_mul(c * h * w).min(1 << 30));
        for &(clip, from) in windows {
            values.extend_from_slice(self.values(clip, from, frames)?);
        }
        Ok(Tensor::from_vec(values, (windows.len(), frames, c, h, w), &Device::Cpu)?)
    }

    /// `A`, how many numbers are told beside every frame; zero if none are.
    pub fn action_size(&self) -> usize {
        self.clips.first().map_or(0, Clip::action_size)
    }

    /// `(B, T, A)` in f32: what is told beside the frames of [`Clips::batch`]; `None` if nothing is.
    ///
    /// # Errors
    /// Those of [`Clips::batch`].
    pub fn batch_actions(&self, windows: &[(usize, usize)], frames: usize) -> Result<Option<Tensor>> {
        let size = self.action_size();
        if size == 0 {
            return Ok(None);
        }
        let mut actions = Vec::new();
        for &(clip, from) in windows {
            // The frames are there if this is no error.
            self.values(clip, from, frames)?;
            let all = self.clips.get(clip).map_or(&[][..], Clip::actions);
            actions.extend_from_slice(all.get(from * size..(from + frames) * size).unwrap_or_default());
        }
        Ok(Some(Tensor::from_vec(actions, (windows.len(), frames, size), &Device::Cpu)?))
    }

    /// Mean and deviation of each number that is told; of one that never changes, mean zero and deviation one.
    pub fn action_scale(&self) -> Vec<(f64, f64)> {
        let size = self.action_size();
        let scale = |index: usize| {
            let all = self.clips.iter().flat_map(move |clip| clip.actions().iter().skip(index).step_by(size));
            let known: Vec<f64> = all.map(|v| f64::from(*v)).filter(|v| v.is_finite()).collect();
            let count = known.len().max(1) as f64;
            let mean = known.iter().sum::<f64>() / count;
            let deviation = (known.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
            if deviation > 0.0 { (mean, deviation) } else { (0.0, 1.0) }
        };
        (0..size).map(scale).collect()
    }

    fn values(&self, clip: usize, from: usize, frames: usize) -> Result<&[u8]> {
        let beyond = || Error::config("clip index", format!("{clip} of {} ({})", self.len(), self.source));
        let clip = self.clips.get(clip).ok_or_else(beyond)?;
        let values = clip.range(from, frames).filter(|values| !values.is_empty());
        values.ok_or_else(|| {
            let reason = format!("{frames} frames from {from} on, of a clip of {}", clip.frames());
            Error::config(clip.name().to_string(), reason)
        })
    }

    /// Copies of the clips at `indices`, in that order.
    ///
    /// # Errors
    /// An index beyond the end.
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let beyond = |index| Error::config("clip index", format!("{index} of {} ({})", self.len(), self.source));
        let clip = |index: usize| self.clips.get(index).cloned().ok_or_else(|| beyond(index));
        let clips = indices.into_iter().map(clip).collect::<Result<_>>()?;
        Ok(Clips { clips, notes: self.notes.clone(), source: self.source.clone(), ..*self })
    }

    /// All clips of several sets behind each other, described as the first one.
    ///
    /// # Errors
    /// No set, or sets of different shapes or levels.
    pub fn concat(sets: Vec<Clips>) -> Result<Self> {
        let mut sets = sets.into_iter();
        let Some(mut all) = sets.next() else { return Err(Error::config("clips", "there are none to join")) };
        for set in sets {
            if (set.shape, set.levels) != (all.shape, all.levels) {
                let reason = format!("frames of {:?} but {:?} in {}", set.shape, all.shape, all.source);
                return Err(Error::config(set.source, reason));
            }
            all.clips.extend(set.clips);
            let new: Vec<String> = set.notes.into_iter().filter(|note| !all.notes.contains(note)).collect();
            all.notes.extend(new);
        }
        Ok(all)
    }

    /// Without the clips of fewer than `frames` frames, which are named in the notes.
    ///
    /// # Errors
    /// No clip that is long enough.
    pub fn at_least(mut self, frames: usize) -> Result<Self> {
        let (kept, short): (Vec<Clip>, Vec<Clip>) =
            std::mem::take(&mut self.clips).into_iter().partition(|clip| clip.frames() >= frames);
        if short.is_empty() {
            return Ok(Clips { clips: kept, ..self });
        }
        let names: Vec<String> = short.iter().map(|clip| format!("{} ({})", clip.name(), clip.frames())).collect();
        if kept.is_empty() {
            let reason = format!("no clip has {frames} frames or more: {}", some_of(&names));
            return Err(Error::config(self.source, reason));
        }
        let all = kept.len() + short.len();
        let short = format!(
            "{}: {} of {all} clips have fewer than {frames} frames and were left out: {}",
            self.source,
            short.len(),
            some_of(&names)
        );
        Ok(Clips { clips: kept, ..self }.with_notes([short]))
    }

    /// Keeps the `bits` highest bits of every value: `2^bits` levels.
    ///
    /// # Errors
    /// Bits outside `1..=8`, or values that have been reduced already.
    pub fn reduce_bits(mut self, bits: u32) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::config("bits", format!("must be 1 to 8, got {bits}")));
        }
        if self.levels != 256 {
            let reason = format!("only frames of 256 levels can be reduced, {} has {}", self.source, self.levels);
            return Err(Error::config("bits", reason));
        }
        if bits < 8 {
            self.clips = self.clips.into_iter().map(|clip| clip.shifted(8 - bits)).collect();
            self.levels = 1 << bits;
            self.source = format!("{}, {bits} bits", self.source);
        }
        Ok(self)
    }

    /// By what a run knows its data again.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new("clips").part("all", self.len(), self.hash())
    }

    /// A hash of the clips in their order: their lengths and their values.
    pub(super) fn hash(&self) -> Fnv {
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| (word << 8) | u32::from(byte));
        let shape = self.shape.iter().map(|&d| d as u32);
        self.clips.iter().fold(Fnv::new().words(shape), |hash, clip| {
            let hash = hash.words([clip.frames() as u32]).words(clip.values().chunks(4).map(word));
            hash.words(clip.actions().iter().map(|v| v.to_bits()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clips of 3, 5 and 2 frames of 1x1x2 that count on.
    fn counting() -> Clips {
        let mut next = 0;
        let clip = |frames: u8| {
            let values: Vec<u8> = (next..next + 2 * frames).collect();
            next += 2 * frames;
            Clip::new(format!("{frames}"), values, [1, 1, 2], Some(10.0)).unwrap()
        };
        Clips::new([3, 5, 2].map(clip).to_vec(), "test").unwrap()
    }

    #[test]
    fn windows_are_the_chosen_frames() {
        let set = counting();
        let window = set.window(1, 2, 3).unwrap();
        assert_eq!(window.dims(), &[3, 1, 1, 2]);
        assert_eq!(window.flatten_all().unwrap().to_vec1::<u8>().unwrap(), [10, 11, 12, 13, 14, 15]);
        let batch = set.batch(&[(2, 0), (0, 1)], 2).unwrap();
        assert_eq!(batch.dims(), &[2, 2, 1, 1, 2]);
        assert_eq!(batch.flatten_all().unwrap().to_vec1::<u8>().unwrap(), [16, 17, 18, 19, 2, 3, 4, 5]);
        assert_eq!([set.windows(1), set.windows(2), set.windows(4), set.windows(9)], [10, 7, 2, 0]);
        for (clip, from, frames) in [(0, 2, 2), (3, 0, 1), (0, 0, 0), (0, usize::MAX, 1), (0, 0, usize::MAX)] {
            assert!(set.window(clip, from, frames).is_err(), "{clip} {from} {frames}");
            assert!(set.batch(&[(clip, from)], frames).is_err());
        }
        assert!(set.batch(&[], 1).is_err());
    }

    #[test]
    fn short_clips_are_left_out_by_name() {
        let set = counting().at_least(3).unwrap();
        assert_eq!((set.len(), set.fps(), set.frames()), (2, Some(10.0), 8));
        assert!(set.notes()[0].contains("1 of 3 clips have fewer than 3 frames") && set.notes()[0].contains("2 (2)"));
        assert!(counting().at_least(6).unwrap_err().to_string().contains("no clip has 6 frames"));
        assert!(counting().at_least(2).unwrap().notes().is_empty());
    }

    #[test]
    fn the_fingerprint_knows_values_lengths_and_order() {
        let print = counting().fingerprint();
        assert_eq!(print, counting().fingerprint());
        assert_ne!(print, counting().subset([1, 0, 2]).unwrap().fingerprint());
        assert_ne!(print, counting().reduce_bits(7).unwrap().fingerprint());
        let joined = Clip::new("x", (0..16).collect(), [1, 1, 2], None).unwrap();
        let other = Clips::new(vec![joined, counting().get(2).unwrap().clone()], "x").unwrap();
        assert_ne!(print, other.fingerprint());
    }

    #[test]
    fn grey_clips_beside_coloured_ones_get_three_channels() {
        let grey = Clip::new("g", vec![1, 2, 3, 4], [1, 1, 2], None).unwrap();
        let colour = Clip::new("c", (0..6).collect(), [3, 1, 2], None).unwrap();
        let set = Clips::new(vec![grey.clone(), colour], "x").unwrap();
        assert_eq!((set.shape(), set.get(0).unwrap().values()), ([3, 1, 2], &[1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4][..]));
        let other = Clip::new("o", vec![1; 4], [1, 2, 2], None).unwrap();
        let error = Clips::new(vec![grey, other], "x").unwrap_err().to_string();
        assert!(error.contains("1x2 in g but 2x2 in o") && error.contains("--size"), "{error}");
    }

    #[test]
    fn a_long_clip_is_cut_into_pieces() {
        let clip = Clip::new("long", (0..14).collect(), [1, 1, 2], Some(5.0)).unwrap();
        let pieces = clip.cut(3);
        let names: Vec<&str> = pieces.iter().map(Clip::name).collect();
        assert_eq!(names, ["long#0", "long#3", "long#6"]);
        assert_eq!((pieces[1].values(), pieces[2].frames()), (&[6, 7, 8, 9, 10, 11][..], 1));
    }
}
