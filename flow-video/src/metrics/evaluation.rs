//! A model beside what happened, and beside two guesses that need no model.

use candle_core::{DType, Device, Tensor};
use flow_core::numerics::host;
use flow_core::numerics::normal;
use flow_core::{Error, FlowRng};
use serde::Serialize;

use super::{mean_and_error, psnr, ssim};
use crate::Result;
use crate::model::{Footage, Predictor, VideoFlow};

/// How predictions are compared with what happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Protocol {
    /// Frames that are given.
    pub context: usize,
    /// Frames that are predicted.
    pub horizon: usize,
    /// Futures of each clip.
    pub futures: usize,
    /// Temperatures of the samples, one for all levels or one each.
    pub temperatures: Vec<f64>,
    /// Futures that are drawn side by side.
    pub batch: usize,
}

impl Protocol {
    /// `futures` of each clip at temperature 1.
    pub fn new(context: usize, horizon: usize, futures: usize) -> Self {
        Protocol { context, horizon, futures, temperatures: vec![1.0], batch: 20 }
    }
}

/// PSNR in dB and SSIM of every predicted frame, the mean over clips.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Curves {
    /// PSNR of frame 1, 2, … after the given ones.
    pub psnr: Vec<f64>,
    /// The same of SSIM.
    pub ssim: Vec<f64>,
}

impl Curves {
    /// Mean PSNR and mean SSIM over the frames.
    pub fn means(&self) -> (f64, f64) {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        (mean(&self.psnr), mean(&self.ssim))
    }
}

/// A mean over clips with its standard error.
pub type MeanAndError = (f64, f64);

/// The best of some futures, chosen for each clip and each measure by its mean over the frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BestOf {
    /// Of how many.
    pub futures: usize,
    /// Its PSNR in dB.
    pub psnr: MeanAndError,
    /// Its SSIM.
    pub ssim: MeanAndError,
}

/// What the best of all futures is ahead of a guess that needs no model: the mean of the differences clip by clip.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Margin {
    /// The guess: `last frame` or `black`.
    pub over: &'static str,
    /// In dB.
    pub psnr: MeanAndError,
    /// Of SSIM.
    pub ssim: MeanAndError,
}

/// Whether latents are what the prior says: with `ε = (z - μ) / σ` of a level, `Φ(ε)` is uniform for a true model.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Calibration {
    /// The level, finest first.
    pub level: usize,
    /// The mean of `ε`, zero for a true model.
    pub mean: f64,
    /// The standard deviation of `ε`, one for a true model.
    pub deviation: f64,
    /// The share of `Φ(ε)` in each tenth of the unit interval; 0.1 each for a true model (the probability integral
    /// transform).
    pub tenths: [f64; 10],
}

/// What [`evaluate`] measures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// How.
    pub protocol: Protocol,
    /// Clips.
    pub clips: usize,
    /// Bits/dim of the predicted frames given the true ones before, mean and standard error over clips.
    pub bits_per_dim: (f64, f64),
    /// The same for each frame.
    pub bits_of_frames: Vec<f64>,
    /// The best of all futures, chosen for each clip and each measure by its mean over the frames.
    pub best: Curves,
    /// The mean over the futures.
    pub mean: Curves,
    /// Repeating the last given frame.
    pub copy_last: Curves,
    /// Black frames.
    pub black: Curves,
    /// The best of 1, 2, 4, … and of all futures.
    pub best_of: Vec<BestOf>,
    /// What the best of all is ahead of repeating the last frame, and of black frames.
    pub margins: Vec<Margin>,
    /// The root mean square difference between two futures of a clip, in levels, mean over pairs of neighbours.
    pub diversity: f64,
    /// Of every level, finest first.
    pub calibration: Vec<Calibration>,
}

/// Bits/dim of every frame of clips `(B, T, C, H, W)` given those before it, `[clip][frame]`.
///
/// # Errors
/// As [`VideoFlow::log_prob`].
pub fn bits_per_frame<'a>(
    model: &VideoFlow,
    footage: impl Into<Footage<'a>>,
    rng: &mut FlowRng,
) -> Result<Vec<Vec<f64>>> {
    model.set_training(false);
    Ok(host::wide(&model.bits_per_dim(footage, rng)?)?.to_vec2()?)
}

/// One clip to evaluate: its frames `(T, C, H, W)`, and what is told of them, `(T, A)`.
#[derive(Debug, Clone)]
pub struct Take {
    /// The frames.
    pub frames: Tensor,
    /// What is told of them.
    pub actions: Option<Tensor>,
}

impl From<Tensor> for Take {
    fn from(frames: Tensor) -> Self {
        Take { frames, actions: None }
    }
}

/// Evaluates `clips`, each `(context + horizon, C, H, W)` of levels on the CPU; `progress` is told the clips done.
///
/// # Errors
/// Clips of another length or size, none at all, and samples that diverge.
pub fn evaluate(
    model: &VideoFlow,
    clips: &[Take],
    protocol: &Protocol,
    rng: &mut FlowRng,
    mut progress: impl FnMut(usize),
) -> Result<Evaluation> {
    let frames = protocol.context + protocol.horizon;
    if clips.is_empty() || protocol.horizon == 0 || protocol.context == 0 || protocol.futures == 0 {
        return Err(Error::config("evaluation", "needs clips, given frames, predicted frames and futures").into());
    }
    let mut sums = Sums::new(protocol, model.config().levels);
    let mut bits = Vec::with_capacity(clips.len());
    for (done, take) in clips.iter().enumerate() {
        let clip = &take.frames;
        if clip.dim(0)? != frames {
            let reason = format!("a clip has {} frames, the protocol takes {frames}", clip.dim(0)?);
            return Err(Error::config("evaluation", reason).into());
        }
        let clip = clip.to_dtype(DType::U8)?.to_device(&Device::Cpu)?;
        let one = clip.unsqueeze(0)?;
        let actions = take.actions.as_ref().map(|actions| actions.unsqueeze(0)).transpose()?;
        let footage = Footage::new(&one, actions.as_ref());
        let scored = bits_per_frame(model, footage, rng)?.swap_remove(0).split_off(protocol.context);
        sums.frames.iter_mut().zip(&scored).for_each(|(sum, b)| *sum += b);
        bits.push(scored.iter().sum::<f64>() / protocol.horizon as f64);
        for (level, noise) in model.noise(footage, rng)?.iter().enumerate() {
            sums.levels[level].add(noise)?;
        }
        sums.compare(model, footage, protocol, rng)?;
        progress(done + 1);
    }
    Ok(sums.finish(protocol, &bits))
}

/// Running sums over clips.
struct Sums {
    frames: Vec<f64>,
    best: Curves,
    mean: Curves,
    copy_last: Curves,
    black: Curves,
    /// How many futures, and the mean measures of their best, clip by clip.
    best_of: Vec<(usize, Measures)>,
    /// Those of the two guesses.
    guesses: [Measures; 2],
    diversity: f64,
    levels: Vec<Noise>,
}

/// Mean PSNR and SSIM over the frames, one of each a clip.
#[derive(Clone, Default)]
struct Measures {
    psnr: Vec<f64>,
    ssim: Vec<f64>,
}

impl Measures {
    fn push(&mut self, (psnr, ssim): (f64, f64)) {
        self.psnr.push(psnr);
        self.ssim.push(ssim);
    }

    /// What these are ahead of `other`.
    fn ahead_of(&self, other: &Measures, over: &'static str) -> Margin {
        let gap = |a: &[f64], b: &[f64]| mean_and_error(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
        Margin { over, psnr: gap(&self.psnr, &other.psnr), ssim: gap(&self.ssim, &other.ssim) }
    }
}

impl Sums {
    fn new(protocol: &Protocol, levels: usize) -> Self {
        let zeros = || Curves { psnr: vec![0.0; protocol.horizon], ssim: vec![0.0; protocol.horizon] };
        let counts = (0..).map(|i| 1 << i).take_while(|&n: &usize| n < protocol.futures).chain([protocol.futures]);
        Sums {
            frames: vec![0.0; protocol.horizon],
            best: zeros(),
            mean: zeros(),
            copy_last: zeros(),
            black: zeros(),
            best_of: counts.map(|n| (n, Measures::default())).collect(),
            guesses: Default::default(),
            diversity: 0.0,
            levels: vec![Noise::default(); levels],
        }
    }

    /// Draws futures of a clip and compares them with what happened.
    fn compare(&mut self, model: &VideoFlow, clip: Footage<'_>, protocol: &Protocol, rng: &mut FlowRng) -> Result<()> {
        let shape = model.spec().event_shape();
        let peak = model.spec().levels as f64 - 1.0;
        let size = model.spec().dims();
        let bytes: Vec<u8> = clip.clips.flatten_all()?.to_vec1()?;
        let (given, truth) = bytes.split_at(protocol.context * size);
        let curves = |frames: &dyn Fn(usize) -> Vec<u8>| -> Result<Curves> {
            let mut curves = Curves::default();
            for (t, truth) in truth.chunks_exact(size).enumerate() {
                let frame = frames(t);
                curves.psnr.push(psnr(&frame, truth, peak)?);
                curves.ssim.push(ssim(&frame, truth, shape, peak)?);
            }
            Ok(curves)
        };
        let last = given[given.len() - size..].to_vec();
        let guesses = [curves(&|_| last.clone())?, curves(&|_| vec![0; size])?];
        for ((sum, each), guess) in
            [&mut self.copy_last, &mut self.black].into_iter().zip(&mut self.guesses).zip(&guesses)
        {
            add(sum, guess, 1.0);
            each.push(guess.means());
        }

        let futures = futures(model, clip, protocol, rng)?;
        let scored = futures
            .iter()
            .map(|future| curves(&|t| future[t * size..(t + 1) * size].to_vec()))
            .collect::<Result<Vec<_>>>()?;
        scored.iter().for_each(|curve| add(&mut self.mean, curve, 1.0 / scored.len() as f64));
        let total = |values: &[f64]| values.iter().sum::<f64>();
        let better = |of: &dyn Fn(&Curves) -> Vec<f64>, among: &[Curves]| {
            let each = among.iter().map(of);
            each.max_by(|a, b| total(a).total_cmp(&total(b))).unwrap_or_default()
        };
        let best = |among: &[Curves]| Curves {
            psnr: better(&|c| c.psnr.clone(), among),
            ssim: better(&|c| c.ssim.clone(), among),
        };
        add(&mut self.best, &best(&scored), 1.0);
        for (count, each) in &mut self.best_of {
            each.push(best(&scored[..*count]).means());
        }
        self.diversity += difference(&futures);
        Ok(())
    }

    fn finish(mut self, protocol: &Protocol, bits: &[f64]) -> Evaluation {
        let clips = bits.len();
        let share = 1.0 / clips as f64;
        for curves in [&mut self.best, &mut self.mean, &mut self.copy_last, &mut self.black] {
            curves.psnr.iter_mut().chain(&mut curves.ssim).for_each(|v| *v *= share);
        }
        let [copy_last, black] = &self.guesses;
        let best = self.best_of.last().map(|(_, best)| best);
        let margins = best.map(|best| vec![best.ahead_of(copy_last, "last frame"), best.ahead_of(black, "black")]);
        let best_of = self.best_of.iter().map(|(futures, each)| BestOf {
            futures: *futures,
            psnr: mean_and_error(&each.psnr),
            ssim: mean_and_error(&each.ssim),
        });
        Evaluation {
            best_of: best_of.collect(),
            margins: margins.into_iter().flatten().collect(),
            protocol: protocol.clone(),
            clips,
            bits_per_dim: mean_and_error(bits),
            bits_of_frames: self.frames.iter().map(|sum| sum * share).collect(),
            best: self.best,
            mean: self.mean,
            copy_last: self.copy_last,
            black: self.black,
            diversity: self.diversity * share,
            calibration: self.levels.into_iter().enumerate().map(|(level, noise)| noise.finish(level)).collect(),
        }
    }
}

fn add(sum: &mut Curves, term: &Curves, weight: f64) {
    sum.psnr.iter_mut().zip(&term.psnr).for_each(|(s, v)| *s += weight * v);
    sum.ssim.iter_mut().zip(&term.ssim).for_each(|(s, v)| *s += weight * v);
}

/// Futures of one clip as bytes `(horizon, C, H, W)` each.
fn futures(model: &VideoFlow, clip: Footage<'_>, protocol: &Protocol, rng: &mut FlowRng) -> Result<Vec<Vec<u8>>> {
    let mut seen = Predictor::new(model);
    seen.observe(&clip.clips.narrow(1, 0, protocol.context)?)?;
    if let Some(actions) = clip.actions {
        seen = seen.tell(&actions.narrow(1, protocol.context, protocol.horizon)?)?;
    }
    let mut all = Vec::with_capacity(protocol.futures);
    while all.len() < protocol.futures {
        let count = protocol.batch.max(1).min(protocol.futures - all.len());
        let drawn = seen.repeat(count)?.predict(protocol.horizon, &protocol.temperatures, rng)?;
        for row in 0..count {
            all.push(drawn.get(row)?.flatten_all()?.to_vec1()?);
        }
    }
    Ok(all)
}

/// The root mean square difference of neighbours, mean over them; zero for a single future.
fn difference(futures: &[Vec<u8>]) -> f64 {
    let pairs = futures.windows(2).map(|pair| {
        let square: f64 = pair[0].iter().zip(&pair[1]).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        (square / pair[0].len().max(1) as f64).sqrt()
    });
    pairs.sum::<f64>() / (futures.len() - 1).max(1) as f64
}

/// Sums over the noise of a level.
#[derive(Debug, Clone, Default)]
struct Noise {
    count: f64,
    sum: f64,
    square: f64,
    tenths: [f64; 10],
}

impl Noise {
    fn add(&mut self, noise: &Tensor) -> Result<()> {
        for value in host::numbers(noise)? {
            self.count += 1.0;
            self.sum += value;
            self.square += value * value;
            let place = (10.0 * normal::cdf(value)).clamp(0.0, 9.0);
            self.tenths[place as usize] += 1.0;
        }
        Ok(())
    }

    fn finish(self, level: usize) -> Calibration {
        let count = self.count.max(1.0);
        let mean = self.sum / count;
        let deviation = (self.square / count - mean * mean).max(0.0).sqrt();
        Calibration { level, mean, deviation, tenths: self.tenths.map(|n| n / count) }
    }
}
