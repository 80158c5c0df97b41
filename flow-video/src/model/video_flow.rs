//! The model: integer frames in, exact likelihoods and their gradients out.

use std::sync::Arc;

use candle_core::Tensor;
use flow_core::autodiff::pair;
use flow_core::bijector::Chain;
use flow_core::density::Level;
use flow_core::distribution::ConditionalGaussian;
use flow_core::layers::Gaussianize;
use flow_core::nn::ZeroConv;
use flow_core::numerics::host;
use flow_core::{Backprop, Bijector, Density, Error, FlowRng, Gradients, MultiScale, ParamPath, ParamStore, Result};
use flow_image::model::{ImageSpec, PixelScaling, Preprocess, TopPrior};

use super::VideoConfig;
use super::following::{Following, Foreseen};
use super::footage::{ActionScale, Footage};
use super::noise::{LearnedNoise, learned_noise};
use super::prior::{Alone, LatentPrior};
use super::windows::{ClipPriors, Seen};

/// What a training step computed.
#[derive(Debug, Clone, Copy)]
pub struct VideoStep {
    /// Mean bits/dim of the frames that were predicted.
    pub bits_per_dim: f64,
    /// Whether reversible back-propagation drifted and was replaced by the plain one.
    pub fell_back: bool,
}

/// `p(x_1 … x_T) = Π_t |det ∂f/∂x_t| Π_l p(z_t^l | z_{<t}^l, z_t^{>l})`.
///
/// Every frame is mapped by the same multi-scale flow `f` to latents `z_t^1 … z_t^L`; the latents of a level follow from those
/// of the last `n` frames and from the coarser part of the frame itself (Kumar et al. 2020, equations 3 to 5). With
/// [`Motion`](super::Motion) the last frames themselves and a guess of the next take the place of past latents, and what is said to
/// be `ln P` below is a lower bound.
///
/// # Shapes
/// - footage: clips, alone or with what is told of their frames ([`Footage`]); clips are levels `(B, T, C, H, W)`, integers `0 … levels - 1` of any type; log-probabilities `(B, T)` in nats, one for
///   each frame given those before it.
pub struct VideoFlow {
    config: VideoConfig,
    spec: ImageSpec,
    pub(super) preprocess: Preprocess,
    pub(super) noise: Option<LearnedNoise>,
    actions: Option<ActionScale>,
    pub(super) following: Option<Following>,
    pub(super) frame: MultiScale,
    pub(super) priors: Vec<LatentPrior>,
}

impl VideoFlow {
    /// The model of frames of `spec`, with parameters in `store`.
    ///
    /// # Errors
    /// [`Error::Config`] when the frames cannot be halved often enough or a size is zero.
    pub fn new(config: &VideoConfig, spec: &ImageSpec, store: &ParamStore) -> Result<Self> {
        config.check(spec)?;
        let (root, glow) = (store.root(), config.frame());
        let (mut shape, mut levels, mut priors) = (spec.event_shape(), Vec::new(), Vec::new());
        let following = |motion| Following::new(motion, spec, &root, config);
        let following = config.prior.motion.as_ref().map(following).transpose()?;
        let level = |path: &ParamPath, shape: [usize; 3]| -> Result<Box<dyn Bijector>> {
            let flow = glow.level(path, shape)?;
            if !config.gaussianize || following.is_some() || shape != spec.event_shape() {
                return Ok(flow);
            }
            let front = Gaussianize::new(&root.pp("front"), &shape, spec.levels, 0.0, 1.0)?;
            Ok(Box::new(Chain::new(vec![Box::new(front), flow])?))
        };
        let latent = |path: &ParamPath, number: usize, shape: [usize; 3], alone| {
            let told = if config.actions > 0 { config.actions + 1 } else { 0 };
            let channels = following.as_ref().map_or(shape[0], |following| following.channels(number));
            LatentPrior::new(&path.pp("time"), shape, &config.prior, config.activation, [channels, told], alone)
        };
        for i in 1..config.levels {
            let path = root.pp(format!("level{}", i - 1));
            let flow = level(&path, shape)?;
            let [c, h, w] = [4 * shape[0], shape[1] / 2, shape[2] / 2];
            let (kept, out) = (c.div_ceil(2), c / 2);
            let net = ZeroConv::new(&path.pp("split"), kept, 2 * out)?;
            let split = Arc::new(ConditionalGaussian::new(&[out, h, w], &[kept, h, w], net));
            levels.push(Level { flow, split: Some(Box::new(split.clone())) });
            priors.push(latent(&path, i - 1, [out, h, w], Alone::Split(split))?);
            shape = [kept, h, w];
        }
        let path = root.pp(format!("level{}", config.levels - 1));
        levels.push(Level { flow: level(&path, shape)?, split: None });
        let shape = [4 * shape[0], shape[1] / 2, shape[2] / 2];
        let top = Arc::new(TopPrior::new(&root.pp("prior"), shape, true, None)?);
        priors.push(latent(&path, config.levels - 1, shape, Alone::Top(top.clone()))?);
        let frame = MultiScale::new(store, levels, Box::new(top))?;
        let scaling = if config.gaussianize { PixelScaling::Unit } else { PixelScaling::Centered };
        let preprocess = Preprocess::new(scaling, spec, store.dtype(), store.device())?;
        let noise = match config.noise_width {
            0 => None,
            width => Some(learned_noise(&root.pp("noise"), spec, width, config.activation)?),
        };
        let actions = match config.actions {
            0 => None,
            size => Some(ActionScale::new(&root.pp("actions"), size)?),
        };
        Ok(VideoFlow { config: config.clone(), spec: *spec, preprocess, noise, actions, following, frame, priors })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &VideoConfig {
        &self.config
    }

    /// The size and levels of a frame.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// How many frames the model looks back.
    pub fn past(&self) -> usize {
        self.config.past()
    }

    /// Sets mean and deviation of every number that is told beside frames: what those of the training clips have
    /// ([`Clips::action_scale`](crate::data::Clips::action_scale)), before the first step.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of them than the model takes.
    pub fn scale_actions(&self, scale: &[(f64, f64)]) -> Result<()> {
        match &self.actions {
            Some(actions) => actions.set(scale),
            None if scale.is_empty() => Ok(()),
            None => Err(untold()),
        }
    }

    /// What the priors see of actions `(B, T, A)`, `(B·T, A + 1, 1, 1)`; `None` for a model that takes none.
    pub(super) fn told(&self, actions: Option<&Tensor>, clips: usize, steps: usize) -> Result<Option<Tensor>> {
        match (&self.actions, actions) {
            (Some(scale), actions) => scale.seen(actions, clips, steps).map(Some),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(untold()),
        }
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        self.frame.store()
    }

    /// The flow of a single frame, with the priors that hold where there is no past: a Glow. Where motions are followed
    /// ([`Motion`](super::Motion)) and `gaussianize` is set, it sees what the histogram makes of frames;
    /// [`VideoFlow::latents_of_frames`] includes that.
    pub fn frame(&self) -> &MultiScale {
        &self.frame
    }

    /// The latents of frames `(B, C, H, W)` of levels, each by itself and without a past: finest level first, untracked.
    ///
    /// # Errors
    /// [`Error::Shape`] for frames of another size, [`Error::Config`] for values that are not levels.
    pub fn latents_of_frames(&self, frames: &Tensor) -> Result<Vec<Tensor>> {
        let _paused = self.store().no_grad();
        let centred = |frames: &Tensor| self.preprocess.center(frames).map(|(y, log_det)| (y, log_det, None));
        let frames = self.frames(Footage::from(&frames.unsqueeze(1)?), centred)?;
        Ok(self.frame.factors(&frames.y)?.latents)
    }

    /// The frames of [`VideoFlow::latents_of_frames`] as bytes `(B, C, H, W)`.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of levels than the model's, [`Error::Shape`] for latents of other shapes,
    /// [`Error::NonFinite`] where they decode to none.
    pub fn frames_of_latents(&self, latents: &[Tensor]) -> Result<Tensor> {
        let levels = self.priors.len();
        if latents.len() != levels {
            let reason = format!("of {} levels given, the model has {levels}", latents.len());
            return Err(Error::config("latents", reason));
        }
        self.levels_of(self.frame.decode_with(|level, _| Ok(latents[level].clone()))?, None)
    }

    /// What the flow decoded, given what was known before, as bytes.
    pub(super) fn levels_of(&self, y: Tensor, foreseen: Option<&Foreseen>) -> Result<Tensor> {
        let _paused = self.store().no_grad();
        let y = match &self.following {
            Some(following) => following.decode(y, foreseen)?,
            None => y,
        };
        self.preprocess.quantize(&y)
    }

    /// The map from levels to what the flow sees.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// A lower bound of `ln P` of every frame given those before it, `(B, T)` in nats, tracked; the first `n` frames by the
    /// priors that know no past.
    ///
    /// The noise of dequantization comes from `rng`; where it is learned the bound is of the whole clip, of which the numbers
    /// are the terms.
    ///
    /// # Errors
    /// [`Error::Shape`] for frames of another size, [`Error::Config`] for values that are not levels.
    pub fn log_prob<'a>(&self, footage: impl Into<Footage<'a>>, rng: &mut FlowRng) -> Result<Tensor> {
        let frames = self.dequantize(footage.into(), rng)?;
        let priors = ClipPriors { model: self, frames: &frames };
        let log_prob = self.frame.log_prob_under(&frames.y, &priors)?;
        Ok(frames.bound(log_prob)?.reshape((frames.clips, frames.steps))?)
    }

    /// The latents of every frame as they are, finest level first, `(B·T, C, H, W)` each, and `ln P` `(B, T)` with the noise
    /// of dequantization at its mean: deterministic, untracked.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`].
    pub fn encode<'a>(&self, footage: impl Into<Footage<'a>>) -> Result<(Vec<Tensor>, Tensor)> {
        let _paused = self.store().no_grad();
        let frames = self.frames(footage.into(), |frames| {
            let (y, log_det) = self.preprocess.center(frames)?;
            Ok((y, log_det, None))
        })?;
        let log_prob = self.frame.log_prob_under(&frames.y, &ClipPriors { model: self, frames: &frames })?;
        let latents = self.frame.factors(&frames.y)?.latents;
        Ok((latents, frames.bound(log_prob)?.reshape((frames.clips, frames.steps))?))
    }

    /// `-log₂ P / D` of every frame, `(B, T)`, untracked.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`].
    pub fn bits_per_dim<'a>(&self, footage: impl Into<Footage<'a>>, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store().no_grad();
        Ok(self.log_prob(footage, rng)?.affine(-self.bits(), 0.0)?)
    }

    /// Adds the gradient of the mean bits/dim of the frames from number `first` on to `gradients`; those before are given.
    ///
    /// Gradients flow through the latents of the given frames as well, where the priors see these.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`]; [`Error::Config`] when no frame is left to predict.
    pub fn backward<'a>(
        &self,
        footage: impl Into<Footage<'a>>,
        first: usize,
        rng: &mut FlowRng,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<VideoStep> {
        let mut frames = self.dequantize(footage.into(), rng)?;
        if first >= frames.steps {
            return Err(Error::config(
                "clips",
                format!("{} frames, of which {first} are given: none is predicted", frames.steps),
            ));
        }
        let mut given = first;
        if self.following.is_some() {
            // The latents of given frames are seen by nobody.
            (frames, given) = (frames.after(first)?, 0);
        }
        let (y, clips, steps) = (&frames.y, frames.clips, frames.steps);
        let each = -self.bits() / (clips * (steps - given)).max(1) as f64;
        let weight: Vec<f64> = (0..clips * steps).map(|row| if row % steps < given { 0.0 } else { each }).collect();
        let weight = host::tensor_like(&weight, clips * steps, y)?;
        let priors = ClipPriors { model: self, frames: &frames };
        let scored = self.frame.log_prob_backward_under(y, &priors, &weight, mode, gradients)?;
        if self.noise.is_some() || self.following.is_some() {
            let mut of_values = (pair(y, &scored.grad_x)? + pair(&frames.log_det, &weight)?)?;
            if let Some(log_q) = &frames.log_q {
                of_values = (of_values - pair(log_q, &weight)?)?;
            }
            // Clips that are too short for a past may leave nothing to learn here.
            if of_values.track_op() {
                gradients.check_variables(&of_values, &[])?;
                gradients.accumulate(&of_values.backward()?)?;
            }
        }
        let log_prob = frames.bound(scored.log_prob)?.detach();
        let total = host::sum(&(log_prob * weight)?)?;
        Ok(VideoStep { bits_per_dim: total, fell_back: scored.fell_back })
    }

    /// `(z - μ) / σ` of the frames from number `n` on, finest level first, `(B·(T - n), C, H, W)` each, untracked: standard
    /// normal under the model.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`]; [`Error::Config`] for clips of `n` frames or fewer.
    pub fn noise<'a>(&self, footage: impl Into<Footage<'a>>, rng: &mut FlowRng) -> Result<Vec<Tensor>> {
        let _paused = self.store().no_grad();
        let frames = self.dequantize(footage.into(), rng)?;
        self.enough(frames.steps)?;
        let factors = self.frame.factors(&frames.y)?;
        let levels = self.priors.iter().zip(&factors.latents).enumerate();
        let noise = levels.map(|(level, (prior, latent))| {
            let alone = prior.alone(latent.dim(0)?, factors.kept.get(level))?;
            let Seen { past, alone, told } = frames.seen_by(level, latent, &alone)?;
            let (mean, log_std) = prior.given(&past, &alone, told.as_ref())?;
            Ok(((frames.windows().targets(latent)? - mean)? * log_std.neg()?.exp()?)?)
        });
        noise.collect()
    }

    /// Refuses clips that are too short for the prior over time.
    fn enough(&self, steps: usize) -> Result<()> {
        let past = self.past();
        if steps <= past {
            return Err(Error::config("clips", format!("{steps} frames, the model needs {} to begin with", past + 1)));
        }
        Ok(())
    }

    /// Data-dependent initialisation of the flow and of the priors from whole clips.
    ///
    /// # Errors
    /// For clips of fewer than `n + 1` frames, or values from which it cannot be done; nothing is changed then.
    pub fn initialize<'a>(&self, footage: impl Into<Footage<'a>>, rng: &mut FlowRng) -> Result<()> {
        let _paused = self.store().no_grad();
        let footage = footage.into();
        self.enough(self.flat(footage.clips)?.1)?;
        let before = self.store().snapshot()?;
        let outcome = self.initialize_from(footage, rng);
        if outcome.is_err() {
            self.store().restore(&before)?;
        }
        outcome
    }

    fn initialize_from(&self, footage: Footage<'_>, rng: &mut FlowRng) -> Result<()> {
        let frames = self.unmapped(footage, true, |frames| self.drawn(frames, rng))?;
        let frames = match &self.following {
            // Those without a past look otherwise, and few are.
            Some(following) => following.initialize(frames)?.after(self.past())?,
            None => frames,
        };
        self.frame.initialize(&frames.y, None)?;
        let factors = self.frame.factors(&frames.y)?;
        for (level, (prior, latent)) in self.priors.iter().zip(&factors.latents).enumerate() {
            let alone = prior.alone(latent.dim(0)?, factors.kept.get(level))?;
            let Seen { past, alone, told } = frames.seen_by(level, latent, &alone)?;
            prior.initialize(&past, &alone.0, told.as_ref())?;
        }
        Ok(())
    }

    /// Switches batch statistics (training) or running averages (evaluation); this model has neither.
    pub fn set_training(&self, training: bool) {
        self.frame.set_training(training);
    }

    /// `1 / (D ln 2)`.
    fn bits(&self) -> f64 {
        1.0 / (self.spec.dims() as f64 * std::f64::consts::LN_2)
    }

    /// Clips `(B, T, C, H, W)` as `B`, `T` and frames `(B·T, C, H, W)`.
    pub(crate) fn flat(&self, clips: &Tensor) -> Result<(usize, usize, Tensor)> {
        let [c, h, w] = self.spec.event_shape();
        match *clips.dims() {
            [batch, steps, channels, height, width] if [channels, height, width] == [c, h, w] => {
                Ok((batch, steps, clips.reshape((batch * steps, c, h, w))?))
            }
            _ => Err(Error::Shape {
                layer: "videoflow".into(),
                expected: format!("(B, T, {c}, {h}, {w})"),
                actual: clips.dims().to_vec(),
            }),
        }
    }
}

/// Why actions are of no use.
fn untold() -> Error {
    Error::config("actions", "the model takes none; build one that does (`VideoConfig::actions`)")
}
