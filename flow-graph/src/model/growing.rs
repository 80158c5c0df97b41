//! Molecules under construction with the embeddings of their atoms, brought up to date after each bond.
//!
//! The arithmetic is that of the packed pass, row by row: a molecule's decisions have the same bits whatever
//! other molecules are in the group.

use super::config::{Features, GraphAfConfig};
use super::graph_net::{self, activate, normalize};
use super::head::{self, Pass};
use super::matrix::{Matrix, add};
use super::pack::Pack;
use super::params::{KINDS, Net};
use super::prefix::{NodeState, Prefix};
use crate::molecule::Bond;

/// What sampling needs of a model, computed once.
pub(crate) struct Frozen {
    pub config: GraphAfConfig,
    pub net: Net<Matrix<f32>>,
    lone: Lone,
}

/// Rows of atoms without bonds, by type.
struct Lone {
    /// Inputs of each layer.
    layers: Vec<Vec<f32>>,
    /// Transformed rows of each layer but the last.
    transformed: Vec<Vec<f32>>,
    /// Embeddings.
    rows: Vec<f32>,
}

impl Frozen {
    pub fn new(config: &GraphAfConfig, net: Net<Matrix<f32>>) -> Self {
        let embedded = graph_net::forward(config, &net, &Pack::new(config, [], None));
        let (layers, transformed, rows) = embedded.into_parts();
        Frozen { config: config.clone(), net, lone: Lone { layers, transformed, rows } }
    }

    /// The head's outputs for the next atom of each molecule.
    pub fn atom_outputs(&self, molecules: &[Growing], which: &[usize]) -> Pass<f32> {
        let graphs: Vec<f32> = which.iter().flat_map(|&m| molecules[m].graph.iter().copied()).collect();
        let first = head::atom_input(&self.net.atom, &graphs);
        head::forward(&self.config.head, &self.net.atom, first)
    }

    /// The head's outputs for the newest atom of each molecule and its candidates from `molecules[m].next` on.
    pub fn bond_outputs(&self, molecules: &[Growing], which: &[usize]) -> Pass<f32> {
        let width = self.config.width;
        let (mut atoms, mut graphs, mut candidates, mut decisions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (context, &m) in which.iter().enumerate() {
            let (molecule, newest) = (&molecules[m], molecules[m].prefix.len() - 1);
            let own = molecule.row_of_newest(self);
            atoms.extend_from_slice(own);
            graphs.extend_from_slice(&molecule.graph);
            if !molecule.prefix.connected() {
                let from = graphs.len() - width;
                add(&mut graphs[from..], own);
            }
            let distances = molecule.prefix.distances(newest);
            candidates.extend_from_slice(&molecule.rows[molecule.next * width..newest * width]);
            decisions.extend(
                (molecule.next..newest).map(|to| {
                    (context as u32, Prefix::distance_class(distances[to]), Prefix::offset_class(newest, to))
                }),
            );
        }
        let contexts = head::context_input(&self.net.bond, &atoms, &graphs);
        let first = head::bond_input(&self.net.bond, &candidates, &contexts, decisions.into_iter());
        head::forward(&self.config.head, &self.net.bond, first)
    }

    /// Logarithms of the largest log-scales of the two heads.
    pub fn log_ranges(&self) -> (&[f32], &[f32]) {
        (
            self.net.atom.log_range.as_ref().map_or(&[], |m| &m.data),
            self.net.bond.log_range.as_ref().map_or(&[], |m| &m.data),
        )
    }
}

/// A molecule under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Growing {
    pub prefix: Prefix,
    /// The first candidate that is still to be asked about.
    pub next: usize,
    /// Atoms that are part of the graph: all but a newest one without bonds.
    embedded: usize,
    /// Inputs of each layer, node by node.
    layers: Vec<Vec<f32>>,
    /// Transformed inputs of each layer, node by node.
    transformed: Vec<Vec<f32>>,
    /// Embeddings, node by node.
    rows: Vec<f32>,
    /// Their sum.
    graph: Vec<f32>,
    /// What the last bond changed.
    changed: Vec<bool>,
    last_bond: (usize, usize),
}

impl Growing {
    /// A molecule without atoms.
    pub fn new(frozen: &Frozen) -> Self {
        let layers = frozen.config.layers;
        Growing {
            layers: vec![Vec::new(); layers + 1],
            transformed: vec![Vec::new(); layers],
            graph: vec![0.0; frozen.config.width],
            ..Self::default()
        }
    }

    /// Adds an atom; the first one becomes the graph, others wait for a bond.
    pub fn add_atom(&mut self, frozen: &Frozen, code: u8) {
        self.prefix.add_atom(code);
        self.next = self.prefix.first_candidate(frozen.config.candidates, self.prefix.len() - 1);
        if self.prefix.len() == 1 {
            self.append_lone(frozen, code);
            self.sum_rows(frozen);
        }
    }

    fn append_lone(&mut self, frozen: &Frozen, code: u8) {
        let copy = |from: &[f32], into: &mut Vec<f32>| {
            let width = from.len() / (frozen.config.vocabulary.len() + 1);
            into.extend_from_slice(&from[usize::from(code) * width..][..width]);
        };
        for (from, into) in frozen.lone.layers.iter().zip(&mut self.layers) {
            copy(from, into);
        }
        for (from, into) in frozen.lone.transformed.iter().zip(&mut self.transformed) {
            copy(from, into);
        }
        copy(&frozen.lone.rows, &mut self.rows);
        self.embedded += 1;
    }

    fn sum_rows(&mut self, frozen: &Frozen) {
        self.graph.fill(0.0);
        for row in self.rows.chunks_exact(frozen.config.width) {
            add(&mut self.graph, row);
        }
    }

    fn row_of_newest<'a>(&'a self, frozen: &'a Frozen) -> &'a [f32] {
        let (width, newest) = (frozen.config.width, self.prefix.len() - 1);
        if newest < self.embedded {
            return &self.rows[newest * width..][..width];
        }
        &frozen.lone.rows[usize::from(self.prefix.nodes()[newest].code) * width..][..width]
    }

    /// Bonds the newest atom; the embeddings are stale until [`update`].
    pub fn add_bond(&mut self, frozen: &Frozen, to: usize, bond: Bond) {
        let newest = self.prefix.len() - 1;
        let before: Vec<NodeState> = self.prefix.nodes().to_vec();
        self.prefix.add_bond(to, bond);
        self.mark_changed(frozen, &before);
        if self.embedded == newest {
            self.append_lone(frozen, before[newest].code);
        }
        self.last_bond = (newest, to);
    }

    /// Moves the frontier back to a node; the embeddings are stale until [`update`].
    pub fn reopen(&mut self, frozen: &Frozen, node: usize) {
        let before: Vec<NodeState> = self.prefix.nodes().to_vec();
        self.prefix.reopen(node);
        self.mark_changed(frozen, &before);
        let newest = self.prefix.len() - 1;
        self.last_bond = (newest, newest);
    }

    fn mark_changed(&mut self, frozen: &Frozen, before: &[NodeState]) {
        let by_state = frozen.config.features == Features::State;
        self.changed = self.prefix.nodes().iter().zip(before).map(|(now, then)| by_state && now != then).collect();
    }

    /// Changed nodes of the next layer: these, their neighbours and the ends of the new bond.
    fn spread(&mut self) {
        let mut next = self.changed.clone();
        next[self.last_bond.0] = true;
        next[self.last_bond.1] = true;
        for (node, _) in self.changed.iter().enumerate().filter(|(_, c)| **c) {
            self.prefix.neighbours(node).iter().for_each(|&(n, _)| next[usize::from(n)] = true);
        }
        self.changed = next;
    }
}

/// The nodes that changed, as (molecule, node).
fn changed(molecules: &[Growing], which: &[usize]) -> Vec<(usize, usize)> {
    which
        .iter()
        .flat_map(|&m| (0..molecules[m].changed.len()).filter(move |&v| molecules[m].changed[v]).map(move |v| (m, v)))
        .collect()
}

/// Brings the embeddings of some molecules up to date after one bond each.
pub(crate) fn update(frozen: &Frozen, molecules: &mut [Growing], which: &[usize]) {
    let (config, net) = (&frozen.config, &frozen.net);
    let mut nodes = changed(molecules, which);
    for &(m, v) in &nodes {
        let molecule = &mut molecules[m];
        let inputs = net.embed.columns;
        let row = &mut molecule.layers[0][v * inputs..][..inputs];
        row.fill(0.0);
        molecule.prefix.nodes()[v].features(config, |f| add(row, net.embed.block(usize::from(f), usize::from(f) + 1)));
    }
    for (l, weight) in net.gnn.iter().enumerate() {
        transform(molecules, &nodes, l, weight);
        which.iter().for_each(|&m| molecules[m].spread());
        nodes = changed(molecules, which);
        for &(m, v) in &nodes {
            aggregate(frozen, &mut molecules[m], l, v);
        }
    }
    let width = config.width;
    for &(m, v) in &nodes {
        let molecule = &mut molecules[m];
        let raw = &molecule.layers[config.layers][v * width..][..width];
        let row = normalize(raw, &net.scale.data, &net.shift.data);
        molecule.rows[v * width..][..width].copy_from_slice(&row);
    }
    which.iter().for_each(|&m| molecules[m].sum_rows(frozen));
}

/// Transforms changed rows of a layer, all molecules in one product.
fn transform(molecules: &mut [Growing], nodes: &[(usize, usize)], layer: usize, weight: &Matrix<f32>) {
    let (inputs, wide) = (weight.rows, weight.columns);
    let mut x = Vec::with_capacity(nodes.len() * inputs);
    nodes.iter().for_each(|&(m, v)| x.extend_from_slice(&molecules[m].layers[layer][v * inputs..][..inputs]));
    for (&(m, v), y) in nodes.iter().zip(weight.apply(&x).chunks_exact(wide)) {
        molecules[m].transformed[layer][v * wide..][..wide].copy_from_slice(y);
    }
}

/// One node's row of layer `l + 1`.
fn aggregate(frozen: &Frozen, molecule: &mut Growing, l: usize, node: usize) {
    let (config, width) = (&frozen.config, frozen.config.width);
    let wide = KINDS * width;
    let y = &molecule.transformed[l];
    let mut sum = y[node * wide..][..wide].to_vec();
    for &(u, bond) in molecule.prefix.neighbours(node) {
        let at = (usize::from(bond.order()) - 1) * width;
        add(&mut sum[at..at + width], &y[usize::from(u) * wide + at..][..width]);
    }
    let mut out = vec![0.0; width];
    if config.residual && frozen.net.gnn[l].rows == width {
        out.copy_from_slice(&molecule.layers[l][node * width..][..width]);
    }
    activate(&sum, l + 1 < config.layers, &mut out, width);
    molecule.layers[l + 1][node * width..][..width].copy_from_slice(&out);
}
