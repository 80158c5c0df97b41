//! Numbers without flows: roots, softmax, small matrices, optimal assignments.

pub mod host;
pub(crate) mod linalg;
pub mod normal;
pub(crate) mod root;
pub mod softmax;
pub mod transport;

/// The mean of some numbers and its standard error, `√(s² / n)` with `s²` over `n - 1`. Without numbers both are NaN, and
/// the error is NaN where there is only one, which tells nothing of how far others would lie.
pub fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// A standard error behind its mean, `± 0.0123`; one that is not known is named as that.
pub fn plus_minus(error: f64, places: usize) -> String {
    match error.is_nan() {
        true => "± unknown (one value)".into(),
        false => format!("± {error:.places$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_no_error() {
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((mean, plus_minus(error, 4)), (2.5, "± 0.6455".into()));
        let (mean, error) = mean_and_error(&[7.5]);
        assert_eq!((mean, plus_minus(error, 4)), (7.5, "± unknown (one value)".into()));
        assert!(mean_and_error(&[]).0.is_nan());
    }
}
