//! Gaussians with diagonal covariance: standard, learned, and conditioned on a context.

use candle_core::{DType, Device, Tensor};

use crate::bijector::{check_batch, check_batch_as, check_context, check_dtype, sum_event};
use crate::distribution::{Distribution, HALF_LN_2PI, batched, check_temperature, in_floats};
use crate::nn::Conditioner;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, FlowRng, Result};

/// Elementwise `log N(z; mean, exp(log_std))`, summed over the event: `(B,)`.
///
/// `-½ ((z-μ)/σ)² - ln σ - ½ ln 2π`.
fn log_normal(noise: &Tensor, log_std: Option<&Tensor>) -> Result<Tensor> {
    let quadratic = noise.sqr()?.affine(-0.5, -HALF_LN_2PI)?;
    sum_event(&match log_std {
        None => quadratic,
        Some(l) => quadratic.broadcast_sub(l)?,
    })
}

/// `log N(z; mean, diag exp(log_std)²)` in nats, `(B,)`; `mean` and `log_std` broadcast to `z`.
pub fn gaussian_log_prob(z: &Tensor, mean: &Tensor, log_std: &Tensor) -> Result<Tensor> {
    let noise = z.broadcast_sub(mean)?.broadcast_mul(&log_std.neg()?.exp()?)?;
    log_normal(&noise, Some(log_std))
}

/// The fixed density `N(0, I)`.
#[derive(Debug, Clone)]
pub struct StandardGaussian {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
}

impl StandardGaussian {
    /// Over events of `shape`; samples have `dtype` and live on `device`.
    pub fn new(shape: &[usize], dtype: DType, device: &Device) -> Self {
        StandardGaussian { shape: shape.to_vec(), dtype, device: device.clone() }
    }
}

impl Distribution for StandardGaussian {
    fn name(&self) -> String {
        "standard gaussian".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch("standard gaussian", z, &self.shape)?;
        log_normal(z, None)
    }
    fn sample(&self, n: usize, _context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let noise = in_floats(&self.name(), rng.normal(batched(n, &self.shape), self.dtype, &self.device)?)?;
        Ok(noise.affine(temperature, 0.0)?)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
}

/// `N(μ, diag σ²)` with learned `μ` and `ln σ`, both starting at zero.
#[derive(Debug, Clone)]
pub struct DiagonalGaussian {
    shape: Vec<usize>,
    mean: Param,
    log_std: Param,
}

impl DiagonalGaussian {
    /// Parameters `mean` and `log_std` of the event's shape under `path`.
    pub fn new(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        Ok(DiagonalGaussian {
            shape: shape.to_vec(),
            mean: path.param("mean", shape, Init::Const(0.0))?,
            log_std: path.param("log_std", shape, Init::Const(0.0))?,
        })
    }
}

impl Distribution for DiagonalGaussian {
    fn name(&self) -> String {
        "diagonal gaussian".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        log_normal(&self.whiten(z, context)?, Some(&self.log_std.tensor()))
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let var = self.mean.var();
        self.color(&rng.normal(batched(n, &self.shape), var.dtype(), var.device())?.affine(temperature, 0.0)?, context)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
    fn whiten(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch_as("diagonal gaussian", z, &self.shape, self.mean.dtype())?;
        Ok(z.broadcast_sub(&self.mean.tensor())?.broadcast_mul(&self.log_std.tensor().neg()?.exp()?)?)
    }
    fn color(&self, noise: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch_as("diagonal gaussian", noise, &self.shape, self.mean.dtype())?;
        Ok(noise.broadcast_mul(&self.log_std.tensor().exp()?)?.broadcast_add(&self.mean.tensor())?)
    }
}

/// `N(μ(c), diag σ²(c))`: mean and log-scale come from a conditioner applied to the context.
///
/// The conditioner's output has twice the event's first dimension, interleaved: entry `2i` is the
/// mean of channel `i` and `2i + 1` its `ln σ` (the order of the Glow authors' code).
pub struct ConditionalGaussian<C> {
    shape: Vec<usize>,
    context_shape: Vec<usize>,
    net: C,
}

impl<C: Conditioner> ConditionalGaussian<C> {
    /// A density over `shape` given contexts of `context_shape`.
    pub fn new(shape: &[usize], context_shape: &[usize], net: C) -> Self {
        ConditionalGaussian { shape: shape.to_vec(), context_shape: context_shape.to_vec(), net }
    }

    /// The conditioner.
    pub fn net(&self) -> &C {
        &self.net
    }

    /// Mean and `ln σ` given contexts `(batch, context_shape…)`, each `(batch, event_shape…)`.
    ///
    /// # Errors
    /// [`Error::Context`] without one, [`Error::Shape`] for another shape.
    pub fn parameters(&self, batch: usize, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        // Its type is the net's to check, which has the parameters.
        let dtype = context.map_or(DType::F32, Tensor::dtype);
        let context = check_context("conditional gaussian", context, batch, &self.context_shape, dtype)?;
        let h = self.net.forward(context, None)?;
        let mut split = vec![batch, self.shape[0], 2];
        split.extend(&self.shape[1..]);
        if h.elem_count() != split.iter().product::<usize>() {
            let expected = format!("conditioner output of {split:?} elements");
            return Err(Error::Shape { layer: self.name(), expected, actual: h.dims().to_vec() });
        }
        let h = h.reshape(split)?;
        Ok((h.narrow(2, 0, 1)?.squeeze(2)?, h.narrow(2, 1, 1)?.squeeze(2)?))
    }

    /// The same for the rows of `z`.
    fn parameters_of(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch("conditional gaussian", z, &self.shape)?;
        let (mean, log_std) = self.parameters(batch, context)?;
        check_dtype("conditional gaussian", z, mean.dtype())?;
        Ok((mean, log_std))
    }
}

impl<C: Conditioner> Distribution for ConditionalGaussian<C> {
    fn name(&self) -> String {
        "conditional gaussian".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.context_shape)
    }
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters_of(z, context)?;
        log_normal(&((z - mean)? * log_std.neg()?.exp()?)?, Some(&log_std))
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let (mean, log_std) = self.parameters(n, context)?;
        let noise = rng.normal(mean.shape(), mean.dtype(), mean.device())?;
        Ok(((noise * temperature)? * log_std.exp()?)?.add(&mean)?)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
    fn whiten(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters_of(z, context)?;
        Ok(((z - mean)? * log_std.neg()?.exp()?)?)
    }
    fn color(&self, noise: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let (mean, log_std) = self.parameters_of(noise, context)?;
        Ok(((noise * log_std.exp()?)? + mean)?)
    }
}
