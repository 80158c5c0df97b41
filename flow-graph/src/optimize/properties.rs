//! The two properties of the literature as rewards.

use super::reward::Reward;
use crate::chem::{SaScorer, penalized_log_p, qed};
use crate::molecule::Molecule;

/// Quantitative estimate of drug-likeness (Bickerton et al. 2012), in `[0, 1]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qed;

impl Reward for Qed {
    fn name(&self) -> &str {
        "qed"
    }

    fn property(&self, molecule: &Molecule) -> f64 {
        qed(molecule).unwrap_or(f64::NAN)
    }
}

/// Penalised logP (Kusner et al. 2017): logP less synthetic accessibility less the excess of the longest cycle over
/// six atoms, each standardized by the statistics of ZINC250k.
///
/// It rewards long chains without end; compare a result with the plain chain of as many carbon atoms.
#[derive(Debug)]
pub struct PenalizedLogP(pub SaScorer);

impl Reward for PenalizedLogP {
    fn name(&self) -> &str {
        "penalized_logp"
    }

    fn property(&self, molecule: &Molecule) -> f64 {
        penalized_log_p(molecule, &self.0).unwrap_or(f64::NAN)
    }
}
