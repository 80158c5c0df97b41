//! The hyper-parameters of a model: what `config.json` of a checkpoint holds.

use flow_core::cnf::matching::{FlowMatching, Pairing, TimeSampling};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{
    ConcatSquashConfig, Divergence, EmbeddingConfig, EndTime, FieldActivation, Gate, OdeGradient, Probe, Regularization,
};
use flow_core::layers::MovingStatistics;
use serde::{Deserialize, Serialize};

use super::encoder::{EncoderConfig, EncoderNorm};
use crate::{Error, Result};

/// A PointFlow model: encoder, flow of latents, flow of points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// How the fields are trained.
#[expect(clippy::large_enum_variant, reason = "a model has one")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Objective {
    /// By likelihood through the solver: the paper's evidence lower bound.
    Likelihood(LikelihoodConfig),
    /// By flow matching (Lipman et al. 2023): the same fields without a solver in training.
    Matching(MatchingConfig),
}

impl Objective {
    /// The metric that training minimises.
    pub fn metric(&self) -> &'static str {
        match self {
            Objective::Likelihood(_) => "nats_per_cloud",
            Objective::Matching(_) => "matching_loss",
        }
    }

    /// Its unit.
    pub fn unit(&self) -> &'static str {
        match self {
            Objective::Likelihood(_) => "nats/cloud",
            Objective::Matching(_) => "squared velocity error",
        }
    }
}

/// Training by likelihood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LikelihoodConfig {
    /// The solver, in training and evaluation.
    pub solver: SolveOptions,
    /// The divergence of the field of points.
    pub point_divergence: Divergence,
    /// The divergence of the field of latents.
    pub prior_divergence: Divergence,
    /// How gradients pass the solver.
    pub gradient: OdeGradient,
    /// The end of the integration.
    pub end_time: EndTime,
    /// Penalties on the point flow's path; zero in the paper.
    pub regularization: Regularization,
    /// The statistics of the point flow's moving batch normalizations; the reference implementation mixes the axes.
    pub statistics: MovingStatistics,
}

/// Training by flow matching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchingConfig {
    /// The matching of points.
    pub point: FlowMatching,
    /// The matching of latents.
    pub prior: FlowMatching,
    /// Different times within one cloud and step: each costs one evaluation of gates and lowers the variance.
    pub times_per_cloud: usize,
    /// Draws of time and noise for each latent and step.
    pub draws_per_latent: usize,
    /// Weight of the Kullback–Leibler divergence of a posterior from the standard normal, in nats per cloud,
    /// against the mean squared velocity error of a coordinate.
    pub kl_weight: f64,
    /// The solver of likelihoods.
    pub solver: SolveOptions,
    /// The solver of samples.
    pub sampler: SolveOptions,
    /// Whether the networks return what is left of the velocity after the linear guess for normal data
    /// ([`Preconditioned`](flow_core::cnf::Preconditioned)).
    #[serde(default)]
    pub preconditioned: bool,
    /// Another one for points than for latents, where the paths of points were straightened.
    #[serde(default)]
    pub point_sampler: Option<SolveOptions>,
    /// Whether the flow of points was distilled into one step: it draws clouds but has no density of points.
    #[serde(default)]
    pub distilled: bool,
}

impl PointFlowConfig {
    /// The paper's model (Yang et al. 2019, section 5 and appendix A), 1,608,346 parameters.
    ///
    /// The divergence of points is the paper's estimate; [`Divergence::Exact`] costs three products instead of one and
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
        match &self.objective {
            Objective::Likelihood(c) => c.solver.check()?,
            Objective::Matching(c) => {
                for (name, value) in [("times_per_cloud", c.times_per_cloud), ("draws_per_latent", c.draws_per_latent)]
                {
                    if value == 0 {
                        return Err(Error::config(name, "is 0, must be at least 1"));
                    }
                }
                if !(c.kl_weight >= 0.0 && c.kl_weight.is_finite()) {
                    return Err(Error::config("kl_weight", format!("is {}, must be a finite number ≥ 0", c.kl_weight)));
                }
                c.solver.check()?;
                c.sampler.check()?;
                c.point_sampler.as_ref().map(SolveOptions::check).transpose()?;
            }
        }
        Ok(())
    }
}

/// Hidden layers and the embedding before their gates. Swish and linear gates: on the built-in shapes, at equal
/// steps, reconstructions come nearer than with the papers' tanh and sigmoids (BENCHMARKS.md).
fn embedded_field(hidden: &[usize], input_gain: f64, embedding: &[usize]) -> ConcatSquashConfig {
    let embedding = EmbeddingConfig::new(embedding).frequencies(8);
    let (activation, gate) = (FieldActivation::Swish, Gate::Linear);
    ConcatSquashConfig::new(hidden).activation(activation).gate(gate).input_gain(input_gain).embedding(embedding)
}

impl LikelihoodConfig {
    /// The paper's: dopri5 at 1e-5, Gaussian probes, a learned end time that starts at one half. The reference
    /// differentiates by the adjoint equation; here the default is the exact gradient of the steps taken.
    pub fn paper() -> Self {
        LikelihoodConfig {
            solver: SolveOptions::default(),
            point_divergence: Divergence::Hutchinson(Probe::Gaussian),
            prior_divergence: Divergence::Hutchinson(Probe::Gaussian),
            gradient: OdeGradient::Direct,
            end_time: EndTime::Learned { initial: 0.5 },
            regularization: Regularization::default(),
            statistics: MovingStatistics::PerAxis,
        }
    }
}

impl MatchingConfig {
    /// Preconditioned fields, times nearer to the data, where noise on a surface is decided, four times as many draws
    /// for the flow of latents, which are cheap, and a third of the default's pull on posteriors.
    pub fn embedded() -> Self {
        let mut config =
            MatchingConfig { draws_per_latent: 32, kl_weight: 3e-5, preconditioned: true, ..MatchingConfig::default() };
        config.point.times = TimeSampling::LogitNormal { mean: -0.8, std: 1.4 };
        config
    }
}

impl Default for MatchingConfig {
    fn default() -> Self {
        let matching = |coupling| FlowMatching::new(coupling).times(TimeSampling::Stratified);
        MatchingConfig {
            point: matching(Pairing::Independent),
            prior: matching(Pairing::Independent),
            times_per_cloud: 8,
            draws_per_latent: 8,
            kl_weight: 1e-4,
            solver: SolveOptions::default(),
            sampler: SolveOptions::new(Method::Heun, Stepping::fixed(20)),
            preconditioned: false,
            point_sampler: None,
            distilled: false,
        }
    }
}
