//! Flags and loading that several verbs share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_graph::data::{Components, Loaded, OpenOptions, is_table, open};
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
    #[command(flatten)]
    pub(super) table: TableArg,
}

impl DataArg {
    /// Reads the file and says on stderr what was in it.
    pub(super) fn open(&self) -> Result<Loaded> {
        self.table.check(&[&self.data])?;
        read(&self.data, &self.table)
    }
}

/// How a table of molecules is read.
#[derive(Args, Debug, Clone)]
pub(super) struct TableArg {
    /// Column of SMILES in a table [default: the first whose name says so, as smiles and CanonicalSMILES do]
    #[arg(long)]
    column: Option<String>,
    /// What separates the fields of a table: a character, or "tab" [default: , ; tab or |, by the header]
    #[arg(long, value_parser = separator)]
    separator: Option<u8>,
}

impl TableArg {
    /// The flags, each with whether it was given.
    pub(super) fn given(&self) -> [(&'static str, bool); 2] {
        [("--column", self.column.is_some()), ("--separator", self.separator.is_some())]
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::default();
        options.column.clone_from(&self.column);
        options.separator = self.separator;
        options
    }

    /// Refuses the flags where none of the files is a table. What cannot be read is for the reader to say.
    pub(super) fn check(&self, files: &[&Path]) -> Result<()> {
        let options = self.options();
        let any = files.iter().any(|file| is_table(file, &options).unwrap_or(true));
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let unread = self.given().map(|(flag, given)| (flag, given && !any));
        refuse(&unread, &format!("for tables (.csv, .tsv), {} is none; leave it out", names.join(", ")))
    }
}

/// The separator that a flag names.
fn separator(text: &str) -> std::result::Result<u8, String> {
    match (text, text.as_bytes()) {
        ("tab" | "\\t", _) => Ok(b'\t'),
        (_, [byte]) if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(*byte),
        _ => Err("expected one character such as ; or the word tab".into()),
    }
}

/// Reads a file of molecules and says on stderr what was in it.
pub(super) fn read(path: &Path, table: &TableArg) -> Result<Loaded> {
    let loaded = open(path, &table.options())?;
    say(&loaded);
    Ok(loaded)
}

/// Says on stderr what a source held.
pub(super) fn say(loaded: &Loaded) {
    const SHOWN: usize = 5;
    eprintln!("{}", loaded.summary());
    for bad in loaded.bad.iter().take(SHOWN) {
        eprintln!("{}: {bad}", loaded.source);
    }
    if loaded.bad_count > SHOWN {
        eprintln!("{}: {} more bad lines", loaded.source, loaded.bad_count - SHOWN);
    }
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

/// Parses a SMILES from the command line, as one of a file is read: of a salt the largest component.
pub(super) fn parse(flag: &str, smiles: &str) -> Result<Molecule> {
    let loaded = Loaded::from_strings(&[smiles], flag, Components::Largest);
    match loaded.molecules.get(0) {
        Some(molecule) => {
            if loaded.multi_component > 0 {
                eprintln!("{}", loaded.summary());
            }
            Ok(molecule)
        }
        None => {
            flow_graph::smiles::parse(smiles).map(drop).with_context(|| flag.to_string())?;
            bail!("{flag}: {}", loaded.bad.first().map(ToString::to_string).unwrap_or_default())
        }
    }
}
