//! Bijectors, one per file.

mod actnorm;
mod coupling;

pub use actnorm::ActNorm;
pub(crate) use actnorm::{LOG_SCALE_FACTOR, channel_moments};
pub use coupling::{Coupling, Partition};
