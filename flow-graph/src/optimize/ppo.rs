//! Proximal policy optimisation on the decisions of drawn molecules.
//!
//! The policy is the model under the rules of valence: each decision's probabilities renormalized over what
//! was allowed. A decision made at atom `t` of a molecule of `T` atoms and reward `R` has the advantage
//! `A = γ^(T−t)·(R − R̄)/σ_R`, with mean and deviation over the batch, and the loss is
//! `−Σ min(ρA, clip(ρ, 1−ε, 1+ε)·A) / decisions`, `ρ = exp(log p − log p_old)` (Schulman et al. 2017, equation 7;
//! GraphAF, section 4.3). For a Gaussian head `p` is the density of one dequantized sample whose noise is the
//! same for both, as in the reference implementation.

use std::ops::Range;

use flow_core::{FlowRng, Gradients};
use serde::{Deserialize, Serialize};

use crate::model::pack::Pack;
use crate::model::rules::Rules;
use crate::model::{DecisionValues, GraphAf, Sequence};
use crate::optimize::Shaping;
use crate::{Error, Result};

/// Constants of the fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PpoConfig {
    /// Molecules drawn at a time.
    pub batch: usize,
    /// Updates on each batch.
    pub updates: u64,
    /// `ε`: how far a probability may move, relatively, before its gradient is cut.
    pub clip: f64,
    /// `γ`: what a decision is worth of the one after it.
    pub discount: f64,
    /// Temperature of the draws.
    pub temperature: f64,
    /// The least number of atoms.
    pub min_atoms: usize,
    /// The most atoms.
    pub max_atoms: usize,
    /// How the property becomes a reward.
    pub shaping: Shaping,
    /// Weight of the rewards of molecules seen before, in `[0, 1]`: 1 rewards repetition like novelty.
    pub repeat: f64,
}

impl Default for PpoConfig {
    fn default() -> Self {
        PpoConfig {
            batch: 128,
            updates: 4,
            clip: 0.2,
            discount: 0.97,
            temperature: 1.0,
            min_atoms: 5,
            max_atoms: 38,
            shaping: Shaping::Linear { scale: 1.0 },
            repeat: 1.0,
        }
    }
}

impl PpoConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        let rules = [
            ("batch", self.batch as f64, self.batch >= 2, "at least 2"),
            ("updates", self.updates as f64, self.updates >= 1, "at least 1"),
            ("clip", self.clip, self.clip > 0.0 && self.clip < 1.0, "in (0, 1)"),
            ("discount", self.discount, self.discount > 0.0 && self.discount <= 1.0, "in (0, 1]"),
            ("temperature", self.temperature, self.temperature > 0.0 && self.temperature.is_finite(), "finite and > 0"),
            ("repeat", self.repeat, (0.0..=1.0).contains(&self.repeat), "in [0, 1]"),
            ("max_atoms", self.max_atoms as f64, self.max_atoms >= self.min_atoms.max(1), "at least min_atoms"),
        ];
        match rules.into_iter().find(|(_, _, legal, _)| !legal) {
            Some((field, value, _, range)) => Err(Error::config(field, format!("is {value}, must be {range}"))),
            None => Ok(()),
        }
    }
}

/// What one update did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PolicyReport {
    /// Fraction of decisions whose gradient was cut.
    pub clipped: f64,
    /// `Σ (log p_old − log p) / decisions`: how far the policy has moved on this batch.
    pub divergence: f64,
    /// Decisions that were looked at.
    pub decisions: usize,
}

/// Drawn molecules with what the policy said when it drew them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// Atom codes of each molecule.
    pub atoms: Vec<Vec<u8>>,
    /// Bonds of each molecule: later atom, earlier atom, order.
    pub bonds: Vec<Vec<(u8, u8, u8)>>,
    /// Advantages at the last decision.
    pub advantages: Vec<f64>,
    /// Gives the noise of a Gaussian head, the same at every update.
    pub rng: FlowRng,
    /// Log-densities at the time, atoms and bonds of each chunk.
    pub old: Vec<(Vec<f32>, Vec<f32>)>,
}

/// Standardized rewards; those that are not finite count as the least one.
pub(crate) fn advantages(rewards: &[f64]) -> Vec<f64> {
    let least = rewards.iter().copied().filter(|r| r.is_finite()).fold(f64::INFINITY, f64::min);
    let rewards: Vec<f64> = rewards
        .iter()
        .map(|&r| {
            if r.is_finite() {
                r
            } else if least.is_finite() {
                least
            } else {
                0.0
            }
        })
        .collect();
    let n = rewards.len().max(1) as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt();
    // A batch without differences teaches nothing.
    rewards.iter().map(|r| if deviation > 1e-9 { (r - mean) / deviation } else { 0.0 }).collect()
}

/// Adds the gradient of the clipped objective to `gradients`: of those molecules of the rollout that are in these chunks.
pub(crate) fn update(
    model: &GraphAf,
    rules: &Rules,
    config: &PpoConfig,
    (sequences, rollout): (&[Sequence], &Rollout),
    chunks: Range<usize>,
    gradients: &mut Gradients,
) -> Result<PolicyReport> {
    let (sequences, mut noise) = of_chunks(sequences, &chunks, &rollout.rng);
    let first = chunks.start;
    let tally = std::sync::Mutex::new(Vec::new());
    let worth = |total: usize| {
        let tally = &tally;
        move |pack: &Pack, scores: &DecisionValues, chunk: usize| {
            let (weights, clipped, moved) = weigh(pack, scores, first + chunk, config, rollout);
            let scale = |v: Vec<f64>| v.into_iter().map(|w| -w / total as f64).collect();
            if let Ok(mut tally) = tally.lock() {
                tally.push((chunk, clipped, moved / total as f64, scores.len()));
            }
            DecisionValues { atoms: scale(weights.atoms), bonds: scale(weights.bonds) }
        }
    };
    model.differentiate::<f32, _>(sequences, Some(rules), &mut noise, worth, gradients)?;
    let mut parts = tally.into_inner().unwrap_or_default();
    // In the order of the chunks, so that the sums do not depend on the threads.
    parts.sort_by_key(|p| p.0);
    let decisions = parts.iter().map(|p| p.3).sum::<usize>();
    Ok(PolicyReport {
        clipped: parts.iter().map(|p| p.1).sum::<usize>() as f64 / decisions.max(1) as f64,
        divergence: parts.iter().map(|p| p.2).sum(),
        decisions,
    })
}

/// The molecules of some chunks, and the generator with which each of these has the noise that it has among all.
pub(crate) fn of_chunks<'a>(
    sequences: &'a [Sequence],
    chunks: &Range<usize>,
    noise: &FlowRng,
) -> (&'a [Sequence], FlowRng) {
    let place = |chunk: usize| (chunk * crate::model::CHUNK).min(sequences.len());
    let mut noise = noise.clone();
    for _ in 0..chunks.start {
        noise.fork();
    }
    (&sequences[place(chunks.start)..place(chunks.end)], noise)
}

/// `∂(objective)/∂ log p` of a chunk's decisions, how many were cut, and `Σ (log p_old − log p)`.
fn weigh(
    pack: &Pack,
    scores: &DecisionValues,
    chunk: usize,
    config: &PpoConfig,
    rollout: &Rollout,
) -> (DecisionValues, usize, f64) {
    let empty = (Vec::new(), Vec::new());
    let (old_atoms, old_bonds) = rollout.old.get(chunk).unwrap_or(&empty);
    let first = chunk * crate::model::CHUNK;
    let mut weights = DecisionValues { atoms: vec![0.0; scores.atoms.len()], bonds: vec![0.0; scores.bonds.len()] };
    let (mut clipped, mut moved, mut from) = (0, 0.0, (0, 0));
    for (m, &to) in pack.ends.iter().enumerate() {
        let advantage = rollout.advantages.get(first + m).copied().unwrap_or(0.0);
        let size = rollout.atoms.get(first + m).map_or(0, Vec::len);
        let mut one = |log_p: f64, old: Option<&f32>, atom: usize| {
            let step = log_p - old.map_or(log_p, |&o| f64::from(o));
            let ratio = step.clamp(-10.0, 10.0).exp();
            let discounted = advantage * config.discount.powi(size.saturating_sub(atom) as i32);
            let cut =
                (discounted > 0.0 && ratio > 1.0 + config.clip) || (discounted < 0.0 && ratio < 1.0 - config.clip);
            clipped += usize::from(cut);
            moved -= if step.is_finite() { step } else { 0.0 };
            if cut || !step.is_finite() { 0.0 } else { ratio * discounted }
        };
        for (atom, i) in (from.0..to.0).enumerate() {
            weights.atoms[i] = one(scores.atoms[i], old_atoms.get(i), atom);
        }
        for i in from.1..to.1 {
            weights.bonds[i] = one(scores.bonds[i], old_bonds.get(i), usize::from(pack.bonds[i].atom));
        }
        from = to;
    }
    (weights, clipped, moved)
}
