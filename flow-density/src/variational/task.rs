//! A variational fit as the training engine sees it.

use candle_core::{DType, Tensor};
use flow_core::train::{Metric, Metrics, Task};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore, Reparameterized};
use serde::Serialize;

use super::constrained::Constraint;
use super::location::Location;
use super::objective::{Divergence, Estimator};
use super::options::Objective;
use super::tails;
use super::target::{LogDensityResult, Target};
use crate::{Error, Result};

/// Samples of a validation.
const VALIDATION: usize = 2048;
/// Draws of a location from which a flow is initialised.
const LOCATED: usize = 1024;
/// The name in logs of what is made small, in nats: of a lower bound of the evidence its negative.
pub const VARIATIONAL_LOSS: &str = "loss_nats";

/// A flow that is fitted to a density; `R` is the run's description, for checkpoints.
pub struct VariationalTask<'a, Q: ?Sized, F, R> {
    q: &'a Q,
    target: Target<F>,
    objective: Objective,
    run: R,
    backprop: Backprop,
    tails: bool,
    /// The domains of the parameters, if the density is to be found first.
    domains: Option<Vec<Constraint>>,
}

impl<'a, Q, F, R> VariationalTask<'a, Q, F, R>
where
    Q: Reparameterized + ?Sized,
    F: Fn(&Tensor) -> LogDensityResult,
    R: Serialize,
{
    /// Checks the objective.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no objective.
    pub fn new(q: &'a Q, log_density: F, objective: Objective, run: R) -> Result<Self> {
        objective.check()?;
        let target = Target::new(log_density);
        Ok(VariationalTask { q, target, objective, run, backprop: Backprop::default(), tails: true, domains: None })
    }

    /// How gradients are computed; both ways give the same ones.
    #[must_use]
    pub fn backprop(mut self, mode: Backprop) -> Self {
        self.backprop = mode;
        self
    }

    /// Whether to look, before the first step, if the density falls off.
    #[must_use]
    pub fn tail_check(mut self, tails: bool) -> Self {
        self.tails = tails;
        self
    }

    /// Finds out first where the density of parameters with these domains lies, and begins there if it is not of order one.
    /// The flow has to have a layer that can be initialised for it, as one of [`constrained`](super::constrained) has.
    #[must_use]
    pub fn locate(mut self, domains: &[Constraint]) -> Self {
        self.domains = Some(domains.to_vec());
        self
    }

    /// Puts the flow where the density lies, if that was asked for and is not where it begins anyway, and looks at the density
    /// with [`probe`](Self::probe): what happens before the first step.
    ///
    /// # Errors
    /// Those of [`probe`](Self::probe) and of [`Location::find`].
    pub fn prepare(&self, rng: &mut FlowRng) -> Result<Option<Location>> {
        let mut found = None;
        if let Some(domains) = &self.domains {
            let location = Location::find(domains, self.target.function(), self.q.store(), rng)?;
            if !location.is_of_order_one() {
                self.q.initialize(&location.draws(LOCATED, self.q.store(), rng)?, None)?;
                found = Some(location);
            }
        }
        self.probe(rng)?;
        Ok(found)
    }

    /// Looks at the density at samples of the flow and far from them, before time is spent on a fit.
    ///
    /// # Errors
    /// [`Error::LogDensity`] for one that returns what cannot be used, [`Error::Improper`] for one that does not fall off.
    pub fn probe(&self, rng: &mut FlowRng) -> Result<()> {
        let x = self.q.sample(self.objective.samples.max(16), None, 1.0, rng)?;
        let values = self.target.evaluate(&x)?;
        if self.objective.divergence.refuses_zero() {
            values.refuse_zero()?;
        }
        match tails::does_not_decay(self.q, &self.target, &x)?.filter(|_| self.tails) {
            Some(coordinate) => Err(Error::Improper { coordinate }),
            None => Ok(()),
        }
    }

    /// Adds the gradient of the divergence, estimated by samples, to `gradients`; returns the estimate.
    fn differentiate(&self, factor: f64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<f64> {
        let Objective { divergence, estimator, samples, .. } = self.objective;
        let drawn = self.q.draw(samples, None, self.backprop, rng)?;
        let log_q = finite("log q of a sample", &drawn.log_prob)?;
        let values = self.target.evaluate(&drawn.x)?;
        if divergence.refuses_zero() {
            values.refuse_zero()?;
        }
        let log_weights: Vec<f64> = values.logs.iter().zip(&log_q).map(|(p, q)| factor * p - q).collect();
        let terms = divergence.terms(&log_weights, estimator);
        let like = |values: Vec<f64>| -> Result<Tensor> {
            let t = Tensor::from_vec(values, samples, &candle_core::Device::Cpu)?;
            Ok(t.to_dtype(drawn.x.dtype())?.to_device(drawn.x.device())?)
        };
        let coefficients = like(terms.coefficients)?;
        if divergence == Divergence::Forward {
            self.q.log_prob_backward(&drawn.x, None, &coefficients, self.backprop, gradients)?;
            return Ok(terms.loss);
        }
        let of_target = values.gradient(&(&coefficients * factor)?)?;
        let (grad_x, grad_log_q) = match estimator {
            Estimator::Total => (of_target, coefficients.neg()?),
            Estimator::PathDerivative => {
                // The score ∂ ln q/∂x; what the parameters add to it is left out.
                let mut unused = Gradients::new(self.q.store());
                let scored = self.q.log_prob_backward(&drawn.x, None, &coefficients, self.backprop, &mut unused)?;
                ((of_target - scored.grad_x)?, coefficients.zeros_like()?)
            }
        };
        self.q.draw_backward(drawn, &grad_x, &grad_log_q, gradients)?;
        Ok(terms.loss)
    }

    /// The estimate of the divergence by fresh samples, and the evidence lower bound.
    fn measure(&self, rng: &mut FlowRng) -> Result<Metrics> {
        let _paused = self.q.store().no_grad();
        let samples = VALIDATION.max(self.objective.samples);
        let (x, log_q) = self.q.rsample_and_log_prob(samples, None, rng)?;
        let log_q = finite("log q of a sample", &log_q)?;
        let log_p = self.target.evaluate(&x)?.logs;
        let log_weights: Vec<f64> = log_p.iter().zip(&log_q).map(|(p, q)| p - q).collect();
        let loss = self.objective.divergence.terms(&log_weights, Estimator::Total).loss;
        let elbo = log_weights.iter().sum::<f64>() / samples as f64;
        Ok(Metrics::new(loss_of(loss)).with(Metric::new("elbo_nats", "nats", elbo)))
    }
}

fn loss_of(value: f64) -> Metric {
    Metric::new(VARIATIONAL_LOSS, "nats", value)
}

/// Values that must be numbers; a step that meets others is skipped and counted.
fn finite(what: &str, t: &Tensor) -> Result<Vec<f64>> {
    let values = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(flow_core::Error::NonFinite { layer: "flow".into(), what: what.into(), step: None }.into()),
    }
}

impl<Q, F, R> Task for VariationalTask<'_, Q, F, R>
where
    Q: Reparameterized + ?Sized,
    F: Fn(&Tensor) -> LogDensityResult,
    R: Serialize,
{
    type Run = R;
    /// Samples are drawn, from the run's generator.
    type Position = ();
    type Error = Error;

    fn store(&self) -> &ParamStore {
        self.q.store()
    }

    fn run(&self) -> &R {
        &self.run
    }

    /// Nothing is initialised from data, but from where the density lies.
    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        self.q.set_training(true);
        self.prepare(rng).map(drop)
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        self.q.set_training(true);
        self.q.set_noise(rng);
        let factor = self.objective.annealing.map_or(1.0, |annealing| annealing.factor(step));
        Ok(Metrics::new(loss_of(self.differentiate(factor, rng, gradients)?)))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        self.q.set_training(false);
        self.measure(rng)
    }

    fn position(&self) {}

    fn restore(&mut self, (): ()) -> Result<()> {
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.objective.samples
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
