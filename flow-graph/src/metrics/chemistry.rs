//! Means of properties.

use rayon::prelude::*;

use super::Means;
use crate::Result;
use crate::chem::{Perceived, SaScorer};
use crate::molecule::Molecule;

/// Means over the molecules whose properties can be computed; `None` if there are none.
pub(super) fn means(molecules: &[&Molecule], scorer: Option<&SaScorer>) -> Option<Means> {
    // Collected in order before they are summed, so that the rounding does not depend on the threads.
    let rows: Vec<Means> = molecules.par_iter().filter_map(|molecule| of(molecule, scorer).ok()).collect();
    let mean = |value: fn(&Means) -> f64| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
    let with_scorer = |value: fn(&Means) -> f64| scorer.map(|_| mean(value));
    (!rows.is_empty()).then(|| Means {
        qed: mean(|m| m.qed),
        log_p: mean(|m| m.log_p),
        molecular_weight: mean(|m| m.molecular_weight),
        synthetic_accessibility: with_scorer(|m| m.synthetic_accessibility.unwrap_or_default()),
        penalized_log_p: with_scorer(|m| m.penalized_log_p.unwrap_or_default()),
    })
}

fn of(molecule: &Molecule, scorer: Option<&SaScorer>) -> Result<Means> {
    let molecule = Perceived::new(molecule)?;
    let accessibility = scorer.map(|scorer| scorer.score_perceived(&molecule)).transpose()?;
    Ok(Means {
        qed: molecule.qed()?,
        log_p: molecule.log_p()?,
        molecular_weight: molecule.molecular_weight()?,
        synthetic_accessibility: accessibility,
        penalized_log_p: accessibility.map(|score| molecule.penalized(score)).transpose()?,
    })
}
