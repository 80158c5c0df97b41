//! Batch normalization: the statistics, and the layer of conditioner networks.
//!
//! The statistics are shared with the bijector [`layers::BatchNorm`](crate::layers::BatchNorm). The running
//! averages move exactly once per training step: in the pass that builds the graph, which both modes of
//! [`Backprop`](crate::Backprop) run once (reversible back-propagation makes its forward pass with
//! tracking paused and its graph when it walks back).

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};

use crate::param::{Init, Param, ParamPath, ParamStore};
use crate::{Error, Result};

/// The weight of the current batch in the running averages (the RealNVP authors' `decay`).
const DECAY: f64 = 0.1;

/// Added to every variance (the RealNVP authors' value).
pub(crate) const EPSILON: f64 = 1e-4;

/// Mean and variance of every channel, each `(C, 1, 1)`.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    pub(crate) mean: Tensor,
    pub(crate) variance: Tensor,
}

impl Moments {
    /// `√(variance + ε)`.
    pub(crate) fn std(&self) -> Result<Tensor> {
        Ok((&self.variance + EPSILON)?.sqrt()?)
    }

    /// Over the last two dimensions of `rows`, `(C, B, P)`; only where `mask`, `(C, 1, P)`, is one.
    fn of(rows: &Tensor, mask: Option<&Tensor>) -> Result<Self> {
        let (_, batch, pixels) = rows.dims3()?;
        let average = |t: Tensor| -> Result<Tensor> {
            let total = |t: &Tensor| t.sum_keepdim(2)?.sum_keepdim(1);
            Ok(match mask {
                None => total(&t)?.affine(1.0 / (batch * pixels) as f64, 0.0)?,
                Some(mask) => {
                    let count = total(mask)?.affine(batch as f64, 0.0)?.maximum(1.0)?;
                    total(&t.broadcast_mul(mask)?)?.div(&count)?
                }
            })
        };
        let mean = average(rows.clone())?;
        let variance = average(rows.broadcast_sub(&mean)?.sqr()?)?;
        Ok(Moments { mean, variance })
    }
}

/// Batch statistics in training, their running averages (buffers of the model) in evaluation.
#[derive(Debug)]
pub(crate) struct BatchStatistics {
    mean: Param,
    variance: Param,
    store: ParamStore,
    training: AtomicBool,
}

impl BatchStatistics {
    /// Buffers `running_mean` (zero) and `running_variance` (one) under `path`; starts in training.
    pub(crate) fn new(path: &ParamPath, channels: usize) -> Result<Self> {
        let store = path.store().clone();
        let zeros = Tensor::zeros(channels, store.dtype(), store.device())?;
        Ok(BatchStatistics {
            mean: path.buffer("running_mean", &zeros)?,
            variance: path.buffer("running_variance", &zeros.ones_like()?)?,
            store,
            training: AtomicBool::new(true),
        })
    }

    /// The element type of the averages.
    pub(crate) fn dtype(&self) -> DType {
        self.mean.dtype()
    }

    pub(crate) fn training(&self) -> bool {
        self.training.load(Ordering::Relaxed)
    }

    pub(crate) fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }

    /// What normalises `rows` now: see the module's text for when the running averages move.
    pub(crate) fn of(&self, rows: &Tensor, mask: Option<&Tensor>) -> Result<Moments> {
        // A batch without rows has no statistics.
        if !self.training() || rows.elem_count() == 0 {
            return self.running();
        }
        let moments = Moments::of(rows, mask)?;
        if self.store.tracking() {
            self.advance(&self.mean, &moments.mean)?;
            self.advance(&self.variance, &moments.variance)?;
        }
        Ok(moments)
    }

    /// The running averages.
    pub(crate) fn running(&self) -> Result<Moments> {
        let shape = (self.mean.var().elem_count(), 1, 1);
        Ok(Moments { mean: self.mean.tensor().reshape(shape)?, variance: self.variance.tensor().reshape(shape)? })
    }

    fn advance(&self, average: &Param, value: &Tensor) -> Result<()> {
        let old = average.tensor();
        let step = (value.detach().reshape(old.shape())? - &old)?.affine(DECAY, 0.0)?;
        average.set(&(old + step)?)
    }
}

/// `(B, C, …)` as `(C, B, P)`: sums over the last dimension are fast and exact, those over leading ones
/// are neither.
pub(crate) fn to_rows(x: &Tensor) -> Result<Tensor> {
    let (b, c, pixels) = (x.dim(0)?, x.dim(1)?, x.dims()[2..].iter().product::<usize>());
    Ok(x.reshape((b, c, pixels))?.transpose(0, 1)?.contiguous()?)
}

/// The inverse of [`to_rows`] for a tensor shaped like `like`.
pub(crate) fn from_rows(rows: &Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(rows.transpose(0, 1)?.contiguous()?.reshape(like.shape())?)
}

/// `y = γ (x - μ) / √(σ² + 1e-4) + β` per channel, a layer of a network (Ioffe & Szegedy 2015).
///
/// `μ` and `σ²` are the batch's in training and running averages (decay .1) in evaluation; gradients
/// flow through the former. For the invertible layer see [`layers::BatchNorm`](crate::layers::BatchNorm).
///
/// # Shapes
/// - `x`, `y`: `(B, C, …)`.
#[derive(Debug)]
pub struct BatchNorm {
    channels: usize,
    statistics: BatchStatistics,
    gamma: Option<Param>,
    beta: Param,
}

impl BatchNorm {
    /// Parameters `beta` (zero) and, with `scale`, `gamma` (one), and the running averages under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] when a name is taken.
    pub fn new(path: &ParamPath, channels: usize, scale: bool) -> Result<Self> {
        Ok(BatchNorm {
            channels,
            statistics: BatchStatistics::new(path, channels)?,
            gamma: if scale { Some(path.param("gamma", channels, Init::Const(1.0))?) } else { None },
            beta: path.param("beta", channels, Init::Const(0.0))?,
        })
    }

    /// The normalised batch.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `(B, C, …)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() < 2 || x.dim(1)? != self.channels {
            let expected = format!("(B, {}, …)", self.channels);
            return Err(Error::Shape { layer: "batch norm".into(), expected, actual: x.dims().to_vec() });
        }
        let rows = to_rows(x)?;
        let moments = self.statistics.of(&rows, None)?;
        let per_channel = |p: &Param| p.tensor().reshape((self.channels, 1, 1));
        let mut scale = moments.std()?.recip()?;
        if let Some(gamma) = &self.gamma {
            scale = (scale * per_channel(gamma)?)?;
        }
        let y = rows.broadcast_sub(&moments.mean)?.broadcast_mul(&scale)?;
        from_rows(&y.broadcast_add(&per_channel(&self.beta)?)?, x)
    }

    /// Switches between the batch's statistics and the running averages.
    pub fn set_training(&self, training: bool) {
        self.statistics.set_training(training);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlowRng;
    use candle_core::{DType, Device};

    #[test]
    fn normalises_in_training_and_uses_running_averages_in_evaluation() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let norm = BatchNorm::new(&store.root(), 3, true).unwrap();
        let x = FlowRng::seed_from(1).normal((4, 3, 2, 5), DType::F64, &Device::Cpu).unwrap();
        let x = x.affine(2.0, 7.0).unwrap();
        let y = to_rows(&norm.forward(&x).unwrap()).unwrap();
        let moments = Moments::of(&y, None).unwrap();
        let sum = |t: &Tensor| t.abs().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(sum(&moments.mean) < 1e-12 && (sum(&moments.variance) - 3.0).abs() < 1e-3);

        for _ in 0..300 {
            norm.forward(&x).unwrap();
        }
        norm.set_training(false);
        let evaluated = to_rows(&norm.forward(&x).unwrap()).unwrap();
        assert!(sum(&(evaluated - y).unwrap()) < 1e-9, "the running averages converge to a constant batch's");
        assert!(norm.forward(&x.narrow(1, 0, 2).unwrap()).is_err());
    }

    #[test]
    fn running_averages_do_not_move_without_tracking() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let norm = BatchNorm::new(&store.root(), 2, false).unwrap();
        let x = Tensor::new(&[[3.0, 4.0], [5.0, 8.0]], &Device::Cpu).unwrap();
        let mean = || store.get("running_mean").unwrap().tensor().to_vec1::<f64>().unwrap();
        {
            let _paused = store.no_grad();
            norm.forward(&x).unwrap();
        }
        assert_eq!(mean(), [0.0, 0.0]);
        norm.forward(&x).unwrap();
        assert!((mean()[0] - 0.4).abs() < 1e-12 && (mean()[1] - 0.6).abs() < 1e-12);
    }
}
