//! The uniform density over a box.

use candle_core::{DType, Device, Tensor};

use crate::bijector::check_batch;
use crate::distribution::{Distribution, batched, in_floats};
use crate::numerics::host;
use crate::{Error, FlowRng, Result};

/// `p(z) = (b - a)^-D` on `[a, b)^D`, zero elsewhere.
///
/// # Outside the box
/// The logarithm of zero is `-∞`, and that is what [`Distribution::log_prob`] returns for such a row:
/// it is the true value, an average over a batch shows it, and the training engine's non-finite guard
/// catches it. It is not an error, because one outlier must not hide the other rows' values; and it
/// does not clamp, because a finite number there would be a density that does not integrate to one.
/// NaN entries return NaN. The gradient is zero inside and outside: nothing draws a flow into the box, so
/// put a map onto the box (a sigmoid) in front.
///
/// # Shapes
/// - `z`: `(B, event…)`.
#[derive(Debug, Clone)]
pub struct Uniform {
    shape: Vec<usize>,
    low: f64,
    high: f64,
    dtype: DType,
    device: Device,
}

impl Uniform {
    /// Over `[low, high)` in every entry of events of `shape`; samples have `dtype` and live on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `low < high` and both are finite.
    pub fn new(shape: &[usize], low: f64, high: f64, dtype: DType, device: &Device) -> Result<Self> {
        if !(low < high && (high - low).is_finite()) {
            return Err(Error::config("uniform", format!("needs finite low < high, got [{low}, {high})")));
        }
        Ok(Uniform { shape: shape.to_vec(), low, high, dtype, device: device.clone() })
    }
}

impl Distribution for Uniform {
    fn name(&self) -> String {
        format!("uniform on [{}, {})", self.low, self.high)
    }
    fn event_shape(&self) -> &[usize] {
        &self.shape
    }
    fn log_prob(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let batch = check_batch("uniform", z, &self.shape)?;
        let size: usize = self.shape.iter().product();
        let inside = -(self.high - self.low).ln() * size as f64;
        let rows = host::wide(&z.detach().reshape((batch, size))?)?.to_vec2::<f64>()?;
        let log_density = |row: &Vec<f64>| {
            if row.iter().any(|v| v.is_nan()) {
                f64::NAN
            } else if row.iter().all(|v| (self.low..self.high).contains(v)) {
                inside
            } else {
                f64::NEG_INFINITY
            }
        };
        let logs: Vec<f64> = rows.iter().map(log_density).collect();
        Ok(Tensor::from_vec(logs, batch, &Device::Cpu)?.to_dtype(z.dtype())?.to_device(z.device())?)
    }
    /// The temperature shrinks the box about its centre, and with it the standard deviation.
    ///
    /// # Errors
    /// [`Error::Config`] for a temperature above one, whose samples would have no density.
    fn sample(&self, n: usize, _context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        if !(0.0..=1.0).contains(&temperature) {
            return Err(Error::config("temperature", format!("must be in [0, 1] for a uniform, got {temperature}")));
        }
        let (centre, width) = (0.5 * (self.low + self.high), temperature * (self.high - self.low));
        let unit = in_floats(&self.name(), rng.uniform(batched(n, &self.shape), self.dtype, &self.device)?)?;
        Ok(unit.affine(width, centre - 0.5 * width)?)
    }
    fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
        self.sample(n, context, 1.0, rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::distribution as check;

    fn example() -> Uniform {
        Uniform::new(&[1], -1.0, 3.0, DType::F64, &Device::Cpu).unwrap()
    }

    #[test]
    fn is_a_density_with_its_moments() {
        check::integrates_to_one(&example(), [-2.0, 4.0]);
        check::moments(&example(), 1.0, &[1.0], 4.0 / 12.0_f64.sqrt());
        check::moments(&example(), 0.25, &[1.0], 1.0 / 12.0_f64.sqrt());
    }

    #[test]
    fn outside_the_density_is_zero() {
        let z = Tensor::new(&[[-1.0_f64], [3.0], [-1.1], [f64::NAN]], &Device::Cpu).unwrap();
        let log = example().log_prob(&z, None).unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(log[..3], [-4.0_f64.ln(), f64::NEG_INFINITY, f64::NEG_INFINITY]);
        assert!(log[3].is_nan());
    }

    #[test]
    fn refuses_an_empty_box_and_a_high_temperature() {
        assert!(Uniform::new(&[1], 1.0, 1.0, DType::F64, &Device::Cpu).is_err());
        assert!(Uniform::new(&[1], 0.0, f64::INFINITY, DType::F64, &Device::Cpu).is_err());
        assert!(example().sample(1, None, 1.5, &mut FlowRng::seed_from(0)).is_err());
    }
}
