//! Small dense linear algebra in f64, through faer.
//!
//! Candle has no LU, no inverse and no determinant. The matrices that flows need them for are at most a
//! few hundred rows wide, so they are copied to the CPU, treated in f64 whatever the model's element
//! type, and copied back. Failures name the layer that asked.

use candle_core::{DType, Device, Tensor};
use faer::Mat;
use faer::linalg::solvers::DenseSolveCore;

use crate::error::Direction;
use crate::{Error, FlowRng, Result};

/// The entries of a square tensor `(C, C)` as an f64 matrix.
///
/// # Errors
/// [`Error::Shape`] unless `w` is square, [`Error::NonFinite`] for a NaN or an infinity.
fn to_matrix(layer: &str, w: &Tensor) -> Result<Mat<f64>> {
    let &[rows, cols] = w.dims() else { return Err(not_square(layer, w)) };
    if rows != cols {
        return Err(not_square(layer, w));
    }
    // To the CPU first: Metal has no f64.
    let values = w.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::NonFinite { layer: layer.to_string(), what: "weight matrix".into(), step: None });
    }
    Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
}

fn not_square(layer: &str, w: &Tensor) -> Error {
    Error::Shape { layer: layer.to_string(), expected: "a square matrix".into(), actual: w.dims().to_vec() }
}

/// A faer matrix as a tensor.
fn to_tensor(m: &Mat<f64>, dtype: DType, device: &Device) -> Result<Tensor> {
    let values: Vec<f64> = (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)])).collect();
    Ok(Tensor::from_vec(values, (m.nrows(), m.ncols()), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// `W⁻¹` and `ln |det W|` from one LU decomposition with row pivoting.
///
/// # Errors
/// [`Error::NotInvertible`] when a pivot vanishes to working precision, and those of a bad matrix.
fn invert(layer: &str, w: &Tensor, direction: Direction) -> Result<(Mat<f64>, f64)> {
    let matrix = to_matrix(layer, w)?;
    let lu = matrix.partial_piv_lu();
    let pivots: Vec<f64> = (0..matrix.nrows()).map(|i| lu.U()[(i, i)].abs()).collect();
    let largest = pivots.iter().copied().fold(0.0, f64::max);
    let smallest = pivots.iter().copied().fold(f64::INFINITY, f64::min);
    if smallest <= largest * f64::EPSILON {
        let reason =
            format!("its {0} x {0} weight is singular (pivots from {smallest:e} to {largest:e})", pivots.len());
        return Err(Error::NotInvertible { layer: layer.to_string(), direction, reason });
    }
    Ok((lu.inverse(), pivots.iter().map(|p| p.ln()).sum()))
}

/// `W⁻¹` of a square tensor, differentiable with respect to `w`: `dW⁻¹ = -W⁻¹ dW W⁻¹`.
///
/// Computed in f64 off the graph; what enters the graph is the tangent `V - V (W - W₀) V` with `V = W₀⁻¹`,
/// which has exactly that value and that derivative on every device.
///
/// # Errors
/// [`Error::NotInvertible`] or [`Error::NonFinite`] naming `layer`.
pub(crate) fn inverse(layer: &str, w: &Tensor) -> Result<Tensor> {
    let (inverse, _) = invert(layer, w, Direction::Decode)?;
    let inverse = to_tensor(&inverse, w.dtype(), w.device())?;
    if !w.track_op() {
        return Ok(inverse);
    }
    let change = inverse.matmul(&(w - w.detach())?)?.matmul(&inverse)?;
    Ok((inverse - change)?)
}

/// `ln |det W|`, a scalar tensor that is differentiable with respect to `w`: `∂ ln|det W| / ∂W = W⁻ᵀ`.
///
/// The tangent `ln |det W₀| + ⟨W₀⁻ᵀ, W - W₀⟩` enters the graph, as in [`inverse`].
///
/// # Errors
/// [`Error::NotInvertible`] or [`Error::NonFinite`] naming `layer`.
pub(crate) fn log_abs_det(layer: &str, w: &Tensor) -> Result<Tensor> {
    let (inverse, log_det) = invert(layer, w, Direction::Encode)?;
    let slope = to_tensor(&inverse, w.dtype(), w.device())?.t()?.contiguous()?;
    let tangent = ((w - w.detach())? * slope)?.sum_all()?;
    Ok((tangent + log_det)?)
}

/// A random rotation or reflection: the orthogonal factor of a Gaussian `n × n` matrix, in f64.
pub(crate) fn random_orthogonal(rng: &mut FlowRng, n: usize) -> Result<Tensor> {
    let normal = rng.normal((n, n), DType::F64, &Device::Cpu)?;
    to_tensor(&to_matrix("random orthogonal matrix", &normal)?.qr().compute_Q(), DType::F64, &Device::Cpu)
}

/// The factors of `W = P·L·U` as f64 tensors, `L` with a unit diagonal.
///
/// # Errors
/// Those of a matrix that is not square or not finite.
pub(crate) fn plu(layer: &str, w: &Tensor) -> Result<[Tensor; 3]> {
    let matrix = to_matrix(layer, w)?;
    let n = matrix.nrows();
    let lu = matrix.partial_piv_lu();
    let (forward, _) = lu.P().arrays();
    // Row `i` of `L·U` is row `forward[i]` of `W`.
    let mut p = Mat::zeros(n, n);
    for (i, &row) in forward.iter().enumerate() {
        p[(row, i)] = 1.0;
    }
    let tensor = |m: &Mat<f64>| to_tensor(m, DType::F64, &Device::Cpu);
    Ok([tensor(&p)?, tensor(&lu.L().to_owned())?, tensor(&lu.U().to_owned())?])
}

/// The 2-norm condition number, largest over smallest singular value; infinite for a singular matrix.
///
/// # Errors
/// [`Error::NonFinite`] when the matrix has no finite singular values, and those of a bad matrix.
pub(crate) fn condition_number(layer: &str, w: &Tensor) -> Result<f64> {
    let values = to_matrix(layer, w)?.singular_values().map_err(|_| Error::NonFinite {
        layer: layer.to_string(),
        what: "singular value".into(),
        step: None,
    })?;
    let largest = values.iter().copied().fold(0.0, f64::max);
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(largest / smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tensor {
        Tensor::new(&[[2.0, 1.0, -1.0], [0.5, -3.0, 0.25], [1.0, 0.0, 4.0f64]], &Device::Cpu).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn log_det_of_a_known_matrix() {
        // Cofactors along the last row: det = 1·(0.25 - 3) + 4·(-6 - 0.5).
        let expected = (1.0 * (0.25 - 3.0) + 4.0 * (-6.0 - 0.5_f64)).abs().ln();
        let found = log_abs_det("test", &sample()).unwrap().to_scalar::<f64>().unwrap();
        assert!((found - expected).abs() < 1e-13);
    }

    #[test]
    fn gradient_of_log_det_against_differences() {
        let w = candle_core::Var::from_tensor(&sample()).unwrap();
        let store = log_abs_det("test", w.as_tensor()).unwrap().backward().unwrap();
        let gradient = store.get(w.as_tensor()).unwrap().to_vec2::<f64>().unwrap();
        let h = 1e-6;
        for k in 0..9 {
            let at = |step: f64| {
                let mut values = sample().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                values[k] += step;
                let moved = Tensor::from_vec(values, (3, 3), &Device::Cpu).unwrap();
                log_abs_det("test", &moved).unwrap().to_scalar::<f64>().unwrap()
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            assert!((slope - gradient[k / 3][k % 3]).abs() < 1e-8);
        }
    }

    #[test]
    fn factors_multiply_to_the_matrix() {
        let [p, l, u] = plu("test", &sample()).unwrap();
        let product = p.matmul(&l).unwrap().matmul(&u).unwrap();
        assert!(distance(&product, &sample()) < 1e-14);
        let identity = inverse("test", &sample()).unwrap().matmul(&sample()).unwrap();
        assert!(distance(&identity, &Tensor::eye(3, DType::F64, &Device::Cpu).unwrap()) < 1e-14);
    }

    #[test]
    fn bad_matrices_are_refused_by_name() {
        let singular = Tensor::new(&[[1.0, 2.0], [2.0, 4.0f64]], &Device::Cpu).unwrap();
        let message = inverse("layer 7", &singular).unwrap_err().to_string();
        assert!(message.contains("layer 7") && message.contains("singular"), "{message}");
        assert!(condition_number("layer 7", &singular).unwrap() > 1e15);
        let nan = Tensor::new(&[[f64::NAN]], &Device::Cpu).unwrap();
        assert!(matches!(log_abs_det("layer 7", &nan), Err(Error::NonFinite { .. })));
        assert!(matches!(inverse("layer 7", &singular.narrow(0, 0, 1).unwrap()), Err(Error::Shape { .. })));
    }

    #[test]
    fn orthogonal_matrices_have_condition_one() {
        let q = random_orthogonal(&mut FlowRng::seed_from(3), 12).unwrap();
        assert!((condition_number("test", &q).unwrap() - 1.0).abs() < 1e-12);
    }
}
