//! `glow info`.

use anyhow::{Context, Result};
use clap::Args;
use flow_core::train::{RunState, find_checkpoint, load_train_config};
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
        println!("latents      {:?}", model.density().latent_shapes());
        self.training()
    }

    /// How far the run has come and how it was trained, where the checkpoint says so.
    fn training(&self) -> Result<()> {
        let checkpoint = find_checkpoint(&self.checkpoint.checkpoint)?;
        println!("checkpoint   {}", checkpoint.display());
        if let Some(config) = load_train_config(&checkpoint)? {
            println!("training     {}", serde_json::to_string(&config)?);
        }
        let path = checkpoint.join("state.json");
        if path.exists() {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let state: RunState = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            println!("step         {} after {:.0} s", state.step, state.seconds);
            if state.best.is_finite() {
                println!("best         {:.4} bits/dim in validation at step {}", state.best, state.best_step);
            }
        }
        Ok(())
    }
}
