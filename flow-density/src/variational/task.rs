//! A variational fit as the training engine sees it.

use candle_core::Tensor;
use flow_core::numerics::host;
use flow_core::train::{Metric, Metrics, Ranks, Task};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore, Reparameterized, Share};
use serde::Serialize;

use super::constrained::Constraint;
use super::location::Location;
use super::objective::{Divergence, Estimator, Terms};
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
    ranks: Ranks,
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
        let (backprop, ranks) = (Backprop::default(), Ranks::alone());
        Ok(VariationalTask { q, target, objective, run, backprop, tails: true, ranks, domains: None })
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
            if let Some(location) = location.filter(|location| !location.is_of_order_one()) {
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

    /// The estimate from the log-weights of this rank's share of samples, with their coefficients in its own mean. `None`
    /// are weights that could not be computed: a divergence that compares samples hears of those of other ranks, which all
    /// have to say theirs.
    fn terms(&self, log_weights: Option<&[f64]>, share: Share) -> Result<Terms> {
        let Objective { divergence, estimator, .. } = self.objective;
        let missing = vec![f64::NAN; share.count];
        let own = log_weights.unwrap_or(&missing);
        if divergence == Divergence::Reverse {
            return Ok(divergence.terms(own, estimator));
        }
        let all = self.ranks.gather(own)?;
        if all.iter().any(|weight| weight.is_nan()) {
            let what = "log-weight of a sample".into();
            return Err(flow_core::Error::NonFinite { layer: "flow".into(), what, step: None }.into());
        }
        let Terms { loss, coefficients } = divergence.terms(&all, estimator);
        // The engine takes the mean over samples of what each rank has the mean of.
        let scale = share.of as f64 / share.count.max(1) as f64;
        // A share of as many rows as there are coefficients lies within them.
        let own = coefficients.get(share.range()).unwrap_or_default();
        Ok(Terms { loss, coefficients: own.iter().map(|c| c * scale).collect() })
    }

    /// Adds the gradient of the divergence, estimated by a share of samples, to `gradients`; returns the estimate.
    fn differentiate(
        &self,
        factor: f64,
        share: Share,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Metrics> {
        let Objective { divergence, estimator, .. } = self.objective;
        let weigh = || -> Result<_> {
            let drawn = self.q.draw(share.count, None, self.backprop, rng)?;
            let log_q = finite("log q of a sample", &drawn.log_prob)?;
            let values = self.target.evaluate(&drawn.x)?;
            if divergence.refuses_zero() {
                values.refuse_zero()?;
            }
            let log_weights: Vec<f64> = values.logs.iter().zip(&log_q).map(|(p, q)| factor * p - q).collect();
            Ok((drawn, values, log_weights))
        };
        let weighed = (!share.is_empty()).then(weigh).transpose();
        let terms = self.terms(weighed.as_ref().ok().map(|own| own.as_ref().map_or(&[][..], |own| &own.2)), share);
        // What failed here comes before what came of it elsewhere.
        let Some((drawn, values, _)) = weighed? else { return terms.map(|_| Metrics::of_nothing()) };
        gradients.weigh(share.count as f64);
        let terms = terms?;
        let metrics = Metrics::new(loss_of(terms.loss)).over(share.count as f64);
        let like = |values: Vec<f64>| -> Result<Tensor> {
            let t = Tensor::from_vec(values, share.count, &candle_core::Device::Cpu)?;
            Ok(t.to_dtype(drawn.x.dtype())?.to_device(drawn.x.device())?)
        };
        let coefficients = like(terms.coefficients)?;
        if divergence == Divergence::Forward {
            self.q.log_prob_backward(&drawn.x, None, &coefficients, self.backprop, gradients)?;
            return Ok(metrics);
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
        Ok(metrics)
    }

    /// The estimate of the divergence by fresh samples, and the evidence lower bound.
    fn measure(&self, rng: &mut FlowRng) -> Result<Metrics> {
        let _paused = self.q.store().no_grad();
        let samples = VALIDATION.max(self.objective.samples);
        let share = self.ranks.share(samples);
        let rng = &mut rng.for_rows(share);
        self.q.set_noise(rng);
        let mut weigh = || -> Result<Vec<f64>> {
            let (x, log_q) = self.q.rsample_and_log_prob(share.count, None, rng)?;
            let log_q = finite("log q of a sample", &log_q)?;
            let log_p = self.target.evaluate(&x)?.logs;
            Ok(log_p.iter().zip(&log_q).map(|(p, q)| p - q).collect())
        };
        let own = if share.is_empty() { Ok(Vec::new()) } else { weigh() };
        // All ranks say what they have, also one that has failed.
        let log_weights = self.ranks.gather(own.as_deref().unwrap_or_default())?;
        own?;
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
    let values = host::numbers(t)?;
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

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let share = self.ranks.share(self.objective.samples);
        let rng = &mut rng.for_rows(share);
        self.q.set_training(true);
        self.q.set_noise(rng);
        let factor = self.objective.annealing.map_or(1.0, |annealing| annealing.factor(step));
        self.differentiate(factor, share, rng, gradients)
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
