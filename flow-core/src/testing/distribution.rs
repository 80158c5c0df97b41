//! What every density's unit tests ask of it: it adds up to one, its samples are its own, and its
//! gradients are derivatives.

use candle_core::{DType, Device, Tensor, Var};

use crate::autodiff::gradient_or_zero;
use crate::testing::quadrature::integrate;
use crate::{Distribution, FlowRng, Gradients, ParamStore};

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
    let numerical = differences(&z, |z| total(z).to_scalar::<f64>().unwrap());
    close(&gradient_or_zero(&graph, &var).unwrap(), &numerical, "z");
    let mut found = Gradients::new(store);
    found.accumulate(&graph).unwrap();
    for (param, gradient) in found.iter() {
        let start = param.var().as_tensor().copy().unwrap();
        let numerical = differences(&start, |value| {
            param.set(value).unwrap();
            total(&z).to_scalar::<f64>().unwrap()
        });
        param.set(&start).unwrap();
        close(gradient.unwrap(), &numerical, param.name());
    }
}

/// `color ∘ whiten = id`.
pub(crate) fn whitening(d: &dyn Distribution, rng: &mut FlowRng) {
    let z = d.sample(5, None, 1.0, rng).unwrap();
    let back = d.color(&d.whiten(&z, None).unwrap(), None).unwrap();
    close(&back, &z.flatten_all().unwrap().to_vec1::<f64>().unwrap(), "color(whiten(z))");
}

fn differences(at: &Tensor, mut objective: impl FnMut(&Tensor) -> f64) -> Vec<f64> {
    let start = at.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut moved = |i: usize, step: f64| {
        let mut entries = start.clone();
        entries[i] += step;
        objective(&Tensor::from_vec(entries, at.shape(), &Device::Cpu).unwrap())
    };
    (0..start.len()).map(|i| (moved(i, 1e-5) - moved(i, -1e-5)) / 2e-5).collect()
}

fn close(got: &Tensor, expected: &[f64], what: &str) {
    let got = got.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() < 1e-7 * (1.0 + e.abs()), "{what}: {g}, expected {e}");
    }
    assert_eq!(got.len(), expected.len(), "{what}");
}
