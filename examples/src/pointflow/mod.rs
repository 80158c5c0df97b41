//! The verbs of the `pointflow` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod common;
mod complete;
mod data;
mod eval;
mod info;
mod interpolate;
mod likelihood;
mod output;
mod reconstruct;
mod render;
mod sample;
mod straighten;
mod train;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

/// Continuous flows of point clouds: PointFlow
#[derive(Parser, Debug)]
#[command(name = "pointflow", version, about = "Continuous flows of point clouds: PointFlow", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  pointflow train                                      built-in chairs, tables, lamps, planes, mugs; minutes
  pointflow sample                                     clouds from the model just trained, as PLY and a picture
  pointflow train --data chairs.npy --out runs/chairs --minutes 60
  pointflow reconstruct --checkpoint runs/chairs --data sofa.obj --points 10000
  pointflow eval --checkpoint runs/chairs --data chairs.npy
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model and leave a checkpoint, clouds, a contact sheet and a loss curve
    Train(train::TrainArgs),
    /// Draw new clouds of any number of points
    Sample(sample::SampleArgs),
    /// Straighten the paths of points, or distil them into one step
    Straighten(straighten::StraightenArgs),
    /// Encode clouds or meshes and draw them again
    Reconstruct(reconstruct::ReconstructArgs),
    /// Walk between two shapes through latent space
    Interpolate(interpolate::InterpolateArgs),
    /// Complete a partial cloud
    Complete(complete::CompleteArgs),
    /// Measure generation and reconstruction with the table of the literature
    Eval(eval::EvalArgs),
    /// Log-likelihood of clouds in nats and bits per point
    Likelihood(likelihood::LikelihoodArgs),
    /// Draw pictures of clouds or meshes: contact sheet and turntable
    Render(render::RenderArgs),
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
        Verb::Straighten(args) => args.run(),
        Verb::Reconstruct(args) => args.run(),
        Verb::Interpolate(args) => args.run(),
        Verb::Complete(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Likelihood(args) => args.run(),
        Verb::Render(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
