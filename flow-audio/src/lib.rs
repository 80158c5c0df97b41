//! Flows for audio: waveforms and, on top of them, their exact likelihood given a mel spectrogram.

pub mod data;
mod error;
pub mod io;
pub mod mel;
pub mod metrics;
pub mod model;
pub mod trainer;

/// The tensors that this crate's functions take and return.
pub use candle_core;
pub use data::{Clip, Clips, OpenOptions, Segments, Splits, Voices};
pub use error::{Error, Result};
pub use mel::{Convention, Mel, MelConfig};
pub use model::{ModelConfig, Vocoder, WaveFlowConfig, WaveGlowConfig};

/// The README's example, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
