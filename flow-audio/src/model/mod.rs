//! WaveFlow and WaveGlow, split by their parts.
//!
//! Composed operations are the specification and the path of other devices; on the CPU each flow's network is one fused
//! kernel, forward and backward, and for WaveFlow row by row.

mod conditioner;
mod config;
mod family;
mod flow;
mod glow;
mod glow_config;
#[cfg(test)]
mod glow_tests;
mod import;
mod kernel;
mod network;
mod normed;
mod op;
mod prediction;
mod steps;
mod stream;
mod synthesis;
#[cfg(test)]
mod tests;
mod upsample;
mod vocoder;

pub use config::{Permutation, WaveFlowConfig};
pub use family::{ModelConfig, PRESETS};
pub use glow_config::WaveGlowConfig;
pub use prediction::LinearPrediction;
pub use stream::Stream;
pub use synthesis::Synthesizer;
pub use vocoder::{Trimmed, Vocoder};
