//! MOL blocks and SD files: versions V2000 and V3000 are read, V2000 is written.
//!
//! [`open`] walks through a file record by record and goes on after a bad one; [`write_record`] writes one.
//! Aromatic bonds (type 4) become single and double ones by the matching that SMILES goes through as well,
//! hydrogens written as atoms join their neighbours.
//!
//! ```
//! use flow_graph::{sdf, smiles};
//!
//! let glycine = smiles::parse("[NH3+]CC(=O)[O-]")?;
//! let text = sdf::write_record(&glycine, "glycine", None, &[("source".into(), "a pen".into())])?;
//! let record = sdf::parse_molblock(&text)?;
//! assert_eq!(smiles::write(&record.molecule), "[NH3+]CC(=O)[O-]");
//! assert_eq!(record.properties, [("source".to_string(), "a pen".to_string())]);
//! # Ok::<(), flow_graph::Error>(())
//! ```

mod read;
mod records;
mod v3000;
mod write;

pub(crate) use read::parse_text;
pub use read::{Record, parse_molblock};
pub use records::{Records, open};
pub use write::write_record;

#[cfg(test)]
mod tests;
