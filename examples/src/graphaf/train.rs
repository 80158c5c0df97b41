//! `graphaf train`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_core::train::{Summary, TrainConfig};
use flow_graph::Molecule;
use flow_graph::data::{Duplicates, Loaded, Shared, Splits};
use flow_graph::metrics::{Reference, evaluate};
use flow_graph::model::{GraphAf, GraphAfConfig, Head, LARGEST_MOLECULE, SampleOptions, Sequence, Vocabulary};
use flow_graph::trainer::{self, GraphRun, GraphTask, random_order};

use super::common::{DataArg, Expressed};
use super::output::{self, Row};
use super::sample::draw;
use super::split::Cut;
use crate::cli::{at_least_one, configured, counted};
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, RunArg, Trained};

/// Steps of the built-in demonstration: where the held-out likelihood of its few hundred molecules is best.
const DEMO_STEPS: u64 = 1500;
/// Steps of any other run, unless told.
const STEPS: u64 = 12_000;

/// A preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// Atoms and bonds drawn from exact probabilities, by a graph network that sees what every atom has bonded so far.
    Spline,
    /// The paper's: nine elements without charges, twelve affine flow layers.
    Paper,
}

/// Which atoms the model knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Types {
    /// Those of the data, with their charges.
    Data,
    /// The paper's nine elements; charges are dropped.
    Paper,
}

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Without arguments: the built-in drugs and metabolites; leaves samples.smi, samples.png, loss.png and checkpoints in
flow-out/graphaf. A run that was stopped (Ctrl-C, power) goes on with --resume and, if it was given, --out, to the same bits.

Examples:
  graphaf train --data zinc250k.smi.gz --test-indices valid_idx_zinc250k.json --out runs/zinc
  graphaf train --data mine.csv --column structure --out runs/mine --steps 5000 --preview-every 500
  graphaf train --data zinc250k.smi.gz --out runs/zinc90 --steps 12000 --minutes 90
  graphaf train --data zinc250k.smi.gz --model paper --out runs/paper --epochs 10 --schedule constant",
    mut_arg("steps", default_is("1500 for the built-in molecules, else 12000")),
    mut_arg("batch_size", default_is("64, the paper's model 32; at most the number of training molecules")),
    mut_arg("learning_rate", default_is("0.002, the paper's model 0.001")),
    mut_arg("warmup", default_is("a twentieth of the run, at most 200")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.999")),
    mut_arg("clip", default_is("1")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500"))
)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    data: DataArg,
    /// The entries of the file that are held out as test set, as JSON: an array of numbers, or an object that holds one as
    /// QM9's does [default: a random tenth]
    #[arg(long, value_name = "FILE")]
    test_indices: Option<PathBuf>,
    /// Keep each molecule once (by canonical SMILES without stereo), so that no test molecule is trained on
    #[arg(long)]
    dedup: bool,
    /// Folder for checkpoints, log, samples
    #[arg(long, default_value = "flow-out/graphaf", value_name = "FOLDER")]
    out: PathBuf,
    /// Preset, see `graphaf info --presets`
    #[arg(long, value_enum, default_value_t = Preset::Spline)]
    model: Preset,
    /// Model configuration as JSON; what it does not set is the preset's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Atom types [default: those of the data, for the paper's model the paper's]
    #[arg(long, value_enum)]
    vocabulary: Option<Types>,
    /// Length of the whole run in passes over the data, instead of --steps
    #[arg(long, conflicts_with = "steps")]
    epochs: Option<f64>,
    /// Width of the graph network
    #[arg(long)]
    width: Option<usize>,
    /// Layers of the graph network
    #[arg(long)]
    layers: Option<usize>,
    /// Widths of the networks that choose atoms and bonds, comma-separated (spline)
    #[arg(long, value_delimiter = ',')]
    hidden: Option<Vec<usize>>,
    /// Leave out larger molecules, and draw none
    #[arg(long)]
    max_atoms: Option<usize>,
    /// Molecules drawn at the end
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--samples", self.samples)?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let (seed, usual) = (self.engine.seed(), self.engine.batch(self.recipe_batch())?);
        let loaded = self.data.open()?;
        let splits = self.splits(&loaded, seed)?;
        let model = self.plan(&loaded)?;
        let expressed = Expressed::new(loaded.molecules.iter(), &model).check(&loaded.source)?;
        let train = expressed.part(&splits.train);
        // The recipe's batch is made smaller for few molecules; one that was asked for is refused instead.
        let batch = self.engine.batch(usual.min(train.len()))?;
        let run = GraphRun::new(model, loaded.source.as_str(), batch, seed);
        let config = self.engine_config(&place, train.len(), batch)?;
        let task = GraphTask::new(run, train, expressed.part(&splits.validation), &device)?;
        let test = expressed.part(&splits.test);
        drop(expressed);
        let parameters = task.model().store().parameter_count();
        let steps = config.steps;
        let Trained { summary, report, .. } = training::train(config, place, task, || {
            self.list_bad_lines(&loaded)?;
            eprintln!("GraphAF with {parameters} parameters, batch {batch}, {steps} steps");
            Ok(())
        })?;
        plot_log(&self.out, "bits_per_atom", "bits/atom")?;
        if !report {
            return Ok(());
        }
        self.report(&summary, &loaded, &splits, &test, &device)
    }

    /// Cuts the molecules, and says what the parts are and what they have in common.
    fn splits(&self, loaded: &Loaded, seed: u64) -> Result<Splits> {
        let duplicates = Duplicates::of(&loaded.molecules);
        let cut = Cut { test_indices: self.test_indices.as_deref(), dedup: self.dedup.then_some(&duplicates), seed };
        let splits = cut.of(loaded)?;
        let Splits { train, validation, test, missing } = &splits;
        let how = match &self.test_indices {
            Some(path) => format!("test part by {}", path.display()),
            None => format!("parts by seed {seed}"),
        };
        eprintln!("{} training, {} validation, {} test molecules ({how})", train.len(), validation.len(), test.len());
        if *missing > 0 {
            eprintln!("{missing} of the test indices name bad lines");
        }
        let Shared { repeated, validation: in_validation, test: in_test } = duplicates.shared(&splits);
        let left = train.len() + validation.len() + test.len();
        if self.dedup {
            eprintln!(
                "{} molecules removed that were there already (canonical SMILES without stereo)",
                loaded.len() - left
            );
        } else if repeated > 0 {
            let what = "molecules are there already (canonical SMILES without stereo)";
            eprintln!(
                "{repeated} of {} {what}; {in_test} of {} test and {in_validation} of {} validation molecules are trained \
                 on too; --dedup removes them",
                loaded.len(),
                test.len(),
                validation.len()
            );
        }
        Ok(splits)
    }

    fn recipe_batch(&self) -> usize {
        if self.model == Preset::Paper { 32 } else { 64 }
    }

    /// The model from preset, data, file and flags, each before the next.
    fn plan(&self, loaded: &Loaded) -> Result<GraphAfConfig> {
        let largest = loaded.molecules.iter().map(|m| m.len()).max().unwrap_or(1).min(LARGEST_MOLECULE);
        let by_preset = if self.model == Preset::Paper { Types::Paper } else { Types::Data };
        let vocabulary = |types: Types| match types {
            Types::Data => Vocabulary::of(loaded.molecules.iter()),
            Types::Paper => Ok(Vocabulary::paper()),
        };
        let preset = vocabulary(self.vocabulary.unwrap_or(by_preset))?;
        let mut model = match self.model {
            Preset::Paper => GraphAfConfig::paper(preset, largest),
            Preset::Spline => GraphAfConfig::spline(preset, largest),
        };
        if let Some(path) = &self.config {
            model = configured(&model, path).with_context(|| path.display().to_string())?;
        }
        if let Some(types) = self.vocabulary {
            model.vocabulary = vocabulary(types)?;
        }
        self.adjust(&mut model)?;
        Ok(model)
    }

    fn adjust(&self, model: &mut GraphAfConfig) -> Result<()> {
        model.max_atoms = self.max_atoms.unwrap_or(model.max_atoms);
        model.width = self.width.unwrap_or(model.width);
        model.layers = self.layers.unwrap_or(model.layers);
        if let Some(hidden) = &self.hidden {
            let Head::Categorical { hidden: current } = &mut model.head else {
                bail!("--hidden is for the spline model; write a --config file");
            };
            current.clone_from(hidden);
        }
        Ok(model.check()?)
    }

    fn engine_config(&self, place: &RunArg<'_>, molecules: usize, batch: usize) -> Result<TrainConfig> {
        let demo = self.data.data == Path::new("builtin");
        let steps = match self.epochs {
            Some(epochs) if epochs > 0.0 && epochs.is_finite() => {
                (epochs * molecules as f64 / batch.max(1) as f64).ceil() as u64
            }
            Some(epochs) => bail!("--epochs must be a positive number, got {epochs}"),
            None if demo => DEMO_STEPS,
            None => STEPS,
        };
        self.engine.config(place, steps, |steps| {
            let mut config = trainer::train_config(steps, self.engine.seed());
            config.optimizer.learning_rate = if self.model == Preset::Paper { 1e-3 } else { 2e-3 };
            config.validate_every = Some(250);
            config.checkpoint_every = Some(500);
            config
        })
    }

    fn list_bad_lines(&self, loaded: &Loaded) -> Result<()> {
        if loaded.bad.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for bad in &loaded.bad {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{bad}");
        }
        Ok(atomic_write(&self.out.join("bad_lines.txt"), text.as_bytes())?)
    }

    /// Samples, pictures and the one-line summary, from the checkpoint on disk.
    fn report(
        &self,
        summary: &Summary,
        loaded: &Loaded,
        splits: &Splits,
        test: &[Sequence],
        device: &Device,
    ) -> Result<()> {
        let (_, model) = flow_core::train::load::<GraphRun>(&self.out, device, true)?;
        let molecules = draw(&model, self.samples, &SampleOptions::default(), self.engine.seed())?;
        let rows: Vec<Row> = molecules.iter().flatten().cloned().map(Row::plain).collect();
        output::write(&[self.out.join("samples.smi"), self.out.join("samples.png")], &rows, None)?;
        let mut unruly = SampleOptions::default();
        unruly.valid = false;
        let free = draw(&model, self.samples, &unruly, self.engine.seed())?;
        // A draw in which an atom got no bond is none.
        let free = free.iter().flatten().filter(|m| m.check_valences().is_ok()).count() as f64 / self.samples as f64;
        let train: Vec<Molecule> = splits.train.iter().filter_map(|&i| loaded.molecules.get(i)).collect();
        let reference = Reference::new::<&str>(&train, &[], None);
        let report = evaluate(&molecules, Some(&reference), None);
        let of_data = report.reference_small.unwrap_or(report.small);
        println!(
            "{}; of {} drawn {:.1} % valid ({:.1} % without the rules), {:.1} % different, {:.1} % of those new, \
             {:.1} % under 5 and {:.1} % under 10 atoms (training molecules {:.1} and {:.1} %); {} steps in {:.0} s; {}",
            self.test_bits(&model, test)?,
            report.generated,
            100.0 * report.validity,
            100.0 * free,
            100.0 * report.uniqueness.map_or(0.0, |u| u.all),
            100.0 * report.novelty.map_or(0.0, |n| n.honest),
            100.0 * report.small.under_5,
            100.0 * report.small.under_10,
            100.0 * of_data.under_5,
            100.0 * of_data.under_10,
            summary.step,
            summary.seconds,
            self.out.join("samples.png").display()
        );
        Ok(())
    }

    /// What the model says of held-out molecules.
    fn test_bits(&self, model: &GraphAf, test: &[Sequence]) -> Result<String> {
        const MOLECULES: usize = 1000;
        let mut rng = FlowRng::named(self.engine.seed(), "report");
        let orders = test.iter().take(MOLECULES).map(|s| random_order(s, model.config(), &mut rng));
        let orders = orders.collect::<flow_graph::Result<Vec<_>>>()?;
        if orders.is_empty() {
            return Ok("no test molecules".into());
        }
        let bits = model.log_prob(&orders, &mut rng)?.bits_per_atom();
        Ok(format!("test {bits:.4} bits/atom over {}", counted(orders.len(), "molecule")))
    }
}
