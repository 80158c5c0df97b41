//! The whole table at once.

use flow_core::FlowRng;
use flow_core::numerics::transport::Cost;
use serde::Serialize;

use super::{
    Distances, Frame, Neighbours, coverage, emd_approx_pointflow, emd_approx_squared, jensen_shannon,
    minimum_matching_distance, one_nearest_neighbour_interval,
};
use crate::{Point, Result};

/// Which earth mover's distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EmdKind {
    /// [`super::emd_exact`].
    Exact,
    /// [`super::emd_exact_squared`].
    ExactSquared,
    /// [`emd_approx_pointflow`].
    ApproxPointflow,
    /// [`emd_approx_squared`].
    ApproxSquared,
}

/// What to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EvaluateOptions {
    /// The earth mover's distance beside the Chamfer distance, if any: it takes most of the time.
    pub emd: Option<EmdKind>,
}

impl EvaluateOptions {
    /// Another earth mover's distance, `None` for the Chamfer distance only.
    #[must_use]
    pub fn with_emd(self, emd: Option<EmdKind>) -> Self {
        EvaluateOptions { emd }
    }
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions { emd: Some(EmdKind::Exact) }
    }
}

/// What follows from one distance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// Minimum matching distance.
    pub mmd: f64,
    /// Coverage.
    pub coverage: f64,
    /// Accuracy of the nearest neighbour.
    pub one_nna: f64,
    /// Its 95 % bootstrap interval.
    pub one_nna_interval: [f64; 2],
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Table {
    /// Jensen–Shannon divergence in the frame of the references.
    pub jsd: f64,
    /// By Chamfer distance.
    pub chamfer: Row,
    /// By earth mover's distance.
    pub emd: Option<Row>,
}

/// Compares samples with references.
///
/// # Errors
/// [`flow_core::Error::Config`] for empty sets or clouds; with an EMD also for clouds of different sizes.
pub fn evaluate(
    samples: &[Vec<Point>],
    references: &[Vec<Point>],
    options: &EvaluateOptions,
    rng: &mut FlowRng,
) -> Result<Table> {
    let chamfer = row(&Neighbours::of(&Distances::chamfer(samples, references)?)?, rng);
    let approximate = |distance: fn(&[Point], &[Point]) -> Result<f64>| {
        Neighbours::of(&Distances::of(samples, references, distance)?)
    };
    let neighbours = options.emd.map(|kind| match kind {
        EmdKind::Exact => Neighbours::by_exact_emd(samples, references, Cost::Euclidean),
        EmdKind::ExactSquared => Neighbours::by_exact_emd(samples, references, Cost::Squared),
        EmdKind::ApproxPointflow => approximate(emd_approx_pointflow),
        EmdKind::ApproxSquared => approximate(emd_approx_squared),
    });
    let emd = neighbours.transpose()?.map(|neighbours| row(&neighbours, rng));
    let jsd = jensen_shannon(samples, references, &Frame::around(references)?)?;
    Ok(Table { jsd, chamfer, emd })
}

fn row(neighbours: &Neighbours, rng: &mut FlowRng) -> Row {
    let (one_nna, one_nna_interval) = one_nearest_neighbour_interval(neighbours, rng);
    Row { mmd: minimum_matching_distance(neighbours), coverage: coverage(neighbours), one_nna, one_nna_interval }
}

impl Table {
    /// The header of [`Table`]'s lines; MMD-CD is printed times 10³, MMD-EMD and JSD times 10², as in the literature.
    pub fn header(options: &EvaluateOptions) -> String {
        let columns = |name: &str, power: &str| {
            format!("{:>12} {:>7} {:>22}", format!("MMD-{name} ×{power}"), "COV %", "1-NNA % [95 %]")
        };
        let emd = match options.emd {
            Some(kind) => format!(" | {} ({kind:?})", columns("EMD", "10²")),
            None => String::new(),
        };
        format!("{:<10} {:>9} | {}{emd}", "", "JSD ×10²", columns("CD", "10³"))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let row = |r: &Row, factor: f64| {
            let [low, high] = r.one_nna_interval.map(|v| 100.0 * v);
            let interval = format!("{:.2} [{low:.1}, {high:.1}]", 100.0 * r.one_nna);
            format!("{:>12.3} {:>7.2} {interval:>22}", factor * r.mmd, 100.0 * r.coverage)
        };
        write!(f, "{:>9.3} | {}", 100.0 * self.jsd, row(&self.chamfer, 1e3))?;
        self.emd.iter().try_for_each(|emd| write!(f, " | {}", row(emd, 1e2)))
    }
}
