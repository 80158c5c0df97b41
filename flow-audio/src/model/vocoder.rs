//! A whole model of either family: likelihood, gradients, latents.

use candle_core::{DType, Tensor};
use flow_core::autodiff::pair;
use flow_core::bijector::check_float;
use flow_core::distribution::StandardGaussian;
use flow_core::{Backprop, Bijector, Chain, Density, Error, Flow, FlowRng, Gradients, ParamStore, Result, Scored};

use super::ModelConfig;
use super::flow::unordered;
use super::normed::misshapen;
use super::prediction::{LinearPrediction, Residual};
use super::steps::AnyStep;
use super::synthesis::Synthesizer;
use super::upsample::Upsample;
use crate::mel::Mel;

/// `½ ln 2π`.
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;

/// WaveFlow (Ping et al. 2019, arXiv 1912.01219) or WaveGlow (Prenger et al. 2018, arXiv 1811.00002), as its configuration
/// says: the density of a waveform given its mel spectrogram, `log p(x | c) = log N(z; 0, 1) + log|det ∂z/∂x|`, with `z` from
/// flows over columns of adjacent samples.
///
/// # Shapes
/// - waveform: `(B, T)` in `[-1, 1]`, `T` a multiple of `h`, the samples of a column; mel spectrogram: `(B, M, F)` with
///   `hop·(F - 1) < T ≤ hop·F`; latent: `(B, h, W)` with `W = T / h`, where sample `j h + i` begins in row `i`, column `j`.
///   What leaves a WaveGlow early comes first in its latent.
///
/// With [`Vocoder::with_prediction`] the flows see the errors of a [`LinearPrediction`] in the place of the samples.
///
/// # Example
/// ```
/// use flow_audio::candle_core::{DType, Device};
/// use flow_audio::model::{Vocoder, WaveFlowConfig};
/// use flow_core::{FlowRng, ParamStore};
///
/// # fn main() -> flow_core::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let model = Vocoder::new(&store, &WaveFlowConfig::new(8, 4, 2, 3).into())?;
/// let mut rng = FlowRng::seed_from(1);
/// let mel = rng.normal((1, 80, 2), DType::F32, &Device::Cpu)?;
/// let audio = model.synthesize(&mel, 0.6, &mut rng)?;
/// assert_eq!(audio.dims(), [1, 512]);
/// assert_eq!(model.log_prob(&audio, &mel)?.dims(), [1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Vocoder {
    pub(super) config: ModelConfig,
    pub(super) store: ParamStore,
    pub(super) upsampling: Upsample,
    pub(super) steps: Vec<AnyStep>,
    pub(super) prediction: Option<LinearPrediction>,
}

/// What the flows see of a batch.
struct Operands {
    /// `(B, h, W)`.
    x: Tensor,
    context: Tensor,
    residual: Option<Residual>,
}

impl Operands {
    /// `ln σ` of the errors of prediction, `(B, T)`.
    fn log_scales(&self) -> Option<&Tensor> {
        self.residual.as_ref().map(|residual| &residual.log_scales)
    }
}

/// What [`Vocoder::trim`] keeps, and how much it leaves out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trimmed {
    /// The waveform, `(B, T)`.
    pub audio: Tensor,
    /// The spectrogram, `(B, M, F)`.
    pub mel: Tensor,
    /// Samples that were cut off the end.
    pub samples_dropped: usize,
    /// Frames that were cut off the end.
    pub frames_dropped: usize,
}

impl Vocoder {
    /// A model with parameters `flow{k}.{front, layer{l}.{gate, condition, out}, head}.…` in `store`; a WaveFlow's conditioner
    /// has `upsample{i}.…`, a WaveGlow's `upsample.{weight, bias}`, and its mixings `flow{k}.mix.w`.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that do not fit or names that are taken, [`Error::DType`] for a store of integers.
    pub fn new(store: &ParamStore, config: &ModelConfig) -> Result<Self> {
        config.check()?;
        let root = store.root();
        Ok(Vocoder {
            upsampling: Upsample::new(&root, config)?,
            steps: AnyStep::all(&root, config)?,
            config: config.clone(),
            store: store.clone(),
            prediction: None,
        })
    }

    /// The same model for the errors of a linear prediction instead of the samples themselves: the density is still that of
    /// the waveform.
    ///
    /// # Errors
    /// [`Error::Config`] for a prediction from spectrograms of another hop or number of bands, or where there is one already.
    pub fn with_prediction(self, mut prediction: LinearPrediction) -> Result<Self> {
        let mel = prediction.mel();
        if (mel.hop, mel.mels) != (self.config.hop(), self.config.mels()) {
            let (hop, mels) = (self.config.hop(), self.config.mels());
            let reason = format!(
                "is for {} bands and a hop of {}, the model for {mels} bands and a hop of {hop}",
                mel.mels, mel.hop
            );
            return Err(Error::config("linear prediction", reason));
        }
        prediction.keep_offsets(&self.store.root().pp("prediction"))?;
        Ok(Vocoder { prediction: Some(prediction), ..self })
    }

    /// Lets the prediction, if there is one, learn from recordings and their spectrograms what bands do not say of the spectrum: its
    /// buffer `prediction.offsets`. Once, before training. The samples are those of
    /// [`MelConfig::aligned`](crate::mel::MelConfig::aligned), which may have scaled them.
    ///
    /// # Errors
    /// A recording that cannot be had, or none.
    pub fn calibrate<'a>(&self, clips: impl Iterator<Item = crate::Result<(&'a [f32], Mel)>>) -> crate::Result<()> {
        self.prediction.as_ref().map_or(Ok(()), |prediction| prediction.calibrate(clips))
    }

    /// The prediction whose errors the flows see, if there is one.
    pub fn prediction(&self) -> Option<&LinearPrediction> {
        self.prediction.as_ref()
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// Cuts the ends of a waveform and its spectrogram so that they fit each other and the model.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is less than one column.
    pub fn trim(&self, audio: &Tensor, mel: &Tensor) -> Result<Trimmed> {
        let ((_, samples), (_, _, frames)) = (audio.dims2()?, mel.dims3()?);
        let kept = samples.min(frames * self.config.hop()) / self.config.column() * self.config.column();
        if kept == 0 {
            let expected = format!("at least {} samples and a frame", self.config.column());
            return Err(misshapen("vocoder (waveform)", expected, audio));
        }
        let needed = kept.div_ceil(self.config.hop());
        Ok(Trimmed {
            audio: audio.narrow(1, 0, kept)?,
            mel: mel.narrow(2, 0, needed)?,
            samples_dropped: samples - kept,
            frames_dropped: frames - needed,
        })
    }

    /// Samples that `frames` frames make: `hop·frames`, less what does not fill a column.
    pub fn samples(&self, frames: usize) -> usize {
        frames * self.config.hop() / self.config.column() * self.config.column()
    }

    /// The upsampled spectrogram, `(B, M, hop·F)`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for a spectrogram that does not fit.
    pub fn upsample(&self, mel: &Tensor) -> Result<Tensor> {
        Ok(self.upsampling.forward(mel)?.transpose(1, 2)?)
    }

    /// `log p(x | mel)` of every clip in nats, `(B,)`: the sum over its samples, on the scale of `[-1, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for what does not fit; [`Vocoder::trim`] cuts what is too long.
    pub fn log_prob(&self, audio: &Tensor, mel: &Tensor) -> Result<Tensor> {
        let operands = self.operands(audio, mel)?;
        let log_prob = self.flow(operands.x.dim(2)?)?.log_prob(&operands.x, Some(&operands.context))?;
        less(log_prob, operands.log_scales())
    }

    /// The mean of `log p` over samples, `(B,)`: the paper's unit, nats per sample.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`].
    pub fn log_prob_per_sample(&self, audio: &Tensor, mel: &Tensor) -> Result<Tensor> {
        Ok((self.log_prob(audio, mel)? / audio.dim(1)? as f64)?)
    }

    /// The terms of [`Vocoder::log_prob`], each at the sample whose row and column it belongs to, `(B, T)`: likelihood over
    /// time. The determinant of a WaveGlow's mixing lies evenly on the samples that it mixes.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`].
    pub fn log_prob_by_sample(&self, audio: &Tensor, mel: &Tensor) -> Result<Tensor> {
        let Operands { x: mut z, context, residual } = self.operands(audio, mel)?;
        let mut total: Option<Tensor> = None;
        for step in &self.steps {
            let (next, terms) = step.terms(&z, &context)?;
            total = flow_core::autodiff::add_optional(total, Some(terms))?;
            z = next;
        }
        let gaussian = z.sqr()?.affine(-0.5, -HALF_LN_2PI)?;
        let gaussian = match &self.config {
            ModelConfig::WaveFlow(config) => {
                unordered(&gaussian, config.row_orders().last().map_or(&[], |order| order))?
            }
            ModelConfig::WaveGlow(_) => gaussian,
        };
        let total = flow_core::autodiff::add_optional(total, Some(gaussian))?;
        let line = total.map_or_else(|| Err(Error::config("vocoder", "has no flow")), |total| to_line(&total))?;
        Ok(match residual {
            Some(residual) => (line - residual.log_scales)?,
            None => line,
        })
    }

    /// The latent `(B, h, W)` of waveforms, and `log |det ∂z/∂x|`, `(B,)`.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`].
    pub fn encode(&self, audio: &Tensor, mel: &Tensor) -> Result<(Tensor, Tensor)> {
        let operands = self.operands(audio, mel)?;
        let (z, log_det) = self.chain(operands.x.dim(2)?)?.encode(&operands.x, Some(&operands.context))?;
        Ok((z, less(log_det, operands.log_scales())?))
    }

    /// Gradients of `Σ_b weight_b · log p(x_b | mel_b)`, added to `gradients`; `weight` is `(B,)`, and `-1/(B T)` everywhere
    /// minimises the mean negative log-likelihood per sample.
    ///
    /// [`Backprop::Reversible`] keeps at most each flow's input, `B·T` numbers (of a WaveGlow nothing), and computes one flow's
    /// network again at a time, one clip after the other; [`Backprop::Plain`] keeps all activations and saves a quarter of the work.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`], and [`Error::NonFiniteRow`] naming a clip that holds a number that is not finite.
    pub fn log_prob_backward(
        &self,
        audio: &Tensor,
        mel: &Tensor,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<Scored> {
        let Operands { x, context, residual } = self.operands(&audio.detach(), &mel.detach())?;
        let flow = self.flow(x.dim(2)?)?;
        let scored = flow.log_prob_backward(&x, Some(&context.detach()), weight, mode, gradients)?;
        if let Some(grad) = scored.grad_context.as_ref().filter(|_| context.track_op()) {
            gradients.accumulate(&pair(&context, grad)?.backward()?)?;
        }
        let mut grad_x = to_line(&scored.grad_x)?;
        if let Some(residual) = &residual {
            grad_x = residual.pull_back(&grad_x)?;
        }
        let log_prob = less(scored.log_prob, residual.as_ref().map(|residual| &residual.log_scales))?;
        Ok(Scored { log_prob, grad_x, grad_context: None, ..scored })
    }

    /// The waveform `(B, T)` of a latent `(B, h, W)`.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`].
    pub fn decode(&self, z: &Tensor, mel: &Tensor) -> Result<Tensor> {
        self.synthesizer()?.decode(z, mel)
    }

    /// A waveform `(B, T)` for every spectrogram of `(B, M, F)`, from a latent of deviation `temperature`.
    ///
    /// # Errors
    /// As for [`Vocoder::log_prob`], and [`Error::Config`] for a temperature that is not a number of at least zero.
    pub fn synthesize(&self, mel: &Tensor, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        self.synthesizer()?.synthesize(mel, temperature, rng)
    }

    /// The model with its weights made ready, for many spectrograms.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn synthesizer(&self) -> Result<Synthesizer<'_>> {
        Synthesizer::new(self)
    }

    /// The flows for waveforms of `width` columns.
    pub(super) fn chain(&self, width: usize) -> Result<Chain> {
        Chain::new(self.steps.iter().map(|step| step.at(width)).collect::<Result<_>>()?)
    }

    fn flow(&self, width: usize) -> Result<Flow<Chain, StandardGaussian>> {
        let (dtype, device) = (self.store.dtype(), self.store.device());
        let base = StandardGaussian::new(&[self.config.column(), width], dtype, device);
        Flow::new(&self.store, self.chain(width)?, base)
    }

    /// Rows of the waveform or of what cannot be predicted of it, and the context.
    fn operands(&self, audio: &Tensor, mel: &Tensor) -> Result<Operands> {
        let (h, hop) = (self.config.column(), self.config.hop());
        let &[batch, samples] = audio.dims() else {
            return Err(misshapen("vocoder (waveform)", "(B, T)", audio));
        };
        if samples == 0 || !samples.is_multiple_of(h) {
            let expected = format!("(B, T) with T a multiple of {h}; Vocoder::trim cuts it");
            return Err(misshapen("vocoder (waveform)", expected, audio));
        }
        check_float("vocoder (waveform)", audio)?;
        let frames = samples.div_ceil(hop);
        if mel.dims() != [batch, self.config.mels(), frames] {
            let expected = format!(
                "({batch}, {}, {frames}) for {samples} samples at a hop of {hop}; Vocoder::trim cuts both",
                self.config.mels()
            );
            return Err(misshapen("vocoder (mel)", expected, mel));
        }
        let context = self.context(&self.upsampling.forward(mel)?, samples)?;
        Ok(match &self.prediction {
            None => Operands { x: to_rows(audio, h)?, context, residual: None },
            Some(prediction) => {
                let residual = prediction.residual(audio, mel)?;
                Operands { x: to_rows(&residual.errors, h)?, context, residual: Some(residual) }
            }
        })
    }

    /// The context of the first `samples` of `(B, T…, M)`: a WaveFlow's `(B, h, W, M)`, a WaveGlow's `(B, 1, W, h M)`.
    pub(super) fn context(&self, upsampled: &Tensor, samples: usize) -> Result<Tensor> {
        let (h, (batch, _, mels)) = (self.config.column(), upsampled.dims3()?);
        let known = upsampled.narrow(1, 0, samples)?.contiguous()?;
        Ok(match self.config {
            ModelConfig::WaveFlow(_) => known.reshape((batch, samples / h, h, mels))?.transpose(1, 2)?.contiguous()?,
            ModelConfig::WaveGlow(_) => known.reshape((batch, 1, samples / h, h * mels))?,
        })
    }

    /// Whether parameters are of this type.
    pub(super) fn dtype(&self) -> DType {
        self.store.dtype()
    }
}

/// `(B,)` less the sums of `(B, T)`, if there are any.
fn less(of: Tensor, log_scales: Option<&Tensor>) -> Result<Tensor> {
    Ok(match log_scales {
        Some(log_scales) => (of - log_scales.sum(1)?)?,
        None => of,
    })
}

/// `(B, T)` to `(B, h, W)`: `h` adjacent samples are a column.
pub(super) fn to_rows(line: &Tensor, h: usize) -> Result<Tensor> {
    let (batch, samples) = line.dims2()?;
    Ok(line.contiguous()?.reshape((batch, samples / h, h))?.transpose(1, 2)?.contiguous()?)
}

/// `(B, h, W)` to `(B, T)`.
pub(super) fn to_line(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.transpose(1, 2)?.contiguous()?.flatten_from(1)?)
}
