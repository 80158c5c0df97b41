//! What a text says that a molecule does not carry.

#[cfg(doc)]
use crate::Molecule;

/// How much of a SMILES or a MOL block a [`Molecule`] does not carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Atoms marked with `@` and bonds marked with `/` or `\`.
    pub stereo: usize,
    /// Isotopes.
    pub isotopes: usize,
    /// Atom maps.
    pub atom_maps: usize,
    /// Hydrogens written as atoms, which became hydrogens of their neighbours.
    pub hydrogens: usize,
}
