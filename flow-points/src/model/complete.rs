//! Completion of partial clouds: the latent under which the points at hand are likeliest.

use candle_core::Tensor;
use flow_core::cnf::matching::repeat_rows;
use flow_core::train::{Optimizer, OptimizerConfig};
use flow_core::{Density, FlowRng, Gradients, ParamStore, reversible::Backprop};

use super::config::Objective;
use super::objective::times_per_cloud;
use super::point_flow::{Draw, PointFlow};
use crate::{Error, Result};

/// How a latent is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CompleteOptions {
    /// Searches run side by side: one starts at the encoder's answer for the partial cloud, the others at draws from
    /// the prior. The best one wins.
    pub starts: usize,
    /// Steps of Adam.
    pub steps: u64,
    /// Learning rate, falling to zero over the search.
    pub learning_rate: f64,
    /// Weight of `½·|w|²/Z`, where `w` is the latent whitened by the training latents' moments: how unusual a latent
    /// may be.
    pub prior_weight: f64,
}

impl Default for CompleteOptions {
    fn default() -> Self {
        CompleteOptions { starts: 8, steps: 150, learning_rate: 0.05, prior_weight: 0.01 }
    }
}

impl PointFlow {
    /// The latent `(1, Z)` that explains the points `(M, 3)` best, and its objective: the negative log-likelihood in
    /// nats per point, or the velocity error of a model trained by flow matching, plus the weighed prior.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for options outside their range or for a model without a trained prior;
    /// [`flow_core::Error::Shape`] unless `partial` is `(M, 3)`.
    pub fn complete(&self, partial: &Tensor, options: &CompleteOptions, rng: &mut FlowRng) -> Result<(Tensor, f64)> {
        if options.starts == 0 || options.steps == 0 {
            return Err(Error::config("completion", "needs at least one start and one step"));
        }
        self.check_paths()?;
        flow_core::bijector::check_batch("partial cloud", partial, &[3])?;
        let first = {
            let _paused = self.store.no_grad();
            self.posterior(&partial.unsqueeze(0)?)?.mean
        };
        let start = match options.starts {
            1 => first,
            more => Tensor::cat(&[first, self.sample_latents(more - 1, &Draw::default(), rng)?], 0)?,
        };
        let search = ParamStore::new(0, start.dtype(), start.device());
        let latents = search.root().param_from("latents", &start)?;
        let mut adam = Optimizer::new(OptimizerConfig::adam(options.learning_rate), &search)?;
        let points = self.tiled(partial, options.starts)?;
        for step in 0..options.steps {
            let mut gradients = Gradients::new(&search);
            let (_, grad) = self.explain(&points, &latents.tensor().detach(), options, rng)?;
            gradients.add(&latents, &grad)?;
            adam.step(&gradients, 1.0 - step as f64 / options.steps as f64)?;
        }
        self.best(&points, &latents.tensor().detach(), options, rng)
    }

    /// The points of every start, `(starts·M, 3)`.
    fn tiled(&self, partial: &Tensor, starts: usize) -> Result<Tensor> {
        Ok(partial.unsqueeze(0)?.repeat((starts, 1, 1))?.reshape((starts * partial.dim(0)?, 3))?)
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
            let (values, _) = self.explain(points, latents, options, rng)?;
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
        options: &CompleteOptions,
        rng: &mut FlowRng,
    ) -> Result<(Vec<f64>, Tensor)> {
        let starts = latents.dim(0)?;
        let z = candle_core::Var::from_tensor(latents)?;
        let (values, grad) = match &self.config.objective {
            Objective::Matching(config) => {
                let _paused = self.store.no_grad();
                let per_start = points.dim(0)? / starts;
                let times = times_per_cloud(config, per_start);
                let context = repeat_rows(z.as_tensor(), times)?;
                let losses =
                    config.point.group_losses(&*self.point.field, points, Some(&context), starts * times, rng)?;
                let losses = losses.reshape((starts, times))?.mean(1)?;
                let grads = losses.sum_all()?.backward()?;
                (losses.detach(), flow_core::reversible::gradient_or_zero(&grads, &z)?)
            }
            Objective::Likelihood(_) => {
                self.set_noise(rng);
                let per_start = points.dim(0)? / starts;
                let weight = Tensor::full(-1.0 / per_start as f64, points.dim(0)?, points.device())?;
                // The parameters' gradients are not wanted.
                let mut unused = Gradients::new(&self.store);
                let scored = self.point.flow.log_prob_backward(
                    points,
                    Some(latents),
                    &weight.to_dtype(points.dtype())?,
                    Backprop::Reversible,
                    &mut unused,
                )?;
                let values = scored.log_prob.reshape((starts, per_start))?.mean(1)?.neg()?;
                (values, scored.grad_context.map_or_else(|| latents.zeros_like(), Ok)?)
            }
        };
        let unusual = self.prior.whiten(z.as_tensor())?.sqr()?.mean(1)?.affine(0.5 * options.prior_weight, 0.0)?;
        let pull = flow_core::reversible::gradient_or_zero(&unusual.sum_all()?.backward()?, &z)?;
        let values = (values + unusual.detach())?.to_dtype(candle_core::DType::F64)?.to_vec1()?;
        Ok((values, (grad + pull)?))
    }
}
