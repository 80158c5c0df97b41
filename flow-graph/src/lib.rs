//! Molecules as flows: GraphAF on `flow-core`.

mod error;
pub mod molecule;
pub mod sdf;
pub mod smiles;

pub use error::{Error, Result};
pub use molecule::{Atom, Bond, Element, Molecule};
pub mod model;
pub mod trainer;
