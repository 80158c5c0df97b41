//! WaveFlow, split by its parts.
//!
//! Composed operations are the specification and the path of other devices; on the CPU each flow's network is one fused
//! kernel, forward, backward and row by row.

mod conditioner;
mod config;
mod flow;
mod import;
mod kernel;
mod network;
mod normed;
mod op;
mod stream;
mod synthesis;
#[cfg(test)]
mod tests;
mod waveflow;

pub use config::{PRESETS, Permutation, WaveFlowConfig};
pub use stream::Stream;
pub use synthesis::Synthesizer;
pub use waveflow::{Trimmed, WaveFlow};
