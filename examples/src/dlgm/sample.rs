//! `dlgm sample`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use flow_core::FlowRng;

use super::common::load;
use super::pictures::{Draw, write_samples};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, create_parent};

/// Draw images from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
A latent vector is drawn from the prior and decoded to the probability of every pixel, which the picture shows as brightness;
--binary draws the pixels.

Examples:
  dlgm sample
  dlgm sample --count 64 --temperature 0.8 --out digits.png
  dlgm sample --checkpoint runs/planar-40 --binary --seed 7")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Number of images
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Columns of the sheet, 0 for a square one
    #[arg(long, default_value_t = 0)]
    columns: usize,
    /// Standard deviation of the latents
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Draw pixels instead of showing their probabilities
    #[arg(long)]
    binary: bool,
    /// PNG file to write
    #[arg(long, default_value = "flow-out/dlgm/drawn.png", value_name = "FILE")]
    out: PathBuf,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        ensure!(
            self.temperature.is_finite() && self.temperature >= 0.0,
            "--temperature must be a finite number of at least 0, got {}",
            self.temperature
        );
        check_output(&self.out)?;
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        create_parent(&self.out)?;
        let draw = Draw { count: self.count, temperature: self.temperature, binary: self.binary };
        write_samples(&model, draw, self.columns, &self.out, &mut FlowRng::named(self.seed, "sample"))?;
        println!("{} at temperature {}; {}", counted(self.count, "image"), self.temperature, self.out.display());
        Ok(())
    }
}
