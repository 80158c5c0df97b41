//! From latents to waveforms: at once, in overlapping chunks, or as a stream.

use candle_core::Tensor;
use flow_core::bijector::{check_dtype, first_non_finite_row};
use flow_core::distribution::check_temperature;
use flow_core::numerics::host;
use flow_core::{Error, FlowRng, Result};

use super::Vocoder;
use super::flow::Past;
use super::normed::misshapen;
use super::steps::Prepared;
use super::vocoder::to_line;

/// A model whose weights are made ready for synthesis: folded and packed once.
///
/// Each flow of a WaveGlow is inverted at once. Each flow of a WaveFlow is inverted row by row, `h - 1` small steps whatever the length (Ping et al. 2019, section 3.3). A layer keeps
/// the `2 d_h + 1` rows of its input that later rows see (convolution queues), so no row is computed twice; the batch is one.
pub struct Synthesizer<'m> {
    pub(super) model: &'m Vocoder,
    pub(super) prepared: Vec<Prepared>,
}

impl<'m> Synthesizer<'m> {
    pub(super) fn new(model: &'m Vocoder) -> Result<Self> {
        let _paused = model.store.no_grad();
        let prepared = model.steps.iter().map(|step| step.prepare()).collect::<Result<_>>()?;
        Ok(Synthesizer { model, prepared })
    }

    /// The waveform `(B, T)` of a latent `(B, h, W)`.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`], and [`Error::NonFinite`] for a waveform with a number that is not finite.
    pub fn decode(&self, z: &Tensor, mel: &Tensor) -> Result<Tensor> {
        self.restore(self.decode_flows(z, mel)?, mel)
    }

    /// What the flows make of a latent: the waveform, or what linear prediction left of it.
    fn decode_flows(&self, z: &Tensor, mel: &Tensor) -> Result<Tensor> {
        let (config, samples) = (&self.model.config, self.samples(z)?);
        let frames = samples.div_ceil(config.hop());
        if mel.dims() != [z.dim(0)?, config.mels(), frames] {
            let expected = format!("({}, {}, {frames}) for {samples} samples", z.dim(0)?, config.mels());
            return Err(misshapen("vocoder (mel)", expected, mel));
        }
        let _paused = self.model.store.no_grad();
        self.flows_upsampled(z, &self.model.upsample(mel)?)
    }

    /// The waveform of what linear prediction left of it, where there is one.
    fn restore(&self, made: Tensor, mel: &Tensor) -> Result<Tensor> {
        match &self.model.prediction {
            Some(prediction) => finite(prediction.restore(&made, &mel.detach())?),
            None => Ok(made),
        }
    }

    /// The same for a spectrogram that is upsampled already, `(B, M, n)` with `n ≥ T`, of which the first `T` are used.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`], and [`Error::Config`] for a model with a linear prediction, which needs the frames.
    pub fn decode_upsampled(&self, z: &Tensor, upsampled: &Tensor) -> Result<Tensor> {
        if self.model.prediction.is_some() {
            return Err(Error::config("linear prediction", "needs the frames themselves: use decode"));
        }
        self.flows_upsampled(z, upsampled)
    }

    fn flows_upsampled(&self, z: &Tensor, upsampled: &Tensor) -> Result<Tensor> {
        let (config, samples) = (&self.model.config, self.samples(z)?);
        let fits = matches!(upsampled.dims(), &[b, m, n] if b == z.dims()[0] && m == config.mels() && n >= samples);
        if !fits {
            let expected = format!("({}, {}, n) with n at least {samples}", z.dims()[0], config.mels());
            return Err(misshapen("vocoder (upsampled mel)", expected, upsampled));
        }
        check_dtype("vocoder (upsampled mel)", upsampled, self.model.dtype())?;
        let _paused = self.model.store.no_grad();
        let context = self.model.context(&upsampled.detach().transpose(1, 2)?, samples)?;
        to_line(&self.invert(&z.detach(), &context, None)?)
    }

    /// A waveform `(B, T)` for every spectrogram of `(B, M, F)`, from a latent of deviation `temperature`.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`], and [`Error::Config`] for a temperature that is not a number of at least zero.
    pub fn synthesize(&self, mel: &Tensor, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        let (batch, _, frames) = mel.dims3()?;
        let width = self.model.samples(frames) / self.model.config.column();
        if width == 0 {
            return Err(misshapen("vocoder (mel)", "frames that fill a column", mel));
        }
        self.decode(&self.latent(batch, width, temperature, rng)?, mel)
    }

    /// A latent of deviation `temperature`, `(B, h, W)`, drawn column by column: the same numbers for a stream as for the
    /// whole.
    ///
    /// # Errors
    /// [`Error::Config`] for a temperature that is not a number of at least zero.
    pub fn latent(&self, batch: usize, width: usize, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature("vocoder", temperature)?;
        let (store, h) = (&self.model.store, self.model.config.column());
        let noise = rng.normal((batch, width, h), store.dtype(), store.device())?.affine(temperature, 0.0)?;
        Ok(noise.transpose(1, 2)?.contiguous()?)
    }

    /// Inverts all flows; `pasts`, one for each, make `z` the continuation of what was inverted before.
    pub(super) fn invert(&self, z: &Tensor, context: &Tensor, mut pasts: Option<&mut [Past]>) -> Result<Tensor> {
        let mut x = z.clone();
        for (k, (step, prepared)) in self.model.steps.iter().zip(&self.prepared).enumerate().rev() {
            let past = pasts.as_deref_mut().and_then(|pasts| pasts.get_mut(k));
            x = step.decode_with(prepared, &x, context, past)?;
        }
        finite(x)
    }

    /// `T` of a latent that fits the model.
    fn samples(&self, z: &Tensor) -> Result<usize> {
        let h = self.model.config.column();
        match z.dims() {
            &[_, rows, width] if rows == h && width > 0 => {
                check_dtype("vocoder (latent)", z, self.model.dtype())?;
                Ok(h * width)
            }
            _ => Err(misshapen("vocoder (latent)", format!("(B, {h}, W)"), z)),
        }
    }

    /// [`Synthesizer::decode`] in chunks of `frames` frames, each computed with `overlap` frames more on both sides and
    /// joined to the next by a linear cross-fade over `overlap` frames about the cut.
    ///
    /// The papers' models see later columns, row after row or flow after flow further ones, so this is an approximation whose quality
    /// [`signal_to_noise`](crate::metrics::signal_to_noise) against the whole pass tells; memory grows with the chunk alone. A width-causal model has an exact
    /// stream.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`]; [`Error::Config`] when a chunk is empty or shorter than the overlap, or the hop is no
    /// multiple of a column's samples.
    pub fn decode_chunked(&self, z: &Tensor, mel: &Tensor, frames: usize, overlap: usize) -> Result<Tensor> {
        let config = &self.model.config;
        let (hop, h, (batch, _, all)) = (config.hop(), config.column(), mel.dims3()?);
        if frames == 0 || overlap > frames {
            let reason = format!("must have at least one frame and no fewer than the overlap {overlap}, not {frames}");
            return Err(Error::config("chunk", reason));
        }
        if !hop.is_multiple_of(h) {
            return Err(Error::config("chunk", format!("the hop {hop} is no multiple of the {h} samples of a column")));
        }
        if z.dims() != [batch, h, all * hop / h] {
            return Err(misshapen("vocoder (latent)", format!("({batch}, {h}, {})", all * hop / h), z));
        }
        let mut out: Option<Tensor> = None;
        for start in (0..all).step_by(frames) {
            let (from, end) = (start.saturating_sub(overlap), (start + frames).min(all));
            let to = (end + overlap).min(all);
            let columns = z.narrow(2, from * hop / h, (to - from) * hop / h)?;
            let made = self.decode_flows(&columns.contiguous()?, &mel.narrow(2, from, to - from)?.contiguous()?)?;
            // This chunk's samples from half a fade before its cut; the last one has no cut after it.
            let half = overlap * hop / 2;
            let first = if start == 0 { 0 } else { start * hop - half };
            let last = if end == all { all * hop } else { (end * hop + half).min(all * hop) };
            let made = made.narrow(1, first - from * hop, last - first)?;
            out = Some(match out {
                None => made,
                Some(before) => fade(&before, &made, before.dim(1)? - first)?,
            });
        }
        let made = out.ok_or_else(|| misshapen("vocoder (mel)", "at least one frame", mel))?;
        self.restore(made, mel)
    }
}

/// The tensor, if all of it is finite.
pub(super) fn finite(made: Tensor) -> Result<Tensor> {
    if first_non_finite_row(&made)?.is_some() {
        return Err(Error::NonFinite { layer: "vocoder".into(), what: "sample".into(), step: None });
    }
    Ok(made)
}

/// Joins two stretches whose end and beginning overlap by `shared` samples.
fn fade(before: &Tensor, after: &Tensor, shared: usize) -> Result<Tensor> {
    let (kept, rest) = (before.dim(1)? - shared, after.dim(1)? - shared);
    let rising: Vec<f64> = (0..shared).map(|i| (i as f64 + 0.5) / shared as f64).collect();
    let rising = host::tensor_like(&rising, shared, after)?;
    let falling = rising.affine(-1.0, 1.0)?;
    let old = before.narrow(1, kept, shared)?.broadcast_mul(&falling)?;
    let mixed = (old + after.narrow(1, 0, shared)?.broadcast_mul(&rising)?)?;
    Ok(Tensor::cat(&[&before.narrow(1, 0, kept)?, &mixed, &after.narrow(1, shared, rest)?], 1)?)
}
