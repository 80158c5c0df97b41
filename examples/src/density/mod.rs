//! The verbs of the `density` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod eval;
mod grid;
mod info;
mod picture;
mod reading;
mod sample;
mod straighten;
mod train;

use crate::settings;

/// Normalizing flows as densities of points and tables
#[derive(Parser, Debug)]
#[command(name = "density", version, about = "Normalizing flows as densities of points and tables", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  density train                                        a spline flow of eight Gaussians, a minute or two
  density train --data checkerboard --model maf --out runs/board
  density eval --checkpoint runs/board
  density sample --checkpoint runs/board --count 10000 --out points.csv
  density train --data table.csv --model spline --out runs/table
  density eval --checkpoint runs/table --data new.csv --per-row scores.csv
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model; leave a checkpoint, pictures and the distance from the entropy
    Train(train::TrainArgs),
    /// Draw points from a trained model
    Sample(sample::SampleArgs),
    /// Straighten the paths of a continuous flow, or distil it into one step
    Straighten(straighten::StraightenArgs),
    /// Measure the likelihood of held-out points, or score the rows of another table
    Eval(eval::EvalArgs),
    /// Describe a checkpoint, or list the toys with their entropies and the models
    Info(info::DensityInfoArgs),
}

/// Parses the command line and runs the verb.
///
/// # Errors
/// Anything that a verb reports; clap exits by itself (code 2) on arguments that do not parse.
pub fn run() -> Result<()> {
    match settings::parse::<Cli>()?.verb {
        Verb::Train(args) => args.run(),
        Verb::Sample(args) => args.run(),
        Verb::Straighten(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Info(args) => args.run(),
    }
}
