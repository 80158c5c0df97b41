//! The two objectives: the evidence lower bound through the solver, and flow matching.

use candle_core::Tensor;
use flow_core::autodiff::{add_optional, pair};
use flow_core::cnf::matching::repeat_rows;
use flow_core::{Backprop, Density, FlowRng, Gradients};

use super::config::{MatchingConfig, Objective};
use super::encoder::Posterior;
use super::point_flow::PointFlow;
use crate::{Error, Result};

/// `ln √(2π)` and one half: the entropy of a standard normal number.
const NORMAL_ENTROPY: f64 = 1.418_938_533_204_672_7;

/// The terms of an objective, means over clouds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// What is minimised.
    pub loss: f64,
    /// `−log p(X | z)` in nats per point, or the mean squared velocity error of a coordinate.
    pub point: f64,
    /// `−log p(z)` in nats, or the mean squared velocity error of a latent's entry.
    pub prior: f64,
    /// Entropy of the posterior in nats, or its divergence from the standard normal.
    pub posterior: f64,
    /// Field evaluations for points and for latents in one direction; one each in matching.
    pub evaluations: (u64, u64),
}

impl PointFlow {
    /// Adds the gradient of the objective on clouds `(B, N, 3)` to `gradients`.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for another shape, [`flow_core::Error::Solver`] when a solver fails.
    pub fn backward(&self, clouds: &Tensor, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Terms> {
        self.backward_with(clouds, clouds.dim(0)?, rng, gradients)
    }

    /// As [`PointFlow::backward`] where only the first `plain` clouds are data, and the others changed for the sake of
    /// encoder and flow of points: in matching, the flow of latents does not learn their latents.
    ///
    /// # Errors
    /// As [`PointFlow::backward`]; [`flow_core::Error::Config`] unless `plain` is at least one and at most `B`.
    pub fn backward_with(
        &self,
        clouds: &Tensor,
        plain: usize,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        let count = clouds.dim(0)?;
        if !(1..=count).contains(&plain) {
            return Err(Error::config("plain clouds", format!("are {plain} of {count}, must be at least one of them")));
        }
        match &self.config.objective {
            Objective::Likelihood(_) => self.likelihood_backward(clouds, rng, gradients),
            Objective::Matching(config) => self.matching_backward(config, clouds, plain, rng, gradients),
        }
    }

    /// `−E[log p(X|z)] − E[log p(z)] − H[q(z|X)]`, the latter two for a variational model only (Yang et al. 2019,
    /// eq. 9), with the Gaussian constants of every dimension counted once.
    fn likelihood_backward(&self, clouds: &Tensor, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Terms> {
        let (b, n, _) = clouds.dims3()?;
        self.set_noise(rng);
        let posterior = self.encoder.forward(clouds)?;
        let z = draw(&posterior, rng)?;
        let fixed = z.detach();
        let weight = |rows: usize| Tensor::full(-1.0 / b as f64, rows, z.device())?.to_dtype(z.dtype());
        let rows = clouds.reshape((b * n, 3))?;
        let points =
            self.point.flow.log_prob_backward(&rows, Some(&fixed), &weight(b * n)?, Backprop::Reversible, gradients)?;
        let mut terms = Terms { point: -mean(&points.log_prob)?, ..Terms::default() };
        let mut cotangent = points.grad_context;
        if let Some(log_variance) = &posterior.log_variance {
            let latents =
                self.prior.flow.log_prob_backward(&fixed, None, &weight(b)?, Backprop::Reversible, gradients)?;
            terms.prior = -mean(&latents.log_prob)?;
            let half = log_variance.detach().sum(1)?.affine(0.5, NORMAL_ENTROPY * self.config.latent as f64)?;
            terms.posterior = mean(&half)?;
            cotangent = add_optional(cotangent, Some(latents.grad_x))?;
        }
        terms.loss = terms.point * n as f64 + terms.prior - terms.posterior;
        terms.evaluations = self.evaluations();
        let Some(cotangent) = cotangent else { return Ok(terms) };
        let mut below = pair(&z, &cotangent)?;
        if let Some(log_variance) = &posterior.log_variance {
            below = (below - log_variance.sum_all()?.affine(0.5 / b as f64, 0.0)?)?;
        }
        gradients.accumulate(&below.backward()?)?;
        Ok(terms)
    }

    /// Velocity errors of points given a draw of the posterior, and of that draw; the latter does not move the encoder,
    /// or shrinking all latents would be the cheapest way to match them.
    fn matching_backward(
        &self,
        config: &MatchingConfig,
        clouds: &Tensor,
        plain: usize,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        let (b, n, _) = clouds.dims3()?;
        let posterior = self.encoder.forward(clouds)?;
        let z = draw(&posterior, rng)?;
        let times = times_per_cloud(config, n);
        let context = repeat_rows(&z, times)?;
        let rows = clouds.reshape((b * n, 3))?;
        let point = config.point.loss(&*self.point.field, &rows, Some(&context), b * times, rng)?;
        let latents =
            repeat_rows(&self.prior.whiten(&z.detach().narrow(0, 0, plain)?)?.detach(), config.draws_per_latent)?;
        let prior = config.prior.loss(&*self.prior.field, &latents, None, latents.dim(0)?, rng)?;
        let mut total = (&point + &prior)?;
        let mut terms =
            Terms { point: scalar(&point)?, prior: scalar(&prior)?, evaluations: (1, 1), ..Terms::default() };
        if let Some(divergence) = divergence_from_normal(&posterior)? {
            terms.posterior = scalar(&divergence)?;
            total = (total + divergence.affine(config.kl_weight, 0.0)?)?;
        }
        terms.loss = scalar(&total)?;
        gradients.accumulate(&total.backward()?)?;
        Ok(terms)
    }

    /// The objective on clouds without gradients, on running averages where `set_training(false)` was called.
    ///
    /// # Errors
    /// As [`PointFlow::backward`].
    pub fn evaluate(&self, clouds: &Tensor, rng: &mut FlowRng) -> Result<Terms> {
        let _paused = self.store.no_grad();
        let (b, n, _) = clouds.dims3()?;
        let posterior = self.encoder.forward(clouds)?;
        let z = draw(&posterior, rng)?;
        let rows = clouds.reshape((b * n, 3))?;
        let mut terms = Terms::default();
        match &self.config.objective {
            Objective::Likelihood(_) => {
                self.set_noise(rng);
                terms.point = -mean(&self.point.flow.log_prob(&rows, Some(&z))?)?;
                if let Some(log_variance) = &posterior.log_variance {
                    terms.prior = -mean(&self.prior.flow.log_prob(&z, None)?)?;
                    terms.posterior = 0.5 * mean(&log_variance.sum(1)?)? + NORMAL_ENTROPY * self.config.latent as f64;
                }
                terms.loss = terms.point * n as f64 + terms.prior - terms.posterior;
                terms.evaluations = self.evaluations();
            }
            Objective::Matching(config) => {
                let times = times_per_cloud(config, n);
                let context = repeat_rows(&z, times)?;
                let point = config.point.loss(&*self.point.field, &rows, Some(&context), b * times, rng)?;
                let latents = repeat_rows(&self.prior.whiten(&z)?, config.draws_per_latent)?;
                let prior = config.prior.loss(&*self.prior.field, &latents, None, latents.dim(0)?, rng)?;
                let divergence = divergence_from_normal(&posterior)?;
                terms.point = scalar(&point)?;
                terms.prior = scalar(&prior)?;
                terms.posterior = divergence.as_ref().map_or(Ok(0.0), scalar)?;
                terms.loss = terms.point + terms.prior + config.kl_weight * terms.posterior;
                terms.evaluations = (1, 1);
            }
        }
        Ok(terms)
    }
}

/// The largest number of times, at most the configured one, that divides the points of a cloud.
pub(crate) fn times_per_cloud(config: &MatchingConfig, points: usize) -> usize {
    (1..=config.times_per_cloud.min(points)).rev().find(|t| points.is_multiple_of(*t)).unwrap_or(1)
}

/// A reparametrised draw of the posterior; its mean where it has no variance.
pub(super) fn draw(posterior: &Posterior, rng: &mut FlowRng) -> Result<Tensor> {
    let mean = &posterior.mean;
    Ok(match &posterior.log_variance {
        None => mean.clone(),
        Some(log_variance) => {
            let noise = rng.normal(mean.shape(), mean.dtype(), mean.device())?;
            (mean + log_variance.affine(0.5, 0.0)?.exp()?.mul(&noise)?)?
        }
    })
}

/// `KL(q ‖ N(0, I))` in nats, mean over clouds.
fn divergence_from_normal(posterior: &Posterior) -> Result<Option<Tensor>> {
    let Some(log_variance) = &posterior.log_variance else { return Ok(None) };
    let inside = ((log_variance.exp()? + posterior.mean.sqr()?)? - log_variance)?.affine(0.5, -0.5)?;
    Ok(Some(inside.sum(1)?.mean_all()?))
}

fn mean(t: &Tensor) -> Result<f64> {
    scalar(&t.detach().mean_all()?)
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(t.detach().to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?)
}
