//! Bijectors, one per file.

mod actnorm;
mod autoregressive;
mod conv1x1;
mod coupling;
mod permute;

pub use actnorm::ActNorm;
pub use autoregressive::MaskedAutoregressive;
pub use conv1x1::{InvertibleConv, Parametrization};
pub use coupling::{Coupling, Partition};
pub use permute::Permute;
