//! What the tests of elementwise transformers share: parameters, inputs and independent oracles.

use candle_core::{DType, Device, Tensor, Var};

use super::jacobian::of_map;
use super::numbers::{distance, gap, normal, values};
use crate::autodiff::pair;
use crate::transformer::Transformer;
use crate::{FlowRng, Result};

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
    map: impl Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
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

/// A transformer with random parameters at `x`: round trip, slopes in both directions, gradients of both
/// directions with respect to value and parameters.
pub(crate) fn check(transformer: &dyn Transformer, x: &Tensor, tolerance: f64) {
    let mut dims = x.dims().to_vec();
    dims.insert(2, transformer.params_per_element());
    let params = normal(61, &dims);
    let (y, log) = transformer.encode(x, &params).unwrap();
    let (back, inverse_log) = transformer.decode(&y, &params).unwrap();
    assert!(distance(&back, x) < tolerance, "{}: round trip", transformer.name());
    assert!(distance(&inverse_log.neg().unwrap(), &log) < tolerance, "{}: logarithms", transformer.name());
    for (decode, value) in [(false, x), (true, &y)] {
        let apply = |v: &Tensor, p: &Tensor| {
            let (out, log) = if decode { transformer.decode(v, p) } else { transformer.encode(v, p) }?;
            Result::Ok((out, log))
        };
        let (_, log) = apply(value, &params).unwrap();
        let full = of_map(value, |v| Ok(apply(v, &params)?.0)).unwrap();
        for (i, slope) in values(&log).iter().enumerate() {
            assert!((full[i][i].abs().ln() - slope).abs() < 1e-6, "{}: slope of element {i}", transformer.name());
            assert!((0..full.len()).all(|j| j == i || full[i][j] == 0.0), "{}: mixes elements", transformer.name());
        }
        let (a, b) = (normal(62, x.dims()), normal(63, x.dims()));
        let objective = |v: &Tensor, p: &Tensor| {
            let (out, log) = apply(v, p)?;
            Ok((pair(&out, &a)? + pair(&log, &b)?)?.reshape(1)?)
        };
        let (v, p) = (Var::from_tensor(value).unwrap(), Var::from_tensor(&params).unwrap());
        let store = objective(&v, &p).unwrap().backward().unwrap();
        let agree = |numeric: &[f64], var: &Var, what: &str| {
            for (n, g) in numeric.iter().zip(values(store.get(var).unwrap())) {
                let error = (n - g).abs() / (1.0 + n.abs());
                assert!(error < 2e-6, "{}: {what}, decode {decode}: {n} against {g}", transformer.name());
            }
        };
        agree(&of_map(value, |v| objective(v, &params)).unwrap()[0], &v, "gradient of the value");
        agree(&of_map(&params, |p| objective(value, p)).unwrap()[0], &p, "gradient of the parameters");
    }
}
