//! Training a deep latent Gaussian model: what a step computes, what a run is, how a checkpoint becomes a model again.

use candle_core::{DType, Device};
use flow_core::train::{
    self, CursorState, EpochCursor, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Run, ScheduleConfig, Task,
    TrainConfig,
};
use flow_core::{FlowRng, Gradients, ParamStore};
use serde::{Deserialize, Serialize};

use super::config::DlgmConfig;
use super::images::BinaryImages;
use super::model::{Dlgm, Terms, host};
use super::score::score_share;
use crate::{Error, Result};

/// The name in logs of the free energy, in nats per image, whatever the annealing.
pub const FREE_ENERGY: &str = "free_energy_nats";

/// Where annealing begins (Rezende & Mohamed 2015, section 6.2).
const COLDEST: f64 = 0.01;

/// A run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DlgmRun {
    /// The model.
    pub model: DlgmConfig,
    /// Where the images came from, in words or as a path.
    pub source: String,
    /// Seed of the parameters, of the order of the images and of the parts that the source has not itself.
    pub seed: u64,
    /// Seed of the binarisation.
    pub binarization: u64,
    /// Images per step.
    pub batch: usize,
    /// Over how many steps `β` rises from 0.01 to one; none with 0.
    pub anneal: u64,
    /// Images that a validation looks at, from the first.
    pub validation_images: usize,
    /// Draws for each of them.
    pub validation_draws: usize,
}

impl DlgmRun {
    /// A run of `model` as in the paper: batches of 100, `β` annealed over 10,000 steps.
    pub fn new(model: DlgmConfig, source: &str, seed: u64) -> Self {
        DlgmRun {
            model,
            source: source.into(),
            seed,
            binarization: 0,
            batch: 100,
            anneal: 10_000,
            validation_images: 1000,
            validation_draws: 1,
        }
    }

    /// `β` of a step: `min(1, 0.01 + step / anneal)`.
    pub fn beta(&self, step: u64) -> f64 {
        match self.anneal {
            0 => 1.0,
            anneal => (COLDEST + step as f64 / anneal as f64).min(1.0),
        }
    }
}

impl Run for DlgmRun {
    type Model = Dlgm;
    type Error = Error;
    const DESCRIBES: &'static str = "a deep latent Gaussian model";

    fn build(&self, device: &Device) -> Result<Dlgm> {
        Dlgm::new(&ParamStore::new(self.seed, DType::F32, device), &self.model)
    }
}

impl train::Model for Dlgm {
    fn store(&self) -> &ParamStore {
        Dlgm::store(self)
    }
}

/// The longest gradient of a step.
const CLIP: f64 = 30.0;

/// The engine's configuration of `steps` steps: Adam at a constant 1e-3 with a short warm-up. The paper's RMSprop at 1e-5
/// needs 500,000.
///
/// Gradients longer than 30 are shortened to it: without a limit forty planar maps, each of which may stretch, run away from
/// the prior within some hundred steps for most seeds.
pub fn train_config(steps: u64, seed: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(1e-3),
        schedule: ScheduleConfig::constant(50.min(steps / 2)),
        clip_norm: Some(CLIP),
        seed,
        ..TrainConfig::default()
    }
}

/// The parts of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What the model learns from.
    pub train: BinaryImages,
    /// What checkpoints are chosen by.
    pub validation: BinaryImages,
    /// What is reported, and looked at by nothing else.
    pub test: BinaryImages,
}

impl Parts {
    /// By what a run knows its data again.
    pub fn fingerprint(&self) -> Fingerprint {
        let parts = [("train", &self.train), ("validation", &self.validation), ("test", &self.test)];
        parts
            .iter()
            .fold(Fingerprint::new("binary images"), |print, (name, set)| print.part(name, set.len(), set.hash()))
    }
}

/// A [`Dlgm`] with its images, as the training engine sees it.
pub struct DlgmTask {
    run: DlgmRun,
    model: Dlgm,
    parts: Parts,
    cursor: EpochCursor,
    ranks: Ranks,
}

impl DlgmTask {
    /// Builds the model of `run` for the images of `parts`.
    ///
    /// # Errors
    /// Images of another size than the model's, fewer of them than a batch, validations of nothing, or a model that does
    /// not fit.
    pub fn new(run: DlgmRun, parts: Parts, device: &Device) -> Result<Self> {
        for set in [&parts.train, &parts.validation, &parts.test] {
            if set.shape() != run.model.shape {
                let reason = format!("are {:?}, the model is for {:?}", set.shape(), run.model.shape);
                return Err(Error::config("images", reason));
            }
        }
        if run.validation_images == 0 || run.validation_draws == 0 {
            let reason = format!("{} images, {} draws: at least one", run.validation_images, run.validation_draws);
            return Err(Error::config("validation", reason));
        }
        let cursor = EpochCursor::new(parts.train.len(), run.batch, run.seed)?;
        Ok(DlgmTask { model: run.build(device)?, run, parts, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &Dlgm {
        &self.model
    }

    /// The images.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// The free energy and its divergence, means over draws.
fn metrics(terms: &Terms) -> Result<Metrics> {
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (q, x, z) = (mean(host(&terms.log_q)?), mean(host(&terms.log_x)?), mean(host(&terms.log_z)?));
    Ok(Metrics::new(Metric::new(FREE_ENERGY, "nats", q - x - z)).with(Metric::new("kl_nats", "nats", q - z)))
}

impl Task for DlgmTask {
    type Run = DlgmRun;
    type Position = CursorState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &DlgmRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.parts.fingerprint())
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, step: u64, rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let indices = self.cursor.next_batch().indices;
        let share = self.ranks.share(indices.len());
        if share.is_empty() {
            return Ok(Metrics::of_nothing());
        }
        let places = &indices[share.range()];
        let x = self.parts.train.batch(places, self.model.store().dtype(), self.model.store().device())?;
        let noise = self.model.noise(places.len(), &mut rng.for_rows(share))?;
        gradients.weigh(share.count as f64);
        let beta = self.run.beta(step);
        let terms = self.model.free_energy_backward(&x, &noise, beta, gradients)?;
        let metrics = metrics(&terms)?.over(share.count as f64);
        Ok(if self.run.anneal == 0 { metrics } else { metrics.with(Metric::new("beta", "", beta)) })
    }

    fn validate(&mut self, rng: &mut FlowRng) -> Result<Metrics> {
        let DlgmRun { validation_images, validation_draws, .. } = self.run;
        let set = &self.parts.validation;
        let share = self.ranks.share(validation_images.min(set.len()));
        // Of no images at all `score` says what is wrong.
        if share.is_empty() && share.of > 0 {
            return Ok(Metrics::of_nothing());
        }
        let report = score_share(&self.model, set, share, validation_draws, &mut rng.for_rows(share))?;
        let kl = Metric::new("kl_nats", "nats", report.kl.0);
        Ok(Metrics::new(Metric::new(FREE_ENERGY, "nats", report.bound.0)).with(kl).over(share.count as f64))
    }

    fn position(&self) -> CursorState {
        self.cursor.state()
    }

    fn restore(&mut self, position: CursorState) -> Result<()> {
        self.cursor = EpochCursor::restore(self.parts.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }
}
