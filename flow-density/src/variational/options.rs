//! What a variational fit can be told.

use std::path::PathBuf;

use flow_core::Backprop;
use flow_core::train::{EmaConfig, OptimizerConfig, Progress, ScheduleConfig, StopFlag, TrainConfig};
use serde::{Deserialize, Serialize};

use super::constrained::Constraint;
use super::objective::{Divergence, Estimator};
use crate::{Error, Result};

/// The density begins flat and becomes itself: `ln p` is multiplied by `β = start + (1 - start)·step/steps`, one after
/// `steps` steps.
///
/// It keeps a flow from settling in the first mode that it meets (Rezende & Mohamed 2015, section 6.2: 0.01 over 10,000
/// steps). The forward divergence is annealed in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annealing {
    /// The first factor, above zero.
    pub start: f64,
    /// Steps until the factor is one.
    pub steps: u64,
}

impl Annealing {
    /// The factor at a step.
    pub fn factor(self, step: u64) -> f64 {
        if step >= self.steps { 1.0 } else { self.start + (1.0 - self.start) * step as f64 / self.steps as f64 }
    }
}

/// What a step of a variational fit computes: the part of a run's description that is about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What is made small.
    pub divergence: Divergence,
    /// How its gradient is estimated.
    pub estimator: Estimator,
    /// Samples of the flow in a step.
    pub samples: usize,
    /// How the density begins, if not as itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annealing: Option<Annealing>,
}

impl Default for Objective {
    fn default() -> Self {
        Objective { divergence: Divergence::default(), estimator: Estimator::default(), samples: 256, annealing: None }
    }
}

impl Objective {
    pub(super) fn check(&self) -> Result<()> {
        self.divergence.check()?;
        if self.samples == 0 || (self.samples == 1 && self.divergence != Divergence::Reverse) {
            let reason = "must be at least 1, and at least 2 for a divergence that compares them";
            return Err(Error::config("samples of a step", format!("{reason}; got {}", self.samples)));
        }
        match self.annealing {
            Some(Annealing { start, steps }) if !(start > 0.0 && start <= 1.0) || steps == 0 => {
                let reason = format!("needs a start in (0, 1] and at least one step, got {start} and {steps}");
                Err(Error::config("annealing", reason))
            }
            _ => Ok(()),
        }
    }
}

/// How [`fit_reverse_kl`](super::fit_reverse_kl) fits. Everything but the number of steps has a default.
///
/// The defaults: `KL(q‖p)` by path derivatives of 256 samples a step, Adam at 2·10⁻³ with a short warm-up and a cosine decay
/// to a hundredth, gradients clipped at norm 10, weights averaged with decay 0.99, of which the best by twenty validations
/// are kept, a look at whether the density falls off, and diagnostics by 10,000 draws.
pub struct VariationalOptions<'a> {
    pub(super) config: TrainConfig,
    pub(super) objective: Objective,
    pub(super) backprop: Backprop,
    pub(super) progress: Option<Box<dyn Progress + 'a>>,
    pub(super) stop: StopFlag,
    pub(super) folder: Option<PathBuf>,
    pub(super) draws: usize,
    pub(super) tails: bool,
    pub(super) domains: Option<Vec<Constraint>>,
}

impl<'a> VariationalOptions<'a> {
    /// The defaults for a fit of `steps` steps.
    pub fn new(steps: u64) -> Self {
        Self::of(Objective::default(), recipe(steps))
    }

    /// An objective and a configuration of the engine.
    pub fn of(objective: Objective, config: TrainConfig) -> Self {
        VariationalOptions {
            config,
            objective,
            backprop: Backprop::default(),
            progress: None,
            stop: StopFlag::new(),
            folder: None,
            draws: 10_000,
            tails: true,
            domains: None,
        }
    }

    /// What is made small, `KL(q‖p)` by default.
    #[must_use]
    pub fn divergence(mut self, divergence: Divergence) -> Self {
        self.objective.divergence = divergence;
        self
    }

    /// How its gradient is estimated, by path derivatives by default.
    #[must_use]
    pub fn estimator(mut self, estimator: Estimator) -> Self {
        self.objective.estimator = estimator;
        self
    }

    /// Samples in a step.
    #[must_use]
    pub fn samples(mut self, samples: usize) -> Self {
        self.objective.samples = samples;
        self
    }

    /// Begins with `start` times the log-density, and comes to all of it after `steps` steps.
    #[must_use]
    pub fn annealing(mut self, start: f64, steps: u64) -> Self {
        self.objective.annealing = Some(Annealing { start, steps });
        self
    }

    /// The learning rate after warm-up.
    #[must_use]
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.config.optimizer.learning_rate = rate;
        self
    }

    /// Seed of all samples.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// How gradients are computed; both ways give the same ones.
    #[must_use]
    pub fn backprop(mut self, mode: Backprop) -> Self {
        self.backprop = mode;
        self
    }

    /// Draws for the diagnostics.
    #[must_use]
    pub fn diagnostic_draws(mut self, draws: usize) -> Self {
        self.draws = draws;
        self
    }

    /// Finds out first where the density of parameters with these domains lies ([`Location`](super::Location)), for one that is
    /// not of order one: a flow of [`constrained`](super::constrained) then begins there. A resumed fit does not look again.
    #[must_use]
    pub fn locate(mut self, domains: &[Constraint]) -> Self {
        self.domains = Some(domains.to_vec());
        self
    }

    /// Does not look whether the density falls off, for one that is flat far out and known to be so.
    #[must_use]
    pub fn without_tail_check(mut self) -> Self {
        self.tails = false;
        self
    }

    /// Shows the fit, on a [`Bar`](flow_core::train::Bar) for example.
    #[must_use]
    pub fn progress(mut self, progress: impl Progress + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Stops cleanly once the flag is raised.
    #[must_use]
    pub fn stop(mut self, flag: StopFlag) -> Self {
        self.stop = flag;
        self
    }

    /// Writes checkpoints and a log into a folder; a fit that was stopped there goes on where it was, to the same bits. The
    /// density is a function, of which a folder remembers nothing: it must be the same.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Changes whatever else the engine can be told: the optimizer, the schedule, averaging, clipping, intervals.
    #[must_use]
    pub fn engine(mut self, change: impl FnOnce(&mut TrainConfig)) -> Self {
        change(&mut self.config);
        self
    }
}

/// The engine's configuration of a variational fit.
pub fn recipe(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(2e-3),
        schedule: ScheduleConfig::cosine((steps / 20).min(100), 0.01),
        clip_norm: Some(10.0),
        ema: Some(EmaConfig { decay: 0.99 }),
        validate_every: Some(steps.div_ceil(20).max(1)),
        checkpoint_every: Some(steps.div_ceil(10).max(1)),
        ..TrainConfig::default()
    }
}
