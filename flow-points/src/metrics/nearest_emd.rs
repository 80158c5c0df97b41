//! Nearest neighbours by exact EMD.
//!
//! A distance that is dear need not be known of all pairs. They are taken in the order of a cheap lower bound, and only if
//! that is below the nearest one that either cloud has met; most of those are given up half solved, when the dual of their
//! transport problem has passed it too. What is found is the nearest cloud all the same.

use flow_core::numerics::transport::{Cost, assign_points_within};
use rayon::prelude::*;

use super::check_pair;
use super::matrix::pairs_within;
use super::neighbours::{Met, Neighbours};
use crate::{Point, Result};

/// By how much a bound has to pass a distance, relative to it; rounding stays far below that for clouds that are not the same
/// up to their last digits, and these have bounds of zero.
const ROUNDING: f64 = 1e-9;

/// Pairs that are solved side by side, knowing what was met before.
const SIDE_BY_SIDE: usize = 64;

impl Neighbours {
    /// By exact EMD, that is [`super::emd_exact`] or [`super::emd_exact_squared`] by the cost, without solving all pairs.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when either set is empty, and for clouds that are empty, of different sizes or not
    /// finite.
    pub fn by_exact_emd(samples: &[Vec<Point>], references: &[Vec<Point>], cost: Cost) -> Result<Self> {
        let mut met = Met::new(samples.len(), references.len())?;
        let union: Vec<&[Point]> = samples.iter().chain(references).map(Vec::as_slice).collect();
        union.iter().try_for_each(|cloud| check_pair("exact EMD", union[0], cloud))?;
        for pairs in pairs(&union, cost).chunks(SIDE_BY_SIDE) {
            let found: Vec<Option<f64>> =
                pairs.par_iter().map(|pair| pair.distance(&union, cost, &met)).collect::<Result<_>>()?;
            for (pair, distance) in pairs.iter().zip(found) {
                distance.into_iter().for_each(|distance| met.meet(pair.a, pair.b, distance));
            }
        }
        met.neighbours()
    }
}

/// Two clouds of the union, the smaller index first, and a lower bound of their distance.
struct Pair {
    a: usize,
    b: usize,
    bound: f64,
}

/// All pairs in the order of their bounds.
fn pairs(union: &[&[Point]], cost: Cost) -> Vec<Pair> {
    let projections: Vec<Projections> = union.par_iter().map(|cloud| Projections::new(cloud)).collect();
    let pair = |&(a, b): &(usize, usize)| Pair { a, b, bound: projections[a].bound(&projections[b], cost) };
    let mut pairs: Vec<Pair> = pairs_within(union.len()).par_iter().map(pair).collect();
    pairs.par_sort_by(|x, y| x.bound.total_cmp(&y.bound));
    pairs
}

impl Pair {
    /// The distance, if it may be the least that one of the two has met.
    fn distance(&self, union: &[&[Point]], cost: Cost, met: &Met) -> Result<Option<f64>> {
        let limit = met.least(self.a, self.b).max(met.least(self.b, self.a)) * (1.0 + ROUNDING);
        if self.bound > limit {
            return Ok(None);
        }
        let (a, b) = (union[self.a], union[self.b]);
        let points = a.len() as f64;
        let plan = assign_points_within(a, b, cost, limit * points)?;
        Ok(plan.map(|plan| plan.cost / points))
    }
}

/// Projections of a cloud on the axes of two frames, each in order: the transport along an axis pairs them so, and costs no
/// more than the transport in space.
struct Projections([[Vec<f64>; 3]; 2]);

/// Orthonormal rows.
const FRAMES: [[[f64; 3]; 3]; 2] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0], [2.0 / 3.0, 1.0 / 3.0, -2.0 / 3.0], [2.0 / 3.0, -2.0 / 3.0, 1.0 / 3.0]],
];

impl Projections {
    fn new(cloud: &[Point]) -> Self {
        let along = |axis: [f64; 3]| {
            let mut values: Vec<f64> = cloud.iter().map(|p| (0..3).map(|k| axis[k] * f64::from(p[k])).sum()).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        Projections(FRAMES.map(|frame| frame.map(along)))
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
