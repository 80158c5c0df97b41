//! Molecules as flows: GraphAF on `flow-core`.

#[cfg(feature = "chem")]
pub mod chem;
mod error;
pub mod metrics;
pub mod molecule;
pub mod sdf;
pub mod smiles;

#[cfg(feature = "chem")]
pub use chem::{Fingerprint, Perceived, Properties, SaScorer};
pub use error::{Error, Result};
pub use molecule::{Atom, Bond, Element, Molecule};
pub mod model;
pub mod trainer;
