//! Densities: a bijector and what its latent is distributed as, on one scale or on several, over real or
//! over discrete data.

pub mod bits;
mod context;
pub mod dequantize;
mod flow;
mod multiscale;
mod reparameterized;
mod reversible;

pub use flow::{Density, Flow, Scored};
pub use multiscale::{Factors, LatentPriors, Latents, Level, MultiScale, TopObjective};
pub use reparameterized::{DrawGradient, Drawn, Reparameterized};
pub use reversible::{Backprop, DRIFT_TOLERANCE, drift};
