//! Activation normalization.

use candle_core::{DType, Tensor};

use crate::bijector::{Bijector, LayerReport, Pullback, Tape, backprop_locally, check_batch_as, scale_range};
use crate::kernels::{LOG_SCALE_FACTOR, Real, accepts, channels as kernel, read};
use crate::nn::statistics::whitening;
use crate::numerics::host;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `z = (x + b) · exp(3 l)`, one shift and one scale per channel.
///
/// `log |det| = HW · Σ_c 3 l_c` (Kingma & Dhariwal 2018, section 3.1). The factor three is the authors'
/// `logscale_factor`: it multiplies the learning rate of the scale. [`Bijector::initialize`] sets
/// `b = -mean` and `exp(3 l) = 1 / (std + 1e-6)` over batch and space, and marks the layer's
/// `initialized` buffer, which is saved with the model. A batch without rows or with a number that is not finite is
/// an error there, and leaves the parameters as they were.
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
        Ok(host::sum(&self.initialized.tensor())? > 0.0)
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

    /// Scale and shift of each channel as numbers: `z = x·scale + shift`, or the inverse map.
    fn folded(&self, inverse: bool) -> Result<(Vec<f64>, Vec<f64>)> {
        let (bias, log) = (host::numbers(self.bias.var())?, host::numbers(self.log_scale.var())?);
        let sign = if inverse { -LOG_SCALE_FACTOR } else { LOG_SCALE_FACTOR };
        let scale: Vec<f64> = log.iter().map(|l| (sign * l).exp()).collect();
        let shift = bias.iter().zip(&scale).map(|(b, s)| if inverse { -b } else { b * s }).collect();
        Ok((scale, shift))
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
        let batch = check_batch_as("actnorm", x, &self.shape, self.bias.dtype())?;
        if !x.track_op() && !self.bias.tracked() && accepts(x) {
            let (scale, shift) = self.folded(false)?;
            return Ok((scale_shift(x, &self.shape, &scale, &shift)?, self.log_det(batch, 1.0)?));
        }
        let (bias, log_scale) = self.broadcastable()?;
        let z = x.broadcast_add(&bias)?.broadcast_mul(&log_scale.exp()?)?;
        Ok((z, self.log_det(batch, 1.0)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let batch = check_batch_as("actnorm", z, &self.shape, self.bias.dtype())?;
        if !z.track_op() && !self.bias.tracked() && accepts(z) {
            let (scale, shift) = self.folded(true)?;
            return Ok((scale_shift(z, &self.shape, &scale, &shift)?, self.log_det(batch, -1.0)?));
        }
        let (bias, log_scale) = self.broadcastable()?;
        let x = z.broadcast_mul(&log_scale.neg()?.exp()?)?.broadcast_sub(&bias)?;
        Ok((x, self.log_det(batch, -1.0)?))
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        check_batch_as("actnorm", x, &self.shape, self.bias.dtype())?;
        // Nothing is set unless both are known.
        let (bias, log_scale) = whitening("actnorm", x)?;
        self.bias.set(&bias)?;
        self.log_scale.set(&log_scale)?;
        self.initialized.set(&self.initialized.tensor().ones_like()?)?;
        self.encode(x, context)
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let logs = host::numbers(self.log_scale.var())?;
        let scale = scale_range(logs.iter().map(|l| LOG_SCALE_FACTOR * l));
        Ok(vec![LayerReport { scale, ..LayerReport::of(self, x, context)? }])
    }

    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        check_batch_as("actnorm", z, &self.shape, self.bias.dtype())?;
        if !accepts(z) {
            return backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients);
        }
        let (inverse, shift) = self.folded(true)?;
        let x = scale_shift(z, &self.shape, &inverse, &shift)?;
        let (scale, _) = self.folded(false)?;
        let grad_x = scale_shift(grad_z, &self.shape, &scale, &vec![0.0; scale.len()])?;
        // ∂/∂b = Σ grad_x, and ∂/∂l = 3 (Σ grad_z·z + HW Σ_b grad_log_det).
        let moments = channel_sums(grad_z, z, &self.shape)?;
        let pixels = self.shape[1..].iter().product::<usize>() as f64;
        let volume = pixels * host::sum(grad_log_det)?;
        let grad_bias: Vec<f64> = moments.iter().zip(&scale).map(|((sum, _), s)| sum * s).collect();
        let grad_log: Vec<f64> = moments.iter().map(|(_, dot)| LOG_SCALE_FACTOR * (dot + volume)).collect();
        for (param, grad) in [(&self.bias, grad_bias), (&self.log_scale, grad_log)] {
            gradients.add(param, &host::tensor_like(&grad, self.shape[0], z)?)?;
        }
        Ok(Pullback { x, grad_x, grad_context: None })
    }
}

/// `x·scale[c] + shift[c]` by the kernel of the tensor's element type.
fn scale_shift(x: &Tensor, shape: &[usize], scale: &[f64], shift: &[f64]) -> Result<Tensor> {
    fn run<T: Real>(x: &Tensor, pixels: usize, scale: &[f64], shift: &[f64]) -> Result<Tensor> {
        let cast = |v: &[f64]| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
        let out = read::<T, _>(x, |x| Ok(kernel::scale_shift(x, pixels, &cast(scale), &cast(shift))))?;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
    let pixels = shape[1..].iter().product();
    match x.dtype() {
        DType::F32 => run::<f32>(x, pixels, scale, shift),
        _ => run::<f64>(x, pixels, scale, shift),
    }
}

/// `Σ x` and `Σ x·y` of each channel over batch and space.
fn channel_sums(x: &Tensor, y: &Tensor, shape: &[usize]) -> Result<Vec<(f64, f64)>> {
    let (channels, pixels) = (shape[0], shape[1..].iter().product());
    match x.dtype() {
        DType::F32 => read::<f32, _>(x, |x| read::<f32, _>(y, |y| Ok(kernel::moments(x, y, channels, pixels)))),
        _ => read::<f64, _>(x, |x| read::<f64, _>(y, |y| Ok(kernel::moments(x, y, channels, pixels)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowRng, ParamStore};
    use candle_core::Device;

    #[test]
    fn the_fused_gradient_is_that_of_the_graph() {
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-3)] {
            let store = ParamStore::new(0, dtype, &Device::Cpu);
            let norm = ActNorm::new(&store.root(), &[3, 5, 7]).unwrap();
            let mut rng = FlowRng::seed_from(2);
            let mut draw = |shape: &[usize]| rng.normal(shape, dtype, &Device::Cpu).unwrap();
            norm.initialize(&draw(&[6, 3, 5, 7]).affine(3.0, 1.0).unwrap(), None).unwrap();
            let (z, grad, log) = (draw(&[4, 3, 5, 7]), draw(&[4, 3, 5, 7]), draw(&[4]));
            let (mut a, mut b) = (Gradients::new(&store), Gradients::new(&store));
            let got = norm.backprop(&z, &Tape::Inverse, None, &grad, &log, &mut a).unwrap();
            let want = backprop_locally(&norm, &z, &Tape::Inverse, None, &grad, &log, &mut b).unwrap();
            let gap = |x: &Tensor, y: &Tensor| -> f64 {
                let d = (x - y).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                d.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
            };
            assert!(gap(&got.x, &want.x) < tolerance && gap(&got.grad_x, &want.grad_x) < tolerance);
            for p in store.trainable() {
                assert!(gap(a.get(&p).unwrap(), b.get(&p).unwrap()) < 10.0 * tolerance, "{}", p.name());
            }
        }
    }
}
