//! `info`, the same verb in every program: the run behind a checkpoint, or the presets.

use std::fmt::Display;

use anyhow::Result;
use candle_core::Device;
use clap::Args;
use flow_core::ParamStore;
use serde::Serialize;

use crate::cli::{CheckpointArg, refuse};

/// What `info` is told.
#[derive(Args, Debug)]
pub struct InfoArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// List the presets with their hyper-parameters instead
    #[arg(long)]
    presets: bool,
    /// With --presets: every hyper-parameter, as JSON
    #[arg(long, requires = "presets")]
    json: bool,
}

/// What there is to say of a checkpoint, a line for each fact.
#[derive(Debug, Default)]
pub struct Facts(String);

impl Facts {
    /// Begins with the hyper-parameters of the model, as JSON.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub fn of(model: &impl Serialize) -> Result<Self> {
        Ok(Facts::default().and("model", serde_json::to_string(model)?))
    }

    /// Adds a line.
    #[must_use]
    pub fn and(mut self, name: &str, value: impl Display) -> Self {
        self.0 += &format!("{name:<12} {value}\n");
        self
    }

    /// Adds the number of parameters.
    #[must_use]
    pub fn and_parameters(self, store: &ParamStore) -> Self {
        self.and("parameters", store.parameter_count())
    }
}

impl InfoArgs {
    /// Lists presets, as a table or as JSON if `presets` is given `true`; or describes the checkpoint and how it was
    /// trained: `describe` returns the facts and the unit of the objective.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, and flags of a checkpoint beside `--presets`.
    pub fn run(
        &self,
        program: &str,
        presets: impl FnOnce(bool) -> Result<()>,
        describe: impl FnOnce(&CheckpointArg, &Device) -> Result<(Facts, String)>,
    ) -> Result<()> {
        if self.presets {
            let [folder, raw] = self.checkpoint.given();
            refuse(&[folder, raw], "--presets lists what comes with the program; leave one of them out")?;
            return presets(self.json);
        }
        let (facts, unit) = describe(&self.checkpoint, &Device::Cpu)?;
        print!("{}", facts.0);
        self.checkpoint.print_training(program, &unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_lines_with_their_values_below_each_other() {
        let facts = Facts::of(&[1, 2]).unwrap().and("trained on", "digits");
        assert_eq!(facts.0, "model        [1,2]\ntrained on   digits\n");
    }
}
