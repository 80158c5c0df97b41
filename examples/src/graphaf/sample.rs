//! `graphaf sample`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_graph::model::{GraphAf, SampleOptions};
use flow_graph::{Molecule, canonical_smiles};

use super::common::{ScorerArg, check_sizes, check_temperature, load};
use super::output::{self, Row};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Draw new molecules from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
Choices that break a valence are excluded and the others keep their probabilities relative to each other, so that
every molecule is valid; --unchecked excludes nothing while drawing and writes only the valid molecules.

Examples:
  graphaf sample                                            100 SMILES on standard output
  graphaf sample --count 10000 --out all.smi --out all.csv --out first40.png
  graphaf sample --temperature 0.7 --min-atoms 10 --max-atoms 25 --unique
  graphaf sample --unchecked --count 10000 --out raw.smi")]
pub(super) struct SampleArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Files to write: .smi, .csv (with properties), .sdf, .png, .svg; "-" is standard output
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: Vec<PathBuf>,
    /// Number of molecules
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Temperature of the draws: below 1 likelier molecules, above 1 more unusual ones
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Smallest number of heavy atoms, as far as valences allow more
    #[arg(long, default_value_t = 1)]
    min_atoms: usize,
    /// Largest number of heavy atoms [default: that of the training molecules]
    #[arg(long)]
    max_atoms: Option<usize>,
    /// Let the model break valences, and write only the molecules that are valid all the same
    #[arg(long)]
    unchecked: bool,
    /// Write each molecule once
    #[arg(long)]
    unique: bool,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scorer: ScorerArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl SampleArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        at_least_one("--max-atoms", self.max_atoms.unwrap_or(1))?;
        check_temperature(self.temperature)?;
        check_sizes(self.min_atoms, self.max_atoms)?;
        output::check(&self.out, &self.scorer)?;
        let scorer = self.scorer.open()?;
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let mut options = SampleOptions::default();
        options.temperature = self.temperature;
        options.valid = !self.unchecked;
        options.min_atoms = self.min_atoms;
        options.max_atoms = self.max_atoms;
        let start = Instant::now();
        let mut molecules = draw(&model, self.count, &options, self.seed)?;
        let seconds = start.elapsed().as_secs_f64();
        let drawn = molecules.len();
        molecules.retain(|m| m.check_valences().is_ok());
        let valid = molecules.len();
        if self.unique {
            let mut seen = HashSet::new();
            molecules.retain(|m| seen.insert(canonical_smiles(m)));
        }
        if molecules.is_empty() {
            bail!("none of {drawn} molecules drawn is valid: train for longer, or leave --unchecked out");
        }
        let rows: Vec<Row> = molecules.into_iter().map(Row::plain).collect();
        output::write(&self.out, &rows, scorer.as_ref())?;
        eprintln!("{drawn} molecules drawn at {:.0} molecules/s", drawn as f64 / seconds);
        let different = if self.unique { format!(", {} different", rows.len()) } else { String::new() };
        output::say(&self.out, &format!("{valid} valid{different} of {drawn} molecules"));
        Ok(())
    }
}

/// Draws molecules.
pub(super) fn draw(model: &GraphAf, count: usize, options: &SampleOptions, seed: u64) -> Result<Vec<Molecule>> {
    let drawn = model.sample(count, options, &mut FlowRng::named(seed, "sample"))?;
    let vocabulary = &model.config().vocabulary;
    Ok(drawn.iter().map(|g| g.sequence.molecule(vocabulary)).collect::<flow_graph::Result<_>>()?)
}
