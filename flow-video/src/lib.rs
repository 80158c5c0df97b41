//! Flows for video: clips of frames and, on top of them, the exact likelihood of what happens next.
//!
//! Frames stay bytes, the integer levels of the file, until a batch is asked for: an exact likelihood needs exact integers
//! to dequantize.

pub mod data;
mod error;
pub mod io;

/// The tensors that this crate's functions take and return.
pub use candle_core;
pub use error::{Error, Result};

/// The README's example, compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
