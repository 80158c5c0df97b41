//! Numbers without flows: roots, softmax, small matrices, optimal assignments.

pub(crate) mod linalg;
pub mod normal;
pub(crate) mod root;
pub(crate) mod softmax;
pub mod transport;

/// The mean of some numbers and its standard error, `√(s² / n)` with `s²` over `n - 1`; NaN without numbers.
pub fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}
