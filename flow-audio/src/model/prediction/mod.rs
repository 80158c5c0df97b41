//! Linear prediction from the spectrogram: what the mel spectrogram says about a sample's past, before any flow.

mod lattice;
mod spectrum;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{Shape, Tensor};
use flow_core::bijector::check_float;
use flow_core::kernels::{Fused, Real, fuse_on_host};
use flow_core::numerics::host;
use flow_core::{Error, Param, ParamPath, Result};
use rayon::prelude::*;

use super::normed::misshapen;
use crate::mel::{Convention, Mel, MelConfig};
use lattice::{Frames, Lattice, transpose};
use spectrum::{Predictors, Spectrum};

/// A waveform as the errors of its linear prediction, `e_n = (x_n + Σ_{m ≤ p} a_m(n) x_{n-m}) / σ(n)`, where coefficients and
/// deviation come from the mel spectrogram alone: `ln |det ∂e/∂x| = -Σ_n ln σ(n)`.
///
/// A frame's bands are read as the power spectrum of a stationary Gaussian process, on straight lines between them in
/// logarithms. Levinson's recursion gives the process's best predictors of all orders as reflection coefficients, which are
/// mixed between frames and applied as a normalized lattice filter: its inverse is exact whatever the coefficients, and it makes of white noise
/// a sound of the frames' levels however they change. The first samples of a clip are predicted from as many as there are before them.
/// With it a flow begins at the likelihood of that process, with the colour of the sound, its level and, where bands are
/// narrow enough, its harmonics in place; it is left to learn what is not Gaussian and not in the spectrogram. Neither
/// WaveFlow's paper nor WaveGlow's has it. By how much each bin differs from its bands, those beyond the highest band above all, is
/// found once from the recordings of training ([`Vocoder::calibrate`](super::Vocoder::calibrate)); nothing else is learned, and there is no
/// gradient for the spectrogram.
///
/// Sources: Kolmogorov 1941 and Szegő for the error of prediction and the spectrum; Markel and Gray, "Linear Prediction of
/// Speech" (1976), chapters 3 and 5, for the lattice and its coefficients, normalized as in Gray and Markel (1975); Valin and Skoglund, LPCNet (2019, arXiv
/// 1810.11846), section 3.1, for prediction from bands of a spectrum.
///
/// # Shapes
/// - waveform and errors `(B, T)`, mel spectrogram `(B, M, F)` with `F > 0`. Sample `n` lies between the frames whose windows
///   have their middles before and after it; before the first and behind the last that frame's own predictors hold.
///
/// It is computed on the CPU in f64, whatever the tensors' type and device.
pub struct LinearPrediction {
    order: usize,
    mel: MelConfig,
    spectrum: Spectrum,
    /// What bands do not say of each bin's power, in logarithms, `(N/2 + 1,)`.
    offsets: Option<Param>,
}

/// Frames that calibration looks at, and the most of one recording: some minutes of speech, of many places.
const ENOUGH: usize = 20_000;
const PER_CLIP: usize = 200;

/// The errors of prediction.
pub(super) struct Residual {
    /// `e`, `(B, T)`, in the waveform's graph.
    pub errors: Tensor,
    /// `ln σ`, `(B, T)`.
    pub log_scales: Tensor,
    clips: Arc<Vec<Frames>>,
}

impl Residual {
    /// The gradient of the waveforms for that of their errors.
    pub fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        let mut numbers = host::numbers(gradient)?;
        let rows = numbers.par_chunks_mut(gradient.dim(1)?.max(1));
        self.clips.par_iter().zip(rows).for_each(|(frames, gradient)| transpose(frames, gradient));
        host::tensor_like(&numbers, gradient.shape(), gradient)
    }
}

impl std::fmt::Debug for LinearPrediction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearPrediction").field("order", &self.order).field("mel", &self.mel).finish_non_exhaustive()
    }
}

impl LinearPrediction {
    /// Prediction from `order` samples, for spectrograms by `mel`.
    ///
    /// # Errors
    /// [`Error::Config`] for an order of zero or beyond half the transform, and a spectrogram that is none.
    pub fn new(order: usize, mel: &MelConfig) -> Result<Self> {
        mel.check().map_err(|error| Error::config("linear prediction", error.to_string()))?;
        let most = mel.fft / 2;
        if !(1..=most).contains(&order) {
            let reason = format!("must be from 1 to {most} samples, half the spectrogram's transform, not {order}");
            return Err(Error::config("order of linear prediction", reason));
        }
        Ok(LinearPrediction { order, mel: *mel, spectrum: Spectrum::new(order, mel), offsets: None })
    }

    /// `p`, the samples that a sample is predicted from.
    pub fn order(&self) -> usize {
        self.order
    }

    /// What its spectrograms are computed with.
    pub fn mel(&self) -> &MelConfig {
        &self.mel
    }

    /// Samples by which what is known of a waveform lags behind the frames that are known.
    pub(super) fn look_ahead(&self) -> usize {
        self.mel.hop - 1 - self.centre().min(self.mel.hop - 1)
    }

    /// The sample about which the first frame lies.
    fn centre(&self) -> usize {
        match self.mel.convention {
            Convention::Tacotron2 => 0,
            Convention::HifiGan | Convention::Parakeet => self.mel.hop / 2,
        }
    }

    /// The scaled errors of waveforms.
    pub(super) fn residual(&self, audio: &Tensor, mel: &Tensor) -> Result<Residual> {
        if mel.track_op() {
            // The flows' part of it would be taken for the whole.
            return Err(Error::config("linear prediction", "has no gradient for the spectrogram: detach it"));
        }
        let clips = Arc::new(self.clips(audio, mel)?);
        let (batch, samples) = audio.dims2()?;
        let log_scales: Vec<f64> =
            clips.par_iter().map(|frames| frames.log_scales(samples)).collect::<Vec<_>>().concat();
        let log_scales = host::tensor_like(&log_scales, (batch, samples), audio)?;
        let errors = fuse_on_host(Analysis { clips: clips.clone(), samples }, [&audio.contiguous()?])?;
        Ok(Residual { errors, log_scales, clips })
    }

    /// The waveforms of scaled errors.
    pub(super) fn restore(&self, errors: &Tensor, mel: &Tensor) -> Result<Tensor> {
        let clips = self.clips(errors, mel)?;
        let (batch, samples) = errors.dims2()?;
        let numbers = host::numbers(errors)?;
        let one = |(frames, errors): (&Frames, &[f64])| {
            let mut lattice = Lattice::new(self.order);
            errors.iter().map(|&error| lattice.synthesise(frames, error)).collect::<Vec<_>>()
        };
        let audio: Vec<Vec<f64>> = clips.par_iter().zip(numbers.par_chunks(samples.max(1))).map(one).collect();
        host::tensor_like(&audio.concat(), (batch, samples), errors)
    }

    /// The predictors of every clip of a batch.
    fn clips(&self, line: &Tensor, mel: &Tensor) -> Result<Vec<Frames>> {
        check_float("linear prediction (waveform)", line)?;
        let batch = line.dims2()?.0;
        let frames = match mel.dims() {
            &[b, mels, frames] if b == batch && mels == self.mel.mels && frames > 0 => frames,
            _ => {
                let expected = format!("({batch}, {}, F) with F > 0", self.mel.mels);
                return Err(misshapen("linear prediction (mel)", expected, mel));
            }
        };
        let numbers = host::numbers(&mel.transpose(1, 2)?)?;
        let offsets = self.offsets()?;
        let one = |clip: &[f64]| {
            let mut all = Frames::new(self.order, self.mel.hop, self.centre());
            self.predictors(clip, &offsets)?.into_iter().for_each(|frame| all.push(frame));
            Ok(all)
        };
        numbers.par_chunks(self.mel.mels * frames).map(one).collect()
    }

    /// The predictors of frames of `M` numbers each.
    fn predictors(&self, numbers: &[f64], offsets: &[f64]) -> Result<Vec<Predictors>> {
        numbers.chunks_exact(self.mel.mels).map(|frame| self.spectrum.predictors(frame, offsets)).collect()
    }

    /// The predictors of the next frames `(1, M, f)` of a stream.
    pub(super) fn next(&self, mel: &Tensor) -> Result<Vec<Predictors>> {
        if mel.dims3()?.1 != self.mel.mels {
            return Err(misshapen("linear prediction (mel)", format!("(1, {}, F)", self.mel.mels), mel));
        }
        self.predictors(&host::numbers(&mel.transpose(1, 2)?)?, &self.offsets()?)
    }

    /// What [`LinearPrediction::calibrate`] has found; nothing before.
    fn offsets(&self) -> Result<Vec<f64>> {
        self.offsets.as_ref().map_or(Ok(Vec::new()), |offsets| host::numbers(&offsets.tensor()))
    }

    /// Gives it a place for its offsets in a model's store.
    pub(super) fn keep_offsets(&mut self, path: &ParamPath) -> Result<()> {
        let bins = self.mel.fft / 2 + 1;
        self.offsets =
            Some(path.buffer("offsets", &Tensor::zeros(bins, path.store().dtype(), path.store().device())?)?);
        Ok(())
    }

    /// Learns from recordings and their spectrograms by how much the power of each bin differs from what bands say of it, in the
    /// mean of the logarithms: beyond the highest band they say nothing.
    ///
    /// The quieter half of the frames is not counted, since bands have a floor. Of each recording the first two hundred frames are
    /// looked at, until there are twenty thousand.
    ///
    /// # Errors
    /// A recording that cannot be had, or no frame at all.
    pub(super) fn calibrate<'a>(
        &self,
        clips: impl Iterator<Item = crate::Result<(&'a [f32], Mel)>>,
    ) -> crate::Result<()> {
        let Some(offsets) = &self.offsets else { return Ok(()) };
        let (stft, bins) = (self.mel.stft()?, self.mel.fft / 2 + 1);
        let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
        for clip in clips {
            let (samples, mel) = clip?;
            // A transform more than is looked at, whose end is not the recording's.
            let samples = &samples[..samples.len().min(PER_CLIP * self.mel.hop + self.mel.fft)];
            if samples.len() <= self.mel.padding() {
                continue;
            }
            let spectrum = stft.forward(samples)?;
            for (frame, powers) in (0..mel.frames().min(PER_CLIP)).zip(spectrum.values.chunks_exact(bins)) {
                let said = mel.frame(frame).iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
                let loudest = said.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                found.push((loudest, self.spectrum.differences(&said, powers)));
            }
            if found.len() >= ENOUGH {
                break;
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let loud = &found[found.len() / 2..];
        if loud.is_empty() {
            return Err(crate::Error::config("linear prediction", "there is no frame to learn from"));
        }
        let mean = |bin: usize| loud.iter().map(|(_, all)| all[bin]).sum::<f64>() / loud.len() as f64;
        let means: Vec<f64> = (0..bins).map(mean).collect();
        Ok(offsets.set(&host::tensor_like(&means, bins, &offsets.tensor())?)?)
    }
}

/// The matrix of prediction, clip by clip.
struct Analysis {
    clips: Arc<Vec<Frames>>,
    samples: usize,
}

impl Fused<1> for Analysis {
    fn name(&self) -> &'static str {
        "linear prediction"
    }

    fn shape(&self) -> Shape {
        (self.clips.len(), self.samples).into()
    }

    fn forward<T: Real>(&self, [audio]: [&[T]; 1]) -> candle_core::Result<Vec<T>> {
        let one = |(frames, audio): (&Frames, &[T])| {
            let mut lattice = Lattice::new(frames.order);
            audio.iter().map(|x| T::from_f64(lattice.analyse(frames, x.to_f64()))).collect::<Vec<_>>()
        };
        let rows = self.clips.par_iter().zip(audio.par_chunks(self.samples.max(1)));
        Ok(rows.map(one).collect::<Vec<_>>().concat())
    }

    fn backward<T: Real>(&self, _: [&[T]; 1], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 1]> {
        let one = |(frames, grad): (&Frames, &[T])| {
            let mut row: Vec<f64> = grad.iter().map(|g| g.to_f64()).collect();
            transpose(frames, &mut row);
            row.into_iter().map(T::from_f64).collect::<Vec<_>>()
        };
        let rows = self.clips.par_iter().zip(grad.par_chunks(self.samples.max(1)));
        Ok([Some(rows.map(one).collect::<Vec<_>>().concat())])
    }
}

/// Restores a waveform whose errors and frames come little by little.
pub(super) struct Restoring {
    frames: Frames,
    lattice: Lattice,
    /// Errors whose predictors are not known yet.
    waiting: Vec<f64>,
    /// One of them, of their type and on their device.
    like: Option<Tensor>,
}

impl Restoring {
    pub fn new(prediction: &LinearPrediction) -> Self {
        let LinearPrediction { order, mel, .. } = prediction;
        Restoring {
            frames: Frames::new(*order, mel.hop, prediction.centre()),
            lattice: Lattice::new(*order),
            waiting: Vec::new(),
            like: None,
        }
    }

    /// Takes the next frames.
    pub fn push(&mut self, frames: Vec<Predictors>) {
        frames.into_iter().for_each(|frame| self.frames.push(frame));
    }

    /// The samples `(1, n)` that the errors so far make known; all of them if no frame is to come.
    pub fn restore(&mut self, errors: Option<Tensor>, last: bool) -> Result<Option<Tensor>> {
        if let Some(errors) = errors {
            self.waiting.extend(host::numbers(&errors)?);
            self.like = Some(errors.narrow(1, 0, 1)?.force_contiguous()?);
        }
        let known = if last { usize::MAX } else { self.frames.known() };
        let count = known.saturating_sub(self.lattice.sample()).min(self.waiting.len());
        let Some(like) = self.like.as_ref().filter(|_| count > 0) else { return Ok(None) };
        let made: Vec<f64> =
            self.waiting.drain(..count).map(|error| self.lattice.synthesise(&self.frames, error)).collect();
        self.frames.forget_before(self.lattice.sample());
        Ok(Some(host::tensor_like(&made, (1, count), like)?))
    }
}
