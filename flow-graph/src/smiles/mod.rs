//! SMILES, read and written.
//!
//! [`parse`] reads OpenSMILES into a [`Molecule`]: aromatic atoms become single and double bonds by an exact
//! matching, explicit hydrogens join their neighbours, and what a [`Molecule`] does not carry (stereo,
//! isotopes, atom maps) is counted by [`read`]. [`write()`] gives Kekulé SMILES in the order of the atoms;
//! [`canonical`] gives the same string for every atom order and every Kekulé form, [`Forms`] the Kekulé forms and the
//! symmetry behind it.
//!
//! ```
//! use flow_graph::smiles;
//!
//! let phenol = smiles::parse("c1ccccc1O")?;
//! assert_eq!(smiles::write(&phenol), "C1=CC=CC=C1O");
//! assert_eq!(smiles::canonical(&phenol), smiles::canonical(&smiles::parse("OC1=CC=CC=C1")?));
//! # Ok::<(), flow_graph::Error>(())
//! ```

mod bracket;
mod canonical;
mod forms;
mod partition;
mod read;
mod write;

pub use crate::molecule::draft::Dropped;
pub use canonical::canonical;
pub(crate) use canonical::classes;
pub use forms::Forms;
pub use read::{Reading, parse, read, read_largest};
pub use write::{write, write_ordered};

#[cfg(doc)]
use crate::Molecule;

#[cfg(test)]
mod tests;
