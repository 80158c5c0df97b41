//! `pointflow straighten`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use flow_core::FlowRng;
use flow_core::cnf::matching::ReflowPairs;
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::train::{EmaConfig, OptimizerConfig, ScheduleConfig, Summary, TrainConfig, find_checkpoint};
use flow_points::model::{Draw, PointFlow};
use flow_points::straighten::straighten;
use flow_points::trainer::{PointRun, draw_clouds};

use super::common::{PROGRAM, load};
use super::data::clouds_at;
use super::output::{WIDEST, write_plys, write_sheet};
use crate::cli::{CheckpointArg, at_least_one, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::paths::{Paths, Report, SOLVED};
use crate::plot::{Names, plot_log};
use crate::training::{self, Trained};

/// Steps in which a straightened model draws points, unless told.
const SOLVER_STEPS: usize = 4;

/// Straighten the paths of points, or distil them into one step
#[derive(Args, Debug)]
#[command(
    after_help = "\
Draws noise, latents, and the clouds that the trained model makes of them, and matches a copy of its flow of points with
these pairs (reflow, Liu et al. 2023): paths no longer cross and become straight, so that few steps suffice. With --distill
the copy learns to draw in one step instead (Wu et al. 2023); it then draws and reconstructs, its points in that one
step whatever --solver says, but has no likelihood of points and completes nothing. Encoder and flow of latents stay as
they are. Leaves in the folder what `train` leaves, and prints how straight paths were and are, and how far few steps
lead from the exact clouds of the same noise.

Examples:
  pointflow straighten
  pointflow straighten --checkpoint flow-out/pointflow-straight --distill --out runs/one-step
  pointflow sample --checkpoint runs/one-step --count 100 --points 2048 --out clouds",
    mut_arg("steps", default_is("2000")),
    mut_arg("batch_size", |arg| arg.help("Clouds per step [default: 16]")),
    mut_arg("learning_rate", default_is("0.001")),
    mut_arg("warmup", default_is("half of the run, at most 100")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.995")),
    mut_arg("clip", default_is("1")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct StraightenArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Folder for checkpoints, log, samples
    #[arg(long, default_value = "flow-out/pointflow-straight", value_name = "FOLDER")]
    out: PathBuf,
    /// Learn to draw in one step
    #[arg(long)]
    distill: bool,
    /// Number of clouds to draw from the trained model
    #[arg(long, default_value_t = 1000)]
    clouds: usize,
    /// Number of points of each of these clouds
    #[arg(long, default_value_t = 512)]
    points: usize,
    /// Steps of Heun's method in which the straightened model draws points [default: 4]; a distilled one takes one step
    #[arg(long)]
    solver_steps: Option<usize>,
    /// Number of clouds drawn at the end
    #[arg(long, default_value_t = 32)]
    samples: usize,
    #[command(flatten)]
    engine: EngineArgs,
}

impl StraightenArgs {
    pub(super) fn run(self) -> Result<()> {
        for (flag, value) in [
            ("--clouds", self.clouds),
            ("--points", self.points),
            ("--solver-steps", self.solver_steps.unwrap_or(SOLVER_STEPS)),
            ("--samples", self.samples),
        ] {
            at_least_one(flag, value)?;
        }
        let unread = self.distill && self.solver_steps.is_some();
        refuse(&[("--solver-steps", unread)], "with --distill the model draws in one step; leave one of them out")?;
        self.engine.without_previews("straightening draws no previews; see report.json and samples.png")?;
        let place = self.engine.place(&self.out)?;
        let config = self.engine.config(&place, 2000, recipe)?;
        let (taught, teacher) = load(&self.checkpoint, &self.engine.device()?)?;
        let run = self.plan(&taught)?;
        let solver = SolveOptions::new(Method::Heun, Stepping::fixed(SOLVED));
        eprintln!("drawing {} clouds of {} points", self.clouds, self.points);
        let task = straighten(&run, &teacher, self.clouds, &solver)?;
        let held_out = task.held_out().clone();
        let Trained { summary, report, .. } = training::train(config, place, task, || Ok(()))?;
        plot_log(&self.out, "error", "squared error")?;
        if report { self.report(&summary, &teacher, &held_out) } else { Ok(()) }
    }

    /// The run of the copy.
    fn plan(&self, taught: &PointRun) -> Result<PointRun> {
        let mut run = taught.clone();
        let Some(config) = run.model.objective.matching_mut() else {
            bail!("straightening is for models trained by flow matching, the checkpoint was trained by likelihood");
        };
        let (method, steps) =
            if self.distill { (Method::Euler, 1) } else { (Method::Heun, self.solver_steps.unwrap_or(SOLVER_STEPS)) };
        config.point_sampler = Some(SolveOptions::new(method, Stepping::fixed(steps)));
        config.distilled |= self.distill;
        let teacher = find_checkpoint(&self.checkpoint.folder(PROGRAM))?.display().to_string();
        run.source = format!("{} clouds drawn by {teacher}, which learned {}", self.clouds, taught.source);
        run.batch = self.engine.batch(16)?;
        run.points = self.points;
        run.seed = self.engine.seed();
        Ok(run)
    }

    /// How straight paths are and how far few steps lead, before and after, and clouds of the copy.
    fn report(&self, summary: &Summary, teacher: &PointFlow, held_out: &ReflowPairs) -> Result<()> {
        let (run, student) = flow_core::train::load::<PointRun>(&self.out, &self.engine.device()?, true)?;
        Report { before: paths(teacher, held_out)?, after: paths(&student, held_out)? }.print_and_write(&self.out)?;
        let mut rng = FlowRng::named(self.engine.seed(), "report");
        let clouds = draw_clouds(&student, &run.normalization, self.samples, 2048, &Draw::default(), &mut rng)?;
        let clouds = clouds_at(run.origin, clouds);
        write_plys(&self.out.join("samples"), &clouds, &format!("drawn by pointflow, {}", run.source))?;
        let place = self.out.join("samples.png");
        write_sheet(&place, &clouds, WIDEST, &Names::default())?;
        println!("{} steps in {:.0} s; {}", summary.step, summary.seconds, place.display());
        Ok(())
    }
}

/// The engine's configuration unless told.
fn recipe(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(1e-3),
        schedule: ScheduleConfig::cosine(steps.min(200) / 2, 0.01),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig { decay: 0.995 }),
        validate_every: Some(250),
        checkpoint_every: Some(500),
        ..TrainConfig::default()
    }
}

/// The paths of points from the noise of these pairs.
fn paths(model: &PointFlow, pairs: &ReflowPairs) -> Result<Paths> {
    let Some(config) = model.config().objective.matching() else { bail!("a model trained by flow matching") };
    let _paused = model.store().no_grad();
    let [noise, points] = pairs.rows()?;
    Paths::of(&*model.point_field(), &noise, &points, pairs.context.as_ref(), config.point.end_time)
}
