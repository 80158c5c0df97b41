//! Flow matching: training a vector field without solving its equation.
//!
//! Time runs as everywhere in [`cnf`](super): from data at `t = 0` to noise at `t = T`. Data and noise are joined by a
//! straight path, and the field is regressed on the path's velocity (Lipman et al. 2023, arXiv 2210.02747, section 4;
//! Liu et al. 2023, arXiv 2209.03003, equation 1; both with time reversed). The field that comes out is the one that
//! a continuous flow integrates: encoding solves from 0 to `T`, and the likelihood of a matched model is the
//! ordinary one.
//!
//! Which noise goes with which data is the [`Pairing`]; optimal transport makes paths that do not cross, and fields
//! that few steps integrate ([`sample_few_steps`]). [`OfflinePlan`] computes it once for shapes that stay the same.
//! [`reflow_pairs`] straightens a trained field, and [`distillation_loss`] makes a sampler of one evaluation from it;
//! [`ReflowTask`] is both as a training run.

mod few_steps;
mod pairing;
mod plan;
mod reflow;
mod straighten;
#[cfg(test)]
mod tests;
mod times;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{VectorField, groups};
use crate::{Error, FlowRng, Result, Share};

pub use few_steps::{FewSteps, sample_few_steps, trajectory};
pub use pairing::Pairing;
pub use plan::OfflinePlan;
pub use reflow::{distillation_loss, reflow_pairs, straightness};
pub use straighten::{ReflowConfig, ReflowPairs, ReflowTask};
pub use times::TimeSampling;

const NAME: &str = "flow matching";

/// How a field is matched: the pairs of data and noise, and the times at which it is asked.
///
/// With `s = t/T`, data `x` and noise `ε`,
///
/// `x_t = (1 - s)·x + (σ + (1 - σ)·s)·ε` and the target is `dx_t/dt = ((1 - σ)·ε - x)/T`.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::FlowRng;
/// use flow_core::cnf::matching::{FlowMatching, Pairing};
///
/// # fn main() -> flow_core::Result<()> {
/// let mut rng = FlowRng::seed_from(1);
/// // Two clouds of four points each: one time per cloud, transport within each cloud.
/// let clouds = rng.normal((8, 3), DType::F32, &Device::Cpu)?;
/// let matching = FlowMatching::new(Pairing::MinibatchOt { block: 4 });
/// let pairs = matching.pairs(&clouds, 2, &mut rng)?;
/// assert_eq!((pairs.time.dims(), pairs.x_t.dims(), pairs.target.dims()), (&[2][..], &[8, 3][..], &[8, 3][..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlowMatching {
    /// Which noise goes with which data.
    pub coupling: Pairing,
    /// How times are drawn.
    pub times: TimeSampling,
    /// `T`, the end time of the flow that integrates the field.
    pub end_time: f64,
    /// `σ`, the standard deviation of the noise that is left at `t = 0`: a model of smoothed data. 0 for exact paths.
    pub sigma_min: f64,
}

impl Default for FlowMatching {
    /// Independent pairs, uniform times, `T = 1`, `σ = 0`.
    fn default() -> Self {
        FlowMatching { coupling: Pairing::Independent, times: TimeSampling::Uniform, end_time: 1.0, sigma_min: 0.0 }
    }
}

/// One batch to regress on, none of it tracked.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// The noise that each row of the data is paired with, `(B, D)`.
    pub noise: Tensor,
    /// `t` in `[0, T]`, `(G,)`.
    pub time: Tensor,
    /// The points on the paths, `(B, D)`.
    pub x_t: Tensor,
    /// Their velocities, `(B, D)`.
    pub target: Tensor,
}

impl FlowMatching {
    /// Noise and data paired by `coupling`; uniform times, `T = 1`, `σ = 0`.
    pub fn new(coupling: Pairing) -> Self {
        FlowMatching { coupling, ..FlowMatching::default() }
    }

    /// The same with times drawn in another way.
    #[must_use]
    pub fn times(mut self, times: TimeSampling) -> Self {
        self.times = times;
        self
    }

    /// The same with another end time.
    #[must_use]
    pub fn end_time(mut self, end_time: f64) -> Self {
        self.end_time = end_time;
        self
    }

    /// The same with noise of this deviation left at the data.
    #[must_use]
    pub fn sigma_min(mut self, sigma_min: f64) -> Self {
        self.sigma_min = sigma_min;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        self.coupling.check()?;
        self.times.check()?;
        check_end_time(self.end_time)?;
        if !(0.0..1.0).contains(&self.sigma_min) {
            return Err(Error::config("sigma_min", format!("is {}, must be in [0, 1)", self.sigma_min)));
        }
        Ok(())
    }

    /// Draws noise, pairs and times for a batch of data `(B, D)` in `count` groups of consecutive rows.
    ///
    /// A group has one time, and transport stays within it; `count = B` gives every row a time of its own, and
    /// transport then goes over the whole batch.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is a matrix; [`Error::Context`] when `count` does not divide its rows;
    /// [`Error::Config`] from [`FlowMatching::check`].
    pub fn pairs(&self, x: &Tensor, count: usize, rng: &mut FlowRng) -> Result<Pairs> {
        let noise = rng.normal(x.shape(), x.dtype(), x.device())?;
        let noise = self.coupling.couple(x, noise, groups(NAME, rows(x)?, count)?, rng)?;
        self.pairs_with(x, &noise, count, rng)
    }

    /// As [`FlowMatching::pairs`] for noise `(B, D)` that is paired already, by an [`OfflinePlan`] or by reflow.
    ///
    /// # Errors
    /// As for [`FlowMatching::pairs`]; [`Error::Shape`] when the noise has another shape than the data.
    pub fn pairs_with(&self, x: &Tensor, noise: &Tensor, count: usize, rng: &mut FlowRng) -> Result<Pairs> {
        self.check()?;
        let s = self.times.draw(count, rng);
        let time: Vec<f64> = s.iter().map(|s| s * self.end_time).collect();
        let time = Tensor::from_vec(time, count, &candle_core::Device::Cpu)?;
        let time = time.to_dtype(x.dtype())?.to_device(x.device())?;
        let (x_t, target) = self.path(x, noise, &time)?;
        Ok(Pairs { noise: noise.detach(), time, x_t, target })
    }

    /// The points at `time` `(G,)` of the paths from data to noise, both `(B, D)`, and their velocities.
    ///
    /// # Errors
    /// As for [`FlowMatching::pairs_with`].
    pub fn path(&self, x: &Tensor, noise: &Tensor, time: &Tensor) -> Result<(Tensor, Tensor)> {
        let per_group = groups(NAME, rows(x)?, time.elem_count())?;
        if noise.dims() != x.dims() {
            let (layer, expected) = ("flow matching (noise)".into(), format!("the shape of the data, {:?}", x.dims()));
            return Err(Error::Shape { layer, expected, actual: noise.dims().to_vec() });
        }
        let (x, noise) = (x.detach(), noise.detach());
        let s = (time.detach() / self.end_time)?.unsqueeze(1)?;
        let s = s.repeat((1, per_group))?.reshape((x.dim(0)?, 1))?;
        let towards = s.affine(1.0 - self.sigma_min, self.sigma_min)?;
        let x_t = (x.broadcast_mul(&s.affine(-1.0, 1.0)?)? + noise.broadcast_mul(&towards)?)?;
        let target = (noise.affine(1.0 - self.sigma_min, 0.0)? - x)?.affine(1.0 / self.end_time, 0.0)?;
        Ok((x_t, target))
    }

    /// The mean squared error of the field's velocity over rows and dimensions, a tracked scalar.
    ///
    /// `context` is `(count, C)` where the field takes one.
    ///
    /// # Errors
    /// As for [`FlowMatching::pairs`], and those of the field. [`Error::Config`] for transport over rows that have
    /// contexts of their own: the noise would then depend on the context, and samples given a context would be wrong.
    pub fn loss<F: VectorField + ?Sized>(
        &self,
        field: &F,
        x: &Tensor,
        context: Option<&Tensor>,
        count: usize,
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        let pairs = self.checked_pairs(field, x, context, count, rng)?;
        let error = field.squared_error(&pairs.time, &pairs.x_t, context, &pairs.target)?;
        Ok(error.affine(1.0 / pairs.target.elem_count().max(1) as f64, 0.0)?)
    }

    /// As [`FlowMatching::loss`] with a time for each row, over some rows of a batch that is drawn as a whole, transport and
    /// all: the part of a rank that shares it with others, which all call it with the same generator.
    ///
    /// # Errors
    /// As for [`FlowMatching::loss`]; [`Error::Config`] for rows that are not there.
    pub fn loss_of_rows<F: VectorField + ?Sized>(
        &self,
        field: &F,
        x: &Tensor,
        context: Option<&Tensor>,
        share: Share,
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        let count = rows(x)?;
        if share.of != count || share.range().end > count {
            return Err(Error::config("rows", format!("{share:?}, the batch has {count}")));
        }
        let all = self.checked_pairs(field, x, context, count, rng)?;
        let part = |t: &Tensor| t.narrow(0, share.first, share.count);
        let (time, x_t, target) = (part(&all.time)?, part(&all.x_t)?, part(&all.target)?);
        let context = context.map(part).transpose()?;
        let error = field.squared_error(&time, &x_t, context.as_ref(), &target)?;
        Ok(error.affine(1.0 / target.elem_count().max(1) as f64, 0.0)?)
    }

    /// The mean squared error of each group, `(count,)`, tracked.
    ///
    /// # Errors
    /// As for [`FlowMatching::loss`].
    pub fn group_losses<F: VectorField + ?Sized>(
        &self,
        field: &F,
        x: &Tensor,
        context: Option<&Tensor>,
        count: usize,
        rng: &mut FlowRng,
    ) -> Result<Tensor> {
        velocity_error(field, &self.checked_pairs(field, x, context, count, rng)?, context)
    }

    /// Pairs, unless transport would mix rows of different contexts.
    fn checked_pairs<F: VectorField + ?Sized>(
        &self,
        field: &F,
        x: &Tensor,
        context: Option<&Tensor>,
        count: usize,
        rng: &mut FlowRng,
    ) -> Result<Pairs> {
        let mixes = self.coupling != Pairing::Independent && count > 1 && count == rows(x)?;
        if mixes && context.is_some() && field.context_dim().is_some() {
            let reason = "transport would pair rows across contexts; use independent pairs, or groups of rows";
            return Err(Error::config("coupling", reason));
        }
        self.pairs(x, count, rng)
    }
}

/// The mean squared error of a field's velocity in each group of `pairs`, `(G,)`, tracked.
///
/// # Errors
/// Those of the field.
pub fn velocity_error<F: VectorField + ?Sized>(field: &F, pairs: &Pairs, context: Option<&Tensor>) -> Result<Tensor> {
    let error = (field.value(&pairs.time, &pairs.x_t, context)? - &pairs.target)?.sqr()?;
    let count = pairs.time.elem_count();
    let per_group = error.elem_count() / count.max(1);
    Ok(error.reshape((count, per_group))?.mean(1)?)
}

/// Every row of a matrix `times` times in a row.
///
/// # Errors
/// Candle's unless `x` is a matrix.
pub fn repeat_rows(x: &Tensor, times: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    Ok(x.unsqueeze(1)?.broadcast_as((rows, times, width))?.contiguous()?.reshape((rows * times, width))?)
}

/// The rows of a matrix.
fn rows(x: &Tensor) -> Result<usize> {
    match x.dims() {
        &[rows, _] => Ok(rows),
        other => Err(Error::Shape { layer: NAME.into(), expected: "(B, D)".into(), actual: other.to_vec() }),
    }
}

/// Refuses an end time that is not positive and finite.
fn check_end_time(end_time: f64) -> Result<()> {
    if end_time > 0.0 && end_time.is_finite() {
        return Ok(());
    }
    Err(Error::config("end_time", format!("is {end_time}, must be a finite number > 0")))
}
