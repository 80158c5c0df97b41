//! Distances of all pairs of clouds.

use rayon::prelude::*;

use super::chamfer::{Searched, between};
use super::{check, check_pair};
use crate::{Point, Result};

/// Distances of all pairs, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// `rows × columns` distances.
    pub values: Vec<f64>,
}

impl Matrix {
    /// The distance of row `i` and column `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.columns + j]
    }

    /// `distance(a_i, b_j)` of all pairs, in parallel.
    ///
    /// # Errors
    /// Those of `distance`.
    pub fn of(
        a: &[Vec<Point>],
        b: &[Vec<Point>],
        distance: impl Fn(&[Point], &[Point]) -> Result<f64> + Sync,
    ) -> Result<Self> {
        let pairs = (0..a.len() * b.len()).into_par_iter();
        let values = pairs.map(|k| distance(&a[k / b.len()], &b[k % b.len()])).collect::<Result<_>>()?;
        Ok(Matrix { rows: a.len(), columns: b.len(), values })
    }

    /// `distance(a_i, a_j)` of all pairs of one set: each pair once, zero on the diagonal.
    ///
    /// # Errors
    /// Those of `distance`.
    pub fn within(a: &[Vec<Point>], distance: impl Fn(&[Point], &[Point]) -> Result<f64> + Sync) -> Result<Self> {
        let n = a.len();
        let pairs = pairs_within(n);
        let found: Vec<f64> = pairs.par_iter().map(|&(i, j)| distance(&a[i], &a[j])).collect::<Result<_>>()?;
        Ok(Self::mirrored(n, &pairs, &found))
    }

    fn mirrored(n: usize, pairs: &[(usize, usize)], found: &[f64]) -> Self {
        let mut values = vec![0.0; n * n];
        for (&(i, j), &d) in pairs.iter().zip(found) {
            values[i * n + j] = d;
            values[j * n + i] = d;
        }
        Matrix { rows: n, columns: n, values }
    }

    /// Chamfer distances of all pairs; every cloud's tree is built once.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for an empty cloud or coordinates that are not finite.
    pub fn chamfer(a: &[Vec<Point>], b: &[Vec<Point>]) -> Result<Self> {
        a.iter().chain(b).try_for_each(|cloud| check("Chamfer distance", cloud))?;
        let (ta, tb) = (trees(a), trees(b));
        let pairs = (0..a.len() * b.len()).into_par_iter();
        let values = pairs.map(|k| between(&ta[k / b.len()], &tb[k % b.len()])).collect();
        Ok(Matrix { rows: a.len(), columns: b.len(), values })
    }

    /// Chamfer distances within one set.
    ///
    /// # Errors
    /// As [`Matrix::chamfer`].
    pub fn chamfer_within(a: &[Vec<Point>]) -> Result<Self> {
        a.iter().try_for_each(|cloud| check("Chamfer distance", cloud))?;
        let (n, trees) = (a.len(), trees(a));
        let pairs = pairs_within(n);
        let found: Vec<f64> = pairs.par_iter().map(|&(i, j)| between(&trees[i], &trees[j])).collect();
        Ok(Self::mirrored(n, &pairs, &found))
    }
}

/// The pairs `i < j` of `n` things.
pub(super) fn pairs_within(n: usize) -> Vec<(usize, usize)> {
    (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect()
}

fn trees(clouds: &[Vec<Point>]) -> Vec<Searched<'_>> {
    clouds.par_iter().map(|cloud| Searched::new(cloud)).collect()
}

/// The three matrices between samples and references that 1-NNA needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    /// Samples against samples.
    pub samples: Matrix,
    /// Samples (rows) against references (columns).
    pub across: Matrix,
    /// References against references.
    pub references: Matrix,
}

impl Distances {
    /// All three by Chamfer distance.
    ///
    /// # Errors
    /// As [`Matrix::chamfer`].
    pub fn chamfer(samples: &[Vec<Point>], references: &[Vec<Point>]) -> Result<Self> {
        Ok(Distances {
            samples: Matrix::chamfer_within(samples)?,
            across: Matrix::chamfer(samples, references)?,
            references: Matrix::chamfer_within(references)?,
        })
    }

    /// All three by another symmetric distance.
    ///
    /// # Errors
    /// Those of `distance`, and [`flow_core::Error::Config`] for clouds of different sizes.
    pub fn of(
        samples: &[Vec<Point>],
        references: &[Vec<Point>],
        distance: impl Fn(&[Point], &[Point]) -> Result<f64> + Sync,
    ) -> Result<Self> {
        if let (Some(a), Some(b)) = (samples.first(), references.first()) {
            check_pair("distance", a, b)?;
        }
        Ok(Distances {
            samples: Matrix::within(samples, &distance)?,
            across: Matrix::of(samples, references, &distance)?,
            references: Matrix::within(references, &distance)?,
        })
    }
}
