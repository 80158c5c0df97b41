//! `glow encode`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_image::data::Dataset;

use super::common::{DataArg, Part, images_for, load, progress};
use super::latents::{LatentFile, decode_images, encode_images};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output};

/// Turn images into latents
#[derive(Args, Debug)]
#[command(after_help = "\
The file is safetensors: z0, z1, … from the finest level to the top, whitened (standard normal where the model is
right), labels where there are labels, and the model's fingerprint. `glow decode` turns it back into the same pixels.

Examples:
  glow encode --count 100
  glow encode --checkpoint runs/cifar --data photos/ --split train --out photos.safetensors")]
pub(super) struct EncodeArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::Test)]
    split: Part,
    /// Number of images, from the first [default: all]
    #[arg(long)]
    count: Option<usize>,
    /// File to write
    #[arg(long, default_value = "flow-out/latents.safetensors", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
}

impl EncodeArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count.unwrap_or(1))?;
        check_output(&self.out)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let set = images_for(&run, &self.data.data, self.split)?;
        let indices: Vec<usize> = (0..self.count.unwrap_or(set.len()).min(set.len())).collect();
        let bar = progress(2 * indices.len(), "encoding");
        let latents = encode_images(&model, &set, &indices, &bar)?;
        let labels = set.labels_of(&indices);
        let back = decode_images(&model, &latents, labels.as_deref(), &bar)?;
        bar.finish_and_clear();
        let different = differing(&set, &indices, &back.flatten_all()?.to_vec1()?)?;
        let source = format!("{}, first {} of {}", set.source(), indices.len(), self.split);
        LatentFile { latents, labels, source }.write(&self.out, &model)?;
        let pixels = indices.len() * run.spec.dims();
        println!(
            "{} images as {} latents {:?} in {}; decoded again, {different} of {pixels} values differ",
            indices.len(),
            model.flow().latent_shapes().len(),
            model.flow().latent_shapes(),
            self.out.display()
        );
        Ok(())
    }
}

/// How many values of the images did not come back.
fn differing(set: &Dataset, indices: &[usize], back: &[u8]) -> Result<usize> {
    Ok(set.gather(indices)?.iter().zip(back).filter(|(a, b)| a != b).count())
}
