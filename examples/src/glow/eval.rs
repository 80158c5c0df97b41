//! `glow eval`.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_core::numerics::plus_minus;
use flow_image::data::Dataset;
use flow_image::io::atomic_write;
use flow_image::metrics::{bits_per_image, mean_and_error};

use super::common::{DataArg, Part, images_of, load, progress};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, counted, quoted};

/// Measure bits/dim on held-out images
#[derive(Args, Debug)]
#[command(after_help = "\
bits/dim = -log P(x) / (D ln 2), P the probability of the integer pixels: an upper bound from uniform noise.
More --draws make the bound tighter (importance weighting, Burda et al. 2016). With the default --seed the noise is that
of the report at the end of `glow train`: over as many images, both print the same number.

Examples:
  glow eval
  glow eval --checkpoint runs/cifar --data cifar-10-batches-bin --count 1000
  glow eval --draws 16 --csv bits.csv
  glow eval --split train --count 500                  compare with the test images: is it overfitting?")]
pub(super) struct EvalArgs {
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
    /// Noise draws per image
    #[arg(long, default_value_t = 1, value_name = "K")]
    draws: usize,
    /// Also write index, label and bits/dim of every image to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Seed of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count.unwrap_or(1))?;
        at_least_one("--draws", self.draws)?;
        self.csv.as_deref().map_or(Ok(()), check_output)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let set = images_of(&self.checkpoint, &run, &self.data.data, self.split)?;
        let count = self.count.unwrap_or(set.len()).min(set.len());
        let bar = progress(count, "bits/dim");
        let mut rng = FlowRng::named(self.seed, "eval");
        let bits = bits_per_image(&model, &set, count, self.draws, &mut rng, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        if let Some(path) = &self.csv {
            atomic_write(path, table(&set, &bits).as_bytes())?;
        }
        let (mean, error) = mean_and_error(&bits);
        let spec = &run.spec;
        println!(
            "{} {mean:.4} {} bits/dim over {} ({} levels = {:.2} bits, D = {}, {} per image); {}",
            self.split,
            plus_minus(error, 4),
            counted(count, "image"),
            spec.levels,
            (spec.levels as f64).log2(),
            spec.dims(),
            counted(self.draws, "draw"),
            set.source()
        );
        Ok(())
    }
}

/// One line per image; the label is empty where there is none, and pictures have their names behind.
fn table(set: &Dataset, bits: &[f64]) -> String {
    let mut text = String::from("index,label,bits_per_dim");
    text += if set.names().is_some() { ",file\n" } else { "\n" };
    for (index, bits) in bits.iter().enumerate() {
        let label = set.labels().and_then(|l| l.get(index)).map(ToString::to_string).unwrap_or_default();
        let name =
            set.names().and_then(|names| names.get(index)).map(|name| format!(",{}", quoted(name))).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{index},{label},{bits:.6}{name}");
    }
    text
}
