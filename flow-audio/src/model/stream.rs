//! Synthesis of a spectrogram that comes frame by frame.

use candle_core::Tensor;
use flow_core::distribution::check_temperature;
use flow_core::{Error, FlowRng, Result};

use super::conditioner::{Conditioner, Upsampling, join};
use super::flow::Past;
use super::prediction::{LinearPrediction, Restoring};
use super::steps::AnyStep;
use super::synthesis::{Synthesizer, finite};
use super::upsample::Upsample;
use super::vocoder::to_line;

/// A waveform in pieces, from a spectrogram in pieces of whatever lengths: the same as the whole at once.
///
/// With a linear prediction the piece ends where its last frame has its middle, and the filter's memory is kept as well.
///
/// Each layer of each flow keeps the last `2 d_w` columns of every row of its input, so memory is constant. A piece ends
/// [`Stream::look_ahead`] samples before its last frame does, rounded down to whole columns, since the conditioner sees the
/// next frame from there on; [`Stream::finish`] gives the rest. The flows of a piece are inverted on the CPU, whatever the
/// model's device: row by row they are many small steps.
pub struct Stream<'m> {
    synthesizer: Synthesizer<'m>,
    conditioner: &'m Conditioner,
    upsampling: Upsampling,
    pasts: Vec<Past>,
    restoring: Option<Restoring>,
    /// Context that does not fill a column, `(1, n, M)`.
    rest: Option<Tensor>,
    temperature: f64,
    rng: FlowRng,
}

impl<'m> Synthesizer<'m> {
    /// A stream of a width-causal model; with the generator that [`Synthesizer::synthesize`] is given it makes the same
    /// waveform.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that is not width-causal, or a temperature that is not a number of at least zero.
    pub fn stream(self, temperature: f64, rng: FlowRng) -> Result<Stream<'m>> {
        check_temperature("vocoder", temperature)?;
        let model = self.model;
        let refused = |reason: &str| {
            let reason = format!("{reason}: use decode_chunked, or train a WaveFlow with causal_width");
            Err(Error::config("stream", reason))
        };
        if let Some(reason) = model.config.refuses_streams() {
            return refused(reason);
        }
        let Upsample::Staged(conditioner) = &model.upsampling else { return refused("only a WaveFlow has one") };
        let rows = model.steps.iter().filter_map(|step| match step {
            AnyStep::Rows(step) => Some(Past::new(&step.network.shape(1), model.store.dtype())),
            AnyStep::Groups(_) => None,
        });
        Ok(Stream {
            upsampling: Upsampling::new(conditioner),
            pasts: rows.collect(),
            restoring: model.prediction.as_ref().map(Restoring::new),
            conditioner,
            rest: None,
            temperature,
            rng,
            synthesizer: self,
        })
    }
}

impl Stream<'_> {
    /// Samples by which the waveform lags behind the frames that were given, at most less than a column more.
    pub fn look_ahead(&self) -> usize {
        let prediction = self.synthesizer.model.prediction.as_ref();
        self.conditioner.look_ahead().max(prediction.map_or(0, LinearPrediction::look_ahead))
    }

    /// Numbers that are kept between pieces, besides less than a column of context and the last frames.
    pub fn kept(&self) -> usize {
        self.pasts.iter().map(Past::len).sum()
    }

    /// The samples `(1, n)` that the frames `(1, M, f)` make known; `None` where it is none.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for frames that do not fit.
    pub fn push(&mut self, mel: &Tensor) -> Result<Option<Tensor>> {
        if mel.dims().first() != Some(&1) {
            return Err(super::normed::misshapen("vocoder stream (mel)", "(1, M, F)", mel));
        }
        let model = self.synthesizer.model;
        let _paused = model.store.no_grad();
        // Frames that are refused leave the stream where it was.
        let predictors = model.prediction.as_ref().map(|prediction| prediction.next(mel)).transpose()?;
        let known = self.upsampling.push(self.conditioner, &mel.detach())?;
        if let (Some(predictors), Some(restoring)) = (predictors, &mut self.restoring) {
            restoring.push(predictors);
        }
        let made = self.decode(known)?;
        self.restore(made, false)
    }

    /// The waveform of what linear prediction left of it, where there is one, as far as its frames are known.
    fn restore(&mut self, made: Option<Tensor>, last: bool) -> Result<Option<Tensor>> {
        match &mut self.restoring {
            Some(restoring) => restoring.restore(made, last)?.map(finite).transpose(),
            None => Ok(made),
        }
    }

    /// The rest of the waveform, less what does not fill a column; the stream is then at its end.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn finish(mut self) -> Result<Option<Tensor>> {
        let model = self.synthesizer.model;
        let _paused = model.store.no_grad();
        let known = self.upsampling.finish(self.conditioner)?;
        let made = self.decode(known)?;
        self.restore(made, true)
    }

    fn decode(&mut self, known: Option<Tensor>) -> Result<Option<Tensor>> {
        let Some(known) = join(self.rest.take(), known)? else { return Ok(None) };
        let (h, samples) = (self.synthesizer.model.config.column(), known.dim(1)?);
        let width = samples / h;
        if samples > width * h {
            // A copy, or the whole piece would be kept.
            self.rest = Some(known.narrow(1, width * h, samples - width * h)?.force_contiguous()?);
        }
        if width == 0 {
            return Ok(None);
        }
        let context = self.synthesizer.model.context(&known, width * h)?;
        let z = self.synthesizer.latent(1, width, self.temperature, &mut self.rng)?;
        Ok(Some(to_line(&self.synthesizer.invert(&z, &context, Some(&mut self.pasts))?)?))
    }
}
