//! GraphAF: an autoregressive flow of molecular graphs (Shi et al. 2020, arXiv:2001.09382).

mod choice;
mod config;
mod direct;
mod graph_af;
mod graph_net;
mod growing;
mod head;
mod likelihood;
mod matrix;
pub(crate) mod pack;
mod params;
#[cfg(test)]
mod parity;
mod pass;
mod prefix;
mod quadrature;
pub(crate) mod rules;
mod sampler;
mod score;
mod sequence;
mod vocabulary;

pub use config::{BOND_CLASSES, Candidates, Features, Geometry, GraphAfConfig, Head, NO_BOND, Stop};
pub(crate) use graph_af::CHUNK;
pub use graph_af::{GraphAf, Scored};
pub use pass::DecisionValues;
pub use sampler::{End, Generated, Latents, SampleOptions};
pub use score::{Score, random_order};
pub use sequence::{LARGEST_MOLECULE, Sequence, SequenceBond};
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;
