//! How a path becomes clips.

use flow_image::data::{Channels, Range, Resize};
use serde::{Deserialize, Serialize};

use super::Layout;
use super::generate::{MovingDigits, Shapes};
use crate::{Error, Result};

/// A part of every frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Crop {
    /// The largest centred square.
    Centre,
    /// A rectangle.
    Rectangle {
        /// Columns left of it.
        x: u32,
        /// Rows above it.
        y: u32,
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl std::str::FromStr for Crop {
    type Err = Error;

    /// `centre`, or `x,y,width,height` in pixels.
    fn from_str(text: &str) -> Result<Self> {
        if matches!(text, "centre" | "center") {
            return Ok(Crop::Centre);
        }
        let numbers: Vec<Option<u32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
        match numbers[..] {
            [Some(x), Some(y), Some(width), Some(height)] if width > 0 && height > 0 => {
                Ok(Crop::Rectangle { x, y, width, height })
            }
            _ => Err(Error::config("crop", format!("must be centre or x,y,width,height in pixels, got {text}"))),
        }
    }
}

impl std::fmt::Display for Crop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Crop::Centre => f.write_str("centre"),
            Crop::Rectangle { x, y, width, height } => write!(f, "{x},{y},{width},{height}"),
        }
    }
}

/// How a path becomes clips, and clips three parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OpenOptions {
    /// A part of every frame, before it is resized.
    pub crop: Option<Crop>,
    /// The size that frames are brought to: the largest centred crop of that aspect, then resampled.
    pub size: Option<Resize>,
    /// Grey or colour; [`Channels::Auto`] is grey where no frame has a coloured pixel.
    pub channels: Channels,
    /// Frames a second to which sources with times are brought: the frame that is on show at each of the moments.
    pub fps: Option<f64>,
    /// The fewest frames that a clip must have; shorter ones are left out and named in the notes.
    pub frames: usize,
    /// Clips longer than this are cut into consecutive clips of so many frames, so that one long recording has parts.
    pub cut: Option<usize>,
    /// What the axes of arrays mean.
    pub layout: Layout,
    /// Between which values the floats of arrays lie.
    pub range: Range,
    /// Keep only the highest bits of each value.
    pub bits: Option<u32>,
    /// Whether what is told beside the frames is read as well: `actions` or `labels` of a `.npz` file, the direction of shapes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub actions: bool,
    /// Leave out, and count, clips that cannot be read, rather than refusing the folder.
    pub skip_broken: bool,
    /// How digits move, where the source is a set of digits; [`MovingDigits::builtin`] or [`MovingDigits::mnist`] if
    /// `None`.
    pub digits: Option<MovingDigits>,
    /// How shapes move, where the source is `shapes`; the default if `None`.
    pub shapes: Option<Shapes>,
    /// Fraction of the training clips held out to validate on, where the source has no such part.
    pub validation: f64,
    /// Fraction of all clips held out to test on, where the source has no such part.
    pub test: f64,
    /// Seed of both choices and of the generators.
    pub seed: u64,
}

impl Default for OpenOptions {
    /// Frames and clips as they are; five per cent to validate on, ten to test on.
    fn default() -> Self {
        OpenOptions {
            crop: None,
            size: None,
            channels: Channels::default(),
            fps: None,
            frames: 1,
            cut: None,
            layout: Layout::default(),
            range: Range::default(),
            bits: None,
            actions: false,
            skip_broken: false,
            digits: None,
            shapes: None,
            validation: 0.05,
            test: 0.1,
            seed: 0,
        }
    }
}

impl OpenOptions {
    /// The same options with these fractions held out to validate and to test on.
    #[must_use]
    pub fn with_held_out(mut self, validation: f64, test: f64) -> Self {
        (self.validation, self.test) = (validation, test);
        self
    }

    /// The same options with frames of this size.
    #[must_use]
    pub fn with_size(mut self, size: impl Into<Resize>) -> Self {
        self.size = Some(size.into());
        self
    }

    /// The same options with clips of at least so many frames.
    #[must_use]
    pub fn with_frames(mut self, frames: usize) -> Self {
        self.frames = frames;
        self
    }

    /// Whether every option is inside its domain.
    pub(super) fn check(&self) -> Result<()> {
        for (name, fraction) in [("validation", self.validation), ("test", self.test)] {
            if !(0.0..1.0).contains(&fraction) {
                let reason = format!("must be a fraction of at least 0 and below 1, got {fraction}");
                return Err(Error::config(name, reason));
            }
        }
        if let Some(size) = self.size {
            size.check()?;
        }
        if let Some(fps) = self.fps.filter(|fps| !(0.001..=1000.0).contains(fps)) {
            return Err(Error::config("fps", format!("must be 0.001 to 1000 frames a second, got {fps}")));
        }
        if self.cut.is_some_and(|cut| cut == 0 || cut < self.frames) {
            let reason = format!("pieces must have the {} frames that a clip needs, or more", self.frames.max(1));
            return Err(Error::config("cut", reason));
        }
        Ok(())
    }

    /// Refuses what does not apply to clips that are made rather than read.
    pub(super) fn check_generated(&self, what: &str) -> Result<()> {
        let given = [
            ("--size", self.size.is_some()),
            ("--crop", self.crop.is_some()),
            ("--fps", self.fps.is_some()),
            ("--cut", self.cut.is_some()),
            ("--channels", self.channels != Channels::Auto),
            ("--layout", self.layout != Layout::Auto),
            ("--range", self.range != Range::Auto),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::config(
                what,
                format!("{flag} is for clips that are read; these are made as they are wanted"),
            )),
            None => Ok(()),
        }
    }
}
