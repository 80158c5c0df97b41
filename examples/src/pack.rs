//! `pack`, the same verb in every program: a model alone, in fewer bytes.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_core::train::{Precision, find_checkpoint, pack_model};

use crate::cli::CheckpointArg;

/// The type of weights on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Weights {
    /// As they are
    F32,
    /// Half the bytes; rounded to 8 bits of precision
    Bf16,
    /// Half the bytes; rounded to 11 bits of precision, for numbers below 65,504
    F16,
}

/// What `pack` is told.
#[derive(Args, Debug)]
#[command(after_help = "\
What is written serves as --checkpoint of every verb; a run cannot be resumed from it. Computation is in f32 as before, and
inverses are exact: the model is one with rounded weights. `eval` says what the rounding costs.")]
pub struct PackArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Folder for the model
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Type of the weights on disk
    #[arg(long, value_enum, default_value_t = Weights::Bf16)]
    weights: Weights,
}

impl PackArgs {
    /// Writes the model and says what became of it.
    ///
    /// # Errors
    /// A checkpoint that cannot be read, and a folder that cannot be written or holds other files.
    pub fn run(&self, program: &str) -> Result<()> {
        let from = find_checkpoint(&self.checkpoint.folder(program))?;
        if self.out.exists() && self.out.canonicalize()? == from.canonicalize()? {
            bail!("--out {}: is the checkpoint itself; choose another folder", self.out.display());
        }
        let precision = match self.weights {
            Weights::F32 => Precision::Full,
            Weights::Bf16 => Precision::Bf16,
            Weights::F16 => Precision::F16,
        };
        let packed = pack_model(&from, &self.out, !self.checkpoint.raw_weights, precision)?;
        let averaged = if packed.averaged { ", averaged weights" } else { "" };
        let rounding = match packed.rounding {
            0.0 => "nothing rounded".to_string(),
            rounding => format!("rounded by at most {:.2} % of the largest number of a tensor", 100.0 * rounding),
        };
        println!(
            "{}: {} numbers{averaged}, {} bytes instead of {}; {rounding}",
            self.out.display(),
            packed.numbers,
            packed.bytes,
            packed.bytes_before,
        );
        Ok(())
    }
}
