//! `density info`.

use anyhow::Result;
use clap::Args;
use flow_density::data::Toy;
use flow_density::model::{Kind, ModelConfig};

use super::common::{PROGRAM, load};
use crate::cli::{CheckpointArg, DeviceArg};

/// Describe a checkpoint, or the toys with their entropies
#[derive(Args, Debug)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// List the toys with their entropies and the models with their hyper-parameters instead
    #[arg(long)]
    presets: bool,
    #[command(flatten)]
    device: DeviceArg,
}

impl InfoArgs {
    pub(super) fn run(self) -> Result<()> {
        if self.presets {
            for toy in Toy::ALL {
                println!("{:<13}{:.4} nats", toy.name(), toy.entropy());
            }
            for kind in Kind::ALL {
                println!("{}", serde_json::to_string(&ModelConfig::preset(kind))?);
            }
            return Ok(());
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        println!("model        {}", serde_json::to_string(&run.model)?);
        println!("trained on   {}, {} columns", run.data, run.features());
        if let Some(straightened) = &run.straightened {
            let how = if straightened.distilled { "distilled into one step from" } else { "straightened from" };
            println!("paths        {how} {}, {} samples", straightened.teacher, straightened.pairs);
        }
        println!("parameters   {}", model.store().parameter_count());
        let unit = if run.straightened.is_some() { "squared error" } else { "nats" };
        self.checkpoint.print_training(PROGRAM, unit)
    }
}
