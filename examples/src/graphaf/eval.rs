//! `graphaf eval`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use flow_core::files::atomic_write;
use flow_graph::data::Loaded;
use flow_graph::metrics::{Reference, Report, evaluate};
use flow_graph::model::{GraphAf, SampleOptions};
use flow_graph::trainer::GraphRun;
use flow_graph::{Molecule, SaScorer, smiles};
use serde::Serialize;

use super::common::{Expressed, ScorerArg, TableArg, check_temperature, load, read};
use super::reconstruct::{Returned, there_and_back};
use super::sample::draw;
use super::split::{Part, SplitArg};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};

/// Measure validity, uniqueness, novelty, reconstruction and distributions
#[derive(Args, Debug)]
#[command(after_help = "\
Validity is given as the model draws (a choice that breaks a valence is excluded) and without that rule, where a draw
in which an atom got no bond is no molecule either. Novelty is
given in two conventions: canonical SMILES without stereo against the same of the reference (honest), and against the
strings as the reference's file spells them (what papers print; by that rule 63 % of ZINC250k's own molecules are new).
No molecule is left out for its size. Without --reference a model is held against the file that it was trained on, without
--split against the molecules of it that it was trained on.

Examples:
  graphaf eval                                              the model that `train` left
  graphaf eval --checkpoint runs/zinc --reference zinc250k.smi.gz --json zinc.json
  graphaf eval --samples generated.smi --reference zinc250k.smi.gz")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Molecules to measure instead of drawing some, in any format that `train` reads; a bad line is invalid
    #[arg(long, value_name = "PATH", conflicts_with_all = ["checkpoint", "seed", "device"])]
    samples: Option<PathBuf>,
    /// Molecules to compare with, usually the training set [default: the file that the model was trained on]
    #[arg(long, value_name = "PATH")]
    reference: Option<PathBuf>,
    #[command(flatten)]
    split: SplitArg,
    #[command(flatten)]
    table: TableArg,
    /// Molecules to draw, and as many again without the valence rule [default: 10000]
    #[arg(long)]
    count: Option<usize>,
    /// Molecules of the reference to turn into latents and back [default: 1000]
    #[arg(long)]
    reconstruct: Option<usize>,
    /// Temperature of the draws [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Measure what is drawn without the valence rule
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

/// What is found out about a model besides its samples.
#[derive(Debug, Default, Serialize)]
struct OfModel {
    /// Share of valid molecules without the rule of valence.
    validity_unchecked: Option<f64>,
    reconstruction: Option<Returned>,
    molecules_per_second: f64,
}

/// The content of the JSON file.
#[derive(Debug, Serialize)]
struct Everything {
    #[serde(flatten)]
    report: Report,
    model: Option<OfModel>,
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        at_least_one("--count", self.count())?;
        check_temperature(self.temperature.unwrap_or(1.0))?;
        self.json.as_deref().map_or(Ok(()), check_output)?;
        let scorer = self.scorer.open()?;
        match &self.samples {
            Some(path) => self.file(path, scorer.as_ref()),
            None => self.model(scorer.as_ref()),
        }
    }

    /// Refuses flags that measuring a file does not read.
    fn check(&self) -> Result<()> {
        let flags = [
            self.split.given()[0],
            self.split.given()[1],
            ("--raw-weights", self.checkpoint.raw_weights),
            ("--count", self.count.is_some()),
            ("--reconstruct", self.reconstruct.is_some()),
            ("--temperature", self.temperature.is_some()),
            ("--unchecked", self.unchecked),
        ];
        let reason = "for the draws of a model, --samples measures the molecules of a file; leave one of them out";
        if self.samples.is_some() { refuse(&flags, reason) } else { Ok(()) }
    }

    fn count(&self) -> usize {
        self.count.unwrap_or(10_000)
    }

    fn file(&self, path: &Path, scorer: Option<&SaScorer>) -> Result<()> {
        let files: Vec<&Path> = std::iter::once(path).chain(self.reference.as_deref()).collect();
        self.table.check(&files)?;
        let loaded = read(path, &self.table)?;
        // Of a molecule in pieces all pieces count, as they stand in the file.
        let whole = |(text, index): (&str, usize)| smiles::parse(text).ok().or_else(|| loaded.molecules.get(index));
        let whole = loaded.source_strings.iter().zip(0..).map(whole);
        let molecules: Vec<_> = whole.chain(std::iter::repeat_n(None, loaded.bad_count)).collect();
        let reference = self.reference.as_deref().map(|path| read(path, &self.table)).transpose()?;
        let all = |loaded: &Loaded| (0..loaded.len()).collect::<Vec<_>>();
        let reference = reference.map(|loaded| prepared(&loaded, &all(&loaded), scorer));
        self.tell(evaluate(&molecules, reference.as_ref(), scorer), None)
    }

    fn model(&self, scorer: Option<&SaScorer>) -> Result<()> {
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let reference = self.reference_of(&run)?;
        let mut options = SampleOptions::default();
        options.temperature = self.temperature.unwrap_or(1.0);
        options.valid = !self.unchecked;
        let start = Instant::now();
        let drawn = draw(&model, self.count(), &options, self.seed)?;
        let mut of_model =
            OfModel { molecules_per_second: self.count() as f64 / start.elapsed().as_secs_f64(), ..OfModel::default() };
        eprintln!("{} molecules drawn at {:.0} molecules/s", self.count(), of_model.molecules_per_second);
        if !self.unchecked {
            options.valid = false;
            let free = draw(&model, self.count(), &options, self.seed)?;
            of_model.validity_unchecked = Some(evaluate(&free, None, None).validity);
        }
        if let Some((loaded, places)) = &reference {
            of_model.reconstruction = self.reconstruction(&model, loaded, places)?;
        }
        let reference = reference.map(|(loaded, places)| prepared(&loaded, &places, scorer));
        self.tell(evaluate(&drawn, reference.as_ref(), scorer), Some(of_model))
    }

    /// The molecules to compare with, and the places of those that are chosen: those asked for, or those of the training
    /// where they are still there.
    fn reference_of(&self, run: &GraphRun) -> Result<Option<(Loaded, Vec<usize>)>> {
        let path = self.reference.clone().unwrap_or_else(|| PathBuf::from(&run.source));
        self.table.check(&[&path])?;
        match read(&path, &self.table) {
            Ok(loaded) => {
                let places = self.split.choose(Part::Train, &loaded, &self.checkpoint, run)?;
                Ok(Some((loaded, places)))
            }
            Err(error) if self.reference.is_some() || self.split.given().iter().any(|(_, given)| *given) => Err(error),
            Err(error) => {
                eprintln!("no comparison with the training set: {error} (name it with --reference)");
                Ok(None)
            }
        }
    }

    fn reconstruction(&self, model: &GraphAf, loaded: &Loaded, places: &[usize]) -> Result<Option<Returned>> {
        let some = places.iter().take(self.reconstruct.unwrap_or(1000));
        let some = some.filter_map(|&place| loaded.molecules.get(place));
        let sequences = Expressed::new(some, model.config()).all();
        if sequences.is_empty() { Ok(None) } else { there_and_back(model, &sequences, self.seed).map(Some) }
    }

    fn tell(&self, report: Report, model: Option<OfModel>) -> Result<()> {
        if let Some(model) = &model {
            if let Some(validity) = model.validity_unchecked {
                println!("{:<12}{:6.2} %  (as the model is, without the rule of valence)", "valid", 100.0 * validity);
            }
            if let Some(reconstruction) = &model.reconstruction {
                println!("{:<12}{reconstruction}", "returned");
            }
        }
        println!("{report}");
        if let Some(path) = &self.json {
            let everything = Everything { report, model };
            atomic_write(path, serde_json::to_string_pretty(&everything)?.as_bytes())?;
        }
        Ok(())
    }
}

/// The molecules of these places, and how the file spells them.
fn prepared(loaded: &Loaded, places: &[usize], scorer: Option<&SaScorer>) -> Reference {
    let molecules: Vec<Molecule> = places.iter().filter_map(|&place| loaded.molecules.get(place)).collect();
    let strings: Vec<&str> = places.iter().filter_map(|&place| loaded.source_strings.get(place)).collect();
    Reference::new(&molecules, &strings, scorer)
}
