//! Normalizing flows on Candle: exact likelihoods, exact inverses.
//!
//! This crate is the mathematics and the training engine; it knows no modality.

pub mod bijector;
pub mod bits;
pub mod chain;
pub mod cnf;
mod context;
pub mod dequantize;
pub mod distribution;
pub mod error;
pub mod files;
pub mod flow;
mod gradients;
pub mod inspect;
pub mod kernel;
pub mod layers;
mod linalg;
pub mod multiscale;
pub mod nn;
pub mod param;
pub mod reversible;
mod rng;
mod root;
mod softmax;
#[cfg(test)]
mod test_util;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod train;
pub mod transformer;
pub mod transport;

pub use bijector::{Bijector, Pullback, Tape};
pub use chain::{Chain, Inverse};
pub use distribution::Distribution;
pub use error::{Direction, Error, Result};
pub use flow::{Density, Flow, Scored};
pub use gradients::Gradients;
pub use multiscale::MultiScale;
pub use param::{Init, Param, ParamPath, ParamStore};
pub use reversible::Backprop;
pub use rng::FlowRng;
pub use transformer::Transformer;
