//! Flags and loading that several verbs share.

use std::path::PathBuf;

use anyhow::Result;
use candle_core::Device;
use clap::Args;
use flow_image::data::{self, OpenOptions, Splits};
use flow_image::model::ImageModel;
use flow_image::trainer::{self, ImageRun};

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
    Ok(trainer::load(&checkpoint.checkpoint, device, !checkpoint.raw_weights)?)
}

/// Reads images the way the run read its own: same size, channels and levels.
pub(super) fn images_for(run: &ImageRun, data: &DataArg) -> Result<Splits> {
    let options: OpenOptions = run.open.clone();
    let splits = data::open(&data.data, &options)?;
    let (shape, levels) = (splits.train.shape(), splits.train.levels());
    if shape != run.spec.event_shape() || levels != run.spec.levels {
        let spec = &run.spec;
        anyhow::bail!(
            "{}: images are {shape:?} with {levels} levels, the model is for {:?} with {}",
            data.data.display(),
            spec.event_shape(),
            spec.levels
        );
    }
    Ok(splits)
}
