//! Smooth nonlinearities of vector fields, with their slopes.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;

/// A nonlinearity with a continuous derivative: a field must be differentiable once for its divergence to exist, and
/// twice for the divergence to have a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldActivation {
    /// `tanh x`.
    #[default]
    Tanh,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x·σ(x)`.
    Swish,
}

impl FieldActivation {
    /// The activation of every entry.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            FieldActivation::Tanh => x.tanh()?,
            FieldActivation::Softplus => softplus(x)?,
            FieldActivation::Swish => (x * sigmoid(x)?)?,
        })
    }

    /// The activation and its derivative, both tracked.
    pub fn apply_with_slope(self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            FieldActivation::Tanh => {
                let h = x.tanh()?;
                let slope = h.sqr()?.affine(-1.0, 1.0)?;
                (h, slope)
            }
            FieldActivation::Softplus => (softplus(x)?, sigmoid(x)?),
            FieldActivation::Swish => {
                let s = sigmoid(x)?;
                let h = (x * &s)?;
                // σ + x σ(1 − σ)
                let slope = (&s + (&h * s.affine(-1.0, 1.0)?)?)?;
                (h, slope)
            }
        })
    }
}

/// `1/(1 + e^-x)`; Candle's hyperbolic tangent does not overflow.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?)
}

/// `max(x, 0) + ln(1 + e^-|x|)`.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.maximum(0.0)? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn slopes_are_those_of_finite_differences_and_nothing_overflows() {
        let at = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        let value = |t: &Tensor| t.to_vec1::<f64>().unwrap()[0];
        for activation in [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish] {
            for x in [-30.0, -2.0, -0.3, 0.1, 1.5, 20.0] {
                let (h, slope) = activation.apply_with_slope(&at(x)).unwrap();
                assert_eq!(value(&h), value(&activation.apply(&at(x)).unwrap()));
                let f = |x: f64| value(&activation.apply(&at(x)).unwrap());
                let numeric = (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;
                assert!((value(&slope) - numeric).abs() < 1e-8, "{activation:?} {x}");
            }
            for x in [-1e4, 1e4] {
                let (h, slope) = activation.apply_with_slope(&at(x)).unwrap();
                assert!(value(&h).is_finite() && value(&slope).is_finite(), "{activation:?} {x}");
            }
        }
    }
}
