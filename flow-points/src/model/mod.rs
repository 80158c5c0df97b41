//! PointFlow's networks and objectives.

mod block;
mod complete;
mod config;
mod encoder;
mod objective;
#[cfg(test)]
mod parity;
mod point_flow;

pub use complete::CompleteOptions;
pub use config::{LikelihoodConfig, MatchingConfig, Objective, PointFlowConfig};
pub use encoder::{Encoder, EncoderConfig, EncoderNorm, Posterior};
pub use objective::Terms;
pub(crate) use objective::times_per_cloud;
pub use point_flow::{Draw, PointFlow};

#[cfg(test)]
mod tests;
