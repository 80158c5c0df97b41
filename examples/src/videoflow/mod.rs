//! The verbs of the `videoflow` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod eval;
mod film;
mod info;
mod interpolate;
mod predict;
mod reading;
mod render;
mod sample;
mod score;
mod train;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

/// VideoFlow: what comes next in a video, with exact likelihoods
#[derive(Parser, Debug)]
#[command(
    name = "videoflow",
    version,
    about = "VideoFlow: what comes next in a video, with exact likelihoods",
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  videoflow train                                      moving digits, a few minutes on two cores
  videoflow predict --count 4 --out futures.gif        four futures of a test clip beside what happened
  videoflow eval                                       bits/dim, PSNR and SSIM of the best of many futures
  videoflow train --data clips/ --size 64 --model small --out runs/clips
  videoflow score --checkpoint runs/clips --data new/ --out surprise.csv
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model; leave a checkpoint, predictions and the loss curve
    Train(Box<train::TrainArgs>),
    /// Draw futures of given clips
    Predict(predict::PredictArgs),
    /// Draw whole clips from nothing
    Sample(sample::SampleArgs),
    /// Measure likelihood, predictions, diversity and calibration on held-out clips
    Eval(eval::EvalArgs),
    /// Measure how surprising every frame of clips is
    Score(score::ScoreArgs),
    /// Walk between two frames
    Interpolate(interpolate::InterpolateArgs),
    /// Write clips of a data set as animations or pictures
    Render(render::RenderArgs),
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
        Verb::Predict(args) => args.run(),
        Verb::Sample(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Score(args) => args.run(),
        Verb::Interpolate(args) => args.run(),
        Verb::Render(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
