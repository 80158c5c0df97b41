//! The model: an encoder, a flow of latents, a flow of points.

use std::sync::Arc;

use candle_core::Tensor;
use flow_core::cnf::ode::{SolveOptions, Statistics};
use flow_core::cnf::{ConcatSquash, VectorField};
use flow_core::distribution::StandardGaussian;
use flow_core::{Bijector, Chain, Density, Flow, FlowRng, ParamStore};

use super::block::{Block, Field};
use super::config::PointFlowConfig;
use super::encoder::{Encoder, Posterior};
use super::objective::Parts;
use crate::{Error, Result};

/// Clouds that are solved at once when drawing: memory, and steps that one cloud imposes on others, stay bounded.
const CLOUDS_AT_ONCE: usize = 16;

/// PointFlow (Yang et al. 2019, arXiv 1906.12320): `p(X) = ∫ p(z) Π p(x | z) dz`, both densities continuous flows.
///
/// # Shapes
/// - clouds `(B, N, 3)` of any `N`; latents `(B, Z)`.
pub struct PointFlow {
    pub(super) config: PointFlowConfig,
    pub(super) store: ParamStore,
    pub(super) encoder: Encoder,
    /// The flow of latents.
    pub(super) prior: Block,
    /// The flow of points, given a latent.
    pub(super) point: Block,
}

impl PointFlow {
    /// A model with fresh parameters in `store`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field that is out of range.
    pub fn new(config: PointFlowConfig, store: &ParamStore) -> Result<Self> {
        config.check()?;
        let root = store.root();
        let encoder = Encoder::new(&root.pp("encoder"), &config.encoder, config.latent, config.variational)?;
        let Parts { point, prior } = config.objective.criterion().parts();
        let field = |name: &str, dim, context, net, end| -> Result<Field> {
            Ok(Field::new(ConcatSquash::new(&root.pp(name).pp("field"), dim, context, net)?, end))
        };
        let point_field = field("point", 3, Some(config.latent), &config.point, point.linear_end)?;
        let prior_field = field("prior", config.latent, None, &config.prior, prior.linear_end)?;
        let point = Block::new(&root.pp("point"), point_field, point.cnf, point.norms)?;
        let prior = Block::new(&root.pp("prior"), prior_field, prior.cnf, prior.norms)?;
        Ok(PointFlow { config, store: store.clone(), encoder, prior, point })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &PointFlowConfig {
        &self.config
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// Switches batch statistics (training) or running averages (evaluation).
    pub fn set_training(&self, training: bool) {
        self.encoder.set_training(training);
        self.point.flow.set_training(training);
        self.prior.flow.set_training(training);
    }

    /// The posterior of the latents of clouds `(B, N, 3)`.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for another shape.
    pub fn posterior(&self, clouds: &Tensor) -> Result<Posterior> {
        self.encoder.forward(clouds)
    }

    /// The solver of samples: that of the configuration.
    pub fn sampler(&self) -> &SolveOptions {
        self.criterion().samplers().latents
    }

    /// The solver of points: as [`PointFlow::sampler`] unless their paths were straightened.
    pub fn point_sampler(&self) -> &SolveOptions {
        self.criterion().samplers().points
    }

    /// `(B, points, 3)` for latents `(B, Z)`; the noise of points is drawn from `rng` at `temperature`.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for latents of another length, [`flow_core::Error::Solver`] when the solver fails.
    pub fn decode(
        &self,
        latents: &Tensor,
        points: usize,
        draw: &Draw<'_>,
        rng: &mut FlowRng,
    ) -> Result<(Tensor, Statistics)> {
        let noise = |clouds| rng.normal((clouds, points, 3), self.store.dtype(), self.store.device());
        self.decode_each(latents, draw, noise)
    }

    /// As [`PointFlow::decode`] with the same noise for every latent: points keep their places from shape to shape.
    ///
    /// # Errors
    /// As [`PointFlow::decode`].
    pub fn decode_alike(&self, latents: &Tensor, points: usize, draw: &Draw<'_>, rng: &mut FlowRng) -> Result<Tensor> {
        let noise = rng.normal((1, points, 3), self.store.dtype(), self.store.device())?;
        Ok(self.decode_each(latents, draw, |clouds| Ok(noise.repeat((clouds, 1, 1))?))?.0)
    }

    /// As [`PointFlow::decode`] with the noise given, `(B, N, 3)`.
    ///
    /// # Errors
    /// As [`PointFlow::decode`]; [`flow_core::Error::Shape`] for noise of another shape.
    pub fn decode_noise(&self, latents: &Tensor, noise: &Tensor, draw: &Draw<'_>) -> Result<(Tensor, Statistics)> {
        let clouds = flow_core::bijector::check_batch("noise", noise, &[noise.dim(1).unwrap_or(1), 3])?;
        flow_core::bijector::check_batch("latents", latents, &[self.config.latent])?;
        if latents.dim(0)? != clouds {
            let (layer, expected) =
                ("latents".into(), format!("({clouds}, {}), one for each cloud", self.config.latent));
            return Err(flow_core::Error::Shape { layer, expected, actual: latents.dims().to_vec() }.into());
        }
        let mut taken = 0;
        self.decode_each(latents, draw, |count| {
            taken += count;
            Ok(noise.narrow(0, taken - count, count)?)
        })
    }

    fn decode_each(
        &self,
        latents: &Tensor,
        draw: &Draw<'_>,
        mut noise: impl FnMut(usize) -> flow_core::Result<Tensor>,
    ) -> Result<(Tensor, Statistics)> {
        let _paused = self.store.no_grad();
        flow_core::bijector::check_batch("latents", latents, &[self.config.latent])?;
        // One step is all that a distilled flow has learned.
        let asked = draw.solver.filter(|_| self.check_paths().is_ok());
        let solver = asked.unwrap_or_else(|| self.point_sampler());
        let (mut clouds, mut statistics) = (Vec::new(), Statistics::default());
        for start in (0..latents.dim(0)?).step_by(CLOUDS_AT_ONCE) {
            let count = CLOUDS_AT_ONCE.min(latents.dim(0)? - start);
            let context = latents.narrow(0, start, count)?.contiguous()?;
            let start = noise(count)?.affine(draw.temperature, 0.0)?;
            let (x, cost) = self.point.decode(&start.flatten(0, 1)?, Some(&context), solver)?;
            clouds.push(x.reshape(start.shape())?);
            statistics = statistics + cost;
        }
        Ok((Tensor::cat(&clouds, 0)?, statistics))
    }

    /// `count` latents from the prior; `temperature` multiplies the deviation of its noise.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a deterministic model trained by likelihood: its prior is not trained.
    pub fn sample_latents(&self, count: usize, draw: &Draw<'_>, rng: &mut FlowRng) -> Result<Tensor> {
        let noise = rng.normal((count, self.config.latent), self.store.dtype(), self.store.device())?;
        self.latents_of_noise(&noise.affine(draw.temperature, 0.0)?, draw)
    }

    /// The prior's map from its noise `(B, Z)` to latents.
    ///
    /// # Errors
    /// As [`PointFlow::sample_latents`].
    pub fn latents_of_noise(&self, noise: &Tensor, draw: &Draw<'_>) -> Result<Tensor> {
        self.check_prior()?;
        let _paused = self.store.no_grad();
        Ok(self.prior.decode(noise, None, draw.solver.unwrap_or_else(|| self.sampler()))?.0)
    }

    /// The inverse of [`PointFlow::latents_of_noise`].
    ///
    /// # Errors
    /// As [`PointFlow::sample_latents`].
    pub fn noise_of_latents(&self, latents: &Tensor, draw: &Draw<'_>) -> Result<Tensor> {
        self.check_prior()?;
        let _paused = self.store.no_grad();
        self.prior.encode(latents, None, draw.solver.unwrap_or_else(|| self.sampler()))
    }

    /// Whether the prior over latents was part of the objective.
    pub fn has_prior(&self) -> bool {
        self.config.variational || self.criterion().nature().always_trains_prior
    }

    fn check_prior(&self) -> Result<()> {
        if self.has_prior() {
            return Ok(());
        }
        let reason = "an auto-encoder trained by likelihood has no prior over latents; it can reconstruct, not draw";
        Err(Error::config("model", reason))
    }

    /// Whether points travel on paths that have a density: not so in a distilled model.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a distilled model.
    pub fn check_paths(&self) -> Result<()> {
        if !self.criterion().nature().has_paths {
            let reason = "its flow of points is distilled into one step: it draws clouds, but has no density of points";
            return Err(Error::config("model", reason));
        }
        Ok(())
    }

    /// The field of points.
    pub fn point_field(&self) -> Arc<dyn VectorField> {
        self.point.field.clone()
    }

    /// `log p(x | z)` of every point in nats, `(B, N)`, by the solver and divergence of the configuration.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for other shapes, [`flow_core::Error::Solver`] when the solver fails,
    /// [`flow_core::Error::Config`] for a distilled model.
    pub fn log_prob_points(&self, clouds: &Tensor, latents: &Tensor) -> Result<Tensor> {
        self.check_paths()?;
        let _paused = self.store.no_grad();
        let (b, n, _) = clouds.dims3()?;
        Ok(self.point.flow.log_prob(&clouds.reshape((b * n, 3))?, Some(latents))?.reshape((b, n))?)
    }

    /// `log p(z)` in nats, `(B,)`.
    ///
    /// # Errors
    /// As [`PointFlow::sample_latents`] and [`PointFlow::log_prob_points`].
    pub fn log_prob_latents(&self, latents: &Tensor) -> Result<Tensor> {
        self.check_prior()?;
        let _paused = self.store.no_grad();
        Ok(self.prior.flow.log_prob(latents, None)?)
    }

    /// The flow of points given a latent, as a density of its own: the context serves as many rows as divide evenly.
    pub fn point_flow(&self) -> &Flow<Chain, StandardGaussian> {
        &self.point.flow
    }

    /// The flow of latents.
    pub fn prior_flow(&self) -> &Flow<Chain, StandardGaussian> {
        &self.prior.flow
    }

    /// Fresh random numbers for the stochastic divergence of the passes that follow.
    pub fn set_noise(&self, rng: &mut FlowRng) {
        self.point.cnf.set_noise(rng);
        self.prior.cnf.set_noise(rng);
    }

    /// Evaluations of the point field and of the latent field in their last solves.
    pub fn evaluations(&self) -> (u64, u64) {
        (self.point.cnf.statistics().evaluations, self.prior.cnf.statistics().evaluations)
    }
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Draw<'a> {
    /// Multiplies the standard deviation of noise; 1 is the model's own distribution.
    pub temperature: f64,
    /// Another solver than the configuration's.
    pub solver: Option<&'a SolveOptions>,
}

impl<'a> Draw<'a> {
    /// By a solver, `None` for that of the configuration.
    #[must_use]
    pub fn with_solver(self, solver: Option<&'a SolveOptions>) -> Self {
        Draw { solver, ..self }
    }

    /// At a temperature.
    #[must_use]
    pub fn with_temperature(self, temperature: f64) -> Self {
        Draw { temperature, ..self }
    }
}

impl Default for Draw<'_> {
    fn default() -> Self {
        Draw { temperature: 1.0, solver: None }
    }
}
