//! The verbs of the `glow` program, one file each.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod codec;
mod common;
mod decode;
mod edit;
mod encode;
mod eval;
mod info;
mod inspect;
mod interpolate;
mod latents;
mod ood;
mod reading;
mod sample;
mod sheet;
mod train;

use crate::info::InfoArgs;
use crate::pack::PackArgs;
use crate::settings;

/// Normalizing flows of images: Glow, RealNVP and NICE
#[derive(Parser, Debug)]
#[command(name = "glow", version, about = "Normalizing flows of images: Glow, RealNVP and NICE", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  glow train                                           built-in handwritten digits, under a minute
  glow sample                                          a grid from the model just trained
  glow train --data cifar-10-batches-bin --out runs/cifar --steps 20000
  glow train --data photos/ --resize 64 --model realnvp-imagenet64
  glow eval --checkpoint runs/cifar --data cifar-10-batches-bin
Every verb has its own --help.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Train a model and leave a checkpoint, a sample grid and a loss curve
    Train(train::TrainArgs),
    /// Draw images from a trained model
    Sample(sample::SampleArgs),
    /// Measure bits/dim on held-out images
    Eval(eval::EvalArgs),
    /// Turn images into latents
    Encode(encode::EncodeArgs),
    /// Turn latents back into images
    Decode(decode::DecodeArgs),
    /// Walk between pairs of images
    Interpolate(interpolate::InterpolateArgs),
    /// Change an attribute of images
    Edit(edit::EditArgs),
    /// Tell two data sets apart by their likelihood
    Ood(ood::OodArgs),
    /// Look for numerical trouble in a trained model
    Inspect(inspect::InspectArgs),
    /// Write images losslessly into one archive
    Compress(codec::CompressArgs),
    /// Restore the images of an archive, bit for bit
    Decompress(codec::DecompressArgs),
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
        Verb::Sample(args) => args.run(),
        Verb::Eval(args) => args.run(),
        Verb::Encode(args) => args.run(),
        Verb::Decode(args) => args.run(),
        Verb::Interpolate(args) => args.run(),
        Verb::Edit(args) => args.run(),
        Verb::Ood(args) => args.run(),
        Verb::Inspect(args) => args.run(),
        Verb::Compress(args) => args.run(),
        Verb::Decompress(args) => args.run(),
        Verb::Pack(args) => args.run(common::PROGRAM),
        Verb::Info(args) => info::run(&args),
    }
}
