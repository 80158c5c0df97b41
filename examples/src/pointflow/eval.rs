//! `pointflow eval`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_points::Point;
use flow_points::metrics::{EmdKind, EvaluateOptions, Table, evaluate};
use flow_points::trainer::draw_clouds;

use super::common::{DataArg, SolverArg, load, subset};
use crate::cli::{CheckpointArg, DeviceArg, at_least_one, check_output, refuse};

/// Which earth mover's distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emd {
    /// Exact assignment, Euclidean cost.
    Exact,
    /// Exact assignment, squared cost.
    ExactSquared,
    /// PointFlow's approximation, Euclidean cost (some 20 % too large).
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
    #[arg(long, value_name = "PATH")]
    samples: Option<PathBuf>,
    /// Points of each cloud
    #[arg(long, default_value_t = 512)]
    points: usize,
    /// Largest number of test shapes [default: all]
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

impl EvalArgs {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        at_least_one("--points", self.points)?;
        if let Some(path) = &self.json {
            check_output(path)?;
        }
        let mut rng = FlowRng::named(self.seed, "eval");
        let loaded = self.data.open(0)?;
        let test = if loaded.test.clouds.is_empty() { &loaded.validation } else { &loaded.test };
        if test.clouds.len() < 2 {
            bail!("{}: needs a test set of at least two shapes, has {}", loaded.train.source, test.clouds.len());
        }
        let limit = self.limit.unwrap_or(usize::MAX).min(test.clouds.len());
        let reference = subset(&test.clouds[..limit], self.points, &mut rng)?;
        let drawn = match &self.samples {
            Some(path) => self.given(path, limit, &mut rng)?,
            None => self.drawn(limit, &mut rng)?,
        };
        let order = rng.permutation(loaded.train.clouds.len());
        let oracle: Vec<Vec<Point>> =
            order.iter().take(limit).filter_map(|&i| loaded.train.clouds.get(i).cloned()).collect();
        let oracle = subset(&oracle, self.points, &mut rng)?;
        let options = self.options()?;
        let model = evaluate(&drawn, &reference, &options, &mut rng)?;
        let train = evaluate(&oracle, &reference, &options, &mut rng)?;
        println!("{}", Table::header(&options));
        println!("{:<10} {model}", if self.samples.is_some() { "samples" } else { "model" });
        println!("{:<10} {train}", "train set");
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

    fn drawn(&self, count: usize, rng: &mut FlowRng) -> Result<Vec<Vec<Point>>> {
        let (run, model) = load(&self.checkpoint, &self.device.open()?)?;
        let solver = self.solver.options()?;
        Ok(draw_clouds(&model, &run.normalization, count, self.points, &self.solver.draw(solver.as_ref(), 1.0), rng)?)
    }

    fn given(&self, path: &std::path::Path, count: usize, rng: &mut FlowRng) -> Result<Vec<Vec<Point>>> {
        let set = super::common::read_all(path, self.points.max(2048))?;
        if set.len() != count {
            eprintln!("--samples {}: {} clouds against {count} of the test set", path.display(), set.len());
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
