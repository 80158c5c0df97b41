//! Batch normalization by running statistics alone, the normalization of continuous flows.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::bijector::{Bijector, LayerReport, Pullback, Tape, check_batch_as, scale_range};
use crate::nn::RunningStatistics;
use crate::nn::statistics::{Moments, RUNNING, sum_over};
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath, ParamStore};
use crate::{Error, Gradients, Result};

/// Added to every variance (the reference's value).
const EPSILON: f64 = 1e-4;

/// What the running statistics of a [`MovingBatchNorm`] are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum MovingStatistics {
    /// Each axis over all rows.
    #[default]
    PerAxis,
    /// As the reference code of PointFlow does for clouds `(S, N, D)`: it swaps the first two dimensions and reshapes
    /// to `(D, S·N)`, which deals the coordinates of all axes out to `D` heaps. Any positive numbers make a valid
    /// bijector, but these whiten no axis. For comparison with the reference only.
    MixedAxes {
        /// `N`, the number of consecutive rows that make one cloud.
        points: usize,
    },
}

/// `z = (x - m)/√(v + 1e-4) · e^w + b` per axis, and `log |det| = Σ_d (w_d - ½ ln(v_d + 1e-4))`.
///
/// `m` and `v` are running statistics in training too: a batch only moves them for the passes that come after it, by
/// a tenth of the way. So the layer is a fixed affine map within each pass, encode and decode are exact inverses, and
/// no gradient flows through the statistics (`MovingBatchNorm1d` of the code of PointFlow, Yang et al. 2019, arXiv
/// 1906.12320, without its lag). In training they move once per step: at the end of an encode pass that builds a
/// graph or leaves a tape.
///
/// # Shapes
/// - event `(D,)`; parameters `log_scale` (`w`) and `shift` (`b`), buffers `running_mean` and `running_variance`,
///   each `(D,)`.
#[derive(Debug)]
pub struct MovingBatchNorm {
    event: [usize; 1],
    kind: MovingStatistics,
    log_scale: Param,
    shift: Param,
    running: RunningStatistics,
    store: ParamStore,
    training: AtomicBool,
}

impl MovingBatchNorm {
    /// A layer over vectors of `dim` entries: the identity up to the 1e-4, until statistics move.
    ///
    /// # Errors
    /// [`Error::Config`] for no dimensions, clouds of no points, or a name that is taken.
    pub fn new(path: &ParamPath, dim: usize, kind: MovingStatistics) -> Result<Self> {
        if dim == 0 || kind == (MovingStatistics::MixedAxes { points: 0 }) {
            let reason = format!("{dim} dimensions, {kind:?}: at least one dimension and one point are needed");
            return Err(Error::config("moving batch norm", reason));
        }
        Ok(MovingBatchNorm {
            event: [dim],
            kind,
            log_scale: path.param("log_scale", dim, Init::Const(0.0))?,
            shift: path.param("shift", dim, Init::Const(0.0))?,
            running: RunningStatistics::new(path, RUNNING, dim)?,
            store: path.store().clone(),
            training: AtomicBool::new(true),
        })
    }

    /// The running statistics that one pass uses, `(D,)` each; copies, since the buffers move in place.
    fn used(&self) -> Result<Moments> {
        Ok(Moments { mean: self.running.mean().copy()?, variance: self.running.variance().copy()? })
    }

    /// `w - ½ ln(v + 1e-4)`, `(D,)`.
    fn log_factor(&self, used: &Moments) -> Result<Tensor> {
        Ok((self.log_scale.tensor() - (&used.variance + EPSILON)?.log()?.affine(0.5, 0.0)?)?)
    }

    fn normalise(&self, x: &Tensor, used: &Moments) -> Result<(Tensor, Tensor)> {
        let log_factor = self.log_factor(used)?;
        let z = x.broadcast_sub(&used.mean)?.broadcast_mul(&log_factor.exp()?)?;
        let log_det = log_factor.sum_all()?.reshape(1)?.broadcast_as(x.dim(0)?)?;
        Ok((z.broadcast_add(&self.shift.tensor())?, log_det))
    }

    fn restore(&self, z: &Tensor, used: &Moments) -> Result<(Tensor, Tensor)> {
        let log_factor = self.log_factor(used)?.neg()?;
        let x = z.broadcast_sub(&self.shift.tensor())?.broadcast_mul(&log_factor.exp()?)?;
        let log_det = log_factor.sum_all()?.reshape(1)?.broadcast_as(z.dim(0)?)?;
        Ok((x.broadcast_add(&used.mean)?, log_det))
    }

    /// The values of each heap of numbers that has one mean and one variance, `(D, …)`.
    fn heaps(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, dim) = x.dims2()?;
        Ok(match self.kind {
            MovingStatistics::PerAxis => x.t()?.contiguous()?,
            MovingStatistics::MixedAxes { points } if rows.is_multiple_of(points) => x
                .contiguous()?
                .reshape((rows / points, points, dim))?
                .transpose(0, 1)?
                .contiguous()?
                .reshape((dim, ()))?,
            MovingStatistics::MixedAxes { points } => {
                let reason = format!("{rows} rows are no clouds of {points} points");
                return Err(Error::config("moving batch norm", reason));
            }
        })
    }

    /// Moves the running statistics towards those of `x`; the variance is the unbiased one, as in the reference.
    fn advance(&self, x: &Tensor) -> Result<()> {
        if !self.training.load(Ordering::Relaxed) || x.elem_count() == 0 {
            return Ok(());
        }
        let peers = self.store.peers();
        if peers.is_some() && self.kind != MovingStatistics::PerAxis {
            let reason = "statistics of mixed axes depend on which clouds are together: start it as a single process";
            return Err(Error::config("moving batch norm", reason));
        }
        let heaps = self.heaps(&x.detach())?;
        let (sum, count) = sum_over(peers.as_ref(), &heaps.sum_keepdim(1)?, heaps.dim(1)?)?;
        let mean = sum.affine(1.0 / count as f64, 0.0)?;
        let squares = heaps.broadcast_sub(&mean)?.sqr()?.sum(1)?;
        let (squares, _) = sum_over(peers.as_ref(), &squares, heaps.dim(1)?)?;
        self.running.advance(&mean, &squares.affine(1.0 / count.saturating_sub(1).max(1) as f64, 0.0)?)
    }
}

impl Bijector for MovingBatchNorm {
    fn name(&self) -> String {
        "moving batch norm".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("moving batch norm", x, &self.event, self.shift.dtype())?;
        let encoded = self.normalise(x, &self.used()?)?;
        if self.store.tracking() {
            self.advance(x)?;
        }
        Ok(encoded)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("moving batch norm", z, &self.event, self.shift.dtype())?;
        self.restore(z, &self.used()?)
    }

    fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let logs = host::numbers(&self.log_factor(&self.used()?)?)?;
        Ok(vec![LayerReport { scale: scale_range(logs), ..LayerReport::of(self, x, context)? }])
    }

    /// Keeps the `2D` statistics that the pass has used.
    fn encode_taped(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        check_batch_as("moving batch norm", x, &self.event, self.shift.dtype())?;
        let used = self.used()?;
        let (z, log_det) = self.normalise(x, &used)?;
        self.advance(x)?;
        Ok((z, log_det, Tape::Saved(vec![used.mean, used.variance])))
    }

    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch_as("moving batch norm", z, &self.event, self.shift.dtype())?;
        let saved = if let Tape::Saved(saved) = tape { saved.as_slice() } else { &[] };
        let [mean, variance] = saved else {
            return Err(Error::config("moving batch norm", "was given the tape of another bijector"));
        };
        let used = Moments { mean: mean.clone(), variance: variance.clone() };
        let _paused = gradients.no_grad();
        let (x, _) = self.restore(z, &used)?;
        // Sums over rows as sums over the last dimension, which are the exact ones.
        let over_rows = |t: Tensor| t.t()?.contiguous()?.sum(1);
        let scaled = z.broadcast_sub(&self.shift.tensor())?;
        let through_scale = over_rows((grad_z * scaled)?)?;
        gradients.add(&self.log_scale, &through_scale.broadcast_add(&grad_log_det.sum_all()?)?)?;
        gradients.add(&self.shift, &over_rows(grad_z.clone())?)?;
        let grad_x = grad_z.broadcast_mul(&self.log_factor(&used)?.exp()?)?;
        Ok(Pullback { x, grad_x, grad_context: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{distance, normal, store64, values};
    use candle_core::Device;

    /// Two clouds of two points, with means and variances that differ between the axes.
    fn cloud() -> Tensor {
        let rows = [[1.0, 20.0, -3.0], [2.0, 10.0, -5.0], [0.0, 50.0, -4.0], [5.0, 40.0, -4.0]];
        Tensor::new(&rows, &Device::Cpu).unwrap()
    }

    /// Mean and unbiased variance after one update from zero and one.
    fn moved(heap: &[f64]) -> (f64, f64) {
        let n = heap.len() as f64;
        let mean = heap.iter().sum::<f64>() / n;
        let variance = heap.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (0.1 * mean, 0.9 + 0.1 * variance)
    }

    fn after_one_step(kind: MovingStatistics) -> (Vec<f64>, Vec<f64>) {
        let store = store64(1);
        let norm = MovingBatchNorm::new(&store.root(), 3, kind).unwrap();
        let before = norm.encode(&cloud(), None).unwrap().0;
        let expected = cloud().affine(1.0 / (1.0f64 + 1e-4).sqrt(), 0.0).unwrap();
        assert!(distance(&before, &expected) < 1e-12, "a batch moves the statistics after its own pass");
        let get = |name: &str| values(store.get(name).unwrap().var());
        (get("running_mean"), get("running_variance"))
    }

    #[test]
    fn statistics_are_those_of_each_axis() {
        let (mean, variance) = after_one_step(MovingStatistics::PerAxis);
        let columns = [[1.0, 2.0, 0.0, 5.0], [20.0, 10.0, 50.0, 40.0], [-3.0, -5.0, -4.0, -4.0]];
        for (d, column) in columns.iter().enumerate() {
            let expected = moved(column);
            assert!((mean[d] - expected.0).abs() < 1e-12 && (variance[d] - expected.1).abs() < 1e-12);
        }
    }

    /// `x.transpose(0, 1).reshape(3, -1)` of the clouds, written out by hand.
    #[test]
    fn the_compatible_statistics_mix_axes_as_the_reference_does() {
        let (mean, variance) = after_one_step(MovingStatistics::MixedAxes { points: 2 });
        let heaps = [[1.0, 20.0, -3.0, 0.0], [50.0, -4.0, 2.0, 10.0], [-5.0, 5.0, 40.0, -4.0]];
        for (d, heap) in heaps.iter().enumerate() {
            let expected = moved(heap);
            assert!((mean[d] - expected.0).abs() < 1e-12 && (variance[d] - expected.1).abs() < 1e-12);
        }
    }

    #[test]
    fn statistics_move_once_per_training_step_and_never_in_evaluation() {
        let store = store64(1);
        let norm = MovingBatchNorm::new(&store.root(), 3, MovingStatistics::PerAxis).unwrap();
        let mean = || values(store.get("running_mean").unwrap().var())[0];
        let taped = || {
            let _paused = store.no_grad();
            norm.encode_taped(&cloud(), None).unwrap()
        };
        let (z, log_det, tape) = taped();
        let once = mean();
        assert!((once - 0.2).abs() < 1e-12);
        let back = norm.backprop(&z, &tape, None, &z, &log_det, &mut Gradients::new(&store)).unwrap();
        assert!(distance(&back.x, &cloud()) < 1e-12, "the tape keeps what the pass has used");
        assert_eq!(mean(), once);
        norm.decode(&z, None).unwrap();
        {
            let _paused = store.no_grad();
            norm.encode(&cloud(), None).unwrap();
        }
        norm.set_training(false);
        norm.encode(&cloud(), None).unwrap();
        taped();
        assert_eq!(mean(), once);
    }

    #[test]
    fn whitens_a_stationary_stream() {
        let store = store64(1);
        let norm = MovingBatchNorm::new(&store.root(), 3, MovingStatistics::PerAxis).unwrap();
        for _ in 0..300 {
            norm.encode(&cloud(), None).unwrap();
        }
        norm.set_training(false);
        let z = norm.encode(&cloud(), None).unwrap().0.t().unwrap().contiguous().unwrap();
        let means = values(&z.mean(1).unwrap());
        let squares = values(&z.sqr().unwrap().sum(1).unwrap());
        assert!(means.iter().all(|m| m.abs() < 1e-9));
        assert!(squares.iter().all(|s| (s / 3.0 - 1.0).abs() < 1e-3), "{squares:?}");
    }

    #[test]
    fn bad_arguments_are_refused() {
        let path = store64(1).root();
        assert!(MovingBatchNorm::new(&path, 0, MovingStatistics::PerAxis).is_err());
        assert!(MovingBatchNorm::new(&path, 3, MovingStatistics::MixedAxes { points: 0 }).is_err());
        let norm = MovingBatchNorm::new(&path, 3, MovingStatistics::MixedAxes { points: 3 }).unwrap();
        let message = norm.encode(&normal(1, &[4, 3]), None).unwrap_err().to_string();
        assert!(message.contains("4 rows are no clouds of 3 points"), "{message}");
    }
}
