//! Where the costs of an assignment come from: a matrix, or points whose distances are computed on
//! demand.

use std::borrow::Cow;

use super::Cost;

/// A square table of costs that is read a row at a time.
pub(super) trait Costs {
    /// Number of rows and of columns.
    fn len(&self) -> usize;
    /// Writes row `i` into `out`, of length [`Costs::len`].
    fn row(&self, i: usize, out: &mut [f64]);
    /// The table of some rows and as many columns.
    fn part(&self, rows: &[usize], columns: &[usize]) -> Self;
}

/// A row-major table.
pub(super) struct Matrix<'a, T: Clone> {
    costs: Cow<'a, [T]>,
    n: usize,
}

impl<'a, T: Clone> Matrix<'a, T> {
    /// A view of `(n, n)` numbers; the caller has compared the length.
    pub(super) fn new(costs: &'a [T], n: usize) -> Self {
        Matrix { costs: Cow::Borrowed(costs), n }
    }
}

impl<T: Copy + Into<f64>> Costs for Matrix<'_, T> {
    fn len(&self) -> usize {
        self.n
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        for (out, &cost) in out.iter_mut().zip(&self.costs[i * self.n..(i + 1) * self.n]) {
            *out = cost.into();
        }
    }

    fn part(&self, rows: &[usize], columns: &[usize]) -> Self {
        let costs = rows.iter().flat_map(|&i| columns.iter().map(move |&j| (i, j)));
        let costs = costs.map(|(i, j)| self.costs[i * self.n + j]).collect();
        Matrix { costs: Cow::Owned(costs), n: rows.len() }
    }
}

/// Two sets of points in space; the targets are stored by coordinate, so that a row is one loop
/// over three contiguous arrays.
pub(super) struct Points {
    sources: Vec<[f64; 3]>,
    targets: [Vec<f64>; 3],
    cost: Cost,
}

impl Points {
    /// Costs from each point of `a` to each of `b`.
    pub(super) fn new(a: &[[f32; 3]], b: &[[f32; 3]], cost: Cost) -> Self {
        let targets = [0, 1, 2].map(|axis| b.iter().map(|p| f64::from(p[axis])).collect());
        Points { sources: a.iter().map(|p| p.map(f64::from)).collect(), targets, cost }
    }
}

impl Costs for Points {
    fn len(&self) -> usize {
        self.sources.len()
    }

    fn row(&self, i: usize, out: &mut [f64]) {
        let [x, y, z] = self.sources[i];
        let [xs, ys, zs] = &self.targets;
        let squared = |a: f64, b: f64, c: f64| (a - x) * (a - x) + (b - y) * (b - y) + (c - z) * (c - z);
        let targets = xs.iter().zip(ys).zip(zs);
        // The choice is made outside the loop: both bodies vectorise.
        match self.cost {
            Cost::Euclidean => {
                out.iter_mut().zip(targets).for_each(|(out, ((&a, &b), &c))| *out = squared(a, b, c).sqrt());
            }
            Cost::Squared => out.iter_mut().zip(targets).for_each(|(out, ((&a, &b), &c))| *out = squared(a, b, c)),
        }
    }

    fn part(&self, rows: &[usize], columns: &[usize]) -> Self {
        Points {
            sources: rows.iter().map(|&i| self.sources[i]).collect(),
            targets: [0, 1, 2].map(|axis| columns.iter().map(|&j| self.targets[axis][j]).collect()),
            cost: self.cost,
        }
    }
}
