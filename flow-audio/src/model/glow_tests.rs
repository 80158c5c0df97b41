//! WaveGlow: the kernel against the composed form, inverses, gradients, likelihoods.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::pair;
use flow_core::testing::{Case, check};
use flow_core::{Bijector, Error, FlowRng, ParamStore};

use super::glow::GlowStep;
use super::steps::AnyStep;
use super::tests::{check_gradients, check_jacobian, distance, drawn, normal};
use super::{Vocoder, WaveGlowConfig};

/// A small configuration of a hop that no two strides make: three flows, two of the six samples of a group leaving after two.
pub(super) fn small() -> WaveGlowConfig {
    let sizes = WaveGlowConfig::new(5, 3, 3);
    WaveGlowConfig { group: 6, early_every: 2, mels: 3, hop: 9, reach: 3, ..sizes }
}

fn groups(model: &Vocoder, k: usize) -> &Arc<GlowStep> {
    match &model.steps[k] {
        AnyStep::Groups(step) => step,
        AnyStep::Rows(_) => panic!("no WaveGlow"),
    }
}

#[test]
fn the_kernel_is_the_composed_network_with_its_gradients() {
    for (dtype, tolerance, width) in [(DType::F64, 1e-12, 7), (DType::F64, 1e-12, 810), (DType::F32, 1e-5, 130)] {
        let model = drawn(dtype, small());
        let step = groups(&model, 1);
        let x = Var::from_tensor(&normal(1, &[2, width, 3], dtype)).unwrap();
        let context = Var::from_tensor(&normal(2, &[2, 1, width, 18], dtype)).unwrap();
        let fused = step.network.forward(&x, &context).unwrap();
        let composed = step.network.composed(&x, &context).unwrap();
        assert_eq!(fused.dims(), [2, 1, width, 6]);
        assert!(distance(&fused, &composed) < tolerance, "{width}: {}", distance(&fused, &composed));
        let cotangent = normal(5, fused.dims(), dtype);
        let of = |value: &Tensor| pair(value, &cotangent).unwrap().backward().unwrap();
        let (got, want) = (of(&fused), of(&composed));
        let params = model.store.trainable().into_iter().filter(|p| p.name().starts_with("flow1."));
        for leaf in params.map(|p| p.var().clone()).chain([x, context]) {
            let Some(want) = want.get(&leaf) else { continue };
            let scale = distance(want, &want.zeros_like().unwrap()).max(1.0);
            let gap = distance(got.get(&leaf).unwrap(), want);
            assert!(gap / scale < 10.0 * tolerance, "{width} {:?}: {gap} of {scale}", leaf.dims());
        }
    }
}

/// Every claim of a bijector, in f64 and f32, with and without samples that have left: inverses, log-determinants, no rows,
/// gradients, misfits.
#[test]
fn flows_keep_what_bijectors_promise() {
    for index in [0, 2] {
        let case = Case::new("GlowAt", "a flow of WaveGlow", move |path| {
            Ok(Box::new(Arc::new(GlowStep::new(path, &small(), index)?).at(4)?))
        });
        let case =
            case.reach(30.0, "log-scales are the paper's, without a bound").far(30.0, "so are their exponentials");
        check(&case).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn waveforms_are_inverted_and_scored_exactly() {
    for dtype in [DType::F64, DType::F32] {
        let model = drawn(dtype, small());
        let (audio, mel) = (normal(1, &[2, 54], dtype), normal(2, &[2, 3, 6], dtype));
        let (z, _) = model.encode(&audio, &mel).unwrap();
        assert_eq!(z.dims(), [2, 6, 9]);
        let tolerance = if dtype == DType::F64 { 1e-10 } else { 1e-4 };
        assert!(distance(&model.decode(&z, &mel).unwrap(), &audio) < tolerance);
        let by_sample = model.log_prob_by_sample(&audio, &mel).unwrap();
        assert!(distance(&by_sample.sum(1).unwrap(), &model.log_prob(&audio, &mel).unwrap()) < 10.0 * tolerance);
    }
    let jacobian = WaveGlowConfig { group: 4, early_every: 1, hop: 16, ..small() };
    let jacobian = drawn(DType::F64, WaveGlowConfig { flows: 2, ..jacobian });
    check_jacobian(&jacobian, &normal(1, &[1, 16], DType::F64), &normal(2, &[1, 3, 1], DType::F64));
}

#[test]
fn gradients_are_those_of_finite_differences_and_nothing_is_kept_for_them() {
    let model = drawn(DType::F64, small());
    check_gradients(&model, &normal(1, &[2, 54], DType::F64), &normal(2, &[2, 3, 6], DType::F64));
    let chain = model.chain(9).unwrap();
    let (audio, mel) = (normal(1, &[2, 54], DType::F64), normal(2, &[2, 3, 6], DType::F64));
    let _paused = model.store.no_grad();
    let context = model.context(&model.upsampling.forward(&mel).unwrap(), 54).unwrap();
    let rows = audio.reshape((2, 9, 6)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    let (_, _, tape) = chain.encode_taped(&rows, Some(&context)).unwrap();
    let flow_core::bijector::Tape::Parts(parts) = tape else { panic!("{tape:?}") };
    assert!(parts.iter().all(|part| matches!(part, flow_core::bijector::Tape::Inverse)));
}

/// Upsampling is PyTorch's transposed convolution, by its definition.
#[test]
fn upsampling_is_the_transposed_convolution() {
    let model = drawn(DType::F64, small());
    let mel = normal(3, &[1, 3, 5], DType::F64);
    let numbers = |name: &str| model.store.get(name).unwrap().tensor().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (weight, bias) = (numbers("upsample.weight"), numbers("upsample.bias"));
    let x = mel.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (hop, kernel) = (9, 27);
    let mut wanted = vec![0.0; 3 * 45];
    for to in 0..3 {
        for t in 0..45 {
            wanted[to * 45 + t] = bias[to];
            for (from, frame) in (0..3).flat_map(|from| (0..5).map(move |frame| (from, frame))) {
                if let Some(place) = t.checked_sub(frame * hop).filter(|&place| place < kernel) {
                    wanted[to * 45 + t] += x[from * 5 + frame] * weight[(from * 3 + to) * kernel + place];
                }
            }
        }
    }
    let wanted = Tensor::from_vec(wanted, (1, 3, 45), &Device::Cpu).unwrap();
    assert!(distance(&model.upsample(&mel).unwrap(), &wanted) < 1e-12);
    assert!(model.upsample(&mel.narrow(1, 0, 2).unwrap()).unwrap_err().to_string().contains("(B, 3, F)"));
}

#[test]
fn the_size_is_what_the_configuration_says() {
    for config in [small(), WaveGlowConfig::new(6, 12, 2)] {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        Vocoder::new(&store, &config.clone().into()).unwrap();
        assert_eq!(store.parameter_count(), config.parameter_count());
    }
}

/// A fresh model maps by proper rotations alone, so that a waveform is as likely as its numbers are under the Gaussian.
#[test]
fn a_fresh_model_keeps_volumes() {
    let store = ParamStore::new(5, DType::F64, &Device::Cpu);
    let model = Vocoder::new(&store, &small().into()).unwrap();
    let (audio, mel) = (normal(1, &[2, 54], DType::F64), normal(2, &[2, 3, 6], DType::F64));
    let (z, log_det) = model.encode(&audio, &mel).unwrap();
    assert!(distance(&log_det, &log_det.zeros_like().unwrap()) < 1e-12);
    let norms = |t: &Tensor| t.sqr().unwrap().flatten_from(1).unwrap().sum(1).unwrap();
    assert!(distance(&norms(&z), &norms(&audio)) < 1e-10);
}

#[test]
fn pieces_are_chunks_and_no_stream() {
    let model = drawn(DType::F64, WaveGlowConfig { hop: 12, ..small() });
    let mel = normal(4, &[1, 3, 80], DType::F64);
    let synthesizer = model.synthesizer().unwrap();
    let z = synthesizer.latent(1, 160, 1.0, &mut FlowRng::seed_from(1)).unwrap();
    let whole = synthesizer.decode(&z, &mel).unwrap();
    assert_eq!(distance(&whole, &synthesizer.decode_chunked(&z, &mel, 80, 0).unwrap()), 0.0);
    // Two frames of reach before, and 7 groups to either side of each of three flows, are less than half an overlap.
    let near = synthesizer.decode_chunked(&z, &mel, 26, 26).unwrap();
    assert!(distance(&whole, &near) < 1e-10, "{}", distance(&whole, &near));
    let far = synthesizer.decode_chunked(&z, &mel, 26, 1).unwrap();
    assert!(distance(&whole, &far) > 1e-6);
    let Err(refused) = synthesizer.stream(1.0, FlowRng::seed_from(0)) else { panic!("a stream") };
    assert!(refused.to_string().contains("WaveGlow") && refused.to_string().contains("decode_chunked"), "{refused}");
    assert!(matches!(refused, Error::Config { .. }));
}
