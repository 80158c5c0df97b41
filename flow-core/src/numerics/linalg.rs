//! Small dense matrices in f64: what a flow needs of linear algebra, through faer.
//!
//! Matrices are row-major `Vec<f64>` of `n × n` numbers; channels rarely exceed a hundred.

use faer::Mat;
use faer::linalg::solvers::DenseSolveCore;

use crate::{Error, FlowRng, Result};

fn to_mat(a: &[f64], n: usize) -> Mat<f64> {
    Mat::from_fn(n, n, |i, j| a[i * n + j])
}

fn to_vec(m: faer::MatRef<'_, f64>) -> Vec<f64> {
    let (rows, cols) = (m.nrows(), m.ncols());
    (0..rows * cols).map(|k| m[(k / cols, k % cols)]).collect()
}

/// A random orthogonal matrix: the `Q` of a QR factorisation of Gaussian numbers.
pub(crate) fn random_rotation(n: usize, rng: &mut FlowRng) -> Result<Vec<f64>> {
    let numbers = rng.normal((n, n), candle_core::DType::F64, &candle_core::Device::Cpu)?;
    let numbers: Vec<f64> = numbers.flatten_all()?.to_vec1()?;
    Ok(to_vec(to_mat(&numbers, n).qr().compute_Q().as_ref()))
}

/// `A = P·L·U` with unit lower triangular `L`; `P` as a full matrix of zeros and ones.
pub(crate) struct Plu {
    pub p: Vec<f64>,
    pub l: Vec<f64>,
    pub u: Vec<f64>,
}

/// Factorises `a`.
pub(crate) fn plu(a: &[f64], n: usize) -> Plu {
    let lu = to_mat(a, n).partial_piv_lu();
    let (rows, _) = lu.P().arrays();
    let mut p = vec![0.0; n * n];
    for (i, &row) in rows.iter().enumerate() {
        p[row * n + i] = 1.0;
    }
    Plu { p, l: to_vec(lu.L()), u: to_vec(lu.U()) }
}

/// `det A`.
pub(crate) fn determinant(a: &[f64], n: usize) -> f64 {
    to_mat(a, n).determinant()
}

/// `A⁻¹`.
///
/// # Errors
/// [`Error::NonFinite`] naming `layer` when `a` is singular or not finite.
pub(crate) fn inverse(a: &[f64], n: usize, layer: &str) -> Result<Vec<f64>> {
    let inverse = to_vec(to_mat(a, n).partial_piv_lu().inverse().as_ref());
    match inverse.iter().all(|v| v.is_finite()) {
        true => Ok(inverse),
        false => Err(singular(layer)),
    }
}

/// `ln |det A|`.
///
/// # Errors
/// [`Error::NonFinite`] naming `layer` when `a` is singular or not finite.
pub(crate) fn log_abs_det(a: &[f64], n: usize, layer: &str) -> Result<f64> {
    let lu = to_mat(a, n).partial_piv_lu();
    let sum: f64 = (0..n).map(|i| lu.U()[(i, i)].abs().ln()).sum();
    if sum.is_finite() { Ok(sum) } else { Err(singular(layer)) }
}

fn singular(layer: &str) -> Error {
    Error::NonFinite { layer: layer.into(), what: "inverse: the matrix is singular".into(), step: None }
}

/// The ratio of the largest to the smallest singular value.
///
/// # Errors
/// [`Error::NonFinite`] naming `layer` when the decomposition fails.
pub(crate) fn condition_number(a: &[f64], n: usize, layer: &str) -> Result<f64> {
    let values = to_mat(a, n).singular_values().map_err(|_| singular(layer))?;
    let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), &v| (l.min(v), h.max(v)));
    Ok(high / low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
        (0..n * n).map(|k| (0..n).map(|l| a[k / n * n + l] * b[l * n + k % n]).sum()).collect()
    }

    #[test]
    fn factors_multiply_back() {
        let a = [0.0, 2.0, 1.0, 4.0, -1.0, 3.0, 0.5, 0.5, 2.0];
        let Plu { p, l, u } = plu(&a, 3);
        let back = product(&product(&p, &l, 3), &u, 3);
        assert!(a.iter().zip(&back).all(|(x, y)| (x - y).abs() < 1e-12));
        let unit = product(&a, &inverse(&a, 3, "test").unwrap(), 3);
        assert!((0..9).all(|k| (unit[k] - f64::from(u8::from(k % 4 == 0))).abs() < 1e-12));
        // det = 0·(-2-1.5) - 2·(8-1.5) + 1·(2+0.5) = -10.5
        assert!((log_abs_det(&a, 3, "test").unwrap() - 10.5_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn rotations_are_orthogonal_and_singular_matrices_are_refused() {
        let q = random_rotation(7, &mut FlowRng::seed_from(1)).unwrap();
        assert!(log_abs_det(&q, 7, "test").unwrap().abs() < 1e-12);
        assert!((condition_number(&q, 7, "test").unwrap() - 1.0).abs() < 1e-9);
        let message = inverse(&[1.0, 2.0, 2.0, 4.0], 2, "mixer").unwrap_err().to_string();
        assert!(message.contains("mixer"), "{message}");
    }
}
