//! `glow decode`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_image::io::{Pixels, write_images};

use super::common::{load, progress};
use super::latents::{LatentFile, count, decode_images};
use super::sheet::{Names, Sheet, check_drawable};
use crate::cli::{CheckpointArg, DeviceArg, check_output, counted, create_folder};

/// Turn latents back into images
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  glow decode
  glow decode --latents photos.safetensors --images photos-again/")]
pub(super) struct DecodeArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// File of `glow encode`
    #[arg(long, default_value = "flow-out/latents.safetensors", value_name = "FILE")]
    latents: PathBuf,
    /// Picture to write, or an array: .npy, .npz
    #[arg(long, default_value = "flow-out/decoded.png", value_name = "FILE")]
    out: PathBuf,
    /// Also write every image as a PNG of its own into this folder
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Columns of the grid; 0 makes it square
    #[arg(long, default_value_t = 0)]
    columns: usize,
    #[command(flatten)]
    device: DeviceArg,
}

impl DecodeArgs {
    pub(super) fn run(self) -> Result<()> {
        check_output(&self.out)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        check_drawable(run.spec.channels, &self.out)?;
        let file = LatentFile::read(&self.latents, &model)?;
        let bar = progress(count(&file.latents)?, "decoding");
        let images = decode_images(&model, &file.latents, file.labels.as_deref(), &bar)?;
        bar.finish_and_clear();
        if let Some(folder) = &self.images {
            create_folder(folder)?;
            write_images(folder, "image", &Pixels::from_tensor(&images, run.spec.levels)?)?;
        }
        let labels = file.labels.map(|labels| (labels, run.class_names.clone()));
        let names = Names::default();
        let sheet = Sheet { images: &images, levels: run.spec.levels, columns: self.columns, names, labels };
        println!("{} in {} ({})", counted(images.dim(0)?, "image"), sheet.write(&self.out)?, file.source);
        Ok(())
    }
}
