//! What the tests of elementwise transformers share: parameters, inputs and independent oracles.

use candle_core::{DType, Device, Tensor, Var};

use crate::FlowRng;
use crate::transformer::Transformer;

/// `params` for one row of `n` elements, drawn from `N(0, spread²)`: `(1, 1, P, n)`.
pub(crate) fn params(t: &dyn Transformer, n: usize, spread: f64, seed: u64) -> Tensor {
    let shape = (1, 1, t.params_per_element(), n);
    FlowRng::seed_from(seed).normal(shape, DType::F64, &Device::Cpu).unwrap().affine(spread, 0.0).unwrap()
}

/// The same parameters for every element: `(1, 1, P, n)`.
pub(crate) fn shared(t: &dyn Transformer, n: usize, spread: f64, seed: u64) -> Tensor {
    params(t, 1, spread, seed).repeat((1, 1, 1, n)).unwrap()
}

/// `(1, 1, n)` in f64.
pub(crate) fn row(entries: &[f64]) -> Tensor {
    Tensor::new(entries, &Device::Cpu).unwrap().reshape((1, 1, entries.len())).unwrap()
}

/// `n` evenly spaced points from `low` to `high`, both included.
pub(crate) fn grid(low: f64, high: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| low + (high - low) * i as f64 / (n - 1) as f64).collect()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest `|a - b| / (1 + |b|)`, infinite for a NaN.
pub(crate) fn gap(a: &Tensor, b: &Tensor) -> f64 {
    let deviation = |(a, b): (f64, f64)| (a - b).abs() / (1.0 + b.abs());
    let worst = |w: f64, d: f64| if d.is_nan() { f64::INFINITY } else { w.max(d) };
    values(a).into_iter().zip(values(b)).map(deviation).fold(0.0, worst)
}

/// `decode ∘ encode` and `encode ∘ decode` at `points`, and the log-derivatives that must cancel.
pub(crate) fn round_trip(t: &dyn Transformer, points: &Tensor, params: &Tensor) -> f64 {
    let (y, forward) = t.encode(points, params).unwrap();
    let (x, backward) = t.decode(&y, params).unwrap();
    let (x1, back) = t.decode(points, params).unwrap();
    let (y1, forth) = t.encode(&x1, params).unwrap();
    let gaps = [gap(&x, points), gap(&y1, points), gap(&backward, &forward.neg().unwrap())];
    gaps.into_iter().fold(gap(&back, &forth.neg().unwrap()), f64::max)
}

/// The log-derivatives of both directions against central differences.
pub(crate) fn numerical_derivative(t: &dyn Transformer, points: &Tensor, params: &Tensor) -> f64 {
    type Map<'a> = &'a dyn Fn(&Tensor) -> (Tensor, Tensor);
    let encode: Map<'_> = &|x| t.encode(x, params).unwrap();
    let decode: Map<'_> = &|y| t.decode(y, params).unwrap();
    let worst = |map: Map<'_>| {
        let step = 1e-6;
        let [up, down] = [step, -step].map(|s| map(&points.affine(1.0, s).unwrap()).0);
        let slope = ((up - down).unwrap() * (0.5 / step)).unwrap();
        gap(&map(points).1, &slope.log().unwrap())
    };
    worst(encode).max(worst(decode))
}

/// The gradients of `Σ value + 0.7 Σ log` of one direction: of the input and of the parameters.
pub(crate) fn gradients(
    map: impl Fn(&Tensor, &Tensor) -> crate::Result<(Tensor, Tensor)>,
    input: &Tensor,
    params: &Tensor,
) -> [Tensor; 2] {
    let (input, params) = (Var::from_tensor(input).unwrap(), Var::from_tensor(params).unwrap());
    let (value, log) = map(input.as_tensor(), params.as_tensor()).unwrap();
    let objective = (value.sum_all().unwrap() + (log.sum_all().unwrap() * 0.7).unwrap()).unwrap();
    let store = objective.backward().unwrap();
    [input, params].map(|v| store.get(&v).cloned().unwrap_or_else(|| v.zeros_like().unwrap()))
}

pub(crate) fn assert_finite(what: &str, t: &Tensor) {
    let bad = values(t).into_iter().find(|v| !v.is_finite());
    assert!(bad.is_none(), "{what}: {bad:?}");
}
