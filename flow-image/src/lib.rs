//! Flows for images: exact likelihoods, and exact lossless coding on top of them.

pub mod codec;
mod error;

pub use error::{Error, Result};
