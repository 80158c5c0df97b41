//! VideoFlow computes in Candle's operations what its kernels compute on the CPU.

use flow_core::nn::HiddenActivation;
use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise};
use flow_core::train::{EmaConfig, TrainConfig};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use flow_video::Result;
use flow_video::candle_core::{DType, Device, Tensor};
use flow_video::data::{Clip, Clips, OpenOptions, Splits};
use flow_video::model::{
    Footage, GlowCoupling, ImageSpec, Motion, Predictor, PriorConfig, PriorEncoder, VideoConfig, VideoFlow, preset,
};
use flow_video::trainer::{VideoRun, VideoTask, train_config};

const ALL: [Comparison; 2] = [("models", models), ("training", training)];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("VideoFlow", &ALL);
}

/// Every network that looks at the past, and every choice that changes what is computed, small.
fn configs() -> Vec<(&'static str, VideoConfig)> {
    let config = |change: fn(&mut VideoConfig)| {
        let mut prior = PriorConfig::new(1, 5);
        prior.past = 2;
        let mut config = VideoConfig::new(2, 1, 6, prior);
        change(&mut config);
        config
    };
    vec![
        ("three-dimensional convolutions", config(|_| {})),
        ("convolutions", config(|c| c.prior.encoder = PriorEncoder::ConvNet)),
        ("recurrent", config(|c| c.prior.encoder = PriorEncoder::ConvLstm)),
        ("pointwise", config(|c| (c.prior.encoder, c.prior.past) = (PriorEncoder::Pointwise, 1))),
        ("histogram, learned noise", config(|c| (c.gaussianize, c.noise_width) = (true, 4))),
        ("additive, relu", config(|c| (c.coupling, c.activation) = (GlowCoupling::Additive, HiddenActivation::Relu))),
        ("actions", config(|c| c.actions = 3)),
        ("motion", config(|c| (c.prior.motion, c.prior.skip, c.gaussianize) = (Some(Motion::new(2, 3)), false, true))),
    ]
}

const SHAPE: [usize; 3] = [1, 4, 8];

/// Clips `(2, frames, 1, 4, 8)` of levels.
fn clips(frames: usize, device: &Device) -> Result<Tensor> {
    let mut rng = FlowRng::seed_from(7);
    let values: Vec<u8> = (0..2 * frames * 32).map(|_| rng.below(256) as u8).collect();
    Ok(Tensor::from_vec(values, (2, frames, 1, 4, 8), device)?)
}

fn models(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let store = ParamStore::new(1, DType::F32, device);
            let [c, h, w] = SHAPE;
            let model = VideoFlow::new(&config, &ImageSpec::new(c, h, w, 256)?, &store)?;
            let (x, all_frames) = (clips(4, device)?, 4);
            // What is told may stay on the CPU.
            let told = FlowRng::seed_from(8).normal((2, all_frames, 3), DType::F32, &Device::Cpu)?;
            let told = (config.actions > 0).then_some(&told);
            let footage = Footage::new(&x, told);
            model.initialize(footage, &mut FlowRng::seed_from(2))?;
            let mut found = Found::default().params(&store)?;
            // The last layers of networks begin with zeros.
            randomise(&store, 0.03, &mut FlowRng::seed_from(3))?;
            for mode in [Backprop::Plain, Backprop::Reversible] {
                let mut gradients = Gradients::new(&store);
                let step = model.backward(footage, 1, &mut FlowRng::seed_from(4), mode, &mut gradients)?;
                assert!(!step.fell_back, "{mode:?}");
                let of = Found::default().numbers("bits/dim", [step.bits_per_dim]).gradients(&gradients)?;
                found = found.and(&format!("{mode:?}"), of);
            }
            let (latents, log_prob) = model.encode(footage)?;
            for (i, latent) in latents.iter().enumerate() {
                found = found.tensor(&format!("latent {i}"), latent)?;
            }
            let bits = model.bits_per_dim(footage, &mut FlowRng::seed_from(5))?;
            predicted(found.tensor("log_prob", &log_prob)?.tensor("bits/dim", &bits)?, &model, &x)
        });
    }
}

/// The mean level of predicted frames: rounding may move a level to its neighbour, not all of them.
fn predicted(found: Found, model: &VideoFlow, seen: &Tensor) -> Result<Found> {
    let mut predictor = Predictor::new(model);
    predictor.observe(seen)?;
    if model.config().actions > 0 {
        let told = FlowRng::seed_from(9).normal((2, 2, 3), DType::F32, &Device::Cpu)?;
        predictor = predictor.tell(&told)?.guide(1.5)?;
    }
    let frames = predictor.predict(2, &[0.7], &mut FlowRng::seed_from(6))?;
    let means = frames.to_dtype(DType::F32)?.flatten_from(2)?.mean(2)?.affine(1e-3, 0.0)?;
    Ok(found.tensor("thousandths of the predicted levels", &means)?)
}

/// Clips on which a bright column wanders.
fn set(count: usize) -> Result<Clips> {
    let clip = |number: usize| {
        let pixel = |i: usize| if (i / 32 + number) % 8 == i % 8 { 200 } else { (7 * i % 31) as u8 };
        let clip = Clip::new(format!("clip {number}"), (0..6 * 32).map(pixel).collect(), SHAPE, None)?;
        clip.with_actions((0..6 * 3).map(|i| ((i + number) % 5) as f32).collect())
    };
    Clips::new((0..count).map(clip).collect::<Result<_>>()?, "wandering columns")
}

/// Twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding grows from step
/// to step: hence a thousandth.
fn training(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(&format!("training, {what}"), 1e-3, |device| -> Result<Found> {
            let splits = Splits { train: set(8)?, validation: set(3)?, test: set(1)? };
            let mut recipe = preset("small")?.recipe;
            (recipe.batch, recipe.init_batch, recipe.context, recipe.targets, recipe.horizon) = (4, 4, 3, 2, 2);
            let mut run = VideoRun::new(config.clone(), &splits.train, &OpenOptions::default(), &recipe, 1)?;
            (run.validation_clips, run.untold) = (2, if config.actions > 0 { 0.3 } else { 0.0 });
            let engine = TrainConfig {
                ema: Some(EmaConfig { decay: 0.9 }),
                validate_every: Some(10),
                ..train_config(&recipe, 20, 1)
            };
            Ok(Found::default().training(engine, VideoTask::new(run, splits, device)?)?)
        });
    }
}
