//! A vocoder on the errors of a prediction is still a density of the waveform.

use candle_core::{DType, Device, Tensor, Var};
use flow_core::FlowRng;
use flow_core::autodiff::pair;

use super::*;
use crate::model::tests::{check_gradients, check_jacobian, distance, model, normal};
use crate::model::{Vocoder, WaveFlowConfig};

/// Three bands, sixteen samples a frame.
fn mel(convention: Convention) -> MelConfig {
    MelConfig { fft: 64, window: 64, hop: 16, mels: 3, ..MelConfig::speech_8k() }.with_convention(convention)
}

fn predicting(dtype: DType, order: usize, change: impl FnOnce(&mut WaveFlowConfig)) -> Vocoder {
    with(model(dtype, change), order, Convention::Tacotron2)
}

fn with(model: Vocoder, order: usize, convention: Convention) -> Vocoder {
    model.with_prediction(LinearPrediction::new(order, &mel(convention)).unwrap()).unwrap()
}

#[test]
fn the_density_is_that_of_the_waveform() {
    for order in [1, 5, 32] {
        let model = predicting(DType::F64, order, |_| ());
        let (audio, mel) = (normal(1, &[2, 64], DType::F64), normal(2, &[2, 3, 4], DType::F64));
        check_gradients(&model, &audio, &mel);
        check_jacobian(
            &model,
            &audio.narrow(0, 0, 1).unwrap().narrow(1, 0, 16).unwrap(),
            &normal(3, &[1, 3, 1], DType::F64),
        );
        let by_sample = model.log_prob_by_sample(&audio, &mel).unwrap();
        assert!(distance(&by_sample.sum(1).unwrap(), &model.log_prob(&audio, &mel).unwrap()) < 1e-9);
    }
}

#[test]
fn the_graph_has_the_gradient_of_the_backward_pass() {
    let model = predicting(DType::F64, 7, |_| ());
    let audio = Var::from_tensor(&normal(1, &[2, 64], DType::F64)).unwrap();
    let (mel, weight) = (normal(2, &[2, 3, 4], DType::F64), Tensor::new(&[0.7, -0.4], &Device::Cpu).unwrap());
    let gradients = pair(&model.log_prob(&audio, &mel).unwrap(), &weight).unwrap().backward().unwrap();
    let mut sums = flow_core::Gradients::new(&model.store);
    let mode = flow_core::Backprop::Reversible;
    let scored = model.log_prob_backward(&audio, &mel, &weight, mode, &mut sums).unwrap();
    assert!(distance(gradients.get(&audio).unwrap(), &scored.grad_x) < 1e-9);
    assert!(distance(&scored.log_prob, &model.log_prob(&audio, &mel).unwrap()) < 1e-9);
}

#[test]
fn waveforms_come_back() {
    for convention in Convention::ALL {
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
            let model = with(model(dtype, |_| ()), 32, convention);
            let (audio, mel) = (normal(1, &[2, 160], dtype), normal(2, &[2, 3, 10], dtype));
            let (z, _) = model.encode(&audio, &mel).unwrap();
            let gap = distance(&model.decode(&z, &mel).unwrap(), &audio);
            assert!(gap < tolerance, "{convention} {dtype:?}: {gap}");
        }
    }
}

#[test]
fn a_stream_is_the_whole() {
    for convention in Convention::ALL {
        let model = with(model(DType::F64, |c| (c.causal_width, c.height) = (true, 16)), 32, convention);
        let mel = normal(4, &[1, 3, 23], DType::F64);
        let whole = model.synthesize(&mel, 0.8, &mut FlowRng::seed_from(6)).unwrap();
        for size in [1, 2, 5, 23] {
            let mut stream = model.synthesizer().unwrap().stream(0.8, FlowRng::seed_from(6)).unwrap();
            let mut parts = Vec::new();
            for from in (0..23).step_by(size) {
                parts.extend(stream.push(&mel.narrow(2, from, size.min(23 - from)).unwrap()).unwrap());
                let known: usize = parts.iter().map(|p| p.dim(1).unwrap()).sum();
                let given = (16 * (from + size).min(23)).saturating_sub(stream.look_ahead());
                assert!(known <= given && known + 16 > given, "{convention}: {known} of {given}");
            }
            parts.extend(stream.finish().unwrap());
            assert!(distance(&Tensor::cat(&parts, 1).unwrap(), &whole) < 1e-9, "{convention} {size}");
        }
        // Frames that are refused are as if they had not been there.
        let mut stream = model.synthesizer().unwrap().stream(0.8, FlowRng::seed_from(6)).unwrap();
        let (first, rest) = (mel.narrow(2, 0, 9).unwrap(), mel.narrow(2, 9, 14).unwrap());
        let mut parts: Vec<Tensor> = stream.push(&first).unwrap().into_iter().collect();
        assert!(stream.push(&rest.affine(f64::NAN, 0.0).unwrap()).is_err());
        assert!(stream.push(&rest.narrow(1, 0, 2).unwrap()).is_err());
        parts.extend(stream.push(&rest).unwrap());
        parts.extend(stream.finish().unwrap());
        assert!(distance(&Tensor::cat(&parts, 1).unwrap(), &whole) < 1e-9, "{convention}");
    }
}

/// In chunks the flows are approximate, the filter is not: a chunk as long as the clip is the clip.
#[test]
fn chunks_are_restored_as_one() {
    let model = predicting(DType::F64, 32, |_| ());
    let mel = normal(4, &[2, 3, 40], DType::F64);
    let synthesizer = model.synthesizer().unwrap();
    let z = synthesizer.latent(2, 80, 1.0, &mut FlowRng::seed_from(1)).unwrap();
    let whole = synthesizer.decode(&z, &mel).unwrap();
    assert_eq!(distance(&whole, &synthesizer.decode_chunked(&z, &mel, 40, 0).unwrap()), 0.0);
    let far = distance(&whole, &synthesizer.decode_chunked(&z, &mel, 12, 10).unwrap());
    let size = distance(&whole, &whole.zeros_like().unwrap());
    assert!(far < size, "{far} of {size}");
    assert!(synthesizer.decode_upsampled(&z, &model.upsample(&mel).unwrap()).is_err());
}

#[test]
fn no_clips_and_extreme_ones() {
    let model = predicting(DType::F32, 32, |_| ());
    let (none, mel) = (normal(1, &[0, 64], DType::F32), normal(2, &[0, 3, 4], DType::F32));
    assert_eq!(model.log_prob(&none, &mel).unwrap().dims(), [0]);
    assert_eq!(model.synthesize(&mel, 1.0, &mut FlowRng::seed_from(1)).unwrap().dims(), [0, 64]);
    let (silence, floor) = (
        Tensor::zeros((1, 64), DType::F32, &Device::Cpu).unwrap(),
        Tensor::full(1e-5f32.ln(), (1, 3, 4), &Device::Cpu).unwrap(),
    );
    let silent = model.log_prob_per_sample(&silence, &floor).unwrap().to_vec1::<f32>().unwrap()[0];
    assert!(silent.is_finite(), "{silent}");
    let tracked = Var::from_tensor(&floor).unwrap();
    let refused = model.log_prob(&silence, tracked.as_tensor()).unwrap_err().to_string();
    assert!(refused.contains("no gradient for the spectrogram"), "{refused}");
    let refused = model.log_prob(&silence, &floor.affine(f64::NAN, 0.0).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("linear prediction") && refused.contains("spectrogram"), "{refused}");
}

/// Bands end at half of the spectrum, and the sound there as well: only recordings can tell.
#[test]
fn calibration_finds_what_bands_do_not_say() {
    let config = MelConfig { high: 2000.0, ..mel(Convention::Tacotron2) };
    let model = model(DType::F64, |_| ()).with_prediction(LinearPrediction::new(32, &config).unwrap()).unwrap();
    let mut rng = FlowRng::seed_from(3);
    let mut clip = || -> Vec<f32> {
        let noise: Vec<f64> = (0..4800).map(|_| 0.1 * rng.next_normal()).collect();
        // Sums of five neighbours: little above 1.6 kHz.
        noise.windows(5).map(|five| five.iter().sum::<f64>() as f32).collect()
    };
    let clips = [clip(), clip(), clip()];
    let nats = |samples: &[f32]| {
        let spectrogram = config.spectrogram(samples).unwrap().cut(0, 296).unwrap().tensor(&Device::Cpu).unwrap();
        let audio = Tensor::from_slice(&samples[..296 * 16], (1, 296 * 16), &Device::Cpu).unwrap();
        let [audio, spectrogram] = [audio, spectrogram].map(|t| t.to_dtype(DType::F64).unwrap());
        let residual = model.prediction().unwrap().residual(&audio, &spectrogram).unwrap();
        let gaussian = (residual.errors.sqr().unwrap() * -0.5).unwrap();
        (gaussian - residual.log_scales).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let before = nats(&clips[2]);
    let seen = clips[..2].iter().map(|samples| Ok((&samples[..], config.spectrogram(samples)?)));
    model.calibrate(seen).unwrap();
    let after = nats(&clips[2]);
    assert!(after > before + 0.1, "{before} {after}");
    let offsets = host::numbers(&model.store.get("prediction.offsets").unwrap().tensor()).unwrap();
    assert!(offsets[4..12].iter().all(|o| o.abs() < 1.5) && offsets[26] < -2.0, "{offsets:?}");
    assert!(model.calibrate(std::iter::empty()).is_err());
}

#[test]
fn misfits_are_named() {
    let tacotron = mel(Convention::Tacotron2);
    for order in [0, 33] {
        assert!(LinearPrediction::new(order, &tacotron).unwrap_err().to_string().contains("from 1 to 32"));
    }
    let other = LinearPrediction::new(4, &MelConfig { hop: 8, ..tacotron }).unwrap();
    let message = model(DType::F32, |_| ()).with_prediction(other).unwrap_err().to_string();
    assert!(message.contains("hop of 8") && message.contains("hop of 16"), "{message}");
}
