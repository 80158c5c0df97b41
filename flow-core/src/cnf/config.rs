//! What a configuration file says of a continuous flow.

use serde::{Deserialize, Serialize};

use super::Divergence;
use super::ode::SolveOptions;
use crate::{Error, Result};

/// How a [`Cnf`](super::Cnf) is integrated and differentiated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CnfConfig {
    /// Method and steps; times and steps are in units of `t`. By default Dopri5 at tolerance 1e-5.
    pub solver: SolveOptions,
    /// How the trace of the Jacobian is computed; exact by default.
    pub divergence: Divergence,
    /// How gradients are computed in [`Bijector::backprop`](crate::Bijector::backprop).
    pub gradient: OdeGradient,
    /// The time at which data have become latents; 1 by default.
    pub end_time: EndTime,
    /// Steps of its own for each group: for each row of the context, or for each sample where there is none. One
    /// hard group then neither slows nor changes the others. Off by default: all rows share their steps.
    pub per_group_steps: bool,
    /// Penalties on the trajectories; none by default.
    pub regularization: Regularization,
}

impl Default for CnfConfig {
    fn default() -> Self {
        CnfConfig {
            solver: SolveOptions::default(),
            divergence: Divergence::Exact,
            gradient: OdeGradient::Direct,
            end_time: EndTime::Fixed(1.0),
            per_group_steps: false,
            regularization: Regularization::default(),
        }
    }
}

impl CnfConfig {
    /// These steps; an exact divergence, the gradient of the steps taken, end time 1, steps shared, no penalties.
    pub fn new(solver: SolveOptions) -> Self {
        CnfConfig { solver, ..CnfConfig::default() }
    }

    /// The same with another method or other steps.
    #[must_use]
    pub fn solver(mut self, solver: SolveOptions) -> Self {
        self.solver = solver;
        self
    }

    /// The same with another way to compute the divergence.
    #[must_use]
    pub fn divergence(mut self, divergence: Divergence) -> Self {
        self.divergence = divergence;
        self
    }

    /// The same with another way to compute gradients.
    #[must_use]
    pub fn gradient(mut self, gradient: OdeGradient) -> Self {
        self.gradient = gradient;
        self
    }

    /// The same with another end time.
    #[must_use]
    pub fn end_time(mut self, end_time: EndTime) -> Self {
        self.end_time = end_time;
        self
    }

    /// The same with steps of its own for each group, or shared ones.
    #[must_use]
    pub fn per_group_steps(mut self, per_group_steps: bool) -> Self {
        self.per_group_steps = per_group_steps;
        self
    }

    /// The same with penalties on the trajectories.
    #[must_use]
    pub fn regularization(mut self, regularization: Regularization) -> Self {
        self.regularization = regularization;
        self
    }

    /// Refuses times and weights that make no sense.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let (EndTime::Fixed(end) | EndTime::Learned { initial: end }) = self.end_time;
        if !(end.is_finite() && end > 0.0) {
            return Err(Error::config(format!("{name} end time"), format!("is {end}, a positive number is needed")));
        }
        let Regularization { kinetic, jacobian } = self.regularization;
        for (what, weight) in [("kinetic", kinetic), ("jacobian", jacobian)] {
            if !(weight.is_finite() && weight >= 0.0) {
                let reason = format!("is {weight}, a finite number of at least 0 is needed");
                return Err(Error::config(format!("{name} {what} regularization"), reason));
            }
        }
        Ok(())
    }
}

/// How [`Bijector::backprop`](crate::Bijector::backprop) of a [`Cnf`](super::Cnf) computes gradients.
///
/// A pass with tracking on ([`Backprop::Plain`](crate::Backprop::Plain)) is one graph over all steps whatever this
/// says; its gradient is that of [`OdeGradient::Direct`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OdeGradient {
    /// The exact gradient of the discrete steps that were taken. Every step's start and the slopes of its stages are kept,
    /// `steps · stages` states of the size of `x`; the evaluations are repeated and differentiated one at a time, so that
    /// activations take the memory of one evaluation of the field. The sizes of adaptive steps are held fixed.
    #[default]
    Direct,
    /// The continuous adjoint (Chen et al. 2018, section 2): state, adjoint and gradients are integrated backward,
    /// from the latent alone. Exact only in the limit of small tolerances. All rows share the backward steps.
    Adjoint {
        /// The solver of the backward pass; that of the forward pass if there is none.
        #[serde(default)]
        solver: Option<SolveOptions>,
        /// Leave the gradients of parameters and context, pure integrals that feed back into nothing, out of the
        /// error norm (Kidger et al. 2021, arXiv 2009.09457): fewer steps at the same accuracy of what matters.
        #[serde(default)]
        seminorm: bool,
    },
}

/// The end `T` of the time interval `[0, T]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EndTime {
    /// Always the same.
    Fixed(f64),
    /// `T = s²` with a trained scalar `s`, the parameter `sqrt_end_time` (PointFlow starts at `T = .5`).
    Learned {
        /// `T` before training.
        initial: f64,
    },
}

/// Penalties that keep trajectories easy to integrate (Finlay et al. 2020, arXiv 2002.02798, equations 8 and 9).
///
/// In training, the gradient of the log-determinant of a [`Cnf`](super::Cnf) is that of `log_det - kinetic·K -
/// jacobian·J`, while its *value* stays the log-determinant: a loss that rewards the log-determinant by one is
/// penalised by the weights below, and what is reported stays a likelihood.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Regularization {
    /// The weight of `K = ∫ |f|²/D dt`, the mean square speed of a sample.
    pub kinetic: f64,
    /// The weight of `J = ∫ |∂f/∂x|²/D dt` in the Frobenius norm, exact or estimated by the probe of the divergence.
    pub jacobian: f64,
}

impl Regularization {
    /// Penalties of these weights.
    pub const fn new(kinetic: f64, jacobian: f64) -> Self {
        Regularization { kinetic, jacobian }
    }
}
