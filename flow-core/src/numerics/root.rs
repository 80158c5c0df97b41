//! The root of an increasing function of one variable: what has no closed inverse is inverted by this.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::error::Direction;
use crate::{Error, Result};

/// Far more than bisection alone needs from one end of an f64 bracket to neighbouring numbers.
pub(crate) const MAX_STEPS: usize = 400;

/// The `x` in `[low, high]` with `f(x) = target`, for an increasing `f` that returns its value and its slope; `None`
/// when it is not found (a value is not finite).
///
/// Newton's step is taken while it stays inside the bracket and halves the step before; otherwise the bracket is
/// halved. So the worst case is bisection and the usual one is quadratic.
pub(crate) fn increasing(f: impl Fn(f64) -> (f64, f64), target: f64, [mut low, mut high]: [f64; 2]) -> Option<f64> {
    if !(low.is_finite() && high.is_finite() && target.is_finite()) {
        return None;
    }
    let mut x = low + 0.5 * (high - low);
    let mut step = high - low;
    for _ in 0..MAX_STEPS {
        let (value, slope) = f(x);
        if value == target {
            return Some(x);
        }
        if value > target {
            high = x
        } else {
            low = x
        }
        let newton = x - (value - target) / slope;
        let helps = newton > low && newton < high && 2.0 * (newton - x).abs() <= step;
        let next = if helps { newton } else { low + 0.5 * (high - low) };
        step = (next - x).abs();
        x = next;
        if step <= f64::EPSILON * (1.0 + x.abs()) {
            return Some(x);
        }
    }
    None
}

/// Solves for `targets`, one for each entry of a tensor like `like`, in f64, outside any graph, in parallel; `solve` is
/// given the entry's place too. The roots have the shape, type and device of `like`.
///
/// # Errors
/// [`Error::NotInvertible`] naming `layer` and the rows for which `solve` finds no root.
pub(crate) fn all(
    layer: &str,
    like: &Tensor,
    targets: &[f64],
    solve: impl Fn(usize, f64) -> Option<f64> + Sync,
) -> Result<Tensor> {
    let found = targets.par_iter().enumerate().map(|(i, &target)| solve(i, target)).collect::<Vec<Option<f64>>>();
    if let Some(roots) = found.iter().copied().collect::<Option<Vec<f64>>>() {
        let roots = Tensor::from_vec(roots, like.shape(), &Device::Cpu)?;
        return Ok(roots.to_dtype(like.dtype())?.to_device(like.device())?);
    }
    let unsolved: Vec<usize> = (0..found.len()).filter(|&i| found[i].is_none()).collect();
    let per_row = (like.elem_count() / like.dim(0)?.max(1)).max(1);
    let mut rows: Vec<usize> = unsolved.iter().map(|i| i / per_row).collect();
    rows.dedup();
    let target = unsolved.first().and_then(|&i| targets.get(i)).copied().unwrap_or(f64::NAN);
    let reason = format!("no root of f(x) = {target} within {MAX_STEPS} steps; are input and parameters finite?");
    Err(Error::NotInvertible { layer: layer.to_string(), direction: Direction::Decode, rows, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_roots_to_the_last_digits_where_newton_alone_would_run_away() {
        // The slope of the hyperbolic tangent vanishes away from the root.
        let root = increasing(|x| (x.tanh(), 1.0 - x.tanh().powi(2)), 0.5, [-50.0, 700.0]).unwrap();
        assert!((root - 0.5_f64.atanh()).abs() < 1e-14, "{root}");
        let cube = increasing(|x| (x * x * x, 3.0 * x * x), 27.0, [-1e6, 1e6]).unwrap();
        assert!((cube - 3.0).abs() < 1e-14, "{cube}");
        // A step has no slope at all.
        let step = increasing(|x| (if x < 0.3 { -1.0 } else { 1.0 }, 0.0), 0.0, [0.0, 1.0]).unwrap();
        assert!((step - 0.3).abs() < 1e-15);
    }

    #[test]
    fn what_is_not_finite_has_no_root() {
        assert!(increasing(|x| (x, 1.0), f64::NAN, [0.0, 1.0]).is_none());
        let targets = Tensor::new(&[1.0_f64, f64::INFINITY], &Device::Cpu).unwrap();
        let error =
            all("layer", &targets, &[1.0, f64::INFINITY], |_, t| increasing(|x| (x, 1.0), t, [-9.0, 9.0])).unwrap_err();
        assert!(error.rows() == [1] && error.to_string().contains("inf"), "{error}");
    }
}
