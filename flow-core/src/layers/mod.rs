//! Bijectors, one per file.

mod actnorm;
mod coupling;
mod logit;
mod squeeze;

#[cfg(test)]
mod check;

pub use actnorm::ActNorm;
pub use coupling::{Coupling, Partition};
pub use logit::{Logit, Sigmoid};
pub use squeeze::Squeeze;
