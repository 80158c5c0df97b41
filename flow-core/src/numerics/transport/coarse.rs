//! Duals from a smaller problem of the same kind.
//!
//! The dual of a transport problem is a smooth function of the place, so the duals of a random
//! quarter of the points, carried to all by the c-transform `v_j = min_i (c(i, j) - u_i)`, are near
//! those of the whole. They only decide how long the searches are: whatever they are, what comes
//! out is optimal.

use super::costs::Costs;
use super::search::{Bound, Matching, Solved, Unsolved};
use crate::FlowRng;

/// Problems up to this size are solved at once, with whole rows.
const SMALL: usize = 96;
/// How many times smaller the next coarser problem is.
const RATIO: usize = 4;
/// Columns of a row that are read at first.
const WIDTH: usize = 10;

/// Solves the problem, unless its duals show early that every matching costs more than `limit`.
pub(super) fn solve<C: Costs>(costs: &C, limit: f64) -> Result<Solved, Unsolved> {
    let n = costs.len();
    let (duals, potentials, width) = if n <= SMALL {
        (lower_envelope(costs, (0..n).map(|i| (i, 0.0))), vec![0.0; n], n)
    } else {
        let (duals, potentials) = tighten(costs, from_part(costs)?);
        (duals, potentials, WIDTH)
    };
    Bound::of(&potentials, &duals).check(limit)?;
    Matching::new(costs, duals, width).solve(limit)
}

fn from_part<C: Costs>(costs: &C) -> Result<Vec<f64>, Unsolved> {
    let n = costs.len();
    // A fixed seed: the choice affects speed alone.
    let mut rng = FlowRng::seed_from(0);
    let [rows, columns] = [rng.permutation(n), rng.permutation(n)].map(|mut order| {
        order.truncate(n.div_ceil(RATIO));
        order
    });
    let part = solve(&costs.part(&rows, &columns), f64::INFINITY)?;
    let potential = |i: usize| part.costs[i] - part.duals[part.column_of[i] as usize];
    Ok(lower_envelope(costs, rows.iter().enumerate().map(|(i, &row)| (row, potential(i)))))
}

/// `v_j = min over the given rows of c(i, j) - u_i`.
fn lower_envelope<C: Costs>(costs: &C, rows: impl Iterator<Item = (usize, f64)>) -> Vec<f64> {
    let mut duals = vec![f64::INFINITY; costs.len()];
    let mut row = vec![0.0; costs.len()];
    for (i, potential) in rows {
        costs.row(i, &mut row);
        lower(&mut duals, &row, potential);
    }
    duals
}

/// Raises every dual as far as the best `u_i = min_j (c(i, j) - v_j)` allow, so that each column has
/// a row for which it is the cheapest. These `u` come second: `sum_i u_i + sum_j v_j` is no more than any matching costs.
fn tighten<C: Costs>(costs: &C, duals: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    let mut raised = vec![f64::INFINITY; costs.len()];
    let mut row = vec![0.0; costs.len()];
    let potential = |i: usize| {
        costs.row(i, &mut row);
        let potential =
            row.iter().zip(&duals).map(|(c, v)| c - v).fold(f64::INFINITY, |a, b| if b < a { b } else { a });
        lower(&mut raised, &row, potential);
        potential
    };
    let potentials = (0..costs.len()).map(potential).collect();
    (raised, potentials)
}

fn lower(duals: &mut [f64], row: &[f64], potential: f64) {
    for (dual, cost) in duals.iter_mut().zip(row) {
        let value = cost - potential;
        *dual = if value < *dual { value } else { *dual };
    }
}
