//! `pointflow info`.

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::common::{PROGRAM, Preset, load};
use crate::cli::{CheckpointArg, DeviceArg};

/// Describe a checkpoint or the presets
#[derive(Args, Debug)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// List the presets with their hyper-parameters instead
    #[arg(long)]
    presets: bool,
    #[command(flatten)]
    device: DeviceArg,
}

impl InfoArgs {
    pub(super) fn run(self) -> Result<()> {
        if self.presets {
            for preset in Preset::value_variants() {
                let name = preset.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
                println!("{name:<20} {}", serde_json::to_string(&preset.config())?);
            }
            return Ok(());
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        println!("model        {}", serde_json::to_string(&run.model)?);
        println!("trained on   {}", run.source);
        println!("batch        {} clouds of {} points", run.batch, run.points);
        println!("normalized   {}", serde_json::to_string(&run.normalization)?);
        println!("parameters   {}", model.store().parameter_count());
        self.checkpoint.print_training(PROGRAM, run.model.objective.unit())
    }
}
