//! Augmenting row reduction and shortest augmenting paths on lazily read rows.
//!
//! Invariant: every matched row sits on a column of least reduced cost `c(i, j) - v_j` in its whole
//! row, known or not. A matching of all rows with that property is optimal.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::costs::Costs;
use super::rows::Rows;

const NONE: u32 = u32::MAX;

/// A column and the cost of taking it.
type Entry = (u32, f64);

/// A complete matching with the duals that prove it optimal.
pub(super) struct Solved {
    pub(super) column_of: Vec<u32>,
    /// The cost of each row's column.
    pub(super) costs: Vec<f64>,
    pub(super) duals: Vec<f64>,
}

/// Why there is no matching.
pub(super) enum Unsolved {
    /// Every matching costs more than the limit.
    Dearer,
    /// The arithmetic overflows.
    Overflow,
}

/// What no matching costs less than: the value `sum_i u_i + sum_j v_j` of duals that keep below the costs.
pub(super) struct Bound {
    value: f64,
    /// The sum of the magnitudes, to which rounding is relative.
    magnitude: f64,
}

impl Bound {
    pub(super) fn of(potentials: &[f64], duals: &[f64]) -> Self {
        let all = || potentials.iter().chain(duals);
        Bound { value: all().sum(), magnitude: all().map(|v| v.abs()).sum() }
    }

    /// Stops the work when the bound has passed the limit.
    pub(super) fn check(&self, limit: f64) -> Result<(), Unsolved> {
        let rounding = 1e-12 * (self.magnitude + self.value.abs());
        if self.value - limit > rounding { Err(Unsolved::Dearer) } else { Ok(()) }
    }
}

/// A partial matching on its way.
pub(super) struct Matching<'a, C> {
    rows: Rows<'a, C>,
    column_of: Vec<u32>,
    row_of: Vec<u32>,
    matched_cost: Vec<f64>,
    duals: Vec<f64>,
    search: Search,
}

/// The state of one shortest-path search; the arrays are kept from search to search and only what
/// was touched is reset.
struct Search {
    distance: Vec<f64>,
    settled: Vec<bool>,
    /// The row from which a column was reached, and the cost of that entry.
    parent: Vec<(u32, f64)>,
    touched: Vec<u32>,
    /// Distance and potential of each row in the tree.
    tree: Vec<(f64, f64)>,
    heap: BinaryHeap<Event>,
}

/// A column to settle (`node < n`), or a row whose unknown columns may matter from here on
/// (`node - n`).
struct Event {
    key: f64,
    node: u32,
}

impl Ord for Event {
    /// Least key first out of the standard max-heap; ties by node, so that the order is fixed.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.total_cmp(&self.key).then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

impl<'a, C: Costs> Matching<'a, C> {
    /// The empty matching; any duals will do.
    pub(super) fn new(costs: &'a C, duals: Vec<f64>, width: usize) -> Self {
        let n = costs.len();
        Matching {
            rows: Rows::new(costs, &duals, width),
            column_of: vec![NONE; n],
            row_of: vec![NONE; n],
            matched_cost: vec![0.0; n],
            duals,
            search: Search::new(n),
        }
    }

    /// Matches every row, unless all matchings turn out to cost more than `limit`: each path raises the value of the duals
    /// by its length.
    pub(super) fn solve(mut self, limit: f64) -> Result<Solved, Unsolved> {
        let mut free: Vec<usize> = (0..self.column_of.len()).collect();
        for _ in 0..3 {
            free = self.reduce(free);
        }
        let potentials: Vec<f64> = (0..self.column_of.len()).map(|row| self.potential(row)).collect();
        let mut bound = Bound::of(&potentials, &self.duals);
        for row in free {
            bound.check(limit)?;
            bound.value += self.augment(row).ok_or(Unsolved::Overflow)? - potentials[row];
        }
        Ok(Solved { column_of: self.column_of, costs: self.matched_cost, duals: self.duals })
    }

    /// The reduced cost of a row's own column, or no more than the least of a free row.
    fn potential(&self, row: usize) -> f64 {
        match self.column_of[row] {
            NONE => {
                let known = self.rows.known(row).iter().map(|e| e.cost - self.duals[e.column as usize]);
                known.fold(self.rows.bound(row), f64::min)
            }
            column => self.matched_cost[row] - self.duals[column as usize],
        }
    }

    /// Gives each free row its cheapest column at a price that leaves it content with it; the rows
    /// that lose theirs are returned.
    fn reduce(&mut self, free: Vec<usize>) -> Vec<usize> {
        // A chain of displacements can be long when gains are tiny; what is left over is for the
        // searches.
        let mut budget = 4 * free.len();
        let mut left = Vec::new();
        for row in free {
            let mut next = Some(row);
            while let Some(row) = next.take() {
                if budget == 0 {
                    left.push(row);
                    break;
                }
                budget -= 1;
                let Some((best, second, gap)) = self.two_cheapest(row) else {
                    left.push(row);
                    break;
                };
                let (mut column, mut cost) = best;
                if gap > 0.0 {
                    self.duals[column as usize] -= gap;
                } else if self.row_of[column as usize] != NONE {
                    (column, cost) = second;
                }
                let loser = std::mem::replace(&mut self.row_of[column as usize], row as u32);
                (self.column_of[row], self.matched_cost[row]) = (column, cost);
                if loser != NONE {
                    self.column_of[loser as usize] = NONE;
                    if gap > 0.0 { next = Some(loser as usize) } else { left.push(loser as usize) }
                }
            }
        }
        left
    }

    /// The two columns of least reduced cost with their costs, and the gap between them; `None` for
    /// a row with one column.
    fn two_cheapest(&mut self, row: usize) -> Option<(Entry, Entry, f64)> {
        loop {
            let (mut first, mut second) = ((NONE, 0.0), (NONE, 0.0));
            let (mut least, mut next) = (f64::INFINITY, f64::INFINITY);
            for edge in self.rows.known(row) {
                let value = edge.cost - self.duals[edge.column as usize];
                if value < least {
                    (second, next) = (first, least);
                    (first, least) = ((edge.column, edge.cost), value);
                } else if value < next {
                    (second, next) = ((edge.column, edge.cost), value);
                }
            }
            if next <= self.rows.bound(row) {
                return (second.0 != NONE).then_some((first, second, next - least));
            }
            self.rows.widen(row, &self.duals);
        }
    }

    /// Matches one more row along a shortest path in reduced costs (Dijkstra), and lowers the duals
    /// of the columns nearer than its end. Answers the row's potential after that; `None` when the arithmetic overflows.
    fn augment(&mut self, free: usize) -> Option<f64> {
        let n = self.column_of.len();
        let potential = self.potential(free);
        self.reach(free, 0.0, potential, 0);
        let end = loop {
            let Event { key, node } = self.search.heap.pop()?;
            let node = node as usize;
            if node >= n {
                let (distance, potential) = self.search.tree[node - n];
                let known = self.rows.widen(node - n, &self.duals);
                self.reach(node - n, distance, potential, known);
            } else if !self.search.settled[node] {
                self.search.settled[node] = true;
                match self.row_of[node] {
                    NONE => break node,
                    row => {
                        let potential = self.matched_cost[row as usize] - self.duals[node];
                        self.reach(row as usize, key, potential, 0);
                    }
                }
            }
        };
        Some(potential + self.finish(free, end))
    }

    /// Enters the known columns of `row` from place `from` on into the search.
    fn reach(&mut self, row: usize, distance: f64, potential: f64, from: usize) {
        let search = &mut self.search;
        search.tree[row] = (distance, potential);
        for edge in &self.rows.known(row)[from..] {
            let column = edge.column as usize;
            // Rounding can make a reduced cost negative by an ulp.
            let key = distance + (edge.cost - self.duals[column] - potential).max(0.0);
            if key < search.distance[column] {
                if search.distance[column] == f64::INFINITY {
                    search.touched.push(edge.column);
                }
                search.distance[column] = key;
                search.parent[column] = (row as u32, edge.cost);
                search.heap.push(Event { key, node: edge.column });
            }
        }
        let bound = self.rows.bound(row);
        if bound < f64::INFINITY {
            let key = distance + (bound - potential).max(0.0);
            search.heap.push(Event { key, node: (self.column_of.len() + row) as u32 });
        }
    }

    /// Takes the path to `end`, and returns its length.
    fn finish(&mut self, free: usize, end: usize) -> f64 {
        let search = &mut self.search;
        let length = search.distance[end];
        for &column in &search.touched {
            let column = column as usize;
            if search.settled[column] {
                self.duals[column] -= length - search.distance[column];
            }
            search.distance[column] = f64::INFINITY;
            search.settled[column] = false;
        }
        search.touched.clear();
        search.heap.clear();
        let mut column = end as u32;
        loop {
            let (row, cost) = search.parent[column as usize];
            self.row_of[column as usize] = row;
            self.matched_cost[row as usize] = cost;
            column = std::mem::replace(&mut self.column_of[row as usize], column);
            if row as usize == free {
                return length;
            }
        }
    }
}

impl Search {
    fn new(n: usize) -> Self {
        Search {
            distance: vec![f64::INFINITY; n],
            settled: vec![false; n],
            parent: vec![(NONE, 0.0); n],
            touched: Vec::new(),
            tree: vec![(0.0, 0.0); n],
            heap: BinaryHeap::new(),
        }
    }
}
