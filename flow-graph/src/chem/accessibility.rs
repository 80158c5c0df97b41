//! Synthetic accessibility (Ertl & Schuffenhauer 2009), 1 (easy) to 10 (hard), as RDKit's contributed
//! `sascorer` computes it.
//!
//! The score needs a table of fragment scores, which is not part of this crate: the file
//! `fpscores.pkl.gz` that comes with every installation of RDKit.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use chematic::fp::rdkit_morgan_fingerprint;
use chematic::{chem, smiles};

use super::Perceived;
use super::convert::{chemistry, guarded};
use super::fingerprint::morgan;
use crate::molecule::Molecule;
use crate::{Error, Result};

/// The environment variable of [`SaScorer::from_environment`].
const VARIABLE: &str = "FLOW_SA_SCORES";

/// Where to get the file, for messages.
const SOURCE: &str = "the fragment scores come with RDKit as Contrib/SA_Score/fpscores.pkl.gz \
    (pip install rdkit puts it under site-packages/rdkit)";

/// Score of a fragment that the table does not have.
const UNKNOWN: f64 = -4.0;

/// Range of the raw score that is mapped to 10 … 1.
const RAW: (f64, f64) = (-4.0, 2.5);

/// Rings of more atoms are macrocycles.
const LARGEST_ORDINARY_RING: usize = 8;

/// Computes synthetic accessibility from a table of fragment scores.
#[derive(Debug, Clone)]
pub struct SaScorer {
    fragments: HashMap<u64, f64>,
}

impl SaScorer {
    /// Reads the table: a pickled list of `[score, fragment, fragment …]`, gzipped or plain.
    ///
    /// # Errors
    /// A file that is missing or is no such table; the message says where to get it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = |reason: String| Error::File { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(|e| file(format!("{e}; {SOURCE}")))?;
        let mut plain = Vec::new();
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
            decoder.read_to_end(&mut plain).map_err(|e| file(format!("damaged gzip: {e}")))?;
            plain
        } else {
            bytes
        };
        let rows: Vec<Vec<f64>> = serde_pickle::from_slice(&bytes, serde_pickle::DeOptions::new())
            .map_err(|e| file(format!("no table of fragment scores ({e}); {SOURCE}")))?;
        // Identifiers have 32 bits: exact as floating-point numbers.
        let fragments: HashMap<u64, f64> = rows
            .iter()
            .filter_map(|row| row.split_first())
            .flat_map(|(&score, fragments)| fragments.iter().map(move |&id| (id as u64, score)))
            .collect();
        if fragments.is_empty() {
            return Err(file(format!("the table of fragment scores is empty; {SOURCE}")));
        }
        Ok(SaScorer { fragments })
    }

    /// Reads the table that the environment variable `FLOW_SA_SCORES` names; `None` if it is not set.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_environment() -> Result<Option<Self>> {
        std::env::var_os(VARIABLE).map(|path| Self::open(PathBuf::from(path))).transpose()
    }

    /// Number of fragments in the table.
    pub fn fragments(&self) -> usize {
        self.fragments.len()
    }

    /// Synthetic accessibility of a molecule.
    ///
    /// # Errors
    /// As [`canonical_smiles`](super::canonical_smiles).
    pub fn score(&self, molecule: &Molecule) -> Result<f64> {
        self.score_perceived(&Perceived::new(molecule)?)
    }

    /// Synthetic accessibility of a molecule that is canonicalised already.
    ///
    /// # Errors
    /// [`Error::Chemistry`] if chematic fails on the molecule.
    pub fn score_perceived(&self, molecule: &Perceived) -> Result<f64> {
        let (fragments, distinct) = self.fragment_score(molecule)?;
        let atoms = molecule.heavy_atoms() as f64;
        // Symmetric molecules have few distinct fragments for their size and are easier to make.
        let symmetry = if atoms > distinct { (atoms / distinct).ln() * 0.5 } else { 0.0 };
        Ok(to_scale(fragments - complexity(molecule)? + symmetry))
    }

    /// Mean score over the fragments of a molecule, and how many distinct ones there are.
    fn fragment_score(&self, molecule: &Perceived) -> Result<(f64, f64)> {
        let morgan = guarded("fragments", || rdkit_morgan_fingerprint(molecule.graph(), &morgan()))?
            .map_err(|e| Error::Chemistry(format!("fragments: {e:?}")))?;
        let mut counts: Vec<(u32, u32)> = morgan.sparse_counts.into_iter().collect();
        // RDKit's order, for equal rounding.
        counts.sort_unstable();
        let score = |&(id, count): &(u32, u32)| {
            self.fragments.get(&u64::from(id)).copied().unwrap_or(UNKNOWN) * f64::from(count)
        };
        let total: f64 = counts.iter().map(score).sum();
        let number: f64 = counts.iter().map(|&(_, count)| f64::from(count)).sum();
        Ok((total / number, counts.len() as f64))
    }
}

/// The penalties of size, stereocentres, spiro atoms, bridgeheads and macrocycles.
fn complexity(molecule: &Perceived) -> Result<f64> {
    let graph = molecule.graph();
    let (centres, spiro, bridgeheads) = guarded("stereocentres", || {
        let centres = smiles::rdkit_chiral_centers(graph, true).map_err(chemistry)?;
        Ok::<_, Error>((centres.len(), chem::num_spiro_atoms(graph), chem::num_bridgehead_atoms(graph)))
    })??;
    let macrocycles = molecule.ring_sizes()?.iter().filter(|&&size| size > LARGEST_ORDINARY_RING).count();
    let penalty = |count: usize| (count as f64 + 1.0).log10();
    let atoms = molecule.heavy_atoms() as f64;
    Ok(atoms.powf(1.005) - atoms
        + penalty(centres)
        + penalty(spiro)
        + penalty(bridgeheads)
        + penalty(macrocycles.min(1)))
}

/// The raw score on the scale 1 … 10, smoothed at its hard end.
///
/// The smoothing dips just above 8 (8.1 becomes 5.7). That is so in RDKit, and kept for its sake.
fn to_scale(raw: f64) -> f64 {
    let score = 11.0 - (raw - RAW.0 + 1.0) / (RAW.1 - RAW.0) * 9.0;
    let score = if score > 8.0 { 8.0 + (score - 8.0).ln() } else { score };
    score.clamp(1.0, 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_foreign_file_says_where_to_get_the_right_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fpscores.pkl.gz");
        let message = |path: &Path| SaScorer::open(path).unwrap_err().to_string();
        assert!(message(&path).contains("pip install rdkit"));
        for content in [b"no pickle".as_slice(), b"", b"]."] {
            std::fs::write(&path, content).unwrap();
            assert!(message(&path).contains("pip install rdkit"), "{}", message(&path));
        }
    }

    #[test]
    fn a_plain_table_of_protocol_0_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.pkl");
        std::fs::write(&path, "(lp0\n(lp1\nF-2.5\naI4294967295\naI7\naa(lp2\nI1\naI9\naa.").unwrap();
        let scorer = SaScorer::open(&path).unwrap();
        assert_eq!(scorer.fragments(), 3);
        assert_eq!((scorer.fragments[&4_294_967_295], scorer.fragments[&9]), (-2.5, 1.0));
    }
}
