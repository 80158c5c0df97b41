//! Normalizing flows on Candle: exact likelihoods, exact inverses.
//!
//! This crate is the mathematics and the training engine; it knows no modality.

pub mod autodiff;
pub mod bijector;
pub mod cnf;
pub mod density;
pub mod distribution;
pub mod error;
pub mod files;
pub mod hash;
pub mod kernels;
pub mod layers;
pub mod nn;
pub mod numerics;
pub mod param;
mod rng;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod train;
pub mod transformer;

pub use bijector::{Bijector, Chain, Inverse, Pullback, Tape};
pub use density::{Backprop, Density, Flow, MultiScale, Scored};
pub use distribution::Distribution;
pub use error::{Direction, Error, Result};
pub use param::{Gradients, Init, Param, ParamPath, ParamStore};
pub use rng::FlowRng;
pub use transformer::Transformer;
