//! What every layer's unit tests ask of it, in f64.

use candle_core::{DType, Device, Tensor, Var};

use crate::bijector::Bijector;
use crate::reversible::{gradient_or_zero, pair};
use crate::{FlowRng, Gradients, ParamStore};

/// [`bijector_at`] with a standard normal batch of two.
pub(crate) fn bijector(layer: &dyn Bijector, store: &ParamStore) {
    let shape: Vec<usize> = std::iter::once(2).chain(layer.event_shape().iter().copied()).collect();
    let x = FlowRng::seed_from(3).normal(shape, DType::F64, &Device::Cpu).unwrap();
    bijector_at(layer, &x, store);
}

/// Round trip, log-determinants against numerical Jacobians in both directions, and `backprop`
/// against one ordinary graph, for values, inputs and parameters.
pub(crate) fn bijector_at(layer: &dyn Bijector, x: &Tensor, store: &ParamStore) {
    let (z, forward) = layer.encode(x, None).unwrap();
    let (back, backward) = layer.decode(&z, None).unwrap();
    close(&back, x, 1e-9, "decode ∘ encode");
    close(&(&forward + &backward).unwrap(), &forward.zeros_like().unwrap(), 1e-9, "cancelling log-determinants");
    close(&forward, &numerical_log_det(x, |x| layer.encode(x, None).unwrap().0), 1e-6, "encode log-det");
    close(&backward, &numerical_log_det(&z, |z| layer.decode(z, None).unwrap().0), 1e-6, "decode log-det");
    gradients_agree(layer, x, store);
}

/// `encode_taped` + `backprop` equals the gradient of an ordinary graph, for random cotangents.
pub(crate) fn gradients_agree(layer: &dyn Bijector, x: &Tensor, store: &ParamStore) {
    let mut rng = FlowRng::seed_from(5);
    let input = Var::from_tensor(&x.detach()).unwrap();
    let (z, log_det) = layer.encode(input.as_tensor(), None).unwrap();
    let grad_z = rng.normal(z.shape(), DType::F64, &Device::Cpu).unwrap();
    let grad_log = rng.normal(log_det.shape(), DType::F64, &Device::Cpu).unwrap();
    let objective = (pair(&z, &grad_z).unwrap() + pair(&log_det, &grad_log).unwrap()).unwrap();
    let graph = objective.backward().unwrap();
    let mut plain = Gradients::new(store);
    plain.accumulate(&graph).unwrap();

    let (taped, log, tape) = {
        let _paused = store.no_grad();
        layer.encode_taped(x, None).unwrap()
    };
    close(&taped, &z, 1e-12, "taped value");
    close(&log, &log_det, 1e-12, "taped log-det");
    let mut local = Gradients::new(store);
    let pulled = layer.backprop(&taped, &tape, None, &grad_z, &grad_log, &mut local).unwrap();
    close(&pulled.x, x, 1e-8, "reconstruction");
    close(&pulled.grad_x, &gradient_or_zero(&graph, &input).unwrap(), 1e-8, "input gradient");
    for ((param, a), (_, b)) in local.iter().zip(plain.iter()) {
        let zero = param.var().zeros_like().unwrap();
        close(a.unwrap_or(&zero), b.unwrap_or(&zero), 1e-8, param.name());
    }
}

/// `log |det ∂f/∂x|` of every sample by central differences and Gaussian elimination.
pub(crate) fn numerical_log_det(x: &Tensor, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (batch, step) = (x.dim(0).unwrap(), 1e-5);
    let size = x.elem_count() / batch;
    let logs: Vec<f64> = (0..batch)
        .map(|b| {
            let row = x.narrow(0, b, 1).unwrap();
            let values = row.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let at = |i: usize, delta: f64| {
                let mut moved = values.clone();
                moved[i] += delta;
                let moved = Tensor::from_vec(moved, row.shape(), &Device::Cpu).unwrap();
                f(&moved).flatten_all().unwrap().to_vec1::<f64>().unwrap()
            };
            let columns = (0..size).map(|i| {
                at(i, step).iter().zip(at(i, -step)).map(|(a, b)| (a - b) / (2.0 * step)).collect::<Vec<f64>>()
            });
            log_abs_det(columns.collect())
        })
        .collect();
    Tensor::new(logs, &Device::Cpu).unwrap()
}

fn log_abs_det(mut m: Vec<Vec<f64>>) -> f64 {
    let mut sum = 0.0;
    for k in 0..m.len() {
        let pivot = (k..m.len()).max_by(|&a, &b| m[a][k].abs().total_cmp(&m[b][k].abs())).unwrap();
        m.swap(k, pivot);
        sum += m[k][k].abs().ln();
        let (top, rest) = m.split_at_mut(k + 1);
        for row in rest {
            let factor = row[k] / top[k][k];
            row.iter_mut().zip(&top[k]).for_each(|(value, above)| *value -= factor * above);
        }
    }
    sum
}

pub(crate) fn close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let worst = difference.iter().fold(0.0, |w: f64, &d| if d.is_nan() { f64::INFINITY } else { w.max(d) });
    assert!(worst <= tolerance, "{what}: differ by {worst:e}");
}
