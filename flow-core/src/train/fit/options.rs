//! What a fit can be told.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;

use crate::Backprop;
use crate::train::communicator::{Communicator, Ranks};
use crate::train::config::TrainConfig;
use crate::train::optimizer::OptimizerConfig;
use crate::train::progress::Progress;
use crate::train::schedule::ScheduleConfig;
use crate::train::stop::StopFlag;

/// How [`fit`](super::fit) fits. Everything but the number of steps has a default.
///
/// The defaults: batches of 256, Adam at 10⁻³ with a short warm-up and a cosine decay, gradients clipped at norm 5, no
/// validation, nothing shown and nothing written.
pub struct FitOptions<'a> {
    pub(super) config: TrainConfig,
    pub(super) batch: usize,
    pub(super) context: Option<&'a Tensor>,
    pub(super) validation: Option<(&'a Tensor, Option<&'a Tensor>)>,
    pub(super) initialize: bool,
    pub(super) backprop: Backprop,
    pub(super) progress: Option<Box<dyn Progress + 'a>>,
    pub(super) stop: StopFlag,
    pub(super) folder: Option<PathBuf>,
    pub(super) ranks: Ranks,
}

impl<'a> FitOptions<'a> {
    /// The defaults for a fit of `steps` steps.
    pub fn new(steps: u64) -> Self {
        let config = TrainConfig {
            steps,
            optimizer: OptimizerConfig::adam(1e-3),
            schedule: ScheduleConfig::cosine((steps / 20).min(100), 0.01),
            clip_norm: Some(5.0),
            validate_every: None,
            checkpoint_every: Some(steps.div_ceil(10).max(1)),
            ..TrainConfig::default()
        };
        FitOptions {
            config,
            batch: 256,
            context: None,
            validation: None,
            initialize: true,
            backprop: Backprop::default(),
            progress: None,
            stop: StopFlag::new(),
            folder: None,
            ranks: Ranks::alone(),
        }
    }

    /// Rows per step; all of them if there are fewer.
    #[must_use]
    pub fn batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }

    /// The learning rate after warm-up.
    #[must_use]
    pub fn learning_rate(mut self, rate: f64) -> Self {
        self.config.optimizer.learning_rate = rate;
        self
    }

    /// Seed of the order of rows and of everything else that is random in training.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// What the density is conditioned on: as many rows as data, or one for all.
    #[must_use]
    pub fn context(mut self, context: &'a Tensor) -> Self {
        self.context = Some(context);
        self
    }

    /// Held-out rows: they are scored twenty times in a fit (or as often as [`FitOptions::engine`] says), and the fit ends
    /// with the weights that scored best.
    #[must_use]
    pub fn validation(mut self, x: &'a Tensor, context: Option<&'a Tensor>) -> Self {
        self.validation = Some((x, context));
        let often = self.config.steps.div_ceil(20).max(1);
        self.config.validate_every.get_or_insert(often);
        self
    }

    /// Stops after so many validations in a row without a new best.
    #[must_use]
    pub fn patience(mut self, validations: u64) -> Self {
        self.config.early_stop_patience = Some(validations);
        self
    }

    /// Goes on from the weights as they are, without data-dependent initialisation: for a flow that was fitted before.
    #[must_use]
    pub fn from_current_weights(mut self) -> Self {
        self.initialize = false;
        self
    }

    /// How gradients are computed; both ways give the same ones.
    #[must_use]
    pub fn backprop(mut self, mode: Backprop) -> Self {
        self.backprop = mode;
        self
    }

    /// Shows the fit, on a [`Bar`](crate::train::Bar) for example.
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

    /// Writes checkpoints and a log into a folder; a fit that was stopped there goes on where it was, to the same bits.
    #[must_use]
    pub fn folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.folder = Some(path.into());
        self
    }

    /// Fits together with the other ranks of a channel, each of which has all of the data: they share out every batch and
    /// end with the same weights. Rank 0 alone reads and writes the folder. Layers that normalise by the statistics of a
    /// batch take those of all ranks, each of which then needs a row of every batch.
    #[must_use]
    pub fn communicator(mut self, channel: impl Communicator + 'static) -> Self {
        self.ranks = Ranks::new(Arc::new(channel));
        self
    }

    /// Changes whatever else the engine can be told: the optimizer, the schedule, averaging, clipping, intervals.
    #[must_use]
    pub fn engine(mut self, change: impl FnOnce(&mut TrainConfig)) -> Self {
        change(&mut self.config);
        self
    }
}
