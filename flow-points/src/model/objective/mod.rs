//! How the two fields are trained: by likelihood through the solver, or by flow matching.
//!
//! [`Objective`] is the configuration. What an objective computes, and what the rest of the crate asks about it, is
//! [`Criterion`]: one more objective is one more file here, one variant and one arm in [`Objective::criterion`].

mod likelihood;
mod matching;
mod terms;

use candle_core::Tensor;
use flow_core::cnf::CnfConfig;
use flow_core::cnf::ode::SolveOptions;
use flow_core::numerics::host;
use flow_core::train::{Ranks, TrainConfig};
use flow_core::{FlowRng, Gradients, Share};
use serde::{Deserialize, Serialize};

pub use likelihood::LikelihoodConfig;
pub use matching::MatchingConfig;
pub(crate) use matching::PRIOR_ERROR;
pub use terms::{Term, Terms};

use super::block::Norms;
use super::encoder::Posterior;
use super::point_flow::PointFlow;
use crate::{Error, Result};

/// How the fields are trained.
#[expect(clippy::large_enum_variant, reason = "a model has one")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Objective {
    /// By likelihood through the solver: the paper's evidence lower bound.
    Likelihood(LikelihoodConfig),
    /// By flow matching (Lipman et al. 2023): the same fields without a solver in training.
    Matching(MatchingConfig),
}

impl Objective {
    /// What this objective does: the one place that tells them apart.
    pub(super) fn criterion(&self) -> &dyn Criterion {
        match self {
            Objective::Likelihood(config) => config,
            Objective::Matching(config) => config,
        }
    }

    /// The metric that training minimises.
    pub fn metric(&self) -> &'static str {
        self.criterion().nature().metric
    }

    /// Its unit.
    pub fn unit(&self) -> &'static str {
        self.criterion().nature().unit
    }

    /// The metric of a validation that decides which checkpoint is best.
    pub fn deciding_metric(&self) -> &'static str {
        self.criterion().nature().decides
    }

    /// Whether some clouds of a step may be warped ([`PointFlow::backward_with`]).
    pub fn takes_warped_clouds(&self) -> bool {
        self.criterion().nature().takes_warped
    }

    /// The engine's configuration of the default recipe for so many steps.
    pub fn train_config(&self, steps: u64) -> TrainConfig {
        self.criterion().engine(steps)
    }

    /// The settings of flow matching, `None` for another objective.
    pub fn matching(&self) -> Option<&MatchingConfig> {
        match self {
            Objective::Matching(config) => Some(config),
            Objective::Likelihood(_) => None,
        }
    }

    /// As [`Objective::matching`], to be changed.
    pub fn matching_mut(&mut self) -> Option<&mut MatchingConfig> {
        match self {
            Objective::Matching(config) => Some(config),
            Objective::Likelihood(_) => None,
        }
    }
}

/// What the rest of the crate asks of an objective.
pub(super) trait Criterion {
    /// What it is called and what holds for its models.
    fn nature(&self) -> Nature;

    /// Checks every field.
    fn check(&self) -> Result<()>;

    /// The two flows as it needs them.
    fn parts(&self) -> Parts;

    /// The solvers of samples.
    fn samplers(&self) -> Samplers<'_>;

    /// The engine's configuration of the default recipe for so many steps.
    fn engine(&self, steps: u64) -> TrainConfig;

    /// Adds the gradient on a batch, the mean over its clouds.
    fn backward(
        &self,
        model: &PointFlow,
        batch: &Batch<'_>,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Terms>;

    /// The terms on clouds `(B, N, 3)`.
    fn evaluate(&self, model: &PointFlow, clouds: &Tensor, rng: &mut FlowRng) -> Result<Terms>;

    /// How badly each of the latents `(S, Z)` explains its share of the points `(S·M, 3)`, `(S,)`, and the gradient of the
    /// sum with respect to the latents.
    fn explain(
        &self,
        model: &PointFlow,
        points: &Tensor,
        latents: &Tensor,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, Tensor)>;
}

/// Clouds of a step, or this rank's share of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// `(B, N, 3)`.
    pub clouds: &'a Tensor,
    /// The place of these clouds among those of the step.
    pub share: Share,
    /// Which of the step's clouds that are data and not warped ones are here; they come first.
    pub plain: Share,
    /// Who has the others.
    pub ranks: &'a Ranks,
}

/// What holds for the models of an objective.
pub(super) struct Nature {
    /// The metric that is minimised.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The metric of a validation that decides which checkpoint is best.
    pub decides: &'static str,
    /// Whether the flow of latents is trained also where the encoder returns no variance.
    pub always_trains_prior: bool,
    /// Whether warped clouds may teach encoder and flow of points.
    pub takes_warped: bool,
    /// Whether points travel on paths that have a density.
    pub has_paths: bool,
}

/// The two flows as an objective needs them.
pub(super) struct Parts {
    pub point: Part,
    pub prior: Part,
}

/// One of them.
pub(super) struct Part {
    pub cnf: CnfConfig,
    pub norms: Norms,
    /// The end time of a field that gets the linear velocity of normal data.
    pub linear_end: Option<f64>,
}

/// The solvers of samples.
pub(super) struct Samplers<'a> {
    pub latents: &'a SolveOptions,
    pub points: &'a SolveOptions,
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
        let (share, plain) = (Share::whole(count), Share::whole(plain));
        self.backward_batch(&Batch { clouds, share, plain, ranks: &Ranks::alone() }, rng, gradients)
    }

    /// The same for a share of a step's clouds; every rank has at least one.
    pub(crate) fn backward_batch(
        &self,
        batch: &Batch<'_>,
        rng: &mut FlowRng,
        gradients: &mut Gradients,
    ) -> Result<Terms> {
        self.criterion().backward(self, batch, rng, gradients)
    }

    /// The objective on clouds without gradients, on running averages where `set_training(false)` was called.
    ///
    /// # Errors
    /// As [`PointFlow::backward`].
    pub fn evaluate(&self, clouds: &Tensor, rng: &mut FlowRng) -> Result<Terms> {
        let _paused = self.store.no_grad();
        self.criterion().evaluate(self, clouds, rng)
    }

    /// What this model is trained by.
    pub(super) fn criterion(&self) -> &dyn Criterion {
        self.config.objective.criterion()
    }
}

/// A reparametrised draw of the posterior; its mean where it has no variance.
fn draw(posterior: &Posterior, rng: &mut FlowRng) -> Result<Tensor> {
    let mean = &posterior.mean;
    Ok(match &posterior.log_variance {
        None => mean.clone(),
        Some(log_variance) => {
            let noise = rng.normal(mean.shape(), mean.dtype(), mean.device())?;
            (mean + log_variance.affine(0.5, 0.0)?.exp()?.mul(&noise)?)?
        }
    })
}

fn mean(t: &Tensor) -> Result<f64> {
    scalar(&t.detach().mean_all()?)
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(host::sum(t)?)
}
