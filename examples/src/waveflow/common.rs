//! Flags and loading that several verbs share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::Device;
use clap::Args;
use flow_audio::data::{self, Clips, Splits, is_generated};
use flow_audio::io::{Encoding, write_wav};
use flow_audio::mel::{Denoiser, Mel};
use flow_audio::model::Vocoder;
use flow_audio::trainer::{WaveRun, synthesize};
use flow_core::FlowRng;

use super::pieces::{Pieces, PiecesArg};
use crate::cli::{CheckpointArg, Part, counted, refuse};

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "waveflow";

/// Frames of silence from which the model's own hum is taken.
const HUM: usize = 88;

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(WaveRun, Vocoder)> {
    Ok(flow_core::train::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// How files become clips.
#[derive(Args, Debug)]
pub(super) struct ReadingArg {
    /// Bring clips of another rate to the model's instead of refusing them
    #[arg(long)]
    pub(super) resample: bool,
    /// Leave out files that cannot be read, and count them
    #[arg(long)]
    pub(super) skip_broken: bool,
}

impl ReadingArg {
    /// Refuses these flags where no file is read.
    pub(super) fn refuse_for_voices(&self, path: &Path) -> Result<()> {
        if !is_generated(path) {
            return Ok(());
        }
        let flags = [("--resample", self.resample), ("--skip-broken", self.skip_broken)];
        refuse(&flags, "for files of sound, the voices are synthesised as the model takes them; leave it out")
    }
}

/// Clips to work on.
#[derive(Args, Debug)]
pub(super) struct DataArg {
    /// Clips: WAV, FLAC, OGG or MP3, a folder of them, LJSpeech's folder, or "voices" (synthesised here)
    #[arg(long, default_value = "voices", value_name = "PATH")]
    pub(super) data: PathBuf,
    #[command(flatten)]
    reading: ReadingArg,
}

impl DataArg {
    /// The clips of this part, at the rate of the run, after a line on stderr about what they are and what was changed.
    pub(super) fn clips(&self, checkpoint: &CheckpointArg, run: &WaveRun, part: Part) -> Result<Clips> {
        self.reading.refuse_for_voices(&self.data)?;
        let generated = is_generated(&self.data);
        let mut options = run.open.clone();
        options.voices = None;
        (options.resample, options.skip_broken) = (self.reading.resample, self.reading.skip_broken);
        if generated {
            options.voices.clone_from(&run.open.voices);
            options.rate = None;
        } else {
            options.rate = Some(run.mel.rate);
        }
        let set = match part {
            Part::All => data::open_all(&self.data, &options)?,
            _ => {
                let splits = data::open(&self.data, &options)?;
                checkpoint.note_other_data(PROGRAM, &splits.fingerprint())?;
                let Splits { train, validation, test } = splits;
                match part {
                    Part::Train => train,
                    Part::Validation => validation,
                    _ => test,
                }
            }
        };
        ensure!(!set.is_empty(), "{}: the {part} part has no clips; --split all takes all of them", set.source());
        let (count, seconds, rate) = (set.len(), set.seconds(), set.rate());
        eprintln!("data: {part} part, {}, {seconds:.1} s at {rate} Hz; {}", counted(count, "clip"), set.source());
        set.notes().iter().for_each(|note| eprintln!("note: {note}"));
        Ok(set)
    }
}

/// How waveforms are made.
#[derive(Args, Debug)]
pub(super) struct DrawArg {
    /// Standard deviation of the latent [default: that of the run: 0.6, with --prediction 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Subtract this much of the model's own hum from the magnitudes; 0.1 is usual
    #[arg(long, default_value_t = 0.0, value_name = "STRENGTH")]
    denoise: f64,
    /// Seed of the latent [default: 0]
    #[arg(long)]
    seed: Option<u64>,
}

/// A model that makes waveforms as the flags say.
pub(super) struct Speaker<'a> {
    run: &'a WaveRun,
    model: &'a Vocoder,
    temperature: f64,
    strength: f64,
    seed: u64,
    denoiser: Option<Denoiser>,
}

impl DrawArg {
    /// Refuses these flags where nothing is drawn.
    pub(super) fn refuse(&self, reason: &str) -> Result<()> {
        let given = [self.temperature.is_some(), self.denoise != 0.0, self.seed.is_some()];
        let flags = [("--temperature", given[0]), ("--denoise", given[1]), ("--seed", given[2])];
        refuse(&flags, reason)
    }

    /// Makes the model ready.
    pub(super) fn speaker<'a>(&self, run: &'a WaveRun, model: &'a Vocoder) -> Result<Speaker<'a>> {
        ensure!(self.denoise >= 0.0, "--denoise must be at least 0, got {}", self.denoise);
        if run.prediction.is_some() {
            let flags = [("--denoise", self.denoise > 0.0)];
            refuse(&flags, "is for models without --prediction, whose hum is the same at every level; leave it out")?;
        }
        let denoiser = (self.denoise > 0.0).then(|| -> Result<Denoiser> {
            let silence = Mel::new(run.mel, HUM, vec![0.0; HUM * run.mel.mels])?;
            let hum = synthesize(run, model, &silence, 0.0, &mut FlowRng::seed_from(0))?;
            Ok(Denoiser::new(run.mel.stft()?, &hum)?)
        });
        let temperature = self.temperature.unwrap_or(run.temperature);
        Ok(Speaker {
            run,
            model,
            temperature,
            strength: self.denoise,
            seed: self.seed.unwrap_or(0),
            denoiser: denoiser.transpose()?,
        })
    }
}

impl Speaker<'_> {
    /// The waveform of a spectrogram; `name` seeds its latent.
    pub(super) fn speak(&self, mel: &Mel, name: &str) -> Result<Vec<f32>> {
        let mut rng = FlowRng::named(self.seed, name);
        self.denoised(synthesize(self.run, self.model, mel, self.temperature, &mut rng)?)
    }

    fn denoised(&self, audio: Vec<f32>) -> Result<Vec<f32>> {
        match &self.denoiser {
            Some(denoiser) => Ok(denoiser.apply(&audio, self.strength)?),
            None => Ok(audio),
        }
    }

    /// The same as a WAV file, with a line about how long it took.
    pub(super) fn write(&self, mel: &Mel, name: &str, path: &Path) -> Result<Vec<f32>> {
        self.save(name, path, || self.speak(mel, name))
    }

    /// The same, made in pieces where these flags say so.
    pub(super) fn write_in(&self, pieces: &PiecesArg, mel: &Mel, name: &str, path: &Path) -> Result<Vec<f32>> {
        if pieces.whole()? {
            return self.write(mel, name, path);
        }
        let of = Pieces { run: self.run, model: self.model, temperature: self.temperature };
        self.save(name, path, || self.denoised(pieces.make(&of, mel, self.seed, name)?))
    }

    fn save(&self, name: &str, path: &Path, make: impl FnOnce() -> Result<Vec<f32>>) -> Result<Vec<f32>> {
        let begun = Instant::now();
        let audio = make()?;
        let took = begun.elapsed().as_secs_f64();
        let written = write_wav(path, &audio, self.run.mel.rate, Encoding::Pcm16)?;
        let seconds = audio.len() as f64 / f64::from(self.run.mel.rate);
        eprintln!("{name}: {seconds:.2} s of sound in {took:.2} s, {:.2} times real time", seconds / took.max(1e-9));
        written.note().iter().for_each(|note| eprintln!("note: {note}"));
        Ok(audio)
    }
}

/// Names of files for clips, no two alike: their own without the ending, folders and odd characters as `_`, and a number
/// where that is taken.
#[derive(Default)]
pub(super) struct FileNames(BTreeSet<String>);

impl FileNames {
    /// The stem for the next clip.
    pub(super) fn next(&mut self, clip: &str) -> String {
        let own = Path::new(clip).with_extension("").to_string_lossy().into_owned();
        let own: String = own.chars().map(|c| if c.is_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect();
        let mut name = own.clone();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{own}-{number}");
            number += 1;
        }
        name
    }
}
