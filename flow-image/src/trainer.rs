//! Training an image model: what a step computes, what a run is, how a checkpoint becomes a model again.
//!
//! The loop itself is [`flow_core::train::Trainer`]; [`ImageTask`] supplies it with batches of integer
//! levels, gradients in bits/dim, validation on held-out images and preview grids.

use std::path::Path;

use candle_core::{DType, Device};
use flow_core::train::{
    self, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Rule, Run, ScheduleConfig, Task, TrainConfig,
};
use flow_core::{Backprop, FlowRng, Gradients, ParamStore};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::data::{Augment, BatchCursor, BatchState, Dataset, OpenOptions, Splits, npy};
use crate::io::{GridStyle, Pixels, grid, write_png};
use crate::model::{ImageModel, ImageSpec, ModelConfig, Recipe, RecipeOptimizer};
use crate::{Error, Result, metrics};

/// A training run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRun {
    /// The model.
    pub model: ModelConfig,
    /// The images.
    pub spec: ImageSpec,
    /// Where the images came from, in words.
    pub source: String,
    /// How files became images of this specification; used again to read other files.
    pub open: OpenOptions,
    /// Names of the classes, empty without labels.
    pub class_names: Vec<String>,
    /// Images per step.
    pub batch: usize,
    /// Images for data-dependent initialisation.
    pub init_batch: usize,
    /// Random changes of training images.
    pub augment: Option<Augment>,
    /// How gradients are computed; both ways give the same ones.
    pub backprop: Backprop,
    /// Seed of the parameters and of the order of the images.
    pub seed: u64,
    /// Held-out images that a validation looks at.
    pub validation_images: usize,
}

impl ImageRun {
    /// A run of `model` on `train` with the batch sizes of `recipe`.
    pub fn new(model: ModelConfig, train: &Dataset, open: &OpenOptions, recipe: &Recipe, seed: u64) -> Result<Self> {
        let [channels, height, width] = train.shape();
        let spec = ImageSpec::new(channels, height, width, train.levels())?;
        // Other arrays are to be read as the training images were.
        let mut open = *open;
        open.array.range = train.range().unwrap_or(open.array.range);
        Ok(ImageRun {
            model,
            spec,
            source: train.source().to_string(),
            open,
            class_names: train.class_names().to_vec(),
            batch: recipe.batch.min(train.len()),
            init_batch: recipe.init_batch.min(train.len()),
            augment: None,
            backprop: Backprop::default(),
            seed,
            validation_images: 512,
        })
    }

    /// The name of a class, its number where it has none.
    pub fn class_name(&self, label: u32) -> String {
        self.class_names.get(label as usize).cloned().unwrap_or_else(|| label.to_string())
    }
}

impl Run for ImageRun {
    type Model = ImageModel;
    type Error = Error;
    const DESCRIBES: &'static str = "an image model";

    fn build(&self, device: &Device) -> Result<ImageModel> {
        let store = ParamStore::new(self.seed, DType::F32, device);
        Ok(ImageModel::new(&self.model, &self.spec, &store)?)
    }
}

impl train::Model for ImageModel {
    fn store(&self) -> &ParamStore {
        ImageModel::store(self)
    }

    fn set_training(&self, training: bool) {
        ImageModel::set_training(self, training);
    }
}

/// The engine's configuration that a recipe asks for.
pub fn train_config(recipe: &Recipe, batch: usize, steps: u64, seed: u64) -> TrainConfig {
    let rule = match recipe.optimizer {
        RecipeOptimizer::Adam => Rule::Adam,
        RecipeOptimizer::Adamax => Rule::Adamax,
    };
    let warmup = (recipe.warm_up_steps(batch) as u64).min(steps / 2);
    TrainConfig {
        steps,
        optimizer: OptimizerConfig {
            rule,
            learning_rate: recipe.learning_rate,
            beta1: recipe.beta1,
            beta2: recipe.beta2,
            epsilon: recipe.epsilon,
            weight_decay: 0.0,
        },
        schedule: ScheduleConfig::constant(warmup),
        clip_norm: recipe.clip_norm,
        seed,
        ..TrainConfig::default()
    }
}

/// Puts names beside the rows of a sheet of previews, given with the height and width of a cell: this crate has no font.
pub type NameRows = fn(RgbImage, [usize; 2], Vec<String>) -> RgbImage;

/// An [`ImageModel`] with its data, as the training engine sees it.
pub struct ImageTask {
    run: ImageRun,
    model: ImageModel,
    splits: Splits,
    cursor: BatchCursor,
    name_rows: Option<NameRows>,
    ranks: Ranks,
}

impl ImageTask {
    /// Builds the model of `run` for the images of `splits`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] when the images are not those of the run's specification, the model
    /// does not fit them, or a conditional model is given images without labels.
    pub fn new(run: ImageRun, splits: Splits, device: &Device) -> Result<Self> {
        let model = run.build(device)?;
        let (shape, levels) = (splits.train.shape(), splits.train.levels());
        if shape != run.spec.event_shape() || levels != run.spec.levels {
            let reason =
                format!("{shape:?} with {levels} levels, the model is for {} of {}", run.spec, run.spec.levels);
            return Err(Error::config("training images", reason));
        }
        check_classes(&run, &splits.train)?;
        run.augment.as_ref().map_or(Ok(()), Augment::check)?;
        let cursor = BatchCursor::new(splits.train.len(), run.batch, run.seed)?;
        Ok(ImageTask { run, model, splits, cursor, name_rows: None, ranks: Ranks::alone() })
    }

    /// The same task, with the names of classes in its previews.
    #[must_use]
    pub fn naming_rows(mut self, name_rows: NameRows) -> Self {
        self.name_rows = Some(name_rows);
        self
    }

    /// The model.
    pub fn model(&self) -> &ImageModel {
        &self.model
    }

    /// The data.
    pub fn splits(&self) -> &Splits {
        &self.splits
    }
}

/// A conditional model needs a label in range for every image.
fn check_classes(run: &ImageRun, train: &Dataset) -> Result<()> {
    let Some(classes) = run.model.classes() else { return Ok(()) };
    match train.labels() {
        None => Err(Error::config("class-conditional model", "the training images have no labels")),
        Some(labels) => match labels.iter().find(|&&l| l as usize >= classes) {
            Some(label) => Err(Error::config("class-conditional model", format!("label {label} of {classes} classes"))),
            None => Ok(()),
        },
    }
}

impl Task for ImageTask {
    type Run = ImageRun;
    type Position = BatchState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &ImageRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.splits.fingerprint())
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn initialize(&mut self, rng: &mut FlowRng) -> Result<()> {
        let order = rng.permutation(self.splits.train.len());
        let indices = &order[..self.run.init_batch.min(order.len())];
        let images = self.splits.train.batch(indices, self.model.store().device())?;
        let labels = self.splits.train.labels_of(indices);
        self.model.set_training(true);
        Ok(self.model.initialize(&images, labels.as_deref(), rng)?)
    }

    fn step(&mut self, _step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let device = self.model.store().device().clone();
        let share = self.ranks.share(self.run.batch);
        let batch = self.cursor.next_share(share, &self.splits.train, self.run.augment.as_ref(), &device)?;
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let labels = self.splits.train.labels_of(&batch.indices);
        gradients.weigh(share.count as f64);
        self.model.set_training(true);
        let rng = &mut rng.for_rows(share);
        let step = self.model.backward(&batch.images, labels.as_deref(), rng, self.run.backprop, gradients)?;
        let mut metrics = Metrics::new(bits_per_dim(step.bits_per_dim));
        if let Some(nats) = step.auxiliary {
            metrics = metrics.with(Metric::new("class_cross_entropy_bits", "bits", -nats / std::f64::consts::LN_2));
        }
        if self.run.backprop == Backprop::Reversible {
            metrics = metrics.with(Metric::new("plain_fallback", "", f64::from(u8::from(step.fell_back))));
        }
        if step.penalty != 0.0 {
            metrics = metrics.with(Metric::new("penalty_nats", "nats", step.penalty));
        }
        Ok(metrics.over(share.count as f64))
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let held_out = if self.splits.validation.is_empty() { &self.splits.train } else { &self.splits.validation };
        let share = self.ranks.share(held_out.len().min(self.run.validation_images));
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let bits = metrics::bits_of_share(&self.model, held_out, share, 1, &mut rng.for_rows(share), |_| ())?;
        Ok(Metrics::new(bits_per_dim(metrics::mean_and_error(&bits).0)).over(share.count as f64))
    }

    fn position(&self) -> BatchState {
        self.cursor.state()
    }

    fn restore(&mut self, position: BatchState) -> Result<()> {
        self.cursor = BatchCursor::restore(self.splits.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }

    fn preview(&mut self, folder: &Path, step: u64, rng: &mut FlowRng) -> Result<()> {
        const SIDE: usize = 8;
        let labels = class_rows(&self.run, SIDE * SIDE, SIDE);
        let samples = self.model.sample(SIDE * SIDE, labels.as_deref(), &[0.7], rng)?;
        if !matches!(self.run.spec.channels, 1 | 3) {
            let (levels, shape) = (self.run.spec.levels, self.run.spec.event_shape());
            let set = Dataset::new(samples.flatten_all()?.to_vec1()?, shape, levels, "samples")?;
            return npy::write(&folder.join(format!("samples-{step:08}.npy")), &set);
        }
        let pixels = Pixels::from_tensor(&samples, self.run.spec.levels)?;
        let style = GridStyle { columns: SIDE, ..GridStyle::default() };
        let mut sheet = grid(&pixels, &style)?;
        if let (Some(name_rows), Some(labels)) = (self.name_rows, &labels) {
            let names = labels.iter().step_by(SIDE).map(|&label| self.run.class_name(label)).collect();
            sheet = name_rows(sheet, style.cell(pixels.shape()), names);
        }
        write_png(&folder.join(format!("samples-{step:08}.png")), &sheet.into())
    }
}

fn bits_per_dim(value: f64) -> Metric {
    Metric::new("bits_per_dim", "bits/dim", value)
}

/// One class per row of a grid for a conditional model, `None` otherwise.
pub fn class_rows(run: &ImageRun, count: usize, columns: usize) -> Option<Vec<u32>> {
    let classes = run.model.classes()?.max(1);
    Some((0..count).map(|i| (i / columns.max(1) % classes) as u32).collect())
}
