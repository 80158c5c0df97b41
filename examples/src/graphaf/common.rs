//! Flags and loading that several verbs share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_graph::data::{Loaded, OpenOptions, open};
use flow_graph::model::{GraphAf, Sequence, Vocabulary};
use flow_graph::trainer::{self, GraphRun};
use flow_graph::{Molecule, SaScorer};

use crate::cli::CheckpointArg;

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "graphaf";

/// Where molecules come from.
#[derive(Args, Debug, Clone)]
pub(super) struct DataArg {
    /// Molecules: .smi, .csv, .tsv or .sdf, each also .gz, or "builtin"
    #[arg(long, default_value = "builtin", value_name = "PATH")]
    pub(super) data: PathBuf,
    /// Column of SMILES in a table
    #[arg(long)]
    pub(super) column: Option<String>,
}

impl DataArg {
    /// Reads the file and says on stderr what was in it.
    pub(super) fn open(&self) -> Result<Loaded> {
        let loaded = read(&self.data, self.column.as_deref())?;
        eprintln!("{}", loaded.summary());
        const SHOWN: usize = 5;
        for bad in loaded.bad.iter().take(SHOWN) {
            eprintln!("{}: {bad}", self.data.display());
        }
        if loaded.bad_count > SHOWN {
            eprintln!("{}: {} more bad lines", self.data.display(), loaded.bad_count - SHOWN);
        }
        Ok(loaded)
    }
}

/// Reads a file of molecules.
pub(super) fn read(path: &Path, column: Option<&str>) -> Result<Loaded> {
    let options = OpenOptions { column: column.map(str::to_string), ..OpenOptions::default() };
    Ok(open(path, &options)?)
}

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(GraphRun, GraphAf)> {
    Ok(trainer::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// Molecules as sequences, those that the model cannot express counted by reason.
pub(super) struct Expressed {
    /// The sequences.
    pub(super) sequences: Vec<Sequence>,
    /// How many molecules were refused for which reason.
    pub(super) refused: BTreeMap<String, usize>,
}

impl Expressed {
    /// Encodes molecules for a vocabulary and a limit.
    pub(super) fn new(
        molecules: impl IntoIterator<Item = Molecule>,
        vocabulary: &Vocabulary,
        max_atoms: usize,
    ) -> Self {
        let (mut sequences, mut refused) = (Vec::new(), BTreeMap::new());
        for molecule in molecules {
            match Sequence::new(&molecule, vocabulary) {
                Ok(sequence) if sequence.len() <= max_atoms => sequences.push(sequence),
                Ok(_) => *refused.entry(format!("it has more than {max_atoms} atoms")).or_insert(0) += 1,
                Err(e) => *refused.entry(e.to_string()).or_insert(0) += 1,
            }
        }
        Expressed { sequences, refused }
    }

    /// Says on stderr what was refused; none left is an error.
    pub(super) fn check(self, source: &str) -> Result<Self> {
        for (reason, count) in &self.refused {
            eprintln!("{source}: {count} molecules left out: {reason}");
        }
        if self.sequences.is_empty() {
            bail!("{source}: no molecule that the model can express");
        }
        Ok(self)
    }
}

/// The fragment table of the synthetic accessibility.
#[derive(Args, Debug, Clone)]
pub(super) struct ScorerArg {
    /// Fragment scores for the synthetic accessibility: fpscores.pkl.gz of RDKit's Contrib/SA_Score
    /// [default: the environment variable FLOW_SA_SCORES]
    #[arg(long, value_name = "FILE")]
    sa_scores: Option<PathBuf>,
}

impl ScorerArg {
    /// The scorer, `None` if there is no table.
    pub(super) fn open(&self) -> Result<Option<SaScorer>> {
        match &self.sa_scores {
            Some(path) => Ok(Some(SaScorer::open(path)?)),
            None => Ok(SaScorer::from_environment()?),
        }
    }
}

/// A property to raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Property {
    /// Quantitative estimate of drug-likeness.
    Qed,
    /// Penalised logP; needs --sa-scores.
    Plogp,
}

/// Refuses a number that is not a temperature.
pub(super) fn check_temperature(temperature: f64) -> Result<()> {
    if !(temperature >= 0.0 && temperature.is_finite()) {
        bail!("--temperature must be a finite number of at least 0, got {temperature}");
    }
    Ok(())
}

/// Parses a SMILES from the command line.
pub(super) fn parse(flag: &str, smiles: &str) -> Result<Molecule> {
    flow_graph::smiles::parse(smiles).with_context(|| flag.to_string())
}
