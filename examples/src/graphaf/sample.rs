//! `graphaf sample`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_graph::Molecule;
use flow_graph::model::{GraphAf, SampleOptions};
use flow_graph::smiles::canonical;

use super::common::{ScorerArg, check_sizes, check_temperature, load};
use super::output::{self, Row};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one};

/// Draw new molecules from a trained model
#[derive(Args, Debug)]
#[command(after_help = "\
Choices that break a valence are excluded and the others keep their probabilities relative to each other, so that
every molecule is valid; --unchecked excludes nothing while drawing and writes only the valid molecules: those that
keep every valence and whose atoms all got a bond.

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
    /// Smallest number of heavy atoms; choices that would use up the last free valence before are excluded
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
        let draws = draw(&model, self.count, &options, self.seed)?;
        let seconds = start.elapsed().as_secs_f64();
        let drawn = draws.len();
        let mut molecules: Vec<Molecule> = draws.into_iter().flatten().collect();
        let broken = drawn - molecules.len();
        molecules.retain(|m| m.check_valences().is_ok());
        let valid = molecules.len();
        if self.unique {
            let mut seen = HashSet::new();
            molecules.retain(|m| seen.insert(canonical(m)));
        }
        if molecules.is_empty() {
            bail!("none of {drawn} molecules drawn is valid: train for longer, or leave --unchecked out");
        }
        say_sizes(&molecules, self.min_atoms);
        if broken > 0 {
            eprintln!("{broken} of {drawn} draws are not valid because an atom in them got no bond");
        }
        let rows: Vec<Row> = molecules.into_iter().map(Row::plain).collect();
        output::write(&self.out, &rows, scorer.as_ref())?;
        eprintln!("{drawn} molecules drawn at {:.0} molecules/s", drawn as f64 / seconds);
        let different = if self.unique { format!(", {} different", rows.len()) } else { String::new() };
        output::say(&self.out, &format!("{valid} valid{different} of {drawn} molecules"));
        Ok(())
    }
}

/// Draws molecules, `None` for a draw that is broken: an atom in it got no bond.
pub(super) fn draw(model: &GraphAf, count: usize, options: &SampleOptions, seed: u64) -> Result<Vec<Option<Molecule>>> {
    let drawn = model.sample(count, options, &mut FlowRng::named(seed, "sample"))?;
    let vocabulary = &model.config().vocabulary;
    Ok(drawn.iter().map(|g| g.molecule(vocabulary)).collect::<flow_graph::Result<_>>()?)
}

/// Says on stderr how many molecules are small, and how many smaller than was asked for.
pub(super) fn say_sizes(molecules: &[Molecule], min_atoms: usize) {
    let under = |atoms: usize| molecules.iter().filter(|m| m.len() < atoms).count();
    let percent = |atoms: usize| 100.0 * under(atoms) as f64 / molecules.len().max(1) as f64;
    eprintln!("{:.2} % have fewer than 5 atoms, {:.2} % fewer than 10", percent(5), percent(10));
    if under(min_atoms) > 0 {
        eprintln!("{} have fewer than --min-atoms {min_atoms}: no free valence was left to go on", under(min_atoms));
    }
}
