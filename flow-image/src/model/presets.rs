//! Models by name: the papers' hyper-parameters, and small models that train on a laptop.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{GlowConfig, GlowCoupling, ImageSpec, ModelConfig, NiceConfig, NicePrior, RealNvpConfig};

/// The optimizer of a [`Recipe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecipeOptimizer {
    /// Adam (Kingma & Ba 2015).
    Adam,
    /// Its infinity-norm variant, from the same paper.
    Adamax,
}

/// How a preset is trained; the objective is mean bits/dim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recipe {
    /// The optimizer.
    pub optimizer: RecipeOptimizer,
    /// The learning rate after warm-up.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment (of the infinity norm for Adamax).
    pub beta2: f64,
    /// The optimizer's ε.
    pub epsilon: f64,
    /// Images per step, over all devices.
    pub batch: usize,
    /// Images seen while the learning rate grows linearly from zero.
    pub warm_up_images: usize,
    /// Bound of the gradient's global norm in units of bits/dim.
    pub clip_norm: Option<f64>,
    /// Images for data-dependent initialisation.
    pub init_batch: usize,
}

impl Recipe {
    /// For a few thousand steps on a processor: Adam at 10⁻³, a short warm-up and a guard against rare large gradients.
    pub fn small(batch: usize) -> Self {
        Recipe {
            optimizer: RecipeOptimizer::Adam,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            batch,
            warm_up_images: 100 * batch,
            clip_norm: Some(100.0),
            init_batch: 256,
        }
    }

    /// The warm-up in steps of `batch` images.
    pub fn warm_up_steps(&self, batch: usize) -> usize {
        self.warm_up_images.div_ceil(batch.max(1))
    }
}

/// A named model with the images it is meant for and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preset {
    /// The name that [`preset`] knows it by.
    pub name: String,
    /// The model.
    pub model: ModelConfig,
    /// The images; a model can be built for other sizes too.
    pub spec: ImageSpec,
    /// The training hyper-parameters.
    pub recipe: Recipe,
}

/// Every name that [`preset`] knows.
pub const PRESETS: [&str; 18] = [
    "glow-digits",
    "glow-fashion-small",
    "glow-cifar10-small",
    "glow-cifar10",
    "glow-cifar10-ycond",
    "glow-imagenet32",
    "glow-imagenet64",
    "glow-lsun64",
    "glow-celeba-hq-256",
    "realnvp-small",
    "realnvp-cifar10",
    "realnvp-imagenet32",
    "realnvp-imagenet64",
    "nice-small",
    "nice-mnist",
    "nice-tfd",
    "nice-svhn",
    "nice-cifar10",
];

/// The preset called `name`.
///
/// Names with a data set and nothing else carry the papers' values: Glow from the authors' commands,
/// RealNVP from the authors' defaults, NICE from its section 5.1 (whose SVHN and CIFAR-10 images were
/// ZCA-whitened first, which these presets do not do, and whose batch size is not given).
///
/// # Errors
/// [`Error::Config`] that lists the known names.
pub fn preset(name: &str) -> Result<Preset> {
    let (model, spec, recipe) = match name.split_once('-') {
        Some(("glow", rest)) => glow(rest),
        Some(("realnvp", rest)) => realnvp(rest),
        Some(("nice", rest)) => nice(rest),
        _ => None,
    }
    .ok_or_else(|| Error::config(format!("preset '{name}'"), format!("is none of {}", PRESETS.join(", "))))?;
    Ok(Preset { name: name.into(), model, spec, recipe })
}

type Parts = (ModelConfig, ImageSpec, Recipe);

fn images(channels: usize, side: usize, levels: usize) -> ImageSpec {
    ImageSpec { channels, height: side, width: side, levels }
}

/// The Glow authors' schedule: Adamax with `β₂ = 1 - 1/⌈50000 / (64 · GPUs)⌉`, ten epochs of 50,000 images
/// of warm-up, 256 images for initialisation.
fn glow_recipe(gpus: usize, batch: usize) -> Recipe {
    Recipe {
        optimizer: RecipeOptimizer::Adamax,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 1.0 - 1.0 / 50_000usize.div_ceil(64 * gpus) as f64,
        epsilon: 1e-8,
        batch,
        warm_up_images: 500_000,
        clip_norm: None,
        init_batch: 256,
    }
}

fn glow(name: &str) -> Option<Parts> {
    let config = |levels, steps, width, coupling| GlowConfig { coupling, ..GlowConfig::new(levels, steps, width) };
    let (affine, additive) = (GlowCoupling::Affine, GlowCoupling::Additive);
    let (model, spec, recipe) = match name {
        "digits" => {
            // Small enough for 1,500 images; with classes, so that every row of a grid is one digit.
            let model = GlowConfig { class_condition: Some(10), ..config(2, 6, 32, affine) };
            (model, images(1, 8, 17), Recipe::small(64))
        }
        "fashion-small" => (config(2, 4, 64, affine), images(1, 28, 256), Recipe::small(32)),
        "cifar10-small" => (config(3, 8, 128, affine), images(3, 32, 256), Recipe::small(32)),
        "cifar10" => (config(3, 32, 512, affine), images(3, 32, 256), glow_recipe(8, 512)),
        "cifar10-ycond" => {
            let unconditional = config(3, 32, 512, additive);
            let model = GlowConfig { class_condition: Some(10), class_weight: 0.01, ..unconditional };
            (model, images(3, 32, 32), glow_recipe(8, 512))
        }
        "imagenet32" => (config(3, 48, 512, affine), images(3, 32, 256), glow_recipe(8, 512)),
        "imagenet64" => (config(4, 48, 512, affine), images(3, 64, 256), glow_recipe(8, 128)),
        "lsun64" => (config(3, 48, 512, affine), images(3, 64, 256), glow_recipe(8, 128)),
        "celeba-hq-256" => (config(6, 32, 512, additive), images(3, 256, 32), glow_recipe(40, 40)),
        _ => return None,
    };
    Some((ModelConfig::Glow(model), spec, recipe))
}

fn realnvp(name: &str) -> Option<Parts> {
    let config = RealNvpConfig::new;
    let (model, spec) = match name {
        "small" => (config(2, 16, 2), images(1, 28, 256)),
        "cifar10" => (config(2, 64, 8), images(3, 32, 256)),
        "imagenet32" => (config(4, 32, 4), images(3, 32, 256)),
        "imagenet64" => (config(5, 32, 4), images(3, 64, 256)),
        _ => return None,
    };
    // The authors clip at 100 the gradient of the mean log-likelihood in nats per image.
    let clip = 100.0 / (spec.dims() as f64 * std::f64::consts::LN_2);
    let recipe = Recipe { warm_up_images: 0, clip_norm: Some(clip), init_batch: 64, ..Recipe::small(64) };
    Some((ModelConfig::RealNvp(model), spec, recipe))
}

fn nice(name: &str) -> Option<Parts> {
    let config = |hidden_layers, width, prior| NiceConfig { hidden_layers, width, prior, ..Default::default() };
    let logistic = NicePrior::Logistic;
    let (model, spec) = match name {
        "small" => (config(2, 128, logistic), images(1, 8, 17)),
        "mnist" => (config(5, 1000, logistic), images(1, 28, 256)),
        "tfd" => (config(4, 5000, NicePrior::Gaussian), images(1, 48, 256)),
        "svhn" => (config(4, 2000, logistic), images(3, 32, 256)),
        "cifar10" => (config(4, 2000, logistic), images(3, 32, 256)),
        _ => return None,
    };
    // The paper's β₂ of .01 is the complement of what Adam's published form calls β₂.
    let recipe = Recipe { beta2: 0.99, epsilon: 1e-4, warm_up_images: 0, clip_norm: None, ..Recipe::small(200) };
    Some((ModelConfig::Nice(model), spec, recipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_fits_its_images_and_survives_json() {
        for name in PRESETS {
            let preset = preset(name).unwrap();
            preset.spec.validate().unwrap();
            let halvings = match &preset.model {
                ModelConfig::Glow(c) => c.levels,
                ModelConfig::RealNvp(c) => c.scales - 1,
                ModelConfig::Nice(_) => 0,
            };
            preset.spec.check_scales(name, halvings, halvings).unwrap();
            let text = serde_json::to_string(&preset).unwrap();
            let read: Preset = serde_json::from_str(&text).unwrap();
            assert_eq!((read.model, read.spec, read.recipe.batch), (preset.model, preset.spec, preset.recipe.batch));
        }
    }

    #[test]
    fn the_papers_models_keep_their_hyper_parameters() {
        let cifar = preset("glow-cifar10").unwrap();
        let ModelConfig::Glow(glow) = &cifar.model else { panic!("not a glow") };
        assert_eq!((glow.levels, glow.steps, glow.width), (3, 32, 512));
        assert_eq!(cifar.recipe.warm_up_steps(512), 977);
        assert!((cifar.recipe.beta2 - 0.9898).abs() < 1e-4);
        assert_eq!(preset("glow-celeba-hq-256").unwrap().spec.levels, 32);
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        for name in ["glow-cifar", "flow", "", "nice-"] {
            let message = preset(name).unwrap_err().to_string();
            assert!(PRESETS.iter().all(|known| message.contains(known)), "{message}");
        }
    }
}
