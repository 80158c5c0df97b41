//! Morgan fingerprints and their similarity.

use chematic::fp::{RdkitMorganConfig, RdkitMorganFpSize, RdkitMorganRadius, rdkit_morgan_bitvec};

use super::Perceived;
use super::convert::guarded;
use crate::molecule::Molecule;
use crate::{Error, Result};

const WORDS: usize = 32;

/// Morgan fingerprint of radius 2 folded to 2,048 bits (ECFP4): RDKit's `GetMorganFingerprintAsBitVect`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint([u64; WORDS]);

/// Radius 2, 2,048 bits, no chirality: our molecules have none.
pub(super) fn morgan() -> RdkitMorganConfig {
    RdkitMorganConfig { radius: RdkitMorganRadius::R2, fp_size: RdkitMorganFpSize::B2048, include_chirality: false }
}

impl Fingerprint {
    /// The fingerprint of a molecule.
    ///
    /// # Errors
    /// As [`canonical_smiles`](super::canonical_smiles).
    pub fn of(molecule: &Molecule) -> Result<Self> {
        Self::of_perceived(&Perceived::new(molecule)?)
    }

    /// The fingerprint of a molecule that is canonicalised already.
    ///
    /// # Errors
    /// [`Error::Chemistry`] if chematic fails on the molecule.
    pub fn of_perceived(molecule: &Perceived) -> Result<Self> {
        let bits = guarded("fingerprint", || rdkit_morgan_bitvec(molecule.graph(), &morgan()))?
            .map_err(|e| Error::Chemistry(format!("fingerprint: {e:?}")))?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bits.to_le_bytes().chunks(8)) {
            *word = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        Ok(Fingerprint(words))
    }

    /// The bits set, by rising index.
    pub fn bits(&self) -> impl Iterator<Item = usize> + '_ {
        (0..WORDS * 64).filter(|i| self.0[i / 64] >> (i % 64) & 1 == 1)
    }

    /// Tanimoto similarity: bits common to both by bits in either, 0 to 1.
    #[must_use]
    pub fn tanimoto(&self, other: &Fingerprint) -> f64 {
        let count = |combine: fn(u64, u64) -> u64| -> u32 {
            self.0.iter().zip(&other.0).map(|(&a, &b)| combine(a, b).count_ones()).sum()
        };
        match count(|a, b| a | b) {
            0 => 1.0,
            either => f64::from(count(|a, b| a & b)) / f64::from(either),
        }
    }
}
