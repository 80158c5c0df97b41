//! Training by likelihood: what a step computes, what a run is, how a checkpoint becomes a model again.
//!
//! The loop itself is [`flow_core::train::Trainer`]; [`GraphTask`] supplies it with molecules in fresh
//! breadth-first orders and with their gradient.

use std::path::Path;

use candle_core::{DType, Device};
use flow_core::train::{
    self, CursorState, EmaConfig, EpochCursor, Metrics, OptimizerConfig, ScheduleConfig, Task, TrainConfig,
};
use flow_core::{FlowRng, Gradients, ParamStore};
use serde::{Deserialize, Serialize};

pub use crate::model::random_order;
use crate::model::{GraphAf, GraphAfConfig, SampleOptions, Sequence};
use crate::{Error, Result};

/// A training run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GraphRun {
    /// The model.
    pub model: GraphAfConfig,
    /// Where the molecules came from, in words.
    pub source: String,
    /// Molecules per step.
    pub batch: usize,
    /// Seed of the parameters, of the order of the molecules and of their atoms.
    pub seed: u64,
    /// Held-out molecules that a validation looks at.
    pub validation_molecules: usize,
}

impl GraphRun {
    /// A run of `model` on molecules from `source`, `batch` a step; validations look at a thousand held-out molecules.
    pub fn new(model: GraphAfConfig, source: impl Into<String>, batch: usize, seed: u64) -> Self {
        GraphRun { model, source: source.into(), batch, seed, validation_molecules: 1000 }
    }

    /// The run that made a checkpoint, from its `config.json`.
    ///
    /// # Errors
    /// [`flow_core::Error::Checkpoint`] naming the folder when the configuration is missing or is not that of a
    /// GraphAF model.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        Ok(train::load_run(checkpoint, "a GraphAF model")?)
    }

    /// Builds the model with fresh parameters.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field that is out of range.
    pub fn build(&self, device: &Device) -> Result<GraphAf> {
        GraphAf::new(self.model.clone(), &ParamStore::new(self.seed, DType::F32, device))
    }
}

/// The model of a checkpoint, with the averaged weights if `average` and it has them.
///
/// `path` is a checkpoint, or a run's folder (its best checkpoint is taken).
///
/// # Errors
/// [`flow_core::Error::Checkpoint`] or [`flow_core::Error::Io`] naming the file and the difference.
pub fn load(path: &Path, device: &Device, average: bool) -> Result<(GraphRun, GraphAf)> {
    let checkpoint = train::find_checkpoint(path)?;
    let run = GraphRun::read(&checkpoint)?;
    let model = run.build(device)?;
    train::load_averaged(&checkpoint, model.store(), average)?;
    Ok((run, model))
}

/// The engine's configuration of the default recipe: Adam with warm-up, cosine decay, clipping and averaged weights.
///
/// The paper's recipe is Adam at a constant 1e-3 with batches of 32 for 10 epochs.
pub fn train_config(steps: u64, seed: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(1e-3),
        schedule: ScheduleConfig::cosine((steps / 20).min(200), 0.01),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig { decay: 0.999 }),
        seed,
        ..TrainConfig::default()
    }
}

/// A [`GraphAf`] with its molecules, as the training engine sees it.
pub struct GraphTask {
    run: GraphRun,
    model: GraphAf,
    train: Vec<Sequence>,
    validation: Vec<Sequence>,
    cursor: EpochCursor,
}

impl GraphTask {
    /// Builds the model of `run` for these molecules.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when the batch does not fit the data or the model is not possible.
    pub fn new(run: GraphRun, train: Vec<Sequence>, validation: Vec<Sequence>, device: &Device) -> Result<Self> {
        let model = run.build(device)?;
        let cursor = EpochCursor::new(train.len(), run.batch, run.seed)?;
        Ok(GraphTask { run, model, train, validation, cursor })
    }

    /// The run's description.
    pub fn run(&self) -> &GraphRun {
        &self.run
    }

    /// The model.
    pub fn model(&self) -> &GraphAf {
        &self.model
    }

    /// Fresh orders of some molecules, such that every bond can be expressed.
    fn ordered(&self, molecules: &[&Sequence], rng: &mut FlowRng) -> Result<Vec<Sequence>> {
        molecules.iter().map(|m| random_order(m, &self.run.model, rng)).collect()
    }
}

/// The crate's errors as the engine's: the message is kept, the variant where there is one.
fn core(error: Error) -> flow_core::Error {
    match error {
        Error::Core(e) => e,
        other => flow_core::Error::config("training molecules", other.to_string()),
    }
}

impl Task for GraphTask {
    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn config(&self) -> serde_json::Value {
        // Plain data with string keys always serialises.
        serde_json::to_value(&self.run).unwrap_or_default()
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> flow_core::Result<()> {
        const MOLECULES: usize = 256;
        let order = rng.permutation(self.train.len());
        let some: Vec<&Sequence> = order.iter().take(MOLECULES).map(|&i| &self.train[i]).collect();
        let ordered = self.ordered(&some, rng).map_err(core)?;
        self.model.initialize(&ordered).map_err(core)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> flow_core::Result<Metrics> {
        let mut batch = self.cursor.next_batch();
        let molecules: Vec<&Sequence> = batch.indices.iter().map(|&i| &self.train[i]).collect();
        let ordered = self.ordered(&molecules, &mut batch.rng).map_err(core)?;
        let scored = self.model.backward(&ordered, rng, gradients).map_err(core)?;
        Ok(vec![
            ("bits_per_atom".into(), scored.bits_per_atom()),
            ("nats_per_molecule".into(), scored.nats_per_molecule()),
        ])
    }

    fn validate(&mut self, rng: &mut FlowRng) -> flow_core::Result<Metrics> {
        let held_out = if self.validation.is_empty() { &self.train } else { &self.validation };
        let some: Vec<&Sequence> = held_out.iter().take(self.run.validation_molecules).collect();
        let ordered = self.ordered(&some, rng).map_err(core)?;
        let scored = self.model.log_prob(&ordered, rng).map_err(core)?;
        Ok(vec![("bits_per_atom".into(), scored.bits_per_atom())])
    }

    fn data_state(&self) -> serde_json::Value {
        serde_json::to_value(self.cursor.state()).unwrap_or_default()
    }

    fn restore_data_state(&mut self, state: &serde_json::Value) -> flow_core::Result<()> {
        let state: CursorState = serde_json::from_value(state.clone())
            .map_err(|e| flow_core::Error::config("position in the data", e.to_string()))?;
        self.cursor = EpochCursor::restore(self.train.len(), self.run.batch, state)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn unit(&self) -> &str {
        "bits/atom"
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> flow_core::Result<()> {
        const MOLECULES: usize = 40;
        let drawn = self.model.sample(MOLECULES, &SampleOptions::default(), rng).map_err(core)?;
        let vocabulary = &self.run.model.vocabulary;
        let molecules = drawn.iter().map(|g| g.sequence.molecule(vocabulary)).collect::<Result<Vec<_>>>();
        let molecules = molecules.map_err(core)?;
        let name = |extension: &str| folder.join(format!("samples-{step:08}.{extension}"));
        let lines: String = molecules.iter().map(|m| crate::canonical_smiles(m) + "\n").collect();
        flow_core::files::atomic_write(&name("smi"), lines.as_bytes())?;
        #[cfg(feature = "chem")]
        {
            let cells: Vec<_> = molecules.iter().map(|m| (m, crate::canonical_smiles(m))).collect();
            crate::chem::write_grid(name("png"), &cells, 8).map_err(core)?;
        }
        Ok(())
    }
}
