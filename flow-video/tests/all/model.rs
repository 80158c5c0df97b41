//! VideoFlow as a whole: causality, exact inverses, gradients, predictions.

use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use flow_video::candle_core::{DType, Device, Tensor};
use flow_video::model::{
    Footage, ImageSpec, Motion, Predictor, PriorConfig, PriorEncoder, VideoConfig, VideoFlow, preset,
};

/// A small model whose parameters are not those of the start, at which half of the networks are zero.
fn model(dtype: DType) -> VideoFlow {
    model_of(dtype, false)
}

fn model_of(dtype: DType, gaussianize: bool) -> VideoFlow {
    changed(dtype, |config| config.gaussianize = gaussianize)
}

/// What looks at the past.
const ENCODERS: [PriorEncoder; 4] =
    [PriorEncoder::Conv3dNet, PriorEncoder::ConvNet, PriorEncoder::ConvLstm, PriorEncoder::Pointwise];

/// A model with each of these, and some that follow motions.
fn all_that_look_back(dtype: DType) -> impl Iterator<Item = (String, VideoFlow)> {
    let encoders = ENCODERS.into_iter().map(move |encoder| (format!("{encoder:?}"), encoding(dtype, encoder)));
    let moving = [(PriorEncoder::Conv3dNet, true), (PriorEncoder::Conv3dNet, false), (PriorEncoder::ConvNet, true)];
    encoders.chain(moving.map(|(encoder, gaussianize)| {
        let model = following(dtype, |config| (config.prior.encoder, config.gaussianize) = (encoder, gaussianize));
        (format!("{encoder:?} and motion, histogram {gaussianize}"), model)
    }))
}

/// A model that follows motions.
fn following(dtype: DType, change: impl FnOnce(&mut VideoConfig)) -> VideoFlow {
    changed(dtype, |config| {
        (config.prior.motion, config.prior.skip) = (Some(Motion::new(2, 3)), false);
        change(config);
    })
}

fn encoding(dtype: DType, encoder: PriorEncoder) -> VideoFlow {
    changed(dtype, |config| {
        config.prior.encoder = encoder;
        config.prior.past = if encoder == PriorEncoder::Pointwise { 1 } else { 2 };
    })
}

pub(crate) fn changed(dtype: DType, change: impl FnOnce(&mut VideoConfig)) -> VideoFlow {
    let mut prior = PriorConfig::new(1, 6);
    prior.past = 2;
    let mut config = VideoConfig::new(2, 2, 8, prior);
    change(&mut config);
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let spec = ImageSpec::new(1, 8, 12, 256).unwrap();
    let model = VideoFlow::new(&config, &spec, &store).unwrap();
    let mut rng = FlowRng::seed_from(4);
    for param in store.trainable() {
        let noise = rng.normal(param.tensor().shape(), dtype, &Device::Cpu).unwrap();
        param.set(&(param.tensor() + (noise * 0.03).unwrap()).unwrap()).unwrap();
    }
    model
}

/// Actions `(2, frames, 3)`.
pub(crate) fn actions(frames: usize) -> Tensor {
    FlowRng::seed_from(8).normal((2, frames, 3), DType::F64, &Device::Cpu).unwrap()
}

/// Clips `(2, frames, 1, 8, 12)` of levels.
pub(crate) fn clips(frames: usize, seed: u64) -> Tensor {
    let mut rng = FlowRng::seed_from(seed);
    let values: Vec<u8> = (0..2 * frames * 96).map(|_| rng.below(256) as u8).collect();
    Tensor::from_vec(values, (2, frames, 1, 8, 12), &Device::Cpu).unwrap()
}

pub(crate) fn rows(t: &Tensor) -> Vec<Vec<f64>> {
    t.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

#[test]
fn a_frame_changes_nothing_before_it() {
    all_that_look_back(DType::F64).for_each(|(name, model)| check_causality(&name, &model));
}

fn check_causality(name: &str, model: &VideoFlow) {
    let before = clips(6, 1);
    let past = model.past();
    let score = |x: &Tensor| rows(&model.log_prob(x, &mut FlowRng::seed_from(9)).unwrap());
    let known = score(&before);
    for t in 0..6 {
        let mut values: Vec<u8> = before.flatten_all().unwrap().to_vec1().unwrap();
        values[t * 96 + 17] ^= 64;
        let changed = score(&Tensor::from_vec(values, before.shape(), &Device::Cpu).unwrap());
        assert_eq!(changed[1], known[1], "clips are independent");
        for s in 0..6 {
            let reaches = (t..=t + past).contains(&s) && (s >= past || s == t);
            assert_eq!(changed[0][s] != known[0][s], reaches, "{name}: frame {t} on frame {s}");
        }
    }
}

#[test]
fn frames_come_back_from_their_latents() {
    let cases = [(DType::F32, 1e-4), (DType::F64, 1e-10)];
    for ((dtype, tolerance), gaussianize) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let model = model_of(dtype, gaussianize);
        let (_, _, frames) = (0, 0, clips(3, 2).reshape((6, 1, 8, 12)).unwrap());
        let (y, _) = model.preprocess().center(&frames).unwrap();
        let latents = model.frame().factors(&y).unwrap().latents;
        let back = model.frame().decode_with(|level, _| Ok(latents[level].clone())).unwrap();
        let error = (back - y).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let error: f64 = error.to_dtype(DType::F64).unwrap().to_scalar().unwrap();
        assert!(error < tolerance, "{dtype:?} {gaussianize}: {error}");
    }
}

#[test]
fn a_histogram_of_levels_costs_constant_values_nearly_nothing() {
    let mut values = vec![0_u8; 2 * 6 * 96];
    let mut rng = FlowRng::seed_from(3);
    values.iter_mut().filter(|_| rng.below(8) == 0).for_each(|v| *v = 255);
    let x = Tensor::from_vec(values, (2, 6, 1, 8, 12), &Device::Cpu).unwrap();
    let bits = |gaussianize| {
        let model = model_of(DType::F32, gaussianize);
        model.initialize(&x, &mut rng.clone()).unwrap();
        let bits = model.bits_per_dim(&x, &mut rng.clone()).unwrap();
        bits.narrow(1, 2, 4).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    // Seven values of eight are black: 0.54 bits, and what one count in each of 256 bins costs.
    let (with, without) = (bits(true), bits(false));
    assert!((0.4..1.6).contains(&with) && without > with + 1.0, "{with} {without}");
}

#[test]
fn both_ways_of_back_propagation_agree_with_each_other_and_with_differences() {
    check_gradients(&model_of(DType::F64, true), None);
    check_gradients(&changed(DType::F64, |config| config.actions = 3), Some(&actions(5)));
    check_gradients(&changed(DType::F64, |config| config.noise_width = 5), None);
    check_gradients(&changed(DType::F64, |config| (config.gaussianize, config.noise_width) = (true, 5)), None);
    let all = |config: &mut VideoConfig| (config.gaussianize, config.noise_width, config.actions) = (true, 5, 3);
    check_gradients(&following(DType::F64, all), Some(&actions(5)));
    all_that_look_back(DType::F64).for_each(|(_, model)| check_gradients(&model, None));
}

fn check_gradients(model: &VideoFlow, actions: Option<&Tensor>) {
    let x = &clips(5, 5);
    let footage = Footage::new(x, actions);
    let gradient = |mode, first| {
        let mut gradients = Gradients::new(model.store());
        let step = model.backward(footage, first, &mut FlowRng::seed_from(6), mode, &mut gradients).unwrap();
        assert!(!step.fell_back);
        (step.bits_per_dim, gradients)
    };
    for first in [0, 3] {
        let (bits, reversible) = gradient(Backprop::Reversible, first);
        let (plain_bits, plain) = gradient(Backprop::Plain, first);
        assert!((bits - plain_bits).abs() < 1e-12);
        let mean = |rows: Vec<Vec<f64>>| {
            let targets: Vec<f64> = rows.into_iter().flat_map(|row| row[first..].to_vec()).collect();
            targets.iter().sum::<f64>() / targets.len() as f64
        };
        let score = || mean(rows(&model.bits_per_dim(footage, &mut FlowRng::seed_from(6)).unwrap()));
        assert!((bits - score()).abs() < 1e-12);
        for (k, param) in model.store().trainable().into_iter().enumerate() {
            let flat = |g: &Gradients| -> Option<Vec<f64>> {
                g.get(&param).map(|g| g.flatten_all().unwrap().to_vec1().unwrap())
            };
            let (Some(a), Some(b)) = (flat(&reversible), flat(&plain)) else {
                // Without context nothing predicts the first frames' spread.
                assert!(first > 0 && flat(&plain).is_none(), "{}", param.name());
                continue;
            };
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-8), "{}", param.name());
            // One entry of every tenth parameter by central differences.
            if k % 10 != 0 {
                continue;
            }
            let at = k % a.len();
            let value = param.tensor().detach().copy().unwrap();
            let shifted = |h: f64| {
                let mut values: Vec<f64> = value.flatten_all().unwrap().to_vec1().unwrap();
                values[at] += h;
                param.set(&Tensor::from_vec(values, value.shape(), &Device::Cpu).unwrap()).unwrap();
                score()
            };
            let numerical = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            param.set(&value).unwrap();
            assert!((a[at] - numerical).abs() < 1e-6, "{} {at}: {} {numerical}", param.name(), a[at]);
        }
    }
}

#[test]
fn futures_go_on_where_they_were_left() {
    all_that_look_back(DType::F32).for_each(|(_, model)| check_futures(&model));
}

fn check_futures(model: &VideoFlow) {
    let seen = clips(4, 7);
    let begin = || {
        let mut predictor = Predictor::new(model);
        predictor.observe(&seen).unwrap();
        predictor
    };
    let bytes = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let whole = begin().predict(5, &[0.8], &mut FlowRng::seed_from(1)).unwrap();
    assert_eq!(whole.dims(), &[2, 5, 1, 8, 12]);
    let (mut parts, mut rng) = (begin(), FlowRng::seed_from(1));
    let (a, b) = (parts.predict(2, &[0.8], &mut rng).unwrap(), parts.predict(3, &[0.8, 0.8], &mut rng).unwrap());
    assert_eq!(bytes(&Tensor::cat(&[a, b], 1).unwrap()), bytes(&whole));
    // Without noise every future of a clip is the same, and clips stay apart.
    let same = begin().repeat(3).unwrap().predict(2, &[0.0], &mut FlowRng::seed_from(2)).unwrap();
    let one = begin().predict(2, &[0.0], &mut FlowRng::seed_from(3)).unwrap();
    for row in 0..6 {
        assert_eq!(bytes(&same.get(row).unwrap()), bytes(&one.get(row / 3).unwrap()), "{row}");
    }
    // Only the last frames matter.
    let mut short = Predictor::new(model);
    short.observe(&seen.narrow(1, 4 - model.past(), model.past()).unwrap().contiguous().unwrap()).unwrap();
    assert_eq!(bytes(&short.predict(2, &[0.0], &mut FlowRng::seed_from(3)).unwrap()), bytes(&one));
}

/// The noise of a generator, given by hand, makes the frames that the generator makes: coarsest level first.
#[test]
fn noise_can_be_given() {
    let (model, seen) = (model(DType::F32), clips(3, 7));
    let (latents, _) = model.encode(&seen).unwrap();
    let begin = || {
        let mut predictor = Predictor::new(&model);
        predictor.observe(&seen).unwrap();
        predictor
    };
    let mut rng = FlowRng::seed_from(5);
    let mut frame = || {
        let mut noise: Vec<Tensor> = latents
            .iter()
            .rev()
            .map(|level| {
                let (_, c, h, w) = level.dims4().unwrap();
                rng.normal((2, c, h, w), DType::F32, &Device::Cpu).unwrap()
            })
            .collect();
        noise.reverse();
        noise
    };
    let noise = vec![frame(), frame()];
    let bytes = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let given = begin().predict_from(&noise, &[0.7, 0.9]).unwrap();
    assert_eq!(bytes(&given), bytes(&begin().predict(2, &[0.7, 0.9], &mut FlowRng::seed_from(5)).unwrap()));
    assert_ne!(bytes(&given), bytes(&begin().predict_from(&noise, &[0.7, 0.8]).unwrap()));
    let few = begin().predict_from(&[vec![noise[0][0].clone()]], &[0.7]).unwrap_err().to_string();
    assert!(few.contains("of 1 levels given, the model has 2"), "{few}");
    let exchanged = vec![noise[0].iter().rev().cloned().collect::<Vec<_>>()];
    let wrong = begin().predict_from(&exchanged, &[0.7]).unwrap_err().to_string();
    assert!(wrong.contains("noise of level 1"), "{wrong}");
    assert!(Predictor::new(&model).predict_from(&noise, &[0.7]).is_err(), "nothing was seen");
}

#[test]
fn what_cannot_be_predicted_is_refused() {
    let model = model(DType::F32);
    let mut rng = FlowRng::seed_from(1);
    let mut predictor = Predictor::new(&model);
    assert!(predictor.predict(1, &[1.0], &mut rng).unwrap_err().to_string().contains("no frame was observed"));
    predictor.observe(&clips(2, 1)).unwrap();
    for temperatures in [&[][..], &[1.0, 1.0, 1.0], &[f64::NAN], &[-1.0]] {
        assert!(predictor.predict(1, temperatures, &mut rng).is_err(), "{temperatures:?}");
    }
    let moves = following(DType::F32, |_| {});
    let mut motions = Predictor::new(&moves);
    motions.observe(&clips(3, 1)).unwrap();
    let mut drawn = |temperatures: &[f64]| motions.predict(1, temperatures, &mut rng);
    assert_eq!(drawn(&[0.5, 0.5, 0.3]).unwrap().dims(), &[2, 1, 1, 8, 12]);
    assert!(drawn(&[0.5, 0.5, 0.3, 1.0]).unwrap_err().to_string().contains("one for motions"));
    assert!(predictor.observe(&clips(2, 1).narrow(0, 0, 1).unwrap().contiguous().unwrap()).is_err());
    assert!(predictor.observe(&clips(2, 1).narrow(4, 0, 8).unwrap().contiguous().unwrap()).is_err());
    assert_eq!(predictor.predict(0, &[1.0], &mut rng).unwrap().dims(), &[2, 0, 1, 8, 12]);
    let mut gradients = Gradients::new(model.store());
    assert!(model.backward(&clips(2, 1), 2, &mut rng, Backprop::Reversible, &mut gradients).is_err());
    let before = model.store().fingerprint("").unwrap();
    assert!(model.initialize(&clips(2, 1), &mut rng).is_err());
    assert_eq!(model.store().fingerprint("").unwrap(), before);
    assert!(VideoFlow::new(&VideoConfig::new(3, 1, 4, PriorConfig::new(1, 4)), model.spec(), model.store()).is_err());
    let mut config = model.config().clone();
    config.prior.encoder = PriorEncoder::Pointwise;
    assert!(
        config.check(model.spec()).unwrap_err().to_string().contains("a pointwise prior reads the last latent only")
    );
    (config.prior.encoder, config.prior.motion) = (PriorEncoder::Conv3dNet, Some(Motion::new(2, 1)));
    assert!(config.check(model.spec()).unwrap_err().to_string().contains("over 2 to 9 frames"));
    config.prior.motion = Some(Motion::new(0, 3));
    assert!(config.check(model.spec()).unwrap_err().to_string().contains("reach must be"));
    config.prior.motion = Some(Motion::new(2, 3));
    assert!(config.check(model.spec()).unwrap_err().to_string().contains("set skip to false"));
    config.prior.skip = false;
    assert!(config.check(model.spec()).is_ok());
    assert!(model.frames_of_latents(&[]).unwrap_err().to_string().contains("of 0 levels given"));
    assert!(preset("video").unwrap_err().to_string().contains("bair-quant"));
}

#[test]
fn initialisation_makes_noise_of_the_latents() {
    for (_, model) in all_that_look_back(DType::F64) {
        let (x, mut rng) = (clips(6, 8), FlowRng::seed_from(2));
        model.initialize(&x, &mut rng).unwrap();
        for noise in model.noise(&x, &mut FlowRng::seed_from(3)).unwrap() {
            assert_eq!(noise.dim(0).unwrap(), 2 * (6 - model.past()));
            let all: Vec<f64> = noise.flatten_all().unwrap().to_vec1().unwrap();
            assert!(all.iter().all(|v| v.is_finite()));
        }
    }
}

/// The published sizes, with the composition of the reference in PyTorch.
#[test]
#[ignore = "builds models of up to 68 million parameters: cargo test --release -p flow-video -- --ignored parameters"]
fn parameters_of_the_papers_models_are_counted() {
    for (name, millions) in [("bair-quant", 67.49), ("bair-qual", 44.91), ("shapes", 68.02)] {
        let preset = preset(name).unwrap();
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let model = VideoFlow::new(&preset.model, &preset.spec, &store).unwrap();
        let count = model.store().parameter_count() as f64 / 1e6;
        assert!((count - millions).abs() < 0.01 * millions, "{name}: {count}");
    }
}

#[test]
fn latents_of_single_frames_lead_back_to_them() {
    let frames = clips(3, 2).reshape((6, 1, 8, 12)).unwrap();
    for (name, model) in all_that_look_back(DType::F64) {
        let back = model.frames_of_latents(&model.latents_of_frames(&frames).unwrap()).unwrap();
        let bytes = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        assert_eq!(bytes(&back), bytes(&frames), "{name}");
    }
}

/// A pattern that moves to the left by two pixels a frame.
fn moving() -> Tensor {
    let pixel = |t: usize, y: usize, x: usize| ((x + 2 * t) * 53 % 12 * 20 + 3 * y) as u8;
    let frame = |t: usize| (0..8).flat_map(move |y| (0..12).map(move |x| pixel(t, y, x)));
    let values: Vec<u8> = (0..2).flat_map(|from| (from..from + 6).flat_map(frame)).collect();
    Tensor::from_vec(values, (2, 6, 1, 8, 12), &Device::Cpu).unwrap()
}

#[test]
fn what_goes_on_as_expected_is_cheap() {
    let x = moving();
    let bits = |model: &VideoFlow| {
        model.initialize(&x, &mut FlowRng::seed_from(1)).unwrap();
        rows(&model.bits_per_dim(&x, &mut FlowRng::seed_from(2)).unwrap())[1][3]
    };
    let guessing = following(DType::F64, |config| config.gaussianize = true);
    let (with, without) = (bits(&guessing), bits(&model_of(DType::F64, true)));
    assert!(with < 0.4 * without, "{with} {without}");
}

/// Without noise a new model lets everything go on, and a frame may be observed in any type.
#[test]
fn what_moves_goes_on() {
    let pixel = |t: usize, y: usize, x: usize| match (y, x.checked_sub(1 + t)) {
        (2..6, Some(column @ 0..3)) => (100 + 12 * (4 * column + y)) as u8,
        _ => 20,
    };
    let frame = |t: usize| (0..8).flat_map(move |y| (0..12).map(move |x| pixel(t, y, x)));
    let values: Vec<u8> = (0..2).flat_map(|_| (0..6).flat_map(frame)).collect();
    let x = Tensor::from_vec(values, (2, 6, 1, 8, 12), &Device::Cpu).unwrap();
    let model = following(DType::F64, |config| config.gaussianize = true);
    model.initialize(&x, &mut FlowRng::seed_from(1)).unwrap();
    let part = |from: usize, count: usize| x.narrow(1, from, count).unwrap().to_dtype(DType::F32).unwrap();
    let mut predictor = Predictor::new(&model);
    predictor.observe(&part(0, 4)).unwrap();
    let next = predictor.predict(2, &[0.0], &mut FlowRng::seed_from(1)).unwrap().to_dtype(DType::F32).unwrap();
    let error = |a: &Tensor| (a - part(4, 2)).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    let (moved, still) = (error(&next), error(&Tensor::cat(&[part(3, 1), part(3, 1)], 1).unwrap()));
    assert!(moved < 0.3 * still, "{moved} {still}");
}
