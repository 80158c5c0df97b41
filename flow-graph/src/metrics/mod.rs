//! How good a set of generated molecules is: valid, distinct, new, and like the data.
//!
//! Papers differ in what they call novel. Both readings are here: [`Novelty::honest`] compares canonical
//! SMILES without stereo on both sides; [`Novelty::as_printed`] compares generated canonical SMILES with the
//! training strings as they stand in the file, which is what most papers print, and by which 63 % of
//! the training molecules themselves are "novel" as soon as their stereo is dropped.
//!
//! Without the feature `chem` molecules are still checked and counted, not canonicalised.

#[cfg(feature = "chem")]
mod chemistry;
mod display;
mod distribution;
mod rings;

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

pub use distribution::{Distances, Distribution, Structure};
pub use rings::ring_sizes;

#[cfg(feature = "chem")]
use crate::chem::SaScorer;
use crate::molecule::Molecule;

/// Placeholder for the scorer that the feature `chem` brings; it has no values.
#[cfg(not(feature = "chem"))]
#[derive(Debug, Clone)]
pub enum SaScorer {}

/// The molecules that generated ones are held against, prepared once.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    structure: Structure,
    /// Canonical SMILES without stereo.
    canonical: HashSet<String>,
    /// The strings of the file.
    printed: HashSet<String>,
    means: Option<Means>,
}

impl Reference {
    /// Prepares a training set: its molecules, and the SMILES of the file (none, if they are not at hand).
    ///
    /// Mean properties are those of at most 10,000 molecules, at even distances.
    /// Runs on all threads of rayon's pool. Molecules that cannot be canonicalised count in the structure only.
    pub fn new<S: AsRef<str>>(molecules: &[Molecule], strings: &[S], scorer: Option<&SaScorer>) -> Self {
        const MEANS_OF: usize = 10_000;
        let all: Vec<&Molecule> = molecules.iter().collect();
        let some: Vec<&Molecule> = molecules.iter().step_by(molecules.len().div_ceil(MEANS_OF).max(1)).collect();
        Reference {
            structure: Structure::of(molecules),
            canonical: canonical(&all).into_iter().flatten().collect(),
            printed: strings.iter().map(|s| s.as_ref().to_string()).collect(),
            means: means(&some, scorer),
        }
    }

    /// What the reference is made of.
    pub fn structure(&self) -> &Structure {
        &self.structure
    }

    /// Mean properties of the reference; `None` without the feature `chem` or without molecules.
    pub fn means(&self) -> Option<&Means> {
        self.means.as_ref()
    }
}

/// Everything that is measured about a set of generated molecules.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Attempts, failed ones included.
    pub generated: usize,
    /// Molecules that keep every valence (and, with the feature `chem`, that RDKit would accept).
    pub valid: usize,
    /// `valid / generated`; 0 without attempts.
    pub validity: f64,
    /// Share of the valid ones that hang together.
    pub connected: f64,
    /// Distinct molecules among the valid ones.
    pub uniqueness: Option<Uniqueness>,
    /// New molecules among the distinct ones, against a reference.
    pub novelty: Option<Novelty>,
    /// Means of properties over the valid ones.
    pub means: Option<Means>,
    /// The same of the reference.
    pub reference_means: Option<Means>,
    /// Total variation between the distributions below and those of the reference.
    pub distances: Option<Distances>,
    /// What the valid molecules are made of.
    pub structure: Structure,
}

/// Shares of distinct molecules among the first valid ones, by canonical SMILES.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Uniqueness {
    /// Among the first 1,000, `None` if there are fewer.
    pub first_1k: Option<f64>,
    /// Among the first 10,000, `None` if there are fewer.
    pub first_10k: Option<f64>,
    /// Among all.
    pub all: f64,
}

/// Shares of distinct valid molecules that are not in the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Novelty {
    /// Canonical SMILES without stereo against the same of the reference.
    pub honest: f64,
    /// Canonical SMILES without stereo against the strings of the reference's file, stereo and all: what
    /// papers print. `None` if the strings were not given.
    pub as_printed: Option<f64>,
}

/// Mean properties.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Means {
    /// Quantitative estimate of drug-likeness.
    pub qed: f64,
    /// Crippen's logP.
    pub log_p: f64,
    /// Molecular weight in dalton.
    pub molecular_weight: f64,
    /// Synthetic accessibility, if a scorer was given.
    pub synthetic_accessibility: Option<f64>,
    /// Penalised logP, if a scorer was given.
    pub penalized_log_p: Option<f64>,
}

/// Measures generated molecules; `None` stands for an attempt that gave no molecule.
///
/// Runs on all threads of rayon's pool; the result does not depend on their number.
pub fn evaluate(generated: &[Option<Molecule>], reference: Option<&Reference>, scorer: Option<&SaScorer>) -> Report {
    let candidates: Vec<&Molecule> = generated.iter().flatten().collect();
    let strings = canonical(&candidates);
    let keeps = |molecule: &Molecule, string: &Option<String>| {
        !molecule.is_empty() && molecule.check_valences().is_ok() && (string.is_some() || !cfg!(feature = "chem"))
    };
    let valid: Vec<(&Molecule, Option<String>)> =
        candidates.into_iter().zip(strings).filter(|(molecule, string)| keeps(molecule, string)).collect();
    let molecules: Vec<&Molecule> = valid.iter().map(|&(molecule, _)| molecule).collect();
    let strings: Vec<&str> = valid.iter().filter_map(|(_, string)| string.as_deref()).collect();
    let structure = Structure::of(molecules.iter().copied());
    Report {
        generated: generated.len(),
        valid: valid.len(),
        validity: share(valid.len(), generated.len()),
        connected: share(molecules.iter().filter(|m| m.is_connected()).count(), valid.len()),
        uniqueness: uniqueness(&strings),
        novelty: reference.and_then(|reference| novelty(&strings, reference)),
        means: means(&molecules, scorer),
        reference_means: reference.and_then(|reference| reference.means),
        distances: reference.map(|reference| structure.distances(&reference.structure)),
        structure,
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn uniqueness(strings: &[&str]) -> Option<Uniqueness> {
    let distinct = |strings: &[&str]| share(strings.iter().collect::<HashSet<_>>().len(), strings.len());
    (!strings.is_empty()).then(|| Uniqueness {
        first_1k: strings.get(..1_000).map(distinct),
        first_10k: strings.get(..10_000).map(distinct),
        all: distinct(strings),
    })
}

fn novelty(strings: &[&str], reference: &Reference) -> Option<Novelty> {
    let distinct: HashSet<&str> = strings.iter().copied().collect();
    let outside = |known: &HashSet<String>| {
        share(distinct.iter().filter(|&&string| !known.contains(string)).count(), distinct.len())
    };
    (!distinct.is_empty()).then(|| Novelty {
        honest: outside(&reference.canonical),
        as_printed: (!reference.printed.is_empty()).then(|| outside(&reference.printed)),
    })
}

/// Canonical SMILES, `None` for a molecule without one.
#[cfg(feature = "chem")]
fn canonical(molecules: &[&Molecule]) -> Vec<Option<String>> {
    molecules.par_iter().map(|molecule| crate::chem::canonical_smiles(molecule).ok()).collect()
}

#[cfg(not(feature = "chem"))]
fn canonical(molecules: &[&Molecule]) -> Vec<Option<String>> {
    molecules.par_iter().map(|_| None).collect()
}

#[cfg(feature = "chem")]
fn means(molecules: &[&Molecule], scorer: Option<&SaScorer>) -> Option<Means> {
    chemistry::means(molecules, scorer)
}

#[cfg(not(feature = "chem"))]
fn means(_: &[&Molecule], _: Option<&SaScorer>) -> Option<Means> {
    None
}

#[cfg(test)]
mod tests;
