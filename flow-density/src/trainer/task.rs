//! What a training step of a density is.

use candle_core::{Device, Tensor};
use flow_core::train::{BatchIndices, CursorState, EpochCursor, Fingerprint, Metric, Metrics, Ranks, Task};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore, Share};

use super::DensityRun;
use crate::data::{Data, Split};
use crate::metrics::{CHUNK, log_prob_given};
use crate::model::{Kind, Model, Purpose};
use crate::{Error, Result};

/// The name in logs of the negative log-likelihood, in nats of the data's own units.
pub const NLL: &str = "nll_nats";
/// The name in logs of the mean squared distance of a matched field from the velocities that it is trained towards.
pub const MATCHING_LOSS: &str = "matching_loss";

/// Points from which layers take their first scales.
const FIRST: usize = 2048;
/// Held-out rows of a table that a validation looks at.
const VALIDATION: usize = 20_000;

/// A model in training: by flow matching if it is of that kind, else by maximum likelihood.
pub struct DensityTask {
    run: DensityRun,
    model: Model,
    data: Data,
    cursor: Option<EpochCursor>,
    ranks: Ranks,
}

impl DensityTask {
    /// Builds the model of `run` for these data, which are standardised as the run says.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for data of another width than the run's, a batch that does not fit them, or numbers that
    /// make no model.
    pub fn new(run: DensityRun, data: Data, device: &Device) -> Result<Self> {
        let (found, expected) = (data.columns(), run.features());
        if found != expected {
            let reason = format!("have {found} columns, the run's scale is of {expected}");
            return Err(Error::config("data", reason));
        }
        let (found, expected) = (data.classes(), run.classes());
        if found.map(|classes| &classes.names) != expected.map(|classes| &classes.names) {
            return Err(Error::config("data", "are of other classes than the run"));
        }
        let model = run.model(Purpose::Training, device)?;
        let cursor = match data.toy() {
            Some(_) => None,
            None => Some(EpochCursor::new(data.train_rows(), run.batch, run.seed)?),
        };
        Ok(DensityTask { run, model, data, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The data.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Standardised points with their context, a share of the batch: fresh ones of a toy, the next rows of a table.
    fn batch(&mut self, share: Share, rng: &mut FlowRng) -> Result<(Tensor, Option<Tensor>)> {
        match (&mut self.cursor, self.data.toy()) {
            (Some(cursor), None) => {
                let BatchIndices { indices, .. } = cursor.next_batch();
                self.picked(&indices[share.range()], rng)
            }
            (_, toy) => {
                let rows = toy.map_or(Vec::new(), |toy| toy.rows(share.count, rng));
                Ok((self.seen(&rows, rng)?, None))
            }
        }
    }

    /// Whether the model is trained by flow matching.
    fn is_matched(&self) -> bool {
        self.run.model.kind == Kind::Matching
    }

    /// Some of the training rows, standardised, with their context.
    fn picked(&self, indices: &[usize], rng: &mut FlowRng) -> Result<(Tensor, Option<Tensor>)> {
        let context = self.context(&self.data.pick_classes(indices))?;
        Ok((self.seen(&self.data.pick(indices)?, rng)?, context))
    }

    /// What the model is given of these classes; `None` if it is given none.
    fn context(&self, classes: &[u32]) -> Result<Option<Tensor>> {
        let device = self.model.store().device();
        self.run.classes().map(|all| all.context(classes, device)).transpose()
    }

    /// Rows as the model sees them, columns of steps spread over these.
    fn seen<T: Copy + Into<f64>>(&self, rows: &[T], rng: &mut FlowRng) -> Result<Tensor> {
        self.run.standard.apply_spread(rows, rng, self.model.store().device())
    }

    /// Rows as the model is a density of them, and what it is conditioned on: their classes, or their last columns.
    fn parted(&self, x: &Tensor, classes: Option<Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        if self.run.given == 0 {
            return Ok((x.clone(), classes));
        }
        let modelled = self.run.modelled();
        let part = |from, count| x.narrow(1, from, count)?.contiguous();
        Ok((part(0, modelled)?, Some(part(modelled, self.run.given)?)))
    }

    /// `Σ ln std` of the columns that the model is a density of.
    fn log_scale(&self) -> f64 {
        self.run.standard.std.iter().take(self.run.modelled()).map(|std| std.ln()).sum()
    }

    /// The error of a matched field over a share of rows, which are all given: transport goes over all of them. `None` for
    /// a model that is trained otherwise.
    fn matching_error(
        &self,
        x: &Tensor,
        given: Option<&Tensor>,
        share: Share,
        rng: &mut FlowRng,
    ) -> Result<Option<Tensor>> {
        match self.model.field().filter(|_| self.is_matched()) {
            Some(field) => Ok(Some(self.run.model.matching.loss_of_rows(&*field, x, given, share, rng)?)),
            None => Ok(None),
        }
    }

    /// Mean negative log-likelihood in the data's units of a share of held-out rows, which are all given as seen.
    fn held_out_nats(&self, x: &Tensor, given: Option<&Tensor>, share: Share, rng: &FlowRng) -> Result<f64> {
        let density = self.model.density();
        let (parted, context) = self.parted(x, given.cloned())?;
        let mut sum = 0.0;
        for part in share.parts(CHUNK) {
            let rows = |t: &Tensor| t.narrow(0, part.first, part.count)?.contiguous();
            let context = context.as_ref().map(rows).transpose()?;
            // An estimate of a likelihood is drawn for the rows, wherever they are scored.
            density.set_noise(&mut rng.for_rows(part));
            sum += log_prob_given(density, &rows(&parted)?, context.as_ref())?.iter().sum::<f64>();
        }
        Ok(self.log_scale() - sum / share.count.max(1) as f64)
    }
}

fn squared_error(error: &Tensor) -> Result<Metric> {
    Ok(Metric::new(MATCHING_LOSS, "", f64::from(error.to_scalar::<f32>()?)))
}

fn nats(value: f64) -> Metric {
    Metric::new(NLL, "nats", value)
}

impl Task for DensityTask {
    type Run = DensityRun;
    /// A toy is drawn from, and has no position.
    type Position = Option<CursorState>;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("data");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &DensityRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.data.fingerprint()
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        let (first, given) = match self.data.toy() {
            Some(toy) => (self.seen(&toy.rows(FIRST, rng), rng)?, None),
            None => {
                let count = self.data.train_rows();
                let chosen: Vec<usize> = (0..FIRST.min(count)).map(|_| rng.below(count)).collect();
                self.picked(&chosen, rng)?
            }
        };
        let (x, context) = self.parted(&first, given)?;
        Ok(self.model.density().initialize(&x, context.as_ref())?)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let share = self.ranks.share(self.run.batch);
        // Pairs are drawn of the whole batch, which transport may go over.
        let rows = if self.is_matched() { Share::whole(self.run.batch) } else { share };
        let rng = &mut rng.for_rows(rows);
        let (x, given) = self.batch(rows, rng)?;
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        if let Some(error) = self.matching_error(&x, given.as_ref(), share, rng)? {
            gradients.accumulate(&error.backward()?)?;
            return Ok(Metrics::new(squared_error(&error)?).over(share.count as f64));
        }
        gradients.weigh(share.count as f64);
        let density = self.model.density();
        density.set_training(true);
        density.set_noise(rng);
        let weight = Tensor::full(-1.0 / share.count as f32, share.count, x.device())?;
        let (x, context) = self.parted(&x, given)?;
        let scored = density.log_prob_backward(&x, context.as_ref(), &weight, Backprop::Reversible, gradients)?;
        let mean = f64::from(scored.log_prob.mean(0)?.to_scalar::<f32>()?);
        Ok(Metrics::new(nats(self.log_scale() - mean)).over(share.count as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        self.model.density().set_training(false);
        let rows = self.data.rows(Split::Validation).first(VALIDATION);
        let (x, given) = (self.seen(rows.values(), rng)?, self.context(rows.classes())?);
        let share = self.ranks.share(x.dim(0)?);
        if share.is_empty() && share.of > 0 {
            return Ok(Metrics::of_nothing());
        }
        let nll = self.held_out_nats(&x, given.as_ref(), share, &rng.fork())?;
        let metrics = Metrics::new(nats(nll)).over(share.count as f64);
        let _paused = self.model.store().no_grad();
        Ok(match self.matching_error(&x, given.as_ref(), share, rng)? {
            Some(error) => metrics.with(squared_error(&error)?),
            None => metrics,
        })
    }

    fn position(&self) -> Option<CursorState> {
        self.cursor.as_ref().map(EpochCursor::state)
    }

    fn restore(&mut self, position: Option<CursorState>) -> Result<()> {
        self.cursor = match (&self.cursor, position) {
            (None, None) => None,
            (Some(_), Some(position)) => Some(EpochCursor::restore(self.data.train_rows(), self.run.batch, position)?),
            _ => return Err(Error::config("position in the data", "is of another kind of data")),
        };
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }
}
