//! Flags and loading that several verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::train::{find_checkpoint, load_config};
use flow_image::codec::{Idf, IdfRun};
use flow_image::data::{self, Channels, Dataset, OpenOptions, Resize, Splits};
use flow_image::model::ImageModel;
use flow_image::trainer::ImageRun;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::CheckpointArg;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "glow";

/// Where images come from.
#[derive(Args, Debug, Clone)]
pub(super) struct DataArg {
    /// Images: idx files (MNIST, Fashion, EMNIST), CIFAR-10/100, .npy, .npz, a folder of pictures, or "digits" (built in)
    #[arg(long, default_value = "digits", value_name = "PATH")]
    pub(super) data: PathBuf,
}

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(ImageRun, ImageModel)> {
    let folder = checkpoint.folder(PROGRAM);
    if is_codec(&folder)? {
        bail!(
            "checkpoint {}: is a lossless codec, which compress, decompress and info use; this verb needs an image model, \
             such as `glow train` makes by default",
            folder.display()
        );
    }
    Ok(flow_core::train::load(&folder, device, !checkpoint.raw_weights)?)
}

/// Loads the codec of a run's folder.
pub(super) fn load_codec(folder: &Path, average: bool) -> Result<(IdfRun, Idf)> {
    let config = load_config(&find_checkpoint(folder)?)?;
    if let Some(family) = config.pointer("/model/family").and_then(|family| family.as_str()) {
        bail!(
            "checkpoint {}: is a {family}, which has no codes; compress and decompress need a lossless codec: \
             glow train --model idf-… (the names: glow info --presets)",
            folder.display()
        );
    }
    Ok(flow_core::train::load::<IdfRun>(folder, &Device::Cpu, average)?)
}

/// Whether a checkpoint is that of a lossless codec.
pub(super) fn is_codec(folder: &Path) -> Result<bool> {
    Ok(load_config(&find_checkpoint(folder)?)?.get("codec").is_some())
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
    /// All images, in the order of the source.
    All,
}

impl Part {
    /// The images of this part of a path, after a line on stderr about what they are, and what was not read as it is.
    pub(super) fn read(self, path: &Path, options: &OpenOptions) -> Result<Dataset> {
        if self == Part::All {
            let set = data::open_all(path, options)?;
            eprintln!("data: all {} images of {}", set.len(), set.source());
            tell(set.notes().iter().map(String::as_str));
            return Ok(set);
        }
        self.of(data::open(path, options)?)
    }

    /// The images of this part of a data set, [`Part::All`] in the order of its parts, with the line of [`Part::read`].
    pub(super) fn of(self, splits: Splits) -> Result<Dataset> {
        tell(splits.notes());
        let all = splits.train.len() + splits.validation.len() + splits.test.len();
        let Splits { train, validation, test } = splits;
        let set = match self {
            Part::Train => train,
            Part::Validation => validation,
            Part::Test => test,
            Part::All => {
                let parts = [train, validation, test].into_iter().filter(|set| !set.is_empty()).collect();
                Dataset::concat(parts)?
            }
        };
        if set.is_empty() {
            bail!("{}: the {self} part has no images; --split all takes all of them", set.source());
        }
        eprintln!("data: {self} part, {} of {all} images; {}", set.len(), set.source());
        Ok(set)
    }
}

/// Prints what was left out, changed or rounded in reading.
pub(super) fn tell<'a>(notes: impl IntoIterator<Item = &'a str>) {
    notes.into_iter().for_each(|note| eprintln!("note: {note}"));
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
            Part::All => "all",
        })
    }
}

/// The images of a part of a path, read the way the run read its own: same size, channels and levels.
pub(super) fn images_for(run: &ImageRun, path: &Path, part: Part) -> Result<Dataset> {
    let set = part.read(path, &options_for(run))?;
    check_fit(run, path, &set).map(|()| set)
}

/// As [`images_for`], with a line on stderr if the parts were not cut of what the run was trained on.
pub(super) fn images_of(checkpoint: &CheckpointArg, run: &ImageRun, path: &Path, part: Part) -> Result<Dataset> {
    if part == Part::All {
        return images_for(run, path, part);
    }
    let splits = splits_for(run, path)?;
    checkpoint.note_other_data(PROGRAM, &splits.fingerprint())?;
    part.of(splits)
}

/// All parts of a path, read the way the run read its own.
pub(super) fn splits_for(run: &ImageRun, path: &Path) -> Result<Splits> {
    let splits = data::open(path, &options_for(run))?;
    check_fit(run, path, &splits.train).map(|()| splits)
}

/// As [`images_for`], but pictures of any size are cropped and resampled to the model's.
pub(super) fn images_resized_for(run: &ImageRun, path: &Path, part: Part) -> Result<Dataset> {
    let mut options = options_for(run);
    if options.folder.resize.is_none() && options.pad.is_none() {
        options.folder.resize = Some(Resize::new(run.spec.height as u32, run.spec.width as u32));
    }
    let set = part.read(path, &options)?;
    check_fit(run, path, &set).map(|()| set)
}

fn options_for(run: &ImageRun) -> OpenOptions {
    let mut options = run.open;
    if options.folder.channels == Channels::Auto {
        // "Auto" looked at the training pictures; others must become what those were.
        options.folder.channels = if run.spec.channels == 1 { Channels::Gray } else { Channels::Rgb };
    }
    options
}

fn check_fit(run: &ImageRun, path: &Path, set: &Dataset) -> Result<()> {
    let (shape, levels) = (set.shape(), set.levels());
    if shape != run.spec.event_shape() || levels != run.spec.levels {
        let (path, spec) = (path.display(), &run.spec);
        let wanted = spec.event_shape();
        bail!("{path}: images are {shape:?} with {levels} levels, the model is for {wanted:?} with {}", spec.levels);
    }
    Ok(())
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
