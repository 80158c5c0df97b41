//! `density straighten`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Args;
use flow_core::FlowRng;
use flow_core::cnf::matching::{ReflowConfig, ReflowPairs, ReflowTask};
use flow_core::cnf::ode::Method;
use flow_core::train::{OptimizerConfig, Summary, TrainConfig, find_checkpoint};
use flow_density::data::Data;
use flow_density::model::{END_TIME, Kind, Model, Purpose};
use flow_density::trainer::{DensityRun, Straightened};

use super::common::{PROGRAM, evaluate, load, load_from};
use super::picture::{self, PictureArg, Shown};
use super::reading::{data_of, print};
use super::train::{STEPS, recipe};
use crate::cli::{CheckpointArg, at_least_one};
use crate::engine::{EngineArgs, default_is};
use crate::paths::{Paths, Report, SOLVED};
use crate::plot::plot_log;
use crate::training::{self, Trained};

/// Pairs drawn from the teacher at once.
const CHUNK: usize = 4096;
/// Pairs that validations and the report look at.
const HELD_OUT: usize = 4096;

/// Straighten the paths of a continuous flow, or distil it into one step
#[derive(Args, Debug)]
#[command(
    after_help = "\
Draws noise and what the trained flow makes of it, and matches a copy of the flow with these pairs (reflow, Liu et al. 2023):
its paths no longer cross and become straight, so that few steps suffice. With --distill the copy learns to draw the
pairs in one step instead; it then has samples but no density. Leaves in the folder what `train` leaves, and prints how
straight paths were and are, and how far few-step samples lie from the exact ones of the same noise.

Examples:
  density train --data pinwheel --model matching --out runs/pinwheel
  density straighten --checkpoint runs/pinwheel --out runs/straight
  density straighten --checkpoint runs/straight --distill --out runs/one-step
  density sample --checkpoint runs/one-step --count 100000 --out points.csv",
    mut_arg("steps", default_is("3000")),
    mut_arg("batch_size", |arg| arg.help("Pairs per step [default: 512]")),
    mut_arg("learning_rate", default_is("0.001")),
    mut_arg("warmup", default_is("half of the run, at most 100")),
    mut_arg("schedule", default_is("cosine to a hundredth")),
    mut_arg("ema", default_is("0.995")),
    mut_arg("clip", default_is("5")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500")),
    mut_arg("preview_every", |arg| arg.hide(true))
)]
pub(super) struct StraightenArgs {
    #[command(flatten)]
    checkpoint: CheckpointArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/density-straight", value_name = "FOLDER")]
    out: PathBuf,
    /// Learn to draw in one step
    #[arg(long)]
    distill: bool,
    /// Pairs of noise and samples to draw
    #[arg(long, default_value_t = 50_000)]
    pairs: usize,
    #[command(flatten)]
    style: PictureArg,
    #[command(flatten)]
    engine: EngineArgs,
}

impl StraightenArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--pairs", self.pairs)?;
        self.engine.without_previews("straightening draws its pictures at the end of the run; leave it out")?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let (config, batch) = (
            self.engine.config(&place, STEPS, |steps| TrainConfig {
                optimizer: OptimizerConfig::adam(1e-3),
                ..recipe(Kind::Matching, steps)
            })?,
            self.engine.batch(512)?,
        );
        let (taught, teacher) = load(&self.checkpoint, &device)?;
        ensure!(
            taught.model.kind.is_continuous(),
            "straightening is for continuous flows, the checkpoint is of a {}",
            taught.model.kind
        );
        ensure!(!taught.is_distilled(), "the checkpoint is distilled already: it has no paths to straighten");
        ensure!(
            taught.classes().is_none(),
            "the checkpoint is of a density given the class, whose paths are not straightened: train one without \
             --class-column"
        );
        let run = self.plan(taught, batch)?;
        let reason = format!("for data of the plane, these have {} columns; leave it out", run.features());
        self.style.check(run.features() == 2, &reason)?;
        let data = data_of(&run)?;
        print(&data);
        let student = run.model(Purpose::Training, &device)?;
        eprintln!("drawing {} pairs", self.pairs);
        let draw = |count, name| draw_pairs(&teacher, count, &mut FlowRng::named(self.engine.seed(), name));
        let pairs = [draw(self.pairs, "pairs")?, draw(HELD_OUT, "held-out pairs")?];
        let learned = ReflowConfig::new(END_TIME).distill(self.distill).batch(batch).times_per_group(1);
        let copy = (student.store(), student.field().context("a discrete flow has no paths")?);
        let task = ReflowTask::new(serde_json::to_value(&run)?, learned, copy, teacher.store(), pairs)?;
        let held_out = task.held_out().clone();
        let Trained { summary, report, .. } = training::train(config, place, task, || Ok(()))?;
        plot_log(&self.out, "error", "squared error")?;
        if report { self.report(&summary, &teacher, &held_out, &data) } else { Ok(()) }
    }

    /// The run of the copy.
    fn plan(&self, taught: DensityRun, batch: usize) -> Result<DensityRun> {
        let teacher = find_checkpoint(&self.checkpoint.folder(PROGRAM))?.display().to_string();
        let straightened = Some(Straightened { teacher, pairs: self.pairs, distilled: self.distill });
        // The seed stays the teacher's: it decides which rows of a table are held out.
        let mut run = DensityRun { straightened, batch, ..taught };
        run.model.kind = Kind::Matching;
        Ok(run)
    }

    /// How straight paths are and how far few steps lead, before and after, and the pictures of the copy.
    fn report(&self, summary: &Summary, teacher: &Model, held_out: &ReflowPairs, data: &Data) -> Result<()> {
        let (run, student) = load_from(&self.out, &self.engine.device()?, true)?;
        let report = Report { before: paths(teacher, held_out)?, after: paths(&student, held_out)? };
        report.print_and_write(&self.out)?;
        let mut seen: &Path = &self.out.join("loss.png");
        let samples = self.out.join("samples.png");
        if run.features() == 2 {
            seen = &samples;
            if self.distill {
                let noise = student.latents(HELD_OUT, 1.0, &mut FlowRng::named(self.engine.seed(), "picture"))?;
                let drawn = student.in_steps(&noise, None, Method::Euler, 1)?.context("a continuous flow")?;
                picture::samples(&run, Shown::of(data), &drawn, self.style.pixels(), &samples, self.engine.seed())?;
            } else {
                picture::write_all(&student, &run, Shown::of(data), self.style, &self.out, self.engine.seed())?;
            }
        }
        let likelihood = match self.distill {
            true => String::new(),
            false => format!("{}; ", evaluate(&student, &run, data, 20_000, run.seed)?),
        };
        println!("{likelihood}{} steps in {:.0} s; {}", summary.step, summary.seconds, seen.display());
        Ok(())
    }
}

/// The paths of a flow from the noise of these pairs.
fn paths(model: &Model, pairs: &ReflowPairs) -> Result<Paths> {
    let _paused = model.store().no_grad();
    let field = model.field().context("a discrete flow has no paths")?;
    let [noise, samples] = pairs.rows()?;
    Paths::of(&*field, &noise, &samples, None, END_TIME)
}

/// `count` rows of noise and what a flow makes of them, standardised, each a group of its own.
fn draw_pairs(teacher: &Model, count: usize, rng: &mut FlowRng) -> Result<ReflowPairs> {
    let noise = teacher.latents(count, 1.0, rng)?;
    let mut samples = Vec::new();
    for start in (0..count).step_by(CHUNK) {
        let part = noise.narrow(0, start, CHUNK.min(count - start))?;
        samples.push(teacher.in_steps(&part, None, Method::Rk4, SOLVED)?.context("a continuous flow")?);
    }
    let data = Tensor::cat(&samples, 0)?.unsqueeze(1)?;
    Ok(ReflowPairs { noise: noise.unsqueeze(1)?, data, context: None })
}
