//! `density train`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use flow_core::cnf::matching::Pairing;
use flow_core::files::atomic_write;
use flow_core::train::{Checkpoints, Run, Summary, TrainConfig};
use flow_density::data::{Data, Source};
use flow_density::model::{Kind, ModelConfig};
use flow_density::trainer::{DensityRun, DensityTask, MATCHING_LOSS, NLL, train_config};

use super::common::{evaluate, in_words, load_from};
use super::family::FamilyArg;
use super::picture::{self, PictureArg, Shown};
use super::reading::{ReadingArg, print};
use crate::cli::at_least_one;
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, Trained};

/// Steps of a run, unless told.
pub(super) const STEPS: u64 = 3000;
/// Rows of a step, unless told.
const BATCH: usize = 512;

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Leaves checkpoints, log.jsonl, report.json and loss.png in the folder, and for data of the plane density.png, samples.png,
path.png and path.gif. At the end it prints the negative log-likelihood of held-out points and, for a toy, its distance
from the entropy, which no density can beat. A run that was stopped goes on with --resume and, if it was given, --out.

Examples:
  density train
  density train --data checkerboard --model maf --out runs/board
  density train --data moons --model planar --steps 4000 --out runs/moons
  density train --data 2spirals --model ffjord --out runs/spirals
  density train --data rings --model ffjord --input-gain 16 --learning-rate 3e-3 --batch-size 1024 --steps 4000
  density train --data pinwheel --model matching --steps 10000 --out runs/pinwheel
  density train --data iris.csv --columns sepal_length,petal_length --out runs/iris
  density train --data iris.csv --class-column species --out runs/iris-given-species
  density train --data survey.csv --missing drop --dequantize --out runs/survey
  density train --data power.npy --model spline --layers 10 --hidden 128,128 --out runs/power",
    mut_arg("steps", default_is("3000")),
    mut_arg("batch_size", |arg| arg.help("Points per step [default: 512, all training rows of a table with fewer]")),
    mut_arg("learning_rate", default_is("0.002, planar 0.01, ffjord 0.005")),
    mut_arg("warmup", default_is("half of the run, at most 100")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.995")),
    mut_arg("clip", default_is("5")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct TrainArgs {
    /// A toy (8gaussians, checkerboard, moons, pinwheel, 2spirals, rings, swissroll, circles), or a table of numbers
    /// (.csv, .tsv, .txt, .npy, .npz) of which a tenth is held out for validation and a tenth as test set
    #[arg(long, default_value = "8gaussians", value_name = "TOY|FILE")]
    data: String,
    #[command(flatten)]
    family: FamilyArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/density", value_name = "FOLDER")]
    out: PathBuf,
    /// Factor of the first layer's initial weights, larger for thin structures [default: ffjord 1, matching 4]
    #[arg(long, value_name = "FACTOR")]
    input_gain: Option<f64>,
    /// Tolerance of the solver in training [default: 0.001]; results are solved at 0.00001 (ffjord)
    #[arg(long)]
    tolerance: Option<f64>,
    /// Points paired with noise by exact transport at a time, 0 for independent pairs [default: 128] (matching)
    #[arg(long)]
    block: Option<usize>,
    /// Spread columns of steps (counts, grades, rounded numbers) evenly over them, so that they have a density: all whose
    /// numbers repeat, or with --dequantize=COLUMNS these; samples are rounded to the steps
    #[arg(long, value_name = "COLUMNS", num_args = 0..=1, require_equals = true, value_delimiter = ',')]
    dequantize: Option<Vec<String>>,
    /// Largest number of held-out points in the report
    #[arg(long, default_value_t = 20_000)]
    test_points: usize,
    #[command(flatten)]
    style: PictureArg,
    #[command(flatten)]
    reading: ReadingArg,
    #[command(flatten)]
    engine: EngineArgs,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--test-points", self.test_points)?;
        self.engine.without_previews("a density draws its pictures at the end of the run; leave it out")?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let config = self.engine.config(&place, STEPS, |steps| recipe(self.family.kind(), steps))?;
        self.engine.batch(BATCH)?;
        let source = Source::named(&self.data)?;
        let (mut data, reading) = self.reading.open(&source, self.engine.seed())?;
        if let Some(columns) = &self.dequantize {
            data = dequantized(data, columns)?;
        }
        print(&data);
        let batch = self.engine.batch(if data.toy().is_some() { BATCH } else { BATCH.min(data.train_rows()) })?;
        let columns = data.columns();
        let given = data.classes().is_some();
        let what = if given { "with classes".into() } else { format!("have {columns} columns") };
        self.style
            .check(is_drawn(&data), &format!("for data of the plane without classes, these {what}; leave it out"))?;
        let model = self.plan(given)?;
        let words = in_words(&model);
        let mut run = DensityRun::new(&self.data, &data, model, batch, self.engine.seed()).reading(reading);
        if place.resume {
            run = run.continuing(&DensityRun::read(&Checkpoints::new(&self.out).to_resume()?)?);
        }
        let steps = config.steps;
        let task = DensityTask::new(run, data, &device)?;
        let parameters = task.model().store().parameter_count();
        let Trained { summary, report, task } = training::train(config, place, task, || {
            eprintln!("{words}; {columns} columns, {parameters} parameters, {steps} steps of {batch} points");
            Ok(())
        })?;
        let matched = self.family.kind() == Kind::Matching;
        let (metric, label) =
            if matched { (MATCHING_LOSS, "matching loss") } else { (NLL, "negative log-likelihood (nats)") };
        plot_log(&self.out, metric, label)?;
        if !report {
            return Ok(());
        }
        self.report(&summary, task.data())
    }

    fn plan(&self, given_classes: bool) -> Result<ModelConfig> {
        let mut model = self.family.plan()?;
        if let Some(gain) = self.input_gain {
            ensure!(model.kind.is_continuous(), "--input-gain is for continuous flows, ffjord and matching");
            ensure!(gain > 0.0 && gain.is_finite(), "--input-gain must be a positive number, got {gain}");
            model.input_gain = gain;
        }
        if let Some(tolerance) = self.tolerance {
            ensure!(self.family.kind() == Kind::Ffjord, "--tolerance is for --model ffjord");
            ensure!(tolerance > 0.0 && tolerance < 1.0, "--tolerance must lie between 0 and 1, got {tolerance}");
            model.tolerance = tolerance;
        }
        if let Some(block) = self.block {
            ensure!(self.family.kind() == Kind::Matching, "--block is for --model matching");
            let transport = Pairing::MinibatchOt { block };
            model.matching.coupling = if block == 0 { Pairing::Independent } else { transport };
        }
        if self.family.kind() == Kind::Matching && given_classes {
            // Transport would pair points of one class with noise that depends on it.
            ensure!(
                self.block.is_none_or(|block| block == 0),
                "--block: points of several classes are paired with noise independently; leave it out"
            );
            model.matching.coupling = Pairing::Independent;
        }
        Ok(model)
    }

    /// Pictures, the report and its one line, from the checkpoint on disk.
    fn report(&self, summary: &Summary, data: &Data) -> Result<()> {
        let (run, model) = load_from(&self.out, &self.engine.device()?, true)?;
        let report = evaluate(&model, &run, data, self.test_points, self.engine.seed())?;
        atomic_write(&self.out.join("report.json"), serde_json::to_string_pretty(&report)?.as_bytes())?;
        let mut seen: &Path = &self.out.join("loss.png");
        let picture = self.out.join("density.png");
        if is_drawn(data) {
            picture::write_all(&model, &run, Shown::of(data), self.style, &self.out, self.engine.seed())?;
            seen = &picture;
        }
        println!("{report}; {} steps in {:.0} s; {}", summary.step, summary.seconds, seen.display());
        Ok(())
    }
}

/// Whether pictures can show the density: one of the plane, that is given nothing.
fn is_drawn(data: &Data) -> bool {
    data.columns() == 2 && data.classes().is_none()
}

/// Data with these columns spread over their steps; all whose numbers repeat, if none is named.
fn dequantized(data: Data, columns: &[String]) -> Result<Data> {
    let chosen = data.chosen().clone();
    let place = |entry: &String| {
        chosen.place(entry).with_context(|| format!("--dequantize: no column '{entry}' among {chosen}"))
    };
    Ok(data.dequantized(&columns.iter().map(place).collect::<Result<Vec<_>>>()?)?)
}

/// The recipe of a family, with the intervals of a program.
pub(super) fn recipe(kind: Kind, steps: u64) -> TrainConfig {
    TrainConfig { validate_every: Some(250), checkpoint_every: Some(500), ..train_config(kind, steps, 0) }
}
