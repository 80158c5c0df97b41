//! `dlgm eval`.

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;
use flow_density::dlgm::score;

use super::common::{DataArg, load};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Measure the bound, the KL term and -ln p(x)
#[derive(Args, Debug)]
#[command(after_help = "\
The free energy is an upper bound of -ln p(x); -ln p(x) is estimated by importance sampling from the posterior, from above on
average, and the effective sample size says how far to trust it. All numbers are of the same draws; errors are standard errors
of means over images. They can be compared with those of others on the same binarisation only.

Examples:
  dlgm eval
  dlgm eval --checkpoint runs/planar-40 --images 10000
  dlgm eval --checkpoint runs/planar-40 --split train --draws 1000")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Images to score, from the first
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Draws from the posterior of each image
    #[arg(long, default_value_t = 200)]
    draws: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--images", self.images)?;
        at_least_one("--draws", self.draws)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let images = self.data.images(&run, &self.checkpoint)?;
        println!("{}", score(&model, &images, self.images, self.draws, &mut FlowRng::named(self.seed, "eval"))?);
        Ok(())
    }
}
