//! Image models compute in Candle's operations what their kernels compute on the CPU.

use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise};
use flow_core::train::{EmaConfig, TrainConfig};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use flow_image::Result;
use flow_image::candle_core::{DType, Device, Tensor};
use flow_image::codec::{Idf, IdfConfig, IdfRun, IdfTask};
use flow_image::data::builtin::digits;
use flow_image::model::{
    GlowConfig, GlowCoupling, GlowPermutation, ImageModel, ImageSpec, ModelConfig, NiceConfig, NicePrior,
    RealNvpConfig, Recipe,
};
use flow_image::trainer::{ImageRun, ImageTask, train_config};
use flow_image::{OpenOptions, Splits};

const ALL: [Comparison; 3] = [("models", models), ("lossless codec", lossless_codec), ("training", training)];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("images", &ALL);
}

/// Every family with every choice that changes what is computed, small.
fn configs() -> Vec<(&'static str, ModelConfig)> {
    let glow = |change: fn(&mut GlowConfig)| {
        let mut config = GlowConfig::new(2, 2, 6);
        change(&mut config);
        ModelConfig::Glow(config)
    };
    vec![
        ("glow", glow(|_| {})),
        ("glow with free matrices", glow(|c| c.permutation = GlowPermutation::Full)),
        ("additive glow", glow(|c| (c.coupling, c.permutation) = (GlowCoupling::Additive, GlowPermutation::Reverse))),
        ("glow of classes", glow(|c| c.class_condition = Some(10))),
        ("realnvp", ModelConfig::RealNvp(RealNvpConfig::new(2, 4, 1))),
        ("nice", ModelConfig::Nice(NiceConfig::new(4, 2, 12))),
        ("gaussian nice", {
            let mut config = NiceConfig::new(4, 2, 12);
            config.prior = NicePrior::Gaussian;
            ModelConfig::Nice(config)
        }),
    ]
}

fn images(device: &Device) -> Result<(Tensor, Vec<u32>)> {
    let train = digits()?.train;
    let indices: Vec<usize> = (0..6).collect();
    let labels = train.labels_of(&indices).unwrap_or_default();
    Ok((train.batch(&indices, device)?, labels))
}

fn models(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let store = ParamStore::new(1, DType::F32, device);
            let model = ImageModel::new(&config, &ImageSpec::new(1, 8, 8, 17)?, &store)?;
            let (levels, labels) = images(device)?;
            let labels = config.classes().map(|_| &labels[..]);
            model.initialize(&levels, labels, &mut FlowRng::seed_from(2))?;
            let mut found = Found::default().params(&store)?;
            // The last layers of networks begin with zeros.
            randomise(&store, 0.05, &mut FlowRng::seed_from(3))?;
            for mode in [Backprop::Plain, Backprop::Reversible] {
                let mut gradients = Gradients::new(&store);
                let step = model.backward(&levels, labels, &mut FlowRng::seed_from(4), mode, &mut gradients)?;
                assert!(!step.fell_back, "{mode:?}");
                let of = Found::default().numbers("bits/dim", [step.bits_per_dim]).gradients(&gradients)?;
                found = found.and(&format!("{mode:?}"), of);
            }
            model.set_training(false);
            let (latents, log_prob) = model.encode(&levels, labels)?;
            for (i, latent) in latents.0.iter().enumerate() {
                found = found.tensor(&format!("latent {i}"), latent)?;
            }
            let back = model.decode(&latents, labels)?;
            if labels.is_none() {
                // Before they are levels, of which rounding might change one.
                let temperatures = vec![0.7; latents.0.len()];
                let drawn = model.flow().sample_with(4, None, &temperatures, &mut FlowRng::seed_from(5))?;
                found = found.tensor("samples", &drawn)?;
            }
            Ok(found.tensor("log_prob", &log_prob)?.tensor("decoded levels", &back)?)
        });
    }
}

/// Training is what runs on a device; archives are written and read by sequential arithmetic of the CPU alone.
fn lossless_codec(elsewhere: &Elsewhere) {
    for preset in ["idf-digits", "idf-mnist"] {
        elsewhere.hold(preset, 1e-4, |device| -> Result<Found> {
            let store = ParamStore::new(1, DType::F32, device);
            let mut config = IdfConfig::preset(preset)?;
            (config.width, config.top_width, config.coupling_width, config.components) = (8, 8, 6, 3);
            let model = Idf::new(&config, [1, 8, 8], 17, &store)?;
            let bits = model.bits(&images(device)?.0)?;
            let mut gradients = Gradients::new(&store);
            gradients.accumulate(&bits.mean_all()?.backward()?)?;
            Ok(Found::default().tensor("bits", &bits)?.gradients(&gradients)?)
        });
    }
}

fn some_digits() -> Result<Splits> {
    digits()?.map(|set| set.subset(0..48))
}

/// Twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding grows from step
/// to step: hence a thousandth.
fn training(elsewhere: &Elsewhere) {
    let engine =
        |config: TrainConfig| TrainConfig { ema: Some(EmaConfig { decay: 0.9 }), validate_every: Some(10), ..config };
    for (what, config) in configs() {
        elsewhere.hold(&format!("training of {what}"), 1e-3, |device| -> Result<Found> {
            let (splits, recipe) = (some_digits()?, Recipe::small(8));
            let mut run = ImageRun::new(config.clone(), &splits.train, &OpenOptions::default(), &recipe, 1)?;
            run.validation_images = 16;
            let config = engine(train_config(&recipe, 8, 20, 1));
            Ok(Found::default().training(config, ImageTask::new(run, splits, device)?)?)
        });
    }
    elsewhere.hold("training of a codec", 1e-3, |device| -> Result<Found> {
        let splits = some_digits()?;
        let mut config = IdfConfig::preset("idf-digits")?;
        (config.width, config.top_width, config.coupling_width, config.components) = (8, 8, 6, 3);
        let task = IdfTask::new(IdfRun::new(config, &splits.train), splits.train, splits.validation, device)?;
        Ok(Found::default().training(engine(flow_image::codec::train_config(20)), task)?)
    });
}
