//! What the unit tests of the layers share: numerical Jacobians and the checks of one bijector.

use candle_core::{DType, Device, Tensor, Var};

use crate::autodiff::pair;
use crate::bijector::{Bijector, Tape, backprop_locally};
use crate::{Direction, FlowRng, Gradients, ParamStore, Result, Transformer};

/// An empty f64 store on the CPU.
pub(crate) fn store64(seed: u64) -> ParamStore {
    ParamStore::new(seed, DType::F64, &Device::Cpu)
}

/// Standard normal numbers in f64.
pub(crate) fn normal(seed: u64, dims: &[usize]) -> Tensor {
    FlowRng::seed_from(seed).normal(dims, DType::F64, &Device::Cpu).unwrap()
}

/// Adds Gaussian noise to every trainable parameter, so that zero-initialised layers do something.
pub(crate) fn perturb(store: &ParamStore, std: f64) {
    for (i, p) in store.trainable().iter().enumerate() {
        let noise = normal(1000 + i as u64, p.var().dims()).affine(std, 0.0).unwrap();
        p.set(&(p.var().as_detached_tensor() + noise).unwrap()).unwrap();
    }
}

/// All entries in row-major order.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest absolute difference; panics on differing shapes and on NaN.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).fold(0.0, |worst, (x, y)| {
        let d = (x - y).abs();
        assert!(d.is_finite(), "{x} against {y}");
        worst.max(d)
    })
}

/// Row `i`, column `j`: `∂f_i/∂x_j` of one sample `(1, event…)` by central differences.
pub(crate) fn jacobian(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Vec<Vec<f64>> {
    let (base, h) = (values(x), 1e-5);
    let at = |j: usize, step: f64| {
        let mut moved = base.clone();
        moved[j] += step;
        values(&f(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap()).unwrap())
    };
    let columns: Vec<Vec<f64>> = (0..base.len())
        .map(|j| at(j, h).iter().zip(at(j, -h)).map(|(up, down)| (up - down) / (2.0 * h)).collect())
        .collect();
    (0..columns[0].len()).map(|i| columns.iter().map(|c| c[i]).collect()).collect()
}

/// `ln |det J|` of a square matrix.
pub(crate) fn log_abs_det(jacobian: &[Vec<f64>]) -> f64 {
    let n = jacobian.len();
    let lu = faer::Mat::from_fn(n, n, |i, j| jacobian[i][j]).partial_piv_lu();
    (0..n).map(|i| lu.U()[(i, i)].abs().ln()).sum()
}

/// Round trips, log-determinants against numerical Jacobians in both directions, and cancellation.
pub(crate) fn check_bijector(layer: &dyn Bijector, x: &Tensor, context: Option<&Tensor>, tolerance: f64) {
    let (z, log_det) = layer.encode(x, context).unwrap();
    let (back, inverse_log_det) = layer.decode(&z, context).unwrap();
    assert!(distance(&back, x) < tolerance, "{}: decode(encode(x)) is off by {}", layer.name(), distance(&back, x));
    assert_eq!(log_det.dims(), [x.dim(0).unwrap()]);
    let sum = distance(&log_det, &inverse_log_det.neg().unwrap());
    assert!(sum < tolerance, "{}: log-determinants differ by {sum}", layer.name());
    let row = |t: &Tensor, b: usize| t.narrow(0, b, 1).unwrap();
    for b in 0..x.dim(0).unwrap() {
        let context = context.map(|c| row(c, b));
        let encode = jacobian(&row(x, b), |x| Ok(layer.encode(x, context.as_ref())?.0));
        let error = (log_abs_det(&encode) - values(&log_det)[b]).abs();
        assert!(error < 1e-6, "{}: encode log-determinant of row {b} is off by {error}", layer.name());
        let decode = jacobian(&row(&z, b), |z| Ok(layer.decode(z, context.as_ref())?.0));
        let error = (log_abs_det(&decode) - values(&inverse_log_det)[b]).abs();
        assert!(error < 1e-6, "{}: decode log-determinant of row {b} is off by {error}", layer.name());
    }
}

/// A layer's own `backprop` against the default one and, for parameters, against central differences.
pub(crate) fn check_backprop(store: &ParamStore, layer: &dyn Bijector, x: &Tensor, context: Option<&Tensor>) {
    let (z, log_det) = layer.encode(x, context).unwrap();
    let (z, log_det) = (z.detach(), log_det.detach());
    let (grad_z, grad_log) = (normal(71, z.dims()), normal(72, log_det.dims()));
    let tape = if layer.analytic(Direction::Decode) { Tape::Inverse } else { Tape::Input(x.clone()) };
    let (mut own, mut reference) = (Gradients::new(store), Gradients::new(store));
    let ours = layer.backprop(&z, &tape, context, &grad_z, &grad_log, &mut own).unwrap();
    let plain = Tape::Input(x.clone());
    let theirs = backprop_locally(layer, &z, &plain, context, &grad_z, &grad_log, &mut reference).unwrap();
    assert!(distance(&ours.x, x) < 1e-8);
    assert!(distance(&ours.grad_x, &theirs.grad_x) < 1e-8, "{}: gradient of the input", layer.name());
    match (&ours.grad_context, &theirs.grad_context) {
        (Some(a), Some(b)) => assert!(distance(a, b) < 1e-8, "{}: gradient of the context", layer.name()),
        (a, b) => assert_eq!(a.is_some(), b.is_some(), "{}: one context gradient is missing", layer.name()),
    }
    let objective = || {
        let (z, log_det) = layer.encode(x, context).unwrap();
        let dot = |a: &Tensor, b: &Tensor| values(a).iter().zip(values(b)).map(|(x, y)| x * y).sum::<f64>();
        dot(&z, &grad_z) + dot(&log_det, &grad_log)
    };
    for (param, gradient) in own.iter() {
        let zeros = param.var().zeros_like().unwrap();
        let gradient = gradient.unwrap_or(&zeros);
        assert!(distance(gradient, reference.get(param).unwrap_or(&zeros)) < 1e-8, "gradient of {}", param.name());
        let (numeric, start, h) = (values(gradient), values(param.var()), 1e-5);
        // Every seventh entry is enough to catch a wrong formula and keeps the test fast.
        for k in (0..start.len()).step_by(if start.len() > 40 { 7 } else { 1 }) {
            let at = |step: f64| {
                let mut moved = start.clone();
                moved[k] += step;
                param.set(&Tensor::from_vec(moved, param.var().shape(), &Device::Cpu).unwrap()).unwrap();
                objective()
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            param.set(&Tensor::from_vec(start.clone(), param.var().shape(), &Device::Cpu).unwrap()).unwrap();
            let error = (slope - numeric[k]).abs() / (1.0 + slope.abs());
            assert!(error < 1e-6, "{}: slope {slope}, gradient {} at {k}", param.name(), numeric[k]);
        }
    }
}

/// A transformer with random parameters at `x`: round trip, slopes in both directions, gradients of both
/// directions with respect to value and parameters.
pub(crate) fn check_transformer(transformer: &dyn Transformer, x: &Tensor, tolerance: f64) {
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
        let full = jacobian(value, |v| Ok(apply(v, &params)?.0));
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
        let check = |numeric: &[f64], var: &Var, what: &str| {
            for (n, g) in numeric.iter().zip(values(store.get(var).unwrap())) {
                let error = (n - g).abs() / (1.0 + n.abs());
                assert!(error < 2e-6, "{}: {what}, decode {decode}: {n} against {g}", transformer.name());
            }
        };
        check(&jacobian(value, |v| objective(v, &params))[0], &v, "gradient of the value");
        check(&jacobian(&params, |p| objective(value, p))[0], &p, "gradient of the parameters");
    }
}
