//! Continuous normalizing flows: ordinary differential equations as bijectors.
//!
//! A [`VectorField`] `f(t, x; c)` moves data along `dx/dt = f`; the log-density changes along the way by
//! `d log p/dt = -tr ∂f/∂x` (Chen et al. 2018, arXiv 1806.07366, theorem 1). The solvers of [`ode`] know
//! nothing of flows.

mod activation;
mod adjoint;
mod bridge;
mod concat_squash;
mod config;
mod direct;
mod dynamics;
mod field;
mod flow;
pub mod matching;
mod nets;
pub mod ode;
mod pieces;
mod preconditioned;
mod vjp;

pub use activation::FieldActivation;
pub use concat_squash::{ConcatSquash, ConcatSquashConfig, EmbeddingConfig, Gate};
pub use config::{CnfConfig, EndTime, OdeGradient, Regularization};
pub use field::{Divergence, Probe, VectorField, groups};
pub use flow::{Cnf, Penalties};
pub use nets::{Concat, ConcatConfig, MlpField, MlpFieldConfig};
pub use preconditioned::Preconditioned;
