//! The training engine: one loop for every modality.
//!
//! A modality supplies a [`Task`]: a model, its data and what a step computes. The [`Trainer`] gives
//! everything else, once: optimizers with saved state, warm-up and decay of the learning rate, clipping
//! by global norm, an average of the weights, data-dependent initialisation, a guard against non-finite
//! steps, validation with best-model keeping and early stop, progress, an event log that TensorBoard
//! opens, atomic checkpoints, a clean stop on Ctrl-C and data parallelism behind a [`Communicator`].
//!
//! Two promises hold the parts together. A run is a function of its configuration and its data: the
//! same seed gives the same bits whatever the number of threads. And a run that is killed at any moment
//! and resumed gives the same final weights, to the bit, as one that was never killed; everything that a
//! step depends on is therefore part of the checkpoint, and whatever only looks (validation, previews,
//! the log) draws its randomness from generators of its own.

mod checkpoint;
mod clip;
mod communicator;
mod config;
mod cursor;
mod ema;
mod events;
mod exact;
mod files;
mod fingerprint;
mod fit;
mod fused;
mod guard;
mod metrics;
mod optimizer;
mod progress;
mod range;
mod rate;
mod run;
mod schedule;
mod state;
mod stop;
mod summary;
mod task;
mod tensorboard;
mod trainer;

pub use checkpoint::{
    CHECKPOINT_VERSION, Cast, Checkpoints, Packed, Precision, find_checkpoint, load_averaged, load_config,
    load_fingerprint, load_train_config, load_weights, load_weights_as, pack_model, save_model,
};
pub use clip::{Clipped, clip_global_norm};
#[cfg(feature = "mpi")]
pub use communicator::mpi;
#[cfg(feature = "nccl")]
pub use communicator::nccl;
pub use communicator::{Communicator, Ranks, Solo, Summands, launch};
pub use config::TrainConfig;
pub use cursor::{BatchIndices, CursorState, EpochCursor};
pub use ema::{Ema, EmaConfig};
pub use events::{EventLog, LogRecord, RecordKind, read_log};
pub use fingerprint::Fingerprint;
pub use fit::{CurvePoint, CurveRecorder, Fit, FitOptions, fit};
pub use guard::{NonFiniteGuard, Verdict};
pub use metrics::{Metric, Metrics};
pub use optimizer::{Optimizer, OptimizerConfig, Rule};
pub use progress::{Bar, Progress, StepReport};
pub use run::{Model, Run, load};
pub use schedule::{Decay, Schedule, ScheduleConfig, ScheduleState};
pub use state::{RunState, Scheduled};
pub use stop::StopFlag;
pub use summary::Summary;
pub use task::Task;
pub use tensorboard::{ScalarEvent, TensorBoardWriter, read_tensorboard};
pub use trainer::Trainer;
