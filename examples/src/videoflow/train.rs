//! `videoflow train`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use clap::Args;
use flow_core::numerics::plus_minus;
use flow_core::train::{EmaConfig, Summary, TrainConfig};
use flow_core::{Backprop, FlowRng};
use flow_video::data::{self, Clips, Splits};
use flow_video::metrics::{Evaluation, Protocol, Take, bits_per_frame, evaluate, mean_and_error};
use flow_video::model::{Footage, PRESETS, Predictor, preset};
use flow_video::trainer::{VideoRun, VideoTask, train_config};

use super::common::{FPS, takes};
use super::film::{self, Futures};
use super::info::words;
use super::reading::ReadingArg;
use crate::cli::{ConvolutionsArg, at_least_one, counted, described, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::plot_log;
use crate::training::{self, RunArg, Trained};

/// Steps of a run without --data, unless told.
const DEMO_STEPS: u64 = 600;
/// Steps of any other run, unless told.
const STEPS: u64 = 20_000;
/// Steps between validations and checkpoints of the demonstration, and of other runs.
const DEMO_EVERY: u64 = 100;
const EVERY: u64 = 250;
/// Clips of the report at the end, and futures of each.
const REPORT: (usize, usize) = (16, 4);

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Leaves checkpoints, log.jsonl, loss.png, predictions.gif and predictions.png in the folder. At the end it prints bits/dim of
held-out clips and how good drawn futures are, beside guesses that need no model. A run that was stopped goes on with
--resume and, if it was given, --out.

Examples:
  videoflow train
  videoflow train --data shapes --model shapes --steps 2000 --out runs/shapes
  videoflow train --data mnist/ --model moving-mnist --minutes 120 --out runs/mnist
  videoflow train --data clips/ --size 64 --model small --context 5 --out runs/clips
  videoflow train --data long.y4m --cut 40 --fps 10 --size 64 --colour gray --out runs/long
  videoflow train --resume --out runs/clips --steps 40000",
    mut_arg("steps", default_is("600 without --data, else 20000")),
    mut_arg("batch_size", |arg| arg.help("Clips per step [default: that of the preset, 8 for the small ones]")),
    mut_arg("learning_rate", default_is("that of the preset: 0.002 for moving-digits, 0.001 for the other small ones")),
    mut_arg("warmup", default_is("that of the preset, at most half of the run")),
    mut_arg("schedule", default_is("constant; cosine without --data")),
    mut_arg("ema", default_is("0; 0.99 without --data")),
    mut_arg("clip", default_is("50 for the small presets, none for the paper's")),
    mut_arg("validate_every", default_is("250; 100 without --data")),
    mut_arg("checkpoint_every", default_is("250; 100 without --data"))
)]
pub(super) struct TrainArgs {
    /// Clips: a folder of clips (folders of numbered pictures, GIF, Y4M, videos), one of them, .npy, .npz, MNIST's idx files
    /// (moving digits), "digits" or "shapes" (made here)
    #[arg(long, default_value = "digits", value_name = "PATH")]
    data: PathBuf,
    /// Preset, see `videoflow info --presets` [default: moving-digits for frames below 64x64, else small]
    #[arg(long, value_parser = PRESETS)]
    model: Option<String>,
    /// Hyper-parameters from a JSON file instead; `videoflow info --presets --json` shows their names
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    config: Option<PathBuf>,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/videoflow", value_name = "FOLDER")]
    out: PathBuf,
    /// Frames that are given [default: that of the preset]
    #[arg(long)]
    context: Option<usize>,
    /// Frames that are predicted in a training step [default: that of the preset]
    #[arg(long)]
    targets: Option<usize>,
    /// Frames that are predicted in validation and pictures [default: that of the preset]
    #[arg(long)]
    horizon: Option<usize>,
    /// Whether a learned histogram of levels stands before the flow: for frames of which most values are the same
    /// [default: that of the preset; true for moving-digits and moving-mnist]
    #[arg(long, value_name = "BOOL")]
    gaussianize: Option<bool>,
    /// Hidden channels of a network that shapes the noise of dequantization; 0 for uniform noise [default: that of the
    /// preset; 16 for moving-mnist, else 0]
    #[arg(long, value_name = "WIDTH")]
    learned_noise: Option<usize>,
    /// Share of the clips of a step of which nothing is told, for --actions: `predict --guidance` needs some [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    untold: Option<f64>,
    /// Learn the given frames as well, so that clips can be drawn from nothing
    #[arg(long)]
    score_context: bool,
    /// Keep the whole graph of a step in memory instead of rebuilding it layer by layer
    #[arg(long)]
    plain_backprop: bool,
    #[command(flatten)]
    reading: ReadingArg,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    convolutions: ConvolutionsArg,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        self.convolutions.apply(&device)?;
        for (flag, value) in [("--context", self.context), ("--targets", self.targets), ("--horizon", self.horizon)] {
            at_least_one(flag, value.unwrap_or(1))?;
        }
        let usual = if self.data == Path::new("digits") { "moving-digits" } else { "small" };
        let mut recipe = preset(self.model.as_deref().unwrap_or(usual))?.recipe;
        recipe.context = self.context.unwrap_or(recipe.context);
        recipe.targets = self.targets.unwrap_or(recipe.targets);
        recipe.horizon = self.horizon.unwrap_or(recipe.horizon);
        let frames = recipe.context + recipe.targets.max(recipe.horizon);
        let open = self.reading.options(&self.data, frames, self.engine.seed())?;
        let splits = data::open(&self.data, &open)?;
        eprintln!("{}", what_was_read(&splits));
        let mut model = self.preset_for(&splits)?.model;
        if let Some(path) = &self.config {
            let read = || described(serde_json::from_str(&std::fs::read_to_string(path)?)?);
            model = read().with_context(|| path.display().to_string())?;
        }
        if self.context.is_none() {
            recipe.context = recipe.context.max(model.past());
        }
        model.gaussianize = self.gaussianize.unwrap_or(model.gaussianize);
        model.noise_width = self.learned_noise.unwrap_or(model.noise_width);
        model.actions = splits.train.action_size();
        refuse(&[("--untold", self.untold.is_some() && !self.reading.actions)], "is for --actions; leave it out")?;
        let mut run = VideoRun::new(model, &splits.train, &open, &recipe, self.engine.seed())?;
        run.batch = self.engine.batch(run.batch)?;
        run.score_context = self.score_context;
        run.untold = if self.reading.actions { self.untold.unwrap_or(0.1) } else { 0.0 };
        if self.plain_backprop {
            run.backprop = Backprop::Plain;
        }
        let config = self.engine_config(&place, &recipe)?;
        let steps = config.steps;
        let (about, batch, window) = (words(&run.model), run.batch, run.window());
        let task = VideoTask::new(run, splits, &device)?;
        let parameters = task.model().store().parameter_count();
        let Trained { summary, report, task } = training::train(config, place, task, || {
            eprintln!("{about}; {parameters} parameters, {steps} steps of {batch} clips of {window} frames");
            Ok(())
        })?;
        plot_log(&self.out, "bits_per_dim", "bits/dim")?;
        if !report {
            return Ok(());
        }
        self.report(&summary, task.splits(), &device)
    }

    /// The preset that was named, or one for the size of the frames.
    fn preset_for(&self, splits: &Splits) -> Result<flow_video::model::Preset> {
        let [_, height, width] = splits.train.shape();
        let fitting = if height.min(width) < 64 { "moving-digits" } else { "small" };
        Ok(preset(self.model.as_deref().unwrap_or(fitting))?)
    }

    fn engine_config(&self, place: &RunArg<'_>, recipe: &flow_video::model::Recipe) -> Result<TrainConfig> {
        let demo = self.data == Path::new("digits") && self.model.is_none() && self.config.is_none();
        let every = Some(if demo { DEMO_EVERY } else { EVERY });
        let plan = |steps| {
            let mut config = train_config(recipe, steps, self.engine.seed());
            if demo {
                config.schedule = flow_core::train::ScheduleConfig::cosine(config.schedule.warmup_steps, 0.0);
                config.ema = Some(EmaConfig { decay: 0.99 });
            }
            TrainConfig { validate_every: every, checkpoint_every: every, ..config }
        };
        self.engine.config(place, if demo { DEMO_STEPS } else { STEPS }, plan)
    }

    /// Pictures and the summary, from the checkpoint on disk.
    fn report(&self, summary: &Summary, splits: &Splits, device: &Device) -> Result<()> {
        let (run, model) = flow_core::train::load::<VideoRun>(&self.out, device, true)?;
        let parts = [("test", &splits.test), ("validation", &splits.validation), ("training", &splits.train)];
        let Some((part, set)) = parts.into_iter().find(|(_, set)| !set.is_empty()) else { return Ok(()) };
        let shortest = set.iter().map(|clip| clip.frames()).min().unwrap_or_default();
        let horizon = run.horizon.min(shortest.saturating_sub(run.context)).max(1);
        let places: Vec<usize> = (0..set.len().min(REPORT.0)).collect();
        let clips = takes(set, &places, run.context + horizon, device)?;
        let bits = clips.iter().map(|clip| -> Result<f64> {
            let (frames, actions) =
                (clip.frames.unsqueeze(0)?, clip.actions.as_ref().map(|a| a.unsqueeze(0)).transpose()?);
            let mut rng = FlowRng::named(self.engine.seed(), "eval");
            let rows = bits_per_frame(&model, Footage::new(&frames, actions.as_ref()), &mut rng)?;
            let frames: Vec<f64> = rows.into_iter().flatten().skip(run.context).collect();
            Ok(frames.iter().sum::<f64>() / frames.len() as f64)
        });
        let (mean, error) = mean_and_error(&bits.collect::<Result<Vec<_>>>()?);
        let (error, clips_scored) = (plus_minus(error, 4), counted(clips.len(), "clip"));
        let head = format!("{part} {mean:.4} {error} bits/dim over {clips_scored}");
        let tail = format!("{} steps in {:.0} s", summary.step, summary.seconds);
        match self.futures(&run, &model, &clips, horizon, set) {
            Ok(words) => println!("{head}; {words}; {tail}; {}", self.out.join("predictions.gif").display()),
            // Weeks of training are not to end in an error because a draw left the numbers.
            Err(e) if matches!(e.downcast_ref(), Some(flow_core::Error::NonFinite { .. })) => {
                eprintln!(
                    "note: no pictures: {e}; the model is not trained enough, or draw with a lower --temperature"
                );
                println!("{head}; {tail}; {}", self.out.join("loss.png").display());
            }
            Err(e) => {
                // A disk that is full of pictures does not keep the result.
                println!("{head}; {tail}");
                return Err(e);
            }
        }
        Ok(())
    }

    /// Draws futures and compares them with what happened; returns the result in words.
    fn futures(
        &self,
        run: &VideoRun,
        model: &flow_video::model::VideoFlow,
        clips: &[Take],
        horizon: usize,
        set: &Clips,
    ) -> Result<String> {
        self.draw(run, model, clips, horizon, set)?;
        let mut protocol = Protocol::new(run.context, horizon, REPORT.1);
        protocol.temperatures = vec![run.temperature];
        let mut rng = FlowRng::named(self.engine.seed(), "eval");
        let Evaluation { best, copy_last, black, .. } =
            evaluate(model, clips, &protocol, &mut rng, |_| ()).map_err(flow_core::Error::from)?;
        Ok(format!(
            "PSNR of the best of {} futures {:.2} dB (last frame again {:.2}, black {:.2})",
            REPORT.1,
            best.means().0,
            copy_last.means().0,
            black.means().0
        ))
    }

    /// The first clip's futures, as an animation and as a sheet.
    fn draw(
        &self,
        run: &VideoRun,
        model: &flow_video::model::VideoFlow,
        clips: &[Take],
        horizon: usize,
        set: &Clips,
    ) -> Result<()> {
        let Some(clip) = clips.first() else { return Ok(()) };
        let mut seen = Predictor::new(model);
        seen.observe(&clip.frames.narrow(0, 0, run.context)?.unsqueeze(0)?)?;
        if let Some(actions) = &clip.actions {
            seen = seen.tell(&actions.narrow(0, run.context, horizon)?.unsqueeze(0)?)?;
        }
        let mut rng = FlowRng::named(self.engine.seed(), "predict 0");
        let drawn = seen.repeat(REPORT.1)?.predict(horizon, &[run.temperature], &mut rng)?;
        let drawn = (0..REPORT.1).map(|row| film::pixels(&drawn.get(row)?, run.spec.levels)).collect::<Result<_>>()?;
        let futures = Futures { truth: film::pixels(&clip.frames, run.spec.levels)?, context: run.context, drawn };
        futures.write(&self.out.join("predictions.gif"), set.fps().unwrap_or(FPS))?;
        futures.write(&self.out.join("predictions.png"), FPS)
    }
}

/// What was read, for the first lines of a training.
fn what_was_read(splits: &Splits) -> String {
    let Splits { train, validation, test } = splits;
    let [channels, height, width] = train.shape();
    let mut lines = vec![
        format!("data: {}", train.source()),
        format!(
            "data: {} training, {} validation, {} test clips of {channels}x{height}x{width}, {} levels; {} training frames",
            train.len(),
            validation.len(),
            test.len(),
            train.levels(),
            train.frames()
        ),
    ];
    let own: Vec<&str> = [validation, test].into_iter().map(Clips::source).filter(|s| *s != train.source()).collect();
    lines.extend(own.into_iter().map(|source| format!("data: {source}")));
    lines.extend(splits.notes().into_iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}
