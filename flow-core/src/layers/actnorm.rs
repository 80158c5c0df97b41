//! Activation normalization.

use candle_core::{DType, Tensor};

use crate::bijector::{Bijector, check_batch};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

/// `z = (x + b) · exp(3 l)`, one shift and one scale per channel.
///
/// `log |det| = HW · Σ_c 3 l_c` (Kingma & Dhariwal 2018, section 3.1). The factor three is the authors'
/// `logscale_factor`: it multiplies the learning rate of the scale. [`Bijector::initialize`] sets
/// `b = -mean` and `exp(3 l) = 1 / (std + 1e-6)` over batch and space, and marks the layer's
/// `initialized` buffer, which is saved with the model.
///
/// # Shapes
/// - event `(C, …)`, parameters `(C,)`.
#[derive(Debug)]
pub struct ActNorm {
    shape: Vec<usize>,
    bias: Param,
    log_scale: Param,
    initialized: Param,
}

/// The authors' `logscale_factor`.
pub(crate) const LOG_SCALE_FACTOR: f64 = 3.0;

impl ActNorm {
    /// Parameters `bias`, `log_scale` (zero) and the flag `initialized` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] for an event without channels.
    pub fn new(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        let Some(&channels) = shape.first() else {
            return Err(Error::config("actnorm", "needs an event with at least one dimension"));
        };
        let flag = Tensor::zeros(1, path.store().dtype(), path.store().device())?;
        Ok(ActNorm {
            shape: shape.to_vec(),
            bias: path.param("bias", channels, Init::Const(0.0))?,
            log_scale: path.param("log_scale", channels, Init::Const(0.0))?,
            initialized: path.buffer("initialized", &flag)?,
        })
    }

    /// Whether data-dependent initialisation has taken place (or was loaded).
    pub fn is_initialized(&self) -> Result<bool> {
        Ok(self.initialized.tensor().to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()? > 0.0)
    }

    /// Bias and log-scale of the channels.
    pub fn params(&self) -> (&Param, &Param) {
        (&self.bias, &self.log_scale)
    }

    /// Shift and `3 l`, shaped to broadcast over `(B, C, …)`.
    fn broadcastable(&self) -> Result<(Tensor, Tensor)> {
        let mut dims = vec![1; self.shape.len() + 1];
        dims[1] = self.shape[0];
        let log_scale = self.log_scale.tensor().affine(LOG_SCALE_FACTOR, 0.0)?;
        Ok((self.bias.tensor().reshape(dims.as_slice())?, log_scale.reshape(dims)?))
    }

    /// `HW · Σ 3 l` for every sample.
    fn log_det(&self, batch: usize, sign: f64) -> Result<Tensor> {
        let pixels: usize = self.shape[1..].iter().product();
        let per_sample = self.log_scale.tensor().sum(0)?.affine(sign * LOG_SCALE_FACTOR * pixels as f64, 0.0)?;
        Ok(per_sample.reshape(1)?.broadcast_as(batch)?)
    }
}

impl Bijector for ActNorm {
    fn name(&self) -> String {
        "actnorm".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch("actnorm", x, &self.shape)?;
        let (bias, log_scale) = self.broadcastable()?;
        let z = x.broadcast_add(&bias)?.broadcast_mul(&log_scale.exp()?)?;
        Ok((z, self.log_det(batch, 1.0)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch("actnorm", z, &self.shape)?;
        let (bias, log_scale) = self.broadcastable()?;
        let x = z.broadcast_mul(&log_scale.neg()?.exp()?)?.broadcast_sub(&bias)?;
        Ok((x, self.log_det(batch, -1.0)?))
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch("actnorm", x, &self.shape)?;
        let (mean, std) = channel_moments(x)?;
        self.bias.set(&mean.neg()?)?;
        self.log_scale.set(&(std + 1e-6)?.log()?.affine(-1.0 / LOG_SCALE_FACTOR, 0.0)?)?;
        self.initialized.set(&self.initialized.tensor().ones_like()?)?;
        self.encode(x, context)
    }
}

/// Mean and standard deviation of each channel of `(B, C, …)` over everything else, in f64.
///
/// Candle's reductions over leading dimensions are slow and accumulate in f32; the transposed copy
/// makes this one a sum over the last dimension.
pub(crate) fn channel_moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = x.transpose(0, 1)?.contiguous()?.flatten_from(1)?.to_dtype(DType::F64)?;
    let mean = rows.mean(1)?;
    let centred = rows.broadcast_sub(&mean.unsqueeze(1)?)?;
    let std = centred.sqr()?.mean(1)?.sqrt()?;
    Ok((mean.to_dtype(x.dtype())?, std.to_dtype(x.dtype())?))
}
