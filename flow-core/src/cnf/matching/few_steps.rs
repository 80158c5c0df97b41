//! Sampling with a fixed, small number of evaluations.

use candle_core::Tensor;

use super::{VectorField, check_end_time};
use crate::Result;
use crate::cnf::ode::{Method, SolveOptions, Stepping, solve_recorded};
use crate::numerics::host;

/// How noise at `t = T` is carried to data at 0: in a few equal steps.
///
/// It costs `steps · method.stages()` evaluations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FewSteps {
    /// The number of steps, at least one.
    pub steps: usize,
    /// What each step is made with.
    pub method: Method,
    /// `T` of the field, positive.
    pub end_time: f64,
}

impl FewSteps {
    /// `steps` steps of `method` from `T = 1`.
    pub fn new(steps: usize, method: Method) -> Self {
        FewSteps { steps, method, end_time: 1.0 }
    }

    /// The same for another `T`.
    #[must_use]
    pub fn with_end_time(mut self, end_time: f64) -> Self {
        self.end_time = end_time;
        self
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
        self.field.value(&host::full(t, 1, x.dtype(), x.device())?, x, self.context)
    }

    /// Solves from noise at `t = T` to data at 0 in equal steps; `seen` is shown place and velocity at the start of each.
    pub(super) fn solve(
        &self,
        noise: &Tensor,
        FewSteps { steps, method, end_time }: FewSteps,
        mut seen: impl FnMut(&Tensor, &Tensor),
    ) -> Result<Tensor> {
        check_end_time(end_time)?;
        let options = SolveOptions { method, stepping: Stepping::fixed(steps), ..SolveOptions::default() };
        let mut velocity = |t: f64, x: &Tensor| self.velocity(t, x);
        let solution = solve_recorded(&mut velocity, noise, [end_time, 0.0], &options, &mut |step| {
            step.slopes.first().into_iter().for_each(|start| seen(step.y, start));
            Ok(())
        })?;
        Ok(solution.y)
    }
}

/// Turns noise `(B, D)` into data.
///
/// Meant for fields that were matched, above all with transport or reflow: their paths are nearly straight and a few
/// steps suffice. Pause the tracking of the model's store, or the graph of all evaluations is kept.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for no step or an end time that is not positive; those of the field.
pub fn sample_few_steps<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    how: FewSteps,
) -> Result<Tensor> {
    Motion { field, context }.solve(noise, how, |_, _| {})
}

/// The `steps + 1` states of [`sample_few_steps`], noise first and data last, detached: how points travel.
///
/// # Errors
/// As for [`sample_few_steps`].
pub fn trajectory<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    how: FewSteps,
) -> Result<Vec<Tensor>> {
    let mut states = Vec::with_capacity(how.steps + 1);
    let last = Motion { field, context }.solve(noise, how, |x, _| states.push(x.detach()))?;
    states.push(last.detach());
    Ok(states)
}
