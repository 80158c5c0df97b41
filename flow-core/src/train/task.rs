//! What a modality supplies to the training engine.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::communicator::Ranks;
use super::fingerprint::Fingerprint;
use super::metrics::Metrics;
use crate::{Error, FlowRng, Gradients, ParamStore};

/// A model, its data, and what a step computes. The engine does all the rest.
///
/// # Randomness
/// A step must depend on nothing but the parameters, the position in the data and the generator it is
/// given; then a resumed run repeats the bits of an uninterrupted one.
///
/// # Data parallelism
/// Every rank runs the same task, and gets the same generator. A task that takes [`Ranks`] ([`Task::share_out`]) asks them
/// in every step which rows of the *common* batch are its own ([`Ranks::share`]), advances its position by the whole batch,
/// draws what is random about its rows by a generator for rows ([`FlowRng::for_rows`]), and says in
/// [`Metrics::over`] how many there were. Then any number of ranks trains the model that one trains. A rank without rows
/// adds no gradient and returns [`Metrics::of_nothing`]. [`Task::position`] is written by rank 0 and restored on all ranks.
pub trait Task {
    /// Every hyper-parameter of model and data, written to `config.json` and compared on resume; for a model that is
    /// to be loaded again, its [`Run`](super::Run).
    type Run: Serialize;
    /// A place in the data: epoch, index, shuffle state. `()` where there is none, for data that are drawn.
    ///
    /// It is written as JSON, whose numbers with a fraction may lose their last bit: prefer integers and strings.
    type Position: Serialize + DeserializeOwned;
    /// What can go wrong.
    type Error: Into<Error>;

    /// The field of the description that says where the data lie, if there is one. A run goes on from data that were
    /// moved or are named otherwise, as long as they are the same by [`Task::fingerprint`].
    const LOCATION: Option<&'static str> = None;

    /// The parameters and buffers of the model.
    fn store(&self) -> &ParamStore;

    /// The description of the run. It must not change while the run lasts.
    fn run(&self) -> &Self::Run;

    /// What the run learns from, asked once before it begins; a resume with other data is refused. The default says
    /// nothing, for data that are drawn.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Takes note of the ranks that this one works with, once, before anything else, where there are several. The default
    /// refuses: a task that knows nothing of ranks would train each on the same batches.
    ///
    /// # Errors
    /// [`Error::Config`] for what cannot be shared out, with what helps.
    fn share_out(&mut self, ranks: Ranks) -> Result<(), Error> {
        ranks.only_alone("this training", "start it as a single process")
    }

    /// Data-dependent initialisation, once, before the first step of a fresh run. The default does nothing.
    ///
    /// Every rank calls it with the same generator and for the whole batch of initialisation; all take what comes of it on
    /// rank 0.
    fn initialize(&mut self, _rng: &mut FlowRng) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Draws the next batch, adds the gradient of its mean loss to `gradients`, returns its metrics.
    ///
    /// `step` counts from zero, and the objective is the loss. An [`Error::NonFinite`] or [`Error::Solver`] is treated
    /// like a loss that is not finite: the step is skipped and counted. A finite loss that gave no parameter a
    /// gradient ends the run with an error, since nothing would ever be learned.
    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics, Self::Error>;

    /// Metrics on held-out data.
    ///
    /// Called with the averaged weights in place when averaging is on, and with the same generator state every time,
    /// so that two validations differ by the weights alone.
    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics, Self::Error>;

    /// The position in the data.
    fn position(&self) -> Self::Position;

    /// Returns to a position given by [`Task::position`].
    fn restore(&mut self, position: Self::Position) -> Result<(), Self::Error>;

    /// Samples that one step consumes on all ranks together, for the rate display.
    fn samples_per_step(&self) -> usize;

    /// Writes pictures or the like into `folder`, every `preview_every` steps, on rank 0 only.
    fn preview(&mut self, _folder: &Path, _step: u64, _rng: &mut FlowRng) -> Result<(), Self::Error> {
        Ok(())
    }
}
