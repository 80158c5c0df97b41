//! The verbs of the `graphaf` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod complete;
mod eval;
mod improve;
mod info;
mod optimize;
mod output;
mod reconstruct;
mod sample;
mod score;
mod split;
mod train;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

/// Autoregressive flows of molecules: GraphAF
#[derive(Parser, Debug)]
#[command(name = "graphaf", version, about = "Autoregressive flows of molecules: GraphAF", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  graphaf train                                        built-in drugs and metabolites, a few minutes
  graphaf sample                                       SMILES from the model just trained
  graphaf train --data zinc250k.smi.gz --out runs/zinc --steps 12000
  graphaf sample --checkpoint runs/zinc --count 10000 --out zinc.csv
  graphaf complete --checkpoint runs/zinc --scaffold 'c1ccc2[nH]ccc2c1'
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model and leave a checkpoint, samples and a loss curve
    Train(train::TrainArgs),
    /// Draw new molecules from a trained model
    Sample(sample::SampleArgs),
    /// Measure validity, uniqueness, novelty and distributions
    Eval(eval::EvalArgs),
    /// Fine-tune a model towards a property, or improve given molecules
    Optimize(optimize::OptimizeArgs),
    /// Grow molecules from a scaffold
    Complete(complete::CompleteArgs),
    /// Turn molecules into latents and back
    Reconstruct(reconstruct::ReconstructArgs),
    /// Log-likelihood of given molecules
    Score(score::ScoreArgs),
    /// Write a trained model alone, with weights of half the bytes
    Pack(PackArgs),
    /// Describe a checkpoint, or list the presets
    Info(InfoArgs),
}

/// Parses the command line and runs the verb.
///
/// # Errors
/// Anything that a verb reports; clap exits by itself (code 2) on arguments that do not parse.
pub fn run() -> Result<()> {
    match settings::parse::<Cli>()?.verb {
        Verb::Train(args) => args.run(),
        Verb::Sample(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Optimize(args) => args.run(),
        Verb::Complete(args) => args.run(),
        Verb::Reconstruct(args) => args.run(),
        Verb::Score(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
