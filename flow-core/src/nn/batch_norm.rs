//! Batch normalization as a layer of conditioner networks.

use candle_core::Tensor;

use super::statistics::{BatchStatistics, from_rows, to_rows};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

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
    use crate::nn::statistics::Moments;
    use crate::{FlowRng, ParamStore};
    use candle_core::{DType, Device};

    #[test]
    fn normalises_in_training_and_uses_running_averages_in_evaluation() {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let norm = BatchNorm::new(&store.root(), 3, true).unwrap();
        let x = FlowRng::seed_from(1).normal((4, 3, 2, 5), DType::F64, &Device::Cpu).unwrap();
        let x = x.affine(2.0, 7.0).unwrap();
        let y = to_rows(&norm.forward(&x).unwrap()).unwrap();
        let moments = Moments::of(&y, None, None).unwrap();
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
