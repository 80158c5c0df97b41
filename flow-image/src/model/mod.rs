//! Image models: Glow, RealNVP and NICE behind one type, [`ImageModel`].
//!
//! A [`ModelConfig`] and an [`ImageSpec`] make a model; [`preset`] gives both by name, with the papers'
//! hyper-parameters. A family is a configuration that builds an [`ImageFlow`] over continuous images; everything about
//! integer pixels (noise, scaling, the unit bits/dim, bytes out) is in [`ImageModel`], once.
//!
//! To add a family, write its configuration with a `build` in a file of its own, and add a variant to [`ModelConfig`].
//! Training, sampling, editing, inspection and checkpoints follow.

use flow_core::{ParamPath, Result};
use serde::{Deserialize, Serialize};

mod class_head;
mod glow;
mod glow_config;
mod glow_prior;
mod image_flow;
mod image_model;
mod inspect;
mod nice;
mod preprocess;
mod presets;
mod realnvp;
mod resnet;
mod spec;

pub use class_head::ClassHead;
pub use glow_config::{GlowConfig, GlowCoupling, GlowPermutation};
pub use glow_prior::TopPrior;
pub use image_flow::{ImageFlow, Penalty};
pub use image_model::{ImageModel, ImageStep};
pub use inspect::{LatentStatistics, RoundTrip};
pub use nice::{NiceConfig, NicePrior};
pub use preprocess::{PixelScaling, Preprocess};
pub use presets::{PRESETS, Preset, Recipe, RecipeOptimizer, preset};
pub use realnvp::RealNvpConfig;
pub use spec::ImageSpec;

/// The hyper-parameters of a model of any family: `{"family": "realnvp", "scales": 2, …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelConfig {
    /// Kingma & Dhariwal 2018.
    Glow(GlowConfig),
    /// Dinh, Sohl-Dickstein & Bengio 2017.
    RealNvp(RealNvpConfig),
    /// Dinh, Krueger & Bengio 2015.
    Nice(NiceConfig),
}

impl ModelConfig {
    /// The family's name.
    pub fn family(&self) -> &'static str {
        match self {
            ModelConfig::Glow(_) => "glow",
            ModelConfig::RealNvp(_) => "realnvp",
            ModelConfig::Nice(_) => "nice",
        }
    }

    /// Number of classes of a conditional model, `None` if labels are ignored.
    pub fn classes(&self) -> Option<usize> {
        match self {
            ModelConfig::Glow(config) => config.class_condition,
            ModelConfig::RealNvp(_) | ModelConfig::Nice(_) => None,
        }
    }

    /// The flow over scaled images, with parameters under `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when configuration and image size do not fit.
    pub fn build(&self, spec: &ImageSpec, path: &ParamPath) -> Result<ImageFlow> {
        match self {
            ModelConfig::Glow(config) => config.build(spec, path),
            ModelConfig::RealNvp(config) => config.build(spec, path),
            ModelConfig::Nice(config) => config.build(spec, path),
        }
    }
}

#[cfg(test)]
mod regression;
#[cfg(test)]
mod tests;
