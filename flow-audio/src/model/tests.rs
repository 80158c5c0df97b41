//! The kernels against the composed form, gradients against finite differences, and inverses.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::pair;
use flow_core::{Backprop, Bijector, FlowRng, Gradients, ParamStore};

use super::flow::Step;
use super::steps::AnyStep;
use super::{ModelConfig, Permutation, Vocoder, WaveFlowConfig};

/// The largest `|a - b|`; panics on differing shapes.
pub(super) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference: Vec<f64> = (a - b).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert!(difference.iter().all(|d| d.is_finite()));
    difference.into_iter().fold(0.0, |worst, d| worst.max(d.abs()))
}

/// A small model whose every parameter is drawn, the head's among them.
pub(super) fn model(dtype: DType, change: impl FnOnce(&mut WaveFlowConfig)) -> Vocoder {
    let mut config = WaveFlowConfig::new(8, 5, 2, 3);
    (config.mels, config.upsample) = (3, vec![4, 4]);
    change(&mut config);
    drawn(dtype, config)
}

/// A model of this configuration, with all of its parameters drawn.
pub(super) fn drawn(dtype: DType, config: impl Into<ModelConfig>) -> Vocoder {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let model = Vocoder::new(&store, &config.into()).unwrap();
    let mut rng = FlowRng::seed_from(8);
    for param in store.all().into_iter().filter(|p| p.name().contains("head")) {
        param.set(&rng.normal(param.var().shape(), dtype, &Device::Cpu).unwrap().affine(0.2, 0.0).unwrap()).unwrap();
    }
    model
}

fn rows(model: &Vocoder, k: usize) -> &Arc<Step> {
    match &model.steps[k] {
        AnyStep::Rows(step) => step,
        AnyStep::Groups(_) => panic!("no WaveFlow"),
    }
}

pub(super) fn normal(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    FlowRng::seed_from(seed).normal(shape, dtype, &Device::Cpu).unwrap()
}

fn kinds() -> Vec<(usize, usize, bool)> {
    vec![(8, 7, false), (8, 130, true), (32, 5, true), (64, 9, false)]
}

#[test]
fn the_kernel_is_the_composed_network_with_its_gradients() {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        for (height, width, causal) in kinds() {
            let model = model(dtype, |c| (c.height, c.causal_width) = (height, causal));
            let step = rows(&model, 1);
            let x = Var::from_tensor(&normal(1, &[2, height, width], dtype)).unwrap();
            let context = Var::from_tensor(&normal(2, &[2, height, width, 3], dtype)).unwrap();
            let fused = step.network.forward(&x, &context).unwrap();
            let composed = step.network.composed(&x, &context).unwrap();
            assert!(distance(&fused, &composed) < tolerance, "{height} {width}: {}", distance(&fused, &composed));
            let cotangent = normal(5, fused.dims(), dtype);
            let of = |value: &Tensor| pair(value, &cotangent).unwrap().backward().unwrap();
            let (got, want) = (of(&fused), of(&composed));
            let params = model.store.trainable().into_iter().filter(|p| p.name().starts_with("flow1."));
            let leaves = params.map(|p| p.var().clone()).chain([x, context]);
            for leaf in leaves {
                let Some(want) = want.get(&leaf) else { continue };
                let scale = distance(want, &want.zeros_like().unwrap()).max(1.0);
                let gap = got.get(&leaf).map_or(distance(want, &want.zeros_like().unwrap()), |got| distance(got, want));
                assert!(gap / scale < 10.0 * tolerance, "{height} {width} {:?}: {gap} of {scale}", leaf.dims());
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let model = model(DType::F64, |c| c.permutation = Permutation::Bipartite);
    check_gradients(&model, &normal(1, &[2, 64], DType::F64), &normal(2, &[2, 3, 4], DType::F64));
}

/// Reversible and plain back-propagation against each other, and both against finite differences, for two clips.
pub(super) fn check_gradients(model: &Vocoder, audio: &Tensor, mel: &Tensor) {
    let weight = Tensor::new(&[0.7, -0.4], &Device::Cpu).unwrap();
    let value = |audio: &Tensor| -> f64 {
        let _paused = model.store.no_grad();
        pair(&model.log_prob(audio, mel).unwrap(), &weight).unwrap().to_scalar().unwrap()
    };
    let found = |mode: Backprop| {
        let mut gradients = Gradients::new(&model.store);
        let scored = model.log_prob_backward(audio, mel, &weight, mode, &mut gradients).unwrap();
        assert!(!scored.fell_back);
        (gradients, scored.grad_x)
    };
    let ((reversible, grad_x), (plain, plain_x)) = (found(Backprop::Reversible), found(Backprop::Plain));
    assert!(distance(&grad_x, &plain_x) < 1e-10);
    let step = 1e-5;
    for (param, gradient) in reversible.iter() {
        let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", param.name()));
        assert!(distance(gradient, plain.get(param).unwrap()) < 1e-9, "{}", param.name());
        // Along one direction for each parameter.
        let (before, along) = (param.var().as_tensor().copy().unwrap(), normal(9, param.var().dims(), DType::F64));
        let at = |t: f64| {
            param.set(&(&before + along.affine(t, 0.0).unwrap()).unwrap()).unwrap();
            value(audio)
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        param.set(&before).unwrap();
        let analytic: f64 = pair(gradient, &along).unwrap().to_scalar().unwrap();
        assert!((numeric - analytic).abs() < 1e-6 * (1.0 + numeric.abs()), "{}: {numeric} {analytic}", param.name());
    }
    let along = normal(7, audio.dims(), DType::F64);
    let at = |t: f64| value(&(audio + along.affine(t, 0.0).unwrap()).unwrap());
    let numeric = (at(step) - at(-step)) / (2.0 * step);
    let analytic: f64 = pair(&grad_x, &along).unwrap().to_scalar().unwrap();
    assert!((numeric - analytic).abs() < 1e-6 * (1.0 + numeric.abs()), "{numeric} {analytic}");
}

#[test]
fn every_height_is_inverted_with_its_whole_table() {
    for height in [8, 16, 32, 64, 128] {
        for permutation in [Permutation::Reverse, Permutation::Bipartite] {
            let model = model(DType::F64, |c| {
                (c.height, c.layers, c.channels, c.permutation) = (height, 8, 3, permutation);
            });
            let frames = height / 4;
            let (audio, mel) = (normal(1, &[2, 16 * frames], DType::F64), normal(2, &[2, 3, frames], DType::F64));
            let (z, log_det) = model.encode(&audio, &mel).unwrap();
            assert!(distance(&model.decode(&z, &mel).unwrap(), &audio) < 1e-9, "{height}");
            let context = model.context(&model.upsampling.forward(&mel).unwrap(), 16 * frames).unwrap();
            let _paused = model.store.no_grad();
            let back = model.chain(z.dim(2).unwrap()).unwrap().decode(&z, Some(&context)).unwrap();
            assert!(
                distance(&(back.1 + log_det).unwrap(), &Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap()) < 1e-9
            );
            if height == 32 {
                let step = rows(&model, 0);
                let whole = step.decode_composed(&step.permute(&z).unwrap(), &context).unwrap();
                let queues = step.at(z.dim(2).unwrap()).decode(&z, Some(&context)).unwrap();
                assert!(distance(&whole.0, &queues.0) < 1e-9 && distance(&whole.1, &queues.1.neg().unwrap()) < 1e-9);
            }
        }
    }
}

#[test]
fn the_log_determinant_is_that_of_the_jacobian() {
    let model = model(DType::F64, |c| c.permutation = Permutation::Bipartite);
    check_jacobian(&model, &normal(1, &[1, 16], DType::F64), &normal(2, &[1, 3, 1], DType::F64));
}

/// The log-determinant of a clip of 16 samples against a numerical one.
pub(super) fn check_jacobian(model: &Vocoder, audio: &Tensor, mel: &Tensor) {
    let (_, log_det) = model.encode(audio, mel).unwrap();
    let event = |x: &Tensor| model.encode(x, mel).unwrap().0.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mut jacobian = vec![vec![0.0; 16]; 16];
    for j in 0..16 {
        let mut step = [0.0; 16];
        step[j] = 1e-5;
        let step = Tensor::new(&[step], &Device::Cpu).unwrap();
        let (up, down) = (event(&(audio + &step).unwrap()), event(&(audio - &step).unwrap()));
        (0..16).for_each(|i| jacobian[i][j] = (up[i] - down[i]) / 2e-5);
    }
    let mut sum = 0.0;
    for k in 0..16 {
        let pivot = (k..16).max_by(|&a, &b| jacobian[a][k].abs().total_cmp(&jacobian[b][k].abs())).unwrap();
        jacobian.swap(k, pivot);
        sum += jacobian[k][k].abs().ln();
        for i in k + 1..16 {
            let factor = jacobian[i][k] / jacobian[k][k];
            (k..16).for_each(|j| jacobian[i][j] -= factor * jacobian[k][j]);
        }
    }
    assert!((sum - log_det.to_vec1::<f64>().unwrap()[0]).abs() < 1e-6);
}

#[test]
fn likelihood_over_time_adds_up() {
    let model = model(DType::F64, |c| c.permutation = Permutation::Bipartite);
    let (audio, mel) = (normal(1, &[2, 64], DType::F64), normal(2, &[2, 3, 4], DType::F64));
    let by_sample = model.log_prob_by_sample(&audio, &mel).unwrap();
    assert_eq!(by_sample.dims(), [2, 64]);
    assert!(distance(&by_sample.sum(1).unwrap(), &model.log_prob(&audio, &mel).unwrap()) < 1e-9);
    let mean = model.log_prob_per_sample(&audio, &mel).unwrap();
    assert!(distance(&by_sample.mean(1).unwrap(), &mean) < 1e-12);
}

#[test]
fn the_size_is_what_the_configuration_says() {
    let model = model(DType::F32, |_| ());
    // Each weight-normalised kernel has a magnitude for each output beside its direction.
    let magnitudes = model.store.trainable().into_iter().filter(|p| p.name().ends_with("magnitude"));
    let magnitudes: usize = magnitudes.map(|p| p.var().elem_count()).sum();
    assert_eq!(model.store.parameter_count() - magnitudes, model.config.parameter_count());
}

#[test]
fn a_stream_is_the_whole() {
    let model = model(DType::F64, |c| (c.causal_width, c.layers, c.height) = (true, 4, 16));
    let mel = normal(4, &[1, 3, 23], DType::F64);
    let whole = model.synthesize(&mel, 0.8, &mut FlowRng::seed_from(6)).unwrap();
    for size in [1, 2, 5, 23] {
        let mut stream = model.synthesizer().unwrap().stream(0.8, FlowRng::seed_from(6)).unwrap();
        let kept = stream.kept();
        let mut parts = Vec::new();
        for from in (0..23).step_by(size) {
            let frames = mel.narrow(2, from, size.min(23 - from)).unwrap();
            parts.extend(stream.push(&frames).unwrap());
            let known: usize = parts.iter().map(|p| p.dim(1).unwrap()).sum();
            let given = 16 * (from + size).min(23) - stream.look_ahead();
            assert!(known <= given && known + 16 > given, "{known} of {given}");
        }
        assert_eq!(kept, stream.kept());
        parts.extend(stream.finish().unwrap());
        assert!(distance(&Tensor::cat(&parts, 1).unwrap(), &whole) < 1e-10, "{size}");
    }
    let paper = super::tests::model(DType::F64, |_| ());
    assert!(paper.synthesizer().unwrap().stream(1.0, FlowRng::seed_from(0)).is_err());
}

/// No rows are no error, and no gradient.
#[test]
fn a_batch_without_rows_is_scored() {
    for model in [model(DType::F32, |_| ()), drawn(DType::F32, super::glow_tests::small())] {
        let (frames, hop) = (8, model.config.hop());
        let samples = frames * hop / model.config.column() * model.config.column();
        let frames = samples.div_ceil(hop);
        let (audio, mel) = (normal(1, &[0, samples], DType::F32), normal(2, &[0, 3, frames], DType::F32));
        assert_eq!(model.log_prob(&audio, &mel).unwrap().dims(), [0]);
        let weight = Tensor::zeros(0, DType::F32, &Device::Cpu).unwrap();
        for mode in [Backprop::Reversible, Backprop::Plain] {
            let mut gradients = Gradients::new(&model.store);
            model.log_prob_backward(&audio, &mel, &weight, mode, &mut gradients).unwrap();
        }
        assert_eq!(model.synthesize(&mel, 1.0, &mut FlowRng::seed_from(1)).unwrap().dims(), [0, samples]);
    }
}

fn decibels(whole: &Tensor, other: &Tensor) -> f64 {
    let numbers = |t: &Tensor| t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    crate::metrics::signal_to_noise(&numbers(whole), &numbers(other)).unwrap()
}

#[test]
fn chunks_are_near_the_whole_and_nearer_with_more_overlap() {
    let model = model(DType::F64, |_| ());
    let mel = normal(4, &[2, 3, 40], DType::F64);
    let synthesizer = model.synthesizer().unwrap();
    let z = synthesizer.latent(2, 80, 1.0, &mut FlowRng::seed_from(1)).unwrap();
    let whole = synthesizer.decode(&z, &mel).unwrap();
    let ratio = |overlap: usize| {
        let chunked = synthesizer.decode_chunked(&z, &mel, 12, overlap).unwrap();
        decibels(&whole, &chunked)
    };
    assert!(ratio(2) > 10.0 && ratio(10) > ratio(2) + 6.0, "{} {}", ratio(2), ratio(10));
    assert!(synthesizer.decode_chunked(&z, &mel, 0, 0).is_err());
    assert_eq!(decibels(&whole, &synthesizer.decode_chunked(&z, &mel, 40, 0).unwrap()), f64::INFINITY);
}

#[test]
fn misfits_are_refused_by_name() {
    let model = model(DType::F32, |_| ());
    let (audio, mel) = (normal(1, &[1, 60], DType::F32), normal(2, &[1, 3, 4], DType::F32));
    let said = |audio: &Tensor, mel: &Tensor| model.log_prob(audio, mel).unwrap_err().to_string();
    assert!(said(&audio, &mel).contains("a multiple of 8"));
    assert!(said(&normal(1, &[1, 48], DType::F32), &mel).contains("(1, 3, 3)"));
    assert!(said(&normal(1, &[1, 64], DType::F64), &mel).contains("F64"));
    let (z, endless) = (normal(1, &[1, 8, 8], DType::F32), mel.affine(f64::NAN, 0.0).unwrap());
    assert!(model.decode(&z, &endless).unwrap_err().to_string().contains("non-finite sample"));
    let trimmed = model.trim(&audio, &normal(2, &[1, 3, 9], DType::F32)).unwrap();
    assert_eq!((trimmed.samples_dropped, trimmed.frames_dropped), (4, 5));
    assert!(model.log_prob(&trimmed.audio, &trimmed.mel).is_ok());
}
