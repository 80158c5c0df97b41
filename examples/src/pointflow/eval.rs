//! `pointflow eval`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_points::Point;
use flow_points::data::PointSet;
use flow_points::metrics::{EmdKind, EvaluateOptions, Table, evaluate};
use flow_points::model::PointFlow;
use flow_points::trainer::{PointRun, draw_clouds};

use super::common::{SolverArg, load};
use super::data::{DataArg, Part, clouds_at, subset};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};

/// Which earth mover's distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emd {
    /// Exact assignment, Euclidean cost.
    Exact,
    /// Exact assignment, squared cost.
    ExactSquared,
    /// The approximation of PointFlow's CUDA code, Euclidean cost (some 20 % too large).
    ApproxPointflow,
    /// The approximation with squared cost that PVD and LION report.
    ApproxSquared,
    /// None: Chamfer distance only.
    None,
}

/// Measure generation and reconstruction with the table of the literature
#[derive(Args, Debug)]
#[command(after_help = "\
Draws as many clouds as the test set has and compares them with it; the oracle row does the same with a random part of
the training set, which no model should beat by more than chance. Clouds are compared in the scale of the data, cut to
--points points. Numbers of different papers are comparable only for the same distance, scale and number of points.

Examples:
  pointflow eval --data chairs.npy --emd none
  pointflow eval --data chairs.npy --points 512 --json chairs.json
  pointflow eval --samples drawn.npy --data chairs.npy         clouds of another program")]
pub(super) struct EvalArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    #[command(flatten)]
    data: DataArg,
    /// Clouds to judge instead of the model's own
    #[arg(long, value_name = "PATH", conflicts_with = "device")]
    samples: Option<PathBuf>,
    /// Points of each cloud
    #[arg(long, default_value_t = 512)]
    points: usize,
    /// Which part of the data the clouds are compared with [default: test, or validation where that is empty]
    #[arg(long, value_enum)]
    split: Option<Part>,
    /// Largest number of its shapes [default: all]
    #[arg(long)]
    limit: Option<usize>,
    /// Which earth mover's distance is computed
    #[arg(long, value_enum, default_value_t = Emd::Exact)]
    emd: Emd,
    /// Also write the table as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    solver: SolverArg,
    /// Seed of draws, points and intervals
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArg,
}

/// What is compared with the data.
enum Judged<'a> {
    /// Draws of a model.
    Drawn(Box<(PointRun, PointFlow)>),
    /// Clouds of a file.
    Given(&'a Path),
}

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        at_least_one("--points", self.points)?;
        if let Some(path) = &self.json {
            check_output(path)?;
        }
        let mut rng = FlowRng::named(self.seed, "eval");
        let judged = match &self.samples {
            Some(path) => Judged::Given(path),
            None => Judged::Drawn(Box::new(load(&self.checkpoint, &self.device.open()?)?)),
        };
        let loaded = match &judged {
            Judged::Drawn(trained) => self.data.open_for(&self.checkpoint, &trained.0, self.split)?,
            Judged::Given(_) => self.data.open(0)?,
        };
        let train = loaded.train.clone();
        let (split, held_out) = match self.split {
            None if loaded.test.clouds.is_empty() => (Part::Validation, true),
            None => (Part::Test, true),
            Some(part) => (part, matches!(part, Part::Test | Part::Validation)),
        };
        let mut test = Part::choose(Some(split), loaded)?;
        if test.clouds.len() < 2 {
            bail!("{}: needs at least two shapes to compare with, has {}", test.source, test.clouds.len());
        }
        let limit = self.limit.unwrap_or(usize::MAX).min(test.clouds.len());
        test.clouds.truncate(limit);
        test.names.truncate(limit);
        let reference = subset(&test, self.points, &mut rng)?;
        let drawn = match judged {
            Judged::Drawn(trained) => self.drawn(*trained, &test, &mut rng)?,
            Judged::Given(path) => self.given(path, &test, &mut rng)?,
        };
        let order = rng.permutation(train.clouds.len());
        let order: Vec<usize> = order.into_iter().take(limit).collect();
        let oracle = if held_out { Some(subset(&train.part(&order), self.points, &mut rng)?) } else { None };
        let options = self.options()?;
        let model = evaluate(&drawn, &reference, &options, &mut rng)?;
        let train = oracle.map(|oracle| evaluate(&oracle, &reference, &options, &mut rng)).transpose()?;
        println!("{}", Table::header(&options));
        println!("{:<10} {model}", if self.samples.is_some() { "samples" } else { "model" });
        match &train {
            Some(train) => println!("{:<10} {train}", "train set"),
            None => eprintln!("note: no row of the train set, which is compared with"),
        }
        if let Some(path) = &self.json {
            let value = serde_json::json!({ "model": model, "train": train, "points": self.points });
            atomic_write(path, serde_json::to_string_pretty(&value)?.as_bytes())?;
        }
        Ok(())
    }

    /// Refuses flags of a model where given clouds are judged.
    fn check(&self) -> Result<()> {
        if self.samples.is_none() {
            return Ok(());
        }
        let flags = [&self.checkpoint.given()[..], &self.solver.given()].concat();
        refuse(&flags, "for the draws of a model, --samples judges the clouds of a file; leave one of them out")
    }

    /// As many clouds of the model as there are shapes, counted from where those are.
    fn drawn(
        &self,
        (run, model): (PointRun, PointFlow),
        test: &PointSet,
        rng: &mut FlowRng,
    ) -> Result<Vec<Vec<Point>>> {
        let solver = self.solver.options()?;
        let draw = self.solver.draw(solver.as_ref(), 1.0);
        let clouds = draw_clouds(&model, &run.normalization, test.clouds.len(), self.points, &draw, rng)?;
        let clouds = clouds_at(run.origin, clouds).into_iter();
        Ok(clouds.map(|cloud| cloud.with_origin(test.origin).points).collect())
    }

    fn given(&self, path: &Path, test: &PointSet, rng: &mut FlowRng) -> Result<Vec<Vec<Point>>> {
        let set = super::data::read_all(path, self.points.max(2048), test.origin)?;
        if set.clouds.len() != test.clouds.len() {
            let (given, count) = (set.clouds.len(), test.clouds.len());
            eprintln!("--samples {}: {given} clouds against {count} shapes", path.display());
        }
        subset(&set, self.points, rng)
    }

    fn options(&self) -> Result<EvaluateOptions> {
        let emd = match self.emd {
            Emd::Exact => Some(EmdKind::Exact),
            Emd::ExactSquared => Some(EmdKind::ExactSquared),
            Emd::ApproxPointflow => Some(EmdKind::ApproxPointflow),
            Emd::ApproxSquared => Some(EmdKind::ApproxSquared),
            Emd::None => None,
        };
        Ok(EvaluateOptions::default().with_emd(emd))
    }
}
