//! The verbs of the `density` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod compare;
mod eval;
mod expression;
mod family;
mod fit;
mod grid;
mod info;
mod picture;
mod posterior;
mod reading;
mod sample;
mod straighten;
mod target;
mod train;

use crate::pack::PackArgs;
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
  density fit --energy u3                              a flow of a density that is known up to a constant
  density posterior --pairs runs.csv --parameters a,b --observed x,y
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model; leave a checkpoint, pictures and the distance from the entropy
    Train(train::TrainArgs),
    /// Fit a model to a density that is known up to a constant; say how far the fit is to be trusted
    Fit(fit::FitArgs),
    /// Learn the posterior of a simulator from pairs of parameters and observations; say if it is calibrated
    Posterior(posterior::PosteriorArgs),
    /// Draw points from a trained model
    Sample(sample::SampleArgs),
    /// Straighten the paths of a continuous flow, or distil it into one step
    Straighten(straighten::StraightenArgs),
    /// Measure the likelihood of held-out points, or score the rows of another table
    Eval(eval::EvalArgs),
    /// Write a trained model alone, with weights of half the bytes
    Pack(PackArgs),
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
        Verb::Fit(args) => args.run(),
        Verb::Posterior(args) => args.run(),
        Verb::Sample(args) => args.run(),
        Verb::Straighten(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => args.run(),
    }
}
