//! Chemistry that agrees with RDKit: canonical SMILES, QED, logP, synthetic accessibility, fingerprints and
//! pictures, all in Rust through the `chematic` crate.
//!
//! A property is computed on a molecule's canonical form, so it does not depend on the order of its atoms.
//! Several properties of one molecule are cheapest through [`Perceived`], which is canonicalised once;
//! the free functions do that for a single property.
//!
//! Everything here is thread-safe and needs no files, except the fragment scores of [`SaScorer`].

mod accessibility;
mod convert;
mod depict;
mod fingerprint;
mod penalized_logp;
mod perceived;
mod properties;

pub use accessibility::SaScorer;
pub use convert::canonical_smiles;
pub use depict::{grid_svg, layout, write_grid};
pub use fingerprint::Fingerprint;
pub use penalized_logp::{longest_cycle, penalized_log_p};
pub use perceived::Perceived;
pub use properties::{Properties, log_p, molecular_weight, qed, ring_sizes};

#[cfg(test)]
mod tests;
