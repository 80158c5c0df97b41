//! The hyper-parameters of a model: what `config.json` of a checkpoint holds.

use flow_core::cnf::{ConcatSquashConfig, EmbeddingConfig, FieldActivation, Gate};
use serde::{Deserialize, Serialize};

use super::encoder::{EncoderConfig, EncoderNorm};
use super::objective::{LikelihoodConfig, MatchingConfig, Objective};
use crate::{Error, Result};

/// A PointFlow model: encoder, flow of latents, flow of points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PointFlowConfig {
    /// Length `Z` of a shape's latent.
    pub latent: usize,
    /// Whether the encoder returns a Gaussian (the variational model) or a single latent.
    pub variational: bool,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// The vector field of points, on 3 coordinates with the latent as context.
    pub point: ConcatSquashConfig,
    /// The vector field of latents.
    pub prior: ConcatSquashConfig,
    /// How the two fields are trained.
    pub objective: Objective,
}

impl PointFlowConfig {
    /// The paper's model (Yang et al. 2019, section 5 and appendix A), 1,608,346 parameters.
    ///
    /// The divergence of points is the paper's estimate; [`Divergence::Exact`](flow_core::cnf::Divergence::Exact) costs three products instead of one and
    /// has no noise.
    pub fn paper() -> Self {
        PointFlowConfig {
            latent: 128,
            variational: true,
            encoder: EncoderConfig::paper(),
            point: ConcatSquashConfig::new(&[512, 512, 512]),
            prior: ConcatSquashConfig::new(&[256, 256]),
            objective: Objective::Likelihood(LikelihoodConfig::paper()),
        }
    }

    /// The paper's auto-encoder: one head, no flow of latents in the objective.
    pub fn paper_auto_encoder() -> Self {
        PointFlowConfig { variational: false, ..Self::paper() }
    }

    /// The paper's networks, trained by flow matching.
    pub fn matching() -> Self {
        PointFlowConfig { objective: Objective::Matching(MatchingConfig::default()), ..Self::paper() }
    }

    /// Networks for an hour on a processor, trained by flow matching: narrower for points than the paper's, with an
    /// embedding of time and latent ([`EmbeddingConfig`]) that costs next to nothing for a point, a first layer that
    /// sees thin parts from the start, a wider flow of latents, and the objective of [`MatchingConfig::embedded`].
    /// 1.9 million parameters.
    pub fn embedded() -> Self {
        PointFlowConfig {
            encoder: EncoderConfig { norm: EncoderNorm::Layer, ..EncoderConfig::paper() },
            point: embedded_field(&[256, 256, 256], 4.0, &[256, 256]),
            prior: embedded_field(&[512, 512], 1.0, &[128]),
            objective: Objective::Matching(MatchingConfig::embedded()),
            ..Self::paper()
        }
    }

    /// Networks for minutes on a processor: those of [`PointFlowConfig::embedded`], narrower.
    pub fn small() -> Self {
        PointFlowConfig {
            latent: 64,
            encoder: EncoderConfig { point: vec![64, 128, 256], head: vec![128], norm: EncoderNorm::Layer },
            point: embedded_field(&[192, 192, 192], 4.0, &[128, 128]),
            prior: embedded_field(&[256, 256], 1.0, &[64]),
            ..Self::embedded()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        if self.latent == 0 {
            return Err(Error::config("latent", "is 0, must be at least 1"));
        }
        self.objective.criterion().check()
    }
}

/// Hidden layers and the embedding before their gates. Swish and linear gates: on the built-in shapes, at equal
/// steps, reconstructions come nearer than with the papers' tanh and sigmoids (BENCHMARKS.md).
fn embedded_field(hidden: &[usize], input_gain: f64, embedding: &[usize]) -> ConcatSquashConfig {
    let embedding = EmbeddingConfig::new(embedding).frequencies(8);
    let (activation, gate) = (FieldActivation::Swish, Gate::Linear);
    ConcatSquashConfig::new(hidden).activation(activation).gate(gate).input_gain(input_gain).embedding(embedding)
}
