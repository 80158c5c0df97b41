//! Neighbour lists in one allocation, for the walks over the atoms of a draft or a molecule.

/// For every vertex its neighbours, each with the index of the edge that leads there.
pub(crate) struct Adjacency {
    starts: Vec<usize>,
    entries: Vec<(usize, usize)>,
}

impl Adjacency {
    /// The graph of `edges` on `vertices` vertices; neighbours come in the order of the edges.
    pub(crate) fn new(vertices: usize, edges: impl Iterator<Item = (usize, usize)> + Clone) -> Self {
        let mut starts = vec![0; vertices + 1];
        for (a, b) in edges.clone() {
            starts[a + 1] += 1;
            starts[b + 1] += 1;
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let mut ends = starts.clone();
        let mut entries = vec![(0, 0); total];
        for (edge, (a, b)) in edges.enumerate() {
            for (from, to) in [(a, b), (b, a)] {
                entries[ends[from]] = (to, edge);
                ends[from] += 1;
            }
        }
        Adjacency { starts, entries }
    }

    /// Number of vertices.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The neighbours of a vertex as (vertex, edge).
    pub(crate) fn of(&self, vertex: usize) -> &[(usize, usize)] {
        &self.entries[self.starts[vertex]..self.starts[vertex + 1]]
    }

    /// Brings every list into rising order of a key of the neighbour.
    pub(crate) fn sort_by_key<K: Ord>(&mut self, key: impl Fn(usize) -> K) {
        for vertex in 0..self.len() {
            self.entries[self.starts[vertex]..self.starts[vertex + 1]].sort_by_key(|&(other, _)| key(other));
        }
    }

    /// For each of `edges` edges whether it lies on a cycle: whether it is no bridge.
    ///
    /// Tarjan's low points, without recursion: a chain may be as long as memory allows.
    pub(crate) fn edges_in_rings(&self, edges: usize) -> Vec<bool> {
        const UNSEEN: usize = usize::MAX;
        let mut in_ring = vec![false; edges];
        let mut reached = vec![UNSEEN; self.len()];
        let mut low = vec![UNSEEN; self.len()];
        let mut clock = 0;
        // (vertex, the edge it was reached by, its next neighbour)
        let mut stack: Vec<(usize, usize, usize)> = Vec::new();
        for root in 0..self.len() {
            if reached[root] != UNSEEN {
                continue;
            }
            stack.push((root, UNSEEN, 0));
            while let Some(top) = stack.last_mut() {
                let (vertex, by) = (top.0, top.1);
                if top.2 == 0 {
                    (reached[vertex], low[vertex]) = (clock, clock);
                    clock += 1;
                }
                if let Some(&(other, edge)) = self.of(vertex).get(top.2) {
                    top.2 += 1;
                    if edge == by {
                        continue;
                    }
                    if reached[other] == UNSEEN {
                        stack.push((other, edge, 0));
                    } else {
                        in_ring[edge] = true;
                        low[vertex] = low[vertex].min(reached[other]);
                    }
                    continue;
                }
                stack.pop();
                if let Some(parent) = stack.last() {
                    in_ring[by] = low[vertex] <= reached[parent.0];
                    low[parent.0] = low[parent.0].min(low[vertex]);
                }
            }
        }
        in_ring
    }
}
