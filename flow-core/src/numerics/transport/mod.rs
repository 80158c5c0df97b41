//! Optimal transport between two equally large sets with equal weights: exact assignment.
//!
//! Between `n` sources and `n` targets of equal weight an optimal plan may be taken to be a
//! permutation, so the transport problem is the linear assignment problem
//! `min over permutations p of sum_i c(i, p(i))`. Its dual is
//! `max sum_i u_i + sum_j v_j` subject to `u_i + v_j <= c(i, j)`; equality of the two values proves
//! that a permutation is optimal, which is why [`Assignment`] carries the duals `v`.
//!
//! The method is successive shortest augmenting paths with an augmenting row reduction (Jonker and
//! Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
//! problems", Computing 38, 1987) with two changes that leave it exact. The duals start from those
//! of a random quarter of the problem, carried over by the c-transform, so that the searches are
//! short. And each row knows only its cheapest columns together with a lower bound on all others; a
//! row is read further only when a search passes that bound.

mod coarse;
mod costs;
mod rows;
mod search;
#[cfg(test)]
mod tests;

use costs::{Costs, Matrix, Points};
use search::Unsolved;

use crate::{Error, Result};

/// Costs from here on could overflow when they are added along a path.
const LARGEST: f64 = 1e290;

/// The cost of moving one point to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// `|a - b|`: the Wasserstein-1 distance, which is what the papers on point clouds mean by EMD.
    Euclidean,
    /// `|a - b|^2`: the Wasserstein-2 distance squared, the coupling of flow matching.
    Squared,
}

/// An optimal assignment with its proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The column of each row, a permutation of `0..n`.
    pub columns: Vec<u32>,
    /// The sum of the chosen costs, accumulated in row order.
    pub cost: f64,
    /// The dual `v` of each column. `sum_j v_j + sum_i min_j (c(i, j) - v_j)` is a lower bound on
    /// the cost of every permutation and equals `cost` up to rounding.
    pub duals: Vec<f64>,
}

/// The permutation of least total cost.
///
/// # Arguments
/// * `costs`: row-major `(n, n)`, finite; negative values are allowed.
/// * `n`: number of rows; `0` gives the empty assignment.
///
/// # Errors
/// [`Error::Config`] when the length is not `n * n` or `n` does not fit `u32`,
/// [`Error::NonFinite`] for a NaN, an infinity, or a magnitude of `1e290` and more.
///
/// # Complexity
/// `O(n^3)` at worst; about `O(n^2)` where costs come from distances. Memory `O(n)` rows of short
/// candidate lists beside the matrix.
///
/// ```
/// # fn main() -> flow_core::Result<()> {
/// let best = flow_core::numerics::transport::assign(&[4.0, 1.0, 3.0, 2.0, 0.0, 5.0, 3.0, 2.0, 2.0], 3)?;
/// assert_eq!(best.columns, [1, 0, 2]);
/// assert_eq!(best.cost, 5.0);
/// # Ok(())
/// # }
/// ```
pub fn assign<T: Copy + Into<f64> + Sync>(costs: &[T], n: usize) -> Result<Assignment> {
    if n.checked_mul(n) != Some(costs.len()) {
        return Err(Error::config("assign", format!("{n} rows need {n} x {n} costs, got {}", costs.len())));
    }
    if let Some(at) = costs.iter().position(|&c| !usable(c.into())) {
        return Err(non_finite(format!("or overlarge cost of row {} and column {}", at / n, at % n)));
    }
    solve(&Matrix::new(costs, n))
}

/// The cheapest one-to-one pairing of two equally large sets of points in space.
///
/// Costs are computed in f64 as they are needed; no matrix is held.
///
/// # Errors
/// [`Error::Config`] when the sets differ in size, [`Error::NonFinite`] for a coordinate that is
/// not finite.
pub fn assign_points(a: &[[f32; 3]], b: &[[f32; 3]], cost: Cost) -> Result<Assignment> {
    check_points(a, b)?;
    solve(&Points::new(a, b, cost))
}

/// As [`assign_points`] where a pairing that costs more than `limit` is of no use: `None` then, often after a small part
/// of the work, because the duals of a part of the problem bound the cost of all of it from below.
///
/// # Errors
/// As [`assign_points`].
pub fn assign_points_within(a: &[[f32; 3]], b: &[[f32; 3]], cost: Cost, limit: f64) -> Result<Option<Assignment>> {
    check_points(a, b)?;
    solve_within(&Points::new(a, b, cost), limit)
}

/// The cheapest one-to-one pairing of two equally large sets of vectors of any dimension.
///
/// # Arguments
/// * `a`, `b`: row-major `(n, dim)`.
/// * `dim`: length of one vector, at least one.
///
/// # Errors
/// [`Error::Config`] for sizes that do not fit, [`Error::NonFinite`] for a NaN or an infinity.
pub fn assign_vectors(a: &[f32], b: &[f32], dim: usize, cost: Cost) -> Result<Assignment> {
    if dim == 0 || !a.len().is_multiple_of(dim) || !b.len().is_multiple_of(dim) {
        let reason = format!("vectors of length {dim} cannot fill {} and {} numbers", a.len(), b.len());
        return Err(Error::config("assign_vectors", reason));
    }
    equal_sizes(a.len() / dim, b.len() / dim)?;
    all_finite(a, dim, "source")?;
    all_finite(b, dim, "target")?;
    let costs: Vec<f64> = a.chunks(dim).flat_map(|x| b.chunks(dim).map(move |y| cost.between(x, y))).collect();
    solve(&Matrix::new(&costs, a.len() / dim))
}

impl Cost {
    /// The cost between two vectors of equal length, in f64.
    pub fn between(self, a: &[f32], b: &[f32]) -> f64 {
        let squared = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        self.of_squared(squared)
    }

    #[inline]
    fn of_squared(self, squared: f64) -> f64 {
        match self {
            Cost::Euclidean => squared.sqrt(),
            Cost::Squared => squared,
        }
    }
}

/// False for a NaN, too.
fn usable(cost: f64) -> bool {
    cost.abs() < LARGEST
}

fn solve<C: Costs>(costs: &C) -> Result<Assignment> {
    let best = solve_within(costs, f64::INFINITY)?;
    best.ok_or_else(|| non_finite("sum of costs".into()))
}

/// `None` when every pairing costs more than `limit`.
fn solve_within<C: Costs>(costs: &C, limit: f64) -> Result<Option<Assignment>> {
    if u32::try_from(2 * costs.len()).is_err() {
        return Err(Error::config("assign", format!("{} rows are more than can be indexed", costs.len())));
    }
    let solved = match coarse::solve(costs, limit) {
        Ok(solved) => solved,
        Err(Unsolved::Dearer) => return Ok(None),
        Err(Unsolved::Overflow) => return Err(non_finite("sum of costs".into())),
    };
    let cost: f64 = solved.costs.iter().sum();
    if !cost.is_finite() {
        return Err(non_finite("sum of costs".into()));
    }
    Ok((cost <= limit).then_some(Assignment { columns: solved.column_of, cost, duals: solved.duals }))
}

fn check_points(a: &[[f32; 3]], b: &[[f32; 3]]) -> Result<()> {
    equal_sizes(a.len(), b.len())?;
    all_finite(a.as_flattened(), 3, "source")?;
    all_finite(b.as_flattened(), 3, "target")
}

fn equal_sizes(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::config("assignment", format!("both sets need the same number of points, got {a} and {b}")))
}

fn all_finite(values: &[f32], dim: usize, which: &str) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(non_finite(format!("coordinate {} of {which} point {}", at % dim, at / dim))),
    }
}

fn non_finite(what: String) -> Error {
    Error::NonFinite { layer: "assignment".into(), what, step: None }
}
