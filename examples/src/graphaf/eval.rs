//! `graphaf eval`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::files::atomic_write;
use flow_graph::Molecule;
use flow_graph::metrics::{Reference, evaluate};
use flow_graph::model::SampleOptions;

use super::common::{ScorerArg, check_temperature, load, read};
use super::sample::draw;
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output};

/// Measure validity, uniqueness, novelty and distributions
#[derive(Args, Debug)]
#[command(after_help = "\
Novelty is given in two conventions: canonical SMILES without stereo against the same of the reference (honest), and
against the strings as the reference's file spells them (what papers print; by that rule 63 % of ZINC250k's own
molecules are new). No molecule is left out for its size.

Examples:
  graphaf eval --checkpoint runs/zinc --reference zinc250k.smi.gz
  graphaf eval --checkpoint runs/zinc --unchecked --count 10000
  graphaf eval --samples generated.smi --reference zinc250k.smi.gz --json report.json")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Molecules to measure instead of drawing some: one SMILES a line; what cannot be read is invalid
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Molecules to compare with, the training set as a rule
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    /// Column of SMILES in a table
    #[arg(long)]
    column: Option<String>,
    /// Molecules to draw
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Temperature of the draws
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Do not keep valences
    #[arg(long)]
    unchecked: bool,
    /// Also write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scorer: ScorerArg,
    #[command(flatten)]
    device: DeviceArg,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--count", self.count)?;
        check_temperature(self.temperature)?;
        self.json.as_deref().map_or(Ok(()), check_output)?;
        let scorer = self.scorer.open()?;
        let molecules = self.molecules()?;
        let reference = match &self.reference {
            None => None,
            Some(path) => {
                let loaded = read(path, self.column.as_deref())?;
                eprintln!("{}", loaded.summary());
                let molecules: Vec<Molecule> = loaded.molecules.iter().collect();
                let strings: Vec<&str> = loaded.source_strings.iter().collect();
                Some(Reference::new(&molecules, &strings, scorer.as_ref()))
            }
        };
        let report = evaluate(&molecules, reference.as_ref(), scorer.as_ref());
        if let Some(path) = &self.json {
            atomic_write(path, serde_json::to_string_pretty(&report)?.as_bytes())?;
        }
        println!("{report}");
        Ok(())
    }

    fn molecules(&self) -> Result<Vec<Option<Molecule>>> {
        if let Some(path) = &self.samples {
            let text = std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
            let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_string();
            let molecules: Vec<_> = text.lines().map(|line| flow_graph::smiles::parse(&first(line)).ok()).collect();
            if molecules.is_empty() {
                bail!("{}: holds no line", path.display());
            }
            return Ok(molecules);
        }
        let (_, model) = load(&self.checkpoint, &self.device.open()?)?;
        let options =
            SampleOptions { temperature: self.temperature, valid: !self.unchecked, ..SampleOptions::default() };
        let start = Instant::now();
        let drawn = draw(&model, self.count, &options, self.seed)?;
        eprintln!("{:.0} molecules/s", self.count as f64 / start.elapsed().as_secs_f64());
        Ok(drawn.into_iter().map(Some).collect())
    }
}
