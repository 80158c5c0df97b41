//! `waveflow train`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use flow_audio::data::{self, OpenOptions, Segments, Splits};
use flow_audio::io::{Encoding, mel_picture, write_wav};
use flow_audio::mel::{Convention, MelConfig};
use flow_audio::metrics::bits_per_sample;
use flow_audio::model::{ModelConfig, PRESETS, WaveFlowConfig};
use flow_audio::trainer::{NLL, WaveRun, WaveTask, log_prob_of, synthesize, train_config};
use flow_core::FlowRng;
use flow_core::numerics::{mean_and_error, plus_minus};
use flow_core::train::{EmaConfig, ScheduleConfig, Summary, TrainConfig};

use super::common::ReadingArg;
use super::info::{spectrogram, words};
use crate::cli::{ConvolutionsArg, counted, described};
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, RunArg, Trained};

/// Steps of a run without --data, unless told, and of any other.
const DEMO_STEPS: u64 = 3400;
const STEPS: u64 = 100_000;
/// Steps between validations and checkpoints of the demonstration, and of other runs.
const DEMO_EVERY: u64 = 250;
const EVERY: u64 = 500;
/// Samples of a segment of the demonstration, and segments of a step.
const DEMO_SEGMENT: usize = 512;
const DEMO_BATCH: usize = 2;
/// Samples that it predicts a sample from.
const DEMO_PREDICTION: usize = 128;
/// Its highest learning rate.
const DEMO_RATE: f64 = 0.012;
/// Segments of the report at the end.
const REPORT: usize = 32;

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Leaves checkpoints, log.jsonl, loss.png, and a copy of the first test clip as WAV with its spectrogram. At the end it prints the
likelihood of held-out clips. A run that was stopped goes on with --resume and, if it was given, --out.

Examples:
  waveflow train
  waveflow train --data LJSpeech-1.1/ --model waveflow-h16-c64 --out runs/lj
  waveflow train --data speech/ --mel speech-8k --model waveflow-h16-c32 --minutes 120 --out runs/digits
  waveflow train --data speech/ --mel speech-16k --model waveglow-c64 --out runs/glow
  waveflow train --resume --out runs/lj",
    mut_arg("steps", default_is("3400 without --data, else 100000")),
    mut_arg("batch_size", |arg| arg.help("Segments per step [default: 8; 2 without --data]")),
    mut_arg("learning_rate", default_is("0.0002; 0.012 without --data")),
    mut_arg("warmup", default_is("50, at most half of the run")),
    mut_arg("schedule", default_is("constant; cosine without --data")),
    mut_arg("ema", default_is("0; 0.99 without --data")),
    mut_arg("clip", default_is("5")),
    mut_arg("validate_every", default_is("500; 250 without --data")),
    mut_arg("checkpoint_every", default_is("500; 250 without --data"))
)]
pub(super) struct TrainArgs {
    /// Clips: WAV, FLAC, OGG or MP3, a folder of them, LJSpeech's folder, or "voices" (synthesised here)
    #[arg(long, default_value = "voices", value_name = "PATH")]
    data: PathBuf,
    /// Preset, see `waveflow info --presets` [default: waveflow-h16-c64; a smaller one without --data]
    #[arg(long, value_parser = PRESETS)]
    model: Option<String>,
    /// Hyper-parameters from a JSON file instead; `waveflow info --presets --json` shows their names
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Spectrogram: tacotron2, hifi-gan or parakeet (22,050 Hz), speech-16k, speech-8k [default: by the rate of the clips]
    #[arg(long, value_name = "NAME")]
    mel: Option<String>,
    /// Predict each sample from so many before it, by what the spectrogram says, and model the errors: beyond the papers, and a
    /// far better start; 0 for none [default: 0; 128 without --data]
    #[arg(long, value_name = "SAMPLES")]
    prediction: Option<usize>,
    /// Samples of a training segment, rounded down to whole frames [default: 16000; 512 without --data]
    #[arg(long, value_name = "SAMPLES")]
    segment: Option<usize>,
    /// Folder for checkpoints, log, copies
    #[arg(long, default_value = "flow-out/waveflow", value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    reading: ReadingArg,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    convolutions: ConvolutionsArg,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        self.convolutions.apply(&device)?;
        let named = self.mel.as_deref().map(mel_named).transpose()?;
        let mut open = OpenOptions::default();
        (open.seed, open.skip_broken) = (self.engine.seed(), self.reading.skip_broken);
        self.reading.refuse_for_voices(&self.data)?;
        if !data::is_generated(&self.data) {
            open.rate = named.map(|mel| mel.rate);
            open.resample = self.reading.resample;
        }
        let splits = data::open(&self.data, &open)?;
        eprintln!("{}", what_was_read(&splits));
        let mel = match named {
            Some(mel) => mel,
            None => mel_for(splits.train.rate())?,
        };
        let mut run = WaveRun::new(self.model_for(&mel)?, mel, splits.train.source(), &open, self.engine.seed())?;
        let demo = self.is_demo();
        run.prediction = self.prediction.or(demo.then_some(DEMO_PREDICTION)).filter(|&order| order > 0);
        if run.prediction.is_some() {
            // The errors of prediction have the right level from the start.
            run.temperature = 1.0;
        }
        if let Some(samples) = self.segment.or(demo.then_some(DEMO_SEGMENT)) {
            run.segment = samples / mel.hop * mel.hop;
        }
        run.batch = self.engine.batch(if demo { DEMO_BATCH } else { run.batch })?;
        let config = self.engine_config(&place)?;
        let (about, steps, batch, segment) = (words(&run), config.steps, run.batch, run.segment);
        let task = WaveTask::new(run, splits, &device)?;
        task.notes().iter().for_each(|note| eprintln!("note: {note}"));
        let parameters = task.model().store().parameter_count();
        let Trained { summary, report, task } = training::train(config, place, task, || {
            eprintln!("{about}; {parameters} parameters, {steps} steps of {batch} segments of {segment} samples");
            eprintln!("spectrograms: {}", spectrogram(&mel));
            Ok(())
        })?;
        plot_log(&self.out, NLL, "nats/sample")?;
        if report { self.report(&summary, task.splits(), &device) } else { Ok(()) }
    }

    fn is_demo(&self) -> bool {
        data::is_generated(&self.data) && self.model.is_none() && self.config.is_none()
    }

    /// The model that was named, brought to the spectrogram's bands and hop.
    fn model_for(&self, mel: &MelConfig) -> Result<ModelConfig> {
        if let Some(path) = &self.config {
            let read = || described(serde_json::from_str(&std::fs::read_to_string(path)?)?);
            return read().with_context(|| path.display().to_string());
        }
        let model = match &self.model {
            Some(name) => ModelConfig::preset(name)?,
            None if self.is_demo() => WaveFlowConfig::new(16, 16, 6, 6).into(),
            None => WaveFlowConfig::default().into(),
        };
        Ok(model.for_spectrogram(mel.mels, mel.hop)?)
    }

    fn engine_config(&self, place: &RunArg<'_>) -> Result<TrainConfig> {
        let demo = self.is_demo();
        let every = Some(if demo { DEMO_EVERY } else { EVERY });
        let plan = |steps| {
            let mut config = train_config(steps, self.engine.seed());
            if demo {
                config.optimizer.learning_rate = DEMO_RATE;
                config.schedule = ScheduleConfig::cosine(config.schedule.warmup_steps, 0.0);
                config.ema = Some(EmaConfig { decay: 0.99 });
            }
            TrainConfig { validate_every: every, checkpoint_every: every, ..config }
        };
        self.engine.config(place, if demo { DEMO_STEPS } else { STEPS }, plan)
    }

    /// A copy and the summary, from the checkpoint on disk.
    fn report(&self, summary: &Summary, splits: &Splits, device: &Device) -> Result<()> {
        let (run, model) = flow_core::train::load::<WaveRun>(&self.out, device, true)?;
        let parts = [("test", &splits.test), ("validation", &splits.validation), ("training", &splits.train)];
        let Some((part, set)) = parts.into_iter().find(|(_, set)| !set.is_empty()) else { return Ok(()) };
        let set = Segments::new(set, &run.mel, run.segment)?;
        let nats = log_prob_of(&model, &set, REPORT, &mut FlowRng::named(self.engine.seed(), "eval"))?;
        let (mean, error) = mean_and_error(&nats);
        let (name, _, mel) = set.whole(0)?;
        let audio = synthesize(&run, &model, &mel, run.temperature, &mut FlowRng::named(self.engine.seed(), name))?;
        let path = self.out.join("copy.wav");
        let written = write_wav(&path, &audio, run.mel.rate, Encoding::Pcm16)?;
        written.note().iter().for_each(|note| eprintln!("note: {note}"));
        mel_picture(&run.mel.spectrogram(&audio)?, 2)?.write_png(&self.out.join("copy.png"))?;
        mel_picture(&mel, 2)?.write_png(&self.out.join("original.png"))?;
        println!(
            "{part} log-likelihood {mean:.4} {} nats/sample ({:.3} bits of a 16-bit sample) over {}; {} steps in {:.0} s; \
             {}",
            plus_minus(error, 4),
            bits_per_sample(mean, 16),
            counted(nats.len(), "segment"),
            summary.step,
            summary.seconds,
            path.display()
        );
        Ok(())
    }
}

/// A spectrogram by name.
fn mel_named(name: &str) -> Result<MelConfig> {
    Ok(match name {
        "speech-8k" => MelConfig::speech_8k(),
        "speech-16k" => MelConfig::speech_16k(),
        "parakeet" => MelConfig::parakeet(),
        other => match Convention::ALL.into_iter().find(|convention| convention.name() == other) {
            Some(convention) => MelConfig::tacotron2().with_convention(convention),
            None => bail!("--mel {other}: there are tacotron2, hifi-gan, parakeet, speech-16k and speech-8k"),
        },
    })
}

/// The usual spectrogram of a rate.
fn mel_for(rate: u32) -> Result<MelConfig> {
    let known = [MelConfig::tacotron2(), MelConfig::speech_16k(), MelConfig::speech_8k()];
    match known.into_iter().find(|mel| mel.rate == rate) {
        Some(mel) => Ok(mel),
        None => bail!(
            "clips of {rate} Hz: there are spectrograms for 22050, 16000 and 8000 Hz; choose one with --mel and --resample"
        ),
    }
}

/// What was read, for the first lines of a training.
fn what_was_read(splits: &Splits) -> String {
    let Splits { train, validation, test } = splits;
    let mut lines = vec![
        format!("data: {}", train.source()),
        format!(
            "data: {} training, {} validation, {} test clips at {} Hz; {:.1} s to train on",
            train.len(),
            validation.len(),
            test.len(),
            train.rate(),
            train.seconds()
        ),
    ];
    lines.extend(splits.notes().into_iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}
