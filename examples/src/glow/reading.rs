//! How files become images: the flags of a training.

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};
use flow_image::data::{self, ArrayOptions, Channels, FolderOptions, Layout, OpenOptions, Range, Resize};

use crate::cli::refuse;

/// How colour is read from picture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// As the files are.
    Auto,
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// What the axes of an array mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutName {
    /// Where only one meaning fits, that.
    Auto,
    /// [N, H, W]
    Nhw,
    /// [N, C, H, W], any number of channels.
    Nchw,
    /// [N, H, W, C], any number of channels.
    Nhwc,
    /// [H, W, C, N], MATLAB's order.
    Hwcn,
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

/// What is done to images as they are read.
#[derive(Args, Debug)]
pub(super) struct ReadingArg {
    /// Bits per pixel, 1 to 8; lower bits are dropped
    #[arg(long)]
    bits: Option<u32>,
    /// Crop pictures to a square and resize them to this side (folders of pictures)
    #[arg(long, value_name = "SIDE")]
    resize: Option<u32>,
    /// Colour of pictures (folders of pictures) [default: auto]
    #[arg(long, value_enum)]
    colour: Option<Colour>,
    /// Leave out, and count, pictures that cannot be decoded (folders of pictures)
    #[arg(long)]
    skip_broken: bool,
    /// What the axes mean (.npy, .npz) [default: auto]
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,
    /// Between which values floats lie (.npy, .npz) [default: auto]
    #[arg(long, value_enum)]
    range: Option<RangeName>,
    /// Remove images that are there twice, or in two of the parts; without it they are counted
    #[arg(long)]
    dedup: bool,
    /// Pad sides with zeros to a multiple of this
    #[arg(long, value_name = "N")]
    pad: Option<usize>,
}

impl ReadingArg {
    /// Refuses flags that the files at a path do not read.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        if !data::holds_pictures(path) && (path.exists() || path == Path::new("digits")) {
            let reason = format!(
                "for folders of pictures, {} is none; leave it out, --pad and --bits are for all images",
                path.display()
            );
            let flags = [
                ("--resize", self.resize.is_some()),
                ("--colour", self.colour.is_some()),
                ("--skip-broken", self.skip_broken),
            ];
            refuse(&flags, &reason)?;
        }
        if !data::holds_arrays(path) && (path.exists() || path == Path::new("digits")) {
            let reason = format!("for arrays (.npy, .npz), {} is none; leave it out", path.display());
            refuse(&[("--layout", self.layout.is_some()), ("--range", self.range.is_some())], &reason)?;
        }
        Ok(())
    }

    /// The flags as the readers take them.
    pub(super) fn options(&self) -> OpenOptions {
        let channels = match self.colour {
            None | Some(Colour::Auto) => Channels::Auto,
            Some(Colour::Gray) => Channels::Gray,
            Some(Colour::Rgb) => Channels::Rgb,
        };
        let mut options = OpenOptions::default();
        options.folder = FolderOptions::new(self.resize.map(Resize::from), channels).skipping_broken(self.skip_broken);
        let layout = match self.layout {
            None | Some(LayoutName::Auto) => Layout::Auto,
            Some(LayoutName::Nhw) => Layout::Nhw,
            Some(LayoutName::Nchw) => Layout::Nchw,
            Some(LayoutName::Nhwc) => Layout::Nhwc,
            Some(LayoutName::Hwcn) => Layout::Hwcn,
        };
        let range = match self.range {
            None | Some(RangeName::Auto) => Range::Auto,
            Some(RangeName::Unit) => Range::Unit,
            Some(RangeName::Signed) => Range::Signed,
            Some(RangeName::Bytes) => Range::Bytes,
        };
        options.array = ArrayOptions::new(layout, range);
        (options.pad, options.bits, options.dedup) = (self.pad, self.bits, self.dedup);
        options
    }
}
