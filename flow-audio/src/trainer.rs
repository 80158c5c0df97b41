//! Training a vocoder: what a step computes, what a run is, how a checkpoint becomes a model again.
//!
//! The loop itself is [`flow_core::train::Trainer`]; [`WaveTask`] supplies it with random segments of waveforms and their
//! spectrograms, gradients in nats per sample, validation on held-out clips and previews that can be listened to.

use std::path::Path;

use candle_core::{DType, Device};
use flow_core::numerics::host;
use flow_core::train::{
    self, CursorState, EpochCursor, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Rule, Run, ScheduleConfig,
    Task, TrainConfig,
};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore, Share};
use serde::{Deserialize, Serialize};

use crate::data::{OpenOptions, Segments, Splits};
use crate::io::{Encoding, mel_picture, write_wav};
use crate::mel::{Mel, MelConfig};
use crate::metrics::bits_per_sample;
use crate::model::{LinearPrediction, ModelConfig, Vocoder};
use crate::{Error, Result};

/// Clips at most that a prediction is calibrated with.
const CALIBRATING: usize = 100;

/// The name in logs of the negative log-likelihood on the scale of `[-1, 1]`.
pub const NLL: &str = "nll_nats_per_sample";

/// A training run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveRun {
    /// The model.
    pub model: ModelConfig,
    /// What its spectrograms are computed with; a spectrogram of any other kind is refused.
    pub mel: MelConfig,
    /// Samples that a sample is predicted from by the spectrogram before the flows ([`LinearPrediction`]); none in the papers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<usize>,
    /// Where the clips came from, in words.
    pub source: String,
    /// How files became clips; used again to read other files.
    pub open: OpenOptions,
    /// Samples of a training segment, a multiple of the hop.
    pub segment: usize,
    /// Segments per step.
    pub batch: usize,
    /// The deviation of the latent in previews, and of what is synthesised unless told.
    pub temperature: f64,
    /// How gradients are computed; both ways give the same ones.
    pub backprop: Backprop,
    /// Seed of the parameters and of the order of the segments.
    pub seed: u64,
    /// Held-out segments that a validation looks at.
    pub validation_segments: usize,
}

impl WaveRun {
    /// A run of `model` with spectrograms by `mel`: the paper's batches of 8 segments of 16,000 samples, in whole frames,
    /// temperature 0.6.
    ///
    /// # Errors
    /// [`Error::Core`] when model and spectrogram have different hops or numbers of bands.
    pub fn new(
        model: impl Into<ModelConfig>,
        mel: MelConfig,
        source: &str,
        open: &OpenOptions,
        seed: u64,
    ) -> Result<Self> {
        let run = WaveRun {
            segment: (16_000 / mel.hop.max(1)).max(1) * mel.hop,
            model: model.into(),
            mel,
            prediction: None,
            source: source.to_string(),
            open: open.clone(),
            batch: 8,
            temperature: 0.6,
            backprop: Backprop::default(),
            seed,
            validation_segments: 32,
        };
        run.check().map(|()| run)
    }

    /// Whether model, spectrogram and segments fit each other.
    fn check(&self) -> Result<()> {
        self.model.check()?;
        self.mel.check()?;
        self.model.check_hop(self.mel.hop)?;
        if self.model.mels() != self.mel.mels {
            let reason = format!("{}, the spectrograms have {} bands", self.model.mels(), self.mel.mels);
            return Err(Error::config("bands of the model", reason));
        }
        if self.segment == 0 || !self.segment.is_multiple_of(self.model.column()) || self.batch == 0 {
            let (segment, column) = (self.segment, self.model.column());
            let reason =
                format!("{} of {segment} samples; a multiple of the model's columns of {column} is needed", self.batch);
            return Err(Error::config("training segments", reason));
        }
        Ok(())
    }
}

impl Run for WaveRun {
    type Model = Vocoder;
    type Error = Error;
    const DESCRIBES: &'static str = "a vocoder";

    fn build(&self, device: &Device) -> Result<Vocoder> {
        self.check()?;
        let model = Vocoder::new(&ParamStore::new(self.seed, DType::F32, device), &self.model)?;
        Ok(match self.prediction {
            Some(order) => model.with_prediction(LinearPrediction::new(order, &self.mel)?)?,
            None => model,
        })
    }
}

impl train::Model for Vocoder {
    fn store(&self) -> &ParamStore {
        Vocoder::store(self)
    }
}

/// The engine's configuration of `steps` steps: Adam at a constant 2e-4, as in the authors' training, with a short warm-up and
/// gradients of norm 5 at most.
pub fn train_config(steps: u64, seed: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig {
            rule: Rule::Adam,
            learning_rate: 2e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        },
        schedule: ScheduleConfig::constant(50.min(steps / 2)),
        clip_norm: Some(5.0),
        seed,
        ..TrainConfig::default()
    }
}

/// A [`Vocoder`] with its data, as the training engine sees it.
pub struct WaveTask {
    run: WaveRun,
    model: Vocoder,
    splits: Splits,
    train: Segments,
    validation: Segments,
    cursor: EpochCursor,
    ranks: Ranks,
}

impl WaveTask {
    /// Builds the model of `run` for the clips of `splits`.
    ///
    /// # Errors
    /// Clips of another rate than the run's, fewer segments than a batch, or a model that does not fit.
    pub fn new(run: WaveRun, splits: Splits, device: &Device) -> Result<Self> {
        let model = run.build(device)?;
        let train = Segments::new(&splits.train, &run.mel, run.segment)?;
        let held_out = if splits.validation.is_empty() { &splits.train } else { &splits.validation };
        let validation = Segments::new(held_out, &run.mel, run.segment)?;
        if train.len() < run.batch {
            let reason =
                format!("{} of the {} segments that the clips hold; --batch-size takes fewer", run.batch, train.len());
            return Err(Error::config("training batch", reason));
        }
        let cursor = EpochCursor::new(train.len(), run.batch, run.seed)?;
        Ok(WaveTask { run, model, splits, train, validation, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &Vocoder {
        &self.model
    }

    /// The data.
    pub fn splits(&self) -> &Splits {
        &self.splits
    }

    /// What is too short for a segment.
    pub fn notes(&self) -> Vec<&str> {
        self.train.notes().iter().chain(self.validation.notes()).map(String::as_str).collect()
    }
}

/// Log-likelihoods in nats per sample of the first `count` whole segments, each scored by itself; noise of dequantization
/// comes from `rng`.
///
/// # Errors
/// No segment, and those of [`Vocoder::log_prob`].
pub fn log_prob_of(model: &Vocoder, set: &Segments, count: usize, rng: &mut FlowRng) -> Result<Vec<f64>> {
    log_prob_of_share(model, set, Share::whole(count.min(set.len())), rng)
}

/// As [`log_prob_of`], of a share of the first segments. Given a generator for rows ([`FlowRng::for_rows`]), a segment has
/// the noise that it has in any other share.
///
/// # Errors
/// As [`log_prob_of`].
fn log_prob_of_share(model: &Vocoder, set: &Segments, share: Share, rng: &mut FlowRng) -> Result<Vec<f64>> {
    let _paused = model.store().no_grad();
    if set.is_empty() || share.is_empty() {
        return Err(Error::config("likelihood", "there is no segment to score"));
    }
    let one = |one: Share| -> Result<f64> {
        let device = model.store().device();
        let batch = rng.at_rows(one, |rng| set.fixed(&[one.first], Some(rng), device))?;
        let nats = model.log_prob_per_sample(&batch.audio, &batch.mel)?;
        Ok(host::sum(&nats)?)
    };
    share.parts(1).map(one).collect()
}

/// Log-likelihood over time of a whole clip up to its last whole frame: the mean over each frame's samples of their terms
/// ([`Vocoder::log_prob_by_sample`]), in nats per sample; noise of dequantization comes from `rng`.
///
/// # Errors
/// A clip beyond the end, a hop that is no multiple of a column's samples, and those of [`Vocoder::log_prob`].
pub fn log_prob_over_time(model: &Vocoder, set: &Segments, clip: usize, rng: &mut FlowRng) -> Result<Vec<f64>> {
    let _paused = model.store().no_grad();
    let batch = set.whole_batch(clip, Some(rng), model.store().device())?;
    let terms = model.log_prob_by_sample(&batch.audio, &batch.mel)?;
    let frames = terms.dim(1)? / set.config().hop;
    Ok(host::wide(&terms)?.reshape((frames, set.config().hop))?.mean(1)?.to_vec1()?)
}

/// The waveform of a spectrogram, as numbers.
///
/// # Errors
/// A spectrogram of another kind than the run's, named by what differs, and those of [`Vocoder::synthesize`].
pub fn synthesize(run: &WaveRun, model: &Vocoder, mel: &Mel, temperature: f64, rng: &mut FlowRng) -> Result<Vec<f32>> {
    mel.expect(&run.mel, "spectrogram")?;
    let mel = mel.tensor(model.store().device())?;
    let audio = model.synthesize(&mel, temperature, rng)?;
    Ok(audio.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

fn metrics(nll: f64) -> Metrics {
    Metrics::new(Metric::new(NLL, "nats/sample", nll)).with(Metric::new(
        "bits",
        "bits/16-bit sample",
        bits_per_sample(-nll, 16),
    ))
}

impl Task for WaveTask {
    type Run = WaveRun;
    type Position = CursorState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &WaveRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.splits.fingerprint())
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, _rng: &mut FlowRng) -> Result<()> {
        let clip = |clip: usize| self.train.whole(clip).map(|(_, samples, mel)| (samples, mel));
        // From all over the data, which may be in the order of speakers.
        let stride = self.train.clips().div_ceil(CALIBRATING).max(1);
        self.model.calibrate((0..self.train.clips()).step_by(stride).map(clip))
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let device = self.model.store().device().clone();
        let places = self.cursor.next_batch();
        let share = self.ranks.share(places.indices.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let places = &places.indices[share.range()];
        let batch = self.train.random(places, true, &mut rng.for_rows(share), &device)?;
        let (rows, samples) = batch.audio.dims2()?;
        let each = -1.0 / (rows * samples) as f64;
        let weight = host::full(each, rows, batch.audio.dtype(), &device)?;
        gradients.weigh(share.count as f64);
        let scored = self.model.log_prob_backward(&batch.audio, &batch.mel, &weight, self.run.backprop, gradients)?;
        let total = host::sum(&scored.log_prob)?;
        Ok(metrics(each * total).over(share.count as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let share = self.ranks.share(self.run.validation_segments.min(self.validation.len()));
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let nats = log_prob_of_share(&self.model, &self.validation, share, &mut rng.for_rows(share))?;
        Ok(metrics(-nats.iter().sum::<f64>() / nats.len() as f64).over(nats.len() as f64))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch * self.run.segment
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> Result<()> {
        let (_, _, mel) = self.validation.whole(0)?;
        let audio = synthesize(&self.run, &self.model, &mel, self.run.temperature, rng)?;
        // Floats: an early model's copies go far beyond ±1, and there is nobody to be told how much would be cut off.
        let _ = write_wav(&folder.join(format!("copy-{step:08}.wav")), &audio, self.run.mel.rate, Encoding::Float32)?;
        mel_picture(&self.run.mel.spectrogram(&audio)?, 2)?.write_png(&folder.join(format!("copy-{step:08}.png")))
    }
}
