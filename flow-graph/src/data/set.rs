//! Many molecules in little memory.
//!
//! As graphs the quarter of a million molecules of ZINC250k take 280 MB, as flat arrays of atoms and bonds
//! 53 MB. [`MoleculeSet`] keeps the arrays and builds a [`Molecule`] when one is asked for.

use std::ops::Range;

use crate::molecule::{Atom, Bond, Molecule};
use crate::{Error, Result};

/// A bond between two atoms of one molecule; six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedBond {
    pub a: u16,
    pub b: u16,
    pub bond: Bond,
}

/// An ordered collection of molecules, stored flat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoleculeSet {
    pub(super) atoms: Vec<Atom>,
    pub(super) bonds: Vec<PackedBond>,
    /// For every molecule where its atoms and its bonds end.
    pub(super) ends: Vec<(usize, usize)>,
}

impl MoleculeSet {
    /// Most atoms that one molecule may have here.
    pub const LARGEST: usize = u16::MAX as usize;

    /// A set without molecules.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of molecules.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no molecule.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a molecule at the end.
    ///
    /// # Errors
    /// [`Error::Chemistry`] for more than [`MoleculeSet::LARGEST`] atoms.
    pub fn push(&mut self, molecule: &Molecule) -> Result<()> {
        if molecule.len() > Self::LARGEST {
            let reason = format!("{} atoms, at most {} can be stored", molecule.len(), Self::LARGEST);
            return Err(Error::Chemistry(reason));
        }
        self.atoms.extend(molecule.atoms());
        // Indices are below the number of atoms, which was checked.
        self.bonds.extend(molecule.bonds().map(|(a, b, bond)| PackedBond { a: a as u16, b: b as u16, bond }));
        self.ends.push((self.atoms.len(), self.bonds.len()));
        Ok(())
    }

    /// The molecule at an index, `None` out of range.
    pub fn get(&self, index: usize) -> Option<Molecule> {
        let bonds: Vec<_> = self.bonds(index)?.collect();
        Molecule::from_parts(self.atoms(index)?, &bonds).ok()
    }

    /// All molecules in their order, one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Molecule> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The atoms of the molecule at an index, `None` out of range.
    pub fn atoms(&self, index: usize) -> Option<&[Atom]> {
        self.atoms.get(self.spans(index)?.0)
    }

    /// The bonds of the molecule at an index, `None` out of range.
    pub fn bonds(&self, index: usize) -> Option<impl ExactSizeIterator<Item = (usize, usize, Bond)> + '_> {
        let bonds = self.bonds.get(self.spans(index)?.1)?;
        Some(bonds.iter().map(|bond| (usize::from(bond.a), usize::from(bond.b), bond.bond)))
    }

    /// The molecules at some indices, in the order given; a set may repeat one.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for an index out of range.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        let mut subset = MoleculeSet::new();
        for &index in indices {
            let Some((atoms, bonds)) = self.spans(index) else {
                return Err(Error::config("molecule", format!("there is no molecule {index} of {}", self.len())));
            };
            subset.atoms.extend_from_slice(&self.atoms[atoms]);
            subset.bonds.extend_from_slice(&self.bonds[bonds]);
            subset.ends.push((subset.atoms.len(), subset.bonds.len()));
        }
        Ok(subset)
    }

    /// Bytes of memory that the molecules take.
    pub fn heap_bytes(&self) -> usize {
        self.atoms.capacity() * size_of::<Atom>()
            + self.bonds.capacity() * size_of::<PackedBond>()
            + self.ends.capacity() * size_of::<(usize, usize)>()
    }

    /// Gives back the memory that growing left over.
    pub fn shrink_to_fit(&mut self) {
        self.atoms.shrink_to_fit();
        self.bonds.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    fn spans(&self, index: usize) -> Option<(Range<usize>, Range<usize>)> {
        let &(atoms, bonds) = self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        Some((start.0..atoms, start.1..bonds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smiles;

    fn set(strings: &[&str]) -> MoleculeSet {
        let mut set = MoleculeSet::new();
        strings.iter().for_each(|s| set.push(&smiles::parse(s).unwrap()).unwrap());
        set
    }

    #[test]
    fn what_goes_in_comes_out() {
        let strings = ["C", "CC(=O)[O-]", "C#N", "c1ccccc1[N+](=O)[O-]"];
        let set = set(&strings);
        assert_eq!(set.len(), 4);
        for (molecule, string) in set.iter().zip(strings) {
            assert_eq!(smiles::write(&molecule), smiles::write(&smiles::parse(string).unwrap()));
        }
        assert!(set.get(4).is_none() && set.atoms(4).is_none() && set.bonds(usize::MAX).is_none());
    }

    #[test]
    fn subsets_keep_the_order_asked_for() {
        let all = set(&["C", "CN", "C#N"]);
        assert_eq!(all.subset(&[2, 0, 2]).unwrap(), set(&["C#N", "C", "C#N"]));
        let error = all.subset(&[3]).unwrap_err().to_string();
        assert!(error.contains("no molecule 3 of 3"), "{error}");
    }

    #[test]
    fn a_molecule_beyond_the_index_width_is_refused() {
        let long = smiles::parse(&"C".repeat(MoleculeSet::LARGEST + 1)).unwrap();
        assert!(MoleculeSet::new().push(&long).unwrap_err().to_string().contains("65536 atoms"));
    }

    #[test]
    fn bonds_are_small() {
        assert_eq!((size_of::<PackedBond>(), size_of::<Atom>()), (6, 2));
    }
}
