//! VideoFlow (Kumar et al. 2020, arXiv 1903.01434): a flow of frames whose latents follow from those of the frames before.
//!
//! A [`VideoConfig`] and an [`ImageSpec`] make a [`VideoFlow`]; [`preset`] gives both by name. [`Predictor`] goes on from a
//! clip frame by frame.

mod config;
mod dequantize;
mod encoder;
mod following;
mod footage;
mod guess;
pub mod latent;
mod layers;
mod motion;
mod noise;
mod plane;
mod predictor;
mod presets;
mod prior;
mod vectors;
mod video_flow;
mod windows;

pub use config::{PriorConfig, PriorEncoder, VideoConfig};
/// What a frame is to a model: its size and how many values a pixel can take.
pub use flow_image::model::ImageSpec;
pub use flow_image::model::{GlowCoupling, GlowPermutation};
pub use footage::Footage;
pub use motion::Motion;
pub use predictor::Predictor;
pub use presets::{PRESETS, Preset, Recipe, preset};
pub use prior::LatentPrior;
pub use video_flow::{VideoFlow, VideoStep};
