//! Training the codec: what a step and a validation are, and how a checkpoint becomes a codec again.

use candle_core::{DType, Device};
use flow_core::train::{
    self, EmaConfig, Fingerprint, Metric, Metrics, OptimizerConfig, Ranks, Run, ScheduleConfig, Task, TrainConfig,
};
use flow_core::{FlowRng, Gradients, ParamStore, Share};
use serde::{Deserialize, Serialize};

use super::{Idf, IdfConfig};
use crate::data::{Augment, BatchCursor, BatchState, Dataset, fingerprint};
use crate::{Error, Result};

/// Images per batch of a validation.
const VALIDATION_BATCH: usize = 50;

/// A training run's model and data: the part of `config.json` that makes a checkpoint self-describing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct IdfRun {
    /// The architecture.
    pub codec: IdfConfig,
    /// Channels, height and width of an image.
    pub shape: [usize; 3],
    /// Number of grey levels.
    pub levels: usize,
    /// Where the images came from, in words.
    pub source: String,
    /// Images per step.
    pub batch: usize,
    /// Random changes of training images.
    pub augment: Option<Augment>,
    /// Seed of the parameters and of the order of the images.
    pub seed: u64,
}

impl IdfRun {
    /// A run of `codec` on `train`: sixteen images per step, no augmentation, seed zero.
    pub fn new(codec: IdfConfig, train: &Dataset) -> Self {
        let (shape, levels, source) = (train.shape(), train.levels(), train.source().to_string());
        IdfRun { codec, shape, levels, source, batch: 16.min(train.len()), augment: None, seed: 0 }
    }
}

impl Run for IdfRun {
    type Model = Idf;
    type Error = Error;
    const DESCRIBES: &'static str = "a codec";

    /// The model with fresh parameters; training is in f32, and coding is on the CPU wherever `device` is.
    fn build(&self, device: &Device) -> Result<Idf> {
        Idf::new(&self.codec, self.shape, self.levels, &ParamStore::new(self.seed, DType::F32, device))
    }
}

impl train::Model for Idf {
    fn store(&self) -> &ParamStore {
        Idf::store(self)
    }
}

/// The engine's configuration for a run of `steps`: Adam at 3·10⁻³ with a cosine to nearly zero, gradients
/// clipped at norm one, and an average of the weights over a hundred steps, which is what should code.
pub fn train_config(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(3e-3),
        schedule: ScheduleConfig::cosine(50.min(steps / 2), 0.02),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig { decay: 0.99 }),
        ..TrainConfig::default()
    }
}

/// An [`Idf`] with the images it learns to compress; the objective is the mean code length in bits per value.
pub struct IdfTask {
    run: IdfRun,
    model: Idf,
    train: Dataset,
    validation: Dataset,
    cursor: BatchCursor,
    ranks: Ranks,
}

impl IdfTask {
    /// Builds the model of `run`; batches come in the seeded order of a [`BatchCursor`].
    ///
    /// # Errors
    /// Images of another shape or with more levels than the run's, no images to validate on, an augmentation
    /// out of range, or a batch that is no size for the training set.
    pub fn new(run: IdfRun, train: Dataset, validation: Dataset, device: &Device) -> Result<Self> {
        for set in [&train, &validation] {
            if set.shape() != run.shape || set.levels() > run.levels {
                let given = format!("images {:?} with {} levels", set.shape(), set.levels());
                let wanted = format!("{:?} with {} levels", run.shape, run.levels);
                return Err(Error::config(set.source(), format!("{given}, the model codes {wanted}")));
            }
        }
        if validation.is_empty() {
            return Err(Error::config(validation.source(), "holds no images to validate on"));
        }
        run.augment.as_ref().map_or(Ok(()), Augment::check)?;
        let cursor = BatchCursor::new(train.len(), run.batch, run.seed)?;
        Ok(IdfTask { model: run.build(device)?, run, train, validation, cursor, ranks: Ranks::alone() })
    }

    /// The model.
    pub fn model(&self) -> &Idf {
        &self.model
    }

    /// The model, for use after the run.
    pub fn into_model(self) -> Idf {
        self.model
    }

    fn values_per_image(&self) -> f64 {
        self.model.shape().iter().product::<usize>() as f64
    }

    fn loss(&mut self, share: Share, gradients: &mut Gradients) -> Result<f64> {
        let (augment, device) = (self.run.augment.as_ref(), self.model.store().device());
        let batch = self.cursor.next_share(share, &self.train, augment, device)?;
        if share.is_empty() {
            return Ok(f64::NAN);
        }
        let loss = self.model.bits(&batch.images)?.mean_all()?.affine(1.0 / self.values_per_image(), 0.0)?;
        let value = scalar(&loss)?;
        // A loss that is not a number has no gradient worth the time; the engine's guard skips the step.
        if value.is_finite() {
            gradients.accumulate(&loss.backward()?)?;
        }
        Ok(value)
    }

    /// Bits per value of some of the validation images; of none not a number.
    fn mean_bits(&self, share: Share) -> Result<f64> {
        let _paused = self.model.store().no_grad();
        let mut total = 0.0;
        for part in share.parts(VALIDATION_BATCH) {
            let images = self.validation.batch(&part.range().collect::<Vec<_>>(), self.model.store().device())?;
            total += scalar(&self.model.bits(&images)?.sum_all()?)?;
        }
        Ok(total / (share.count as f64 * self.values_per_image()))
    }
}

fn scalar(value: &candle_core::Tensor) -> Result<f64> {
    Ok(value.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()?)
}

impl Task for IdfTask {
    type Run = IdfRun;
    type Position = BatchState;
    type Error = Error;

    const LOCATION: Option<&'static str> = Some("source");

    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn run(&self) -> &IdfRun {
        &self.run
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(fingerprint(&[("train", &self.train), ("validation", &self.validation)]))
    }

    fn share_out(&mut self, ranks: Ranks) -> flow_core::Result<()> {
        self.ranks = ranks;
        Ok(())
    }

    fn step(&mut self, _step: u64, _rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Metrics> {
        let share = self.ranks.share(self.run.batch);
        gradients.weigh(share.count as f64);
        Ok(bits_per_value(self.loss(share, gradients)?).over(share.count as f64))
    }

    fn validate(&mut self, _rng: &mut FlowRng) -> Result<Metrics> {
        let share = self.ranks.share(self.validation.len());
        Ok(bits_per_value(self.mean_bits(share)?).over(share.count as f64))
    }

    fn position(&self) -> BatchState {
        self.cursor.state()
    }

    fn restore(&mut self, position: BatchState) -> Result<()> {
        self.cursor = BatchCursor::restore(self.train.len(), self.run.batch, position)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.run.batch
    }
}

fn bits_per_value(value: f64) -> Metrics {
    Metrics::new(Metric::new("bits_per_value", "bits/value", value))
}

#[cfg(test)]
mod tests {
    use flow_core::train::Trainer;

    use super::super::coder::tests::random_image;
    use super::super::{bits_per_value, compress, decompress};
    use super::*;

    /// Images whose columns repeat their first: about a quarter of the information of noise.
    fn stripes(count: usize) -> Dataset {
        let image = |seed: usize| {
            let rows = random_image([1, 4, 1], 16, seed as u64);
            rows.into_iter().flat_map(|v| [v; 4])
        };
        Dataset::new((0..count).flat_map(image).collect(), [1, 4, 4], 16, "stripes").unwrap()
    }

    fn run(train: &Dataset) -> IdfRun {
        let codec = IdfConfig { scales: 1, width: 16, top_width: 16, components: 2, ..IdfConfig::default() };
        IdfRun { batch: 32, ..IdfRun::new(codec, train) }
    }

    fn task() -> IdfTask {
        let all = stripes(300);
        let (train, validation) = (all.subset(0..256).unwrap(), all.subset(256..300).unwrap());
        IdfTask::new(run(&train), train, validation, &Device::Cpu).unwrap()
    }

    #[test]
    fn training_shortens_the_archive_of_unseen_images_and_a_checkpoint_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let optimizer = OptimizerConfig::adam(1e-2);
        let config = TrainConfig { optimizer, validate_every: Some(300), ..train_config(300) };
        let mut trainer = Trainer::new(config, folder.path(), task()).unwrap();
        let validated = trainer.run(&mut ()).unwrap().best.unwrap().0;
        trainer.ema().unwrap().swap().unwrap();
        let task = trainer.into_task();
        let images = task.validation.images().to_vec();
        let archive = compress(task.model(), &images).unwrap();
        let (run, loaded) = train::load::<IdfRun>(folder.path(), &Device::Cpu, true).unwrap();
        assert_eq!(&run, &task.run);
        assert!(decompress(&loaded, &archive).unwrap() == images);
        let measured = bits_per_value(archive.len() - 52, images.len());
        // Without the stripes every value costs 4 bits.
        assert!(measured < 3.0, "{measured}");
        assert!((measured / validated - 1.0).abs() < 0.1, "coded {measured}, validated {validated}");
    }

    #[test]
    fn the_data_position_survives_json() {
        let mut first = task();
        let mut rng = FlowRng::seed_from(0);
        let mut gradients = Gradients::new(first.store());
        first.step(0, &mut rng, &mut gradients).unwrap();
        let mut second = task();
        let position = serde_json::to_string(&first.position()).unwrap();
        second.restore(serde_json::from_str(&position).unwrap()).unwrap();
        let step = |task: &mut IdfTask| task.step(1, &mut FlowRng::seed_from(0), &mut Gradients::new(task.store()));
        assert_eq!(step(&mut first).unwrap(), step(&mut second).unwrap());
    }

    #[test]
    fn images_that_the_model_cannot_code_are_refused() {
        let wide = Dataset::new(vec![0; 32], [1, 4, 8], 16, "wide").unwrap();
        let error = IdfTask::new(run(&stripes(4)), wide, stripes(4), &Device::Cpu).err().unwrap().to_string();
        assert!(error.contains("wide") && error.contains("[1, 4, 4]"), "{error}");
    }
}
