//! Training the codec: what a step and a validation are.

use candle_core::Device;
use flow_core::train::{Metrics, Task};
use flow_core::{FlowRng, Gradients, ParamStore};
use serde_json::{Value, json};

use super::Idf;
use crate::data::{Augment, BatchCursor, BatchState, Dataset, sequential};
use crate::{Error, Result};

/// Images per batch of a validation.
const VALIDATION_BATCH: usize = 50;

/// An [`Idf`] with the images it learns to compress; the objective is the mean code length in bits per value.
pub struct IdfTask {
    model: Idf,
    train: Dataset,
    validation: Dataset,
    batch: usize,
    augment: Option<Augment>,
    cursor: BatchCursor,
}

impl IdfTask {
    /// A task that draws `batch` training images per step in the seeded order of a [`BatchCursor`].
    ///
    /// # Errors
    /// Images of another shape or with more levels than the model's, no images to validate on, or a batch
    /// that is no size for the training set.
    pub fn new(
        model: Idf,
        train: Dataset,
        validation: Dataset,
        batch: usize,
        augment: Option<Augment>,
        seed: u64,
    ) -> Result<Self> {
        for set in [&train, &validation] {
            if set.shape() != model.shape() || set.levels() > model.levels() {
                let given = format!("images {:?} with {} levels", set.shape(), set.levels());
                let wanted = format!("{:?} with {} levels", model.shape(), model.levels());
                return Err(Error::config(set.source(), format!("{given}, the model codes {wanted}")));
            }
        }
        if validation.is_empty() {
            return Err(Error::config(validation.source(), "holds no images to validate on"));
        }
        let cursor = BatchCursor::new(train.len(), batch, seed)?;
        Ok(IdfTask { model, train, validation, batch, augment, cursor })
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

    fn loss(&mut self, gradients: &mut Gradients) -> Result<f64> {
        let batch = self.cursor.next_batch(&self.train, self.augment.as_ref(), self.model.store().device())?;
        let loss = self.model.bits(&batch.images)?.mean_all()?.affine(1.0 / self.values_per_image(), 0.0)?;
        let value = scalar(&loss)?;
        // A loss that is not a number has no gradient worth the time; the engine's guard skips the step.
        if value.is_finite() {
            gradients.accumulate(&loss.backward()?)?;
        }
        Ok(value)
    }

    fn mean_bits(&self) -> Result<f64> {
        let _paused = self.model.store().no_grad();
        let mut total = 0.0;
        for range in sequential(self.validation.len(), VALIDATION_BATCH) {
            let images = self.validation.batch(&range.collect::<Vec<_>>(), self.model.store().device())?;
            total += scalar(&self.model.bits(&images)?.sum_all()?)?;
        }
        Ok(total / (self.validation.len() as f64 * self.values_per_image()))
    }
}

fn scalar(value: &candle_core::Tensor) -> Result<f64> {
    Ok(value.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F64)?.to_scalar()?)
}

/// The engine speaks the core's errors; one of this crate's own becomes a line of text.
fn to_core(error: Error) -> flow_core::Error {
    match error {
        Error::Core(error) => error,
        other => flow_core::Error::config("idf training", other.to_string()),
    }
}

impl Task for IdfTask {
    fn store(&self) -> &ParamStore {
        self.model.store()
    }

    fn config(&self) -> Value {
        json!({
            "model": self.model.config(),
            "shape": self.model.shape(),
            "levels": self.model.levels(),
            "batch": self.batch,
            "augment": self.augment,
            "data": self.train.source(),
        })
    }

    fn initialize(&mut self, _rng: &mut FlowRng) -> flow_core::Result<()> {
        Ok(())
    }

    fn step(&mut self, _step: u64, _rng: &mut FlowRng, gradients: &mut Gradients) -> flow_core::Result<Metrics> {
        Ok(vec![("bits_per_value".into(), self.loss(gradients).map_err(to_core)?)])
    }

    fn validate(&mut self, _rng: &mut FlowRng) -> flow_core::Result<Metrics> {
        Ok(vec![("bits_per_value".into(), self.mean_bits().map_err(to_core)?)])
    }

    fn data_state(&self) -> Value {
        json!(self.cursor.state())
    }

    fn restore_data_state(&mut self, state: &Value) -> flow_core::Result<()> {
        let fault = |error: serde_json::Error| flow_core::Error::config("position in the data", error.to_string());
        let state: BatchState = serde_json::from_value(state.clone()).map_err(fault)?;
        self.cursor = BatchCursor::restore(self.train.len(), self.batch, state).map_err(to_core)?;
        Ok(())
    }

    fn samples_per_step(&self) -> usize {
        self.batch
    }

    fn unit(&self) -> &str {
        "bits/value"
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use flow_core::train::{OptimizerConfig, TrainConfig, Trainer};

    use super::super::coder::tests::random_image;
    use super::super::{IdfConfig, bits_per_value, compress, decompress};
    use super::*;

    /// Images whose columns repeat their first: about a quarter of the information of noise.
    fn stripes(count: usize) -> Dataset {
        let image = |seed: usize| {
            let rows = random_image([1, 4, 1], 16, seed as u64);
            rows.into_iter().flat_map(|v| [v; 4])
        };
        Dataset::new((0..count).flat_map(image).collect(), [1, 4, 4], 16, "stripes").unwrap()
    }

    fn task() -> IdfTask {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let config = IdfConfig { scales: 1, width: 16, top_width: 16, components: 2, ..IdfConfig::default() };
        let model = Idf::new(&config, [1, 4, 4], 16, &store).unwrap();
        IdfTask::new(model, stripes(256), stripes(300).subset(256..300).unwrap(), 32, None, 1).unwrap()
    }

    #[test]
    fn training_shortens_the_archive_of_unseen_images() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 150,
            optimizer: OptimizerConfig::adam(1e-2),
            validate_every: Some(150),
            checkpoint_every: None,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(config, folder.path(), task()).unwrap();
        let summary = trainer.run(&mut ()).unwrap();
        let validated = summary.best.unwrap().0;
        let task = trainer.into_task();
        let images = task.validation.images().to_vec();
        let archive = compress(task.model(), &images).unwrap();
        assert_eq!(decompress(task.model(), &archive).unwrap(), images);
        let measured = bits_per_value(archive.len() - 52, images.len());
        // Noise needs 4 bits, a perfect model 1.
        assert!(measured < 2.5, "{measured}");
        assert!((measured / validated - 1.0).abs() < 0.1, "coded {measured}, validated {validated}");
    }

    #[test]
    fn the_data_position_survives_json() {
        let mut first = task();
        let mut rng = FlowRng::seed_from(0);
        let mut gradients = Gradients::new(first.store());
        first.step(0, &mut rng, &mut gradients).unwrap();
        let mut second = task();
        second.restore_data_state(&first.data_state()).unwrap();
        let step = |task: &mut IdfTask| task.step(1, &mut FlowRng::seed_from(0), &mut Gradients::new(task.store()));
        assert_eq!(step(&mut first).unwrap(), step(&mut second).unwrap());
        assert!(second.restore_data_state(&json!({"epoch": "x"})).is_err());
    }

    #[test]
    fn images_that_the_model_cannot_code_are_refused() {
        let wide = Dataset::new(vec![0; 32], [1, 4, 8], 16, "wide").unwrap();
        let error = IdfTask::new(task().into_model(), wide, stripes(4), 1, None, 0).err().unwrap().to_string();
        assert!(error.contains("wide") && error.contains("[1, 4, 4]"), "{error}");
    }
}
