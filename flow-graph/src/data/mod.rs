//! Data sets of molecules: readers, a cache, and splits.
//!
//! [`open`] knows the formats by name or content: SMILES files, tables with a column of SMILES, SD files, each
//! compressed or not; [`builtin`](builtin()) needs no file. What comes back is a [`Loaded`]: the molecules in
//! a compact [`MoleculeSet`], and an account of every line that is none. [`Splits`] cuts it.
//!
//! ```
//! use flow_graph::data::{self, OpenOptions, Splits};
//!
//! let loaded = data::open("builtin", &OpenOptions::default())?;
//! let splits = Splits::cut(loaded.len(), 0.05, 0.1, 0)?;
//! let molecules = loaded.molecules.subset(&splits.test)?;
//! assert!(!molecules.is_empty());
//! # Ok::<(), flow_graph::Error>(())
//! ```

mod builtin;
mod cache;
mod codec;
mod csv;
mod duplicates;
mod format;
pub(crate) mod lines;
mod loaded;
mod open;
mod options;
mod sd;
mod set;
mod splits;
mod text;
mod texts;

pub use builtin::builtin;
pub use duplicates::{Duplicates, Shared};
pub use loaded::{BadLine, Components, Loaded};
pub use open::{is_table, open};
pub use options::{Cache, OpenOptions};
pub use set::MoleculeSet;
pub use splits::Splits;
pub use texts::TextList;
