//! `glow train`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use flow_core::numerics::plus_minus;
use flow_core::train::{EmaConfig, ScheduleConfig, Summary, TrainConfig};
use flow_core::{Backprop, FlowRng};
use flow_image::codec::{IdfConfig, IdfRun};
use flow_image::data::{self, Augment, Dataset, Edge, OpenOptions, Splits};
use flow_image::metrics::{bits_per_image, mean_and_error};
use flow_image::model::{ModelConfig, preset};
use flow_image::trainer::{self, ImageRun, ImageTask, class_rows};
use image::RgbImage;

use super::codec;
use super::common::DataArg;
use super::info::check_preset;
use super::reading::ReadingArg;
use super::sheet::{Names, Sheet};
use crate::cli::{ConvolutionsArg, at_least_one, counted, described, refuse};
use crate::engine::{EngineArgs, default_is};
use crate::plot::{labelled, plot_log};
use crate::training::{self, RunArg, Trained};

/// Steps of the built-in demonstration: where the held-out likelihood of its 1,500 images is best.
const DEMO_STEPS: u64 = 2000;
/// The demonstration averages its weights: digits come out cleaner.
const DEMO_EMA: f64 = 0.995;
/// Steps of any other run, unless told.
const STEPS: u64 = 10_000;
/// Steps between validations, and between checkpoints.
const EVERY: u64 = 500;
/// Test images that the report looks at.
const TEST_IMAGES: usize = 1000;

/// Train a model
#[derive(Args, Debug)]
#[command(
    after_help = "\
Without arguments: a small Glow on the built-in digits; leaves samples.png, loss.png and checkpoints in flow-out/glow.
A run that was stopped (Ctrl-C, power) goes on with --resume and, if it was given, --out, to the same bits.
A model idf-… is a lossless codec for `glow compress`; it draws no images.

Examples:
  glow train --data cifar-10-batches-bin --out runs/cifar --steps 20000 --schedule cosine --ema 0.999
  glow train --data photos/ --resize 64 --model realnvp-imagenet64 --flip --minutes 120 --out runs/photos
  glow train --data fashion-mnist/ --model idf-fashion --out runs/codec",
    mut_arg("steps", default_is("2000 for the digits, else 10000; a codec 1500")),
    mut_arg("batch_size", default_is("the preset's, at most the number of training images")),
    mut_arg("learning_rate", default_is("the preset's")),
    mut_arg("warmup", default_is("the preset's, at most half of the run")),
    mut_arg("schedule", default_is("constant, for the digits and a codec cosine")),
    mut_arg("ema", default_is("0, for the digits 0.995, a codec 0.99")),
    mut_arg("clip", default_is("the preset's, a codec 1")),
    mut_arg("validate_every", default_is("500")),
    mut_arg("checkpoint_every", default_is("500"))
)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    data: DataArg,
    /// Folder for checkpoints, log, pictures
    #[arg(long, default_value = "flow-out/glow", value_name = "FOLDER")]
    out: PathBuf,
    /// Preset, see `glow info --presets` [default: a Glow that suits the size of the images]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Model configuration as JSON instead of a preset; optimizer and batch are those of the default preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    #[command(flatten)]
    reading: ReadingArg,
    /// Mirror training images at random
    #[arg(long)]
    flip: bool,
    /// Shift training images at random by up to this fraction of their side
    #[arg(long, value_name = "FRACTION")]
    shift: Option<f64>,
    /// Use one graph over the whole model instead of reversible back-propagation
    #[arg(long)]
    plain_backprop: bool,
    /// Test images for the final bits/dim [default: 1000; a codec codes 500]
    #[arg(long)]
    test_images: Option<usize>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    convolutions: ConvolutionsArg,
}

impl TrainArgs {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        let (device, place) = (self.engine.device()?, self.engine.place(&self.out)?);
        self.convolutions.apply(&device)?;
        let demo = self.data.data == Path::new("digits");
        let open = self.reading.options();
        let splits = data::open(&self.data.data, &open)?;
        if let Some(name) = self.codec() {
            return self.train_codec(name, splits);
        }
        let (run, config) = self.plan(&place, &splits, &open, demo)?;
        let test = splits.test.clone();
        let data = what_was_read(&splits);
        let task = ImageTask::new(run.clone(), splits, &device)?.naming_rows(name_rows);
        let parameters = task.model().store().parameter_count();
        let steps = config.steps;
        let Trained { summary, report, .. } = training::train(config, place, task, || {
            eprintln!("{data}");
            eprintln!("{} with {parameters} parameters, batch {}, {steps} steps", run.model.family(), run.batch);
            Ok(())
        })?;
        plot_log(&self.out, "bits_per_dim", "bits/dim")?;
        if !report {
            return Ok(());
        }
        self.report(&summary, &test, &device)
    }

    /// Refuses flags that the data or the model do not read.
    fn check(&self) -> Result<()> {
        at_least_one("--test-images", self.test_images.unwrap_or(1))?;
        self.reading.check(&self.data.data)?;
        self.model.as_deref().map_or(Ok(()), check_preset)?;
        refuse(
            &[("--config", self.config.is_some() && self.model.is_some())],
            "describes the whole model and leaves nothing to --model; give one of them",
        )?;
        let Some(codec) = self.codec() else { return Ok(()) };
        let reason = format!("for Glow, {codec} is a lossless codec whose preset fixes its networks; leave it out");
        refuse(&self.glow_flags(), &reason)?;
        let reason = format!("{codec} is a lossless codec, always trained by one graph; leave it out");
        refuse(&[("--plain-backprop", self.plain_backprop)], &reason)?;
        self.engine.without_previews(&format!("{codec} is a lossless codec, which draws no images; leave it out"))
    }

    /// The codec that --model names.
    fn codec(&self) -> Option<&str> {
        self.model.as_deref().filter(|name| name.starts_with("idf-"))
    }

    /// The flags that only a Glow reads, each with whether it was given.
    fn glow_flags(&self) -> [(&'static str, bool); 4] {
        [
            ("--levels", self.levels.is_some()),
            ("--steps-per-level", self.steps_per_level.is_some()),
            ("--width", self.width.is_some()),
            ("--class-conditional", self.class_conditional),
        ]
    }

    fn train_codec(&self, name: &str, splits: Splits) -> Result<()> {
        let mut run = IdfRun::new(IdfConfig::preset(name)?, &splits.train);
        run.batch = self.engine.batch(run.batch)?;
        run.augment = self.augment(&splits);
        run.seed = self.engine.seed();
        codec::train(run, splits, &self.out, &self.engine, self.test_images)
    }

    /// Random changes of the training images.
    fn augment(&self, splits: &Splits) -> Option<Augment> {
        let [channels, ..] = splits.train.shape();
        let edge = if channels == 1 { Edge::Zero } else { Edge::Replicate };
        (self.flip || self.shift.is_some()).then(|| Augment::new(self.flip, self.shift.unwrap_or(0.0), edge))
    }

    /// The run and the engine's configuration from preset, flags and data.
    fn plan(
        &self,
        place: &RunArg<'_>,
        splits: &Splits,
        open: &OpenOptions,
        demo: bool,
    ) -> Result<(ImageRun, TrainConfig)> {
        let name = self.model.clone().unwrap_or_else(|| default_preset(splits).to_string());
        let preset = preset(&name)?;
        let mut model = preset.model;
        if let Some(path) = &self.config {
            let read = || described(serde_json::from_str(&std::fs::read_to_string(path)?)?);
            model = read().with_context(|| path.display().to_string())?;
        }
        self.adjust(&mut model, splits)?;
        let mut run = ImageRun::new(model, &splits.train, open, &preset.recipe, self.engine.seed())?;
        // The recipe's batch is made smaller for few images; one that was asked for is refused instead.
        run.batch = self.engine.batch(run.batch)?;
        run.augment = self.augment(splits);
        if self.plain_backprop {
            run.backprop = Backprop::Plain;
        }
        let recipe = |steps| {
            let config = trainer::train_config(&preset.recipe, run.batch, steps, self.engine.seed());
            let warmup = config.schedule.warmup_steps;
            TrainConfig {
                schedule: if demo { ScheduleConfig::cosine(warmup, 0.0) } else { config.schedule },
                ema: demo.then_some(EmaConfig { decay: DEMO_EMA }),
                validate_every: Some(EVERY),
                checkpoint_every: Some(EVERY),
                ..config
            }
        };
        let config = self.engine.config(place, if demo { DEMO_STEPS } else { STEPS }, recipe)?;
        Ok((run, config))
    }

    /// Applies the flags that change a preset's model.
    fn adjust(&self, model: &mut ModelConfig, splits: &Splits) -> Result<()> {
        let family = model.family();
        let ModelConfig::Glow(glow) = model else {
            return refuse(&self.glow_flags(), &format!("for Glow, the model is a {family}; write a --config file"));
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
        let mut rng = FlowRng::named(self.engine.seed(), "report");
        const SIDE: usize = 10;
        let labels = class_rows(&run, SIDE * SIDE, SIDE);
        let samples = model.sample(SIDE * SIDE, labels.as_deref(), &[0.7], &mut rng)?;
        let rows = labels.iter().flat_map(|labels| labels.iter().step_by(SIDE)).map(|&l| run.class_name(l)).collect();
        let names = Names { rows, columns: Vec::new() };
        let labels = labels.map(|labels| (labels, run.class_names.clone()));
        let sheet = Sheet { images: &samples, levels: run.spec.levels, columns: SIDE, names, labels };
        // No picture has other than one or three channels.
        let file = if matches!(run.spec.channels, 1 | 3) { "samples.png" } else { "samples.npy" };
        sheet.write(&self.out.join(file))?;
        if test.is_empty() {
            println!(
                "{} steps in {:.0} s, no test images; {}",
                summary.step,
                summary.seconds,
                self.out.join(file).display()
            );
            return Ok(());
        }
        // The noise of `glow eval`, so that one model has one number.
        let count = self.test_images.unwrap_or(TEST_IMAGES).min(test.len());
        let bits = bits_per_image(&model, test, count, 1, &mut FlowRng::named(0, "eval"), |_| ())?;
        let (mean, error) = mean_and_error(&bits);
        if count < test.len() {
            let all = test.len();
            eprintln!("note: over the first {count} of {all} test images; `glow eval --count {count}` prints the same");
        }
        println!(
            "test {mean:.4} {} bits/dim over {} ({} levels, D = {}), {} steps in {:.0} s; {}",
            plus_minus(error, 4),
            counted(bits.len(), "image"),
            run.spec.levels,
            run.spec.dims(),
            summary.step,
            summary.seconds,
            self.out.join(file).display()
        );
        Ok(())
    }
}

/// What was read, for the first lines of a training: images of each part, their shape, classes, and what is not as the
/// files have it.
pub(super) fn what_was_read(splits: &Splits) -> String {
    let Splits { train, validation, test } = splits;
    let [channels, height, width] = train.shape();
    let classes = match train.class_names() {
        [] => "no classes".to_string(),
        names if names.len() <= 10 => format!("{} classes: {}", names.len(), names.join(", ")),
        names => format!("{} classes: {}, … {}", names.len(), names[..3].join(", "), names[names.len() - 1]),
    };
    let attributes = train.attributes().map_or(String::new(), |a| format!("; attributes: {}", a.names().join(", ")));
    let mut lines = vec![
        format!("data: {}", train.source()),
        format!(
            "data: {} training, {} validation, {} test images of {channels}x{height}x{width}, {} levels; \
             {classes}{attributes}",
            train.len(),
            validation.len(),
            test.len(),
            train.levels()
        ),
    ];
    let own: Vec<&str> = [validation, test].into_iter().map(Dataset::source).filter(|s| *s != train.source()).collect();
    lines.extend(own.into_iter().map(|source| format!("data: {source}")));
    lines.extend(splits.notes().into_iter().map(|note| format!("note: {note}")));
    if !matches!(channels, 1 | 3) {
        lines.push(format!("note: {channels} channels: samples and previews are arrays (.npy), not pictures"));
    }
    lines.join("\n")
}

/// The names of classes beside the rows of a preview; without a font the preview has none.
fn name_rows(sheet: RgbImage, cell: [usize; 2], rows: Vec<String>) -> RgbImage {
    labelled(sheet.clone(), cell, &Names { rows, columns: Vec::new() }).unwrap_or(sheet)
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
