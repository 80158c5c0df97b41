//! What a training step of a density is.

use candle_core::Tensor;
use flow_core::train::{BatchIndices, CursorState, EpochCursor, Metric, Metrics, Task};
use flow_core::{Backprop, Error, FlowRng, Gradients, ParamStore, Result};

use super::data::{Data, flat};
use super::model::{Kind, Model, RunConfig};

/// Points from which layers take their first scales.
const FIRST: usize = 2048;
/// Points scored at once.
const CHUNK: usize = 4096;
/// Held-out rows of a table that a validation looks at.
const VALIDATION: usize = 20_000;

/// A model in training.
pub(super) struct DensityTask {
    run: RunConfig,
    model: Model,
    data: Data,
    cursor: Option<EpochCursor>,
}

impl DensityTask {
    pub(super) fn new(run: RunConfig, model: Model, data: Data) -> Result<Self> {
        let cursor = match data.toy {
            Some(_) => None,
            None => Some(EpochCursor::new(data.train.len() / data.columns, run.batch, run.seed)?),
        };
        Ok(DensityTask { run, model, data, cursor })
    }

    /// Standardised points: fresh ones of a toy, the next rows of a table.
    fn batch(&mut self, n: usize, rng: &mut FlowRng) -> Result<Tensor> {
        let rows = match (&mut self.cursor, self.data.toy) {
            (_, Some(toy)) => flat(&toy.sample(n, rng)),
            (Some(cursor), None) => {
                let BatchIndices { indices, .. } = cursor.next_batch();
                rows(&self.data.train, self.data.columns, &indices)
            }
            (None, None) => Vec::new(),
        };
        self.seen(&rows)
    }

    fn seen(&self, rows: &[f32]) -> Result<Tensor> {
        let device = self.model.store().device();
        self.run.standard.apply(rows, device).map_err(|e| Error::config("data", e.to_string()))
    }
}

/// Some rows of a table.
fn rows(values: &[f32], columns: usize, indices: &[usize]) -> Vec<f32> {
    indices.iter().flat_map(|&i| values.get(i * columns..(i + 1) * columns).unwrap_or_default()).copied().collect()
}

/// `log p` of standardised points, in chunks, outside any graph.
pub(super) fn log_prob(model: &Model, x: &Tensor) -> Result<Vec<f32>> {
    let _paused = model.store().no_grad();
    let total = x.dim(0)?;
    let mut out = Vec::with_capacity(total);
    for start in (0..total).step_by(CHUNK) {
        let part = x.narrow(0, start, CHUNK.min(total - start))?;
        out.extend(model.density().log_prob(&part, None)?.to_vec1::<f32>()?);
    }
    Ok(out)
}

fn squared_error(error: &Tensor) -> Result<Metric> {
    Ok(Metric::new("error", "squared error", f64::from(error.to_scalar::<f32>()?)))
}

impl Task for DensityTask {
    type Run = RunConfig;
    /// A toy is drawn from, and has no position.
    type Position = Option<CursorState>;
    type Error = Error;

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &RunConfig {
        &self.run
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        let first = match self.data.toy {
            Some(toy) => flat(&toy.sample(FIRST, rng)),
            None => {
                let count = self.data.train.len() / self.data.columns;
                let chosen: Vec<usize> = (0..FIRST.min(count)).map(|_| rng.below(count)).collect();
                rows(&self.data.train, self.data.columns, &chosen)
            }
        };
        self.model.density().initialize(&self.seen(&first)?, None)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let x = self.batch(self.run.batch, rng)?;
        if let (Kind::Matching, Some(field)) = (self.run.model.kind, self.model.field()) {
            let error = self.run.model.matching.loss(&*field, &x, None, self.run.batch, rng)?;
            gradients.accumulate(&error.backward()?)?;
            return Ok(Metrics::new(squared_error(&error)?));
        }
        self.model.density().set_training(true);
        self.model.density().set_noise(rng);
        let weight = Tensor::full(-1.0 / self.run.batch as f32, self.run.batch, x.device())?;
        let scored = self.model.density().log_prob_backward(&x, None, &weight, Backprop::Reversible, gradients)?;
        let nats = -f64::from(scored.log_prob.mean(0)?.to_scalar::<f32>()?);
        Ok(Metrics::new(Metric::new("nats", "nats", nats + self.run.standard.log_scale())))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        self.model.density().set_training(false);
        let most = self.data.validation.len().min(VALIDATION * self.data.columns);
        let x = self.seen(&self.data.validation[..most])?;
        let logs = log_prob(&self.model, &x)?;
        let mean = logs.iter().map(|&l| f64::from(l)).sum::<f64>() / logs.len().max(1) as f64;
        let mut metrics = Metrics::new(Metric::new("nats", "nats", self.run.standard.log_scale() - mean));
        if let (Kind::Matching, Some(field)) = (self.run.model.kind, self.model.field()) {
            let _paused = self.model.store().no_grad();
            let error = self.run.model.matching.loss(&*field, &x, None, x.dim(0)?, rng)?;
            metrics = metrics.with(squared_error(&error)?);
        }
        Ok(metrics)
    }

    fn position(&self) -> Option<CursorState> {
        self.cursor.as_ref().map(EpochCursor::state)
    }

    fn restore(&mut self, position: Option<CursorState>) -> Result<()> {
        self.cursor = match (&self.cursor, position) {
            (None, None) => None,
            (Some(_), Some(position)) => {
                let rows = self.data.train.len() / self.data.columns;
                Some(EpochCursor::restore(rows, self.run.batch, position)?)
            }
            _ => return Err(Error::config("position in the data", "is of another kind of data")),
        };
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }
}
