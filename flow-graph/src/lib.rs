//! Molecules as flows: GraphAF on `flow-core`.

pub mod data;
mod error;
pub mod molecule;
pub mod sdf;
pub mod smiles;

pub use error::{Error, Result};
pub use molecule::{Atom, Bond, Element, Molecule};
