//! The sub-graph built so far, with everything that a decision may look at.

use super::config::{Candidates, Features, GraphAfConfig};
use crate::molecule::Bond;

/// Used valences from this on look the same.
const MOST_VALENCE: u8 = 8;
/// Ring sizes 3, 4, … 7, and 8 or more.
const RING_SIZES: usize = 6;
/// Distances from this on look the same; 0 stands for "not connected yet".
pub(crate) const DISTANCES: usize = 16;
/// Distances in the order from this on look the same.
pub(crate) const OFFSETS: usize = 16;

/// What one node shows: equal nodes have equal input rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NodeState {
    /// Vocabulary code; the size of the vocabulary for the vector of noise that ends a molecule.
    pub code: u8,
    /// Sum of its bond orders.
    pub used: u8,
    /// Bit `s` is set when it is in a ring of size `s + 3`.
    pub rings: u8,
    /// Whether it lies behind the frontier.
    pub closed: bool,
}

impl NodeState {
    /// An atom without bonds.
    pub fn isolated(code: u8) -> Self {
        NodeState { code, ..Self::default() }
    }

    /// Number of input features of a model.
    pub fn feature_count(config: &GraphAfConfig) -> usize {
        let types = config.vocabulary.len();
        match config.features {
            Features::Type => types,
            Features::State => types + usize::from(MOST_VALENCE) + 1 + 1 + RING_SIZES,
        }
    }

    /// The features that are on, as rows of the embedding table.
    pub fn features(self, config: &GraphAfConfig, mut each: impl FnMut(u16)) {
        let types = config.vocabulary.len() as u16;
        if u16::from(self.code) < types {
            each(u16::from(self.code));
        }
        if config.features == Features::State {
            each(types + u16::from(self.used.min(MOST_VALENCE)));
            let rest = types + u16::from(MOST_VALENCE) + 1;
            if self.closed {
                each(rest);
            }
            (0..RING_SIZES as u16).filter(|&s| self.rings >> s & 1 == 1).for_each(|s| each(rest + 1 + s));
        }
    }
}

/// A molecule under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefix {
    nodes: Vec<NodeState>,
    neighbours: Vec<Vec<(u8, Bond)>>,
    frontier: usize,
    connected: bool,
}

impl Prefix {
    /// Number of atoms.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes.
    pub fn nodes(&self) -> &[NodeState] {
        &self.nodes
    }

    /// Neighbours of a node with the bonds to them, in the order in which they were added.
    pub fn neighbours(&self, node: usize) -> &[(u8, Bond)] {
        &self.neighbours[node]
    }

    /// Whether the newest atom has a bond; the first atom needs none.
    pub fn connected(&self) -> bool {
        self.connected || self.nodes.len() == 1
    }

    /// The first of the atoms that the next or newest atom may be bonded to.
    pub fn first_candidate(&self, candidates: Candidates, atom: usize) -> usize {
        match candidates {
            Candidates::Frontier => self.frontier,
            Candidates::Window(window) => atom.saturating_sub(window),
        }
    }

    /// Adds an atom without bonds.
    pub fn add_atom(&mut self, code: u8) {
        self.nodes.push(NodeState::isolated(code));
        self.neighbours.push(Vec::new());
        self.connected = false;
    }

    /// Takes back an atom without bonds.
    pub fn remove_unconnected(&mut self) {
        if !self.connected() {
            self.nodes.pop();
            self.neighbours.pop();
            self.connected = true;
        }
    }

    /// Bonds the newest atom to an earlier one.
    pub fn add_bond(&mut self, to: usize, bond: Bond) {
        let newest = self.nodes.len() - 1;
        if self.connected {
            self.mark_ring(newest, to);
        } else {
            // In breadth-first order the first neighbour is the parent, and parents never go back.
            for node in self.nodes.iter_mut().take(to).skip(self.frontier) {
                node.closed = true;
            }
            self.frontier = self.frontier.max(to);
            self.connected = true;
        }
        for (a, b) in [(newest, to), (to, newest)] {
            self.neighbours[a].push((b as u8, bond));
            self.nodes[a].used = self.nodes[a].used.saturating_add(bond.order());
        }
    }

    /// Moves the frontier back to an atom, so that it and those after it can be bonded again.
    pub fn reopen(&mut self, node: usize) {
        self.frontier = self.frontier.min(node);
        self.nodes.iter_mut().skip(node).for_each(|state| state.closed = false);
    }

    /// Marks a shortest cycle through the bond that is about to join two connected atoms.
    fn mark_ring(&mut self, from: usize, to: usize) {
        let distance = self.distances(from);
        let size = usize::from(distance[to]) + 1;
        let bit = 1u8 << size.saturating_sub(3).min(RING_SIZES - 1);
        let mut at = to;
        self.nodes[at].rings |= bit;
        while at != from {
            // Of several shortest paths the one over the smallest indices.
            let nearer = self.neighbours[at].iter().map(|&(n, _)| usize::from(n));
            match nearer.filter(|&n| distance[n] < distance[at]).min() {
                Some(next) => at = next,
                None => return,
            }
            self.nodes[at].rings |= bit;
        }
    }

    /// Distances in bonds from an atom, `u8::MAX` where there is no path.
    pub fn distances(&self, from: usize) -> Vec<u8> {
        let mut distance = vec![u8::MAX; self.nodes.len()];
        let mut queue = Vec::with_capacity(self.nodes.len());
        distance[from] = 0;
        queue.push(from);
        let mut head = 0;
        while head < queue.len() {
            let node = queue[head];
            head += 1;
            for &(next, _) in &self.neighbours[node] {
                let next = usize::from(next);
                if distance[next] == u8::MAX {
                    distance[next] = distance[node].saturating_add(1).min(u8::MAX - 1);
                    queue.push(next);
                }
            }
        }
        distance
    }

    /// The class of a distance in bonds: 0 without a path.
    pub fn distance_class(distance: u8) -> u8 {
        if distance == u8::MAX { 0 } else { distance.min(DISTANCES as u8 - 1) }
    }

    /// The class of a distance in the order.
    pub fn offset_class(atom: usize, to: usize) -> u8 {
        (atom - to).min(OFFSETS - 1) as u8
    }
}
