//! The verbs of the `dlgm` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod eval;
mod info;
mod pictures;
mod reconstruct;
mod sample;
mod train;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

pub use common::read_images;

/// Deep latent Gaussian models of binary images, with flows as posteriors
#[derive(Parser, Debug)]
#[command(
    name = "dlgm",
    version,
    about = "Deep latent Gaussian models of binary images, with flows as posteriors",
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  dlgm train                                        built-in digits, a minute or two on two cores
  dlgm eval                                         free energy, KL and -ln p(x) of the test images
  dlgm sample --count 64 --out digits.png
  dlgm train --data mnist/ --model planar-40 --out runs/planar-40
  dlgm train --data mnist/ --model gaussian --minutes 60 --out runs/gaussian
  dlgm eval --checkpoint runs/planar-40 --images 10000
  dlgm reconstruct --checkpoint runs/planar-40 --count 30
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model; leave a checkpoint, samples, reconstructions and the loss curve
    Train(Box<train::TrainArgs>),
    /// Measure the bound, the KL term and -ln p(x) by importance sampling
    Eval(eval::EvalArgs),
    /// Draw images from a trained model
    Sample(sample::SampleArgs),
    /// Encode images and decode them again
    Reconstruct(reconstruct::ReconstructArgs),
    /// Write a trained model alone, with weights of half the bytes
    Pack(PackArgs),
    /// Describe a checkpoint or the models of the paper
    Info(InfoArgs),
}

/// Parses the command line and runs the verb.
///
/// # Errors
/// Anything that a verb reports; clap exits by itself (code 2) on arguments that do not parse.
pub fn run() -> Result<()> {
    match settings::parse::<Cli>()?.verb {
        Verb::Train(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Sample(args) => args.run(),
        Verb::Reconstruct(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
