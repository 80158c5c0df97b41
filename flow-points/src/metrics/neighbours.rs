//! Nearest neighbours within and between two sets of clouds: all that MMD, coverage and 1-NNA ask for.
//!
//! A distance that is dear, as the exact EMD, need not be known of all pairs for that. Clouds are asked in the order of a
//! cheap lower bound, until it passes the nearest one found; most of those asked are refused by a better bound, the dual
//! of a part of their transport problem. What is found is the nearest cloud all the same.

use std::collections::HashSet;
use std::ops::Range;

use flow_core::FlowRng;
use flow_core::transport::{Cost, assign_points_within};
use rayon::prelude::*;

use super::{Distances, check_pair};
use crate::{Error, Point, Result};

/// Relative error that bounds may have by rounding.
const ROUNDING: f64 = 1e-9;

/// A cloud's nearest one in some set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Its place in the set; the first of several that are equally near.
    pub index: usize,
    /// How far it is.
    pub distance: f64,
}

impl Nearest {
    fn among(candidates: impl Iterator<Item = Nearest>) -> Option<Self> {
        candidates.reduce(|a, b| if (b.distance, b.index) < (a.distance, a.index) { b } else { a })
    }
}

/// What is near a cloud.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The nearest other cloud of its own set, if it is not alone.
    pub own: Option<Nearest>,
    /// The nearest cloud of the other set.
    pub other: Nearest,
}

/// The nearest neighbours of all clouds of two sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Of every sample.
    pub samples: Vec<Neighbour>,
    /// Of every reference.
    pub references: Vec<Neighbour>,
}

impl Neighbours {
    /// From the distances of all pairs.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when either set is empty.
    pub fn of(distances: &Distances) -> Result<Self> {
        Self::found(distances.across.rows, distances.across.columns, |u, set| {
            let others = set.filter(|&v| v != u);
            Ok(Nearest::among(others.map(|v| Nearest { index: v, distance: distances.between(u, v) })))
        })
    }

    /// By exact EMD, that is [`super::emd_exact`] or [`super::emd_exact_squared`] by the cost, without solving all pairs.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when either set is empty, and for clouds that are empty, of different sizes or not
    /// finite.
    pub fn by_exact_emd(samples: &[Vec<Point>], references: &[Vec<Point>], cost: Cost) -> Result<Self> {
        let union: Vec<&Vec<Point>> = samples.iter().chain(references).collect();
        union.iter().try_for_each(|cloud| check_pair("exact EMD", union[0], cloud))?;
        let sorted = union.par_iter().map(|cloud| Sorted::new(cloud)).collect();
        let search = Search { union, sorted, cost };
        Self::found(samples.len(), references.len(), |u, set| search.nearest(u, set))
    }

    /// Asks for the nearest of each of the `n` samples and, counted on, `m` references in either set.
    fn found(
        n: usize,
        m: usize,
        nearest: impl Fn(usize, Range<usize>) -> Result<Option<Nearest>> + Sync,
    ) -> Result<Self> {
        if n == 0 || m == 0 {
            return Err(empty(n, m));
        }
        let within = |u: usize, set: Range<usize>| -> Result<Option<Nearest>> {
            let from = set.start;
            Ok(nearest(u, set)?.map(|found| Nearest { index: found.index - from, ..found }))
        };
        let neighbour = |u: usize| -> Result<Neighbour> {
            let (own, other) = if u < n { (0..n, n..n + m) } else { (n..n + m, 0..n) };
            Ok(Neighbour { own: within(u, own)?, other: within(u, other)?.ok_or_else(|| empty(n, m))? })
        };
        let mut samples = (0..n + m).into_par_iter().map(neighbour).collect::<Result<Vec<_>>>()?;
        let references = samples.split_off(n);
        Ok(Neighbours { samples, references })
    }
}

fn empty(samples: usize, references: usize) -> Error {
    let reason = format!("{samples} samples and {references} references; both need at least one");
    Error::config("metrics", reason)
}

/// The clouds of both sets, ready to be asked.
struct Search<'a> {
    union: Vec<&'a Vec<Point>>,
    sorted: Vec<Sorted>,
    cost: Cost,
}

impl Search<'_> {
    /// The nearest cloud to cloud `u` among `set` but itself.
    fn nearest(&self, u: usize, set: Range<usize>) -> Result<Option<Nearest>> {
        let mut bounds: Vec<Nearest> = set
            .filter(|&v| v != u)
            .map(|v| Nearest { index: v, distance: self.sorted[u].bound(&self.sorted[v], self.cost) })
            .collect();
        bounds.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        let points = self.union[u].len() as f64;
        let mut best: Option<Nearest> = None;
        for Nearest { index, distance: bound } in bounds {
            let limit = best.map_or(f64::INFINITY, |best| best.distance);
            if bound * (1.0 - ROUNDING) > limit {
                break;
            }
            // The smaller index first, so that a pair is as far apart from either side, to the last bit.
            let (a, b) = (self.union[u.min(index)], self.union[u.max(index)]);
            // A sum of the limit's mean may round down by a bit.
            let found = assign_points_within(a, b, self.cost, limit * points * (1.0 + ROUNDING))?;
            let found = found.map(|plan| Nearest { index, distance: plan.cost / points });
            best = Nearest::among(best.into_iter().chain(found));
        }
        Ok(best)
    }
}

/// Projections of a cloud on the axes of two frames, each in order: the transport along an axis pairs them so, and costs no
/// more than the transport in space.
struct Sorted([[Vec<f64>; 3]; 2]);

/// Orthonormal rows.
const FRAMES: [[[f64; 3]; 3]; 2] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0], [2.0 / 3.0, 1.0 / 3.0, -2.0 / 3.0], [2.0 / 3.0, -2.0 / 3.0, 1.0 / 3.0]],
];

impl Sorted {
    fn new(cloud: &[Point]) -> Self {
        let along = |axis: [f64; 3]| {
            let mut values: Vec<f64> = cloud.iter().map(|p| (0..3).map(|k| axis[k] * f64::from(p[k])).sum()).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        Sorted(FRAMES.map(|frame| frame.map(along)))
    }

    /// A lower bound of the exact EMD of two clouds of one size.
    ///
    /// With `d_k` the differences along the axes of a frame under the best plan, and `W_k` the one-dimensional distances:
    /// `mean Σ d_k² ≥ Σ W_k²` for the squared cost, and `mean |d| ≥ |mean |d_k|| ≥ |W|` for the distance, as a norm is
    /// convex.
    fn bound(&self, other: &Self, cost: Cost) -> f64 {
        let along = |a: &Vec<f64>, b: &Vec<f64>| {
            let differences = a.iter().zip(b).map(|(a, b)| a - b);
            match cost {
                Cost::Euclidean => (differences.map(f64::abs).sum::<f64>() / a.len() as f64).powi(2),
                Cost::Squared => differences.map(|d| d * d).sum::<f64>() / a.len() as f64,
            }
        };
        let frame = |(a, b): (&[Vec<f64>; 3], &[Vec<f64>; 3])| a.iter().zip(b).map(|(a, b)| along(a, b)).sum::<f64>();
        let sum = self.0.iter().zip(&other.0).map(frame).fold(0.0, f64::max);
        match cost {
            Cost::Euclidean => sum.sqrt(),
            Cost::Squared => sum,
        }
    }
}

/// MMD: the mean over references of the distance to the nearest sample.
pub fn minimum_matching_distance(neighbours: &Neighbours) -> f64 {
    let all = &neighbours.references;
    all.iter().map(|reference| reference.other.distance).sum::<f64>() / all.len() as f64
}

/// COV: the share of references that are the nearest one of some sample. Ties go to the first.
pub fn coverage(neighbours: &Neighbours) -> f64 {
    let hit: HashSet<usize> = neighbours.samples.iter().map(|sample| sample.other.index).collect();
    hit.len() as f64 / neighbours.references.len() as f64
}

/// 1-NNA: how often the nearest other cloud of the union comes from the same set (Lopez-Paz & Oquab 2017); one half if the
/// sets cannot be told apart, below it if samples are copies. Ties go to the same set.
pub fn one_nearest_neighbour(neighbours: &Neighbours) -> f64 {
    let right = same_set(neighbours);
    right.iter().filter(|r| **r).count() as f64 / right.len() as f64
}

/// The 1-NNA with a 95 % bootstrap interval over the clouds, neighbours held fixed.
pub fn one_nearest_neighbour_interval(neighbours: &Neighbours, rng: &mut FlowRng) -> (f64, [f64; 2]) {
    const DRAWS: usize = 1000;
    let right = same_set(neighbours);
    let share = |count: usize| count as f64 / right.len() as f64;
    let mut drawn: Vec<f64> =
        (0..DRAWS).map(|_| share((0..right.len()).filter(|_| right[rng.below(right.len())]).count())).collect();
    drawn.sort_by(f64::total_cmp);
    let all = share(right.iter().filter(|r| **r).count());
    (all, [drawn[DRAWS / 40], drawn[DRAWS - 1 - DRAWS / 40]])
}

/// For each sample, then each reference: whether its nearest other cloud is of its own set.
fn same_set(neighbours: &Neighbours) -> Vec<bool> {
    let all = neighbours.samples.iter().chain(&neighbours.references);
    all.map(|n| n.own.is_some_and(|own| own.distance <= n.other.distance)).collect()
}
