//! Exact optimal transport between two sets of equal size: the linear assignment problem.

use crate::{Error, Result};

/// An optimal assignment of rows to columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The column of every row.
    pub columns: Vec<u32>,
    /// The sum of the costs.
    pub cost: f64,
}

/// The permutation `π` that minimises `Σ_i costs[i·n + π(i)]`, by shortest augmenting paths, `O(n³)`.
///
/// # Errors
/// [`Error::Config`] when there are not `n²` costs or one is not finite.
pub fn assign(costs: &[f64], n: usize) -> Result<Assignment> {
    if costs.len() != n * n || costs.iter().any(|c| !c.is_finite()) {
        return Err(Error::config("assignment", format!("needs {n}² finite costs, got {}", costs.len())));
    }
    let (mut u, mut v) = (vec![0.0; n + 1], vec![0.0; n + 1]);
    let mut row_of = vec![0; n + 1];
    for i in 1..=n {
        let (mut way, mut least, mut used) = (vec![0; n + 1], vec![f64::INFINITY; n + 1], vec![false; n + 1]);
        row_of[0] = i;
        let mut j0 = 0;
        while row_of[j0] != 0 {
            used[j0] = true;
            let (i0, mut delta, mut j1) = (row_of[j0], f64::INFINITY, 0);
            for j in (1..=n).filter(|&j| !used[j]) {
                let reduced = costs[(i0 - 1) * n + j - 1] - u[i0] - v[j];
                if reduced < least[j] {
                    (least[j], way[j]) = (reduced, j0);
                }
                if least[j] < delta {
                    (delta, j1) = (least[j], j);
                }
            }
            for j in 0..=n {
                if used[j] {
                    u[row_of[j]] += delta;
                    v[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            j0 = j1;
        }
        while j0 != 0 {
            row_of[j0] = row_of[way[j0]];
            j0 = way[j0];
        }
    }
    let mut columns = vec![0; n];
    (1..=n).for_each(|j| columns[row_of[j] - 1] = (j - 1) as u32);
    let cost = columns.iter().enumerate().map(|(i, &j)| costs[i * n + j as usize]).sum();
    Ok(Assignment { columns, cost })
}
