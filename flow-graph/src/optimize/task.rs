//! Fine-tuning as the training engine sees it.

use std::collections::BTreeMap;

use flow_core::train::{Metric, Metrics, Ranks, Task};
use flow_core::{FlowRng, Gradients, ParamStore};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ppo::{PpoConfig, Rollout, advantages, of_chunks, update};
use super::reward::Reward;
use super::shared::{Drawn, gather, gather_scores};
use crate::model::rules::Rules;
use crate::model::{CHUNK, Generated, GraphAf, SampleOptions, Sequence, SequenceBond};
use crate::molecule::{Bond, Molecule};
use crate::trainer::GraphRun;
use crate::{Error, Result};

/// A molecule among the best that were drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranked {
    /// The property.
    pub property: f64,
    /// The molecule.
    pub smiles: String,
}

/// How many of the best molecules are kept.
const KEPT: usize = 100;

/// What a fine-tuning remembers between steps; part of its checkpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    rollout: Option<Rollout>,
    best: Vec<Ranked>,
    drawn: u64,
    mean_property: f64,
}

/// A model under fine-tuning towards a [`Reward`].
pub struct PolicyTask<R> {
    run: GraphRun,
    config: PpoConfig,
    model: GraphAf,
    rules: Rules,
    reward: R,
    memory: Memory,
    ranks: Ranks,
}

impl<R: Reward> PolicyTask<R> {
    /// Fine-tunes `model`, which was trained by `run`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for constants out of range.
    pub fn new(mut run: GraphRun, model: GraphAf, config: PpoConfig, reward: R) -> Result<Self> {
        config.check()?;
        let model = model.with_max_atoms(config.max_atoms);
        run.model.max_atoms = config.max_atoms;
        let rules = Rules::new(model.config(), true, config.min_atoms);
        Ok(PolicyTask { run, config, model, rules, reward, memory: Memory::default(), ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &GraphAf {
        &self.model
    }

    /// The best molecules drawn so far, best first, each once.
    pub fn best(&self) -> &[Ranked] {
        &self.memory.best
    }

    /// Molecules drawn so far.
    pub fn drawn(&self) -> u64 {
        self.memory.drawn
    }

    /// Draws a batch, each rank its share, and looks at the property of each.
    fn draw(&self, rng: &mut FlowRng) -> Result<Vec<Drawn>> {
        let options = SampleOptions {
            temperature: self.config.temperature,
            min_atoms: self.config.min_atoms,
            max_atoms: Some(self.config.max_atoms),
            ..SampleOptions::default()
        };
        let share = self.ranks.share(self.config.batch);
        let drawn = self.model.sample_part(self.config.batch, share.range(), &options, rng)?;
        let property = |generated: Generated| {
            let property = self.reward.property(&self.molecule(&generated.sequence)?);
            Ok((generated.sequence, property))
        };
        gather(&self.ranks, drawn.into_par_iter().map(property).collect::<Result<_>>()?)
    }

    fn molecule(&self, sequence: &Sequence) -> Result<Molecule> {
        sequence.molecule(&self.model.config().vocabulary)
    }

    /// What the policy says of each chunk, each rank of its share, as [`update`] will ask.
    fn scores(&self, sequences: &[Sequence], noise: &FlowRng) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
        let chunks = self.ranks.share(sequences.len().div_ceil(CHUNK));
        let (own, mut noise) = of_chunks(sequences, &chunks.range(), noise);
        let scores = self.model.policy_scores(own, &self.rules, &mut noise)?;
        let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        gather_scores(&self.ranks, scores.into_iter().map(|v| (narrow(v.atoms), narrow(v.bonds))).collect())
    }

    /// Draws a batch, ranks it and keeps what the policy said.
    fn roll_out(&mut self, rng: &mut FlowRng) -> Result<()> {
        let drawn = self.draw(rng)?;
        let mut seen = BTreeMap::new();
        let mut rewards = Vec::with_capacity(drawn.len());
        let smiles = |(sequence, _): &Drawn| Ok(crate::canonical_smiles(&self.molecule(sequence)?));
        let all = drawn.par_iter().map(smiles).collect::<Result<Vec<String>>>()?;
        for ((_, property), smiles) in drawn.iter().zip(all) {
            let known =
                seen.insert(smiles.clone(), ()).is_some() || self.memory.best.iter().any(|r| r.smiles == smiles);
            let reward = self.config.shaping.apply(*property);
            rewards.push(if known { reward * self.config.repeat } else { reward });
            self.rank(smiles, *property);
        }
        let (sequences, properties): (Vec<Sequence>, Vec<f64>) = drawn.into_iter().unzip();
        let noise = rng.fork();
        let old = self.scores(&sequences, &noise)?;
        let finite = properties.iter().copied().filter(|p| p.is_finite());
        self.memory.mean_property = finite.clone().sum::<f64>() / finite.count().max(1) as f64;
        self.memory.drawn += sequences.len() as u64;
        self.memory.rollout = Some(Rollout {
            atoms: sequences.iter().map(|s| s.atoms.to_vec()).collect(),
            bonds: sequences.iter().map(|s| s.bonds.iter().map(|b| (b.atom, b.to, b.bond.order())).collect()).collect(),
            advantages: advantages(&rewards),
            rng: noise,
            old,
        });
        Ok(())
    }

    /// The objective: what is minimised is minus the mean of the property.
    fn minus_mean(&self, mean: f64) -> Metrics {
        Metrics::new(Metric::new(format!("minus_mean_{}", self.reward.name()), "", -mean))
    }

    fn rank(&mut self, smiles: String, property: f64) {
        let best = &mut self.memory.best;
        if !property.is_finite() || best.iter().any(|r| r.smiles == smiles) {
            return;
        }
        let place = best.partition_point(|r| r.property >= property);
        if place < KEPT {
            best.insert(place, Ranked { property, smiles });
            best.truncate(KEPT);
        }
    }
}

/// A bond of later atom, earlier atom and order.
pub(super) fn bond(&(atom, to, order): &(u8, u8, u8)) -> Option<SequenceBond> {
    let bond = Bond::ALL.get(usize::from(order).wrapping_sub(1)).copied();
    bond.map(|bond| SequenceBond { atom, to, bond })
}

/// The sequences of a rollout.
fn sequences(rollout: &Rollout) -> Vec<Sequence> {
    let pairs = rollout.atoms.iter().zip(&rollout.bonds);
    pairs
        .map(|(atoms, bonds)| Sequence {
            atoms: atoms.as_slice().into(),
            bonds: bonds.iter().filter_map(bond).collect(),
        })
        .collect()
}

impl<R: Reward> Task for PolicyTask<R> {
    /// The checkpoint is that of a model first: `sample` reads it like any other.
    type Run = GraphRun;
    type Position = Memory;
    type Error = Error;

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &GraphRun {
        &self.run
    }

    /// Every rank draws its share of the molecules, all hear of all, and each learns from its share of the chunks.
    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        if step.is_multiple_of(self.config.updates) || self.memory.rollout.is_none() {
            self.roll_out(rng)?;
        }
        let mut metrics = self.minus_mean(self.memory.mean_property);
        let Some(rollout) = &self.memory.rollout else { return Ok(metrics) };
        let all = sequences(rollout);
        let chunks = self.ranks.share(all.len().div_ceil(CHUNK));
        if chunks.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let drawn = (&all[..], rollout);
        let report = update(&self.model, &self.rules, &self.config, drawn, chunks.range(), gradients)?;
        if let Some(best) = self.memory.best.first() {
            metrics = metrics.with(Metric::new(format!("best_{}", self.reward.name()), "", best.property));
        }
        let clipped = Metric::new("clipped", "", report.clipped);
        let divergence = Metric::new("divergence", "", report.divergence);
        Ok(metrics.with(clipped).with(divergence).over(report.decisions as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let drawn = self.draw(rng)?;
        let finite = drawn.iter().map(|d| d.1).filter(|p| p.is_finite());
        let mean = finite.clone().sum::<f64>() / finite.count().max(1) as f64;
        Ok(self.minus_mean(mean))
    }

    fn position(&self) -> Memory {
        self.memory.clone()
    }

    fn restore(&mut self, position: Memory) -> Result<()> {
        self.memory = position;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.config.batch
    }
}
