//! Exports networks with inputs, values and gradients, for comparison with an independent implementation.
//!
//! `FLOW_PARITY=/some/folder cargo test -p flow-points parity -- --ignored` writes `field.safetensors` and
//! `encoder.safetensors`, and each once more in f64 as `…_f64.safetensors`; `tests/parity.py` reads them and compares.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use flow_core::cnf::{ConcatSquash, VectorField};
use flow_core::{FlowRng, ParamStore};

use super::{Encoder, EncoderConfig, PointFlowConfig};

type Tensors = HashMap<String, Tensor>;

fn folder() -> std::path::PathBuf {
    let folder = std::path::PathBuf::from(std::env::var("FLOW_PARITY").expect("FLOW_PARITY names a folder"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The two number types, with the ending of a file's name.
const TYPES: [(DType, &str); 2] = [(DType::F32, ""), (DType::F64, "_f64")];

fn normal(rng: &mut FlowRng, shape: &[usize], dtype: DType) -> Tensor {
    rng.normal(shape, dtype, &Device::Cpu).unwrap()
}

/// Moves every parameter away from its initial value, where gains of one and offsets of zero hide mistakes.
fn disturb(store: &ParamStore) {
    for p in store.trainable() {
        let noise = normal(&mut FlowRng::named(1, p.name()), p.var().dims(), store.dtype());
        p.set(&(p.tensor() + (noise * 0.05).unwrap()).unwrap()).unwrap();
    }
}

fn keep(tensors: &mut Tensors, name: &str, value: &Tensor) {
    tensors.insert(name.to_string(), value.detach().contiguous().unwrap());
}

fn keep_gradients(tensors: &mut Tensors, store: &ParamStore, objective: &Tensor, inputs: &[(&str, &Var)]) {
    let gradients = objective.backward().unwrap();
    for p in store.trainable() {
        let zero = p.tensor().zeros_like().unwrap();
        keep(tensors, &format!("grad.{}", p.name()), gradients.get(p.var()).unwrap_or(&zero));
    }
    for (name, var) in inputs {
        keep(tensors, &format!("grad.{name}"), gradients.get(var.as_tensor()).unwrap());
    }
}

#[test]
#[ignore = "writes files for another program: FLOW_PARITY=/some/folder cargo test -p flow-points parity -- --ignored"]
fn export_fields() {
    for (dtype, ending) in TYPES {
        for (name, times) in [("field", 1), ("field_times", 4)] {
            let tensors = export_field(dtype, 4, times);
            candle_core::safetensors::save(&tensors, folder().join(format!("{name}{ending}.safetensors"))).unwrap();
        }
    }
}

fn export_field(dtype: DType, groups: usize, times: usize) -> Tensors {
    let store = ParamStore::new(7, dtype, &Device::Cpu);
    let field = ConcatSquash::new(&store.root(), 3, Some(128), &PointFlowConfig::paper().point).unwrap();
    disturb(&store);
    let mut rng = FlowRng::seed_from(2);
    let rows = groups * 50;
    let x = Var::from_tensor(&normal(&mut rng, &[rows, 3], dtype)).unwrap();
    let context = Var::from_tensor(&normal(&mut rng, &[groups, 128], dtype)).unwrap();
    let t = Var::from_tensor(&rng.uniform(times, dtype, &Device::Cpu).unwrap()).unwrap();
    let [probe, w, u] = [vec![rows, 3], vec![rows, 3], vec![rows]].map(|shape| normal(&mut rng, &shape, dtype));
    let units = Tensor::eye(3, dtype, &Device::Cpu).unwrap();
    let unit = |k: usize| units.get(k).unwrap().broadcast_as((rows, 3)).unwrap().contiguous().unwrap();
    let units: Vec<Tensor> = (0..3).map(unit).collect();
    let (value, divergence) = field.divergence(&t, &x, &units, Some(&context)).unwrap();
    let (_, estimate) = field.divergence(&t, &x, std::slice::from_ref(&probe), Some(&context)).unwrap();
    let mut out = Tensors::new();
    for p in store.all() {
        keep(&mut out, &format!("model.{}", p.name()), &p.tensor());
    }
    for (name, tensor) in [
        ("x", x.as_tensor()),
        ("context", context.as_tensor()),
        ("t", t.as_tensor()),
        ("probe", &probe),
        ("w", &w),
        ("u", &u),
        ("out.value", &value),
        ("out.divergence", &divergence),
        ("out.probe_divergence", &estimate),
    ] {
        keep(&mut out, name, tensor);
    }
    let objective =
        ((&value * &w).unwrap().sum_all().unwrap() + (&divergence * &u).unwrap().sum_all().unwrap()).unwrap();
    keep_gradients(&mut out, &store, &objective, &[("x", &x), ("context", &context), ("t", &t)]);
    out
}

#[test]
#[ignore = "writes files for another program: FLOW_PARITY=/some/folder cargo test -p flow-points parity -- --ignored"]
fn export_encoders() {
    for (dtype, ending) in TYPES {
        let tensors = export_encoder(dtype);
        candle_core::safetensors::save(&tensors, folder().join(format!("encoder{ending}.safetensors"))).unwrap();
    }
}

fn export_encoder(dtype: DType) -> Tensors {
    let store = ParamStore::new(7, dtype, &Device::Cpu);
    let encoder = Encoder::new(&store.root(), &EncoderConfig::paper(), 128, true).unwrap();
    disturb(&store);
    let mut out = Tensors::new();
    for p in store.all() {
        keep(&mut out, &format!("model.{}", p.name()), &p.tensor().copy().unwrap());
    }
    let mut rng = FlowRng::seed_from(2);
    let points = normal(&mut rng, &[6, 300, 3], dtype);
    let [w_mean, w_log_variance] = [(); 2].map(|()| normal(&mut rng, &[6, 128], dtype));
    let posterior = encoder.forward(&points).unwrap();
    let log_variance = posterior.log_variance.unwrap();
    for (name, tensor) in [
        ("points", &points),
        ("w_mean", &w_mean),
        ("w_log_variance", &w_log_variance),
        ("out.mean", &posterior.mean),
        ("out.log_variance", &log_variance),
    ] {
        keep(&mut out, name, tensor);
    }
    let objective = ((&posterior.mean * &w_mean).unwrap().sum_all().unwrap()
        + (&log_variance * &w_log_variance).unwrap().sum_all().unwrap())
    .unwrap();
    keep_gradients(&mut out, &store, &objective, &[]);
    out
}
