//! Training by likelihood: what a step computes, what a run is, how a checkpoint becomes a model again.
//!
//! The loop itself is [`flow_core::train::Trainer`]; [`GraphTask`] supplies it with molecules in fresh
//! breadth-first orders and with their gradient.

use std::path::Path;

use candle_core::{DType, Device};
use flow_core::train::{
    self, CursorState, EmaConfig, EpochCursor, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Run,
    ScheduleConfig, Task, TrainConfig,
};
use flow_core::{FlowRng, Gradients, ParamStore};
use serde::{Deserialize, Serialize};

pub use crate::model::random_order;
use crate::model::{GraphAf, GraphAfConfig, SampleOptions, Scored, Sequence};
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
}

impl Run for GraphRun {
    type Model = GraphAf;
    type Error = Error;
    const DESCRIBES: &'static str = "a GraphAF model";

    fn build(&self, device: &Device) -> Result<GraphAf> {
        GraphAf::new(self.model.clone(), &ParamStore::new(self.seed, DType::F32, device))
    }
}

impl train::Model for GraphAf {
    fn store(&self) -> &ParamStore {
        GraphAf::store(self)
    }
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
    ranks: Ranks,
}

impl GraphTask {
    /// Builds the model of `run` for these molecules.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when the batch does not fit the data or the model is not possible.
    pub fn new(run: GraphRun, train: Vec<Sequence>, validation: Vec<Sequence>, device: &Device) -> Result<Self> {
        let model = run.build(device)?;
        let cursor = EpochCursor::new(train.len(), run.batch, run.seed)?;
        Ok(GraphTask { run, model, train, validation, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &GraphAf {
        &self.model
    }

    /// Fresh orders of some molecules, such that every bond can be expressed.
    fn ordered(&self, molecules: &[&Sequence], rng: &mut FlowRng) -> Result<Vec<Sequence>> {
        rng.per_row(molecules.len(), |i, rng| random_order(molecules[i], &self.run.model, rng))
    }
}

/// By what a run knows its molecules again, in their order.
pub fn fingerprint(train: &[Sequence], validation: &[Sequence]) -> Fingerprint {
    let parts = [("train", train), ("validation", validation)];
    Fingerprint::of_parts("molecules", &parts, |hash, molecule| molecule.hash(hash))
}

/// The bits of an atom, a mean over atoms.
fn atoms_metrics(scored: &Scored) -> Metrics {
    Metrics::new(Metric::new("bits_per_atom", "bits/atom", scored.bits_per_atom()).over(scored.atoms as f64))
}

impl Task for GraphTask {
    type Run = GraphRun;
    type Position = CursorState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &GraphRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(fingerprint(&self.train, &self.validation))
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        const MOLECULES: usize = 256;
        let order = rng.permutation(self.train.len());
        let some: Vec<&Sequence> = order.iter().take(MOLECULES).map(|&i| &self.train[i]).collect();
        let ordered = self.ordered(&some, rng)?;
        self.model.initialize(&ordered)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let batch = self.cursor.next_batch();
        let share = self.ranks.share(batch.indices.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let molecules: Vec<&Sequence> = batch.indices[share.range()].iter().map(|&i| &self.train[i]).collect();
        let ordered = self.ordered(&molecules, &mut batch.rng.for_rows(share))?;
        let scored = self.model.backward(&ordered, &mut rng.for_rows(share), gradients)?;
        let per_molecule = Metric::new("nats_per_molecule", "nats/molecule", scored.nats_per_molecule());
        // The gradient is the mean over decisions.
        Ok(atoms_metrics(&scored).with(per_molecule.over(share.count as f64)).over(scored.decisions as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let held_out = if self.validation.is_empty() { &self.train } else { &self.validation };
        let some: Vec<&Sequence> = held_out.iter().take(self.run.validation_molecules).collect();
        let share = self.ranks.share(some.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let rng = &mut rng.for_rows(share);
        let ordered = self.ordered(&some[share.range()], rng)?;
        Ok(atoms_metrics(&self.model.log_prob(&ordered, rng)?).over(share.count as f64))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> Result<()> {
        const MOLECULES: usize = 40;
        let drawn = self.model.sample(MOLECULES, &SampleOptions::default(), rng)?;
        let vocabulary = &self.run.model.vocabulary;
        let molecules = drawn.iter().map(|g| g.sequence.molecule(vocabulary)).collect::<Result<Vec<_>>>();
        let molecules = molecules?;
        let name = |extension: &str| folder.join(format!("samples-{step:08}.{extension}"));
        let lines: String = molecules.iter().map(|m| crate::canonical_smiles(m) + "\n").collect();
        flow_core::files::atomic_write(&name("smi"), lines.as_bytes())?;
        #[cfg(feature = "chem")]
        {
            let cells: Vec<_> = molecules.iter().map(|m| (m, crate::canonical_smiles(m))).collect();
            crate::chem::write_grid(name("png"), &cells, 8)?;
        }
        Ok(())
    }
}
