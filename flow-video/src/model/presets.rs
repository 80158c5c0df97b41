//! Models by name.

use flow_core::nn::HiddenActivation;
use flow_core::{Error, Result};
use flow_image::model::{GlowCoupling, ImageSpec};
use serde::{Deserialize, Serialize};

use super::{Motion, PriorConfig, PriorEncoder, VideoConfig};

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Recipe {
    /// Clips per step.
    pub batch: usize,
    /// Clips of the data-dependent initialisation.
    pub init_batch: usize,
    /// Frames that are given.
    pub context: usize,
    /// Frames that are predicted after them, in training.
    pub targets: usize,
    /// Frames that are predicted in evaluation and pictures.
    pub horizon: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Steps of the linear warm-up.
    pub warm_up: u64,
    /// The decay of Adam's second moment.
    pub beta2: f64,
    /// Upper bound of the gradient's norm, if there is one.
    pub clip_norm: Option<f64>,
    /// The temperature of samples.
    pub temperature: f64,
}

/// A model with the frames it is for and its training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The hyper-parameters.
    pub model: VideoConfig,
    /// The frames.
    pub spec: ImageSpec,
    /// The training.
    pub recipe: Recipe,
}

/// The names that [`preset`] knows.
pub const PRESETS: [&str; 7] = ["moving-digits", "moving-mnist", "small", "bair-quant", "bair-qual", "shapes", "base"];

/// The preset of a name.
///
/// # Errors
/// [`Error::Config`] that lists the names.
pub fn preset(name: &str) -> Result<Preset> {
    let bair = Recipe {
        batch: 5,
        init_batch: 128,
        context: 3,
        targets: 1,
        horizon: 10,
        learning_rate: 3e-4,
        warm_up: 10_000,
        beta2: 0.997,
        clip_norm: None,
        temperature: 1.0,
    };
    let cores = Recipe {
        batch: 8,
        init_batch: 16,
        targets: 5,
        learning_rate: 1e-3,
        warm_up: 50,
        beta2: 0.999,
        clip_norm: Some(50.0),
        ..bair
    };
    let no_skip = PriorConfig { skip: false, blocks: 10, ..PriorConfig::default() };
    let rectified = |config: VideoConfig| VideoConfig { activation: HiddenActivation::Relu, ..config };
    let additive = |config: VideoConfig| VideoConfig { coupling: GlowCoupling::Additive, ..config };
    // Most of a frame with digits is black.
    let normal = |config: VideoConfig| VideoConfig { gaussianize: true, ..config };
    let layers = Motion { adds: true, ..Motion::default() };
    let moving = |prior: PriorConfig| PriorConfig { motion: Some(layers), past: 2, skip: false, ..prior };
    let paper = VideoConfig::default();
    let (about, model, size, recipe) = match name {
        "moving-digits" => (
            "built-in digits that move, 32x32 grey: minutes on two cores",
            normal(VideoConfig::new(3, 4, 32, moving(PriorConfig::new(1, 32)))),
            [1, 32, 32],
            Recipe { context: 5, learning_rate: 2e-3, temperature: 0.3, ..cores },
        ),
        "moving-mnist" => (
            "MNIST's digits that move, 64x64 grey: an hour or two on two cores",
            VideoConfig { noise_width: 16, ..normal(VideoConfig::new(3, 4, 32, moving(PriorConfig::new(2, 40)))) },
            [1, 64, 64],
            Recipe { context: 5, learning_rate: 2e-3, temperature: 0.3, ..cores },
        ),
        "small" => (
            "any frames of 64x64, grey or colour, on two cores",
            VideoConfig::new(3, 8, 64, PriorConfig::new(2, 32)),
            [3, 64, 64],
            cores,
        ),
        "bair-quant" => ("the paper's, best likelihood on robot pushing", paper, [3, 64, 64], bair),
        "bair-qual" => (
            "the paper's, best samples on robot pushing",
            additive(VideoConfig { width: 392, ..paper }),
            [3, 64, 64],
            Recipe { temperature: 0.5, ..bair },
        ),
        "shapes" => (
            "the paper's, for shapes that move in eight directions",
            additive(VideoConfig { prior: PriorConfig { past: 1, ..no_skip }, ..paper }),
            [3, 64, 64],
            Recipe { batch: 10, context: 1, targets: 1, horizon: 2, learning_rate: 1e-4, ..bair },
        ),
        "base" => (
            "the authors' first defaults: rectifiers, one past frame",
            rectified(VideoConfig {
                steps: 32,
                prior: PriorConfig {
                    encoder: PriorEncoder::ConvNet,
                    past: 1,
                    blocks: 2,
                    width: 512,
                    dilations: false,
                    skip: false,
                    motion: None,
                },
                ..paper
            }),
            [3, 64, 64],
            Recipe { batch: 32, init_batch: 256, context: 1, ..bair },
        ),
        other => {
            let reason = format!("{other:?} is not known; there are {}", PRESETS.join(", "));
            return Err(Error::config("preset", reason));
        }
    };
    let name = PRESETS.iter().find(|known| **known == name).copied().unwrap_or_default();
    let [channels, height, width] = size;
    Ok(Preset { name, about, model, spec: ImageSpec::new(channels, height, width, 256)?, recipe })
}
