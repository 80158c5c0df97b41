//! Matchings in general graphs: Edmonds' blossom algorithm, with a queue instead of recursion.
//!
//! Rings of five make aromatic systems non-bipartite, so simple alternating search would miss Kekulé forms
//! that exist.

use super::adjacency::Adjacency;

const NONE: usize = usize::MAX;

/// A matching on the vertices of a graph that are not blocked, and the scratch space of its searches.
///
/// One search costs about the edges of the component that it walks; what it touched is remembered, so that
/// many small components cost no more than one.
pub(crate) struct Matching<'a> {
    graph: &'a Adjacency,
    mate: Vec<usize>,
    blocked: Vec<bool>,
    /// For an odd vertex of the search tree the even vertex before it.
    parent: Vec<usize>,
    /// The base of the contracted blossom of a vertex, itself outside blossoms.
    base: Vec<usize>,
    /// Whether a vertex is an even one.
    even: Vec<bool>,
    touched: Vec<usize>,
    seen: Vec<usize>,
    stamp: usize,
}

impl<'a> Matching<'a> {
    /// The empty matching.
    pub(crate) fn new(graph: &'a Adjacency, blocked: Vec<bool>) -> Self {
        let n = graph.len();
        Matching {
            graph,
            mate: vec![NONE; n],
            blocked,
            parent: vec![NONE; n],
            base: (0..n).collect(),
            even: vec![false; n],
            touched: Vec::new(),
            seen: vec![0; n],
            stamp: 0,
        }
    }

    /// The partner of a vertex.
    pub(crate) fn mate(&self, vertex: usize) -> Option<usize> {
        Some(self.mate[vertex]).filter(|&m| m != NONE)
    }

    /// Matches two vertices that have no partners.
    pub(crate) fn join(&mut self, a: usize, b: usize) {
        (self.mate[a], self.mate[b]) = (b, a);
    }

    /// Parts a vertex from its partner and returns the partner.
    fn part(&mut self, vertex: usize) -> usize {
        let mate = std::mem::replace(&mut self.mate[vertex], NONE);
        self.mate[mate] = NONE;
        mate
    }

    /// Takes a vertex out of the graph, or puts it back.
    pub(crate) fn block(&mut self, vertex: usize, blocked: bool) {
        self.blocked[vertex] = blocked;
    }

    /// Matches every vertex that is not blocked.
    ///
    /// # Errors
    /// A vertex that no matching covers together with those before it.
    pub(crate) fn complete(&mut self) -> Result<(), usize> {
        // Most of the pairs need no search.
        for vertex in 0..self.graph.len() {
            if self.is_exposed(vertex) {
                let free = self.graph.of(vertex).iter().map(|&(other, _)| other).find(|&o| self.is_exposed(o));
                if let Some(other) = free {
                    self.join(vertex, other);
                }
            }
        }
        for vertex in 0..self.graph.len() {
            if self.is_exposed(vertex) {
                let end = self.search(vertex).ok_or(vertex)?;
                self.augment(end);
            }
        }
        Ok(())
    }

    /// Makes the matching as large as it can be; what it covers stays covered.
    pub(crate) fn extend(&mut self) {
        for vertex in 0..self.graph.len() {
            if self.is_exposed(vertex)
                && let Some(end) = self.search(vertex)
            {
                self.augment(end);
            }
        }
    }

    /// Whether some perfect matching pairs `a` with `b`, given that the present one is perfect.
    ///
    /// The matching stays as it is.
    pub(crate) fn can_pair(&mut self, a: usize, b: usize) -> bool {
        self.with_pair(a, b, false)
    }

    /// Rearranges a perfect matching so that `a` is paired with `b`; returns whether that is possible.
    pub(crate) fn pair(&mut self, a: usize, b: usize) -> bool {
        self.with_pair(a, b, true)
    }

    fn with_pair(&mut self, a: usize, b: usize, keep: bool) -> bool {
        if self.mate[a] == b {
            return true;
        }
        if self.mate[a] == NONE || self.mate[b] == NONE {
            return false;
        }
        let (left, right) = (self.part(a), self.part(b));
        self.block(a, true);
        self.block(b, true);
        let end = self.search(left);
        self.block(a, false);
        self.block(b, false);
        match end {
            Some(end) if keep => {
                self.augment(end);
                self.join(a, b);
            }
            _ => {
                self.join(a, left);
                self.join(b, right);
            }
        }
        end.is_some()
    }

    fn is_exposed(&self, vertex: usize) -> bool {
        self.mate[vertex] == NONE && !self.blocked[vertex]
    }

    /// Grows an alternating tree from an exposed vertex until it meets another one, which it returns.
    fn search(&mut self, root: usize) -> Option<usize> {
        for vertex in std::mem::take(&mut self.touched) {
            (self.parent[vertex], self.base[vertex], self.even[vertex]) = (NONE, vertex, false);
        }
        let graph = self.graph;
        let mut queue = std::collections::VecDeque::from([root]);
        self.even[root] = true;
        self.touched.push(root);
        while let Some(vertex) = queue.pop_front() {
            for &(other, _) in graph.of(vertex) {
                if self.blocked[other] || self.base[vertex] == self.base[other] || self.mate[vertex] == other {
                    continue;
                }
                let mate = self.mate[other];
                if other == root || (mate != NONE && self.parent[mate] != NONE) {
                    self.contract(vertex, other, &mut queue);
                } else if self.parent[other] == NONE {
                    self.parent[other] = vertex;
                    self.touched.push(other);
                    if mate == NONE {
                        return Some(other);
                    }
                    self.even[mate] = true;
                    self.touched.push(mate);
                    queue.push_back(mate);
                }
            }
        }
        None
    }

    /// Shrinks the odd cycle that an edge between two even vertices closes.
    fn contract(&mut self, a: usize, b: usize, queue: &mut std::collections::VecDeque<usize>) {
        let base = self.common_base(a, b);
        self.stamp += 1;
        self.mark(a, base, b);
        self.mark(b, base, a);
        for index in 0..self.touched.len() {
            let vertex = self.touched[index];
            if self.seen[self.base[vertex]] == self.stamp {
                self.base[vertex] = base;
                if !self.even[vertex] {
                    self.even[vertex] = true;
                    queue.push_back(vertex);
                }
            }
        }
    }

    /// The base where the two ways to the root meet.
    fn common_base(&mut self, a: usize, b: usize) -> usize {
        self.stamp += 1;
        let mut a = self.base[a];
        self.seen[a] = self.stamp;
        while self.mate[a] != NONE {
            a = self.base[self.parent[self.mate[a]]];
            self.seen[a] = self.stamp;
        }
        let mut b = self.base[b];
        while self.seen[b] != self.stamp {
            b = self.base[self.parent[self.mate[b]]];
        }
        b
    }

    /// Marks the blossoms on the way down to `base` and turns their parents round the cycle.
    fn mark(&mut self, mut vertex: usize, base: usize, mut child: usize) {
        while self.base[vertex] != base {
            let mate = self.mate[vertex];
            self.seen[self.base[vertex]] = self.stamp;
            self.seen[self.base[mate]] = self.stamp;
            self.parent[vertex] = child;
            child = mate;
            vertex = self.parent[mate];
        }
    }

    /// Swaps the pairs along the path that the last search found.
    fn augment(&mut self, end: usize) {
        let mut vertex = end;
        while vertex != NONE {
            let before = self.parent[vertex];
            let next = self.mate[before];
            self.join(vertex, before);
            vertex = next;
        }
    }
}
