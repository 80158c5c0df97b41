//! Straightening a trained field, and a sampler of one evaluation.

use candle_core::Tensor;

use super::few_steps::{FewSteps, Motion};
use super::{Pairs, VectorField, velocity_error};
use crate::Result;
use crate::numerics::host;

/// The data, `(B, D)`, detached, that a trained field makes of `noise`: the pairs to match a field anew with
/// ([`FlowMatching::pairs_with`](super::FlowMatching::pairs_with)).
///
/// Rectified flow (Liu et al. 2023, arXiv 2209.03003, algorithm 1): the new pairs cannot cross, so that the field
/// matched with them has straighter paths and the same margins. Solve accurately here; it is done once. Pause the
/// tracking of the model's store.
///
/// # Errors
/// As for [`sample_few_steps`](super::sample_few_steps).
pub fn reflow_pairs<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    how: FewSteps,
) -> Result<Tensor> {
    Ok(super::sample_few_steps(field, noise, context, how)?.detach())
}

/// How much the paths of a field bend: `∫ E|v(t, x_t) - u|² dt / ∫ E|u|² dt` with `u` the mean velocity of each path, from
/// noise to data; 0 for straight paths at constant speed.
///
/// The numerator is the straightness `S` of Liu et al. 2023, by the left rule; the denominator takes the scale of the data
/// out of it.
///
/// # Errors
/// As for [`sample_few_steps`](super::sample_few_steps).
pub fn straightness<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    context: Option<&Tensor>,
    how: FewSteps,
) -> Result<f64> {
    let mut velocities = Vec::with_capacity(how.steps);
    let data = Motion { field, context }.solve(noise, how, |_, v| velocities.push(v.detach()))?;
    let mean = (noise - data)?.affine(1.0 / how.end_time, 0.0)?.detach();
    let square = |t: &Tensor| host::sum(&t.sqr()?);
    let bent = velocities.iter().map(|v| square(&(v - &mean)?)).sum::<Result<f64>>()?;
    Ok(bent / how.steps as f64 / square(&mean)?.max(f64::MIN_POSITIVE))
}

/// The mean squared error of data made from noise, both `(B, D)`, by one evaluation at `t = T`: a tracked scalar.
///
/// `x̂ = ε - T·v(T, ε)` is one Euler step, so that a field trained with this loss is sampled by
/// [`sample_few_steps`](super::sample_few_steps) with one step of [`Method::Euler`](crate::cnf::ode::Method::Euler). On pairs of [`reflow_pairs`] this
/// is the distillation of Liu et al. 2023 and of "Fast Point Cloud Generation with Straight Flows" (Wu
/// et al. 2023, arXiv 2212.01747). In units of the data, whatever `T`.
///
/// # Errors
/// Those of the field.
pub fn distillation_loss<F: VectorField + ?Sized>(
    field: &F,
    noise: &Tensor,
    data: &Tensor,
    context: Option<&Tensor>,
    end_time: f64,
) -> Result<Tensor> {
    let time = host::full(end_time, 1, noise.dtype(), noise.device())?;
    let target = (noise - data)?.affine(1.0 / end_time, 0.0)?.detach();
    let pairs = Pairs { noise: noise.clone(), time, x_t: noise.clone(), target };
    Ok(velocity_error(field, &pairs, context)?.mean(0)?.affine(end_time * end_time, 0.0)?)
}
