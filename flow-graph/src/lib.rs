//! Molecules as flows: GraphAF on `flow-core`.
//!
//! Read SMILES, train a model, draw new molecules, score and improve them:
//!
//! ```
//! use candle_core::Device;
//! use flow_core::{FlowRng, train::Trainer};
//! use flow_graph::model::{GraphAfConfig, SampleOptions, Sequence, Vocabulary};
//! use flow_graph::trainer::{GraphRun, GraphTask, train_config};
//! use flow_graph::{canonical_smiles, smiles};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let alcohols = ["CO", "CCO", "CCCO", "CC(C)O", "CCCCO", "CC(O)CC"];
//! let molecules = alcohols.iter().map(|s| smiles::parse(s)).collect::<Result<Vec<_>, _>>()?;
//! let vocabulary = Vocabulary::of(&molecules)?;
//! let sequences = molecules.iter().map(|m| Sequence::new(m, &vocabulary)).collect::<Result<Vec<_>, _>>()?;
//!
//! let mut model = GraphAfConfig::spline(vocabulary, 10);
//! model.width = 16;
//! let run = GraphRun::new(model, "alcohols", 6, 0);
//! let task = GraphTask::new(run, sequences.clone(), sequences, &Device::Cpu)?;
//! let out = std::env::temp_dir().join(format!("flow-graph-doc-{}", std::process::id()));
//! let mut trainer = Trainer::new(train_config(50, 0), &out, task)?;
//! trainer.run(&mut ())?;
//!
//! let model = trainer.task().model();
//! for drawn in model.sample(3, &SampleOptions::default(), &mut FlowRng::seed_from(1))? {
//!     let molecule = drawn.sequence.molecule(&model.config().vocabulary)?;
//!     molecule.check_valences()?;
//!     println!("{}", canonical_smiles(&molecule));
//! }
//! # std::fs::remove_dir_all(out)?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "chem")]
pub mod chem;
pub mod data;
mod error;
pub mod metrics;
pub mod model;
pub mod molecule;
pub mod optimize;
pub mod sdf;
pub mod smiles;
pub mod trainer;

#[cfg(feature = "chem")]
pub use chem::{Fingerprint, Perceived, Properties, SaScorer};
pub use error::{Error, Result};
pub use molecule::{Atom, Bond, Element, Molecule};

/// Tensors and devices, of the version that this crate takes and returns.
pub use candle_core;
/// Graphs, of the version that [`Molecule::graph`] returns.
pub use petgraph;

/// The canonical SMILES of a molecule: one string for each molecule, whatever the order of its atoms.
///
/// With the feature `chem` these are RDKit's (aromatic, without stereo); without it, or for a molecule that the
/// perception of aromaticity refuses, those of [`smiles::canonical`].
pub fn canonical_smiles(molecule: &Molecule) -> String {
    #[cfg(feature = "chem")]
    if let Ok(canonical) = chem::canonical_smiles(molecule) {
        return canonical;
    }
    smiles::canonical(molecule)
}

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
