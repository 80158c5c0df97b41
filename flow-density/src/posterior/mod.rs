//! Simulation-based inference: the posterior of a model that can only be run, from pairs of parameters and what came of them.
//!
//! A conditional flow `q(θ|x)` is fitted to pairs `(θ, x)` of parameters drawn from the prior and simulated observations by
//! maximum likelihood (neural posterior estimation: Papamakarios & Murray 2016, arXiv 1605.06376; Greenberg et al. 2019, arXiv
//! 1905.07488): one fit serves every observation. [`Calibration`] says whether its posteriors mean what they say.

mod calibration;
mod pairs;

use candle_core::Tensor;
use flow_core::train::{Fit, FitOptions, fit};
use flow_core::{Density, FlowRng};

use crate::data::Standard;
use crate::metrics::log_prob_given;
use crate::{Error, Result};

pub use calibration::{BINS, Calibration, Uniformity};
pub use pairs::{Pairs, Simulator};

/// Rows that are scored or drawn at once.
const CHUNK: usize = 4096;

/// A conditional density of parameters given observations, with the scales of both.
pub struct Posterior<'a, D: ?Sized> {
    density: &'a D,
    parameters: Standard,
    observed: Standard,
}

impl<'a, D: Density + ?Sized> Posterior<'a, D> {
    /// A density over standardised parameters given standardised observations.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] unless the density is over as many parameters.
    pub fn new(density: &'a D, parameters: Standard, observed: Standard) -> Result<Self> {
        if density.event_shape() != [parameters.columns()] {
            let reason = format!("is over {:?}, there are {} parameters", density.event_shape(), parameters.columns());
            return Err(Error::config("the density of the parameters", reason));
        }
        Ok(Posterior { density, parameters, observed })
    }

    /// The scale of the parameters.
    pub fn parameters(&self) -> &Standard {
        &self.parameters
    }

    /// The scale of the observations.
    pub fn observed(&self) -> &Standard {
        &self.observed
    }

    /// `count` draws given one observation, row after row, in the units of the parameters.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for an observation of another length, or one that holds no number.
    pub fn sample(&self, observed: &[f64], count: usize, rng: &mut FlowRng) -> Result<Vec<f64>> {
        let context = self.context(observed)?;
        let mut rows = Vec::with_capacity(count * self.parameters.columns());
        for start in (0..count).step_by(CHUNK) {
            let drawn = self.density.sample(CHUNK.min(count - start), Some(&context), 1.0, rng)?;
            rows.extend(self.parameters.undo(&drawn)?);
        }
        Ok(rows)
    }

    /// `ln q(θ|x)` of every pair, in nats of the units of the parameters.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for pairs of other widths.
    pub fn log_prob(&self, pairs: &Pairs) -> Result<Vec<f64>> {
        let (theta, x) = self.tensors(pairs)?;
        let logs = self.scores(&theta, &x)?;
        Ok(logs.into_iter().map(|log| log - self.parameters.log_scale()).collect())
    }

    /// An observation as the density sees it, `(1, Q)`.
    fn context(&self, observed: &[f64]) -> Result<Tensor> {
        let wanted = self.observed.columns();
        if observed.len() != wanted || observed.iter().any(|v| !v.is_finite()) {
            let reason = format!("must be {wanted} finite numbers, got {observed:?}");
            return Err(Error::config("an observation", reason));
        }
        let store = self.density.store();
        Ok(self.observed.apply(observed, store.device())?.to_dtype(store.dtype())?)
    }

    /// Pairs as the density sees them.
    fn tensors(&self, pairs: &Pairs) -> Result<(Tensor, Tensor)> {
        let (found, wanted) =
            ((pairs.parameters(), pairs.observed()), (self.parameters.columns(), self.observed.columns()));
        if found != wanted {
            let reason = format!(
                "have {} parameters and {} observed numbers, wanted {} and {}",
                found.0, found.1, wanted.0, wanted.1
            );
            return Err(Error::config("pairs", reason));
        }
        let store = self.density.store();
        let seen = |standard: &Standard, values: &[f64]| -> Result<Tensor> {
            Ok(standard.apply(values, store.device())?.to_dtype(store.dtype())?)
        };
        Ok((seen(&self.parameters, pairs.theta())?, seen(&self.observed, pairs.x())?))
    }

    /// `ln q` of standardised rows.
    fn scores(&self, theta: &Tensor, x: &Tensor) -> Result<Vec<f64>> {
        log_prob_given(self.density, theta, Some(x))
    }
}

/// Fits a conditional flow to pairs by maximum likelihood, both standardised; a tenth of the pairs, the
/// same whatever the seed, decides on the weights that are kept.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::train::FitOptions;
/// use flow_core::{FlowRng, ParamStore};
/// use flow_density::posterior::{Pairs, fit_posterior};
///
/// # fn main() -> flow_density::Result<()> {
/// // A number and what a noisy scale says of it.
/// let simulate = |rng: &mut FlowRng| {
///     let theta = rng.next_normal();
///     (vec![theta], vec![theta + 0.5 * rng.next_normal()])
/// };
/// let pairs = Pairs::simulate(2000, simulate, &mut FlowRng::seed_from(1))?;
/// let q = flow_density::model::maf(1).context(1).build(&ParamStore::new(0, DType::F32, &Device::Cpu))?;
/// let (posterior, _) = fit_posterior(&q, &pairs, FitOptions::new(150).learning_rate(0.01))?;
/// let draws = posterior.sample(&[1.0], 1000, &mut FlowRng::seed_from(2))?;
/// # let mean = draws.iter().sum::<f64>() / 1000.0;
/// # assert!((mean - 0.8).abs() < 0.1, "{mean}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`flow_core::Error::Config`] for fewer than ten pairs and a flow of another shape; [`Error::Table`] for a parameter or an
/// observed number that never changes; those of [`fit`].
pub fn fit_posterior<'a, D: Density + ?Sized>(
    q: &'a D,
    pairs: &Pairs,
    options: FitOptions<'_>,
) -> Result<(Posterior<'a, D>, Fit)> {
    if pairs.len() < 10 {
        return Err(Error::config(
            "pairs",
            format!("must be at least 10, of which a tenth is held out; got {}", pairs.len()),
        ));
    }
    let (train, held_out) = pairs.split(pairs.len() / 10, 0);
    let parameters = Standard::of(train.theta(), train.parameters())?;
    let observed = Standard::of(train.x(), train.observed())?;
    let posterior = Posterior::new(q, parameters, observed)?;
    let ((theta, x), (held_theta, held_x)) = (posterior.tensors(&train)?, posterior.tensors(&held_out)?);
    let fitted = fit(q, &theta, options.context(&x).validation(&held_theta, Some(&held_x)))?;
    Ok((posterior, fitted))
}
