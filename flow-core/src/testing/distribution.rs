//! What every density's unit tests ask of it: it adds up to one, its samples are its own, and its
//! gradients are derivatives.

use candle_core::{DType, Device, Tensor, Var};

use super::jacobian::of_map;
use super::numbers::values;
use super::quadrature::integrate;
use crate::autodiff::gradient_or_zero;
use crate::{Distribution, Error, FlowRng, Gradients, ParamStore};

/// `∫ p = 1 ± 1e-6` over `bounds`, for a density of one dimension in f64.
pub(crate) fn integrates_to_one(d: &dyn Distribution, bounds: [f64; 2]) {
    let total = integrate(|z| d.log_prob(z, None), 1, bounds, 6000, DType::F64).unwrap();
    assert!((total - 1.0).abs() < 1e-6, "∫ p = {total} for {}", d.name());
}

/// Mean and standard deviation of 40,000 samples, within five standard errors (kurtosis up to 5).
pub(crate) fn moments(d: &dyn Distribution, temperature: f64, mean: &[f64], std: f64) {
    const N: usize = 40_000;
    let z = d.sample(N, None, temperature, &mut FlowRng::seed_from(11)).unwrap();
    let rows = z.flatten_from(1).unwrap().to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    for (i, mean) in mean.iter().enumerate() {
        let found = rows.iter().map(|r| r[i]).sum::<f64>() / N as f64;
        let spread = (rows.iter().map(|r| (r[i] - found).powi(2)).sum::<f64>() / N as f64).sqrt();
        let error = 5.0 * std / (N as f64).sqrt();
        assert!((found - mean).abs() < error, "mean {found}, expected {mean} ± {error}");
        assert!((spread - std).abs() < error, "deviation {spread}, expected {std} ± {error}");
    }
}

/// Gradients of `Σ log p` with respect to points and parameters against central differences.
pub(crate) fn gradients(d: &dyn Distribution, store: &ParamStore, points: &[f64]) {
    let z = Tensor::from_slice(points, (points.len(), 1), &Device::Cpu).unwrap();
    let total = |z: &Tensor| d.log_prob(z, None).unwrap().sum_all().unwrap();
    let var = Var::from_tensor(&z).unwrap();
    let graph = total(var.as_tensor()).backward().unwrap();
    let numerical = of_map(&z, |z| Ok(total(z).reshape(1)?)).unwrap();
    close(&gradient_or_zero(&graph, &var).unwrap(), &numerical[0], "z");
    let mut found = Gradients::new(store);
    found.accumulate(&graph).unwrap();
    for (param, gradient) in found.iter() {
        let start = param.var().as_tensor().copy().unwrap();
        let numerical = of_map(&start, |value| {
            param.set(value)?;
            Ok(total(&z).reshape(1)?)
        });
        param.set(&start).unwrap();
        close(gradient.unwrap(), &numerical.unwrap()[0], param.name());
    }
}

/// Temperatures and element types that make no sense are refused by name, and no rows are no error.
pub(crate) fn refusals(d: &dyn Distribution) {
    let z = d.sample(3, None, 1.0, &mut FlowRng::seed_from(5)).unwrap();
    for temperature in [-1.0, -1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let outcome = d.sample(3, None, temperature, &mut FlowRng::seed_from(5));
        assert!(matches!(outcome, Err(Error::Config { .. })), "{}: temperature {temperature}", d.name());
    }
    for dtype in [DType::U8, DType::U32, DType::I64, DType::F16] {
        let outcome = d.log_prob(&z.abs().unwrap().to_dtype(dtype).unwrap(), None);
        assert!(matches!(outcome, Err(Error::DType { .. })), "{}: {dtype:?}", d.name());
    }
    assert_eq!(d.sample(0, None, 1.0, &mut FlowRng::seed_from(5)).unwrap().dims()[0], 0);
    assert_eq!(d.log_prob(&z.narrow(0, 0, 0).unwrap(), None).unwrap().dims(), [0]);
}

/// `color ∘ whiten = id`.
pub(crate) fn whitening(d: &dyn Distribution, rng: &mut FlowRng) {
    let z = d.sample(5, None, 1.0, rng).unwrap();
    let back = d.color(&d.whiten(&z, None).unwrap(), None).unwrap();
    close(&back, &values(&z), "color(whiten(z))");
}

fn close(got: &Tensor, expected: &[f64], what: &str) {
    let got = values(got);
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 1e-7 * (1.0 + e.abs()), "{what}: {g}, expected {e}");
    }
    assert_eq!(got.len(), expected.len(), "{what}");
}
