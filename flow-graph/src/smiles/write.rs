//! Kekulé SMILES.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::molecule::draft::Adjacency;
use crate::molecule::{Bond, Element, Molecule};

/// The Kekulé SMILES of a molecule, determined by the order of its atoms.
///
/// Every component starts at its first atom; of several branches the longest comes last, without
/// parentheses. [`parse`](super::parse) gives the molecule back, its atoms in the order written. A molecule
/// without atoms gives the empty string. An atom that breaks its valence is written without hydrogens, and
/// does not read back.
pub fn write(molecule: &Molecule) -> String {
    write_ordered(molecule).0
}

/// [`write()`], and the atoms in the order in which they are written.
pub fn write_ordered(molecule: &Molecule) -> (String, Vec<usize>) {
    let ranks: Vec<usize> = (0..molecule.len()).collect();
    let mut order = Vec::with_capacity(molecule.len());
    let components = write_ranked(molecule, &ranks, &mut order);
    (components.join("."), order)
}

/// One string for each component, where atoms of lower rank come first.
pub(super) fn write_ranked(molecule: &Molecule, ranks: &[usize], order: &mut Vec<usize>) -> Vec<String> {
    let bonds: Vec<_> = molecule.bonds().collect();
    let mut graph = Adjacency::new(molecule.len(), bonds.iter().map(|&(a, b, _)| (a, b)));
    graph.sort_by_key(|atom| ranks[atom]);
    let mut by_rank: Vec<usize> = (0..molecule.len()).collect();
    by_rank.sort_by_key(|&atom| ranks[atom]);
    let mut walk = Walk::new(&graph, bonds.len());
    let mut components = Vec::new();
    for root in by_rank {
        if walk.depth[root] == UNSEEN {
            walk.visit(root);
            components.push(Writer { molecule, bonds: &bonds, ranks, walk: &walk }.component(root, order));
        }
    }
    components
}

const UNSEEN: usize = usize::MAX;

/// The tree of a depth-first search, and the bonds outside it.
struct Walk<'a> {
    graph: &'a Adjacency,
    depth: Vec<usize>,
    /// For every atom the bond that leads to it.
    by: Vec<usize>,
    children: Vec<Vec<usize>>,
    /// Atoms in the subtree of an atom.
    size: Vec<usize>,
    /// For every atom the ring bonds that open there, and those that close.
    opens: Vec<Vec<usize>>,
    closes: Vec<Vec<usize>>,
    is_ring_bond: Vec<bool>,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a Adjacency, bonds: usize) -> Self {
        let n = graph.len();
        Walk {
            graph,
            depth: vec![UNSEEN; n],
            by: vec![UNSEEN; n],
            children: vec![Vec::new(); n],
            size: vec![1; n],
            opens: vec![Vec::new(); n],
            closes: vec![Vec::new(); n],
            is_ring_bond: vec![false; bonds],
        }
    }

    fn visit(&mut self, root: usize) {
        self.depth[root] = 0;
        let mut stack = vec![(root, 0)];
        while let Some(top) = stack.last_mut() {
            let atom = top.0;
            let Some(&(other, bond)) = self.graph.of(atom).get(top.1) else {
                stack.pop();
                if let Some(&(parent, _)) = stack.last() {
                    self.size[parent] += self.size[atom];
                }
                continue;
            };
            top.1 += 1;
            if self.depth[other] == UNSEEN {
                (self.depth[other], self.by[other]) = (stack.len(), bond);
                self.children[atom].push(other);
                stack.push((other, 0));
            } else if self.by[atom] != bond && !self.is_ring_bond[bond] && self.depth[other] < self.depth[atom] {
                self.is_ring_bond[bond] = true;
                self.opens[other].push(bond);
                self.closes[atom].push(bond);
            }
        }
    }
}

struct Writer<'a> {
    molecule: &'a Molecule,
    bonds: &'a [(usize, usize, Bond)],
    ranks: &'a [usize],
    walk: &'a Walk<'a>,
}

enum Step {
    Atom(usize),
    Text(char),
}

impl Writer<'_> {
    fn component(&self, root: usize, order: &mut Vec<usize>) -> String {
        let mut text = String::new();
        let mut numbers = Numbers::default();
        let mut stack = vec![Step::Atom(root)];
        while let Some(step) = stack.pop() {
            let atom = match step {
                Step::Text(text_of_step) => {
                    text.push(text_of_step);
                    continue;
                }
                Step::Atom(atom) => atom,
            };
            order.push(atom);
            if let Some(&(_, _, bond)) = self.bonds.get(self.walk.by[atom]) {
                text.push_str(symbol(bond));
            }
            self.push_atom(&mut text, atom);
            self.push_rings(&mut text, atom, &mut numbers);
            let mut children = self.walk.children[atom].clone();
            children.sort_by_key(|&child| (Reverse(self.walk.size[child]), Reverse(self.ranks[child])));
            // The stack gives back the last first: the longest goes down first, without parentheses.
            for (index, child) in children.into_iter().enumerate() {
                if index == 0 {
                    stack.push(Step::Atom(child));
                } else {
                    stack.extend([Step::Text(')'), Step::Atom(child), Step::Text('(')]);
                }
            }
        }
        text
    }

    /// The numbers of the rings that close at an atom, then of those that open.
    fn push_rings(&self, text: &mut String, atom: usize, numbers: &mut Numbers) {
        let mut closed: Vec<u32> = self.walk.closes[atom].iter().filter_map(|&bond| numbers.of(bond)).collect();
        closed.sort_unstable();
        closed.iter().for_each(|&number| push_number(text, number));
        let mut opens = self.walk.opens[atom].clone();
        opens.sort_by_key(|&bond| {
            let (a, b, _) = self.bonds[bond];
            self.ranks[if a == atom { b } else { a }]
        });
        for bond in opens {
            text.push_str(symbol(self.bonds[bond].2));
            push_number(text, numbers.take(bond));
        }
        // Freed only now, so that no number closes and opens at one atom.
        closed.into_iter().for_each(|number| numbers.free.push(Reverse(number)));
    }

    fn push_atom(&self, text: &mut String, index: usize) {
        let Some(atom) = self.molecule.atom(index) else { return };
        let hydrogens = self.molecule.hydrogens(index);
        let is_bare = match atom.element {
            Element::BORON | Element::CARBON | Element::NITROGEN | Element::OXYGEN | Element::PHOSPHORUS => true,
            Element::SULFUR | Element::FLUORINE | Element::CHLORINE | Element::BROMINE => true,
            // Readers differ in the hydrogens of iodine with two or four bonds.
            Element::IODINE => hydrogens == Some(0),
            _ => false,
        };
        if is_bare && atom.charge == 0 {
            text.push_str(atom.element.symbol());
            return;
        }
        text.push('[');
        text.push_str(atom.element.symbol());
        match hydrogens.unwrap_or(0) {
            0 => {}
            1 => text.push('H'),
            count => text.push_str(&format!("H{count}")),
        }
        match atom.charge {
            0 => {}
            1 => text.push('+'),
            -1 => text.push('-'),
            charge => text.push_str(&format!("{charge:+}")),
        }
        text.push(']');
    }
}

fn symbol(bond: Bond) -> &'static str {
    match bond {
        Bond::Single => "",
        Bond::Double => "=",
        Bond::Triple => "#",
    }
}

fn push_number(text: &mut String, number: u32) {
    match number {
        0..=9 => text.push_str(&number.to_string()),
        10..=99 => text.push_str(&format!("%{number}")),
        _ => text.push_str(&format!("%({number})")),
    }
}

/// Ring numbers from one, used again once their ring is closed.
#[derive(Default)]
struct Numbers {
    free: BinaryHeap<Reverse<u32>>,
    highest: u32,
    taken: std::collections::HashMap<usize, u32>,
}

impl Numbers {
    /// The lowest free number, for a ring bond that opens.
    fn take(&mut self, bond: usize) -> u32 {
        let number = self.free.pop().map_or_else(
            || {
                self.highest += 1;
                self.highest
            },
            |Reverse(number)| number,
        );
        self.taken.insert(bond, number);
        number
    }

    /// The number of a ring bond that closes.
    fn of(&mut self, bond: usize) -> Option<u32> {
        self.taken.remove(&bond)
    }
}
