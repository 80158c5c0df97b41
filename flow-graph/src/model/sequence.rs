//! A molecule as the sequence of decisions that builds it.
//!
//! GraphAF (section 4.1) adds atoms in breadth-first order; each new atom decides, for the atoms before it,
//! whether it is bonded to them and how.

use flow_core::FlowRng;
use flow_core::hash::Fnv;

use super::vocabulary::Vocabulary;
use crate::molecule::{Atom, Bond, Molecule};
use crate::{Error, Result};

/// The largest number of atoms of a sequence: positions are bytes.
pub const LARGEST_MOLECULE: usize = 250;

/// A bond of a [`Sequence`]: between atom `atom` and the earlier atom `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceBond {
    /// The later atom.
    pub atom: u8,
    /// The earlier atom.
    pub to: u8,
    /// The bond.
    pub bond: Bond,
}

/// Atom codes in the order of generation and bonds sorted by their later, then their earlier atom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Sequence {
    /// Vocabulary codes.
    pub atoms: Box<[u8]>,
    /// Bonds.
    pub bonds: Box<[SequenceBond]>,
}

impl Sequence {
    /// Takes this molecule, in this order, into a hash.
    pub(crate) fn hash(&self, hash: Fnv) -> Fnv {
        let bonds = self.bonds.iter().flat_map(|b| [b.atom, b.to, b.bond.order()]);
        hash.words([self.atoms.len() as u32, self.bonds.len() as u32])
            .words(self.atoms.iter().copied().chain(bonds).map(u32::from))
    }

    /// A molecule in the order of its own atom indices; for a breadth-first order see [`Sequence::shuffled`].
    ///
    /// With a vocabulary without charges, charges are dropped, as the paper does.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that is empty, disconnected or too large, or an unknown atom type.
    pub fn new(molecule: &Molecule, vocabulary: &Vocabulary) -> Result<Self> {
        let (n, refuse) = (molecule.len(), |reason: String| Err(Error::Vocabulary(reason)));
        if n == 0 || n > LARGEST_MOLECULE {
            return refuse(format!("it has {n} atoms, 1 to {LARGEST_MOLECULE} are possible"));
        }
        if !molecule.is_connected() {
            return refuse("it is in several pieces".into());
        }
        let strip = vocabulary.is_neutral();
        let mut atoms = Vec::with_capacity(n);
        for atom in molecule.atoms() {
            let atom = if strip { Atom::neutral(atom.element) } else { atom };
            match vocabulary.code(atom) {
                Some(code) => atoms.push(code),
                None => return refuse(format!("atom type {atom} is not among those it was trained on")),
            }
        }
        let bonds = molecule.bonds().map(|(a, b, bond)| oriented(a as u8, b as u8, bond));
        Ok(Self::sorted(atoms, bonds.collect()))
    }

    fn sorted(atoms: Vec<u8>, mut bonds: Vec<SequenceBond>) -> Self {
        bonds.sort_unstable();
        Sequence { atoms: atoms.into(), bonds: bonds.into() }
    }

    /// Number of atoms.
    pub fn len(&self) -> usize {
        self.atoms.len()
    }

    /// Whether there are no atoms.
    pub fn is_empty(&self) -> bool {
        self.atoms.is_empty()
    }

    /// The bonds of one atom to earlier ones, nearest to the beginning first.
    pub fn bonds_of(&self, atom: usize) -> &[SequenceBond] {
        let from = self.bonds.partition_point(|b| usize::from(b.atom) < atom);
        let to = self.bonds.partition_point(|b| usize::from(b.atom) <= atom);
        &self.bonds[from..to]
    }

    /// The same molecule in a random breadth-first order: a random first atom, neighbours in random order.
    #[must_use]
    pub fn shuffled(&self, rng: &mut FlowRng) -> Self {
        let rank = rng.permutation(self.len());
        self.breadth_first(rng.below(self.len()), &rank)
    }

    /// The logarithm of the probability that [`Sequence::shuffled`] numbers the atoms as they are numbered here, in
    /// breadth-first order: `q(order) = 1/N · Π_v 1/c_v!`, where `c_v` atoms were first reached from atom `v`.
    pub fn log_order_probability(&self) -> f64 {
        let mut reached = vec![0usize; self.len()];
        for atom in 1..self.len() {
            if let Some(first) = self.bonds_of(atom).first() {
                reached[usize::from(first.to)] += 1;
            }
        }
        let factors = reached.iter().flat_map(|&count| 2..=count).chain([self.len()]);
        -factors.map(|factor| (factor as f64).ln()).sum::<f64>()
    }

    /// The same molecule in breadth-first order from `start`, neighbours by rising `rank`.
    #[must_use]
    pub fn breadth_first(&self, start: usize, rank: &[usize]) -> Self {
        let n = self.len();
        let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); n];
        for b in &self.bonds {
            neighbours[usize::from(b.atom)].push(usize::from(b.to));
            neighbours[usize::from(b.to)].push(usize::from(b.atom));
        }
        let mut place = vec![u8::MAX; n];
        let mut order = Vec::with_capacity(n);
        if let Some(first) = place.get_mut(start) {
            *first = 0;
            order.push(start);
        }
        let mut head = 0;
        while let Some(&atom) = order.get(head) {
            head += 1;
            neighbours[atom].sort_unstable_by_key(|&other| rank.get(other).copied());
            for &next in &neighbours[atom] {
                if place[next] == u8::MAX {
                    place[next] = order.len() as u8;
                    order.push(next);
                }
            }
        }
        let atoms = order.iter().map(|&old| self.atoms[old]).collect();
        let bonds = self.bonds.iter().map(|b| oriented(place[usize::from(b.atom)], place[usize::from(b.to)], b.bond));
        Self::sorted(atoms, bonds.collect())
    }

    /// Whether the first neighbours of the atoms, among those before them, never go back: then every bond lies within
    /// [`Candidates::Frontier`](super::Candidates). So it is in breadth-first order.
    pub fn keeps_frontier(&self) -> bool {
        let firsts = (1..self.len()).map(|atom| self.bonds_of(atom).first().map(|b| b.to));
        firsts.map(|first| first.map_or(-1, i16::from)).is_sorted()
    }

    /// Whether every atom but the first is bonded to one before it.
    pub fn grows(&self) -> bool {
        (1..self.len()).all(|atom| !self.bonds_of(atom).is_empty())
    }

    /// Its first `atoms` atoms with the bonds among them.
    #[must_use]
    pub fn truncated(&self, atoms: usize) -> Self {
        let bonds = self.bonds.iter().filter(|b| usize::from(b.atom) < atoms).copied().collect();
        Sequence { atoms: self.atoms[..atoms.min(self.len())].into(), bonds }
    }

    /// The largest distance in the order between two bonded atoms.
    pub fn reach(&self) -> usize {
        self.bonds.iter().map(|b| usize::from(b.atom - b.to)).max().unwrap_or(0)
    }

    /// The molecule.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a code outside the vocabulary.
    pub fn molecule(&self, vocabulary: &Vocabulary) -> Result<Molecule> {
        let atoms = self.atoms.iter().map(|&code| {
            vocabulary.atom(code).ok_or_else(|| Error::Vocabulary(format!("atom code {code} of {}", vocabulary.len())))
        });
        let bonds: Vec<_> = self.bonds.iter().map(|b| (usize::from(b.to), usize::from(b.atom), b.bond)).collect();
        Molecule::from_parts(&atoms.collect::<Result<Vec<_>>>()?, &bonds)
    }
}

fn oriented(a: u8, b: u8, bond: Bond) -> SequenceBond {
    SequenceBond { atom: a.max(b), to: a.min(b), bond }
}
