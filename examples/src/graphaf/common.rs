//! Flags and loading that several verbs share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_graph::data::{Loaded, OpenOptions, is_table, open};
use flow_graph::model::{Candidates, GraphAf, GraphAfConfig, Sequence};
use flow_graph::trainer::{GraphRun, random_order};
use flow_graph::{Molecule, SaScorer};

use crate::cli::{CheckpointArg, refuse};

/// The program's name, and that of its folder of results.
pub(super) const PROGRAM: &str = "graphaf";

/// Where molecules come from.
#[derive(Args, Debug, Clone)]
pub(super) struct DataArg {
    /// Molecules: .smi, .csv, .tsv or .sdf, each also .gz, or "builtin"
    #[arg(long, default_value = "builtin", value_name = "PATH")]
    pub(super) data: PathBuf,
    /// Column of SMILES in a table [default: the first with a usual name, such as smiles]
    #[arg(long)]
    pub(super) column: Option<String>,
}

impl DataArg {
    /// Reads the file and says on stderr what was in it.
    pub(super) fn open(&self) -> Result<Loaded> {
        check_column(self.column.as_deref(), &[&self.data])?;
        read(&self.data, self.column.as_deref())
    }
}

/// Refuses `--column` where none of the files is a table. What cannot be read is for the reader to say.
pub(super) fn check_column(column: Option<&str>, files: &[&Path]) -> Result<()> {
    let mut options = OpenOptions::default();
    options.column = column.map(str::to_string);
    let unread = column.is_some() && !files.iter().any(|file| is_table(file, &options).unwrap_or(true));
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    refuse(&[("--column", unread)], &format!("for tables (.csv, .tsv), {} is none; leave it out", names.join(", ")))
}

/// Reads a file of molecules and says on stderr what was in it.
pub(super) fn read(path: &Path, column: Option<&str>) -> Result<Loaded> {
    const SHOWN: usize = 5;
    let mut options = OpenOptions::default();
    options.column = column.map(str::to_string);
    let loaded = open(path, &options)?;
    eprintln!("{}", loaded.summary());
    for bad in loaded.bad.iter().take(SHOWN) {
        eprintln!("{}: {bad}", path.display());
    }
    if loaded.bad_count > SHOWN {
        eprintln!("{}: {} more bad lines", path.display(), loaded.bad_count - SHOWN);
    }
    Ok(loaded)
}

/// Loads a checkpoint's model with its run.
pub(super) fn load(checkpoint: &CheckpointArg, device: &Device) -> Result<(GraphRun, GraphAf)> {
    Ok(flow_core::train::load(&checkpoint.folder(PROGRAM), device, !checkpoint.raw_weights)?)
}

/// Molecules as sequences; those that the model cannot express are counted by reason.
pub(super) struct Expressed {
    /// In the order of the molecules, `None` for those left out.
    sequences: Vec<Option<Sequence>>,
    refused: BTreeMap<String, usize>,
}

impl Expressed {
    /// Encodes molecules for a model.
    pub(super) fn new(molecules: impl IntoIterator<Item = Molecule>, config: &GraphAfConfig) -> Self {
        let (mut rng, mut refused) = (FlowRng::named(0, "expressible"), BTreeMap::new());
        let sequences = molecules.into_iter().map(|molecule| match express(&molecule, config, &mut rng) {
            Ok(sequence) => Some(sequence),
            Err(error) => {
                let reason = match error {
                    flow_graph::Error::Vocabulary(reason) => reason,
                    other => other.to_string(),
                };
                *refused.entry(reason).or_insert(0) += 1;
                None
            }
        });
        Expressed { sequences: sequences.collect(), refused }
    }

    /// Says on stderr what was left out; no molecule at all is an error.
    pub(super) fn check(self, source: &str) -> Result<Self> {
        for (reason, count) in &self.refused {
            eprintln!("{source}: {count} of {} molecules left out: {reason}", self.sequences.len());
        }
        if self.sequences.iter().flatten().next().is_none() {
            let reason = self.refused.keys().next().map(|reason| format!(" ({reason})"));
            bail!("{source}: no molecule that the model can express{}", reason.unwrap_or_default());
        }
        Ok(self)
    }

    /// The sequences of some molecules, without those left out.
    pub(super) fn part(&self, indices: &[usize]) -> Vec<Sequence> {
        indices.iter().filter_map(|&i| self.sequences.get(i)?.clone()).collect()
    }

    /// All sequences.
    pub(super) fn all(self) -> Vec<Sequence> {
        self.sequences.into_iter().flatten().collect()
    }
}

fn express(molecule: &Molecule, config: &GraphAfConfig, rng: &mut FlowRng) -> flow_graph::Result<Sequence> {
    let sequence = Sequence::new(molecule, &config.vocabulary)?;
    if sequence.len() > config.max_atoms {
        return Err(flow_graph::Error::Vocabulary(format!("it has more than {} atoms", config.max_atoms)));
    }
    if matches!(config.candidates, Candidates::Window(_)) {
        // Training would stop at a molecule that has no order within the window.
        random_order(&sequence, config, rng)?;
    }
    Ok(sequence)
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
    /// Whether the flag was given.
    pub(super) fn given(&self) -> bool {
        self.sa_scores.is_some()
    }

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

/// Refuses sizes that exclude each other.
pub(super) fn check_sizes(min_atoms: usize, max_atoms: Option<usize>) -> Result<()> {
    match max_atoms {
        Some(most) if most < min_atoms => bail!("--max-atoms {most} is less than --min-atoms {min_atoms}"),
        _ => Ok(()),
    }
}

/// Parses a SMILES from the command line.
pub(super) fn parse(flag: &str, smiles: &str) -> Result<Molecule> {
    flow_graph::smiles::parse(smiles).with_context(|| flag.to_string())
}
