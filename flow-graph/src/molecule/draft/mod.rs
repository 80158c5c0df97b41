//! What a file format states about a molecule, before it is one.
//!
//! SMILES and MOL blocks both end here: hydrogens written as atoms join their neighbours, aromatic bonds
//! become single and double ones by an exact matching, and every atom's valence is held against what was written.

mod adjacency;
mod charges;
mod components;
mod dropped;
mod finish;
mod kekulize;
mod matching;
mod parts;

pub(crate) use adjacency::Adjacency;
pub(crate) use components::Keep;
pub use dropped::Dropped;
pub(crate) use matching::Matching;
pub(crate) use parts::{Draft, DraftAtom, DraftBond, Hydrogens};
