//! Numerical Jacobians: central differences and an LU decomposition, both in f64.

use candle_core::{DType, Device, Tensor};
use faer::Mat;

use crate::error::Direction;
use crate::{Bijector, Error, Result};

/// The step of central differences in f64: truncation `h²` and round-off `1e-16 / h` balance near it.
pub const STEP: f64 = 1e-5;

/// `log |det J|` of every row of `x` by central differences, shape `(B,)` as a vector.
///
/// `x` is `(B, event…)` in f64 on the CPU; `context` has one row per row of `x`.
///
/// # Errors
/// Whatever the bijector returns, and [`Error::Config`] when it does not keep the number of elements.
pub fn log_det(
    layer: &dyn Bijector,
    direction: Direction,
    x: &Tensor,
    context: Option<&Tensor>,
    step: f64,
) -> Result<Vec<f64>> {
    (0..x.dim(0)?)
        .map(|row| {
            let context = context.map(|c| c.narrow(0, row, 1)).transpose()?;
            let jacobian = jacobian(layer, direction, &x.narrow(0, row, 1)?, context.as_ref(), step)?;
            Ok(log_abs_det(&jacobian))
        })
        .collect()
}

/// The Jacobian `∂output_i / ∂input_j` at the single row `x` of shape `(1, event…)`.
///
/// All `2D` displaced inputs go through the bijector as one batch.
///
/// # Errors
/// As for [`log_det`].
pub fn jacobian(
    layer: &dyn Bijector,
    direction: Direction,
    x: &Tensor,
    context: Option<&Tensor>,
    step: f64,
) -> Result<Mat<f64>> {
    let n = x.elem_count();
    let point = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let mut displaced = Vec::with_capacity(2 * n * n);
    for sign in [1.0, -1.0] {
        for j in 0..n {
            displaced.extend(point.iter().enumerate().map(|(i, v)| if i == j { v + sign * step } else { *v }));
        }
    }
    let dims: Vec<usize> = std::iter::once(2 * n).chain(x.dims().iter().skip(1).copied()).collect();
    let batch = Tensor::from_vec(displaced, dims, &Device::Cpu)?;
    let context = context.map(|c| c.repeat(leading(2 * n, c.rank()))).transpose()?;
    let image = match direction {
        Direction::Encode => layer.encode(&batch, context.as_ref())?.0,
        Direction::Decode => layer.decode(&batch, context.as_ref())?.0,
    };
    let image = image.detach().flatten_from(1)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    if image.len() != 2 * n || image.iter().any(|row| row.len() != n) {
        return Err(Error::config(layer.name(), format!("{direction} does not keep the {n} elements of its input")));
    }
    Ok(Mat::from_fn(n, n, |i, j| (image[j][i] - image[n + j][i]) / (2.0 * step)))
}

/// `∂f_i/∂x_j` of any map of tensors as row `i`, entry `j` (flat indices), by central differences at `x`, in f64.
///
/// # Errors
/// Whatever `f` returns.
pub fn of_map(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Vec<f64>>> {
    let point = super::values(x)?;
    let at = |j: usize, step: f64| -> Result<Vec<f64>> {
        let mut moved = point.clone();
        moved[j] += step;
        super::values(&f(&Tensor::from_vec(moved, x.shape(), &Device::Cpu)?)?)
    };
    let column = |j: usize| -> Result<Vec<f64>> {
        Ok(at(j, STEP)?.iter().zip(at(j, -STEP)?).map(|(up, down)| (up - down) / (2.0 * STEP)).collect())
    };
    let columns: Vec<Vec<f64>> = (0..point.len()).map(column).collect::<Result<_>>()?;
    let rows = columns.first().map_or(0, Vec::len);
    Ok((0..rows).map(|i| columns.iter().map(|c| c[i]).collect()).collect())
}

/// `n` repetitions of dimension 0, one of each other.
fn leading(n: usize, rank: usize) -> Vec<usize> {
    std::iter::once(n).chain(std::iter::repeat_n(1, rank.saturating_sub(1))).collect()
}

/// `log |det M|` of a square matrix; `-∞` when it is singular.
pub fn log_abs_det(matrix: &Mat<f64>) -> f64 {
    if matrix.nrows() == 0 {
        return 0.0;
    }
    let lu = matrix.partial_piv_lu();
    let u = lu.U();
    (0..u.nrows()).map(|i| u[(i, i)].abs().ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_abs_det_of_known_matrices() {
        let m = Mat::from_fn(2, 2, |i, j| [[0.0, 2.0], [-3.0, 7.0]][i][j]);
        assert!((log_abs_det(&m) - 6.0_f64.ln()).abs() < 1e-14);
        let singular = Mat::from_fn(2, 2, |i, _| i as f64);
        assert_eq!(log_abs_det(&singular), f64::NEG_INFINITY);
    }
}
