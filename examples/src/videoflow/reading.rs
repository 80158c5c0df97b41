//! How files become clips: the flags of a training.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_video::data::generate::{Bounce, MovingDigits, Shapes};
use flow_video::data::{Channels, Crop, Layout, OpenOptions, Range, Resize, holds_arrays, is_generated};

use crate::cli::refuse;

/// How colour is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// As the files are.
    Auto,
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// What the axes of an array mean: N clips, T frames, C channels, H rows, W columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutName {
    /// Where only one meaning fits, that.
    Auto,
    /// One grey clip.
    Thw,
    /// One clip.
    Thwc,
    /// One clip.
    Tchw,
    /// Grey clips.
    Nthw,
    /// Grey clips, time first, as Moving-MNIST has it.
    Tnhw,
    /// Clips.
    Nthwc,
    /// Clips.
    Ntchw,
    /// Clips, time first.
    Tnhwc,
    /// Clips, time first.
    Tnchw,
}

/// Between which values the floats of an array lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RangeName {
    /// By the values, or refused.
    Auto,
    /// 0 to 1.
    Unit,
    /// -1 to 1.
    Signed,
    /// 0 to 255.
    Bytes,
}

/// What digits do at a wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Walls {
    /// New random velocities (Stochastic Moving MNIST).
    Random,
    /// They bounce like balls (Moving MNIST).
    Bounce,
}

/// What is done to clips as they are read or made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Clips")]
pub(super) struct ReadingArg {
    /// Side of a frame: the largest centred crop, resized; or HEIGHTxWIDTH
    #[arg(long, value_name = "SIDE", value_parser = size)]
    size: Option<Resize>,
    /// Part of every frame before it is resized: centre, or x,y,width,height in pixels
    #[arg(long, value_name = "CROP")]
    crop: Option<Crop>,
    /// Colour of frames [default: auto]
    #[arg(long, value_enum)]
    colour: Option<Colour>,
    /// Frames a second to which files with times are brought [default: as they are]
    #[arg(long)]
    fps: Option<f64>,
    /// Cut long recordings into clips of so many frames
    #[arg(long, value_name = "FRAMES")]
    cut: Option<usize>,
    /// Bits per value, 1 to 8; lower bits are dropped
    #[arg(long)]
    bits: Option<u32>,
    /// What the axes mean (.npy, .npz) [default: auto]
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// Between which values floats lie (.npy, .npz) [default: auto]
    #[arg(long, value_enum)]
    range: Option<RangeName>,
    /// Learn with what is told beside the frames: `actions` [N, T, A] or `labels` [N] of one .npz file, the directions of
    /// shapes
    #[arg(long)]
    pub(super) actions: bool,
    /// Leave out, and count, clips that cannot be read
    #[arg(long)]
    skip_broken: bool,
    /// Training clips that are made (digits, shapes, idx files) [default: 2000 of built-in digits, 5000 of others]
    #[arg(long)]
    clips: Option<usize>,
    /// Digits in a clip (digits, idx files) [default: 2]
    #[arg(long)]
    digits: Option<usize>,
    /// What digits do at a wall (digits, idx files) [default: random]
    #[arg(long, value_enum)]
    walls: Option<Walls>,
}

/// `64` or `48x64`.
fn size(text: &str) -> std::result::Result<Resize, String> {
    let side = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("{text:?}: expected SIDE or HEIGHTxWIDTH"));
    let size = match text.split_once('x') {
        Some((height, width)) => Resize::new(side(height)?, side(width)?),
        None => Resize::from(side(text)?),
    };
    size.check().map(|()| size).map_err(|e| e.to_string())
}

impl ReadingArg {
    /// The flags as the readers take them, for clips of at least `frames` frames.
    pub(super) fn options(&self, path: &Path, frames: usize, seed: u64) -> Result<OpenOptions> {
        let arrays = holds_arrays(path);
        if !arrays && (path.exists() || is_generated(path)) {
            let reason = format!("for arrays (.npy, .npz), {} is none; leave it out", path.display());
            refuse(&[("--layout", self.layout.is_some()), ("--range", self.range.is_some())], &reason)?;
        }
        let mut options = OpenOptions::default().with_frames(frames);
        options.seed = seed;
        (options.size, options.crop, options.fps, options.cut) = (self.size, self.crop, self.fps, self.cut);
        (options.bits, options.skip_broken, options.actions) = (self.bits, self.skip_broken, self.actions);
        options.channels = match self.colour {
            None | Some(Colour::Auto) => Channels::Auto,
            Some(Colour::Gray) => Channels::Gray,
            Some(Colour::Rgb) => Channels::Rgb,
        };
        options.layout = match self.layout {
            None | Some(LayoutName::Auto) => Layout::Auto,
            Some(LayoutName::Thw) => Layout::Thw,
            Some(LayoutName::Thwc) => Layout::Thwc,
            Some(LayoutName::Tchw) => Layout::Tchw,
            Some(LayoutName::Nthw) => Layout::Nthw,
            Some(LayoutName::Tnhw) => Layout::Tnhw,
            Some(LayoutName::Nthwc) => Layout::Nthwc,
            Some(LayoutName::Ntchw) => Layout::Ntchw,
            Some(LayoutName::Tnhwc) => Layout::Tnhwc,
            Some(LayoutName::Tnchw) => Layout::Tnchw,
        };
        options.range = match self.range {
            None | Some(RangeName::Auto) => Range::Auto,
            Some(RangeName::Unit) => Range::Unit,
            Some(RangeName::Signed) => Range::Signed,
            Some(RangeName::Bytes) => Range::Bytes,
        };
        self.generators(path, &mut options)?;
        Ok(options)
    }

    /// What is made: digits of the program or of idx files, or shapes.
    fn generators(&self, path: &Path, options: &mut OpenOptions) -> Result<()> {
        let moving = [("--digits", self.digits.is_some()), ("--walls", self.walls.is_some())];
        if !is_generated(path) {
            let clips = ("--clips", self.clips.is_some());
            let reason = format!("for clips that are made, those of {} are read; leave it out", path.display());
            return refuse(&[clips, moving[0], moving[1]], &reason);
        }
        if self.clips == Some(0) || self.digits == Some(0) {
            bail!("--clips and --digits must be at least 1");
        }
        if path == Path::new("shapes") {
            refuse(&moving, "shapes are no digits; leave it out")?;
            let mut shapes = Shapes::default();
            shapes.clips = self.clips.unwrap_or(shapes.clips);
            options.shapes = Some(shapes);
            return Ok(());
        }
        let mut digits = if path == Path::new("digits") { MovingDigits::builtin() } else { MovingDigits::mnist() };
        if self.walls == Some(Walls::Bounce) {
            let of = digits;
            digits = MovingDigits { size: of.size, clips: of.clips, ..MovingDigits::original() };
            if path == Path::new("digits") {
                digits = MovingDigits { bounce: Bounce::Deterministic, ..of };
            }
        }
        digits.clips = self.clips.unwrap_or(digits.clips);
        digits.digits = self.digits.unwrap_or(digits.digits);
        options.digits = Some(digits);
        Ok(())
    }
}
