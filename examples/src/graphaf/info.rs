//! `graphaf info`.

use anyhow::Result;
use clap::Args;
use flow_graph::model::{GraphAfConfig, Vocabulary};

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
            let vocabulary = Vocabulary::paper();
            println!("paper   {}", serde_json::to_string(&GraphAfConfig::paper(vocabulary.clone(), 38))?);
            println!("spline  {}", serde_json::to_string(&GraphAfConfig::spline(vocabulary, 38))?);
            println!("Vocabulary and size follow the data, but that the paper's vocabulary is its own.");
            return Ok(());
        }
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let types: Vec<String> = run.model.vocabulary.types().iter().map(ToString::to_string).collect();
        println!("model        {}", serde_json::to_string(&run.model)?);
        println!("atom types   {}", types.join(" "));
        println!("largest      {} atoms", run.model.max_atoms);
        println!("trained on   {}", run.source);
        println!("parameters   {}", model.store().parameter_count());
        self.checkpoint.print_training(PROGRAM, "bits/atom")
    }
}
