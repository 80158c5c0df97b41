//! Image models: Glow, RealNVP and NICE behind one type, [`ImageModel`].
//!
//! A [`ModelConfig`] and an [`ImageSpec`] make a model; [`preset`] gives both by name, with the papers'
//! hyper-parameters. A family implements [`ImageDensity`] over continuous images; everything about integer
//! pixels (noise, scaling, the unit bits/dim, bytes out) is in [`ImageModel`], once.

use flow_core::{ParamStore, Result};
use serde::{Deserialize, Serialize};

mod density;
mod glow;
mod glow_config;
mod glow_prior;
mod image_model;
mod inspect;
mod nice;
mod preprocess;
mod presets;
mod realnvp;
mod resnet;
mod spec;

pub use density::ImageDensity;
pub use glow::Glow;
pub use glow_config::{GlowConfig, GlowCoupling, GlowPermutation};
pub use image_model::{ImageModel, ImageStep};
pub use inspect::{LatentStatistics, RoundTrip};
pub use nice::{Nice, NiceConfig, NicePrior};
pub use preprocess::{PixelScaling, Preprocess};
pub use presets::{PRESETS, Preset, Recipe, RecipeOptimizer, preset};
pub use realnvp::{RealNvp, RealNvpConfig};
pub use spec::ImageSpec;

/// The hyper-parameters of a model of any family: `{"family": "realnvp", "scales": 2, …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
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

    /// How the family scales pixels.
    pub fn scaling(&self) -> PixelScaling {
        match self {
            ModelConfig::Glow(_) => PixelScaling::Centered,
            ModelConfig::RealNvp(config) => PixelScaling::Logit(config.alpha),
            ModelConfig::Nice(_) => PixelScaling::Unit,
        }
    }

    /// The density of scaled images, its parameters at the root of `store`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when configuration and image size do not fit.
    pub fn density(&self, spec: &ImageSpec, store: &ParamStore) -> Result<Box<dyn ImageDensity>> {
        Ok(match self {
            ModelConfig::RealNvp(config) => Box::new(RealNvp::new(config, spec, &store.root())?),
            ModelConfig::Nice(config) => Box::new(Nice::new(config, spec, &store.root())?),
            ModelConfig::Glow(config) => Box::new(Glow::new(config, spec, &store.root())?),
        })
    }
}

#[cfg(test)]
mod regression;
#[cfg(test)]
mod tests;
