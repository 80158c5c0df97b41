//! Whether a density falls off: one that does not has no integral, and nothing can be fitted to it.

use candle_core::Tensor;
use flow_core::Density;
use flow_core::numerics::host;

use super::target::{LogDensityResult, Target};
use crate::Result;

/// Samples from which lines go out.
const STARTS: usize = 8;
/// Coordinates that are looked at, the first of them.
const COORDINATES: usize = 64;
/// How far out, in deviations of the samples.
const FAR: [f64; 2] = [100.0, 1000.0];

/// The first coordinate along which the density, at samples, falls no faster than `1/t`, so that the integral over that line
/// is infinite: for almost every point no line may be such. Only where the flow reaches is looked at.
pub(super) fn does_not_decay<Q: Density + ?Sized, F: Fn(&Tensor) -> LogDensityResult>(
    q: &Q,
    target: &Target<F>,
    x: &Tensor,
) -> Result<Option<usize>> {
    let (rows, features) = (x.dim(0)?.min(STARTS), x.elem_count() / x.dim(0)?.max(1));
    if rows < 2 || q.event_shape().len() != 1 {
        return Ok(None);
    }
    let _paused = q.store().no_grad();
    let starts = host::wide(&x.narrow(0, 0, rows)?)?.to_vec2::<f64>()?;
    for coordinate in 0..features.min(COORDINATES) {
        let mean = starts.iter().map(|row| row[coordinate]).sum::<f64>() / rows as f64;
        let spread = starts.iter().map(|row| (row[coordinate] - mean).powi(2)).sum::<f64>() / rows as f64;
        for sign in [-1.0, 1.0] {
            let moved = |far: f64| -> Result<Option<Vec<f64>>> {
                let mut points = starts.clone();
                points.iter_mut().for_each(|row| row[coordinate] += sign * far * spread.sqrt().max(1e-3));
                let points = host::tensor_like(&points.concat(), (rows, features), x)?;
                Ok(reached(q, target, &points))
            };
            let (Some(near), Some(far)) = (moved(FAR[0])?, moved(FAR[1])?) else { continue };
            let least = (FAR[0] / FAR[1]).ln();
            if near.iter().zip(&far).all(|(near, far)| far - near >= least) {
                return Ok(Some(coordinate));
            }
        }
    }
    Ok(None)
}

/// The logarithms at points, if the flow has a density at each of them and the target one above zero.
fn reached<Q: Density + ?Sized, F: Fn(&Tensor) -> LogDensityResult>(
    q: &Q,
    target: &Target<F>,
    points: &Tensor,
) -> Option<Vec<f64>> {
    let of_flow = host::numbers(&q.log_prob(points, None).ok()?).ok()?;
    let logs = target.evaluate(points).ok()?.logs;
    (of_flow.iter().all(|l| l.is_finite()) && logs.iter().all(|l| l.is_finite())).then_some(logs)
}
