//! Statistics of a batch for each channel: what activation and batch normalization are made of, in networks and as
//! bijectors.
//!
//! Running averages move exactly once per training step: in the pass that builds the graph, which both modes of
//! back-propagation run once (the reversible one makes its forward pass with tracking paused and its graph when it
//! walks back).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Shape, Tensor};

use crate::bijector::first_non_finite_row;
use crate::kernels::{Fused, LOG_SCALE_FACTOR, Real, fuse_on_host};
use crate::numerics::host;
use crate::param::{Param, ParamPath, ParamStore, Peers};
use crate::{Error, Result};

/// The weight of the current batch in running averages: the `decay` of the RealNVP authors, the default of torch.
const DECAY: f64 = 0.1;

/// Added to every variance (the RealNVP authors' value).
const EPSILON: f64 = 1e-4;

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

    /// Over the last two dimensions of `rows`, `(C, B, P)`, of all peers; only where `mask`, `(C, 1, P)`, is one.
    pub(crate) fn of(rows: &Tensor, mask: Option<&Tensor>, peers: Option<&Arc<dyn Peers>>) -> Result<Self> {
        let (_, own, pixels) = rows.dims3()?;
        let average = |t: Tensor| -> Result<Tensor> {
            let total = |t: &Tensor| t.sum_keepdim(2)?.sum_keepdim(1);
            let sum = match mask {
                None => total(&t)?,
                Some(mask) => total(&t.broadcast_mul(mask)?)?,
            };
            let (sum, batch) = sum_over(peers, &sum, own)?;
            Ok(match mask {
                None => sum.affine(1.0 / (batch * pixels) as f64, 0.0)?,
                Some(mask) => sum.div(&total(mask)?.affine(batch as f64, 0.0)?.maximum(1.0)?)?,
            })
        };
        let mean = average(rows.clone())?;
        let variance = average(rows.broadcast_sub(&mean)?.sqr()?)?;
        Ok(Moments { mean, variance })
    }
}

/// Running averages of mean and variance of every channel, `(C,)` each: buffers, saved with the model.
#[derive(Debug)]
pub struct RunningStatistics {
    mean: Param,
    variance: Param,
}

impl RunningStatistics {
    /// Buffers under `path`, the mean zero and the variance one, of the given names. A model that has them is trained by several
    /// ranks with the statistics of all of their rows ([`column_moments`]).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when a name is taken.
    pub fn new(path: &ParamPath, [mean, variance]: [&str; 2], channels: usize) -> Result<Self> {
        path.store().note_statistics();
        let zeros = Tensor::zeros(channels, path.store().dtype(), path.store().device())?;
        Ok(RunningStatistics {
            mean: path.buffer(mean, &zeros)?,
            variance: path.buffer(variance, &zeros.ones_like()?)?,
        })
    }

    /// The running mean; the tensor changes in place when the averages move.
    pub fn mean(&self) -> Tensor {
        self.mean.tensor()
    }

    /// The running variance; the tensor changes in place when the averages move.
    pub fn variance(&self) -> Tensor {
        self.variance.tensor()
    }

    /// Moves both a tenth of the way to a batch's mean and variance, of `C` numbers each: those of all ranks where there are several
    /// ([`column_moments`]), or the ranks' averages part.
    ///
    /// A batch whose moments are not all finite moves neither: one NaN would stay in the averages for good, while the step
    /// on that batch is refused by whoever sees its loss.
    ///
    /// # Errors
    /// Another number of channels, or a failure of the device.
    pub fn advance(&self, mean: &Tensor, variance: &Tensor) -> Result<()> {
        for moments in [mean, variance] {
            if first_non_finite_row(&moments.detach())?.is_some() {
                return Ok(());
            }
        }
        for (average, value) in [(&self.mean, mean), (&self.variance, variance)] {
            let old = average.tensor();
            let step = (value.detach().reshape(old.shape())? - &old)?.affine(DECAY, 0.0)?;
            average.set(&(old + step)?)?;
        }
        Ok(())
    }
}

/// The sum of a tensor over the peers of a step, and that of their rows, of which this one has `rows`; alone, they are what
/// they are. In the graph if `own` is: its gradient is that of the mean of the peers' objectives over all rows, each of which
/// is a mean over its own.
///
/// # Errors
/// A peer that is gone or whose step has failed.
pub(crate) fn sum_over(peers: Option<&Arc<dyn Peers>>, own: &Tensor, rows: usize) -> Result<(Tensor, usize)> {
    let Some(peers) = peers else { return Ok((own.clone(), rows)) };
    let mut said = vec![rows as f64];
    said.extend(host::numbers(own)?);
    let mut total = added(&peers.gather(&said)?);
    let all = total.remove(0);
    let op = SumOver { total, shape: own.shape().clone(), weight: rows as f64 / all, peers: peers.clone() };
    Ok((fuse_on_host(op, [&own.contiguous()?])?, all as usize))
}

/// Sums entry by entry, in the order of peers.
fn added(all: &[Vec<f64>]) -> Vec<f64> {
    let count = all.first().map_or(0, Vec::len);
    (0..count).map(|i| all.iter().filter_map(|numbers| numbers.get(i)).sum()).collect()
}

/// Mean and variance of every column of `(R, C)` over the rows of all who take the present step of training together, `(1, C)`
/// each and in the graph, and the number of these rows.
///
/// # Errors
/// [`Error::Shape`](crate::Error) unless `rows` is a matrix; a peer that is gone or whose step has failed.
pub fn column_moments(store: &ParamStore, rows: &Tensor) -> Result<(Tensor, Tensor, usize)> {
    let (own, peers) = (rows.dims2()?.0, store.peers());
    let (sum, count) = sum_over(peers.as_ref(), &rows.sum_keepdim(0)?, own)?;
    let mean = sum.affine(1.0 / count as f64, 0.0)?;
    let squares = rows.broadcast_sub(&mean)?.sqr()?.sum_keepdim(0)?;
    let variance = sum_over(peers.as_ref(), &squares, own)?.0.affine(1.0 / count as f64, 0.0)?;
    Ok((mean, variance, count))
}

/// A sum over peers that has been exchanged already.
struct SumOver {
    total: Vec<f64>,
    shape: Shape,
    /// This one's part of the rows.
    weight: f64,
    peers: Arc<dyn Peers>,
}

impl Fused<1> for SumOver {
    fn name(&self) -> &'static str {
        "sum over ranks"
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward<T: Real>(&self, _: [&[T]; 1]) -> candle_core::Result<Vec<T>> {
        Ok(self.total.iter().map(|&total| T::from_f64(total)).collect())
    }

    /// All peers' objectives depend on this one's rows, each with the weight of its own rows; what comes of it here will be
    /// weighed by this one's.
    fn backward<T: Real>(&self, _: [&[T]; 1], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 1]> {
        let own: Vec<f64> = grad.iter().map(|g| self.weight * g.to_f64()).collect();
        let all = self.peers.gather(&own).map_err(candle_core::Error::wrap)?;
        Ok([Some(added(&all).into_iter().map(|sum| T::from_f64(sum / self.weight)).collect())])
    }
}

/// The names of the averages' buffers in this crate.
pub(crate) const RUNNING: [&str; 2] = ["running_mean", "running_variance"];

/// Batch statistics in training, their running averages in evaluation.
#[derive(Debug)]
pub(crate) struct BatchStatistics {
    running: RunningStatistics,
    store: ParamStore,
    training: AtomicBool,
}

impl BatchStatistics {
    /// Buffers `running_mean` (zero) and `running_variance` (one) under `path`; starts in training.
    pub(crate) fn new(path: &ParamPath, channels: usize) -> Result<Self> {
        let running = RunningStatistics::new(path, RUNNING, channels)?;
        Ok(BatchStatistics { running, store: path.store().clone(), training: AtomicBool::new(true) })
    }

    /// The element type of the averages.
    pub(crate) fn dtype(&self) -> DType {
        self.running.mean.dtype()
    }

    pub(crate) fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }

    /// What normalises `rows` now: see the module's text for when the running averages move.
    pub(crate) fn of(&self, rows: &Tensor, mask: Option<&Tensor>) -> Result<Moments> {
        // A batch without rows has no statistics.
        if !self.training.load(Ordering::Relaxed) || rows.elem_count() == 0 {
            return self.running();
        }
        let moments = Moments::of(rows, mask, self.store.peers().as_ref())?;
        if self.store.tracking() {
            self.running.advance(&moments.mean, &moments.variance)?;
        }
        Ok(moments)
    }

    /// The running averages, `(C, 1, 1)` each.
    pub(crate) fn running(&self) -> Result<Moments> {
        let wide = |t: Tensor| t.reshape(((), 1, 1));
        Ok(Moments { mean: wide(self.running.mean())?, variance: wide(self.running.variance())? })
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

/// Mean and standard deviation of each channel of `(B, C, …)` over everything else, in f64.
///
/// Candle's reductions over leading dimensions are slow and accumulate in f32; the transposed copy
/// makes this one a sum over the last dimension.
pub(crate) fn channel_moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = host::wide(&x.transpose(0, 1)?.contiguous()?.flatten_from(1)?)?;
    let mean = rows.mean(1)?;
    let centred = rows.broadcast_sub(&mean.unsqueeze(1)?)?;
    let std = centred.sqr()?.mean(1)?.sqrt()?;
    let back = |t: &Tensor| t.to_dtype(x.dtype())?.to_device(x.device());
    Ok((back(&mean)?, back(&std)?))
}

/// The shift `b` and the log-scale `l` with which `(x + b) · exp(3 l)` has mean zero and deviation one in every channel:
/// the data-dependent initialisation of activation normalization (Kingma & Dhariwal 2018, section 3.1).
///
/// # Shapes
/// - `x`: `(B, C, …)`; both results `(C,)`.
///
/// # Errors
/// Naming `layer` for a batch from which no parameters can be set: one without rows, with a number that is not finite, or
/// whose moments overflow.
pub fn whitening(layer: &str, x: &Tensor) -> Result<(Tensor, Tensor)> {
    if x.elem_count() == 0 {
        return Err(Error::config(layer, "needs at least one sample to be initialised from, got none"));
    }
    if let Some(row) = first_non_finite_row(x)? {
        return Err(Error::NonFiniteRow { what: format!("the batch that {layer} is initialised from"), row });
    }
    let (mean, std) = channel_moments(x)?;
    for moments in [&mean, &std] {
        if first_non_finite_row(moments)?.is_some() {
            let what = "mean or deviation of the batch that it is initialised from; scale the data first".into();
            return Err(Error::NonFinite { layer: layer.into(), what, step: None });
        }
    }
    Ok((mean.neg()?, (std + 1e-6)?.log()?.affine(-1.0 / LOG_SCALE_FACTOR, 0.0)?))
}
