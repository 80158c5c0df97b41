//! Search for latents: the one under which the points at hand are likeliest, of part of a shape or of all of it.

use candle_core::{Tensor, Var};
use flow_core::autodiff::gradient_or_zero;
use flow_core::numerics::host;
use flow_core::train::{Optimizer, OptimizerConfig};
use flow_core::{FlowRng, Gradients, ParamStore};

use super::point_flow::{Draw, PointFlow};
use crate::{Error, Result};

/// How latents are searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SearchOptions {
    /// Steps of Adam.
    pub steps: u64,
    /// Learning rate, falling to zero over the search.
    pub learning_rate: f64,
    /// Weight of `½·|w|²/Z`, where `w` is the latent whitened by the training latents' moments: how unusual a latent
    /// may be.
    pub prior_weight: f64,
    /// Points that a step looks at, drawn anew for every step, at the same places of all clouds; all if there are no more.
    pub points: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions { steps: 150, learning_rate: 0.05, prior_weight: 0.01, points: 2048 }
    }
}

/// How a partial cloud is completed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CompleteOptions {
    /// Searches run side by side: one starts at the encoder's latent for the partial cloud, the others at draws from
    /// the prior. The best one wins.
    pub starts: usize,
    /// Each of them.
    pub search: SearchOptions,
}

impl Default for CompleteOptions {
    fn default() -> Self {
        CompleteOptions { starts: 8, search: SearchOptions::default() }
    }
}

impl PointFlow {
    /// The latent `(1, Z)` that explains the points `(M, 3)` best, and its objective: the negative log-likelihood in
    /// nats per point, or the velocity error of a model trained by flow matching, plus the weighed prior.
    ///
    /// `first`, `(1, Z)`, is where one of the searches starts: an encoder's latent for the partial cloud.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for options outside their range, a distilled model and, with several starts, a model
    /// without a trained prior; [`flow_core::Error::Shape`] unless `partial` is `(M, 3)` and `first` `(1, Z)`.
    pub fn complete(
        &self,
        partial: &Tensor,
        first: &Tensor,
        options: &CompleteOptions,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, f64)> {
        if options.starts == 0 {
            return Err(Error::config("completion", "needs at least one start"));
        }
        self.check_paths()?;
        flow_core::bijector::check_batch("partial cloud", partial, &[3])?;
        if first.dims() != [1, self.config.latent] {
            return Err(misshapen("first latent", format!("(1, {})", self.config.latent), first));
        }
        let start = match options.starts {
            1 => first.clone(),
            more => Tensor::cat(&[first, &self.sample_latents(more - 1, &Draw::default(), rng)?], 0)?,
        };
        let points = partial.unsqueeze(0)?.repeat((options.starts, 1, 1))?;
        let latents = self.refine(&points, &start, &options.search, rng)?;
        self.best(&points.flatten(0, 1)?, &latents, options, rng)
    }

    /// The latents `(B, Z)` from a search that starts at `start` and goes where the clouds `(B, M, 3)` are likelier, each by
    /// itself: an encoder is quick, but its latent is not the best one for a cloud that it was not trained on (the gap of
    /// amortization, Cremer et al. 2018, arXiv 1801.03558).
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for options outside their range or a distilled model,
    /// [`flow_core::Error::Shape`] for other shapes.
    pub fn refine(
        &self,
        clouds: &Tensor,
        start: &Tensor,
        options: &SearchOptions,
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        if options.steps == 0 || options.points == 0 {
            return Err(Error::config("search for latents", "needs at least one step and one point"));
        }
        self.check_paths()?;
        let count = flow_core::bijector::check_batch("latents", start, &[self.config.latent])?;
        let size = match *clouds.dims() {
            [clouds, size, 3] if clouds == count && size > 0 => size,
            _ => return Err(misshapen("clouds", format!("({count}, points, 3)"), clouds)),
        };
        let search = ParamStore::new(0, start.dtype(), start.device());
        let latents = search.root().param_from("latents", start)?;
        let mut adam = Optimizer::new(OptimizerConfig::adam(options.learning_rate), &search)?;
        for step in 0..options.steps {
            let seen = match options.points {
                points if points < size => {
                    let mut order = rng.permutation(size);
                    order.truncate(points);
                    let order: Vec<u32> = order.into_iter().map(|i| i as u32).collect();
                    clouds.index_select(&Tensor::new(order, clouds.device())?, 1)?
                }
                _ => clouds.clone(),
            };
            let points = seen.reshape((count * seen.dim(1)?, 3))?;
            let mut gradients = Gradients::new(&search);
            let (_, grad) = self.explain(&points, &latents.tensor().detach(), options.prior_weight, rng)?;
            gradients.add(&latents, &grad)?;
            adam.step(&gradients, 1.0 - step as f64 / options.steps as f64)?;
        }
        Ok(latents.tensor().detach())
    }

    /// The start whose objective, averaged over several draws of noise, is lowest.
    fn best(
        &self,
        points: &Tensor,
        latents: &Tensor,
        options: &CompleteOptions,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, f64)> {
        const DRAWS: usize = 16;
        let mut sum = vec![0.0; options.starts];
        for _ in 0..DRAWS {
            let (values, _) = self.explain(points, latents, options.search.prior_weight, rng)?;
            sum.iter_mut().zip(values).for_each(|(s, v)| *s += v / DRAWS as f64);
        }
        let best = (0..sum.len()).min_by(|&a, &b| sum[a].total_cmp(&sum[b])).unwrap_or(0);
        Ok((latents.narrow(0, best, 1)?.contiguous()?, sum[best]))
    }

    /// The objective of every start and the gradient of their sum with respect to the latents.
    pub(super) fn explain(
        &self,
        points: &Tensor,
        latents: &Tensor,
        prior_weight: f64,
        rng: &mut FlowRng,
    ) -> Result<(Vec<f64>, Tensor)> {
        let (values, grad) = self.criterion().explain(self, points, latents, rng)?;
        let z = Var::from_tensor(latents)?;
        let unusual = self.prior.whiten(z.as_tensor())?.sqr()?.mean(1)?.affine(0.5 * prior_weight, 0.0)?;
        let pull = gradient_or_zero(&unusual.sum_all()?.backward()?, &z)?;
        let values = host::numbers(&(values + unusual.detach())?)?;
        Ok((values, (grad + pull)?))
    }
}

fn misshapen(what: &str, expected: String, found: &Tensor) -> Error {
    flow_core::Error::Shape { layer: what.into(), expected, actual: found.dims().to_vec() }.into()
}
