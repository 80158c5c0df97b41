//! Flows over the parameters of a model, each in its own domain.

use flow_core::layers::constraint::{CorrelationCholesky, Interval, Link, Ordered, Positive, Simplex};
use flow_core::layers::{ActNorm, Blockwise, Identity};
use flow_core::{Bijector, Chain, ParamPath, ParamStore};
use serde::{Deserialize, Serialize};

use crate::model::{DiscreteFlow, over_gaussian};
use crate::{Error, Result};

/// The domain of some neighbouring entries of a vector of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Constraint {
    /// So many real numbers.
    Real(usize),
    /// So many numbers above zero, linear in the latent far out.
    Positive(usize),
    /// So many numbers above zero, by their logarithm: for what varies over powers of ten.
    LogPositive(usize),
    /// Numbers between two ends.
    Interval {
        /// How many.
        count: usize,
        /// The lower end.
        low: f64,
        /// The upper end.
        high: f64,
    },
    /// The probabilities of so many cases, as all of them but the last ([`Simplex`]).
    Simplex(usize),
    /// The Cholesky factor of a correlation matrix of so many variables, as the entries below its diagonal
    /// ([`CorrelationCholesky`]).
    CorrelationCholesky(usize),
    /// So many increasing numbers.
    Ordered(usize),
}

impl Constraint {
    /// The bijector from the domain to the reals.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no domain.
    pub fn bijector(self) -> Result<Box<dyn Bijector>> {
        Ok(match self {
            Constraint::Real(count) => Box::new(Identity::new(&[count])),
            Constraint::Positive(count) => Box::new(Positive::new(&[count], Link::Softplus)),
            Constraint::LogPositive(count) => Box::new(Positive::new(&[count], Link::Exponential)),
            Constraint::Interval { count, low, high } => Box::new(Interval::new(&[count], low, high)?),
            Constraint::Simplex(cases) => Box::new(Simplex::new(cases)?),
            Constraint::CorrelationCholesky(variables) => Box::new(CorrelationCholesky::new(variables)?),
            Constraint::Ordered(count) => Box::new(Ordered::new(count, Link::Softplus)?),
        })
    }
}

/// The bijector from all domains to the reals.
pub(super) fn domain(constraints: &[Constraint]) -> Result<Blockwise> {
    if constraints.is_empty() {
        return Err(Error::config("constraints", "name no parameter"));
    }
    Ok(Blockwise::new(constraints.iter().map(|c| c.bijector()).collect::<Result<Vec<_>>>()?)?)
}

/// A flow over parameters with constraints: `flow` builds the map over as many real numbers as they have, under the path
/// that it is given.
///
/// Between the two is a shift and a scale of every real number, under the path `location`, which
/// [`flow_core::Density::initialize`] sets: see [`Location`](super::Location).
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::{Density, FlowRng, ParamStore};
/// use flow_density::nsf_coupling;
/// use flow_density::variational::{Constraint, constrained};
///
/// # fn main() -> flow_density::Result<()> {
/// // A mean, a deviation, and three probabilities, of which the last follows from the others.
/// let parts = [Constraint::Real(1), Constraint::Positive(1), Constraint::Simplex(3)];
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let q = constrained(&store, &parts, |path, features| nsf_coupling(features).bijector(path))?;
/// let x = q.sample(100, None, 1.0, &mut FlowRng::seed_from(1))?.to_vec2::<f32>()?;
/// assert!(x.iter().all(|x| x.len() == 4 && x[1] > 0.0 && x[2] > 0.0 && x[2] + x[3] < 1.0));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`flow_core::Error::Config`] for no parameters, numbers that make no domain, and what `flow` returns.
pub fn constrained(
    store: &ParamStore,
    constraints: &[Constraint],
    flow: impl FnOnce(&ParamPath, usize) -> Result<Chain>,
) -> Result<DiscreteFlow> {
    located(store, constraints, true, flow)
}

/// [`constrained`] with or without the shift and the scale, which runs made before there were any do not have.
pub(crate) fn located(
    store: &ParamStore,
    constraints: &[Constraint],
    location: bool,
    flow: impl FnOnce(&ParamPath, usize) -> Result<Chain>,
) -> Result<DiscreteFlow> {
    let domain = domain(constraints)?;
    let shape = domain.latent_shape().to_vec();
    let mut layers: Vec<Box<dyn Bijector>> = vec![Box::new(domain)];
    if location {
        layers.push(Box::new(ActNorm::new(&store.root().pp("location"), &shape)?));
    }
    layers.push(Box::new(flow(&store.root(), shape.iter().product())?));
    over_gaussian(store, Chain::new(layers)?)
}
