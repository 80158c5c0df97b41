//! `pointflow info`.

use anyhow::Result;
use clap::Args;
use flow_points::model::PointFlowConfig;

use super::common::{PROGRAM, load};
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
            let presets = [
                ("small", PointFlowConfig::small()),
                ("matching", PointFlowConfig::matching()),
                ("paper", PointFlowConfig::paper()),
                ("paper-auto-encoder", PointFlowConfig::paper_auto_encoder()),
            ];
            for (name, config) in presets {
                println!("{name:<20} {}", serde_json::to_string(&config)?);
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
