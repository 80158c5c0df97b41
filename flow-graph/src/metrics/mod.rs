//! How good a set of generated molecules is: valid, distinct, new, and like the data.
//!
//! Two molecules are one when their canonical SMILES of [`smiles::canonical`] agree, which know neither an order of the
//! atoms nor a Kekulé form nor stereo.
//!
//! Papers differ in what they call novel. Both readings are here: [`Novelty::honest`] compares such canonical
//! SMILES on both sides; [`Novelty::as_printed`] compares RDKit's canonical SMILES of what was generated with the
//! training strings as they stand in the file, which is what most papers print, and by which 63 % of
//! the training molecules themselves are "novel" as soon as their stereo is dropped.
//!
//! Without the feature `chem` RDKit's strings and the properties are left out.

#[cfg(feature = "chem")]
mod chemistry;
mod display;
mod distribution;
mod rings;

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde::Serialize;

pub use distribution::{Distances, Distribution, Structure};
pub use rings::ring_sizes;

#[cfg(feature = "chem")]
use crate::chem::SaScorer;
use crate::molecule::Molecule;
use crate::smiles;

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
    /// Mean properties are those of at most 10,000 molecules, at even distances. Runs on all threads of rayon's pool.
    pub fn new<S: AsRef<str>>(molecules: &[Molecule], strings: &[S], scorer: Option<&SaScorer>) -> Self {
        const MEANS_OF: usize = 10_000;
        let all: Vec<&Molecule> = molecules.iter().collect();
        let some: Vec<&Molecule> = molecules.iter().step_by(molecules.len().div_ceil(MEANS_OF).max(1)).collect();
        Reference {
            structure: Structure::of(molecules),
            canonical: canonical_smiles(&all).into_iter().collect(),
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
    /// Shares of small ones among the valid ones.
    pub small: Small,
    /// The same of the reference.
    pub reference_small: Option<Small>,
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

/// Shares of molecules with few heavy atoms, which a model that stops too early draws too often.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Small {
    /// With fewer than five.
    pub under_5: f64,
    /// With fewer than ten.
    pub under_10: f64,
}

impl Small {
    fn of(structure: &Structure) -> Self {
        let under = |limit: usize| {
            let few = structure.sizes.counts().filter(|(size, _)| **size < limit).map(|(_, count)| count).sum::<u64>();
            share(few as usize, structure.sizes.total() as usize)
        };
        Small { under_5: under(5), under_10: under(10) }
    }
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
    let names = canonical(&candidates);
    let keeps = |molecule: &Molecule, names: &Option<Names>| {
        !molecule.is_empty() && molecule.check_valences().is_ok() && names.is_some()
    };
    let valid: Vec<(&Molecule, Option<Names>)> =
        candidates.into_iter().zip(names).filter(|(molecule, names)| keeps(molecule, names)).collect();
    let molecules: Vec<&Molecule> = valid.iter().map(|&(molecule, _)| molecule).collect();
    let names: Vec<&Names> = valid.iter().filter_map(|(_, names)| names.as_ref()).collect();
    let strings: Vec<&str> = names.iter().map(|names| names.own.as_str()).collect();
    let structure = Structure::of(molecules.iter().copied());
    Report {
        generated: generated.len(),
        valid: valid.len(),
        validity: share(valid.len(), generated.len()),
        small: Small::of(&structure),
        reference_small: reference.map(|reference| Small::of(&reference.structure)),
        connected: share(molecules.iter().filter(|m| m.is_connected()).count(), valid.len()),
        uniqueness: uniqueness(&strings),
        novelty: reference.and_then(|reference| novelty(&names, reference)),
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

fn novelty(names: &[&Names], reference: &Reference) -> Option<Novelty> {
    let distinct: HashMap<&str, Option<&str>> =
        names.iter().map(|names| (names.own.as_str(), names.printed.as_deref())).collect();
    let new = distinct.keys().filter(|&&own| !reference.canonical.contains(own)).count();
    let printed: Vec<&str> = distinct.values().copied().flatten().collect();
    let outside = || printed.iter().filter(|&&printed| !reference.printed.contains(printed)).count();
    (!distinct.is_empty()).then(|| Novelty {
        honest: share(new, distinct.len()),
        as_printed: (!reference.printed.is_empty() && !printed.is_empty()).then(|| share(outside(), printed.len())),
    })
}

/// The strings of a molecule.
struct Names {
    /// [`smiles::canonical`].
    own: String,
    /// RDKit's, where they are at hand.
    printed: Option<String>,
}

fn canonical_smiles(molecules: &[&Molecule]) -> Vec<String> {
    molecules.par_iter().map(|molecule| smiles::canonical(molecule)).collect()
}

/// The names of molecules, `None` for one that RDKit would not accept.
#[cfg(feature = "chem")]
fn canonical(molecules: &[&Molecule]) -> Vec<Option<Names>> {
    let names = |molecule: &&Molecule| {
        let printed = crate::chem::canonical_smiles(molecule).ok()?;
        Some(Names { own: smiles::canonical(molecule), printed: Some(printed) })
    };
    molecules.par_iter().map(names).collect()
}

#[cfg(not(feature = "chem"))]
fn canonical(molecules: &[&Molecule]) -> Vec<Option<Names>> {
    canonical_smiles(molecules).into_iter().map(|own| Some(Names { own, printed: None })).collect()
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
