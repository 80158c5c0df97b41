//! The verbs of the `waveflow` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod eval;
mod info;
mod mel;
mod pieces;
mod score;
mod synthesize;
mod train;
mod vocode;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

/// WaveFlow and WaveGlow: waveforms from mel spectrograms, with exact likelihoods
#[derive(Parser, Debug)]
#[command(
    name = "waveflow",
    version,
    about = "WaveFlow and WaveGlow: waveforms from mel spectrograms, with exact likelihoods",
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  waveflow train                                       synthesised voices, some minutes on two cores
  waveflow vocode --data recording.wav --out copies    WAV to spectrogram and back
  waveflow eval                                        likelihood in nats and bits, distances of copies
  waveflow score --data recording.wav --out scores     likelihood over time, as a table and pictures
  waveflow train --data LJSpeech-1.1/ --model waveflow-h16-c64 --mel tacotron2 --out runs/lj
  waveflow mel --data recording.wav --checkpoint runs/lj --out mels
  waveflow synthesize mels/recording.npz --checkpoint runs/lj --out recording.wav
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a vocoder; leave a checkpoint, a copy of a test clip and the loss curve
    Train(Box<train::TrainArgs>),
    /// Make a waveform of a mel spectrogram
    Synthesize(synthesize::SynthesizeArgs),
    /// Turn recordings into spectrograms and back: what is lost on the way
    Vocode(vocode::VocodeArgs),
    /// Measure likelihood and copies of held-out clips
    Eval(eval::EvalArgs),
    /// Measure the likelihood of clips over time
    Score(score::ScoreArgs),
    /// Write mel spectrograms of recordings
    Mel(mel::MelArgs),
    /// Write a trained model alone, with weights of half the bytes
    Pack(PackArgs),
    /// Describe a checkpoint or a preset
    Info(InfoArgs),
}

/// Parses the command line and runs the verb.
///
/// # Errors
/// Anything that a verb reports; clap exits by itself (code 2) on arguments that do not parse.
pub fn run() -> Result<()> {
    match settings::parse::<Cli>()?.verb {
        Verb::Train(args) => args.run(),
        Verb::Synthesize(args) => args.run(),
        Verb::Vocode(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Score(args) => args.run(),
        Verb::Mel(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
