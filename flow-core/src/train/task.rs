//! What a modality supplies to the training engine.

use std::path::Path;

use crate::{FlowRng, Gradients, ParamStore, Result};

/// Named scalars of one step or one validation, in a fixed order; the first is the objective.
///
/// `[("bits_per_dim", 3.9), ("class_accuracy", 0.8)]`
pub type Metrics = Vec<(String, f64)>;

/// A model, its data, and what a step computes. The engine does all the rest.
///
/// # Randomness
/// A step must depend on nothing but the parameters, the position in the data and the generator it is
/// given; then a resumed run repeats the bits of an uninterrupted one.
///
/// # Data parallelism
/// Every rank runs the same task. [`Task::data_state`] is written by rank 0 and restored on all ranks, so
/// it must describe a position in the *common* order of the data, of which a rank takes its own share. A
/// step gets a different generator on every rank.
pub trait Task {
    /// The parameters and buffers of the model.
    fn store(&self) -> &ParamStore;

    /// Every hyper-parameter of model and data, serialised into `config.json` and compared on resume.
    fn config(&self) -> serde_json::Value;

    /// Data-dependent initialisation, once, before the first step of a fresh run.
    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()>;

    /// Draws the next batch, adds the gradient of its mean loss to `gradients`, returns its metrics.
    ///
    /// `step` counts from zero. The first metric is the loss. An [`Error::NonFinite`](crate::Error) or
    /// [`Error::Solver`](crate::Error) returned here is treated like a loss that is not finite: the step is skipped and
    /// counted.
    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics>;

    /// Metrics on held-out data; lower is better for the first one.
    ///
    /// It decides on the best checkpoint, early stop and plateau schedules. Called with the averaged
    /// weights in place when averaging is on, and with the same generator state every time, so that two
    /// validations differ by the weights alone.
    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics>;

    /// The position in the data: epoch, index, shuffle state.
    ///
    /// Prefer integers and strings: JSON numbers with a fraction may lose their last bit.
    fn data_state(&self) -> serde_json::Value;

    /// Returns to a position returned by [`Task::data_state`].
    fn restore_data_state(&mut self, state: &serde_json::Value) -> Result<()>;

    /// Samples that one step consumes on this rank, for the rate display.
    fn samples_per_step(&self) -> usize;

    /// The unit of the objective, shown in progress and plots.
    fn unit(&self) -> &str {
        "nats"
    }

    /// Writes pictures or the like into `folder`, every `preview_every` steps, on rank 0 only.
    fn preview(&mut self, _folder: &Path, _step: u64, _rng: &mut FlowRng) -> Result<()> {
        Ok(())
    }
}
