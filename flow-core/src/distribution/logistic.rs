//! Logistic densities: standard (NICE) and with learned location and scale.

use candle_core::{DType, Device, Tensor};

use crate::bijector::{check_batch, check_batch_as, sum_event};
use crate::distribution::{Distribution, batched, check_temperature, in_floats};
use crate::numerics::softmax::log_sigmoid;
use crate::param::{Init, Param, ParamPath};
use crate::{FlowRng, Result};

/// `log p(z) = -softplus(z) - softplus(-z)`, the density of the logistic function, elementwise.
fn log_logistic(z: &Tensor) -> Result<Tensor> {
    Ok((log_sigmoid(z)? + log_sigmoid(&z.neg()?)?)?)
}

/// Standard logistic noise by the inverse CDF, `ln u - ln(1 - u)`.
fn noise(shape: Vec<usize>, dtype: DType, device: &Device, rng: &mut FlowRng) -> Result<Tensor> {
    // Drawn and transformed in f64, half a step away from the ends where the logarithm is infinite.
    let u = rng.uniform(shape, DType::F64, &Device::Cpu)?.affine(1.0, 0.5_f64.powi(25))?;
    let odds = (u.log()? - u.affine(-1.0, 1.0)?.log()?)?;
    Ok(odds.to_dtype(dtype)?.to_device(device)?)
}

/// Independent standard logistic entries: `log p(z) = Σ -softplus(z) - softplus(-z)`.
///
/// The prior of NICE (Dinh et al. 2015, section 3.4): heavier tails than a Gaussian, and a gradient
/// that stays bounded, `tanh(z / 2)`. The variance is `π²/3`.
///
/// # Shapes
/// - `z`: `(B, event…)`.
#[derive(Debug, Clone)]
pub struct StandardLogistic {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
}

impl StandardLogistic {
    /// Over events of `shape`; samples have `dtype` and live on `device`.
    pub fn new(shape: &[usize], dtype: DType, device: &Device) -> Self {
        StandardLogistic { shape: shape.to_vec(), dtype, device: device.clone() }
    }
}

impl Distribution for StandardLogistic {
    fn name(&self) -> String {
        "standard logistic".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch("standard logistic", z, &self.shape)?;
        sum_event(&log_logistic(z)?)
    }
    /// The temperature multiplies the noise, and with it the standard deviation.
    fn sample(&self, n: usize, _context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let noise = in_floats(&self.name(), noise(batched(n, &self.shape), self.dtype, &self.device, rng)?)?;
        Ok(noise.affine(temperature, 0.0)?)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
}

/// Independent logistic entries with learned location `μ` and log-scale `ln s`, both starting at zero.
///
/// With `ε = (z - μ) / s`: `log p(z) = Σ -softplus(ε) - softplus(-ε) - ln s`.
///
/// # Shapes
/// - `z`: `(B, event…)`; parameters have the event's shape.
#[derive(Debug, Clone)]
pub struct LearnedLogistic {
    shape: Vec<usize>,
    location: Param,
    log_scale: Param,
}

impl LearnedLogistic {
    /// Parameters `location` and `log_scale` under `path`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when a name is taken.
    pub fn new(path: &ParamPath, shape: &[usize]) -> Result<Self> {
        Ok(LearnedLogistic {
            shape: shape.to_vec(),
            location: path.param("location", shape, Init::Const(0.0))?,
            log_scale: path.param("log_scale", shape, Init::Const(0.0))?,
        })
    }
}

impl Distribution for LearnedLogistic {
    fn name(&self) -> String {
        "learned logistic".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        let standard = log_logistic(&self.whiten(z, context)?)?;
        sum_event(&standard.broadcast_sub(&self.log_scale.tensor())?)
    }
    /// The temperature multiplies the noise before location and scale are applied.
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        check_temperature(&self.name(), temperature)?;
        let var = self.location.var();
        let noise = noise(batched(n, &self.shape), var.dtype(), var.device(), rng)?;
        self.color(&noise.affine(temperature, 0.0)?, context)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
    fn whiten(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch_as("learned logistic", z, &self.shape, self.location.dtype())?;
        Ok(z.broadcast_sub(&self.location.tensor())?.broadcast_mul(&self.log_scale.tensor().neg()?.exp()?)?)
    }
    fn color(&self, noise: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        check_batch_as("learned logistic", noise, &self.shape, self.location.dtype())?;
        Ok(noise.broadcast_mul(&self.log_scale.tensor().exp()?)?.broadcast_add(&self.location.tensor())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::distribution as check;
    use crate::{FlowRng, ParamStore};

    #[test]
    fn the_standard_logistic_is_a_density_with_its_moments() {
        let d = StandardLogistic::new(&[1], DType::F64, &Device::Cpu);
        check::integrates_to_one(&d, [-40.0, 40.0]);
        check::moments(&d, 1.0, &[0.0], std::f64::consts::PI / 3.0_f64.sqrt());
        check::moments(&d, 0.5, &[0.0], 0.5 * std::f64::consts::PI / 3.0_f64.sqrt());
        let at_zero = d.log_prob(&Tensor::zeros((1, 1), DType::F64, &Device::Cpu).unwrap(), None).unwrap();
        assert!((at_zero.to_vec1::<f64>().unwrap()[0] + 4.0_f64.ln()).abs() < 1e-14);
    }

    #[test]
    fn a_learned_logistic_is_a_density_with_right_gradients() {
        let store = ParamStore::new(3, DType::F64, &Device::Cpu);
        let d = LearnedLogistic::new(&store.root(), &[1]).unwrap();
        store.get("location").unwrap().set(&Tensor::new(&[0.7], &Device::Cpu).unwrap()).unwrap();
        store.get("log_scale").unwrap().set(&Tensor::new(&[-0.4], &Device::Cpu).unwrap()).unwrap();
        check::integrates_to_one(&d, [-30.0, 30.0]);
        check::moments(&d, 1.0, &[0.7], (-0.4_f64).exp() * std::f64::consts::PI / 3.0_f64.sqrt());
        check::gradients(&d, &store, &[-2.0, 0.1, 1.5, 40.0]);
        check::whitening(&d, &mut FlowRng::seed_from(1));
    }

    #[test]
    fn far_tails_are_finite() {
        let d = StandardLogistic::new(&[1], DType::F32, &Device::Cpu);
        let z = Tensor::new(&[[-1e6_f32], [1e6]], &Device::Cpu).unwrap();
        assert_eq!(d.log_prob(&z, None).unwrap().to_vec1::<f32>().unwrap(), [-1e6, -1e6]);
    }
}
