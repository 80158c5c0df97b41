//! The encoder: a set of points to the posterior of its shape's latent.

mod kernel;
mod layer;
mod plain;

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Shape, Tensor};
use flow_core::kernels::{Fused, Kept, Real, accepts, fuse};
use flow_core::{ParamPath, ParamStore};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use kernel::{Batch, Moments, Statistics, Trace};
use layer::{Head, PointLayer};
use plain::PlainPool;

/// The widths of an [`Encoder`], and what keeps its activations in range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EncoderConfig {
    /// Layers applied to every point, before the maximum over points.
    pub point: Vec<usize>,
    /// Hidden layers of each head, after it.
    pub head: Vec<usize>,
    /// What keeps activations in range.
    #[serde(default, skip_serializing_if = "EncoderNorm::is_batch")]
    pub norm: EncoderNorm,
}

/// What keeps an encoder's activations in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EncoderNorm {
    /// Batch normalization after every layer, as in the paper. The latent of a cloud then depends on the other clouds of a
    /// batch in training, and on running averages in evaluation: the flow of points meets other latents than those it was
    /// trained with.
    #[default]
    Batch,
    /// Hidden layers start with weights that keep the scale (He et al. 2015, arXiv 1502.01852, equation 10); those of points
    /// need nothing else, the maximum and the heads' hidden layers get layer normalization. The latent of a cloud is a
    /// function of the cloud.
    Layer,
}

impl EncoderNorm {
    fn is_batch(&self) -> bool {
        *self == EncoderNorm::Batch
    }
}

impl EncoderConfig {
    /// These widths with the paper's normalization: of the layers for each point, and of the hidden layers of a head.
    pub fn new(point: &[usize], head: &[usize]) -> Self {
        EncoderConfig { point: point.to_vec(), head: head.to_vec(), norm: EncoderNorm::Batch }
    }

    /// The paper's: 128, 128, 256, 512 for each point, heads of 256 and 128 (Yang et al. 2019, appendix A.1).
    pub fn paper() -> Self {
        Self::new(&[128, 128, 256, 512], &[256, 128])
    }
}

/// The Gaussian posterior of a latent, or the latent itself for a deterministic encoder.
#[derive(Debug, Clone)]
pub struct Posterior {
    /// `(B, Z)`.
    pub mean: Tensor,
    /// `(B, Z)`; `None` for a deterministic encoder.
    pub log_variance: Option<Tensor>,
}

/// PointNet (Qi et al. 2017) as PointFlow uses it: linear layers on every point, with batch normalization or none
/// ([`EncoderNorm`]), the maximum over points, then a head for the mean and one for the log-variance.
///
/// The maximum sends its gradient to one point even where duplicates tie.
///
/// # Shapes
/// - points `(B, N, 3)`; mean and log-variance `(B, Z)`.
#[derive(Debug)]
pub struct Encoder {
    widths: Vec<usize>,
    norm: EncoderNorm,
    layers: Vec<PointLayer>,
    mean: Head,
    log_variance: Option<Head>,
    store: ParamStore,
    training: AtomicBool,
}

impl Encoder {
    /// An encoder to `latent` numbers; with `variational` it has a head for the log-variance.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a width of zero, no layer at all, or a single unit under layer normalization.
    pub fn new(path: &ParamPath, config: &EncoderConfig, latent: usize, variational: bool) -> Result<Self> {
        if config.point.is_empty() || config.point.iter().chain(&config.head).chain([&latent]).any(|&w| w == 0) {
            return Err(Error::config("encoder", format!("needs layers of at least one unit, got {config:?}")));
        }
        let mut normalized = config.head.iter().chain(config.point.last());
        if config.norm == EncoderNorm::Layer && normalized.any(|&w| w == 1) {
            let reason = format!("a single unit has nothing to be normalized against, got {config:?}");
            return Err(Error::config("encoder", reason));
        }
        let widths: Vec<usize> = std::iter::once(3).chain(config.point.iter().copied()).collect();
        let layer = |(i, w): (usize, &[usize])| {
            let (linear, norm) = (path.pp(format!("conv{}", i + 1)), path.pp(format!("bn{}", i + 1)));
            PointLayer::new(&linear, &norm, w[0], w[1], config.norm)
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<flow_core::Result<_>>()?;
        let pooled = widths[widths.len() - 1];
        let head = |name: &str| Head::new(&path.pp(name), pooled, config, latent);
        Ok(Encoder {
            layers,
            mean: head("mean")?,
            log_variance: if variational { Some(head("log_variance")?) } else { None },
            store: path.store().clone(),
            training: AtomicBool::new(true),
            widths,
            norm: config.norm,
        })
    }

    /// Switches between the batch's statistics and the running averages.
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }

    /// The posterior of the latent of every cloud, tracked unless tracking is paused. The running averages move in
    /// tracked passes of training only.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] unless `points` is `(B, N, 3)` with `B` and `N` above zero; with batch normalization, a batch in
    /// training needs at least two clouds, since the heads normalize over clouds.
    pub fn forward(&self, points: &Tensor) -> Result<Posterior> {
        self.posterior(points, true)
    }

    /// The same through Candle's operations only: the specification, and the path of CUDA and Metal.
    pub fn composed(&self, points: &Tensor) -> Result<Posterior> {
        self.posterior(points, false)
    }

    fn posterior(&self, points: &Tensor, fused: bool) -> Result<Posterior> {
        let training = self.training.load(Ordering::Relaxed);
        let over_ranks = training && self.norm == EncoderNorm::Batch && self.store.peers().is_some();
        let batch = check(points, training && self.norm == EncoderNorm::Batch && !over_ranks)?;
        let pooled = match self.norm {
            // The kernel knows of one rank only.
            _ if over_ranks || !(fused && accepts(points)) => self.pool(points, training)?,
            EncoderNorm::Layer => fuse(PlainPool::new(&self.widths, batch), [&points.detach(), &self.packed()?])?,
            // The kernel's gradient is that of batch statistics; a tracked pass on running averages is composed.
            EncoderNorm::Batch if self.store.tracking() && !training => self.pool(points, training)?,
            EncoderNorm::Batch => self.pool_fused(points, batch, training)?,
        };
        let log_variance = self.log_variance.as_ref().map(|head| head.forward(&pooled, training)).transpose()?;
        Ok(Posterior { mean: self.mean.forward(&pooled, training)?, log_variance })
    }

    fn pool(&self, points: &Tensor, training: bool) -> Result<Tensor> {
        let (clouds, count, _) = points.dims3()?;
        let mut h = points.reshape((clouds * count, 3))?;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.composed(&h, training)?;
            if i + 1 < self.layers.len() {
                h = h.maximum(0.0)?;
            }
        }
        let h = h.reshape((clouds, count, ()))?;
        // A gather, since the gradient of Candle's maximum goes to every point that ties.
        let winner = h.detach().argmax_keepdim(1)?;
        Ok(h.gather(&winner, 1)?.squeeze(1)?)
    }

    fn packed(&self) -> Result<Tensor> {
        let layers = self.layers.iter().map(PointLayer::packed).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&layers, 0)?)
    }

    fn pool_fused(&self, points: &Tensor, batch: Batch, training: bool) -> Result<Tensor> {
        let given = match training {
            true => None,
            false => self.layers.iter().map(PointLayer::running).collect::<Result<Option<Vec<_>>>>()?,
        };
        let (trace, moments) = (Kept::default(), Kept::default());
        let op =
            PointPool { widths: self.widths.clone(), batch, given, trace: trace.clone(), moments: moments.clone() };
        let pooled = fuse(op, [&points.detach(), &self.packed()?])?;
        if training && self.store.tracking() {
            let moments: Vec<Moments> = moments.take().unwrap_or_default();
            for (layer, moments) in self.layers.iter().zip(&moments) {
                layer.advance(moments, batch.clouds * batch.points)?;
            }
        } else {
            trace.clear();
        }
        Ok(pooled)
    }
}

/// The sizes of a batch, which must have two clouds where it is normalized as a whole.
fn check(points: &Tensor, together: bool) -> Result<Batch> {
    let expected = if together { "(B ≥ 2, N ≥ 1, 3) in training" } else { "(B ≥ 1, N ≥ 1, 3)" };
    match *points.dims() {
        [clouds, count, 3] if count > 0 && clouds > usize::from(together) => Ok(Batch { clouds, points: count }),
        _ => Err(Error::Core(flow_core::Error::Shape {
            layer: "encoder".into(),
            expected: expected.into(),
            actual: points.dims().to_vec(),
        })),
    }
}

/// The layers of every point and the maximum over points, of points and packed parameters.
struct PointPool {
    widths: Vec<usize>,
    batch: Batch,
    given: Option<Vec<Moments>>,
    /// The [`Trace`] of the forward pass.
    trace: Kept,
    /// The statistics that it has found, of every layer.
    moments: Kept,
}

impl PointPool {
    fn run<T: Real>(&self, [x, packed]: [&[T]; 2]) -> (Vec<T>, Trace<T>) {
        let statistics = self.given.as_deref().map_or(Statistics::Batch, Statistics::Given);
        kernel::forward(&self.widths, &kernel::unpack(&self.widths, packed), x, self.batch, &statistics)
    }
}

impl Fused<2> for PointPool {
    fn name(&self) -> &'static str {
        "point-pool"
    }

    fn shape(&self) -> Shape {
        (self.batch.clouds, self.widths[self.widths.len() - 1]).into()
    }

    fn forward<T: Real>(&self, operands: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (pooled, trace) = self.run(operands);
        self.moments.put(trace.moments.clone());
        self.trace.put(trace);
        Ok(pooled)
    }

    fn backward<T: Real>(&self, operands: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        if self.given.is_some() {
            candle_core::bail!("the encoder has no gradient on running averages");
        }
        let [x, packed] = operands;
        let layers = kernel::unpack(&self.widths, packed);
        let through = |trace: &Trace<T>| kernel::backward(&self.widths, &layers, x, self.batch, trace, grad);
        let found = self.trace.with(|trace| trace.map(through));
        Ok([None, Some(found.unwrap_or_else(|| through(&self.run(operands).1)))])
    }
}

#[cfg(test)]
mod tests;
