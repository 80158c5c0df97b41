//! Atoms and bonds as a text states them.

use crate::molecule::{Atom, Bond, Element, largest_valence};

/// An atom as written.
pub(crate) struct DraftAtom {
    pub(crate) atom: Atom,
    pub(crate) aromatic: bool,
    pub(crate) hydrogens: Hydrogens,
    /// Hydrogens written as atoms that have been merged into this one.
    pub(crate) merged: u8,
}

/// What the text says about an atom's hydrogens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hydrogens {
    /// Exactly so many (a bracket atom).
    Written(u8),
    /// Those that fill the valence, but none on an aromatic atom other than carbon and boron (SMILES outside
    /// brackets).
    Filled,
    /// Nothing is said: an aromatic nitrogen may turn out to have one (MOL blocks).
    Unsaid,
}

/// A bond as written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DraftBond {
    /// Stated by order.
    Plain(Bond),
    /// Stated to be aromatic.
    Aromatic,
    /// Nothing between two aromatic atoms: aromatic in a ring, single outside.
    Unwritten,
}

/// Atoms and bonds as written; the two of a bond differ and no two bonds join the same atoms.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) atoms: Vec<DraftAtom>,
    pub(crate) bonds: Vec<(usize, usize, DraftBond)>,
}

/// Why a draft is no molecule, at one of its atoms as they were written.
pub(crate) struct Fault {
    pub(crate) atom: usize,
    pub(crate) reason: String,
}

impl DraftBond {
    /// The order, once no bond is aromatic any more.
    pub(super) fn order(self) -> Bond {
        match self {
            DraftBond::Plain(bond) => bond,
            DraftBond::Aromatic | DraftBond::Unwritten => Bond::Single,
        }
    }
}

impl DraftAtom {
    /// A hydrogen that can be counted instead of kept.
    pub(super) fn is_hydrogen(&self) -> bool {
        self.atom == Atom::neutral(Element::HYDROGEN)
            && !self.aromatic
            && matches!(self.hydrogens, Hydrogens::Written(0) | Hydrogens::Unsaid)
    }

    /// Hydrogens that were written, in brackets or as atoms.
    pub(super) fn hydrogen_atoms(&self) -> u8 {
        let written = if let Hydrogens::Written(count) = self.hydrogens { count } else { 0 };
        written.saturating_add(self.merged)
    }
}

/// Why so many bonds are too many.
pub(super) fn exceeded(atom: Atom, used: u8) -> String {
    match largest_valence(atom) {
        0 => format!("{atom} is read without bonds only, it has {used} (counted by order)"),
        most => format!("{atom} has {used} bonds counted by order, at most {most} fit"),
    }
}
