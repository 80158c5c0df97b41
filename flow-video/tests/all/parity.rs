//! Whole models, clips, latents, likelihoods and predictions that an independent implementation wrote.
//!
//! `python flow-video/tests/parity.py torch_videoflow.py /some/folder` writes them, and `FLOW_PARITY` names the folder.

use std::collections::HashMap;
use std::path::Path;

use flow_core::nn::HiddenActivation;
use flow_core::{FlowRng, ParamStore};
use flow_video::candle_core::{self, DType, Device, Tensor};
use flow_video::model::{GlowCoupling, ImageSpec, Predictor, PriorConfig, VideoConfig, VideoFlow};

/// `|a - b|` at most, over `max(1, |b|)`.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let numbers = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(a.elem_count(), b.elem_count());
    numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
}

/// The temperature of the frames that are drawn with noise, and their number.
const DRAWN: (f64, usize) = (0.8, 3);

/// A frame of the composition, in levels.
fn levels_of(frame: &Tensor) -> Tensor {
    let levels = ((frame + 0.5).unwrap() * 256.0).unwrap().floor().unwrap();
    levels.clamp(0.0, 255.0).unwrap().to_dtype(DType::F64).unwrap()
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    let apart = (a.to_dtype(DType::F64).unwrap() - b).unwrap().abs().unwrap();
    apart.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// The largest differences of latents, of likelihoods, of a prediction in levels, and of predictions from given noise,
/// each of which follows from the one before.
fn compare(path: &Path) -> (DType, [f64; 4]) {
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let config: Vec<i64> = tensors["config"].to_vec1().unwrap();
    let [channels, affine, gated, skip] = <[i64; 4]>::try_from(config).unwrap();
    let mut prior = PriorConfig::new(2, 12);
    prior.skip = skip == 1;
    let mut sizes = VideoConfig::new(2, 3, 16, prior);
    sizes.coupling = if affine == 1 { GlowCoupling::Affine } else { GlowCoupling::Additive };
    sizes.activation = if gated == 1 { HiddenActivation::Gated } else { HiddenActivation::Relu };
    let dtype = tensors["log_prob"].dtype();
    let store = ParamStore::new(0, dtype, &Device::Cpu);
    let spec = ImageSpec::new(channels as usize, 16, 16, 256).unwrap();
    let model = VideoFlow::new(&sizes, &spec, &store).unwrap();
    for param in store.all() {
        if let Some(value) = tensors.get(&format!("model.{}", param.name())) {
            param.set(&value.to_dtype(dtype).unwrap()).unwrap();
        } else {
            assert!(!param.trainable(), "{} is not in the file", param.name());
        }
    }
    let clips = &tensors["clips"];
    let (latents, log_prob) = model.encode(clips).unwrap();
    let named = |level: usize| &tensors[&format!("latent{level}")];
    let of_latents = (0..2).map(|level| difference(&latents[level], named(level))).fold(0.0, f64::max);
    let mut predictor = Predictor::new(&model);
    predictor.observe(clips).unwrap();
    let drawn = predictor.predict(1, &[0.0], &mut FlowRng::seed_from(0)).unwrap().squeeze(1).unwrap();
    let levels = largest(&drawn, &levels_of(&tensors["predicted"]));
    let mut predictor = Predictor::new(&model);
    predictor.observe(clips).unwrap();
    let noise: Vec<Vec<Tensor>> =
        (0..DRAWN.1).map(|t| (0..2).map(|l| tensors[&format!("noise.{t}.{l}")].clone()).collect()).collect();
    let drawn = predictor.predict_from(&noise, &[DRAWN.0]).unwrap();
    let with_noise = largest(&drawn, &levels_of(&tensors["with_noise"]));
    (dtype, [of_latents, difference(&log_prob, &tensors["log_prob"]), levels, with_noise])
}

#[test]
#[ignore = "reads files of another program: FLOW_PARITY=/some/folder cargo test -p flow-video --test all parity -- --ignored"]
fn models_agree_with_another_implementation() {
    let folder = std::env::var("FLOW_PARITY").expect("FLOW_PARITY names a folder");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("video"));
    paths.sort();
    assert!(!paths.is_empty(), "no file");
    let mut worst = Vec::new();
    for path in paths {
        let (dtype, [latents, log_prob, levels, with_noise]) = compare(&path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!(
            "{name:<24} latents {latents:.1e}, ln p {log_prob:.1e}, prediction {levels}, with noise {with_noise} levels"
        );
        let (limit, relative) = if dtype == DType::F64 { (1e-10, 1e-12) } else { (1e-4, 1e-6) };
        // A value at the edge of a level may fall on either side.
        if latents > limit || log_prob > relative || levels.max(with_noise) > 1.0 {
            worst.push(name);
        }
    }
    assert!(worst.is_empty(), "beyond the limit: {worst:?}");
}
