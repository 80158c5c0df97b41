//! `glow train`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::{Args, ValueEnum};
use flow_core::train::{EmaConfig, ScheduleConfig, Summary, TrainConfig};
use flow_core::{Backprop, FlowRng};
use flow_image::data::{self, Augment, Channels, Edge, FolderOptions, OpenOptions, Resize, Splits};
use flow_image::io::{GridStyle, Pixels, write_grid};
use flow_image::metrics::{bits_per_image, mean_and_error};
use flow_image::model::{ModelConfig, preset};
use flow_image::trainer::{self, ImageRun, ImageTask, class_rows};

use super::codec;
use super::common::DataArg;
use crate::cli::{DeviceArg, described};
use crate::plot::plot_log;
use crate::training::{self, RunArg, TimeLimit, Trained};

/// Steps of the built-in demonstration: where the held-out likelihood of its 1,500 images is best.
const DEMO_STEPS: u64 = 2000;
/// The demonstration averages its weights: digits come out cleaner.
const DEMO_EMA: f64 = 0.995;
/// Steps of any other run, unless told.
const STEPS: u64 = 10_000;

/// How colour is read from picture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// As the files are.
    Auto,
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// Train a model
#[derive(Args, Debug)]
#[command(after_help = "\
Without arguments: a small Glow on the built-in digits; leaves samples.png, loss.png and checkpoints in flow-out/glow.
A run that was stopped (Ctrl-C, power) goes on with the same command and --resume, to the same bits.")]
pub(super) struct TrainArgs {
    #[command(flatten)]
    data: DataArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/glow", value_name = "FOLDER")]
    out: PathBuf,
    /// Preset, see `glow info --presets`; chosen by the data if not given
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Model configuration as JSON, in place of a preset's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on with the run in --out
    #[arg(long)]
    resume: bool,
    /// Steps of the whole run
    #[arg(long)]
    steps: Option<u64>,
    /// Images per step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Learning rate after warm-up
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps of linear warm-up
    #[arg(long)]
    warmup: Option<u64>,
    /// Cosine decay of the learning rate to zero
    #[arg(long)]
    cosine: bool,
    /// Decay of the running average of the weights, 0 for none [default: 0, for the digits 0.995]
    #[arg(long)]
    ema: Option<f64>,
    /// Glow: number of scales L
    #[arg(long)]
    levels: Option<usize>,
    /// Glow: steps per scale K
    #[arg(long)]
    steps_per_level: Option<usize>,
    /// Glow: hidden channels of the coupling networks
    #[arg(long)]
    width: Option<usize>,
    /// Glow: condition on the class labels
    #[arg(long)]
    class_conditional: bool,
    /// Bits per pixel, 1 to 8; lower bits are dropped
    #[arg(long)]
    bits: Option<u32>,
    /// Crop and resize pictures to this side
    #[arg(long, value_name = "SIDE")]
    resize: Option<u32>,
    /// Colour of picture files
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    colour: Colour,
    /// Pad sides with zeros to a multiple of this
    #[arg(long, value_name = "N")]
    pad: Option<usize>,
    /// Mirror training images at random
    #[arg(long)]
    flip: bool,
    /// Shift training images at random by up to this fraction of their side
    #[arg(long, value_name = "FRACTION")]
    shift: Option<f64>,
    /// Use one graph over the whole model instead of reversible back-propagation
    #[arg(long)]
    plain_backprop: bool,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 500)]
    checkpoint_every: u64,
    /// Steps between validations
    #[arg(long, default_value_t = 500)]
    validate_every: u64,
    /// Steps between preview grids in OUT/previews
    #[arg(long)]
    preview_every: Option<u64>,
    /// Stop after this many validations without a new best
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Test images for the final bits/dim
    #[arg(long, default_value_t = 1000)]
    test_images: usize,
    #[command(flatten)]
    device: DeviceArg,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        let device = self.device.open()?;
        let demo = self.data.data == Path::new("digits");
        let open = self.open_options();
        let splits = data::open(&self.data.data, &open)?;
        if let Some(codec) = self.model.as_deref().filter(|name| name.starts_with("idf-")) {
            return self.train_codec(codec, splits);
        }
        let (run, config) = self.plan(&splits, &open, demo)?;
        let test = splits.test.clone();
        let images = format!("{}: {} training images", splits.train.source(), splits.train.len());
        let task = ImageTask::new(run.clone(), splits, &device)?;
        let parameters = task.model().store().parameter_count();
        let steps = config.steps;
        let place = RunArg { out: &self.out, resume: self.resume, limit: TimeLimit::default() };
        let Trained { summary, report } = training::train(config, place, task, || {
            eprintln!("{images}");
            eprintln!("{} with {parameters} parameters, batch {}, {steps} steps", run.model.family(), run.batch);
            Ok(())
        })?;
        plot_log(&self.out, "bits_per_dim", "bits/dim")?;
        if !report {
            return Ok(());
        }
        self.report(&summary, &test, &device)
    }

    /// The lossless codec has a recipe of its own; of the flags it takes those of the engine.
    fn train_codec(&self, name: &str, splits: Splits) -> Result<()> {
        codec::train(name, splits, &self.out, self.resume, |config| {
            let steps = self.steps.unwrap_or(config.steps);
            *config = TrainConfig { seed: self.seed, ..flow_image::codec::train_config(steps) };
            config.validate_every = Some(self.validate_every.min(steps));
            config.checkpoint_every = Some(self.checkpoint_every.min(steps));
            config.optimizer.learning_rate = self.learning_rate.unwrap_or(config.optimizer.learning_rate);
        })
    }

    fn open_options(&self) -> OpenOptions {
        let channels = match self.colour {
            Colour::Auto => Channels::Auto,
            Colour::Gray => Channels::Gray,
            Colour::Rgb => Channels::Rgb,
        };
        let mut options = OpenOptions::default();
        options.folder = FolderOptions::new(self.resize.map(Resize::from), channels);
        (options.pad, options.bits) = (self.pad, self.bits);
        options
    }

    /// The run and the engine's configuration from preset, flags and data.
    fn plan(&self, splits: &Splits, open: &OpenOptions, demo: bool) -> Result<(ImageRun, TrainConfig)> {
        let name = self.model.clone().unwrap_or_else(|| default_preset(splits).to_string());
        let preset = preset(&name)?;
        let mut model = preset.model;
        if let Some(path) = &self.config {
            let read = || described(serde_json::from_str(&std::fs::read_to_string(path)?)?);
            model = read().with_context(|| path.display().to_string())?;
        }
        self.adjust(&mut model, splits)?;
        let mut recipe = preset.recipe;
        recipe.batch = self.batch_size.unwrap_or(recipe.batch);
        recipe.learning_rate = self.learning_rate.unwrap_or(recipe.learning_rate);
        let mut run = ImageRun::new(model, &splits.train, open, &recipe, self.seed)?;
        if self.batch_size.is_some() {
            // What was asked for is refused rather than made smaller.
            run.batch = recipe.batch;
        }
        let edge = if run.spec.channels == 1 { Edge::Zero } else { Edge::Replicate };
        let augment = || Augment::new(self.flip, self.shift.unwrap_or(0.0), edge);
        run.augment = (self.flip || self.shift.is_some()).then(augment);
        if self.plain_backprop {
            run.backprop = Backprop::Plain;
        }
        let steps = self.steps.unwrap_or(if demo { DEMO_STEPS } else { STEPS });
        let mut config = trainer::train_config(&recipe, run.batch, steps, self.seed);
        let warmup = self.warmup.unwrap_or(config.schedule.warmup_steps);
        config.schedule =
            if self.cosine || demo { ScheduleConfig::cosine(warmup, 0.0) } else { ScheduleConfig::constant(warmup) };
        let decay = self.ema.unwrap_or(if demo { DEMO_EMA } else { 0.0 });
        config.ema = (decay != 0.0).then_some(EmaConfig { decay });
        config.validate_every = Some(self.validate_every);
        config.checkpoint_every = Some(self.checkpoint_every);
        config.preview_every = self.preview_every;
        config.early_stop_patience = self.patience;
        Ok((run, config))
    }

    /// Applies the flags that change a preset's model.
    fn adjust(&self, model: &mut ModelConfig, splits: &Splits) -> Result<()> {
        let changes = self.levels.is_some() || self.steps_per_level.is_some() || self.width.is_some();
        let ModelConfig::Glow(glow) = model else {
            if changes || self.class_conditional {
                bail!(
                    "--levels, --steps-per-level, --width and --class-conditional are for Glow; write a --config file"
                );
            }
            return Ok(());
        };
        glow.levels = self.levels.unwrap_or(glow.levels);
        glow.steps = self.steps_per_level.unwrap_or(glow.steps);
        glow.width = self.width.unwrap_or(glow.width);
        // A preset that the data have chosen follows them; one that was asked for is taken at its word.
        let chosen_by_data = self.model.is_none() && self.config.is_none();
        if self.class_conditional || (chosen_by_data && glow.class_condition.is_some()) {
            glow.class_condition = classes(&splits.train);
        }
        if self.class_conditional && glow.class_condition.is_none() {
            bail!("--class-conditional: {} has no labels", self.data.data.display());
        }
        Ok(())
    }

    /// Pictures and the one-line summary, from the checkpoint on disk.
    fn report(&self, summary: &Summary, test: &data::Dataset, device: &Device) -> Result<()> {
        let (run, model) = flow_core::train::load::<ImageRun>(&self.out, device, true)?;
        let mut rng = FlowRng::named(self.seed, "report");
        const SIDE: usize = 10;
        let labels = class_rows(&run, SIDE * SIDE, SIDE);
        let samples = model.sample(SIDE * SIDE, labels.as_deref(), &[0.7], &mut rng)?;
        let style = GridStyle::with_columns(SIDE);
        write_grid(&self.out.join("samples.png"), &Pixels::from_tensor(&samples, run.spec.levels)?, &style)?;
        let bits = bits_per_image(&model, test, self.test_images, 1, &mut rng, |_| ())?;
        let (mean, error) = mean_and_error(&bits);
        println!(
            "test {mean:.4} ± {error:.4} bits/dim over {} images ({} levels, D = {}), {} steps in {:.0} s; {}",
            bits.len(),
            run.spec.levels,
            run.spec.dims(),
            summary.step,
            summary.seconds,
            self.out.join("samples.png").display()
        );
        Ok(())
    }
}

/// The number of classes of labelled images.
fn classes(train: &data::Dataset) -> Option<usize> {
    let seen = train.labels()?.iter().max().map_or(0, |&l| l as usize + 1);
    Some(seen.max(train.class_names().len()))
}

/// The preset for images of this size.
fn default_preset(splits: &Splits) -> &'static str {
    let [channels, height, width] = splits.train.shape();
    match (channels, height.min(width)) {
        (_, ..16) => "glow-digits",
        (1, _) => "glow-fashion-small",
        _ => "glow-cifar10-small",
    }
}
