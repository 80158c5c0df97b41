//! The paper's objective: the evidence lower bound, through the solver.

use candle_core::Tensor;
use flow_core::autodiff::{add_optional, pair};
use flow_core::cnf::ode::SolveOptions;
use flow_core::cnf::{CnfConfig, Divergence, EndTime, OdeGradient, Probe, Regularization};
use flow_core::layers::MovingStatistics;
use flow_core::numerics::host;
use flow_core::train::{OptimizerConfig, ScheduleConfig, TrainConfig};
use flow_core::{Backprop, Density, FlowRng, Gradients};
use serde::{Deserialize, Serialize};

use super::{Batch, Criterion, Nature, Part, Parts, Samplers, Term, Terms, draw, mean};
use crate::Result;
use crate::model::block::Norms;
use crate::model::point_flow::PointFlow;

/// `ln √(2π)` and one half: the entropy of a standard normal number.
const NORMAL_ENTROPY: f64 = 1.418_938_533_204_672_7;

/// Training by likelihood: `−E[log p(X|z)] − E[log p(z)] − H[q(z|X)]` in nats per cloud, the latter two for a variational
/// model only (Yang et al. 2019, eq. 9), with the Gaussian constants of every dimension counted once.
///
/// | term | |
/// |---|---|
/// | `nats_per_cloud` | what is minimised |
/// | `point_nats` | `−log p(x \| z)` of a point |
/// | `prior_nats` | `−log p(z)` |
/// | `entropy_nats` | entropy of the posterior |
/// | `point_evaluations`, `prior_evaluations` | evaluations of the two fields in one direction |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LikelihoodConfig {
    /// The solver, in training and evaluation.
    pub solver: SolveOptions,
    /// The divergence of the field of points.
    pub point_divergence: Divergence,
    /// The divergence of the field of latents.
    pub prior_divergence: Divergence,
    /// How gradients pass the solver.
    pub gradient: OdeGradient,
    /// The end of the integration.
    pub end_time: EndTime,
    /// Penalties on the point flow's path; zero in the paper.
    pub regularization: Regularization,
    /// The statistics of the point flow's moving batch normalizations; the reference implementation mixes the axes.
    pub statistics: MovingStatistics,
}

impl LikelihoodConfig {
    /// The paper's: dopri5 at 1e-5, Gaussian probes, a learned end time that starts at one half. The reference
    /// differentiates by the adjoint equation; here the default is the exact gradient of the steps taken.
    pub fn paper() -> Self {
        LikelihoodConfig {
            solver: SolveOptions::default(),
            point_divergence: Divergence::Hutchinson(Probe::Gaussian),
            prior_divergence: Divergence::Hutchinson(Probe::Gaussian),
            gradient: OdeGradient::Direct,
            end_time: EndTime::Learned { initial: 0.5 },
            regularization: Regularization::default(),
            statistics: MovingStatistics::PerAxis,
        }
    }

    fn part(&self, divergence: Divergence, regularization: Regularization, statistics: MovingStatistics) -> Part {
        let cnf = CnfConfig::new(self.solver.clone())
            .divergence(divergence)
            .gradient(self.gradient.clone())
            .end_time(self.end_time)
            .regularization(regularization);
        Part { cnf, norms: Norms::Both(statistics), linear_end: None }
    }

    /// The terms of clouds of `size` points: of a point, and of latent and posterior of a variational model.
    fn terms(&self, model: &PointFlow, size: usize, point: f64, [prior, entropy]: [f64; 2]) -> Terms {
        let loss = Term::new(self.nature().metric, self.nature().unit, point * size as f64 + prior - entropy);
        let parts = [("point_nats", point), ("prior_nats", prior), ("entropy_nats", entropy)];
        let (points, latents) = model.evaluations();
        let costs = [("point_evaluations", points), ("prior_evaluations", latents)];
        Terms {
            loss,
            parts: parts.map(|(name, value)| Term::new(name, "nats", value)).to_vec(),
            costs: costs.map(|(name, count)| Term::new(name, "", count as f64)).to_vec(),
        }
    }
}

impl Criterion for LikelihoodConfig {
    fn nature(&self) -> Nature {
        Nature {
            metric: "nats_per_cloud",
            unit: "nats/cloud",
            decides: "nats_per_cloud",
            always_trains_prior: false,
            takes_warped: false,
            has_paths: true,
        }
    }

    fn check(&self) -> Result<()> {
        Ok(self.solver.check()?)
    }

    fn parts(&self) -> Parts {
        Parts {
            point: self.part(self.point_divergence, self.regularization, self.statistics),
            prior: self.part(self.prior_divergence, Regularization::default(), MovingStatistics::PerAxis),
        }
    }

    fn samplers(&self) -> Samplers<'_> {
        Samplers { latents: &self.solver, points: &self.solver }
    }

    /// The paper's Adam at 2e-3, constant for half of the run and then falling linearly to zero.
    fn engine(&self, steps: u64) -> TrainConfig {
        TrainConfig {
            steps,
            optimizer: OptimizerConfig::adam(2e-3),
            schedule: ScheduleConfig::linear(0, 0.5),
            clip_norm: None,
            ema: None,
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
        let clouds = batch.clouds;
        let (b, n, _) = clouds.dims3()?;
        model.set_noise(rng);
        let posterior = model.encoder.forward(clouds)?;
        let z = draw(&posterior, rng)?;
        let fixed = z.detach();
        let weight = |rows: usize| host::full(-1.0 / b as f64, rows, z.dtype(), z.device());
        let rows = clouds.reshape((b * n, 3))?;
        let points = model.point.flow.log_prob_backward(
            &rows,
            Some(&fixed),
            &weight(b * n)?,
            Backprop::Reversible,
            gradients,
        )?;
        let point = -mean(&points.log_prob)?;
        let mut of_latent = [0.0; 2];
        let mut cotangent = points.grad_context;
        if let Some(log_variance) = &posterior.log_variance {
            let latents =
                model.prior.flow.log_prob_backward(&fixed, None, &weight(b)?, Backprop::Reversible, gradients)?;
            let entropy = log_variance.detach().sum(1)?.affine(0.5, NORMAL_ENTROPY * model.config.latent as f64)?;
            of_latent = [-mean(&latents.log_prob)?, mean(&entropy)?];
            cotangent = add_optional(cotangent, Some(latents.grad_x))?;
        }
        let terms = self.terms(model, n, point, of_latent);
        let Some(cotangent) = cotangent else { return Ok(terms) };
        let mut below = pair(&z, &cotangent)?;
        if let Some(log_variance) = &posterior.log_variance {
            below = (below - log_variance.sum_all()?.affine(0.5 / b as f64, 0.0)?)?;
        }
        gradients.accumulate(&below.backward()?)?;
        Ok(terms)
    }

    fn evaluate(&self, model: &PointFlow, clouds: &Tensor, rng: &mut FlowRng) -> Result<Terms> {
        let (b, n, _) = clouds.dims3()?;
        let posterior = model.encoder.forward(clouds)?;
        let z = draw(&posterior, rng)?;
        model.set_noise(rng);
        let point = -mean(&model.point.flow.log_prob(&clouds.reshape((b * n, 3))?, Some(&z))?)?;
        let mut of_latent = [0.0; 2];
        if let Some(log_variance) = &posterior.log_variance {
            let entropy = 0.5 * mean(&log_variance.sum(1)?)? + NORMAL_ENTROPY * model.config.latent as f64;
            of_latent = [-mean(&model.prior.flow.log_prob(&z, None)?)?, entropy];
        }
        Ok(self.terms(model, n, point, of_latent))
    }

    /// Nats of a point.
    fn explain(
        &self,
        model: &PointFlow,
        points: &Tensor,
        latents: &Tensor,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, Tensor)> {
        model.set_noise(rng);
        let (starts, count) = (latents.dim(0)?, points.dim(0)?);
        let each = count / starts;
        let weight = host::full(-1.0 / each as f64, count, points.dtype(), points.device())?;
        // The parameters' gradients are not wanted.
        let mut unused = Gradients::new(&model.store);
        let scored =
            model.point.flow.log_prob_backward(points, Some(latents), &weight, Backprop::Reversible, &mut unused)?;
        let values = scored.log_prob.reshape((starts, each))?.mean(1)?.neg()?;
        Ok((values, scored.grad_context.map_or_else(|| latents.zeros_like(), Ok)?))
    }
}
