//! `glow info`.

use anyhow::Result;
use clap::Args;
use flow_image::model::{PRESETS, preset};

use super::common::load;
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
            for name in PRESETS {
                let p = preset(name)?;
                println!("{name:22} {} of {} levels; {}", p.spec, p.spec.levels, serde_json::to_string(&p.model)?);
            }
            return Ok(());
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        println!("model        {}", serde_json::to_string(&run.model)?);
        println!("images       {} of {} levels, D = {}", run.spec, run.spec.levels, run.spec.dims());
        println!("trained on   {}", run.source);
        println!(
            "classes      {}",
            if run.class_names.is_empty() { "none".into() } else { run.class_names.join(", ") }
        );
        println!("parameters   {}", model.store().parameter_count());
        println!("latents      {:?}", model.flow().latent_shapes());
        self.checkpoint.print_training("glow", "bits/dim")
    }
}
