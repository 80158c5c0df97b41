//! Going on from what was seen, frame by frame.

use std::collections::VecDeque;

use candle_core::Tensor;
use flow_core::{Error, FlowRng, Result};

use super::VideoFlow;
use super::encoder::MeanAndLogStd;

/// The last `n` frames of a batch of clips as latents, and what comes next.
///
/// Latents that were drawn become the past themselves: a predicted frame is never encoded again, so any number of frames takes
/// constant memory. An observed frame may follow at any time.
///
/// ```
/// use flow_core::{FlowRng, ParamStore};
/// use flow_video::candle_core::{DType, Device, Tensor};
/// use flow_video::model::{Predictor, VideoFlow, preset};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let preset = preset("moving-digits")?;
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let model = VideoFlow::new(&preset.model, &preset.spec, &store)?;
/// let seen = Tensor::zeros((1, 3, 1, 32, 32), DType::U8, &Device::Cpu)?;
/// let mut futures = Predictor::new(&model);
/// futures.observe(&seen)?;
/// let drawn = futures.repeat(4)?.predict(2, &[0.7], &mut FlowRng::seed_from(1))?;
/// assert_eq!(drawn.dims(), &[4, 2, 1, 32, 32]);
/// # Ok(())
/// # }
/// ```
pub struct Predictor<'a> {
    model: &'a VideoFlow,
    /// Of every level the latents of up to `n` frames, the oldest first.
    past: Vec<VecDeque<Tensor>>,
    /// Clips side by side; known with the first frame.
    rows: Option<usize>,
    /// What is told of the frames to come, `(B, F, A)`, and how many of them have been drawn.
    told: Option<(Tensor, usize)>,
    /// How much what is told counts.
    guidance: f64,
}

impl<'a> Predictor<'a> {
    /// Knows no frame yet.
    pub fn new(model: &'a VideoFlow) -> Self {
        Predictor { model, past: vec![VecDeque::new(); model.priors.len()], rows: None, told: None, guidance: 1.0 }
    }

    /// Takes in frames `(B, T, C, H, W)` of levels, the oldest first; only the last `n` matter.
    ///
    /// # Errors
    /// [`Error::Shape`] for frames of another size or another number of clips than before, [`Error::Config`] for values that
    /// are not levels.
    pub fn observe(&mut self, clips: &Tensor) -> Result<()> {
        let (rows, steps, _) = self.model.flat(clips)?;
        self.admit(rows)?;
        let skipped = steps.saturating_sub(self.model.past());
        for t in skipped..steps {
            let (y, _) = self.model.preprocess().center(&clips.narrow(1, t, 1)?.squeeze(1)?.contiguous()?)?;
            let factors = self.model.frame.factors(&y)?;
            self.push(factors.latents);
        }
        Ok(())
    }

    /// `times` futures of every clip: row `i·times + j` is future `j` of clip `i`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn repeat(&self, times: usize) -> Result<Predictor<'a>> {
        let repeated = |latent: &Tensor| -> Result<Tensor> {
            let (rows, c, h, w) = latent.dims4()?;
            Ok(latent.unsqueeze(1)?.broadcast_as((rows, times, c, h, w))?.reshape((rows * times, c, h, w))?)
        };
        let past = self.past.iter().map(|level| level.iter().map(repeated).collect()).collect::<Result<_>>()?;
        let told = match &self.told {
            Some((told, drawn)) => {
                let (rows, frames, size) = told.dims3()?;
                let told = told.unsqueeze(1)?.broadcast_as((rows, times, frames, size))?;
                Some((told.reshape((rows * times, frames, size))?, *drawn))
            }
            None => None,
        };
        let rows = self.rows.map(|rows| rows * times);
        Ok(Predictor { model: self.model, past, rows, told, guidance: self.guidance })
    }

    /// Tells of the frames to come, `(B, F, A)` ([`Footage`](super::Footage)); no more than these can be drawn then. Without
    /// it nothing is told of them.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that takes no actions, [`Error::Shape`] for those of other clips.
    pub fn tell(mut self, actions: &Tensor) -> Result<Self> {
        let (rows, frames) = (self.known_rows()?, actions.dims().get(1).copied().unwrap_or(0));
        self.model.told(Some(actions), rows, frames)?;
        self.told = Some((actions.clone(), 0));
        Ok(self)
    }

    /// Lets what is told count `weight` times: means go from those of a model that is told nothing by `weight` times the
    /// difference that it makes (guidance without a classifier, Ho & Salimans 2022, arXiv 2207.12598, at the means of the
    /// latents). One, the start, is the model itself; more follows more closely at the expense of variety.
    ///
    /// # Errors
    /// [`Error::Config`] for a weight that is not finite.
    pub fn guide(mut self, weight: f64) -> Result<Self> {
        if !weight.is_finite() {
            return Err(Error::config("guidance", format!("must be finite, got {weight}")));
        }
        self.guidance = weight;
        Ok(self)
    }

    /// What the priors see of the next frame's action.
    fn seen(&self, rows: usize) -> Result<Option<Tensor>> {
        let Some((told, drawn)) = &self.told else { return self.model.told(None, rows, 1) };
        let frames = told.dim(1)?;
        if *drawn >= frames {
            let reason = format!("those of {frames} frames were told, and more frames are to be drawn");
            return Err(Error::config("actions", reason));
        }
        self.model.told(Some(&told.narrow(1, *drawn, 1)?), rows, 1)
    }

    /// The next `frames` frames as bytes `(B, frames, C, H, W)`; one temperature, or one for each level, finest first.
    ///
    /// A predictor that has seen no frame begins with [`Predictor::begin`].
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong number of temperatures or before any frame was seen, [`Error::NonFinite`] when a sample
    /// diverged.
    pub fn predict(&mut self, frames: usize, temperatures: &[f64], rng: &mut FlowRng) -> Result<Tensor> {
        let rows = self.known_rows()?;
        self.drawn(rows, frames, temperatures, |_, _, mean| rng.normal(mean.shape(), mean.dtype(), mean.device()))
    }

    /// As [`Predictor::predict`] with standard normal noise that is given, `noise[t][l]` for level `l` of frame `t`, of the
    /// shape of the level's latents: `z = μ + T·σ·ε`. The same noise after other frames, or of another model, shows what
    /// these change.
    ///
    /// # Errors
    /// As [`Predictor::predict`], and [`Error::Shape`] for noise of another shape or of another number of levels.
    pub fn predict_from(&mut self, noise: &[Vec<Tensor>], temperatures: &[f64]) -> Result<Tensor> {
        let (rows, levels) = (self.known_rows()?, self.past.len());
        if let Some(bad) = noise.iter().find(|frame| frame.len() != levels) {
            let reason = format!("of {} levels given, the model has {levels}", bad.len());
            return Err(Error::config("noise", reason));
        }
        self.drawn(rows, noise.len(), temperatures, |t, level, mean| {
            let given = &noise[t][level];
            if given.dims() != mean.dims() {
                return Err(Error::Shape {
                    layer: format!("noise of level {level}"),
                    expected: format!("{:?}", mean.dims()),
                    actual: given.dims().to_vec(),
                });
            }
            Ok(given.to_dtype(mean.dtype())?.to_device(mean.device())?)
        })
    }

    fn known_rows(&self) -> Result<usize> {
        self.rows.ok_or_else(|| Error::config("prediction", "no frame was observed: observe some, or begin with none"))
    }

    /// Frames whose noise a function gives for a frame, a level and the mean of its latents.
    fn drawn(
        &mut self,
        rows: usize,
        frames: usize,
        temperatures: &[f64],
        mut noise: impl FnMut(usize, usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let temperatures = self.temperatures(temperatures)?;
        let drawn = (0..frames)
            .map(|t| match self.next(rows, &temperatures, |level, mean| noise(t, level, mean)) {
                Err(Error::NonFinite { layer, what, .. }) => {
                    Err(Error::NonFinite { layer, what: format!("{what}, frame {t} of the prediction"), step: None })
                }
                other => other,
            })
            .collect::<Result<Vec<_>>>()?;
        if drawn.is_empty() {
            let [c, h, w] = self.model.spec().event_shape();
            return Ok(Tensor::zeros((rows, 0, c, h, w), candle_core::DType::U8, &candle_core::Device::Cpu)?);
        }
        Ok(Tensor::stack(&drawn, 1)?)
    }

    /// `rows` clips from nothing: the first frames are drawn from the priors that know no past.
    ///
    /// # Errors
    /// When frames were observed already.
    pub fn begin(&mut self, rows: usize) -> Result<()> {
        self.admit(rows)
    }

    fn admit(&mut self, rows: usize) -> Result<()> {
        match self.rows {
            Some(known) if known != rows => {
                Err(Error::config("clips", format!("{rows} given, {known} have been observed so far")))
            }
            _ => {
                self.rows = Some(rows);
                Ok(())
            }
        }
    }

    fn temperatures(&self, given: &[f64]) -> Result<Vec<f64>> {
        let levels = self.past.len();
        if let Some(bad) = given.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
            return Err(Error::config("temperature", format!("must be finite and not negative, got {bad}")));
        }
        match given {
            &[one] => Ok(vec![one; levels]),
            many if many.len() == levels => Ok(many.to_vec()),
            many => {
                let reason = format!("{} given, the model has {levels} levels: give one, or one each", many.len());
                Err(Error::config("temperatures", reason))
            }
        }
    }

    /// The next frame of levels `(B, C, H, W)`; its latents become the past.
    fn next(
        &mut self,
        rows: usize,
        temperatures: &[f64],
        mut noise: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let _paused = self.model.store().no_grad();
        let seen = self.seen(rows)?;
        let mut latents = vec![None; self.past.len()];
        let y = self.model.frame.decode_with(|level, kept| {
            let (mean, log_std) = self.parameters(level, rows, kept, seen.as_ref())?;
            let noise = noise(level, &mean)?.affine(temperatures[level], 0.0)?;
            let latent = ((noise * log_std.exp()?)? + mean)?;
            latents[level] = Some(latent.clone());
            Ok(latent)
        })?;
        let frame = self.model.preprocess().quantize(&y)?;
        if let Some((_, drawn)) = &mut self.told {
            *drawn += 1;
        }
        self.push(latents.into_iter().flatten().collect());
        Ok(frame)
    }

    /// Mean and `ln σ` of the next frame's latents of one level.
    fn parameters(
        &self,
        level: usize,
        rows: usize,
        kept: Option<&Tensor>,
        seen: Option<&Tensor>,
    ) -> Result<MeanAndLogStd> {
        let (prior, past) = (&self.model.priors[level], &self.past[level]);
        let alone = prior.alone(rows, kept)?;
        if past.len() < self.model.past() || rows == 0 {
            return Ok(alone);
        }
        let past = Tensor::stack(&past.iter().collect::<Vec<_>>(), 1)?;
        let (mean, log_std) = prior.given(&past, &alone, seen)?;
        if self.guidance == 1.0 || self.told.is_none() {
            return Ok((mean, log_std));
        }
        let (unguided, _) = prior.given(&past, &alone, self.model.told(None, rows, 1)?.as_ref())?;
        Ok(((&unguided + ((mean - &unguided)? * self.guidance)?)?, log_std))
    }

    fn push(&mut self, latents: Vec<Tensor>) {
        for (past, latent) in self.past.iter_mut().zip(latents) {
            past.push_back(latent);
            if past.len() > self.model.past() {
                past.pop_front();
            }
        }
    }
}
