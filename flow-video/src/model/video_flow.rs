//! The model: integer frames in, exact likelihoods and their gradients out.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use flow_core::autodiff::pair;
use flow_core::bijector::Chain;
use flow_core::density::{LatentPriors, Level};
use flow_core::distribution::{ConditionalGaussian, gaussian_log_prob};
use flow_core::layers::Gaussianize;
use flow_core::nn::ZeroConv;
use flow_core::{Backprop, Bijector, Density, Error, FlowRng, Gradients, MultiScale, ParamPath, ParamStore, Result};
use flow_image::model::{ImageSpec, PixelScaling, Preprocess, TopPrior};

use super::VideoConfig;
use super::encoder::MeanAndLogStd;
use super::noise::{LearnedNoise, learned_noise};
use super::prior::{Alone, LatentPrior};

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
/// of the last `n` frames and from the coarser part of the frame itself (Kumar et al. 2020, equations 3 to 5).
///
/// # Shapes
/// - clips are levels `(B, T, C, H, W)`, integers `0 … levels - 1` of any type; log-probabilities `(B, T)` in nats, one for
///   each frame given those before it.
pub struct VideoFlow {
    config: VideoConfig,
    spec: ImageSpec,
    preprocess: Preprocess,
    noise: Option<LearnedNoise>,
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
        let level = |path: &ParamPath, shape: [usize; 3]| -> Result<Box<dyn Bijector>> {
            let flow = glow.level(path, shape)?;
            if !config.gaussianize || shape != spec.event_shape() {
                return Ok(flow);
            }
            let front = Gaussianize::new(&root.pp("front"), &shape, spec.levels, 0.0, 1.0)?;
            Ok(Box::new(Chain::new(vec![Box::new(front), flow])?))
        };
        let latent = |path: &ParamPath, shape, alone| {
            LatentPrior::new(&path.pp("time"), shape, &config.prior, config.activation, alone)
        };
        for i in 1..config.levels {
            let path = root.pp(format!("level{}", i - 1));
            let flow = level(&path, shape)?;
            let [c, h, w] = [4 * shape[0], shape[1] / 2, shape[2] / 2];
            let (kept, out) = (c.div_ceil(2), c / 2);
            let net = ZeroConv::new(&path.pp("split"), kept, 2 * out)?;
            let split = Arc::new(ConditionalGaussian::new(&[out, h, w], &[kept, h, w], net));
            levels.push(Level { flow, split: Some(Box::new(split.clone())) });
            priors.push(latent(&path, [out, h, w], Alone::Split(split))?);
            shape = [kept, h, w];
        }
        let path = root.pp(format!("level{}", config.levels - 1));
        levels.push(Level { flow: level(&path, shape)?, split: None });
        let shape = [4 * shape[0], shape[1] / 2, shape[2] / 2];
        let top = Arc::new(TopPrior::new(&root.pp("prior"), shape, true, None)?);
        priors.push(latent(&path, shape, Alone::Top(top.clone()))?);
        let frame = MultiScale::new(store, levels, Box::new(top))?;
        let scaling = if config.gaussianize { PixelScaling::Unit } else { PixelScaling::Centered };
        let preprocess = Preprocess::new(scaling, spec, store.dtype(), store.device())?;
        let noise = match config.noise_width {
            0 => None,
            width => Some(learned_noise(&root.pp("noise"), spec, width, config.activation)?),
        };
        Ok(VideoFlow { config: config.clone(), spec: *spec, preprocess, noise, frame, priors })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &VideoConfig {
        &self.config
    }

    /// The size and levels of a frame.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// How many frames the prior looks back.
    pub fn past(&self) -> usize {
        self.config.prior.past
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        self.frame.store()
    }

    /// The flow of a single frame, with the priors that hold where there is no past: a Glow.
    pub fn frame(&self) -> &MultiScale {
        &self.frame
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
    pub fn log_prob(&self, clips: &Tensor, rng: &mut FlowRng) -> Result<Tensor> {
        let frames = self.dequantize(clips, rng)?;
        let log_prob = self.frame.log_prob_under(&frames.y, &ClipPriors { model: self, steps: frames.steps })?;
        Ok(frames.bound(log_prob)?.reshape((frames.clips, frames.steps))?)
    }

    /// The latents of every frame as they are, finest level first, `(B·T, C, H, W)` each, and `ln P` `(B, T)` with the noise
    /// of dequantization at its mean: deterministic, untracked.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`].
    pub fn encode(&self, clips: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let _paused = self.store().no_grad();
        let (count, steps, frames) = self.flat(clips)?;
        let (y, log_det) = self.preprocess.center(&frames)?;
        let log_prob = (self.frame.log_prob_under(&y, &ClipPriors { model: self, steps })? + log_det)?;
        Ok((self.frame.factors(&y)?.latents, log_prob.reshape((count, steps))?))
    }

    /// `-log₂ P / D` of every frame, `(B, T)`, untracked.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`].
    pub fn bits_per_dim(&self, clips: &Tensor, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store().no_grad();
        Ok(self.log_prob(clips, rng)?.affine(-self.bits(), 0.0)?)
    }

    /// Adds the gradient of the mean bits/dim of the frames from number `first` on to `gradients`; those before are given.
    ///
    /// Gradients flow through the latents of the given frames as well.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`]; [`Error::Config`] when no frame is left to predict.
    pub fn backward(
        &self,
        clips: &Tensor,
        first: usize,
        rng: &mut FlowRng,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<VideoStep> {
        let frames = self.dequantize(clips, rng)?;
        let (y, clips, steps) = (&frames.y, frames.clips, frames.steps);
        if first >= steps {
            return Err(Error::config(
                "clips",
                format!("{steps} frames, of which {first} are given: none is predicted"),
            ));
        }
        let count = clips * (steps - first);
        let each = -self.bits() / count.max(1) as f64;
        let weight: Vec<f64> = (0..clips * steps).map(|row| if row % steps < first { 0.0 } else { each }).collect();
        let weight = Tensor::from_vec(weight, clips * steps, y.device())?.to_dtype(y.dtype())?;
        let priors = ClipPriors { model: self, steps };
        let scored = self.frame.log_prob_backward_under(y, &priors, &weight, mode, gradients)?;
        if let Some(log_q) = &frames.log_q {
            let noise = (pair(y, &scored.grad_x)? - pair(log_q, &weight)?)?;
            gradients.check_variables(&noise, &[])?;
            gradients.accumulate(&noise.backward()?)?;
        }
        let log_prob = frames.bound(scored.log_prob)?.detach();
        let total = (log_prob * weight)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        Ok(VideoStep { bits_per_dim: total, fell_back: scored.fell_back })
    }

    /// `(z - μ) / σ` of the frames from number `n` on, finest level first, `(B·(T - n), C, H, W)` each, untracked: standard
    /// normal under the model.
    ///
    /// # Errors
    /// As [`VideoFlow::log_prob`]; [`Error::Config`] for clips of `n` frames or fewer.
    pub fn noise(&self, clips: &Tensor, rng: &mut FlowRng) -> Result<Vec<Tensor>> {
        let _paused = self.store().no_grad();
        let Frames { y, clips, steps, .. } = self.dequantize(clips, rng)?;
        self.enough(steps)?;
        let factors = self.frame.factors(&y)?;
        let levels = self.priors.iter().zip(&factors.latents).enumerate();
        let noise = levels.map(|(i, (prior, latent))| {
            let alone = prior.alone(latent.dim(0)?, factors.kept.get(i))?;
            let windows = Windows::new(latent, clips, steps, self.past())?;
            let (mean, log_std) = prior.given(&windows.past, &windows.both(&alone)?)?;
            Ok(((windows.targets(latent)? - mean)? * log_std.neg()?.exp()?)?)
        });
        noise.collect()
    }

    /// Refuses clips that are too short for the prior over time.
    fn enough(&self, steps: usize) -> Result<()> {
        let past = self.past();
        if steps <= past {
            return Err(Error::config("clips", format!("{steps} frames, the prior needs {} to begin with", past + 1)));
        }
        Ok(())
    }

    /// Data-dependent initialisation of the flow and of the priors from whole clips.
    ///
    /// # Errors
    /// For clips of fewer than `n + 1` frames, or values from which it cannot be done; nothing is changed then.
    pub fn initialize(&self, clips: &Tensor, rng: &mut FlowRng) -> Result<()> {
        let _paused = self.store().no_grad();
        let Frames { y, clips, steps, .. } = self.dequantize(clips, rng)?;
        self.enough(steps)?;
        let before = self.store().snapshot()?;
        let outcome = self.frame.initialize(&y, None).and_then(|()| {
            let factors = self.frame.factors(&y)?;
            for (i, (prior, latent)) in self.priors.iter().zip(&factors.latents).enumerate() {
                let (mean, _) = prior.alone(latent.dim(0)?, factors.kept.get(i))?;
                let windows = Windows::new(latent, clips, steps, self.past())?;
                prior.initialize(&windows.past, &windows.targets(&mean)?)?;
            }
            Ok(())
        });
        if outcome.is_err() {
            self.store().restore(&before)?;
        }
        outcome
    }

    /// Switches batch statistics (training) or running averages (evaluation); this model has neither.
    pub fn set_training(&self, training: bool) {
        self.frame.set_training(training);
    }

    /// `1 / (D ln 2)`.
    fn bits(&self) -> f64 {
        1.0 / (self.spec.dims() as f64 * std::f64::consts::LN_2)
    }

    fn dequantize(&self, clips: &Tensor, rng: &mut FlowRng) -> Result<Frames> {
        let (clips_count, steps, frames) = self.flat(clips)?;
        let (y, log_det, log_q) = match &self.noise {
            None => {
                let (y, log_det) = self.preprocess.dequantize(&frames, rng)?;
                (y, log_det, None)
            }
            Some(noise) => {
                let frames = frames.to_device(self.store().device())?;
                let drawn = noise.dequantize(&frames, self.store().dtype(), rng)?;
                let (y, log_det) = self.preprocess.scale(&drawn.x)?;
                (y, log_det, Some(drawn.log_q))
            }
        };
        Ok(Frames { y, log_det, log_q, clips: clips_count, steps })
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

/// Dequantized frames `(B·T, C, H, W)` with the log-determinants of that.
struct Frames {
    y: Tensor,
    log_det: Tensor,
    /// `ln q` of learned noise.
    log_q: Option<Tensor>,
    clips: usize,
    steps: usize,
}

impl Frames {
    /// The bound of `ln P` of every frame from `ln p(y)`.
    fn bound(&self, log_prob: Tensor) -> Result<Tensor> {
        let bound = (log_prob + &self.log_det)?;
        Ok(match &self.log_q {
            Some(log_q) => (bound - log_q)?,
            None => bound,
        })
    }
}

/// The latents of clips as targets with what precedes them.
struct Windows {
    clips: usize,
    steps: usize,
    past_steps: usize,
    /// `(B·(T - n), n, C, H, W)`.
    past: Tensor,
}

impl Windows {
    fn new(latent: &Tensor, clips: usize, steps: usize, past_steps: usize) -> Result<Self> {
        let (_, c, h, w) = latent.dims4()?;
        let targets = steps - past_steps;
        let latent = latent.reshape((clips, steps, c, h, w))?;
        let shifted = (0..past_steps).map(|j| Ok(latent.narrow(1, j, targets)?)).collect::<Result<Vec<_>>>()?;
        let past = Tensor::stack(&shifted, 2)?.reshape((clips * targets, past_steps, c, h, w))?;
        Ok(Windows { clips, steps, past_steps, past })
    }

    /// The rows of frames `n … T - 1` of `(B·T, …)`.
    fn targets(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, self.past_steps, self.steps - self.past_steps)
    }

    /// Mean and `ln σ` of frames `n … T - 1`.
    fn both(&self, (mean, log_std): &MeanAndLogStd) -> Result<MeanAndLogStd> {
        Ok((self.targets(mean)?, self.targets(log_std)?))
    }

    /// The rows of frames `0 … n - 1` of `(B·T, …)`.
    fn first(&self, rows: &Tensor) -> Result<Tensor> {
        self.part(rows, 0, self.past_steps)
    }

    fn part(&self, rows: &Tensor, from: usize, count: usize) -> Result<Tensor> {
        let (_, c, h, w) = rows.dims4()?;
        let rows = rows.reshape((self.clips, self.steps, c, h, w))?.narrow(1, from, count)?;
        Ok(rows.reshape((self.clips * count, c, h, w))?)
    }

    /// The values of the first frames `(B·n)` and of the targets `(B·(T - n))` in the order of the clips, `(B·T)`.
    fn join(&self, first: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let first = first.reshape((self.clips, self.past_steps))?;
        let targets = targets.reshape((self.clips, self.steps - self.past_steps))?;
        Ok(Tensor::cat(&[first, targets], 1)?.flatten_all()?)
    }
}

/// The densities of the latents of clips of `steps` frames, one clip after the other.
struct ClipPriors<'a> {
    model: &'a VideoFlow,
    steps: usize,
}

impl LatentPriors for ClipPriors<'_> {
    fn log_prob(&self, level: usize, latent: &Tensor, kept: Option<&Tensor>) -> Result<Tensor> {
        let (prior, past) = (&self.model.priors[level], self.model.past());
        let rows = latent.dim(0)?;
        let (mean, log_std) = prior.alone(rows, kept)?;
        if self.steps <= past || rows == 0 {
            return gaussian_log_prob(latent, &mean, &log_std);
        }
        let windows = Windows::new(latent, rows / self.steps, self.steps, past)?;
        let first = gaussian_log_prob(&windows.first(latent)?, &windows.first(&mean)?, &windows.first(&log_std)?)?;
        let (mean, log_std) = prior.given(&windows.past, &windows.both(&(mean, log_std))?)?;
        windows.join(&first, &gaussian_log_prob(&windows.targets(latent)?, &mean, &log_std)?)
    }
}
