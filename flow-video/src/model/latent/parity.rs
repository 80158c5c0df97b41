//! Networks, inputs, values and gradients that an independent implementation wrote.
//!
//! `python flow-video/tests/parity_latent.py torch_videoflow.py /some/folder` writes them;
//! `FLOW_PARITY=/some/folder cargo test -p flow-video latent::parity -- --ignored` reads and compares. The limits are 1e-10
//! in f64, which shows the formulas, and 1e-4 in f32, which adds round-off; gradients are judged in f64 alone, since in f32 a
//! rectifier whose argument is round-off may be open in one implementation and not in the other.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use flow_core::ParamStore;
use flow_core::autodiff::pair;

use super::tests::relative;
use super::{LatentNet, LatentNetConfig};

fn config(of: &Tensor) -> LatentNetConfig {
    let sizes: Vec<i64> = of.to_vec1().unwrap();
    let [channels, steps, height, width, hidden, blocks, dilations, gated] =
        <[i64; 8]>::try_from(sizes).unwrap().map(|size| size as usize);
    let (dilations, gated) = (dilations == 1, gated == 1);
    LatentNetConfig { channels, steps, height, width, hidden, blocks, dilations, gated }
}

/// Compares one file; the largest relative difference of values, of gradients, and after initialisation.
fn compare(path: &Path) -> (DType, [f64; 3]) {
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let dtype = tensors["x"].dtype();
    let store = ParamStore::new(0, dtype, &Device::Cpu);
    let net = LatentNet::new(&store.root(), &config(&tensors["config"])).unwrap();
    for p in store.all() {
        p.set(&tensors[&format!("model.{}", p.name())]).unwrap();
    }
    let x = Var::from_tensor(&tensors["x"]).unwrap();
    let value = net.forward(&x).unwrap();
    let found = pair(&value, &tensors["weight"]).unwrap().backward().unwrap();
    let mut gradients = relative(found.get(&x).unwrap(), &tensors["grad.x"]);
    for p in store.all() {
        gradients = gradients.max(relative(found.get(p.var()).unwrap(), &tensors[&format!("grad.{}", p.name())]));
    }
    let mut initialized = {
        let _guard = store.no_grad();
        relative(&net.initialize(&x).unwrap(), &tensors["initialized.value"])
    };
    for p in store.all().into_iter().filter(|p| !p.name().ends_with("weight")) {
        initialized = initialized.max(relative(p.var(), &tensors[&format!("initialized.{}", p.name())]));
    }
    (dtype, [relative(&value, &tensors["value"]), gradients, initialized])
}

#[test]
#[ignore = "reads files of another program: FLOW_PARITY=/some/folder cargo test -p flow-video latent::parity -- --ignored"]
fn networks_agree_with_another_implementation() {
    let folder = std::env::var("FLOW_PARITY").expect("FLOW_PARITY names a folder");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("latent"));
    paths.sort();
    assert!(!paths.is_empty(), "no file");
    let mut worst = Vec::new();
    for path in paths {
        let (dtype, [value, gradient, initialized]) = compare(&path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!("{name:<28} value {value:.1e}, gradients {gradient:.1e}, initialised {initialized:.1e}");
        let (limit, limit_of_gradients) = if dtype == DType::F64 { (1e-10, 1e-10) } else { (1e-4, f64::INFINITY) };
        if value.max(initialized) > limit || gradient > limit_of_gradients {
            worst.push(name);
        }
    }
    assert!(worst.is_empty(), "beyond the limit: {worst:?}");
}
