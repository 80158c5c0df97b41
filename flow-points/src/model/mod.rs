//! PointFlow's networks and objectives.

mod block;
mod config;
mod encoder;
mod objective;
#[cfg(test)]
mod parity;
mod point_flow;
mod search;

pub use config::PointFlowConfig;
pub use encoder::{Encoder, EncoderConfig, EncoderNorm, Posterior};
pub(crate) use objective::{Batch, PRIOR_ERROR};
pub use objective::{LikelihoodConfig, MatchingConfig, Objective, Term, Terms};
pub use point_flow::{Draw, PointFlow};
pub use search::{CompleteOptions, SearchOptions};

#[cfg(test)]
mod tests;
