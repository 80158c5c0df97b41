//! Fitting a density to a tensor, without a task and without a folder.

mod options;
mod recorder;

use candle_core::Tensor;
use serde::Serialize;

use super::communicator::Ranks;
use super::cursor::{CursorState, EpochCursor};
use super::metrics::{Metric, Metrics};
use super::summary::Summary;
use super::task::Task;
use super::trainer::Trainer;
use crate::bijector::first_non_finite_row;
use crate::numerics::host;
use crate::{Backprop, Density, Error, FlowRng, Gradients, ParamStore, Result};

pub use options::FitOptions;
pub use recorder::{CurvePoint, CurveRecorder};

/// Rows from which layers take their first scales.
const FIRST: usize = 2048;
/// Rows that are scored at once in a validation.
const CHUNK: usize = 4096;

/// What [`fit`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The learning curve.
    pub curve: Vec<CurvePoint>,
    /// How the fit ended, with the best validation and its step.
    pub summary: Summary,
}

/// Fits a density to rows of data by maximum likelihood: minimises the mean of `-log p(x | context)`.
///
/// `x` is `(N, …)` with the event shape of the density after the batch dimension. Layers are first initialised from the
/// data; with held-out rows the weights that scored them best are in place at the end, otherwise the last ones.
///
/// ```
/// # fn main() -> flow_core::Result<()> {
/// use candle_core::{DType, Device};
/// use flow_core::layers::ActNorm;
/// use flow_core::train::{FitOptions, fit};
/// use flow_core::{Density, Flow, FlowRng, ParamStore, distribution::StandardGaussian};
///
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let base = StandardGaussian::new(&[2], DType::F32, &Device::Cpu);
/// let flow = Flow::new(&store, ActNorm::new(&store.root(), &[2])?, base)?;
/// let x = FlowRng::seed_from(1).normal((500, 2), DType::F32, &Device::Cpu)?.affine(3.0, 1.0)?;
/// let fitted = fit(&flow, &x, FitOptions::new(50))?;
/// // The entropy of a normal of deviation 3 in two dimensions is 5.035 nats.
/// assert!(fitted.curve.last().is_some_and(|point| (point.loss - 5.035).abs() < 0.1));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Config`] for data without rows, contexts of another number of rows or options out of range;
/// [`Error::NonFiniteRow`] naming the first row that holds a NaN or an infinity; [`Error::NonFinite`] when training
/// diverges; with a folder, [`Error::Io`] and [`Error::Checkpoint`].
pub fn fit<D: Density + ?Sized>(density: &D, x: &Tensor, options: FitOptions<'_>) -> Result<Fit> {
    let FitOptions { mut config, batch, context, validation, initialize, backprop, progress, stop, folder, ranks } =
        options;
    let rows = check("data", x, context)?;
    if let Some((x, context)) = validation {
        check("held-out data", x, context)?;
    } else {
        config.validate_every = None;
    }
    let run = FitRun { rows, batch: batch.min(rows), seed: config.seed, checksum: checksum(x)?, initialize };
    let cursor = EpochCursor::new(rows, run.batch, run.seed)?;
    let task = FitTask { density, x, context, validation, run, backprop, cursor, ranks: ranks.clone() };
    let every = config.log_every;
    let mut trainer = match folder.filter(|_| ranks.rank() == 0) {
        Some(folder) => Trainer::resume_or_start(config, folder, task)?,
        None => Trainer::in_memory(config, task)?,
    }
    .with_ranks(&ranks)
    .with_stop(stop);
    let mut recorder = CurveRecorder::new(every, progress);
    let summary = trainer.run(&mut recorder)?;
    if !summary.interrupted {
        trainer.take_best()?;
    }
    density.set_training(false);
    Ok(Fit { curve: recorder.finish(summary.step), summary })
}

/// The number of rows of finite data with a fitting context.
fn check(what: &str, x: &Tensor, context: Option<&Tensor>) -> Result<usize> {
    let rows = x.dims().first().copied().unwrap_or(0);
    if rows == 0 {
        return Err(Error::config(what, "has no rows"));
    }
    if let Some(given) = context.map(|c| c.dims().first().copied().unwrap_or(0)).filter(|&n| n != rows && n != 1) {
        return Err(Error::config(
            what,
            format!("has {rows} rows, its context {given}; wanted as many, or one for all"),
        ));
    }
    for (what, t) in [(what.to_string(), Some(x)), (format!("context of {what}"), context)] {
        if let Some(row) = t.map(first_non_finite_row).transpose()?.flatten() {
            return Err(Error::NonFiniteRow { what, row });
        }
    }
    Ok(rows)
}

/// CRC-32C of the values, so that a folder's fit goes on with the data that it began with.
fn checksum(x: &Tensor) -> Result<u32> {
    let values = host::numbers(x)?;
    Ok(values.iter().fold(0, |sum, value| crc32c::crc32c_append(sum, &value.to_le_bytes())))
}

/// What a folder remembers of a fit besides the engine's configuration.
#[derive(Debug, Serialize)]
struct FitRun {
    rows: usize,
    batch: usize,
    seed: u64,
    checksum: u32,
    initialize: bool,
}

struct FitTask<'a, D: ?Sized> {
    density: &'a D,
    x: &'a Tensor,
    context: Option<&'a Tensor>,
    validation: Option<(&'a Tensor, Option<&'a Tensor>)>,
    run: FitRun,
    backprop: Backprop,
    cursor: EpochCursor,
    ranks: Ranks,
}

impl<D: Density + ?Sized> FitTask<'_, D> {
    /// Some rows with their contexts.
    fn rows(&self, indices: &[usize]) -> Result<(Tensor, Option<Tensor>)> {
        let index: Vec<u32> = indices.iter().map(|&i| i as u32).collect();
        let index = Tensor::new(index, self.x.device())?;
        let context = self.context.map(|c| match c.dim(0)? {
            1 if self.run.rows > 1 => repeated(c, indices.len()),
            _ => Ok(c.index_select(&index, 0)?),
        });
        Ok((self.near(self.x.index_select(&index, 0)?)?, context.transpose()?.map(|c| self.near(c)).transpose()?))
    }

    /// Rows on the model's device: all data may be too much for it.
    fn near(&self, rows: Tensor) -> Result<Tensor> {
        Ok(rows.to_device(self.density.store().device())?)
    }
}

/// One row `count` times.
fn repeated(row: &Tensor, count: usize) -> Result<Tensor> {
    let mut shape = row.dims().to_vec();
    shape[0] = count;
    Ok(row.broadcast_as(shape)?.contiguous()?)
}

fn nats(value: f64) -> Metrics {
    Metrics::new(Metric::new("nats", "nats", value))
}

impl<D: Density + ?Sized> Task for FitTask<'_, D> {
    type Run = FitRun;
    type Position = CursorState;
    type Error = Error;

    fn store(&self) -> &ParamStore {
        self.density.store()
    }

    fn run(&self) -> &FitRun {
        &self.run
    }

    fn share_out(&mut self, ranks: Ranks) -> Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        if !self.run.initialize {
            return Ok(());
        }
        let mut order = rng.permutation(self.run.rows);
        order.truncate(FIRST);
        let (x, context) = self.rows(&order)?;
        self.density.set_training(true);
        self.density.initialize(&x, context.as_ref())
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let indices = self.cursor.next_batch().indices;
        let share = self.ranks.share(indices.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let (x, context) = self.rows(&indices[share.range()])?;
        self.density.set_training(true);
        self.density.set_noise(&mut rng.for_rows(share));
        let weight = host::full(-1.0 / share.count as f64, share.count, x.dtype(), x.device())?;
        gradients.weigh(share.count as f64);
        let scored = self.density.log_prob_backward(&x, context.as_ref(), &weight, self.backprop, gradients)?;
        let mean = host::wide(&scored.log_prob)?.mean_all()?.to_scalar::<f64>()?;
        Ok(nats(-mean).over(share.count as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let (x, context) = self.validation.unwrap_or((self.x, self.context));
        let _paused = self.density.store().no_grad();
        self.density.set_training(false);
        let rows = x.dim(0)?;
        let share = self.ranks.share(rows);
        let mut sum = 0.0;
        for part in share.parts(CHUNK) {
            let context = context.map(|c| match c.dim(0)? {
                1 if rows > 1 => repeated(c, part.count),
                _ => Ok(c.narrow(0, part.first, part.count)?),
            });
            // An estimate of a likelihood is drawn for the rows, wherever they are scored.
            self.density.set_noise(&mut rng.for_rows(part));
            let (x, context) = (x.narrow(0, part.first, part.count)?.contiguous()?, context.transpose()?);
            let context = context.map(|c| self.near(c.contiguous()?)).transpose()?;
            let scores = self.density.log_prob(&self.near(x)?, context.as_ref())?;
            sum += host::sum(&scores)?;
        }
        Ok(nats(-sum / share.count.max(1) as f64).over(share.count as f64))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.run.rows, self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }
}

#[cfg(test)]
mod tests;
