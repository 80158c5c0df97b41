//! The part of a cost table that a search has looked at: the cheapest columns of each row, and a
//! lower bound on the rest.

use super::costs::Costs;

/// One known entry of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) column: u32,
    pub(super) cost: f64,
}

/// The known entries of each row.
///
/// The bound of a row is no more than `c(i, j) - v_j` of every column that is not listed. Duals only
/// ever fall while a level is solved, so a bound stays true once found.
pub(super) struct Rows<'a, C> {
    costs: &'a C,
    edges: Vec<Vec<Edge>>,
    bounds: Vec<f64>,
    row: Vec<f64>,
    picked: Vec<(f64, u32)>,
}

impl<'a, C: Costs> Rows<'a, C> {
    /// The `width` columns of least reduced cost in each row.
    pub(super) fn new(costs: &'a C, duals: &[f64], width: usize) -> Self {
        let n = costs.len();
        let (edges, bounds) = (vec![Vec::new(); n], vec![f64::NEG_INFINITY; n]);
        let mut rows = Rows { costs, edges, bounds, row: vec![0.0; n], picked: Vec::new() };
        for i in 0..n {
            rows.extend(i, duals, width);
        }
        rows
    }

    /// The known entries of row `i`.
    pub(super) fn known(&self, i: usize) -> &[Edge] {
        &self.edges[i]
    }

    /// A lower bound on the reduced cost of every column of row `i` that is not known; infinite when
    /// all are.
    pub(super) fn bound(&self, i: usize) -> f64 {
        self.bounds[i]
    }

    /// Reads as many more columns of row `i` as are known already; returns how many were known.
    pub(super) fn widen(&mut self, i: usize, duals: &[f64]) -> usize {
        let known = self.edges[i].len();
        self.extend(i, duals, known.max(1));
        known
    }

    fn extend(&mut self, i: usize, duals: &[f64], more: usize) {
        let row = &mut self.row;
        self.costs.row(i, row);
        row.iter_mut().zip(duals).for_each(|(cost, dual)| *cost -= dual);
        let edges = &mut self.edges[i];
        edges.iter().for_each(|edge| row[edge.column as usize] = f64::INFINITY);
        let left = row.len() - edges.len();
        smallest(row, more.min(left), &mut self.picked);
        let last = self.picked.iter().fold(f64::NEG_INFINITY, |last, &(value, _)| last.max(value));
        self.bounds[i] = if more < left { last } else { f64::INFINITY };
        edges.extend(self.picked.iter().map(|&(value, column)| Edge { column, cost: value + duals[column as usize] }));
    }
}

/// The `k` least of `values` with their places, in no order.
fn smallest(values: &[f64], k: usize, picked: &mut Vec<(f64, u32)>) {
    const INSERTION: usize = 24;
    picked.clear();
    let all = || values.iter().copied().zip(0u32..);
    if k > INSERTION {
        picked.extend(all());
        if k < picked.len() {
            picked.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
            picked.truncate(k);
        }
        return;
    }
    let mut worst = f64::INFINITY;
    for (value, place) in all() {
        if picked.len() == k && value >= worst || k == 0 {
            continue;
        }
        if picked.len() == k {
            picked.pop();
        }
        let at = picked.partition_point(|&(other, _)| other <= value);
        picked.insert(at, (value, place));
        worst = picked[picked.len() - 1].0;
    }
}
