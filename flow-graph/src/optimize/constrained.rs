//! Constrained optimisation: better molecules that resemble given ones (Jin et al. 2018, section 3.3; GraphAF, 5.3).
//!
//! A molecule is put into a random breadth-first order, loses its last few atoms, and is grown again by the
//! model; of many attempts, the one with the highest property among those similar enough is kept.

use flow_core::FlowRng;
use rayon::prelude::*;
use serde::Serialize;

use super::reward::Reward;
use crate::model::{GraphAf, SampleOptions, Sequence, random_order};
use crate::molecule::Molecule;
use crate::{Error, Result};

/// The least similarities at which results are reported.
pub const THRESHOLDS: [f64; 4] = [0.0, 0.2, 0.4, 0.6];

/// How hard to try.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConstrainedOptions {
    /// Attempts for each molecule.
    pub attempts: usize,
    /// The most atoms that are taken away before growing again.
    pub removed: usize,
    /// Temperature of the growth.
    pub temperature: f64,
    /// The most atoms of a result.
    pub max_atoms: usize,
}

impl Default for ConstrainedOptions {
    fn default() -> Self {
        ConstrainedOptions { attempts: 200, removed: 12, temperature: 1.0, max_atoms: 38 }
    }
}

/// The best molecule found for one source at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Improvement {
    /// The least similarity.
    pub threshold: f64,
    /// The molecule.
    pub smiles: String,
    /// Its property less that of the source.
    pub gain: f64,
    /// Its similarity to the source.
    pub similarity: f64,
}

/// The best improvement of one molecule at each of [`THRESHOLDS`], `None` where nothing better was found.
///
/// `similarity` compares a result with the source, in `[0, 1]`.
///
/// # Errors
/// [`Error::Vocabulary`] when the model cannot express the source.
pub fn improve<R: Reward>(
    model: &GraphAf,
    source: &Molecule,
    reward: &R,
    similarity: impl Fn(&Molecule) -> Result<f64> + Sync,
    options: &ConstrainedOptions,
    rng: &mut FlowRng,
) -> Result<[Option<Improvement>; THRESHOLDS.len()]> {
    if options.attempts == 0 {
        return Err(Error::config("attempts", "is 0, must be at least 1"));
    }
    let config = model.config();
    let whole = Sequence::new(source, &config.vocabulary)?;
    let before = reward.property(source);
    let starts: Vec<Sequence> = (0..options.attempts)
        .map(|_| {
            let order = random_order(&whole, config, rng)?;
            let removed = rng.below(options.removed.min(whole.len().saturating_sub(1)) + 1);
            Ok(order.truncated(whole.len() - removed))
        })
        .collect::<Result<_>>()?;
    let starts: Vec<Option<&Sequence>> = starts.iter().map(Some).collect();
    let sampling = SampleOptions {
        temperature: options.temperature,
        max_atoms: Some(options.max_atoms),
        ..SampleOptions::default()
    };
    let grown = model.grow(&starts, &sampling, rng)?;
    let scored: Vec<(f64, f64, Molecule)> = grown
        .into_par_iter()
        .map(|g| {
            let molecule = g.sequence.molecule(&config.vocabulary)?;
            let gain = reward.property(&molecule) - before;
            // Only what is better needs to be compared.
            let similar = if gain > 0.0 { similarity(&molecule)? } else { 0.0 };
            Ok((gain, similar, molecule))
        })
        .collect::<Result<_>>()?;
    Ok(THRESHOLDS.map(|threshold| {
        let better =
            scored.iter().filter(|(gain, similar, _)| *gain > 0.0 && gain.is_finite() && *similar >= threshold);
        better.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(gain, similarity, molecule)| Improvement {
            threshold,
            smiles: crate::canonical_smiles(molecule),
            gain: *gain,
            similarity: *similarity,
        })
    }))
}
