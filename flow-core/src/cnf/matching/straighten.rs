//! Straightening as the training engine sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use serde::Serialize;

use super::{FlowMatching, TimeSampling, VectorField, distillation_loss, repeat_rows};
use crate::numerics::host;
use crate::train::{Metric, Metrics, Ranks, Task};
use crate::{Error, FlowRng, Gradients, ParamStore, Result};

/// Noise and what a trained flow makes of it, in groups that share a context.
#[derive(Debug, Clone)]
pub struct ReflowPairs {
    /// `(S, N, D)`, standard normal.
    pub noise: Tensor,
    /// `(S, N, D)`, the flow's data.
    pub data: Tensor,
    /// `(S, C)` where the flow takes a context.
    pub context: Option<Tensor>,
}

impl ReflowPairs {
    /// Noise and data as rows `(S·N, D)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the two differ in shape or have not three axes, or when there is not one context for each
    /// group.
    pub fn rows(&self) -> Result<[Tensor; 2]> {
        let odd = |layer: &str, expected: String, t: &Tensor| {
            Err(Error::Shape { layer: layer.into(), expected, actual: t.dims().to_vec() })
        };
        let Ok((groups, each, dim)) = self.noise.dims3() else {
            return odd("pairs of noise and data", "(S, N, D)".into(), &self.noise);
        };
        if self.data.dims() != self.noise.dims() {
            return odd("pairs (data)", format!("the shape of the noise, {:?}", self.noise.dims()), &self.data);
        }
        if let Some(context) = self.context.as_ref().filter(|c| c.dims().first() != Some(&groups)) {
            return odd("pairs (context)", format!("({groups}, C), one for each group"), context);
        }
        let flat = |t: &Tensor| t.reshape((groups * each, dim));
        Ok([flat(&self.noise)?, flat(&self.data)?])
    }

    fn check(&self, field: &dyn VectorField, times: usize) -> Result<()> {
        self.rows()?;
        let (groups, each, dim) = self.noise.dims3()?;
        let width = self.context.as_ref().map(|c| c.elem_count() / groups.max(1));
        let reason = if groups * each == 0 {
            "there are none".into()
        } else if each % times != 0 {
            format!("{times} times do not divide the {each} rows of a group")
        } else if dim != field.dim() || (field.context_dim().is_some() && width != field.context_dim()) {
            let (wide, wanted) = (field.dim(), field.context_dim());
            format!("have {dim} entries and a context of {width:?}, the field takes {wide} and {wanted:?}")
        } else {
            return Ok(());
        };
        Err(Error::config("pairs", reason))
    }

    /// The numbers of `count` groups at random, with replacement.
    fn draw(&self, count: usize, rng: &mut FlowRng) -> Result<Vec<u32>> {
        let groups = self.noise.dim(0)?;
        Ok((0..count).map(|_| rng.below(groups) as u32).collect())
    }

    /// Groups by their numbers.
    fn some(&self, numbers: &[u32]) -> Result<Self> {
        let index = Tensor::new(numbers, self.noise.device())?;
        let pick = |t: &Tensor| t.index_select(&index, 0);
        let context = self.context.as_ref().map(pick).transpose()?;
        Ok(ReflowPairs { noise: pick(&self.noise)?, data: pick(&self.data)?, context })
    }
}

/// What a copy of a flow learns from its pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ReflowConfig {
    /// `T` of the field.
    pub end_time: f64,
    /// To draw in one step ([`distillation_loss`]) instead of following straight paths.
    pub distill: bool,
    /// Groups of pairs in a step.
    pub batch: usize,
    /// Different times within a group and step; must divide its rows.
    pub times_per_group: usize,
}

impl ReflowConfig {
    /// Straight paths of a field with this end time, one group of pairs and one time in a step.
    pub fn new(end_time: f64) -> Self {
        ReflowConfig { end_time, distill: false, batch: 1, times_per_group: 1 }
    }

    /// The same, drawing in one step instead (or not).
    #[must_use]
    pub fn distill(mut self, distill: bool) -> Self {
        self.distill = distill;
        self
    }

    /// The same with this many groups of pairs in a step.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// The same with this many times within a group and step.
    #[must_use]
    pub fn times_per_group(mut self, times_per_group: usize) -> Self {
        self.times_per_group = times_per_group;
        self
    }
}

/// A copy of a trained flow that is matched with the flow's own pairs of noise and data: rectified flow (Liu et al. 2023,
/// arXiv 2209.03003, algorithm 1), or the distillation of Wu et al. 2023 (arXiv 2212.01747, section 3).
///
/// Every model with a [`VectorField`] is trained so; its own engine loads the result.
pub struct ReflowTask<R> {
    run: R,
    config: ReflowConfig,
    store: ParamStore,
    field: Arc<dyn VectorField>,
    /// The weights to begin with.
    first: BTreeMap<String, Tensor>,
    pairs: ReflowPairs,
    held_out: ReflowPairs,
    ranks: Ranks,
}

impl<R> ReflowTask<R> {
    /// The copy has its parameters in `store`, `field` among them, and begins with the weights of the `teacher`, whose
    /// pairs these are; `run`, the description of the copy, is written to `config.json`.
    ///
    /// # Errors
    /// As [`ReflowPairs::rows`]; [`Error::Config`] when there are no pairs or they do not suit the field, or for an end time, a
    /// batch or a number of times out of range.
    pub fn new(
        run: R,
        config: ReflowConfig,
        (store, field): (&ParamStore, Arc<dyn VectorField>),
        teacher: &ParamStore,
        [pairs, held_out]: [ReflowPairs; 2],
    ) -> Result<Self> {
        super::check_end_time(config.end_time)?;
        for (name, value) in [("batch", config.batch), ("times_per_group", config.times_per_group)] {
            if value == 0 {
                return Err(Error::config(name, "is 0, must be at least 1"));
            }
        }
        for some in [&pairs, &held_out] {
            some.check(&*field, config.times_per_group)?;
        }
        let first = teacher.snapshot()?;
        Ok(ReflowTask { run, config, store: store.clone(), field, first, pairs, held_out, ranks: Ranks::alone() })
    }

    /// The pairs that validations look at.
    pub fn held_out(&self) -> &ReflowPairs {
        &self.held_out
    }

    /// The mean squared error of velocities, or of data made in one step.
    fn error(&self, pairs: &ReflowPairs, rng: &mut FlowRng) -> Result<Tensor> {
        let ReflowConfig { end_time, times_per_group: times, .. } = self.config;
        let [noise, data] = pairs.rows()?;
        if self.config.distill {
            return distillation_loss(&self.field, &noise, &data, pairs.context.as_ref(), end_time);
        }
        let groups = pairs.noise.dim(0)?;
        let context = pairs.context.as_ref().map(|c| repeat_rows(c, times)).transpose()?;
        let matching = FlowMatching { times: TimeSampling::Stratified, end_time, ..FlowMatching::default() };
        let drawn = matching.pairs_with(&data, &noise, groups * times, rng)?;
        let error = self.field.squared_error(&drawn.time, &drawn.x_t, context.as_ref(), &drawn.target)?;
        Ok(error.affine(1.0 / drawn.target.elem_count().max(1) as f64, 0.0)?)
    }
}

impl<R: Serialize> Task for ReflowTask<R> {
    type Run = R;
    /// Pairs are drawn with replacement from the engine's generator: there is no position.
    type Position = ();
    type Error = Error;

    fn store(&self) -> &ParamStore {
        &self.store
    }

    fn run(&self) -> &R {
        &self.run
    }

    fn share_out(&mut self, ranks: Ranks) -> Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, _rng: &mut FlowRng) -> Result<()> {
        self.store.restore(&self.first)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let numbers = self.pairs.draw(self.config.batch, rng)?;
        let share = self.ranks.share(numbers.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let error = self.error(&self.pairs.some(&numbers[share.range()])?, &mut rng.for_rows(share))?;
        gradients.accumulate(&error.backward()?)?;
        measured(&error, share.count)
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let _paused = self.store.no_grad();
        let share = self.ranks.share(self.held_out.noise.dim(0)?);
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let numbers: Vec<u32> = share.range().map(|group| group as u32).collect();
        measured(&self.error(&self.held_out.some(&numbers)?, &mut rng.for_rows(share))?, share.count)
    }

    fn position(&self) {}

    fn restore(&mut self, (): ()) -> Result<()> {
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.config.batch
    }
}

/// The error as a mean over so many groups.
fn measured(error: &Tensor, groups: usize) -> Result<Metrics> {
    let value = host::sum(error)?;
    Ok(Metrics::new(Metric::new("error", "squared error", value)).over(groups as f64))
}
