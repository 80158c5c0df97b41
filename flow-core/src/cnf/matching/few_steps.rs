//! Sampling with a fixed, small number of evaluations.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{VectorField, check_end_time};
use crate::{Error, Result};

/// A one-step method without error estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// One evaluation a step, order 1: enough for straight paths.
    Euler,
    /// Two evaluations, order 2.
    Midpoint,
    /// Two evaluations, order 2, the trapezoidal rule.
    #[default]
    Heun,
    /// Four evaluations, order 4, the classical one.
    Rk4,
}

impl Method {
    /// Evaluations of the field in one step.
    pub fn evaluations(self) -> usize {
        match self {
            Method::Euler => 1,
            Method::Midpoint | Method::Heun => 2,
            Method::Rk4 => 4,
        }
    }
}

/// A field with the context of one solve.
pub(super) struct Motion<'a, F: ?Sized> {
    pub(super) field: &'a F,
    pub(super) context: Option<&'a Tensor>,
}

impl<F: VectorField + ?Sized> Motion<'_, F> {
    /// The velocity at a time that all rows share.
    pub(super) fn velocity(&self, t: f64, x: &Tensor) -> Result<Tensor> {
        self.field.value(&Tensor::full(t, 1, x.device())?.to_dtype(x.dtype())?, x, self.context)
    }

    /// `x` a step of length `h` on, given the velocity at its start.
    fn step(&self, method: Method, t: f64, h: f64, x: &Tensor, start: &Tensor) -> Result<Tensor> {
        let ahead = |part: f64, slope: &Tensor| -> Result<Tensor> { Ok((x + slope.affine(part * h, 0.0)?)?) };
        match method {
            Method::Euler => ahead(1.0, start),
            Method::Midpoint => ahead(1.0, &self.velocity(t + 0.5 * h, &ahead(0.5, start)?)?),
            Method::Heun => {
                let end = self.velocity(t + h, &ahead(1.0, start)?)?;
                ahead(0.5, &(start + end)?)
            }
            Method::Rk4 => {
                let second = self.velocity(t + 0.5 * h, &ahead(0.5, start)?)?;
                let third = self.velocity(t + 0.5 * h, &ahead(0.5, &second)?)?;
                let fourth = self.velocity(t + h, &ahead(1.0, &third)?)?;
                ahead(1.0 / 6.0, &((start + fourth)? + (second + third)?.affine(2.0, 0.0)?)?)
            }
        }
    }

    /// Solves from noise at `t = T` to data at 0 in equal steps; `seen` is shown place and velocity at the start of each.
    pub(super) fn solve(
        &self,
        noise: &Tensor,
        steps: usize,
        method: Method,
        end_time: f64,
        mut seen: impl FnMut(&Tensor, &Tensor),
    ) -> Result<Tensor> {
        check_end_time(end_time)?;
        if steps == 0 {
            return Err(Error::config("steps", "is 0, must be at least 1"));
        }
        let h = -end_time / steps as f64;
        let mut x = noise.clone();
        for k in 0..steps {
            let t = end_time * (steps - k) as f64 / steps as f64;
            let start = self.velocity(t, &x)?;
            seen(&x, &start);
            x = self.step(method, t, h, &x, &start)?;
        }
        Ok(x)
    }
}

/// Turns noise `(B, D)` into data by `steps` equal steps from `t = T` to 0.
///
/// Meant for fields that were matched, above all with transport or reflow: their paths are nearly straight and a few
/// steps suffice. It costs `steps · method.evaluations()` evaluations. Pause the tracking of the model's store, or the
/// graph of all evaluations is kept.
///
/// # Errors
/// [`Error::Config`] for no step or an end time that is not positive; those of the field.
pub fn sample_few_steps<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    steps: usize,
    method: Method,
    end_time: f64,
) -> Result<Tensor> {
    Motion { field, context }.solve(noise, steps, method, end_time, |_, _| {})
}

/// The `steps + 1` states of [`sample_few_steps`], noise first and data last, detached: how points travel.
///
/// # Errors
/// As for [`sample_few_steps`].
pub fn trajectory<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    steps: usize,
    method: Method,
    end_time: f64,
) -> Result<Vec<Tensor>> {
    let mut states = Vec::with_capacity(steps + 1);
    let last = Motion { field, context }.solve(noise, steps, method, end_time, |x, _| states.push(x.detach()))?;
    states.push(last.detach());
    Ok(states)
}
