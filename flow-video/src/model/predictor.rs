//! Going on from what was seen, frame by frame.

use std::collections::VecDeque;

use candle_core::{DType, Device, Tensor};
use flow_core::{Error, FlowRng, Result};

use super::VideoFlow;
use super::encoder::MeanAndLogStd;
use super::following::Foreseen;

/// The last `n` frames of a batch of clips as latents, and what comes next.
///
/// Latents that were drawn become the past themselves: a predicted frame is never encoded again, so any number of frames takes
/// constant memory. A model that follows motions ([`Motion`](super::Motion)) looks at the frames themselves. An observed frame
/// may follow at any time.
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
/// let seen = Tensor::zeros((1, model.past(), 1, 32, 32), DType::U8, &Device::Cpu)?;
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
    /// The last frames themselves, for a model that follows motions.
    frames: VecDeque<Tensor>,
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
        let past = vec![VecDeque::new(); model.priors.len()];
        Predictor { model, past, frames: VecDeque::new(), rows: None, told: None, guidance: 1.0 }
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
            let frame = clips.narrow(1, t, 1)?.squeeze(1)?.contiguous()?;
            let (y, _) = self.model.preprocess().center(&frame)?;
            let latents = match &self.model.following {
                Some(_) => Vec::new(),
                None => self.model.frame.factors(&y)?.latents,
            };
            self.push(frame, latents)?;
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
        let frames = self.frames.iter().map(repeated).collect::<Result<_>>()?;
        let told = match &self.told {
            Some((told, drawn)) => {
                let (rows, frames, size) = told.dims3()?;
                let told = told.unsqueeze(1)?.broadcast_as((rows, times, frames, size))?;
                Some((told.reshape((rows * times, frames, size))?, *drawn))
            }
            None => None,
        };
        let rows = self.rows.map(|rows| rows * times);
        Ok(Predictor { model: self.model, past, frames, rows, told, guidance: self.guidance })
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

    /// The next `frames` frames as bytes `(B, frames, C, H, W)`; one temperature, or one for each level, finest first. A model
    /// that draws motions ([`Motion`](super::Motion)) may be given one more for these; else it draws them at 1, and takes the
    /// likeliest ones where all temperatures are 0.
    ///
    /// A predictor that has seen no frame begins with [`Predictor::begin`]. Frames before which fewer were seen than the model
    /// looks back ([`VideoFlow::past`]) are drawn as without a past.
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong number of temperatures or before any frame was seen, [`Error::NonFinite`] when a sample
    /// diverged.
    pub fn predict(&mut self, frames: usize, temperatures: &[f64], rng: &mut FlowRng) -> Result<Tensor> {
        let rows = self.known_rows()?;
        self.drawn(rows, frames, temperatures, &mut Noise::Drawn(rng))
    }

    /// As [`Predictor::predict`] with standard normal noise that is given, `noise[t][l]` for level `l` of frame `t`, of the
    /// shape of the level's latents: `z = μ + T·σ·ε`. The same noise after other frames, or of another model, shows what
    /// these change. Motions, of a model that draws them ([`Motion`](super::Motion)), are the likeliest ones.
    ///
    /// # Errors
    /// As [`Predictor::predict`], and [`Error::Shape`] for noise of another shape or of another number of levels.
    pub fn predict_from(&mut self, noise: &[Vec<Tensor>], temperatures: &[f64]) -> Result<Tensor> {
        let (rows, levels) = (self.known_rows()?, self.past.len());
        if let Some(bad) = noise.iter().find(|frame| frame.len() != levels) {
            let reason = format!("of {} levels given, the model has {levels}", bad.len());
            return Err(Error::config("noise", reason));
        }
        self.drawn(rows, noise.len(), temperatures, &mut Noise::Given(noise))
    }

    fn known_rows(&self) -> Result<usize> {
        self.rows.ok_or_else(|| Error::config("prediction", "no frame was observed: observe some, or begin with none"))
    }

    /// Frames by that noise.
    fn drawn(&mut self, rows: usize, frames: usize, temperatures: &[f64], noise: &mut Noise<'_>) -> Result<Tensor> {
        let temperatures = self.temperatures(temperatures)?;
        let drawn = (0..frames)
            .map(|t| match self.next(rows, t, &temperatures, noise) {
                Err(Error::NonFinite { layer, what, .. }) => {
                    Err(Error::NonFinite { layer, what: format!("{what}, frame {t} of the prediction"), step: None })
                }
                other => other,
            })
            .collect::<Result<Vec<_>>>()?;
        if drawn.is_empty() {
            let [c, h, w] = self.model.spec().event_shape();
            return Ok(Tensor::zeros((rows, 0, c, h, w), DType::U8, &Device::Cpu)?);
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

    /// Of the levels, finest first, and of motions.
    fn temperatures(&self, given: &[f64]) -> Result<(Vec<f64>, f64)> {
        let (levels, follows) = (self.past.len(), self.model.following.is_some());
        if let Some(bad) = given.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
            return Err(Error::config("temperature", format!("must be finite and not negative, got {bad}")));
        }
        let of_motions = if given.iter().all(|t| *t == 0.0) { 0.0 } else { 1.0 };
        match given {
            &[one] => Ok((vec![one; levels], of_motions)),
            many if many.len() == levels => Ok((many.to_vec(), of_motions)),
            [many @ .., last] if follows && many.len() == levels => Ok((many.to_vec(), *last)),
            many => {
                let more = if follows { ", or these and one for motions" } else { "" };
                let reason =
                    format!("{} given, the model has {levels} levels: give one, or one each{more}", many.len());
                Err(Error::config("temperatures", reason))
            }
        }
    }

    /// The next frame of levels `(B, C, H, W)`; its latents become the past.
    fn next(&mut self, rows: usize, t: usize, temperatures: &(Vec<f64>, f64), noise: &mut Noise<'_>) -> Result<Tensor> {
        let _paused = self.model.store().no_grad();
        let seen = self.seen(rows)?;
        let (temperatures, of_motions) = temperatures;
        let foreseen = self.foreseen(rows, *of_motions, noise)?;
        let mut latents = vec![None; self.past.len()];
        let y = self.model.frame.decode_with(|level, kept| {
            let past = match &foreseen {
                Some(foreseen) => Some(foreseen.seen[level].clone()),
                None => self.past_latents(level, rows)?,
            };
            let (mean, log_std) = self.parameters(level, rows, kept, past, seen.as_ref())?;
            let noise = noise.of(t, level, &mean)?.affine(temperatures[level], 0.0)?;
            let latent = ((noise * log_std.exp()?)? + mean)?;
            latents[level] = Some(latent.clone());
            Ok(latent)
        })?;
        let frame = self.model.levels_of(y, foreseen.as_ref())?;
        if let Some((_, drawn)) = &mut self.told {
            *drawn += 1;
        }
        self.push(frame.clone(), latents.into_iter().flatten().collect())?;
        Ok(frame)
    }

    /// Mean and `ln σ` of the next frame's latents of one level.
    fn parameters(
        &self,
        level: usize,
        rows: usize,
        kept: Option<&Tensor>,
        past: Option<Tensor>,
        seen: Option<&Tensor>,
    ) -> Result<MeanAndLogStd> {
        let prior = &self.model.priors[level];
        let alone = prior.alone(rows, kept)?;
        let Some(past) = past else { return Ok(alone) };
        let (mean, log_std) = prior.given(&past, &alone, seen)?;
        if self.guidance == 1.0 || self.told.is_none() {
            return Ok((mean, log_std));
        }
        let (unguided, _) = prior.given(&past, &alone, self.model.told(None, rows, 1)?.as_ref())?;
        Ok(((&unguided + ((mean - &unguided)? * self.guidance)?)?, log_std))
    }

    /// The last latents of a level, `(B, n, C, H, W)`, if there are as many.
    fn past_latents(&self, level: usize, rows: usize) -> Result<Option<Tensor>> {
        let past = &self.past[level];
        if past.len() < self.model.past() || rows == 0 {
            return Ok(None);
        }
        Ok(Some(Tensor::stack(&past.iter().collect::<Vec<_>>(), 1)?))
    }

    /// What is known of the next frame once its motions are drawn, for a model that draws them.
    fn foreseen(&self, rows: usize, temperature: f64, noise: &mut Noise<'_>) -> Result<Option<Foreseen>> {
        let Some(following) = &self.model.following else { return Ok(None) };
        if self.frames.len() < self.model.past() || rows == 0 {
            return Ok(None);
        }
        let before = following.before(&Tensor::stack(&self.frames.iter().collect::<Vec<_>>(), 1)?)?;
        let uniforms = noise.uniforms(rows * following.draws())?;
        let motions = following.draw(&before, temperature, uniforms.as_deref())?;
        following.foresee(&before, &motions, self.past.len()).map(Some)
    }

    fn push(&mut self, frame: Tensor, latents: Vec<Tensor>) -> Result<()> {
        let most = self.model.past();
        if self.model.following.is_some() {
            // Frames may be observed in any type and anywhere; those that are drawn are bytes on the CPU.
            let frame = frame.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            keep(&mut self.frames, frame, most);
            return Ok(());
        }
        for (past, latent) in self.past.iter_mut().zip(latents) {
            keep(past, latent, most);
        }
        Ok(())
    }
}

/// Adds the newest, and lets go of the oldest where there are more than `most`.
fn keep(past: &mut VecDeque<Tensor>, newest: Tensor, most: usize) {
    past.push_back(newest);
    if past.len() > most {
        past.pop_front();
    }
}

/// Where the randomness of frames comes from.
enum Noise<'a> {
    Drawn(&'a mut FlowRng),
    /// For every frame, of every level.
    Given(&'a [Vec<Tensor>]),
}

impl Noise<'_> {
    /// The noise of a level of frame `t`, whose latents have this mean.
    fn of(&mut self, t: usize, level: usize, mean: &Tensor) -> Result<Tensor> {
        match self {
            Noise::Drawn(rng) => rng.normal(mean.shape(), mean.dtype(), mean.device()),
            Noise::Given(noise) => {
                let given = &noise[t][level];
                if given.dims() != mean.dims() {
                    return Err(Error::Shape {
                        layer: format!("noise of level {level}"),
                        expected: format!("{:?}", mean.dims()),
                        actual: given.dims().to_vec(),
                    });
                }
                Ok(given.to_dtype(mean.dtype())?.to_device(mean.device())?)
            }
        }
    }

    /// Numbers to draw by, if there are any.
    fn uniforms(&mut self, count: usize) -> Result<Option<Vec<f64>>> {
        match self {
            Noise::Drawn(rng) => Ok(Some(rng.uniform(count, DType::F64, &Device::Cpu)?.to_vec1()?)),
            Noise::Given(_) => Ok(None),
        }
    }
}
