//! Numerical integration of densities: does it all add up to one?
//!
//! Invertibility tests cannot see a log-determinant that is wrong in the same way in both directions;
//! the integral of the density can. The midpoint rule is enough: for a smooth function that decays
//! inside the box its error falls faster than any power of the spacing.

use candle_core::{DType, Device, Tensor};

use crate::{Density, Result};

/// Points evaluated at once.
const CHUNK: usize = 8192;

/// `∫ exp(log_density(x)) dx` over the box `[low, high]^dims` with `points` midpoints per axis.
///
/// `log_density` maps `(N, dims)` to `(N,)`; points have type `dtype`, the sum is in f64.
///
/// # Errors
/// Whatever `log_density` returns.
pub fn integrate(
    log_density: impl Fn(&Tensor) -> Result<Tensor>,
    dims: usize,
    [low, high]: [f64; 2],
    points: usize,
    dtype: DType,
) -> Result<f64> {
    let width = (high - low) / points as f64;
    let total = points.pow(u32::try_from(dims).unwrap_or(u32::MAX));
    let mut sum = 0.0;
    for start in (0..total).step_by(CHUNK) {
        let count = CHUNK.min(total - start);
        let mut grid = Vec::with_capacity(count * dims);
        for index in start..start + count {
            let mut rest = index;
            for _ in 0..dims {
                grid.push(low + width * ((rest % points) as f64 + 0.5));
                rest /= points;
            }
        }
        let grid = Tensor::from_vec(grid, (count, dims), &Device::Cpu)?.to_dtype(dtype)?;
        let log = log_density(&grid)?.detach().to_dtype(DType::F64)?;
        sum += log.exp()?.sum_all()?.to_scalar::<f64>()?;
    }
    Ok(sum * width.powi(i32::try_from(dims).unwrap_or(i32::MAX)))
}

/// `∫ p(x | context) dx` of a density over vectors, over the box `[low, high]^D`.
///
/// `context` has one row, which holds for every point.
///
/// # Errors
/// As for [`integrate`].
pub fn total_probability(
    density: &dyn Density,
    context: Option<&Tensor>,
    bounds: [f64; 2],
    points: usize,
) -> Result<f64> {
    let _paused = density.store().no_grad();
    let dims = density.event_shape().iter().product();
    let log_density = |x: &Tensor| {
        let n = x.dim(0)?;
        let rows = context
            .map(|c| {
                let mut shape = c.dims().to_vec();
                shape[0] = n;
                c.broadcast_as(shape)?.contiguous()
            })
            .transpose()?;
        density.log_prob(x, rows.as_ref())
    };
    integrate(log_density, dims, bounds, points, density.store().dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_integrals() {
        // ∫ over [0, 2]² of exp(-x - y) = (1 - e^-2)².
        let found = integrate(|x| Ok(x.sum(1)?.neg()?), 2, [0.0, 2.0], 400, DType::F64).unwrap();
        let exact = (1.0 - (-2.0_f64).exp()).powi(2);
        assert!((found - exact).abs() < 1e-5, "{found} against {exact}");
    }
}
