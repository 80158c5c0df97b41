//! The logit and its inverse: between the unit interval and the real line.

use candle_core::Tensor;

use crate::bijector::{Bijector, check_batch, check_domain, sum_event};
use crate::numerics::softmax::log_sigmoid;
use crate::{Error, Result};

/// `z = logit(α + (1 - 2α) x)`, elementwise: data in the unit interval becomes real.
///
/// Images on `[0, 1]` are first shrunk away from the ends by `α`, where the logit would be infinite
/// (Dinh et al. 2017, section 4.1, `α = .05`). With `p = α + (1 - 2α) x`,
/// `log |det| = Σ ln(1 - 2α) - ln p - ln(1 - p)`.
///
/// # Domain
/// `0 < p < 1`: for `α > 0` this holds `[0, 1]` and a margin of `α / (1 - 2α)` on either side, so that
/// whatever was decoded can be encoded again; for `α = 0` it is the open interval. Encoding anything
/// else, NaN included, is an [`Error::Domain`] that names layer and rows. Decoding accepts every real number;
/// beyond ±16 (f32) or ±36 (f64) its result rounds to the end of the domain.
///
/// # Shapes
/// - any event.
#[derive(Debug, Clone)]
pub struct Logit {
    shape: Vec<usize>,
    alpha: f64,
}

impl Logit {
    /// A logit over events of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `0 ≤ alpha < ½`.
    pub fn new(shape: &[usize], alpha: f64) -> Result<Self> {
        if !(0.0..0.5).contains(&alpha) {
            return Err(Error::config("logit", format!("alpha must be in [0, 0.5), got {alpha}")));
        }
        Ok(Logit { shape: shape.to_vec(), alpha })
    }

    /// How far the data is shrunk away from 0 and 1.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    fn to_real(&self, layer: &str, x: &Tensor) -> Result<(Tensor, Tensor)> {
        check_batch(layer, x, &self.shape)?;
        let scale = 1.0 - 2.0 * self.alpha;
        // 1 - p is computed from 1 - x: subtracting p itself from one would lose its small values.
        let p = x.affine(scale, self.alpha)?;
        let q = x.affine(-1.0, 1.0)?.affine(scale, self.alpha)?;
        check_domain(layer, &p.minimum(&q)?.detach().gt(0.0)?, || {
            "outside the unit interval; scale the data to [0, 1] first".into()
        })?;
        let (log_p, log_q) = (p.log()?, q.log()?);
        let log = (&log_p + &log_q)?.affine(-1.0, scale.ln())?;
        Ok(((log_p - log_q)?, sum_event(&log)?))
    }

    fn to_unit(&self, layer: &str, z: &Tensor) -> Result<(Tensor, Tensor)> {
        check_batch(layer, z, &self.shape)?;
        let scale = 1.0 - 2.0 * self.alpha;
        let log_p = log_sigmoid(z)?;
        // ln(1 - p) = ln p - z.
        let log = ((&log_p * 2.0)? - z)?.affine(1.0, -scale.ln())?;
        Ok((log_p.exp()?.affine(1.0 / scale, -self.alpha / scale)?, sum_event(&log)?))
    }
}

impl Bijector for Logit {
    fn name(&self) -> String {
        "logit".into()
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.to_real("logit", x)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.to_unit("logit", z)
    }
}

/// `z = σ(x) = 1 / (1 + e^-x)`, elementwise, the inverse of [`Logit`] with `α = 0`.
///
/// `log |det| = Σ ln σ(x) + ln σ(-x)`. Decoding takes values of the open unit interval and errs on any
/// other, naming the layer.
#[derive(Debug, Clone)]
pub struct Sigmoid(Logit);

impl Sigmoid {
    /// A sigmoid over events of `shape`.
    pub fn new(shape: &[usize]) -> Self {
        Sigmoid(Logit { shape: shape.to_vec(), alpha: 0.0 })
    }
}

impl Bijector for Sigmoid {
    fn name(&self) -> String {
        "sigmoid".into()
    }

    fn event_shape(&self) -> &[usize] {
        self.0.event_shape()
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.0.to_unit("sigmoid", x)
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.0.to_real("sigmoid", z)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn equals_the_closed_form_of_realnvp() {
        let x = Tensor::new(&[[0.0, 0.25, 0.5, 1.0]], &Device::Cpu).unwrap();
        let (z, log_det) = Logit::new(&[4], 0.05).unwrap().encode(&x, None).unwrap();
        let expected: Vec<f64> =
            [0.0, 0.25, 0.5, 1.0].iter().map(|x| ((2.0 * x - 1.0) * 0.9 + 1.0) / 2.0).map(logit).collect();
        let z = z.squeeze(0).unwrap().to_vec1::<f64>().unwrap();
        assert!(z.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{z:?}");
        let softplus = |y: f64| y.exp().ln_1p();
        let expected: f64 = expected.iter().map(|&y| softplus(y) + softplus(-y) - softplus((0.1f64 / 0.9).ln())).sum();
        assert!((log_det.to_vec1::<f64>().unwrap()[0] - expected).abs() < 1e-12);
    }

    fn logit(p: f64) -> f64 {
        (p / (1.0 - p)).ln()
    }

    #[test]
    fn stays_finite_far_out() {
        let z = Tensor::new(&[[-80f32, -30.0, 0.0, 30.0, 80.0]], &Device::Cpu).unwrap();
        let (x, log_det) = Logit::new(&[5], 0.05).unwrap().decode(&z, None).unwrap();
        assert!(x.to_vec2::<f32>().unwrap()[0].iter().all(|v| v.is_finite()));
        assert!(log_det.to_vec1::<f32>().unwrap()[0].is_finite());
        let (_, log_det) = Sigmoid::new(&[5]).encode(&z, None).unwrap();
        let expected = -(80.0 + 30.0) * 2.0 - 2.0 * 2f32.ln();
        assert!((log_det.to_vec1::<f32>().unwrap()[0] - expected).abs() < 1e-3);
    }

    #[test]
    fn refuses_values_outside_the_domain_and_nan() {
        let logit = Logit::new(&[2], 0.05).unwrap();
        for bad in [[0.5, 255.0], [-0.2, 0.5], [f64::NAN, 0.5]] {
            let message = logit.encode(&Tensor::new(&[bad], &Device::Cpu).unwrap(), None).unwrap_err().to_string();
            assert!(message.starts_with("logit row 0: 1 of 2 values"), "{message}");
        }
        let edge = Tensor::new(&[[0.0, 0.5]], &Device::Cpu).unwrap();
        assert!(Sigmoid::new(&[2]).decode(&edge, None).unwrap_err().to_string().starts_with("sigmoid"));
        assert!(Logit::new(&[2], 0.5).is_err() && Logit::new(&[2], f64::NAN).is_err());
    }
}
