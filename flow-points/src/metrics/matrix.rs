//! Distances between sets of clouds, and what follows from them alone.

use flow_core::FlowRng;
use rayon::prelude::*;

use super::chamfer::{Searched, between};
use super::{check, check_pair};
use crate::{Error, Point, Result};

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
        let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
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
        let pairs: Vec<(usize, usize)> = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
        let found: Vec<f64> = pairs.par_iter().map(|&(i, j)| between(&trees[i], &trees[j])).collect();
        Ok(Self::mirrored(n, &pairs, &found))
    }
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

/// MMD: the mean over references of the distance to the nearest sample; samples are rows.
///
/// # Errors
/// [`flow_core::Error::Config`] when either set is empty.
pub fn minimum_matching_distance(across: &Matrix) -> Result<f64> {
    not_empty(across)?;
    let nearest = |j: usize| (0..across.rows).map(|i| across.at(i, j)).fold(f64::INFINITY, f64::min);
    Ok((0..across.columns).map(nearest).sum::<f64>() / across.columns as f64)
}

/// COV: the share of references that are the nearest one of some sample; samples are rows. Ties go to the first.
///
/// # Errors
/// As [`minimum_matching_distance`].
pub fn coverage(across: &Matrix) -> Result<f64> {
    not_empty(across)?;
    let mut hit = vec![false; across.columns];
    for i in 0..across.rows {
        let nearest = (0..across.columns).min_by(|&a, &b| across.at(i, a).total_cmp(&across.at(i, b)));
        nearest.into_iter().for_each(|j| hit[j] = true);
    }
    Ok(hit.iter().filter(|h| **h).count() as f64 / across.columns as f64)
}

/// 1-NNA: how often the nearest other cloud of the union comes from the same set (Lopez-Paz & Oquab 2017); one half if the
/// sets cannot be told apart, below it if samples are copies. Ties go to the same set.
///
/// # Errors
/// As [`minimum_matching_distance`].
pub fn one_nearest_neighbour(distances: &Distances) -> Result<f64> {
    let right = same_set(distances)?;
    Ok(right.iter().filter(|r| **r).count() as f64 / right.len() as f64)
}

/// The 1-NNA with a 95 % bootstrap interval over the clouds, neighbours held fixed.
///
/// # Errors
/// As [`minimum_matching_distance`].
pub fn one_nearest_neighbour_interval(distances: &Distances, rng: &mut FlowRng) -> Result<(f64, [f64; 2])> {
    const DRAWS: usize = 1000;
    let right = same_set(distances)?;
    let share = |count: usize| count as f64 / right.len() as f64;
    let mut drawn: Vec<f64> =
        (0..DRAWS).map(|_| share((0..right.len()).filter(|_| right[rng.below(right.len())]).count())).collect();
    drawn.sort_by(f64::total_cmp);
    let all = share(right.iter().filter(|r| **r).count());
    Ok((all, [drawn[DRAWS / 40], drawn[DRAWS - 1 - DRAWS / 40]]))
}

/// For each sample, then each reference: whether its nearest other cloud is of its own set.
fn same_set(d: &Distances) -> Result<Vec<bool>> {
    not_empty(&d.across)?;
    let least = |v: &mut dyn Iterator<Item = f64>| v.fold(f64::INFINITY, f64::min);
    let (n, m) = (d.across.rows, d.across.columns);
    let samples = (0..n).map(|i| {
        let own = least(&mut (0..n).filter(|&k| k != i).map(|k| d.samples.at(i, k)));
        own <= least(&mut (0..m).map(|j| d.across.at(i, j)))
    });
    let references = (0..m).map(|j| {
        let own = least(&mut (0..m).filter(|&k| k != j).map(|k| d.references.at(j, k)));
        own <= least(&mut (0..n).map(|i| d.across.at(i, j)))
    });
    Ok(samples.chain(references).collect())
}

fn not_empty(across: &Matrix) -> Result<()> {
    if across.rows == 0 || across.columns == 0 {
        let reason = format!("{} samples and {} references; both need at least one", across.rows, across.columns);
        return Err(Error::config("metrics", reason));
    }
    Ok(())
}
