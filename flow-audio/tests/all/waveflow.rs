//! WaveFlow beside an independent implementation, from a file that it wrote.
//!
//! The folder is `FLOW_DATA`, or `../shared/data` beside the workspace; without it these tests say that they check nothing.
//! `FLOW_WAVEFLOW=/some/file.safetensors` compares another such file, of a model with bipartite permutations.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use flow_audio::candle_core::{DType, Device, Tensor, safetensors};
use flow_audio::model::{Permutation, Vocoder, WaveFlowConfig};
use flow_core::ParamStore;

fn file(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    f64::from(difference.max(0).unwrap().to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap())
}

/// The weights, and beside them inputs and results by their names.
fn open(path: &Path) -> (HashMap<String, Tensor>, HashMap<String, Tensor>) {
    let (results, weights): (HashMap<_, _>, HashMap<_, _>) =
        safetensors::load(path, &Device::Cpu).unwrap().into_iter().partition(|(name, _)| name.starts_with("fixture."));
    (weights, results.into_iter().map(|(name, t)| (name["fixture.".len()..].to_string(), t)).collect())
}

fn compare(path: &Path, permutation: Permutation) {
    let (weights, found) = open(path);
    let numbers = |prefix: &str, place: usize| {
        let number = |name: &String| name.split('.').nth(place).unwrap().parse::<usize>().unwrap();
        1 + weights.keys().filter(|name| name.contains(prefix)).map(number).max().unwrap()
    };
    let channels = weights["flows.0.coupling.net.front_conv.0.conv.weight"].dims()[0];
    let height = found["z"].dims()[2];
    let mut config = WaveFlowConfig::new(height, channels, numbers("flows.", 1), numbers(".res_blocks.", 5));
    config.permutation = permutation;
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = Vocoder::new(&store, &config.into()).unwrap();
    model.import_folded(&weights).unwrap();
    let _paused = store.no_grad();

    assert!(distance(&model.upsample(&found["mel"]).unwrap(), &found["mel_up"]) <= 1e-4, "upsampled mel");
    let (z, log_det) = model.encode(&found["x"], &found["mel"]).unwrap();
    assert!(distance(&z, &found["z"].squeeze(1).unwrap()) <= 1e-4, "latent");
    let (sum, expected) =
        (log_det.sum_all().unwrap().to_scalar::<f32>().unwrap(), found["logdet"].to_vec1::<f32>().unwrap());
    assert!((sum - expected[0]).abs() <= 1e-4 * expected[0].abs().max(1.0), "log-determinant {sum} {expected:?}");
    let mean =
        model.log_prob_per_sample(&found["x"], &found["mel"]).unwrap().mean(0).unwrap().to_scalar::<f32>().unwrap();
    assert!((mean + found["loss"].to_vec1::<f32>().unwrap()[0]).abs() <= 1e-4, "likelihood");
    assert!(distance(&model.decode(&z, &found["mel"]).unwrap(), &found["x"]) <= 1e-5, "inverse");
    let synthesizer = model.synthesizer().unwrap();
    let upsampled = model.upsample(&found["mel"]).unwrap();
    let audio = synthesizer.decode_upsampled(&found["z0"].squeeze(1).unwrap(), &upsampled).unwrap();
    assert!(distance(&audio, &found["synth"]) <= 1e-4, "synthesis");
}

#[test]
fn agrees_with_an_independent_implementation() {
    if let Some(path) = file("fixtures/waveflow_tiny_reverse.safetensors") {
        compare(&path, Permutation::Reverse);
    }
    if let Some(path) = std::env::var_os("FLOW_WAVEFLOW") {
        compare(Path::new(&path), Permutation::Bipartite);
    }
}

#[test]
fn foreign_weights_that_do_not_fit_are_named() {
    let Some(path) = file("fixtures/waveflow_tiny_reverse.safetensors") else { return };
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let mut config = WaveFlowConfig::new(8, 8, 4, 3);
    config.permutation = Permutation::Reverse;
    let model = Vocoder::new(&store, &config.into()).unwrap();
    let before = store.fingerprint("").unwrap();
    // The whole file, whose inputs and results are not weights.
    let message = model.load_folded(&path).unwrap_err().to_string();
    assert!(message.contains("waveflow_tiny_reverse") && message.contains("'fixture."), "{message}");
    let (mut weights, _) = open(&path);
    let moved = weights.remove("upsample_conv.2.bias").unwrap();
    weights.insert("upsample_conv.0.weight".into(), moved);
    let message = model.import_folded(&weights).unwrap_err().to_string();
    assert!(message.contains("'upsample_conv.2.bias' is missing") && message.contains("[1, 1, 3, 32]"), "{message}");
    assert_eq!(store.fingerprint("").unwrap(), before);
}
