//! `dlgm reconstruct`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use flow_core::FlowRng;

use super::common::{DataArg, load};
use super::pictures::write_reconstructions;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, create_parent};

/// Encode images and decode them again
#[derive(Args, Debug)]
#[command(after_help = "\
The sheet has rows of images, as the model sees them, and below each the probabilities of the pixels that one draw from its
posterior decodes to.

Examples:
  dlgm reconstruct
  dlgm reconstruct --checkpoint runs/planar-40 --split validation --count 30 --out copies.png")]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Number of images, from the first
    #[arg(long, default_value_t = 50)]
    count: usize,
    /// PNG file to write
    #[arg(long, default_value = "flow-out/dlgm/reconstructed.png", value_name = "FILE")]
    out: PathBuf,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

impl ReconstructArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        check_output(&self.out)?;
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let images = self.data.images(&run, &self.checkpoint)?;
        create_parent(&self.out)?;
        let mut rng = FlowRng::named(self.seed, "reconstruct");
        let count = write_reconstructions(&model, &images, self.count, &self.out, &mut rng)?;
        println!("{count} of {} images; {}", images.len(), self.out.display());
        Ok(())
    }
}
