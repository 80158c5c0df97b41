//! `pointflow train`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::FlowRng;
use flow_core::cnf::matching::Pairing;
use flow_core::train::{Summary, TrainConfig};
use flow_points::Point;
use flow_points::data::{Loaded, Normalization, NormalizeMode, PointSet};
use flow_points::model::{Draw, Objective, PointFlowConfig};
use flow_points::trainer::{self, PointRun, PointTask, draw_clouds, from_tensor, to_tensor};

use super::common::Preset;
use super::data::{DataArg, clouds_at, distances, halves, list};
use super::output::{WIDEST, pair_names, write_sheet};
use crate::cli::{at_least_one, configured, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::{Names, plot_log};
use crate::training::{self, RunArg, Trained};

/// Steps of the built-in demonstration.
const DEMO_STEPS: u64 = 3000;
/// Steps of any other run, unless told.
const STEPS: u64 = 20_000;
/// Points of a cloud in a step of the demonstration, and of any other run.
const DEMO_POINTS: usize = 512;
const POINTS: usize = 2048;
/// Clouds of a step, and clouds drawn at the end.
const BATCH: usize = 16;
const SAMPLES: usize = 32;

/// How data are brought to the scale of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Normalize {
    /// The training set's mean and one scale (the paper's).
    Set,
    /// A scale for each axis.
    Axis,
    /// Nothing.
    Nothing,
}

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Without arguments: procedural shapes of five families; leaves PLYs, samples.png, reconstructions.png, loss.png and
checkpoints in flow-out/pointflow. A run that was stopped (Ctrl-C, power) goes on with --resume and, if it was given, --out,
to the same bits.

Examples:
  pointflow train --families chair,plane
  pointflow train --data chairs.npy --out runs/chairs --minutes 60
  pointflow train --data ShapeNetCore.v2.PC15k/03001627 --out runs/paper --model paper
  pointflow train --data models/ --out runs/models --rotate --preview-every 1000",
    mut_arg("steps", default_is("3000 for the built-in shapes, else 20000")),
    mut_arg("batch_size", |arg| arg.help("Clouds per step [default: 16, at most the number of training shapes]")),
    mut_arg("learning_rate", default_is("0.004 for flow matching, 0.002 for likelihood")),
    mut_arg("warmup", default_is("for flow matching a twentieth of the run, at most 200; for likelihood 0")),
    mut_arg("schedule", default_is("for flow matching cosine to a hundredth, for likelihood linear")),
    mut_arg("ema", default_is("0.999 for flow matching, 0 for likelihood")),
    mut_arg("clip", default_is("1 for flow matching, 0 for likelihood")),
    mut_arg("validate_every", default_is("250")),
    mut_arg("checkpoint_every", default_is("500"))
)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    data: DataArg,
    /// Folder for checkpoints, log, samples
    #[arg(long, default_value = "flow-out/pointflow", value_name = "FOLDER")]
    out: PathBuf,
    /// Preset, see `pointflow info --presets` [default: small for the built-in shapes, else embedded]
    #[arg(long, value_enum)]
    model: Option<Preset>,
    /// Model configuration as JSON; what it does not set is the preset's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Points of a cloud per step [default: 2048, for the built-in shapes 512]
    #[arg(long)]
    points: Option<usize>,
    /// Width of the point flow's hidden layers
    #[arg(long)]
    width: Option<usize>,
    /// Length of a shape's latent
    #[arg(long)]
    latent: Option<usize>,
    /// Weight of the posterior's divergence from the standard normal (flow matching)
    #[arg(long)]
    kl_weight: Option<f64>,
    /// Pair points with noise by exact transport within blocks of this size (flow matching)
    #[arg(long, value_name = "POINTS")]
    transport: Option<usize>,
    /// Scale of the data
    #[arg(long, value_enum, default_value_t = Normalize::Set)]
    normalize: Normalize,
    /// Turn every cloud about the vertical axis by a random angle
    #[arg(long)]
    rotate: bool,
    /// Stretch the second half of a step's clouds by up to e^W and taper them: for long runs on few shapes (flow matching)
    #[arg(long, default_value_t = 0.0, value_name = "W")]
    warp: f64,
    /// Draw the points of a step with replacement, as the reference implementation does
    #[arg(long)]
    replacement: bool,
    /// Clouds drawn at the end [default: 32]
    #[arg(long)]
    samples: Option<usize>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Refuses clouds of fewer points than a step takes, by name and with what to do.
fn check_points(run: &PointRun, loaded: &Loaded) -> Result<()> {
    let small = |set: &PointSet| if run.replacement { vec![] } else { set.smaller_than(run.points) };
    let small = [small(&loaded.train), small(&loaded.validation)].concat();
    if small.is_empty() {
        return Ok(());
    }
    let sizes = loaded.train.clouds.iter().chain(&loaded.validation.clouds).map(Vec::len);
    bail!(
        "a step takes {} points of a cloud, {} have fewer: {}; give --points {}, or --replacement, or leave them out",
        run.points,
        small.len(),
        list(&small),
        sizes.min().unwrap_or(0)
    )
}

/// What the deciding number of a validation is called, where its unit does not say so.
fn quantity(objective: &Objective) -> String {
    let name = objective.deciding_metric();
    if name.contains("nats") { String::new() } else { format!("{} ", name.replace('_', " ")) }
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        at_least_one("--samples", self.samples.unwrap_or(SAMPLES))?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        let batch = self.engine.batch(BATCH)?;
        let model = self.plan()?;
        let loaded = self.data.open(self.engine.seed())?;
        let run = self.describe(model, &loaded, batch)?;
        let config = self.engine_config(&place, &run.model)?;
        let (batch, points, objective) = (run.batch, run.points, run.model.objective.clone());
        check_points(&run, &loaded)?;
        let task = PointTask::new(run, &loaded.train.clouds, &loaded.validation.clouds, &device)?;
        if !task.model().has_prior() {
            let reason = "for models that draw samples, an auto-encoder draws none; leave it out";
            refuse(&[("--samples", self.samples.is_some())], reason)?;
            self.engine.without_previews(reason)?;
        }
        let parameters = task.model().store().parameter_count();
        let steps = config.steps;
        let Trained { summary, report, .. } = training::train(config, place, task, || {
            eprintln!(
                "PointFlow with {parameters} parameters, {batch} clouds of {points} points a step, {steps} steps"
            );
            Ok(())
        })?;
        plot_log(&self.out, objective.metric(), objective.unit())?;
        if !report {
            return Ok(());
        }
        self.report(&summary, &loaded, points, &device)
    }

    fn preset(&self) -> Preset {
        self.model.unwrap_or(if self.data.is_built_in() { Preset::Small } else { Preset::Embedded })
    }

    /// The model from preset, file and flags, each before the next.
    fn plan(&self) -> Result<PointFlowConfig> {
        let mut model = self.preset().config();
        if let Some(path) = &self.config {
            model = configured(&model, path).with_context(|| path.display().to_string())?;
        }
        model.latent = self.latent.unwrap_or(model.latent);
        if let Some(width) = self.width {
            model.point.hidden.iter_mut().for_each(|w| *w = width);
        }
        match model.objective.matching_mut() {
            Some(matching) => {
                matching.kl_weight = self.kl_weight.unwrap_or(matching.kl_weight);
                if let Some(block) = self.transport {
                    matching.point.coupling = Pairing::MinibatchOt { block };
                }
            }
            None => {
                let flags = [("--kl-weight", self.kl_weight.is_some()), ("--transport", self.transport.is_some())];
                refuse(&flags, "for flow matching, this model is trained by likelihood; leave it out")?;
            }
        }
        model.check()?;
        Ok(model)
    }

    fn describe(&self, model: PointFlowConfig, loaded: &Loaded, batch: usize) -> Result<PointRun> {
        let mode = match self.normalize {
            Normalize::Set => NormalizeMode::Set,
            Normalize::Axis => NormalizeMode::Axis,
            Normalize::Nothing => NormalizeMode::Nothing,
        };
        let normalization = Normalization::of(&loaded.train.clouds, mode)?;
        let mut run = PointRun::new(model, loaded.train.source.as_str(), normalization);
        run.origin = loaded.train.origin;
        run.batch = batch.min(loaded.train.clouds.len());
        run.points = self.points.unwrap_or(if self.data.is_built_in() { DEMO_POINTS } else { POINTS });
        run.replacement = self.replacement;
        run.rotate = self.rotate;
        run.warp = self.warp;
        run.seed = self.engine.seed();
        Ok(run)
    }

    fn engine_config(&self, place: &RunArg<'_>, model: &PointFlowConfig) -> Result<TrainConfig> {
        let steps = if self.data.is_built_in() { DEMO_STEPS } else { STEPS };
        self.engine.config(place, steps, |steps| TrainConfig {
            validate_every: Some(250),
            checkpoint_every: Some(500),
            ..trainer::train_config(&model.objective, steps, self.engine.seed())
        })
    }

    /// Clouds, pictures and the one-line summary, from the checkpoint on disk.
    fn report(&self, summary: &Summary, loaded: &Loaded, points: usize, device: &Device) -> Result<()> {
        const SHOWN: usize = 16;
        let (run, model) = flow_core::train::load::<PointRun>(&self.out, device, true)?;
        let mut rng = FlowRng::named(self.engine.seed(), "report");
        let mut place = self.out.join("reconstructions.png");
        let held_out = if loaded.test.clouds.is_empty() { &loaded.train } else { &loaded.test };
        let shown: Vec<&[Point]> = held_out.clouds.iter().take(SHOWN).map(Vec::as_slice).collect();
        let [seen, fresh] = halves(&shown, points, &mut rng)?;
        let normal: Vec<Vec<Point>> = seen.iter().map(|cloud| run.normalization.apply(cloud)).collect();
        let (drawn, _) =
            model.decode(&run.latents(&model, &to_tensor(&normal, device)?)?, points, &Draw::default(), &mut rng)?;
        let drawn: Vec<Vec<Point>> = from_tensor(&drawn)?.iter().map(|c| run.normalization.undo(c)).collect();
        let (error, floor) = distances(&drawn, &seen, &fresh)?;
        let pairs = seen.into_iter().zip(drawn).flat_map(|(a, b)| [a, b]);
        write_sheet(&place, &clouds_at(run.origin, pairs), WIDEST, &pair_names("reconstructed"))?;
        if model.has_prior() {
            place = self.out.join("samples.png");
            let draw = Draw::default();
            let clouds =
                draw_clouds(&model, &run.normalization, self.samples.unwrap_or(SAMPLES), 2048, &draw, &mut rng)?;
            let clouds = clouds_at(run.origin, clouds);
            super::output::write_plys(
                &self.out.join("samples"),
                &clouds,
                &format!("drawn by pointflow, {}", run.source),
            )?;
            write_sheet(&place, &clouds, WIDEST, &Names::default())?;
        }
        println!(
            "{}{:.4} {} in validation; {} shapes reconstructed at {:.2} times the Chamfer distance of two samplings; \
             {} steps in {:.0} s; {}",
            quantity(&run.model.objective),
            summary.best.map_or(f64::NAN, |(best, _)| best),
            run.model.objective.unit(),
            if loaded.test.clouds.is_empty() { "training" } else { "held-out" },
            error / floor,
            summary.step,
            summary.seconds,
            place.display()
        );
        Ok(())
    }
}
