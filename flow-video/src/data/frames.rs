//! From the pictures of a source, one after the other, to the bytes of a clip: crop, size, colour and rate.

use std::path::Path;

use flow_image::data::Channels;
use flow_image::data::picture::{crop_and_resize, is_gray, is_transparent};
use image::DynamicImage;

use super::{Clip, Crop, OpenOptions};
use crate::{Error, Result};

/// No clip takes more memory than this.
const MAX_BYTES: usize = 1 << 32;

/// Rounding errors of times, in seconds.
const SLACK: f64 = 1e-6;

/// Collects the frames of one clip.
pub(super) struct Frames<'a> {
    path: &'a Path,
    options: &'a OpenOptions,
    values: Vec<u8>,
    /// Channels, height and width of what is there, none before the first frame.
    shape: Option<[usize; 3]>,
    /// Height and width of the source.
    source: Option<[u32; 2]>,
    count: usize,
    pushed: usize,
    clock: Clock,
    transparent: usize,
    deep: usize,
}

/// What is known about the times of frames.
#[derive(Default)]
struct Clock {
    first: Option<f64>,
    last: f64,
    /// The shortest and the longest time between two frames.
    steps: Option<(f64, f64)>,
    /// The frame that is on show, for a fixed rate.
    on_show: Option<DynamicImage>,
    /// Frames of the fixed rate that have been taken.
    taken: usize,
    backwards: usize,
}

impl<'a> Frames<'a> {
    /// A clip without frames; `path` names it in messages.
    pub(super) fn new(path: &'a Path, options: &'a OpenOptions) -> Self {
        let (values, clock) = (Vec::new(), Clock::default());
        Frames { path, options, values, shape: None, source: None, count: 0, pushed: 0, clock, transparent: 0, deep: 0 }
    }

    /// One more frame of a source without times.
    ///
    /// # Errors
    /// A wish for a fixed rate, a frame of another size, or a crop beyond its edges.
    pub(super) fn push(&mut self, frame: &DynamicImage) -> Result<()> {
        if self.options.fps.is_some() {
            let reason = "its frames have no times, so --fps has nothing to go by";
            return Err(Error::config(self.path.display().to_string(), reason));
        }
        self.pushed += 1;
        let frame = self.prepared(frame)?;
        self.append(&frame)
    }

    /// One more frame, shown from `time` on, in seconds.
    ///
    /// # Errors
    /// A frame of another size, a crop beyond its edges, or a clip that takes too much memory.
    pub(super) fn push_at(&mut self, frame: &DynamicImage, time: f64) -> Result<()> {
        self.pushed += 1;
        let clock = &mut self.clock;
        let first = *clock.first.get_or_insert(time);
        if self.pushed > 1 {
            let step = time - clock.last;
            if step <= 0.0 {
                clock.backwards += 1;
            }
            let (low, high) = clock.steps.unwrap_or((step, step));
            clock.steps = Some((low.min(step), high.max(step)));
        }
        let Some(fps) = self.options.fps else {
            clock.last = time;
            let frame = self.prepared(frame)?;
            return self.append(&frame);
        };
        clock.last = clock.last.max(time);
        let prepared = self.prepared(frame)?;
        self.show_until(time - first, fps)?;
        self.clock.on_show = Some(prepared);
        Ok(())
    }

    /// Takes the frame on show for all moments of the fixed rate before `time`.
    fn show_until(&mut self, time: f64, fps: f64) -> Result<()> {
        let Some(frame) = self.clock.on_show.take() else { return Ok(()) };
        while (self.clock.taken as f64) / fps < time - SLACK {
            self.append(&frame)?;
            self.clock.taken += 1;
        }
        self.clock.on_show = Some(frame);
        Ok(())
    }

    /// How many frames were given.
    pub(super) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Counts frames of 16 bits a channel.
    pub(super) fn count_deep(&mut self, deep: bool) {
        self.deep += usize::from(deep);
    }

    /// The cropped and resized frame.
    fn prepared(&mut self, frame: &DynamicImage) -> Result<DynamicImage> {
        let (width, height) = (frame.width(), frame.height());
        let [first_height, first_width] = *self.source.get_or_insert([height, width]);
        if (height, width) != (first_height, first_width) {
            let reason = format!(
                "frame {} is {height}x{width}, those before it {first_height}x{first_width}; a clip has one size",
                self.pushed
            );
            return Err(Error::config(self.path.display().to_string(), reason));
        }
        self.transparent += usize::from(is_transparent(frame));
        let cropped = match self.options.crop {
            None => None,
            Some(Crop::Centre) => {
                let side = width.min(height);
                Some(frame.crop_imm((width - side) / 2, (height - side) / 2, side, side))
            }
            Some(Crop::Rectangle { x, y, width: w, height: h }) => {
                let fits = |start: u32, length: u32, whole: u32| {
                    length > 0 && start.checked_add(length).is_some_and(|end| end <= whole)
                };
                if !fits(x, w, width) || !fits(y, h, height) {
                    let reason = format!("the crop {x},{y},{w},{h} reaches beyond frames of {width}x{height} pixels");
                    return Err(Error::config(self.path.display().to_string(), reason));
                }
                Some(frame.crop_imm(x, y, w, h))
            }
        };
        let frame = cropped.as_ref().unwrap_or(frame);
        Ok(match self.options.size {
            Some(size) => crop_and_resize(frame, size),
            None => frame.clone(),
        })
    }

    /// The bytes of a frame behind those before it.
    fn append(&mut self, frame: &DynamicImage) -> Result<()> {
        let (height, width) = (frame.height() as usize, frame.width() as usize);
        let grey = match self.options.channels {
            Channels::Gray => true,
            Channels::Rgb => false,
            _ => self.shape.is_none_or(|[channels, ..]| channels == 1) && is_gray(frame),
        };
        let channels = if grey { 1 } else { 3 };
        if let Some([1, h, w]) = self.shape.filter(|_| channels == 3) {
            // The first frame with colour: those before it get three channels.
            self.values = self.values.chunks_exact((h * w).max(1)).flat_map(|plane| [plane; 3].concat()).collect();
        }
        self.shape = Some([channels, height, width]);
        if self.values.len().saturating_add(channels * height * width) > MAX_BYTES {
            let reason =
                format!("takes more than {} GiB; make frames smaller (--size), fewer (--fps) or grey", MAX_BYTES >> 30);
            return Err(Error::config(self.path.display().to_string(), reason));
        }
        if grey {
            self.values.extend_from_slice(frame.to_luma8().as_raw());
        } else {
            let rgb = frame.to_rgb8();
            for channel in 0..3 {
                self.values.extend(rgb.as_raw().iter().skip(channel).step_by(3));
            }
        }
        self.count += 1;
        Ok(())
    }

    /// The clip of a source without times, or of the rate that is given, with what there is to tell.
    ///
    /// # Errors
    /// No frame.
    pub(super) fn finish(mut self, name: &str, fps: Option<f64>) -> Result<(Clip, Vec<String>)> {
        let notes = self.notes();
        let Some(shape) = self.shape else {
            return Err(Error::format(self.path, 0, "frames", "none"));
        };
        Ok((Clip::new(name, std::mem::take(&mut self.values), shape, fps)?, notes))
    }

    /// The clip of a source with times whose last frame is shown until `end`; of the rate that was asked for, or the
    /// source's own.
    ///
    /// # Errors
    /// No frame.
    pub(super) fn finish_at(mut self, name: &str, end: f64) -> Result<(Clip, Vec<String>)> {
        let first = self.clock.first.unwrap_or(0.0);
        if let Some(fps) = self.options.fps {
            // The last frame is on show for a moment at least.
            self.show_until((end - first).max(self.clock.last - first + 2.0 * SLACK), fps)?;
            return self.finish(name, Some(fps));
        }
        let duration = end - first;
        let average = (duration > 0.0 && duration.is_finite()).then(|| self.pushed as f64 / duration);
        let mut note = None;
        if let (Some((low, high)), Some(rate)) = (self.clock.steps, average) {
            // Milliseconds and 90 kHz are rounded times, no variable rate.
            if high - low > 0.25 / rate {
                note = Some(format!(
                    "{}: frames are shown for {:.0} to {:.0} ms, {rate:.3} a second on average; --fps makes them equal",
                    self.path.display(),
                    1000.0 * low,
                    1000.0 * high
                ));
            }
        }
        let (clip, mut notes) = self.finish(name, average.map(rounded))?;
        notes.extend(note);
        Ok((clip, notes))
    }

    fn notes(&self) -> Vec<String> {
        let (at, all) = (self.path.display(), self.pushed);
        let mut notes = Vec::new();
        if self.transparent > 0 {
            let count = self.transparent;
            notes.push(format!(
                "{at}: {count} of {all} frames have transparent pixels; the colours under them were kept"
            ));
        }
        if self.deep > 0 {
            notes.push(format!("{at}: {} of {all} frames have 16 bits a channel and were rounded to 8", self.deep));
        }
        if self.clock.backwards > 0 {
            let count = self.clock.backwards;
            notes.push(format!("{at}: {count} of {all} frames are not later than the one before them"));
        }
        notes
    }
}

/// A rate without what rounded times leave of it: 25.0 of 24.9999.
fn rounded(fps: f64) -> f64 {
    let near = fps.round();
    if near > 0.0 && (fps - near).abs() < 1e-4 * near { near } else { fps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn grey(value: u8) -> DynamicImage {
        GrayImage::from_pixel(2, 1, Luma([value])).into()
    }

    fn options(fps: Option<f64>) -> OpenOptions {
        OpenOptions { fps, ..OpenOptions::default() }
    }

    /// Values of frames shown from these times on, at a fixed rate.
    fn resampled(times: &[f64], end: f64, fps: Option<f64>) -> (Vec<u8>, Option<f64>, Vec<String>) {
        let options = options(fps);
        let mut frames = Frames::new(Path::new("x"), &options);
        for (index, &time) in times.iter().enumerate() {
            frames.push_at(&grey(index as u8), time).unwrap();
        }
        let (clip, notes) = frames.finish_at("x", end).unwrap();
        (clip.values().iter().step_by(2).copied().collect(), clip.fps(), notes)
    }

    #[test]
    fn a_fixed_rate_takes_the_frame_that_is_on_show() {
        let thirty: Vec<f64> = (0..6).map(|i| f64::from(i) / 30.0).collect();
        assert_eq!(resampled(&thirty, 0.2, Some(30.0)).0, [0, 1, 2, 3, 4, 5]);
        assert_eq!(resampled(&thirty, 0.2, Some(15.0)).0, [0, 2, 4]);
        assert_eq!(resampled(&thirty, 0.2, Some(60.0)).0, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(resampled(&thirty, 0.2, Some(20.0)).0, [0, 1, 3, 4]);
        // A variable rate: shown for 100, 300 and 100 ms, and beginning at 5 s.
        assert_eq!(resampled(&[5.0, 5.1, 5.4], 5.5, Some(10.0)).0, [0, 1, 1, 1, 2]);
        assert_eq!(resampled(&[7.0], 7.0, Some(10.0)), (vec![0], Some(10.0), vec![]));
    }

    #[test]
    fn the_rate_of_a_source_is_kept_and_a_variable_one_is_told() {
        let (values, fps, notes) = resampled(&[0.0, 0.033, 0.067, 0.1], 0.1333, None);
        assert_eq!((values.len(), notes.len()), (4, 0));
        assert!((fps.unwrap() - 30.0).abs() < 0.01);
        let (_, fps, notes) = resampled(&[0.0, 0.1, 0.4], 0.5, None);
        assert_eq!(fps, Some(6.0));
        assert!(notes[0].contains("100 to 300 ms, 6.000 a second"), "{notes:?}");
    }

    #[test]
    fn frames_are_cropped_before_they_are_resized_and_grey_until_one_has_colour() {
        let picture = |colour: bool| -> DynamicImage {
            RgbImage::from_fn(8, 4, |x, y| Rgb(if colour { [x as u8, y as u8, 7] } else { [x as u8; 3] })).into()
        };
        let crop = Some("2,1,3,2".parse().unwrap());
        let options = OpenOptions { crop, ..OpenOptions::default() };
        let mut frames = Frames::new(Path::new("x"), &options);
        frames.push(&picture(false)).unwrap();
        frames.push(&picture(true)).unwrap();
        let (clip, notes) = frames.finish("x", None).unwrap();
        assert_eq!((clip.shape(), clip.frames(), notes.len()), ([3, 2, 3], 2, 0));
        assert_eq!(clip.frame(0).unwrap(), [2, 3, 4].repeat(6));
        assert_eq!(clip.frame(1).unwrap(), [2, 3, 4, 2, 3, 4, 1, 1, 1, 2, 2, 2, 7, 7, 7, 7, 7, 7]);
        let options = OpenOptions { crop: Some(Crop::Centre), ..OpenOptions::default() };
        let mut frames = Frames::new(Path::new("x"), &options);
        frames.push(&picture(false)).unwrap();
        assert_eq!(frames.finish("x", None).unwrap().0.shape(), [1, 4, 4]);
        for bad in ["0,0,9,1", "8,0,1,1", "0,4294967295,1,4294967295"] {
            let options = OpenOptions { crop: Some(bad.parse().unwrap()), ..OpenOptions::default() };
            let error = Frames::new(Path::new("clip"), &options).push(&picture(true)).unwrap_err().to_string();
            assert!(error.contains("clip") && error.contains("reaches beyond frames of 8x4"), "{error}");
        }
        assert!("1,2,0,4".parse::<Crop>().is_err() && "left".parse::<Crop>().is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let with_fps = options(Some(10.0));
        let error = Frames::new(Path::new("clip"), &with_fps).push(&grey(1)).unwrap_err().to_string();
        assert!(error.contains("clip") && error.contains("--fps"), "{error}");
        let plain = options(None);
        let mut frames = Frames::new(Path::new("clip"), &plain);
        frames.push(&grey(1)).unwrap();
        let error = frames.push(&RgbImage::new(3, 1).into()).unwrap_err().to_string();
        assert!(error.contains("frame 2 is 1x3, those before it 1x2"), "{error}");
        assert!(Frames::new(Path::new("clip"), &plain).finish("clip", None).is_err());
    }
}
