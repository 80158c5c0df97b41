//! PointFlow's networks.

mod encoder;
mod encoder_kernel;

pub use encoder::{Encoder, EncoderConfig, Posterior};
