//! The encoder: a set of points to the posterior of its shape's latent.

mod kernel;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Tensor, WithDType};
use flow_core::kernel::Real;
use flow_core::param::Init;
use flow_core::{Param, ParamPath, ParamStore};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use kernel::{Batch, EPSILON, Moments, Statistics, Trace};

/// The weight of the current batch in the running averages (torch's default).
const MOMENTUM: f64 = 0.1;

/// The widths of an [`Encoder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Layers applied to every point, before the maximum over points.
    pub point: Vec<usize>,
    /// Hidden layers of each head, after it.
    pub head: Vec<usize>,
}

impl EncoderConfig {
    /// The paper's: 128, 128, 256, 512 for each point, heads of 256 and 128 (Yang et al. 2019, appendix A.1).
    pub fn paper() -> Self {
        EncoderConfig { point: vec![128, 128, 256, 512], head: vec![256, 128] }
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

/// PointNet (Qi et al. 2017) as PointFlow uses it: linear layers with batch normalization on every point, the
/// maximum over points, then a head for the mean and one for the log-variance.
///
/// The maximum sends its gradient to one point even where duplicates tie.
///
/// # Shapes
/// - points `(B, N, 3)`; mean and log-variance `(B, Z)`.
#[derive(Debug)]
pub struct Encoder {
    widths: Vec<usize>,
    layers: Vec<NormLayer>,
    mean: Head,
    log_variance: Option<Head>,
    store: ParamStore,
    training: AtomicBool,
}

/// A linear layer and the batch normalization after it.
#[derive(Debug)]
struct NormLayer {
    weight: Param,
    bias: Param,
    gain: Param,
    offset: Param,
    running_mean: Param,
    running_variance: Param,
}

impl NormLayer {
    fn new(linear: &ParamPath, norm: &ParamPath, inputs: usize, outputs: usize) -> flow_core::Result<Self> {
        let bound = Init::Uniform(1.0 / (inputs as f64).sqrt());
        let zeros = Tensor::zeros(outputs, norm.store().dtype(), norm.store().device())?;
        Ok(NormLayer {
            weight: linear.param("weight", (outputs, inputs), bound)?,
            bias: linear.param("bias", outputs, bound)?,
            gain: norm.param("weight", outputs, Init::Const(1.0))?,
            offset: norm.param("bias", outputs, Init::Const(0.0))?,
            running_mean: norm.buffer("running_mean", &zeros)?,
            running_variance: norm.buffer("running_var", &zeros.ones_like()?)?,
        })
    }

    /// The layer in Candle's operations on rows `(R, I)`; statistics of the rows when `training`.
    fn composed(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let y = x.matmul(&self.weight.tensor().t()?)?.broadcast_add(&self.bias.tensor())?;
        let (mean, variance) = if training {
            let mean = y.mean_keepdim(0)?;
            let variance = y.broadcast_sub(&mean)?.sqr()?.mean_keepdim(0)?;
            (mean, variance)
        } else {
            (self.running_mean.tensor().unsqueeze(0)?, self.running_variance.tensor().unsqueeze(0)?)
        };
        let scale = (variance + EPSILON)?.sqrt()?.recip()?.broadcast_mul(&self.gain.tensor())?;
        let normal = y.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(&self.offset.tensor())?;
        if training && self.gain.tracked() {
            self.advance(&mean.flatten_all()?, &y_variance(&y, &mean)?, x.dim(0)?)?;
        }
        Ok(normal)
    }

    /// Moves the running averages; torch's variance there is the unbiased one.
    fn advance(&self, mean: &Tensor, variance: &Tensor, rows: usize) -> Result<()> {
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        for (average, value) in [(&self.running_mean, mean.clone()), (&self.running_variance, (variance * unbiased)?)] {
            let old = average.tensor();
            average.set(&(&old + (value.detach() - &old)?.affine(MOMENTUM, 0.0)?)?)?;
        }
        Ok(())
    }

    fn running(&self) -> Result<Moments> {
        let read = |p: &Param| -> Result<Vec<f64>> { Ok(p.tensor().to_dtype(DType::F64)?.to_vec1()?) };
        Ok(Moments { mean: read(&self.running_mean)?, variance: read(&self.running_variance)? })
    }
}

/// The biased variance of every column, `(C,)`.
fn y_variance(y: &Tensor, mean: &Tensor) -> Result<Tensor> {
    Ok(y.broadcast_sub(mean)?.sqr()?.mean(0)?.detach())
}

/// A small perceptron with batch normalization: 512 → 256 → 128 → Z.
#[derive(Debug)]
struct Head {
    hidden: Vec<NormLayer>,
    weight: Param,
    bias: Param,
}

impl Head {
    fn new(path: &ParamPath, inputs: usize, hidden: &[usize], outputs: usize) -> flow_core::Result<Self> {
        let (mut layers, mut width) = (Vec::new(), inputs);
        for (i, &next) in hidden.iter().enumerate() {
            let (linear, norm) = (path.pp(format!("fc{}", i + 1)), path.pp(format!("bn{}", i + 1)));
            layers.push(NormLayer::new(&linear, &norm, width, next)?);
            width = next;
        }
        let (last, bound) = (path.pp(format!("fc{}", hidden.len() + 1)), Init::Uniform(1.0 / (width as f64).sqrt()));
        Ok(Head {
            hidden: layers,
            weight: last.param("weight", (outputs, width), bound)?,
            bias: last.param("bias", outputs, bound)?,
        })
    }

    fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor> {
        let mut h = x.clone();
        for layer in &self.hidden {
            h = layer.composed(&h, training)?.maximum(0.0)?;
        }
        Ok(h.matmul(&self.weight.tensor().t()?)?.broadcast_add(&self.bias.tensor())?)
    }
}

impl Encoder {
    /// An encoder to `latent` numbers; with `variational` it has a head for the log-variance.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for a width of zero or no layer at all.
    pub fn new(path: &ParamPath, config: &EncoderConfig, latent: usize, variational: bool) -> Result<Self> {
        if config.point.is_empty() || config.point.iter().chain(&config.head).chain([&latent]).any(|&w| w == 0) {
            return Err(Error::config("encoder", format!("needs layers of at least one unit, got {config:?}")));
        }
        let widths: Vec<usize> = std::iter::once(3).chain(config.point.iter().copied()).collect();
        let layer = |(i, w): (usize, &[usize])| {
            let (linear, norm) = (path.pp(format!("conv{}", i + 1)), path.pp(format!("bn{}", i + 1)));
            NormLayer::new(&linear, &norm, w[0], w[1])
        };
        let layers = widths.windows(2).enumerate().map(layer).collect::<flow_core::Result<_>>()?;
        let pooled = widths[widths.len() - 1];
        let head = |name: &str| Head::new(&path.pp(name), pooled, &config.head, latent);
        Ok(Encoder {
            layers,
            mean: head("mean")?,
            log_variance: if variational { Some(head("log_variance")?) } else { None },
            store: path.store().clone(),
            training: AtomicBool::new(true),
            widths,
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
    /// [`flow_core::Error::Shape`] unless `points` is `(B, N, 3)` with `N > 0`; in training a batch of at least two
    /// clouds is needed, since the heads normalize over clouds.
    pub fn forward(&self, points: &Tensor) -> Result<Posterior> {
        self.posterior(points, true)
    }

    /// The same through Candle's operations only: the specification, and the path of CUDA and Metal.
    pub fn composed(&self, points: &Tensor) -> Result<Posterior> {
        self.posterior(points, false)
    }

    fn posterior(&self, points: &Tensor, fused: bool) -> Result<Posterior> {
        let training = self.training.load(Ordering::Relaxed);
        let batch = check(points, training)?;
        let supported = points.device().is_cpu() && matches!(points.dtype(), DType::F32 | DType::F64);
        // The kernel's gradient is that of batch statistics; a tracked pass on running averages is composed.
        let fused = fused && supported && (training || !self.store.tracking());
        let pooled = if fused { self.pool_fused(points, batch, training)? } else { self.pool(points, training)? };
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

    fn pool_fused(&self, points: &Tensor, batch: Batch, training: bool) -> Result<Tensor> {
        let parameters = |l: &NormLayer| [l.weight.tensor(), l.bias.tensor(), l.gain.tensor(), l.offset.tensor()];
        let flat: Vec<Tensor> =
            self.layers.iter().flat_map(parameters).map(|t| t.flatten_all()).collect::<candle_core::Result<_>>()?;
        let given = match training {
            true => None,
            false => Some(self.layers.iter().map(NormLayer::running).collect::<Result<Vec<_>>>()?),
        };
        let saved = Arc::new(Mutex::new(Saved::default()));
        let op = PointPool { widths: self.widths.clone(), batch, given, saved: saved.clone() };
        let pooled = points.detach().contiguous()?.apply_op2(&Tensor::cat(&flat, 0)?, op)?;
        if training && self.store.tracking() {
            let moments = lock(&saved).moments();
            for (layer, m) in self.layers.iter().zip(&moments) {
                let tensor =
                    |v: &[f64]| -> Result<Tensor> { Ok(Tensor::new(v, points.device())?.to_dtype(points.dtype())?) };
                layer.advance(&tensor(&m.mean)?, &tensor(&m.variance)?, batch.clouds * batch.points)?;
            }
        } else {
            *lock(&saved) = Saved::default();
        }
        Ok(pooled)
    }
}

fn check(points: &Tensor, training: bool) -> Result<Batch> {
    let expected = if training { "(B ≥ 2, N ≥ 1, 3) in training" } else { "(B, N ≥ 1, 3)" };
    match *points.dims() {
        [clouds, count, 3] if count > 0 && clouds > usize::from(training) => Ok(Batch { clouds, points: count }),
        _ => Err(Error::Core(flow_core::Error::Shape {
            layer: "encoder".into(),
            expected: expected.into(),
            actual: points.dims().to_vec(),
        })),
    }
}

/// A forward pass kept for the backward pass of the same operation.
#[derive(Default)]
struct Saved {
    f32: Option<Trace<f32>>,
    f64: Option<Trace<f64>>,
}

impl Saved {
    fn moments(&self) -> Vec<Moments> {
        let wide = self.f64.as_ref().map(|t| t.moments.clone());
        wide.or_else(|| self.f32.as_ref().map(|t| t.moments.clone())).unwrap_or_default()
    }
}

fn lock(saved: &Mutex<Saved>) -> std::sync::MutexGuard<'_, Saved> {
    // The content is replaced as a whole, so a panic elsewhere cannot leave it half-written.
    saved.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The layers of every point and the maximum over points, of points and packed parameters.
struct PointPool {
    widths: Vec<usize>,
    batch: Batch,
    given: Option<Vec<Moments>>,
    saved: Arc<Mutex<Saved>>,
}

impl PointPool {
    fn run<T: Real>(&self, x: &[T], packed: &[T]) -> (Vec<T>, Trace<T>) {
        let statistics = self.given.as_deref().map_or(Statistics::Batch, Statistics::Given);
        kernel::forward(&self.widths, &kernel::unpack(&self.widths, packed), x, self.batch, &statistics)
    }

    fn gradient<T: Real>(
        &self,
        trace: Option<&Trace<T>>,
        x: &Tensor,
        packed: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Tensor> {
        if self.given.is_some() {
            candle_core::bail!("the encoder has no gradient on running averages");
        }
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<T>();
        let (x, w, grad) = (flat(x)?, flat(packed)?, flat(grad)?);
        let again;
        let trace = match trace {
            Some(trace) => trace,
            None => {
                again = self.run(&x, &w).1;
                &again
            }
        };
        let layers = kernel::unpack(&self.widths, &w);
        let out = kernel::backward(&self.widths, &layers, &x, self.batch, trace, &grad);
        Tensor::from_vec(out, packed.shape(), packed.device())
    }
}

fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => candle_core::bail!("the encoder's kernel was given a strided tensor"),
    }
}

impl CustomOp2 for PointPool {
    fn name(&self) -> &'static str {
        "point-pool"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        packed: &CpuStorage,
        packed_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let width = self.widths[self.widths.len() - 1];
        let storage = match x {
            CpuStorage::F32(_) => {
                let (out, trace) = self.run::<f32>(slice(x, x_layout)?, slice(packed, packed_layout)?);
                lock(&self.saved).f32 = Some(trace);
                CpuStorage::F32(out)
            }
            _ => {
                let (out, trace) = self.run::<f64>(slice(x, x_layout)?, slice(packed, packed_layout)?);
                lock(&self.saved).f64 = Some(trace);
                CpuStorage::F64(out)
            }
        };
        Ok((storage, (self.batch.clouds, width).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        packed: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let saved = lock(&self.saved);
        let grad = match x.dtype() {
            DType::F32 => self.gradient(saved.f32.as_ref(), x, packed, grad)?,
            _ => self.gradient(saved.f64.as_ref(), x, packed, grad)?,
        };
        Ok((None, Some(grad)))
    }
}

#[cfg(test)]
mod tests;
