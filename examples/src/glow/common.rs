//! Flags and loading that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_image::data::{self, Channels, Dataset, OpenOptions, Resize, Splits};
use flow_image::model::ImageModel;
use flow_image::trainer::ImageRun;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::CheckpointArg;

/// Where images come from.
#[derive(Args, Debug, Clone)]
pub(super) struct DataArg {
    /// Images: MNIST/Fashion idx files, CIFAR-10 binary, .npy, a folder of PNG/JPEG/WebP, or "digits" (built in)
    #[arg(long, default_value = "digits", value_name = "PATH")]
    pub(super) data: PathBuf,
}

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(ImageRun, ImageModel)> {
    Ok(flow_core::train::load(&checkpoint.folder("glow"), device, !checkpoint.raw_weights)?)
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// What models are trained on.
    Train,
    /// What checkpoints are chosen by.
    Validation,
    /// What nothing was fitted to.
    Test,
}

impl Part {
    /// The images of this part.
    pub(super) fn of(self, splits: Splits) -> Result<Dataset> {
        let set = match self {
            Part::Train => splits.train,
            Part::Validation => splits.validation,
            Part::Test => splits.test,
        };
        if set.is_empty() {
            bail!("{}: the {self} part has no images", set.source());
        }
        Ok(set)
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
        })
    }
}

/// Reads images the way the run read its own: same size, channels and levels.
pub(super) fn images_for(run: &ImageRun, path: &Path) -> Result<Splits> {
    fitting(run, path, &run.open)
}

/// As [`images_for`], but pictures of any size are cropped and resampled to the model's.
pub(super) fn images_resized_for(run: &ImageRun, path: &Path) -> Result<Splits> {
    let mut options = run.open;
    if options.folder.resize.is_none() && options.pad.is_none() {
        options.folder.resize = Some(Resize { height: run.spec.height as u32, width: run.spec.width as u32 });
    }
    fitting(run, path, &options)
}

fn fitting(run: &ImageRun, path: &Path, options: &OpenOptions) -> Result<Splits> {
    let mut options = *options;
    if options.folder.channels == Channels::Auto {
        // "Auto" looked at the training pictures; others must become what those were.
        options.folder.channels = if run.spec.channels == 1 { Channels::Gray } else { Channels::Rgb };
    }
    let splits = data::open(path, &options)?;
    let (shape, levels) = (splits.train.shape(), splits.train.levels());
    if shape != run.spec.event_shape() || levels != run.spec.levels {
        let (path, spec) = (path.display(), &run.spec);
        let wanted = spec.event_shape();
        bail!("{path}: images are {shape:?} with {levels} levels, the model is for {wanted:?} with {}", spec.levels);
    }
    Ok(splits)
}

/// A class from its name or number.
pub(super) fn class_number(run: &ImageRun, flag: &str, class: &str) -> Result<u32> {
    let named = run.class_names.iter().position(|n| n == class).map(|i| i as u32);
    let number = || class.parse().ok().filter(|&n: &u32| (n as usize) < run.class_names.len());
    match named.or_else(number) {
        Some(label) => Ok(label),
        None => bail!("{flag} {class}: neither a number nor one of the classes {}", run.class_names.join(", ")),
    }
}

/// A bar on stderr for work counted in images; invisible where stderr is no terminal.
pub(super) fn progress(count: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(count as u64).with_message(what.to_string());
    // The template is fixed and valid; the default is a bar as well.
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} images, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
