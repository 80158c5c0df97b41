//! Bijectors, one per file.

mod actnorm;
mod coupling;

pub use actnorm::ActNorm;
pub use coupling::{Coupling, Partition};
