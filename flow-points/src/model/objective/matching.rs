//! Flow matching: the same fields without a solver in training.

use candle_core::{Tensor, Var};
use flow_core::autodiff::gradient_or_zero;
use flow_core::cnf::matching::{FlowMatching, Pairing, TimeSampling, repeat_rows};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{CnfConfig, Divergence, Probe};
use flow_core::train::{EmaConfig, OptimizerConfig, Ranks, ScheduleConfig, TrainConfig};
use flow_core::{FlowRng, Gradients, Share};
use serde::{Deserialize, Serialize};

use super::{Batch, Criterion, Nature, Part, Parts, Samplers, Term, Terms, draw, scalar};
use crate::model::block::Norms;
use crate::model::encoder::Posterior;
use crate::model::point_flow::PointFlow;
use crate::{Error, Result};

/// The name of the error of latents.
pub(crate) const PRIOR_ERROR: &str = "prior_error";

/// Training by flow matching (Lipman et al. 2023): mean squared velocity errors of points given a draw of the posterior,
/// and of that draw, plus the weighed divergence of the posterior from the standard normal.
///
/// | term | |
/// |---|---|
/// | `matching_loss` | what is minimised |
/// | `point_error` | squared velocity error of a coordinate; decides which checkpoint is best |
/// | `prior_error` | squared velocity error of a latent's entry |
/// | `kl_nats` | divergence of a posterior from the standard normal |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MatchingConfig {
    /// The matching of points.
    pub point: FlowMatching,
    /// The matching of latents.
    pub prior: FlowMatching,
    /// Different times within one cloud and step: each costs one evaluation of gates and lowers the variance.
    pub times_per_cloud: usize,
    /// Draws of time and noise for each latent and step.
    pub draws_per_latent: usize,
    /// Weight of the Kullback–Leibler divergence of a posterior from the standard normal, in nats per cloud,
    /// against the mean squared velocity error of a coordinate.
    pub kl_weight: f64,
    /// The solver of likelihoods.
    pub solver: SolveOptions,
    /// The solver of samples.
    pub sampler: SolveOptions,
    /// Whether the networks return what is left of the velocity after the linear guess for normal data
    /// ([`Preconditioned`](flow_core::cnf::Preconditioned)).
    #[serde(default)]
    pub preconditioned: bool,
    /// Another one for points than for latents, where the paths of points were straightened.
    #[serde(default)]
    pub point_sampler: Option<SolveOptions>,
    /// Whether the flow of points was distilled into one step: it draws clouds but has no density of points.
    #[serde(default)]
    pub distilled: bool,
}

impl MatchingConfig {
    /// Preconditioned fields, times nearer to the data, where noise on a surface is decided, four times as many draws
    /// for the flow of latents, which are cheap, and a third of the default's pull on posteriors.
    pub fn embedded() -> Self {
        let mut config =
            MatchingConfig { draws_per_latent: 32, kl_weight: 3e-5, preconditioned: true, ..MatchingConfig::default() };
        config.point.times = TimeSampling::LogitNormal { mean: -0.8, std: 1.4 };
        config
    }

    /// The largest number of times, at most the configured one, that divides the points of a cloud.
    pub(crate) fn times_for(&self, points: usize) -> usize {
        (1..=self.times_per_cloud.min(points)).rev().find(|t| points.is_multiple_of(*t)).unwrap_or(1)
    }

    /// A flow of this objective; `linear_end` is the end time of the linear guess of its field.
    fn part(&self, divergence: Divergence, norms: Norms, matching: &FlowMatching) -> Part {
        let cnf = CnfConfig::new(self.solver.clone()).divergence(divergence);
        Part { cnf, norms, linear_end: self.preconditioned.then_some(matching.end_time) }
    }

    /// Velocity errors of points given a draw of the posterior, and of that draw; the latter does not move the encoder,
    /// or shrinking all latents would be the cheapest way to match them.
    fn errors(
        &self,
        model: &PointFlow,
        posterior: &Posterior,
        &Batch { clouds, plain, ranks, .. }: &Batch<'_>,
        rng: &mut FlowRng,
    ) -> Result<[Tensor; 2]> {
        let (b, n, _) = clouds.dims3()?;
        let z = draw(posterior, rng)?;
        // Whitened with those of all ranks, which move the statistics alike everywhere.
        let all = ranks.gather_rows(&z.detach().narrow(0, 0, plain.count)?.contiguous()?)?;
        let white = {
            let _apart = model.store().apart();
            model.prior.whiten(&all)?.detach()
        };
        let times = self.times_for(n);
        let context = repeat_rows(&z, times)?;
        let rows = clouds.reshape((b * n, 3))?;
        let point = self.point.loss(&*model.point.field, &rows, Some(&context), b * times, rng)?;
        if plain.is_empty() {
            let nothing = point.detach().affine(0.0, 0.0)?;
            return Ok([point, nothing]);
        }
        let own = white.narrow(0, if ranks.count() == 1 { 0 } else { plain.first }, plain.count)?;
        let latents = repeat_rows(&own, self.draws_per_latent)?;
        let count = latents.dim(0)?;
        let loss = |rng: &mut FlowRng| self.prior.loss(&*model.prior.field, &latents, None, count, rng);
        let prior = rng.at_rows(plain, loss)?;
        Ok([point, prior])
    }

    fn terms(&self, loss: f64, point: f64, prior: f64, divergence: f64) -> Terms {
        let parts = [("point_error", "", point), (PRIOR_ERROR, "", prior), ("kl_nats", "nats", divergence)];
        Terms {
            loss: Term::new(self.nature().metric, self.nature().unit, loss),
            parts: parts.map(|(name, unit, value)| Term::new(name, unit, value)).to_vec(),
            costs: Vec::new(),
        }
    }
}

impl Default for MatchingConfig {
    fn default() -> Self {
        let matching = |coupling| FlowMatching::new(coupling).times(TimeSampling::Stratified);
        MatchingConfig {
            point: matching(Pairing::Independent),
            prior: matching(Pairing::Independent),
            times_per_cloud: 8,
            draws_per_latent: 8,
            kl_weight: 1e-4,
            solver: SolveOptions::default(),
            sampler: SolveOptions::new(Method::Heun, Stepping::fixed(20)),
            preconditioned: false,
            point_sampler: None,
            distilled: false,
        }
    }
}

impl Criterion for MatchingConfig {
    /// The error of latents is no judge of checkpoints: what is whitened moves with the encoder, and the fewer of its
    /// entries carry noise alone, the larger the error.
    fn nature(&self) -> Nature {
        Nature {
            metric: "matching_loss",
            unit: "squared velocity error",
            decides: "point_error",
            always_trains_prior: true,
            takes_warped: true,
            has_paths: !self.distilled,
        }
    }

    fn check(&self) -> Result<()> {
        for (name, value) in [("times_per_cloud", self.times_per_cloud), ("draws_per_latent", self.draws_per_latent)] {
            if value == 0 {
                return Err(Error::config(name, "is 0, must be at least 1"));
            }
        }
        if !(self.kl_weight >= 0.0 && self.kl_weight.is_finite()) {
            return Err(Error::config("kl_weight", format!("is {}, must be a finite number ≥ 0", self.kl_weight)));
        }
        self.solver.check()?;
        self.sampler.check()?;
        self.point_sampler.as_ref().map(SolveOptions::check).transpose()?;
        Ok(())
    }

    fn parts(&self) -> Parts {
        // A latent has too many dimensions for the exact trace.
        let estimate = Divergence::Hutchinson(Probe::Rademacher);
        Parts {
            point: self.part(Divergence::Exact, Norms::None, &self.point),
            prior: self.part(estimate, Norms::Before, &self.prior),
        }
    }

    fn samplers(&self) -> Samplers<'_> {
        Samplers { latents: &self.sampler, points: self.point_sampler.as_ref().unwrap_or(&self.sampler) }
    }

    /// Adam at 4e-3 with warm-up, cosine decay and averaged weights.
    fn engine(&self, steps: u64) -> TrainConfig {
        TrainConfig {
            steps,
            optimizer: OptimizerConfig::adam(4e-3),
            schedule: ScheduleConfig::cosine((steps / 20).min(200), 0.01),
            clip_norm: Some(1.0),
            ema: Some(EmaConfig { decay: 0.999 }),
            ..TrainConfig::default()
        }
    }

    fn backward(
        &self,
        model: &PointFlow,
        batch: &Batch<'_>,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        let posterior = model.encoder.forward(batch.clouds)?;
        let [point, prior] = self.errors(model, &posterior, batch, rng)?;
        // The mean of ranks counts clouds, that of latents plain clouds.
        let part = |share: Share| share.count as f64 / share.of.max(1) as f64;
        let mut total = (&point + prior.affine(part(batch.plain) / part(batch.share), 0.0)?)?;
        let mut nats = 0.0;
        if let Some(divergence) = divergence_from_normal(&posterior)? {
            nats = scalar(&divergence)?;
            total = (total + divergence.affine(self.kl_weight, 0.0)?)?;
        }
        gradients.accumulate(&total.backward()?)?;
        Ok(self.terms(scalar(&total)?, scalar(&point)?, scalar(&prior)?, nats))
    }

    fn evaluate(&self, model: &PointFlow, clouds: &Tensor, rng: &mut FlowRng) -> Result<Terms> {
        let posterior = model.encoder.forward(clouds)?;
        let share = rng.share_of(clouds.dim(0)?);
        let batch = Batch { clouds, share, plain: share, ranks: &Ranks::alone() };
        let [point, prior] = self.errors(model, &posterior, &batch, rng)?;
        let nats = divergence_from_normal(&posterior)?.as_ref().map_or(Ok(0.0), scalar)?;
        let (point, prior) = (scalar(&point)?, scalar(&prior)?);
        Ok(self.terms(point + prior + self.kl_weight * nats, point, prior, nats))
    }

    /// The squared velocity error of a coordinate.
    fn explain(
        &self,
        model: &PointFlow,
        points: &Tensor,
        latents: &Tensor,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, Tensor)> {
        let _paused = model.store.no_grad();
        let (starts, count) = (latents.dim(0)?, points.dim(0)?);
        let z = Var::from_tensor(latents)?;
        let times = self.times_for(count / starts);
        let context = repeat_rows(z.as_tensor(), times)?;
        let losses = self.point.group_losses(&*model.point.field, points, Some(&context), starts * times, rng)?;
        let losses = losses.reshape((starts, times))?.mean(1)?;
        let grads = losses.sum_all()?.backward()?;
        Ok((losses.detach(), gradient_or_zero(&grads, &z)?))
    }
}

/// `KL(q ‖ N(0, I))` in nats, mean over clouds.
fn divergence_from_normal(posterior: &Posterior) -> Result<Option<Tensor>> {
    let Some(log_variance) = &posterior.log_variance else { return Ok(None) };
    let inside = ((log_variance.exp()? + posterior.mean.sqr()?)? - log_variance)?.affine(0.5, -0.5)?;
    Ok(Some(inside.sum(1)?.mean_all()?))
}
