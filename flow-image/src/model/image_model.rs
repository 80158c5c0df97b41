//! A flow over images of integer levels: preprocessing, density, class labels and modes in one place.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use flow_core::density::Latents;
use flow_core::density::bits::bits_per_dim_at;
use flow_core::numerics::host;
use flow_core::{Backprop, Density, Error, FlowRng, Gradients, MultiScale, ParamStore, Result, Scored};

use super::preprocess::Preprocess;
use super::{ClassHead, ImageFlow, ImageSpec, ModelConfig, Penalty};

/// A model of images whose pixels are integers `0 … levels - 1`.
///
/// Likelihoods are those of the discrete data: lower bounds of `log P(x)` in nats, one noise draw per
/// call, `bits/dim = -log P(x) / (D ln 2)` with `D = C · H · W`. They include the log-determinant of the
/// preprocessing and are comparable between models and to other work on images of the same `levels`.
///
/// # Shapes
/// - levels: `(B, C, H, W)` of any element type; labels: one class per image, ignored by unconditional
///   models; latents: [`Latents`], finest first.
pub struct ImageModel {
    config: ModelConfig,
    spec: ImageSpec,
    pub(super) preprocess: Preprocess,
    flow: MultiScale,
    class_head: Option<ClassHead>,
    penalty: Penalty,
    training: AtomicBool,
}

/// What [`ImageModel::backward`] measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageStep {
    /// The mean over the batch.
    pub bits_per_dim: f64,
    /// The mean `ln p(class | z)` of a conditional model, in nats.
    pub auxiliary: Option<f64>,
    /// The penalty on the parameters, in nats per image.
    pub penalty: f64,
    /// Whether the reversible backward pass drifted and was done again plainly.
    pub fell_back: bool,
}

impl ImageModel {
    /// Builds the model, its parameters in `store`; starts in training mode.
    ///
    /// # Errors
    /// [`Error::Config`] when configuration and image size do not fit.
    pub fn new(config: &ModelConfig, spec: &ImageSpec, store: &ParamStore) -> Result<Self> {
        let ImageFlow { flow, scaling, class_head, penalty } = config.build(spec, &store.root())?;
        Ok(ImageModel {
            preprocess: Preprocess::new(scaling, spec, store.dtype(), store.device())?,
            config: config.clone(),
            spec: *spec,
            flow,
            class_head,
            penalty,
            training: AtomicBool::new(true),
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The images it is a model of.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        self.flow.store()
    }

    /// The density of preprocessed images.
    pub fn flow(&self) -> &MultiScale {
        &self.flow
    }

    /// The classifier of a conditional model.
    pub fn class_head(&self) -> Option<&ClassHead> {
        self.class_head.as_ref()
    }

    /// The penalty on parameters that [`ImageModel::backward`] adds.
    pub fn penalty(&self) -> &Penalty {
        &self.penalty
    }

    /// Switches batch statistics (training) or running averages (evaluation).
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
        self.flow.set_training(training);
    }

    /// Data-dependent initialisation from one batch.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn initialize(&self, levels: &Tensor, labels: Option<&[u32]>, rng: &mut FlowRng) -> Result<()> {
        let context = self.context(labels, levels.dim(0)?)?;
        let (y, _) = self.preprocess.dequantize(levels, rng)?;
        self.flow.initialize(&y, context.as_ref())
    }

    /// `log P(x)` in nats, `(B,)`: a lower bound from one draw of the noise.
    ///
    /// # Errors
    /// [`Error::Shape`] for another image size, [`Error::Config`] for values that are not levels or not
    /// classes, [`Error::Context`] when a conditional model is given no labels.
    pub fn log_prob(&self, levels: &Tensor, labels: Option<&[u32]>, rng: &mut FlowRng) -> Result<Tensor> {
        let context = self.context(labels, levels.dim(0)?)?;
        let (y, log_det) = self.preprocess.dequantize(levels, rng)?;
        Ok((self.flow.log_prob(&y, context.as_ref())? + log_det)?)
    }

    /// `-log P(x) / (D ln 2)` of every image, `(B,)`, untracked, in the mode that
    /// [`ImageModel::set_training`] chose.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn bits_per_dim(&self, levels: &Tensor, labels: Option<&[u32]>, rng: &mut FlowRng) -> Result<Tensor> {
        let _paused = self.store().no_grad();
        Ok(self.log_prob(levels, labels, rng)?.affine(-self.bits(), 0.0)?)
    }

    /// Adds the gradient of the mean bits/dim, plus penalties in the same unit, to `gradients`.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn backward(
        &self,
        levels: &Tensor,
        labels: Option<&[u32]>,
        rng: &mut FlowRng,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<ImageStep> {
        let batch = levels.dim(0)?;
        let context = self.context(labels, batch)?;
        let (y, log_det) = self.preprocess.dequantize(levels, rng)?;
        let weight = log_det.ones_like()?.affine(-self.bits() / batch.max(1) as f64, 0.0)?;
        self.flow.set_noise(rng);
        let (scored, auxiliary) = self.backward_scaled(&y, context.as_ref(), &weight, mode, gradients)?;
        let penalty = self.penalty.backward(self.bits(), gradients)?;
        Ok(ImageStep {
            bits_per_dim: bits_per_dim_at(mean(&(scored.log_prob + log_det)?)?, self.spec.dims(), 1.0)?,
            auxiliary: auxiliary.as_ref().map(mean).transpose()?,
            penalty,
            fell_back: scored.fell_back,
        })
    }

    /// Gradients of the weighted log-likelihood of scaled images and of the class loss of a conditional model; also
    /// returns `ln p(class | z)` of the latter, `(B,)`.
    ///
    /// The Glow authors' loss is `bits/dim + w · CE / ln 2`; in units of the log-likelihood, whose weight turns
    /// nats into bits/dim, the class term is `D · w · ln p(class | z)`.
    fn backward_scaled(
        &self,
        y: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Option<Tensor>)> {
        let (Some(head), Some(one_hot)) = (&self.class_head, context) else {
            return self.flow.backward_with(y, context, weight, None, mode, gradients);
        };
        let scale = self.spec.dims() as f64 * head.weight();
        let objective = |top: &Tensor| Ok(head.log_prob(top, one_hot)?.affine(scale, 0.0)?);
        let (scored, bonus) = self.flow.backward_with(y, context, weight, Some(&objective), mode, gradients)?;
        let nats = bonus.filter(|_| scale > 0.0).map(|b| b.affine(1.0 / scale, 0.0)).transpose()?;
        Ok((scored, nats))
    }

    /// `n` images as bytes `(n, C, H, W)`, in evaluation mode; one temperature, or one for every latent,
    /// finest first.
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong number of temperatures or labels, [`Error::NonFinite`] when a sample
    /// diverged.
    pub fn sample(&self, n: usize, labels: Option<&[u32]>, temperatures: &[f64], rng: &mut FlowRng) -> Result<Tensor> {
        let context = self.context(labels, n)?;
        let latents = self.flow.latent_shapes().len();
        let temperatures = match temperatures {
            &[one] => vec![one; latents],
            many => many.to_vec(),
        };
        if let Some(bad) = temperatures.iter().find(|t| !(t.is_finite() && **t >= 0.0)) {
            return Err(Error::config("temperature", format!("must be finite and not negative, got {bad}")));
        }
        let y = self.evaluating(|| self.flow.sample_with(n, context.as_ref(), &temperatures, rng))?;
        self.preprocess.quantize(&y)
    }

    /// Whitened latents and `log P(x)` with the noise at its mean, in evaluation mode: deterministic, and
    /// [`ImageModel::decode`] gives the same levels back.
    ///
    /// # Errors
    /// As [`ImageModel::log_prob`].
    pub fn encode(&self, levels: &Tensor, labels: Option<&[u32]>) -> Result<(Latents, Tensor)> {
        let context = self.context(labels, levels.dim(0)?)?;
        let (y, pre) = self.preprocess.center(levels)?;
        let (latents, log_prob) = self.evaluating(|| self.flow.encode(&y, context.as_ref()))?;
        Ok((latents, (log_prob + pre)?))
    }

    /// The images of latents, as bytes `(B, C, H, W)`, in evaluation mode.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of latents, [`Error::Shape`] for other shapes,
    /// [`Error::NonFinite`] when the image diverged.
    pub fn decode(&self, latents: &Latents, labels: Option<&[u32]>) -> Result<Tensor> {
        let batch = latents.0.first().map_or(Ok(0), |z| z.dim(0))?;
        let context = self.context(labels, batch)?;
        let y = self.evaluating(|| self.flow.decode(latents, context.as_ref()))?;
        self.preprocess.quantize(&y)
    }

    /// `1 / (D ln 2)`.
    fn bits(&self) -> f64 {
        1.0 / (self.spec.dims() as f64 * std::f64::consts::LN_2)
    }

    pub(super) fn evaluating<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.flow.set_training(false);
        let result = f();
        self.flow.set_training(self.training.load(Ordering::Relaxed));
        result
    }

    /// One-hot labels for a conditional model.
    pub(super) fn context(&self, labels: Option<&[u32]>, batch: usize) -> Result<Option<Tensor>> {
        let Some(classes) = self.config.classes() else { return Ok(None) };
        let Some(labels) = labels else {
            let reason = format!("is conditional on {classes} classes, no labels were given");
            return Err(Error::Context { layer: "image model".into(), reason });
        };
        if labels.len() != batch {
            return Err(Error::config("labels", format!("{} given for {batch} images", labels.len())));
        }
        let mut one_hot = vec![0f32; batch * classes];
        for (row, &label) in one_hot.chunks_exact_mut(classes.max(1)).zip(labels) {
            let slot = row.get_mut(label as usize);
            *slot.ok_or_else(|| Error::config("labels", format!("{label} is not one of {classes} classes")))? = 1.0;
        }
        let store = self.store();
        Ok(Some(Tensor::from_vec(one_hot, (batch, classes), store.device())?.to_dtype(store.dtype())?))
    }
}

/// The mean of `(B,)` in f64.
fn mean(t: &Tensor) -> Result<f64> {
    Ok(host::wide(t)?.mean_all()?.to_scalar()?)
}
