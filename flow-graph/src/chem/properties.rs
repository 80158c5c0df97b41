//! The properties by which generated molecules are judged.

use serde::Serialize;

use super::Perceived;
use crate::Result;
use crate::molecule::Molecule;

/// Properties of one molecule, as RDKit computes them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Properties {
    /// Quantitative estimate of drug-likeness, 0 to 1.
    pub qed: f64,
    /// Crippen's octanol–water partition coefficient.
    pub log_p: f64,
    /// Average molecular weight in dalton.
    pub molecular_weight: f64,
    /// Topological polar surface area in Å².
    pub polar_surface: f64,
    /// Atoms other than hydrogen.
    pub heavy_atoms: usize,
    /// Rings, see [`Perceived::ring_sizes`].
    pub rings: usize,
    /// Atoms of the largest of them, 0 without rings.
    pub largest_ring: usize,
    /// Rings all of whose bonds are aromatic.
    pub aromatic_rings: usize,
}

impl Properties {
    /// All properties of a molecule.
    ///
    /// # Errors
    /// As [`canonical_smiles`](super::canonical_smiles).
    pub fn of(molecule: &Molecule) -> Result<Self> {
        Self::of_perceived(&Perceived::new(molecule)?)
    }

    /// All properties of a molecule that is canonicalised already.
    ///
    /// # Errors
    /// [`Error::Chemistry`](crate::Error::Chemistry) if chematic fails on the molecule.
    pub fn of_perceived(molecule: &Perceived) -> Result<Self> {
        let rings = molecule.ring_sizes()?;
        Ok(Properties {
            qed: molecule.qed()?,
            log_p: molecule.log_p()?,
            molecular_weight: molecule.molecular_weight()?,
            polar_surface: molecule.polar_surface()?,
            heavy_atoms: molecule.heavy_atoms(),
            rings: rings.len(),
            largest_ring: rings.last().copied().unwrap_or(0),
            aromatic_rings: molecule.aromatic_rings()?,
        })
    }
}

/// [`Perceived::qed`] of a molecule.
///
/// # Errors
/// As [`canonical_smiles`](super::canonical_smiles); so for the functions below.
pub fn qed(molecule: &Molecule) -> Result<f64> {
    Perceived::new(molecule)?.qed()
}

/// [`Perceived::log_p`] of a molecule.
///
/// # Errors
/// As [`qed`].
pub fn log_p(molecule: &Molecule) -> Result<f64> {
    Perceived::new(molecule)?.log_p()
}

/// [`Perceived::molecular_weight`] of a molecule.
///
/// # Errors
/// As [`qed`].
pub fn molecular_weight(molecule: &Molecule) -> Result<f64> {
    Perceived::new(molecule)?.molecular_weight()
}

/// [`Perceived::ring_sizes`] of a molecule.
///
/// # Errors
/// As [`qed`].
pub fn ring_sizes(molecule: &Molecule) -> Result<Vec<usize>> {
    Perceived::new(molecule)?.ring_sizes()
}
