//! WaveFlow and WaveGlow compute in Candle's operations what their kernels compute on the CPU.

use flow_audio::candle_core::{DType, Device, Tensor};
use flow_audio::data::{Clip, Clips, Splits};
use flow_audio::model::{LinearPrediction, ModelConfig, Permutation, Vocoder, WaveFlowConfig, WaveGlowConfig};
use flow_audio::trainer::{WaveRun, WaveTask, train_config};
use flow_audio::{MelConfig, OpenOptions, Result};
use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations};
use flow_core::train::{EmaConfig, TrainConfig};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};

const ALL: [Comparison; 3] = [("models", models), ("streams", streams), ("training", training)];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("vocoders", &ALL);
}

/// Four bands, sixteen samples a frame; and the order of the linear prediction.
fn configs() -> [(&'static str, ModelConfig, Option<usize>); 6] {
    let waveflow = |change: fn(&mut WaveFlowConfig)| {
        let mut config = WaveFlowConfig::new(8, 5, 2, 3);
        (config.mels, config.upsample) = (4, vec![4, 4]);
        change(&mut config);
        ModelConfig::from(config)
    };
    let mut glow = WaveGlowConfig::new(5, 3, 2);
    (glow.mels, glow.hop, glow.early_every) = (4, 16, 2);
    [
        ("waveflow", waveflow(|_| {}), None),
        ("waveflow, rows turned round", waveflow(|c| c.permutation = Permutation::Reverse), None),
        ("waveflow of errors of prediction", waveflow(|_| {}), Some(20)),
        ("width-causal waveflow", waveflow(|c| c.causal_width = true), None),
        ("width-causal waveflow of errors of prediction", waveflow(|c| c.causal_width = true), Some(20)),
        ("waveglow", glow.into(), None),
    ]
}

fn mel() -> MelConfig {
    MelConfig { fft: 64, window: 64, hop: 16, mels: 4, ..MelConfig::speech_8k() }
}

/// A model whose heads are not the zeros of the start.
fn model(config: &ModelConfig, prediction: Option<usize>, device: &Device) -> Result<Vocoder> {
    let store = ParamStore::new(1, DType::F32, device);
    let mut model = Vocoder::new(&store, config)?;
    if let Some(order) = prediction {
        model = model.with_prediction(LinearPrediction::new(order, &mel())?)?;
    }
    let mut rng = FlowRng::seed_from(2);
    for param in store.all().into_iter().filter(|p| p.name().contains("head")) {
        param.set(&rng.normal(param.var().shape(), DType::F32, device)?.affine(0.1, 0.0)?)?;
    }
    Ok(model)
}

fn models(elsewhere: &Elsewhere) {
    for (what, config, prediction) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let model = model(&config, prediction, device)?;
            let mut rng = FlowRng::seed_from(3);
            let audio = rng.normal((2, 96), DType::F32, device)?.affine(0.3, 0.0)?;
            let mel = rng.normal((2, 4, 6), DType::F32, device)?;
            let mut found = Found::default();
            let weight = Tensor::full(-0.01_f32, 2, device)?;
            for mode in [Backprop::Plain, Backprop::Reversible] {
                let mut gradients = Gradients::new(model.store());
                let scored = model.log_prob_backward(&audio, &mel, &weight, mode, &mut gradients)?;
                let of = Found::default().tensor("log_prob", &scored.log_prob)?.tensor("of audio", &scored.grad_x)?;
                found = found.and(&format!("{mode:?}"), of.gradients(&gradients)?);
            }
            let _paused = model.store().no_grad();
            let (z, log_det) = model.encode(&audio, &mel)?;
            let by_sample = model.log_prob_by_sample(&audio, &mel)?;
            let back = model.decode(&z, &mel)?;
            let drawn = model.synthesize(&mel, 0.7, &mut FlowRng::seed_from(4))?;
            let found = found.tensor("latent", &z)?.tensor("log-determinant", &log_det)?.tensor("decoded", &back)?;
            let found = found.tensor("log_prob by sample", &by_sample)?.tensor("synthesised", &drawn)?;
            let chunked = model.synthesizer()?.decode_chunked(&z, &mel, 2, 1)?;
            Ok(found.tensor("decoded in chunks", &chunked)?)
        });
    }
}

/// A stream inverts its flows on the CPU wherever the model is.
fn streams(elsewhere: &Elsewhere) {
    for (what, config, prediction) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let model = model(&config, prediction, device)?;
            let mel = FlowRng::seed_from(3).normal((1, 4, 11), DType::F32, device)?;
            let mut stream = match model.synthesizer()?.stream(0.7, FlowRng::seed_from(4)) {
                Ok(stream) => stream,
                // The others are refused everywhere.
                Err(error) => return Ok(Found::default().numbers(&error.to_string(), [])),
            };
            let mut found = Found::default();
            for from in (0..11).step_by(3) {
                if let Some(piece) = stream.push(&mel.narrow(2, from, 3.min(11 - from))?.contiguous()?)? {
                    found = found.tensor(&format!("piece at {from}"), &piece)?;
                }
            }
            match stream.finish()? {
                Some(rest) => Ok(found.tensor("rest", &rest)?),
                None => Ok(found),
            }
        });
    }
}

fn clips(count: usize) -> Result<Clips> {
    let clip = |number: usize| {
        let mut rng = FlowRng::named(number as u64, "clip");
        let pitch = 0.05 + 0.02 * number as f64;
        let sample = |i: usize| (0.3 * (pitch * i as f64).sin() + 0.02 * rng.next_normal()) as f32;
        Clip::new(format!("clip {number}"), 8000, (0..400).map(sample).collect(), 16)
    };
    Clips::new((0..count).map(clip).collect::<Result<_>>()?, "hums")
}

/// Twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding grows from step
/// to step: hence a thousandth.
fn training(elsewhere: &Elsewhere) {
    for (what, config, prediction) in configs() {
        elsewhere.hold(&format!("training of {what}"), 1e-3, |device| -> Result<Found> {
            let splits = Splits { train: clips(6)?, validation: clips(2)?, test: clips(1)? };
            let mut run = WaveRun::new(config.clone(), mel(), "hums", &OpenOptions::default(), 1)?;
            run.prediction = prediction;
            (run.batch, run.segment, run.validation_segments) = (3, 96, 2);
            let mut engine =
                TrainConfig { ema: Some(EmaConfig { decay: 0.9 }), validate_every: Some(10), ..train_config(20, 1) };
            engine.optimizer.learning_rate = 2e-3;
            Ok(Found::default().training(engine, WaveTask::new(run, splits, device)?)?)
        });
    }
}
