//! WaveGlow beside an independent implementation: `fixtures/waveglow_tiny.safetensors` was written by a few lines of PyTorch
//! that follow the equations, in double precision, with the tensors' names of the published code.

use std::collections::HashMap;
use std::path::PathBuf;

use flow_audio::candle_core::{DType, Device, Tensor, safetensors};
use flow_audio::model::{Vocoder, WaveGlowConfig};
use flow_core::ParamStore;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/waveglow_tiny.safetensors")
}

/// The weights, and beside them inputs and results by their names.
fn open() -> (HashMap<String, Tensor>, HashMap<String, Tensor>) {
    let (results, weights): (HashMap<_, _>, HashMap<_, _>) = safetensors::load(fixture(), &Device::Cpu)
        .unwrap()
        .into_iter()
        .partition(|(name, _)| name.starts_with("fixture."));
    (weights, results.into_iter().map(|(name, t)| (name["fixture.".len()..].to_string(), t)).collect())
}

/// Five flows of three layers over groups of 8, of which 2 samples leave every second flow.
fn model(store: &ParamStore) -> Vocoder {
    let mut config = WaveGlowConfig::new(5, 5, 3);
    (config.mels, config.hop, config.early_every) = (4, 20, 2);
    Vocoder::new(store, &config.into()).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    f64::from(difference.max(0).unwrap().to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn agrees_with_an_independent_implementation() {
    let (weights, found) = open();
    for dtype in [DType::F32, DType::F64] {
        let store = ParamStore::new(0, dtype, &Device::Cpu);
        let model = model(&store);
        model.import_folded(&weights).unwrap();
        let _paused = store.no_grad();
        let given = |name: &str| found[name].to_dtype(dtype).unwrap();
        let near = |what: &str, got: &Tensor, name: &str| {
            let gap = distance(got, &given(name));
            assert!(gap <= 1e-4, "{what}: {gap}");
        };
        near("upsampled mel", &model.upsample(&given("mel")).unwrap(), "mel_up");
        let (z, log_det) = model.encode(&given("x"), &given("mel")).unwrap();
        near("latent", &z, "z");
        near("log-determinant", &log_det, "logdet");
        near("inverse", &model.decode(&z, &given("mel")).unwrap(), "x");
        near("synthesis", &model.decode(&given("z0"), &given("mel")).unwrap(), "synth");
    }
}

#[test]
fn foreign_weights_that_do_not_fit_are_named() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = model(&store);
    let before = store.fingerprint("").unwrap();
    // The whole file, whose inputs and results are not weights.
    let message = model.load_folded(&fixture()).unwrap_err().to_string();
    assert!(message.contains("waveglow_tiny") && message.contains("'fixture."), "{message}");
    let (mut weights, _) = open();
    let moved = weights.remove("convinv.2.conv.weight").unwrap();
    weights.insert("WN.1.end.weight".into(), moved);
    let message = model.import_folded(&weights).unwrap_err().to_string();
    assert!(message.contains("'convinv.2.conv.weight' is missing") && message.contains("[8, 5, 1]"), "{message}");
    assert_eq!(store.fingerprint("").unwrap(), before);
}
