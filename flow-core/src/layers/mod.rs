//! Bijectors, one per file.

mod actnorm;
mod batch_norm;
mod coupling;
mod logit;
mod scaling;
mod squeeze;

pub use actnorm::ActNorm;
pub use batch_norm::BatchNorm;
pub use coupling::{Coupling, Partition};
pub use logit::{Logit, Sigmoid};
pub use scaling::Scaling;
pub use squeeze::Squeeze;
