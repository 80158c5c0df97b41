//! All decisions of a batch of molecules in ragged arrays, every distinct embedding computed once.
//!
//! Each decision of a molecule looks at the graph of what was decided before it. Those graphs share almost
//! everything: a new bond changes the embeddings of layer `l` only within `l` bonds of it, a decision for "no
//! bond" changes nothing, and an atom that has no bond yet has the embedding of a lone atom of its type. So
//! a [`Pack`] lists rows: embeddings that differ from all earlier ones of the same molecule, with the rows of
//! the layer before that they are computed from. A molecule of ZINC250k, with 15,808 nodes in the padded steps
//! of the reference implementation, needs some 200 rows in the last layer and fewer before it.

use super::config::{Features, GraphAfConfig, NO_BOND, Stop};
use super::prefix::{NodeState, Prefix};
use super::rules::Rules;
use super::sequence::Sequence;

/// Rows of one layer: the sources of each in the layer before.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerRows {
    /// The row of the same node.
    pub own: Vec<u32>,
    /// Where the neighbours of a row begin; one more than rows.
    pub offsets: Vec<u32>,
    /// Rows of neighbours with the kind of the bond to them.
    pub neighbours: Vec<(u32, u8)>,
}

/// The choice of an atom type, or of the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtomDecision {
    /// 0 for the empty graph, otherwise one more than the index of a state.
    pub state: u32,
    /// The class; the number of classes for a vector of noise alone.
    pub target: u8,
    /// Allowed classes, as bits.
    pub allowed: u128,
}

/// What the bond decisions of an atom share until one of them is a bond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BondContext {
    /// Index of the state without the atom while it is isolated, with it afterwards.
    pub state: u32,
    /// Row of the atom.
    pub row: u32,
    /// Whether the atom is not part of the state yet.
    pub isolated: bool,
}

/// The choice of a bond, or of none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BondDecision {
    /// Index of the context.
    pub context: u32,
    /// The new atom's place in its molecule.
    pub atom: u8,
    /// Row of the earlier atom.
    pub row: u32,
    /// Class of the distance in bonds.
    pub distance: u8,
    /// Class of the distance in the order.
    pub offset: u8,
    /// The class.
    pub target: u8,
    /// Allowed classes, as bits.
    pub allowed: u8,
}

/// The decisions of several molecules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pack {
    /// Where the features of an input row begin; one more than rows.
    pub feature_offsets: Vec<u32>,
    /// Rows of the embedding table.
    pub features: Vec<u16>,
    /// The layers of the graph network.
    pub layers: Vec<LayerRows>,
    /// Where the rows of a state begin; one more than states.
    pub state_offsets: Vec<u32>,
    /// Rows of the last layer.
    pub state_rows: Vec<u32>,
    /// Atom decisions.
    pub atoms: Vec<AtomDecision>,
    /// Contexts of the bond decisions.
    pub contexts: Vec<BondContext>,
    /// Bond decisions.
    pub bonds: Vec<BondDecision>,
    /// Atom and bond decisions up to the end of each molecule.
    pub ends: Vec<(usize, usize)>,
}

impl Pack {
    /// The pack of some molecules; with `rules` every decision carries what it was allowed to choose.
    pub fn new<'a>(
        config: &GraphAfConfig,
        sequences: impl IntoIterator<Item = &'a Sequence>,
        rules: Option<&Rules>,
    ) -> Self {
        let mut builder = Builder::new(config, rules);
        sequences.into_iter().for_each(|sequence| builder.push(sequence));
        builder.pack
    }

    /// Number of states.
    pub fn states(&self) -> usize {
        self.state_offsets.len() - 1
    }

    /// Rows of a layer, counted from the input.
    pub fn rows(&self, layer: usize) -> usize {
        match layer {
            0 => self.feature_offsets.len() - 1,
            l => self.layers[l - 1].own.len(),
        }
    }

    /// The rows of a state.
    pub fn rows_of_state(&self, state: usize) -> &[u32] {
        &self.state_rows[self.state_offsets[state] as usize..self.state_offsets[state + 1] as usize]
    }
}

struct Builder<'c> {
    config: &'c GraphAfConfig,
    rules: Option<&'c Rules>,
    pack: Pack,
    prefix: Prefix,
    /// The rows of the current nodes, by layer.
    current: Vec<Vec<u32>>,
}

impl<'c> Builder<'c> {
    fn new(config: &'c GraphAfConfig, rules: Option<&'c Rules>) -> Self {
        let layer = LayerRows { offsets: vec![0], ..LayerRows::default() };
        let pack = Pack {
            feature_offsets: vec![0],
            layers: vec![layer; config.layers],
            state_offsets: vec![0],
            ..Pack::default()
        };
        let mut builder = Builder { config, rules, pack, prefix: Prefix::default(), current: Vec::new() };
        // Rows of lone atoms come first: row `code` in every layer.
        for code in 0..=config.vocabulary.len() as u8 {
            builder.add_input(NodeState::isolated(code));
            for layer in &mut builder.pack.layers {
                layer.own.push(u32::from(code));
                layer.offsets.push(0);
            }
        }
        builder
    }

    fn add_input(&mut self, node: NodeState) -> u32 {
        let pack = &mut self.pack;
        node.features(self.config, |f| pack.features.push(f));
        pack.feature_offsets.push(pack.features.len() as u32);
        pack.feature_offsets.len() as u32 - 2
    }

    fn push(&mut self, sequence: &Sequence) {
        self.prefix = Prefix::default();
        self.current = vec![Vec::new(); self.config.layers + 1];
        for atom in 0..sequence.len() {
            self.atom_decision(sequence.atoms[atom]);
            self.prefix.add_atom(sequence.atoms[atom]);
            if atom == 0 {
                self.first_atom(sequence.atoms[0]);
            } else {
                self.bond_decisions(sequence, atom);
            }
        }
        if sequence.len() < self.config.max_atoms {
            self.end(sequence);
        }
        self.pack.ends.push((self.pack.atoms.len(), self.pack.bonds.len()));
    }

    fn atom_decision(&mut self, target: u8) {
        let state = if self.prefix.len() == 0 { 0 } else { self.pack.states() as u32 };
        let allowed = match self.rules {
            Some(rules) => rules.atoms(&self.prefix),
            None => Rules::unrestricted(self.config, self.prefix.len()),
        };
        self.pack.atoms.push(AtomDecision { state, target, allowed });
    }

    fn first_atom(&mut self, code: u8) {
        self.current.iter_mut().for_each(|rows| rows.push(u32::from(code)));
        self.add_state();
    }

    fn add_state(&mut self) {
        let rows = &self.current[self.config.layers];
        self.pack.state_rows.extend_from_slice(rows);
        self.pack.state_offsets.push(self.pack.state_rows.len() as u32);
    }

    fn bond_decisions(&mut self, sequence: &Sequence, atom: usize) {
        let mut bonds = sequence.bonds_of(atom).iter().peekable();
        let mut distances = self.add_context(atom);
        for to in self.prefix.first_candidate(self.config.candidates, atom)..atom {
            let bond = bonds.next_if(|b| usize::from(b.to) == to).map(|b| b.bond);
            self.bond_decision(atom, to, distances[to], bond.map_or(NO_BOND, |b| b.order() - 1));
            if let Some(bond) = bond {
                let before = self.prefix.nodes().to_vec();
                self.prefix.add_bond(to, bond);
                self.update_rows(&before, atom, to);
                self.add_state();
                if to + 1 < atom {
                    distances = self.add_context(atom);
                }
            }
        }
    }

    /// What follows for an atom until its next bond; returns its distances to the atoms before it.
    fn add_context(&mut self, atom: usize) -> Vec<u8> {
        let isolated = !self.prefix.connected();
        let code = self.prefix.nodes()[atom].code;
        let row = if isolated { u32::from(code) } else { self.current[self.config.layers][atom] };
        self.pack.contexts.push(BondContext { state: self.pack.states() as u32 - 1, row, isolated });
        self.prefix.distances(atom)
    }

    fn bond_decision(&mut self, atom: usize, to: usize, distance: u8, target: u8) {
        self.pack.bonds.push(BondDecision {
            context: self.pack.contexts.len() as u32 - 1,
            atom: atom as u8,
            row: self.current[self.config.layers][to],
            distance: Prefix::distance_class(distance),
            offset: Prefix::offset_class(atom, to),
            target,
            allowed: self.rules.map_or(0b1111, |r| r.bonds(&self.prefix, to)),
        });
    }

    fn end(&mut self, sequence: &Sequence) {
        let nothing = self.config.vocabulary.len() as u8;
        self.atom_decision(nothing);
        if self.config.stop == Stop::Unconnected {
            let atom = sequence.len();
            self.prefix.add_atom(nothing);
            self.add_context(atom);
            for to in self.prefix.first_candidate(self.config.candidates, atom)..atom {
                self.bond_decision(atom, to, u8::MAX, NO_BOND);
            }
        }
    }

    /// New rows after the bond between the newest atom and an earlier one, where anything changed.
    fn update_rows(&mut self, before: &[NodeState], atom: usize, to: usize) {
        let nodes = self.prefix.nodes().to_vec();
        let mut changed: Vec<bool> = nodes.iter().zip(before).map(|(now, then)| self.differs(*now, *then)).collect();
        if self.current[0].len() <= atom {
            // Until now the row of a lone atom served; where a type is all that an atom shows, it still does.
            let lone = u32::from(nodes[atom].code);
            self.current.iter_mut().for_each(|rows| rows.push(lone));
        }
        for (node, state) in nodes.iter().enumerate().filter(|(i, _)| changed[*i]) {
            self.current[0][node] = self.add_input(*state);
        }
        for layer in 0..self.config.layers {
            changed = self.spread(&changed, atom, to);
            for node in (0..nodes.len()).filter(|&i| changed[i]) {
                self.add_row(layer, node);
            }
        }
    }

    /// Whether two states of one node show different features.
    fn differs(&self, now: NodeState, then: NodeState) -> bool {
        self.config.features == Features::State && now != then
    }

    /// Changed nodes, their neighbours and the ends of the new bond.
    fn spread(&self, changed: &[bool], atom: usize, to: usize) -> Vec<bool> {
        let mut next = changed.to_vec();
        next[atom] = true;
        next[to] = true;
        for node in (0..changed.len()).filter(|&i| changed[i]) {
            self.prefix.neighbours(node).iter().for_each(|&(n, _)| next[usize::from(n)] = true);
        }
        next
    }

    fn add_row(&mut self, layer: usize, node: usize) {
        let (below, rows) = (&self.current[layer], &mut self.pack.layers[layer]);
        rows.own.push(below[node]);
        let neighbours = self.prefix.neighbours(node).iter();
        rows.neighbours.extend(neighbours.map(|&(n, bond)| (below[usize::from(n)], bond.order() - 1)));
        rows.offsets.push(rows.neighbours.len() as u32);
        self.current[layer + 1][node] = rows.own.len() as u32 - 1;
    }
}
