//! Segments of waveforms with the frames of their mel spectrograms.

use candle_core::{Device, Tensor};
use flow_core::FlowRng;
use rayon::prelude::*;

use super::Clips;
use crate::mel::{Aligned, Mel, MelConfig};
use crate::{Error, Result};

/// Some segments.
///
/// # Shapes
/// - `audio` `(B, samples)`, `mel` `(B, mels, frames)` in f32, with `samples = frames · hop`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The waveforms.
    pub audio: Tensor,
    /// The spectrograms of their clips, cut to the frames that belong to these samples.
    pub mel: Tensor,
}

/// Clips with their spectrograms, ready to be cut into segments of one length.
///
/// The spectrogram is computed on the whole clip and then cut, as vocoders are trained: the frames at the ends of a
/// segment see what lies beyond it, as they will in synthesis. A segment begins at a whole frame. Place `i` of
/// `0..len()` stands for a clip, longer clips having more places, so that an epoch of places sees about all samples once.
#[derive(Debug, Clone)]
pub struct Segments {
    clips: Vec<Entry>,
    config: MelConfig,
    frames: usize,
    /// How many places there are up to and with each clip.
    places: Vec<usize>,
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    bits: u32,
    aligned: Aligned,
}

impl Entry {
    /// Frames all of whose samples there are.
    fn frames(&self, hop: usize) -> usize {
        (self.aligned.samples.len() / hop).min(self.aligned.mel.frames())
    }
}

impl Segments {
    /// Segments of `samples` samples of clips of the configuration's rate; clips that are shorter are left out and named
    /// in [`Segments::notes`].
    ///
    /// # Errors
    /// A configuration outside its domain or of another rate, a length that is no multiple of the hop, or no clip that is
    /// long enough.
    pub fn new(clips: &Clips, config: &MelConfig, samples: usize) -> Result<Self> {
        config.check()?;
        if clips.rate() != config.rate {
            let reason = format!(
                "clips of {} Hz but a mel spectrogram of {} Hz; --resample brings them to its rate",
                clips.rate(),
                config.rate
            );
            return Err(Error::config(clips.source(), reason));
        }
        if samples == 0 || !samples.is_multiple_of(config.hop) {
            let below = samples / config.hop * config.hop;
            let reason = format!("must be a multiple of the hop of {}: {below} or {}", config.hop, below + config.hop);
            return Err(Error::config(format!("segment of {samples} samples"), reason));
        }
        // Reflection needs more samples than it pads.
        let shortest = samples.max(config.padding() + 1);
        let long = if clips.is_empty() { clips.clone() } else { clips.clone().at_least(shortest)? };
        let entry = |clip: &super::Clip| -> Result<Entry> {
            let aligned = config.aligned(clip.samples()).map_err(|e| Error::config(clip.name(), e.to_string()))?;
            Ok(Entry { name: clip.name().to_string(), bits: clip.bits(), aligned })
        };
        let all: Vec<&super::Clip> = long.iter().collect();
        let entries = all.into_par_iter().map(entry).collect::<Result<Vec<_>>>()?;
        let frames = samples / config.hop;
        let count = |entry: &Entry| (entry.frames(config.hop) / frames).max(1);
        let places = entries.iter().scan(0, |sum, entry| {
            *sum += count(entry);
            Some(*sum)
        });
        let places = places.collect();
        let notes = long.notes().iter().filter(|note| !clips.notes().contains(note)).cloned().collect();
        Ok(Segments { clips: entries, config: *config, frames, places, notes })
    }

    /// Number of places: how many whole segments the clips hold.
    pub fn len(&self) -> usize {
        self.places.last().copied().unwrap_or(0)
    }

    /// Whether there is no clip.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty()
    }

    /// Number of clips.
    pub fn clips(&self) -> usize {
        self.clips.len()
    }

    /// Samples of a segment.
    pub fn samples(&self) -> usize {
        self.frames * self.config.hop
    }

    /// Frames of a segment.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// What the spectrograms are computed with.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// What was left out because it is too short.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The clip of a place, and which of its segments the place is.
    fn clip_of(&self, place: usize) -> Result<(&Entry, usize)> {
        let index = self.places.partition_point(|&end| end <= place);
        let before = index.checked_sub(1).and_then(|i| self.places.get(i)).copied().unwrap_or(0);
        let entry = self.clips.get(index);
        let entry = entry.ok_or_else(|| Error::config("segment", format!("{place} of {}", self.len())))?;
        Ok((entry, place - before))
    }

    /// A segment of each of these places' clips, from a frame drawn uniformly, with dequantization noise
    /// ([`dequantize`]) if wanted.
    ///
    /// # Errors
    /// No place, or one beyond [`Segments::len`].
    pub fn random(&self, places: &[usize], noise: bool, rng: &mut FlowRng, device: &Device) -> Result<Batch> {
        let cuts = rng.per_row(places.len(), |row, rng| -> Result<_> {
            let (entry, _) = self.clip_of(places[row])?;
            Ok((entry, rng.below(entry.frames(self.config.hop) - self.frames + 1)))
        })?;
        self.batch(&cuts, self.frames, noise.then_some(rng), device)
    }

    /// The segments at these places, the whole segments of the clips one after the other: the same at every call, to
    /// validate on.
    ///
    /// # Errors
    /// Those of [`Segments::random`].
    pub fn fixed(&self, places: &[usize], noise: Option<&mut FlowRng>, device: &Device) -> Result<Batch> {
        let cut = |&place: &usize| self.clip_of(place).map(|(entry, segment)| (entry, segment * self.frames));
        let cuts = places.iter().map(cut).collect::<Result<Vec<_>>>()?;
        self.batch(&cuts, self.frames, noise, device)
    }

    /// The samples of the first `count` places of [`Segments::fixed`] in a row, as they were read.
    pub fn scored(&self, count: usize) -> Vec<f32> {
        let samples = self.samples();
        let mut left = count;
        let mut all = Vec::with_capacity(count.min(self.len()) * samples);
        for entry in &self.clips {
            let own = (entry.frames(self.config.hop) / self.frames).max(1).min(left);
            all.extend(entry.aligned.samples.iter().take(own * samples).map(|x| x / entry.aligned.gain));
            left -= own;
        }
        all
    }

    /// A whole clip up to its last whole frame, to score.
    ///
    /// # Errors
    /// A clip beyond the end.
    pub fn whole_batch(&self, clip: usize, noise: Option<&mut FlowRng>, device: &Device) -> Result<Batch> {
        let entry = self.entry(clip)?;
        self.batch(&[(entry, 0)], entry.frames(self.config.hop), noise, device)
    }

    fn entry(&self, clip: usize) -> Result<&Entry> {
        self.clips.get(clip).ok_or_else(|| Error::config("clip", format!("{clip} of {}", self.clips.len())))
    }

    fn batch(
        &self,
        cuts: &[(&Entry, usize)],
        frames: usize,
        noise: Option<&mut FlowRng>,
        device: &Device,
    ) -> Result<Batch> {
        if cuts.is_empty() {
            return Err(Error::config("batch", "of no segments"));
        }
        let (hop, samples) = (self.config.hop, frames * self.config.hop);
        let mut audio = Vec::with_capacity(cuts.len() * samples);
        let mut mel = Vec::with_capacity(cuts.len() * self.config.mels * frames);
        for (entry, frame) in cuts {
            audio.extend(entry.aligned.samples.iter().skip(frame * hop).take(samples));
            mel.extend_from_slice(entry.aligned.mel.cut(*frame, frames)?.values());
        }
        if let Some(rng) = noise {
            rng.per_row(cuts.len(), |row, rng| -> Result<()> {
                let entry = cuts[row].0;
                if let Some(own) = audio.get_mut(row * samples..(row + 1) * samples) {
                    dequantize(own, entry.bits, entry.aligned.gain, rng);
                }
                Ok(())
            })?;
        }
        Ok(Batch {
            audio: Tensor::from_vec(audio, (cuts.len(), samples), device)?,
            mel: Tensor::from_vec(mel, (cuts.len(), self.config.mels, frames), device)?,
        })
    }

    /// The name of a clip, its samples up to the last whole frame, and the frames that belong to them.
    ///
    /// # Errors
    /// A clip beyond the end.
    pub fn whole(&self, clip: usize) -> Result<(&str, &[f32], Mel)> {
        let entry = self.entry(clip)?;
        let frames = entry.frames(self.config.hop);
        let whole = entry.aligned.samples.len().min(frames * self.config.hop);
        let (samples, _) = entry.aligned.samples.split_at(whole);
        Ok((&entry.name, samples, entry.aligned.mel.cut(0, frames)?))
    }
}

/// Adds `(U − ½) / 2^(bits − 1)`, `U` uniform in `[0, 1)`, to every sample: noise as wide as a step of the integers, so
/// that a density of the sum bounds the probability of the integers from below (Theis, van den Oord and Bethge 2016).
///
/// `gain` is what the samples were multiplied by since they were integers, and the step with them.
pub fn dequantize(samples: &mut [f32], bits: u32, gain: f32, rng: &mut FlowRng) {
    let step = f64::from(gain) * 2f64.powi(1 - bits.min(64) as i32);
    for x in samples {
        *x = (f64::from(*x) + (rng.next_uniform() - 0.5) * step) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Clip;
    use crate::mel::Convention;

    /// Clips in which a sample tells its place.
    fn ramps(lengths: &[usize]) -> Clips {
        let clip = |(index, &count): (usize, &usize)| {
            let samples = (0..count).map(|n| (n as f32 + 1.0) / 32_768.0 * if index % 2 == 0 { 1.0 } else { -1.0 });
            Clip::new(format!("{index}"), 8000, samples.collect(), 16).unwrap()
        };
        Clips::new(lengths.iter().enumerate().map(clip).collect(), "ramps").unwrap()
    }

    #[test]
    fn segments_begin_at_whole_frames_and_have_their_own_frames() {
        for convention in [Convention::Tacotron2, Convention::HifiGan] {
            let config = MelConfig::speech_8k().with_convention(convention);
            let set = ramps(&[3000, 5000, 500]);
            let segments = Segments::new(&set, &config, 1024).unwrap();
            assert_eq!((segments.clips(), segments.len(), segments.frames()), (2, 2 + 4, 8));
            assert!(segments.notes()[0].contains("2 (500)"), "{:?}", segments.notes());
            let mut rng = FlowRng::seed_from(3);
            let batch = segments.random(&[0, 1, 5, 2], false, &mut rng, &Device::Cpu).unwrap();
            assert_eq!((batch.audio.dims(), batch.mel.dims()), (&[4, 1024][..], &[4, 64, 8][..]));
            let audio = batch.audio.to_vec2::<f32>().unwrap();
            let mel = batch.mel.to_vec3::<f32>().unwrap();
            for (row, clip) in [0, 0, 1, 1].into_iter().enumerate() {
                let start = (audio[row][0].abs() * 32_768.0) as usize - 1;
                assert_eq!(start % 128, 0);
                let whole = config.spectrogram(set.get(clip).unwrap().samples()).unwrap();
                assert_eq!(audio[row], set.get(clip).unwrap().samples()[start..start + 1024]);
                assert_eq!(mel[row].concat(), whole.cut(start / 128, 8).unwrap().values());
            }
        }
    }

    #[test]
    fn fixed_segments_cover_the_clips_and_whole_clips_are_whole_frames() {
        let config = MelConfig::speech_8k();
        let set = ramps(&[3000, 5000]);
        let segments = Segments::new(&set, &config, 1024).unwrap();
        let all = segments.fixed(&[0, 1, 2, 3, 4, 5], None, &Device::Cpu).unwrap().audio.to_vec2::<f32>().unwrap();
        assert_eq!(all[..2].concat(), set.get(0).unwrap().samples()[..2048]);
        assert_eq!(all[2..].concat(), set.get(1).unwrap().samples()[..4096]);
        let (name, samples, mel) = segments.whole(1).unwrap();
        assert_eq!((name, samples.len(), mel.frames()), ("1", 39 * 128, 39));
        let parakeet = Segments::new(&set, &config.with_convention(Convention::Parakeet), 1024).unwrap();
        let (_, samples, mel) = parakeet.whole(1).unwrap();
        assert_eq!((samples.len(), mel.frames()), (40 * 128, 40));
        assert!(segments.whole(2).is_err() && segments.fixed(&[6], None, &Device::Cpu).is_err());
        assert!(segments.fixed(&[], None, &Device::Cpu).is_err());
    }

    #[test]
    fn noise_is_one_step_wide_and_seeded() {
        let segments = Segments::new(&ramps(&[3000]), &MelConfig::speech_8k(), 2048).unwrap();
        let draw = |seed| {
            let mut rng = FlowRng::seed_from(seed);
            segments.fixed(&[0], Some(&mut rng), &Device::Cpu).unwrap().audio.to_vec2::<f32>().unwrap().concat()
        };
        let plain = segments.fixed(&[0], None, &Device::Cpu).unwrap().audio.to_vec2::<f32>().unwrap().concat();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let steps: Vec<f32> = draw(1).iter().zip(&plain).map(|(a, b)| (a - b) * 32_768.0).collect();
        let (low, high) = steps.iter().fold((0.0f32, 0.0f32), |(l, h), &s| (l.min(s), h.max(s)));
        assert!((-0.5..-0.49).contains(&low) && (0.49..=0.5).contains(&high), "{low} {high}");
        assert!(steps.iter().sum::<f32>().abs() / 2048.0 < 0.03);
    }

    #[test]
    fn wrong_rates_and_lengths_are_refused_with_the_remedy() {
        let set = ramps(&[3000]);
        let error = Segments::new(&set, &MelConfig::tacotron2(), 1024).unwrap_err().to_string();
        assert!(error.contains("8000 Hz") && error.contains("22050") && error.contains("--resample"), "{error}");
        let error = Segments::new(&set, &MelConfig::speech_8k(), 1000).unwrap_err().to_string();
        assert!(error.contains("896 or 1024"), "{error}");
        assert!(Segments::new(&set, &MelConfig::speech_8k(), 4096).unwrap_err().to_string().contains("all 1 clips"));
    }
}
