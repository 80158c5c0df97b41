//! Flows for audio: waveforms and, on top of them, their exact likelihood given a mel spectrogram.

pub mod data;
mod error;
pub mod io;
pub mod mel;
pub mod metrics;
pub mod model;

/// The tensors that this crate's functions take and return.
pub use candle_core;
pub use error::{Error, Result};
pub use model::{WaveFlow, WaveFlowConfig};
