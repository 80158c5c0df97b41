//! A density as the training engine sees it: what a step computes, and what a checkpoint holds.
//!
//! ```
//! use candle_core::Device;
//! use flow_core::train::{Trainer, load};
//! use flow_density::data::{Data, Toy};
//! use flow_density::model::{Kind, ModelConfig};
//! use flow_density::trainer::{DensityRun, DensityTask, train_config};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let data = Data::from_toy(Toy::Moons)?;
//! let model = ModelConfig { layers: 2, hidden: vec![16], ..ModelConfig::preset(Kind::Maf) };
//! let run = DensityRun::new("moons", &data, model, 64, 0);
//!
//! let out = std::env::temp_dir().join(format!("flow-density-doc-{}", std::process::id()));
//! let task = DensityTask::new(run, data, &Device::Cpu)?;
//! Trainer::new(train_config(Kind::Maf, 20, 0), &out, task)?.run(&mut ())?;
//!
//! let (run, model) = load::<DensityRun>(&out, &Device::Cpu, true)?;
//! assert_eq!(model.features(), run.features());
//! # std::fs::remove_dir_all(out)?;
//! # Ok(())
//! # }
//! ```

mod task;

use candle_core::{DType, Device};
use flow_core::ParamStore;
use flow_core::train::{self, EmaConfig, OptimizerConfig, Run, ScheduleConfig, TrainConfig};
use serde::{Deserialize, Serialize};

use crate::data::{Classes, Columns, Data, Reading, Standard};
use crate::model::{Kind, Model, ModelConfig, Purpose};
use crate::variational::{Constraint, Objective, located};
use crate::{Error, Result};

pub use task::{DensityTask, MATCHING_LOSS, NLL};

/// How far numbers that were rounded to f32 move a mean or a deviation, in parts of them.
const ROUNDED: f64 = 1e-6;

/// Everything about a run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DensityRun {
    /// The name of a toy or the path of a file.
    pub data: String,
    /// From data to what the model sees, and back.
    pub standard: Standard,
    /// The model.
    pub model: ModelConfig,
    /// Rows per step.
    pub batch: usize,
    /// Of initial weights and of the split of a table.
    pub seed: u64,
    /// How the file is read.
    #[serde(default, skip_serializing_if = "Reading::is_plain")]
    pub reading: Reading,
    /// Which columns of the file the model is of; nothing of toys, and of runs that were made before it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// What a straightened model was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub straightened: Option<Straightened>,
    /// The density that the model was fitted to, where it was not fitted to data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Fitted>,
    /// How many of the columns, the last ones, the model is conditioned on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub given: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a model was fitted to, if that is a density.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// What kind of density [`DensityRun::data`] names: `energy`, `problem` or `expression`.
    pub kind: String,
    /// The domains of its parameters.
    pub constraints: Vec<Constraint>,
    /// What a step computes.
    pub objective: Objective,
    /// Whether the model has a shift and a scale for where the density lies: all but runs that were made before it had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub located: bool,
}

/// Where the paths of a straightened model come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Straightened {
    /// The checkpoint whose samples it was matched with.
    pub teacher: String,
    /// Those samples.
    pub pairs: usize,
    /// Whether it draws them in one step, which leaves it no density.
    pub distilled: bool,
}

impl DensityRun {
    /// A run on data of this name, a toy's or a file's, with their scale.
    pub fn new(name: &str, data: &Data, model: ModelConfig, batch: usize, seed: u64) -> Self {
        let standard = data.standard().clone();
        let columns = data.toy().is_none().then(|| data.chosen().clone());
        let reading = Reading::default();
        let (straightened, fitted, given) = (None, None, 0);
        DensityRun { data: name.into(), standard, model, batch, seed, reading, columns, straightened, fitted, given }
    }

    /// A run that fits a model to a density of parameters with these names, in their own units.
    pub fn of_density(name: &str, names: &[String], model: ModelConfig, fitted: Fitted, seed: u64) -> Self {
        let count = names.len();
        let standard = Standard { mean: vec![0.0; count], std: vec![1.0; count], ..Standard::default() };
        let columns = Columns { names: names.to_vec(), ..Columns::unnamed(count) };
        DensityRun {
            data: name.into(),
            standard,
            model,
            batch: fitted.objective.samples,
            seed,
            reading: Reading::default(),
            columns: Some(columns),
            straightened: None,
            fitted: Some(fitted),
            given: 0,
        }
    }

    /// The same run with the last `given` columns as what the model is conditioned on.
    #[must_use]
    pub fn given(mut self, given: usize) -> Self {
        self.given = given;
        self
    }

    /// Columns that the model is a density of: all but those that it is conditioned on.
    pub fn modelled(&self) -> usize {
        self.features() - self.given
    }

    /// The scales of the columns that the model is a density of and of those that it is conditioned on.
    pub fn scales(&self) -> (Standard, Standard) {
        let part = |range: std::ops::Range<usize>| Standard {
            mean: self.standard.mean[range.clone()].to_vec(),
            std: self.standard.std[range.clone()].to_vec(),
            lattices: self.standard.lattices.iter().skip(range.start).take(range.len()).cloned().collect(),
        };
        (part(0..self.modelled()), part(self.modelled()..self.features()))
    }

    /// The same run on a file that is read in this way.
    #[must_use]
    pub fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// The names of the columns, none if they have none or nothing is known of them.
    pub fn names(&self) -> &[String] {
        self.columns.as_ref().map_or(&[], |columns| &columns.names)
    }

    /// The classes that the model is given; `None` for a density without any.
    pub fn classes(&self) -> Option<&Classes> {
        self.columns.as_ref().and_then(|columns| columns.class.as_ref())
    }

    /// The same run with the scale and the columns as an earlier description of it has them, if that is of the same numbers:
    /// runs that were made before columns were written down rounded numbers to f32 before they centred them.
    #[must_use]
    pub fn continuing(mut self, earlier: &DensityRun) -> Self {
        let (now, then) = (&self.standard, &earlier.standard);
        let near = |now: &[f64], then: &[f64]| {
            now.len() == then.len()
                && now
                    .iter()
                    .zip(then)
                    .zip(&self.standard.std)
                    .all(|((a, b), std)| (a - b).abs() <= ROUNDED * (std + a.abs()))
        };
        if earlier.columns.is_none() && near(&now.mean, &then.mean) && near(&now.std, &then.std) {
            self.standard.mean.clone_from(&then.mean);
            self.standard.std.clone_from(&then.std);
            self.columns = None;
        }
        self
    }

    /// Entries of a row.
    pub fn features(&self) -> usize {
        self.standard.columns()
    }

    /// Whether one Euler step is all that the model is good for.
    pub fn is_distilled(&self) -> bool {
        self.straightened.as_ref().is_some_and(|s| s.distilled)
    }

    /// Builds the model with fresh parameters, for training or for use.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no model.
    pub fn model(&self, purpose: Purpose, device: &Device) -> Result<Model> {
        let store = ParamStore::new(self.seed, DType::F32, device);
        if self.given > 0 {
            if self.given >= self.features() {
                let reason = format!("must be fewer than the {} columns, got {}", self.features(), self.given);
                return Err(Error::config("columns that the model is conditioned on", reason));
            }
            return self.model.build_given(self.modelled(), self.given, &store, purpose);
        }
        match &self.fitted {
            Some(fitted) => {
                Ok(Model::Discrete(located(&store, &fitted.constraints, fitted.located, |path, features| {
                    self.model.chain(features, 0, path)
                })?))
            }
            None => {
                let classes = self.classes().map_or(0, Classes::len);
                self.model.build_given(self.features(), classes, &store, purpose)
            }
        }
    }
}

impl Run for DensityRun {
    type Model = Model;
    type Error = Error;
    const DESCRIBES: &'static str = "a density";

    /// The model for use, not for training.
    fn build(&self, device: &Device) -> Result<Model> {
        self.model(Purpose::Use, device)
    }
}

impl train::Model for Model {
    fn store(&self) -> &ParamStore {
        Model::store(self)
    }

    fn set_training(&self, training: bool) {
        self.density().set_training(training);
    }
}

/// The engine's configuration of the default recipe: Adam at a rate that suits the family, warm-up, cosine decay to a
/// hundredth, clipping at a norm of five, averaged weights.
pub fn train_config(kind: Kind, steps: u64, seed: u64) -> TrainConfig {
    let rate = match kind {
        Kind::Planar | Kind::Radial | Kind::Sylvester => 1e-2,
        Kind::Ffjord => 5e-3,
        _ => 2e-3,
    };
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(rate),
        schedule: ScheduleConfig::cosine(steps.min(200) / 2, 0.01),
        clip_norm: Some(5.0),
        ema: Some(EmaConfig { decay: 0.995 }),
        seed,
        ..TrainConfig::default()
    }
}
