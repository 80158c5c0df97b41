//! Numbers for unit tests, and how far apart they are.

use candle_core::{DType, Device, Tensor};

use crate::{FlowRng, ParamStore};

/// An empty f64 store on the CPU.
pub(crate) fn store64(seed: u64) -> ParamStore {
    ParamStore::new(seed, DType::F64, &Device::Cpu)
}

/// Standard normal numbers in f64.
pub(crate) fn normal(seed: u64, dims: &[usize]) -> Tensor {
    FlowRng::seed_from(seed).normal(dims, DType::F64, &Device::Cpu).unwrap()
}

/// All entries in row-major order, in f64.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    super::values(t).unwrap()
}

/// The largest `|a - b|`; panics on differing shapes and on NaN.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    worst(a, b, |d, _| d)
}

/// The largest `|a - b| / (1 + |b|)`; panics on differing shapes and on NaN.
pub(crate) fn gap(a: &Tensor, b: &Tensor) -> f64 {
    worst(a, b, |d, b| d / (1.0 + b.abs()))
}

/// The largest `|a - b|` as a fraction of the largest `|b|` or of one; panics on differing shapes and on NaN.
pub(crate) fn relative(a: &Tensor, b: &Tensor) -> f64 {
    distance(a, b) / distance(b, &b.zeros_like().unwrap()).max(1.0)
}

fn worst(a: &Tensor, b: &Tensor, measure: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).into_iter().zip(values(b)).fold(0.0, |worst, (x, y)| {
        let found = measure((x - y).abs(), y);
        assert!(found.is_finite(), "{x} against {y}");
        worst.max(found)
    })
}
