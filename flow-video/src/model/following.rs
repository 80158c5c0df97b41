//! What a model that follows motions knows of frames before it sees them.

use candle_core::{DType, Device, Tensor};
use flow_core::layers::{GaussianizeGuessed, Squeeze};
use flow_core::numerics::host;
use flow_core::{Bijector, ParamPath, Result};
use flow_image::model::ImageSpec;
use rayon::prelude::*;

use super::VideoConfig;
use super::guess::KINDS;
use super::layers::{MOST, Scene};
use super::motion::Motion;
use super::plane::Vector;
use super::vectors::MotionPrior;
use super::windows::Frames;

/// Classes of guessed levels: none, all, and a quarter of the range each.
const SHADES: usize = 6;

/// Guesses of frames and what follows from them: how their levels become normal numbers, and what the priors see.
pub(super) struct Following {
    motion: Motion,
    /// How many of the frames before the priors see.
    past: usize,
    spec: ImageSpec,
    front: Option<GaussianizeGuessed>,
    prior: MotionPrior,
    dtype: DType,
    device: Device,
}

/// What is known of frames.
pub(super) struct Foreseen {
    /// Guesses and classes for [`GaussianizeGuessed`], `(R, 2 C, H, W)`.
    context: Tensor,
    /// The frames before and the guess, of every level `(R, n + 1, C, H, W)`, in `[-½, ½]`.
    pub(super) seen: Vec<Tensor>,
}

/// Frames before others, and what they tell of motions.
pub(super) struct Before {
    /// `(R, n, C, H, W)` of levels, f64 on the CPU.
    frames: Tensor,
    /// The last of them.
    last: Vec<f64>,
    scenes: Vec<Scene>,
}

/// A motion of every layer of a frame.
pub(super) type Motions = Vec<Vector>;

impl Foreseen {
    /// The same of other rows.
    pub(super) fn map(&self, rows: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let seen = self.seen.iter().map(&rows).collect::<Result<_>>()?;
        Ok(Foreseen { context: rows(&self.context)?, seen })
    }
}

impl Following {
    /// For a model with `motion`, with learned histograms under `front` if it has any, and the prior of motions.
    pub(super) fn new(motion: &Motion, spec: &ImageSpec, path: &ParamPath, config: &VideoConfig) -> Result<Self> {
        let shape = spec.event_shape();
        let front = match config.gaussianize {
            true => {
                let classes = KINDS * SHADES + 1;
                Some(GaussianizeGuessed::new(&path.pp("front"), &shape, classes, spec.levels, [0.0, 1.0])?)
            }
            false => None,
        };
        let prior = MotionPrior::new(&path.pp("motion"), shape, motion, &config.prior, config.activation)?;
        let (dtype, device) = (path.store().dtype(), path.store().device().clone());
        Ok(Following { motion: *motion, past: config.prior.past, spec: *spec, front, prior, dtype, device })
    }

    /// The channels that the prior of scale `scale`, the finest 0, sees of every frame.
    pub(super) fn channels(&self, scale: usize) -> usize {
        self.spec.event_shape()[0] << (2 * (scale + 1))
    }

    /// How many numbers are needed to draw the motions of a frame.
    pub(super) fn draws(&self) -> usize {
        MOST
    }

    /// What frames tell of those after them: `(R, n, C, H, W)` of levels of any type.
    pub(super) fn before(&self, frames: &Tensor) -> Result<Before> {
        let frames = frames.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (steps, size) = (frames.dim(1)?, self.spec.event_shape());
        let (dims, levels) = (self.spec.dims(), self.spec.levels as f64);
        let all = host::numbers(&frames.narrow(1, steps - self.motion.memory, self.motion.memory)?)?;
        let scene = |frames: &[f64]| {
            let frames: Vec<&[f64]> = frames.chunks_exact(dims).collect();
            self.motion.scene(&frames, size, levels)
        };
        let scenes = all.par_chunks_exact(self.motion.memory * dims).map(scene).collect();
        let last = host::numbers(&frames.narrow(1, steps - 1, 1)?)?;
        Ok(Before { frames, last, scenes })
    }

    /// The motions of the layers to the frames `(R, C, H, W)` of levels after others.
    pub(super) fn found(&self, before: &Before, frames: &Tensor) -> Result<Vec<Motions>> {
        let now = host::numbers(frames)?;
        let found = before.scenes.par_iter().zip(now.par_chunks_exact(self.spec.dims()));
        Ok(found.map(|(scene, now)| self.motion.found(scene, now)).collect())
    }

    /// `ln P` of motions in nats, `(R,)`, tracked.
    pub(super) fn log_prob(&self, before: &Before, motions: &[Motions]) -> Result<Tensor> {
        self.prior.log_prob(&before.scenes, motions)
    }

    /// Motions that may follow: drawn, or the likeliest ones without numbers to draw by.
    pub(super) fn draw(&self, before: &Before, temperature: f64, uniforms: Option<&[f64]>) -> Result<Vec<Motions>> {
        self.prior.draw(&before.scenes, temperature, uniforms)
    }

    /// Data-dependent initialisation of the prior of motions.
    pub(super) fn initialize_prior(&self, before: &Before) -> Result<()> {
        self.prior.initialize(&before.scenes)
    }

    /// What the frames before and motions let expect, for a model of so many scales.
    pub(super) fn foresee(&self, before: &Before, motions: &[Motions], scales: usize) -> Result<Foreseen> {
        let (rows, steps, c, h, w) = before.frames.dims5()?;
        let (mut guess, mut kinds) = (vec![0.0; rows * c * h * w], vec![0.0; rows * h * w]);
        let out = guess.par_chunks_exact_mut(c * h * w).zip(kinds.par_chunks_exact_mut(h * w));
        let given = before.scenes.par_iter().zip(motions).zip(before.last.par_chunks_exact(c * h * w));
        out.zip(given).for_each(|(out, ((scene, motions), last))| self.motion.guess(scene, motions, last, out));
        let guess = Tensor::from_vec(guess, (rows, c, h, w), &Device::Cpu)?;
        let kinds = Tensor::from_vec(kinds, (rows, 1, h, w), &Device::Cpu)?;
        let frames = before.frames.narrow(1, steps - self.past, self.past)?;
        let all = Tensor::cat(&[&frames, &guess.unsqueeze(1)?], 1)?;
        let seen = (0..scales).map(|scale| self.squeezed(&all, 1 << (scale + 1))).collect::<Result<_>>()?;
        Ok(Foreseen { context: self.context(&guess, &kinds)?, seen })
    }

    /// Frames of levels `(R, n, C, H, W)` in `[-½, ½]`, squares of `side` pixels as channels.
    fn squeezed(&self, frames: &Tensor, side: usize) -> Result<Tensor> {
        let (rows, steps, c, h, w) = frames.dims5()?;
        let unit = (frames + 0.5)?.affine(1.0 / self.spec.levels as f64, -0.5)?;
        let unit = self.here(&unit.reshape((rows * steps, c, h, w))?)?;
        let squeezed = Squeeze::new(&[c, h, w], side)?.encode(&unit, None)?.0;
        Ok(squeezed.reshape((rows, steps, c * side * side, h / side, w / side))?)
    }

    /// Guesses in the units of the front, and the classes of values.
    fn context(&self, guess: &Tensor, kinds: &Tensor) -> Result<Tensor> {
        let levels = self.spec.levels as f64;
        let shade = |level: f64| match level {
            0.0 => 0.0,
            all if all == levels - 1.0 => (SHADES - 1) as f64,
            some => 1.0 + (4.0 * some / levels).floor(),
        };
        let shades: Vec<f64> = guess.flatten_all()?.to_vec1::<f64>()?.into_iter().map(shade).collect();
        let shades = Tensor::from_vec(shades, guess.shape(), &Device::Cpu)?;
        let classes = kinds.affine(SHADES as f64, 0.0)?.broadcast_add(&shades)?;
        self.here(&Tensor::cat(&[(guess + 0.5)?.affine(1.0 / levels, 0.0)?, classes], 1)?)
    }

    /// What is known of `rows` frames without a past.
    fn nothing(&self, rows: usize) -> Result<Tensor> {
        let [c, h, w] = self.spec.event_shape();
        let part = |value: f64| Tensor::full(value, (rows, c, h, w), &Device::Cpu);
        self.here(&Tensor::cat(&[part(-1.0)?, part((KINDS * SHADES) as f64)?], 1)?)
    }

    /// The context of `steps` frames of each clip, of which the first are without a past.
    fn context_of(&self, foreseen: Option<&Foreseen>, clips: usize, steps: usize) -> Result<Tensor> {
        let Some(Foreseen { context, .. }) = foreseen else { return self.nothing(clips * steps) };
        let [c, h, w] = self.spec.event_shape();
        let known = context.dim(0)? / clips.max(1);
        let sized = |frames: usize| (clips, frames, 2 * c, h, w);
        let parts =
            [self.nothing(clips * (steps - known))?.reshape(sized(steps - known))?, context.reshape(sized(known))?];
        Ok(Tensor::cat(&parts, 1)?.reshape((clips * steps, 2 * c, h, w))?)
    }

    /// Frames in `[0, 1]` as the flow sees them.
    pub(super) fn encode(&self, frames: Frames) -> Result<Frames> {
        self.normal(frames, |front, y, context| front.encode(y, Some(context)))
    }

    /// As [`Following::encode`], by what these frames count.
    pub(super) fn initialize(&self, frames: Frames) -> Result<Frames> {
        self.normal(frames, |front, y, context| front.initialize(y, Some(context)))
    }

    fn normal(
        &self,
        mut frames: Frames,
        map: impl FnOnce(&GaussianizeGuessed, &Tensor, &Tensor) -> Result<(Tensor, Tensor)>,
    ) -> Result<Frames> {
        if let Some(front) = &self.front {
            let context = self.context_of(frames.foreseen.as_ref(), frames.clips, frames.steps)?;
            let (y, log_det) = map(front, &frames.y, &context)?;
            frames.y = y;
            frames.log_det = (log_det + frames.log_det)?;
        }
        Ok(frames)
    }

    /// What the flow decoded, the next frame of each clip, in `[0, 1]`.
    pub(super) fn decode(&self, y: Tensor, foreseen: Option<&Foreseen>) -> Result<Tensor> {
        match &self.front {
            Some(front) => Ok(front.decode(&y, Some(&self.context_of(foreseen, y.dim(0)?, 1)?))?.0),
            None => Ok(y),
        }
    }

    fn here(&self, t: &Tensor) -> Result<Tensor> {
        Ok(t.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}
