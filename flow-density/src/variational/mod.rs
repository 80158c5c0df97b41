//! Variational inference: flows that are fitted to a density known up to a constant, such as a posterior, instead of to data.
//!
//! [`fit_reverse_kl`] fits by samples of the flow, [`Diagnostics`] say how far the fit is to be trusted, [`Weighted`] corrects
//! it by importance weights, [`constrained`] gives every parameter its domain, [`Location`] finds densities that are far from
//! order one, and [`Energy`] has the densities of the plane of the founding paper.
//!
//! Samples must be cheap: couplings cost the same in both directions, and [`Bumps::inverse`](crate::model::Bumps::inverse)
//! and [`Autoregressive::inverse`](crate::model::Conditioned::inverse) turn flows round whose closed direction is the
//! density.

mod constrained;
mod diagnostics;
mod energy;
mod fit;
mod location;
mod objective;
mod options;
mod pareto;
mod problem;
mod tails;
mod target;
mod task;

pub(crate) use constrained::located;
pub use constrained::{Constraint, constrained};
pub use diagnostics::{Diagnostics, Weighted, diagnose};
pub use energy::{Energy, WINDOW};
pub use fit::{VariationalFit, fit_reverse_kl};
pub use location::Location;
pub use objective::{Divergence, Estimator};
pub use options::{Annealing, Objective, VariationalOptions, recipe};
pub use problem::Problem;
pub use target::LogDensityResult;
pub use task::{VARIATIONAL_LOSS, VariationalTask};
