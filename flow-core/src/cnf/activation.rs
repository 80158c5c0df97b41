//! The smooth nonlinearities of vector fields, each with its derivative.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::numerics::softmax::log_sigmoid;

/// A smooth nonlinearity, applied entry by entry.
///
/// A field must be continuously differentiable: its divergence holds the first derivative and the gradient of a
/// likelihood the second, so rectifiers are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FieldActivation {
    /// `tanh x`, slope `1 - tanh² x` (PointFlow's choice).
    #[default]
    Tanh,
    /// `ln(1 + eˣ)`, slope `sigmoid x` (FFJORD's choice).
    Softplus,
    /// `x · sigmoid x`, slope `s + x s (1 - s)` with `s = sigmoid x`.
    Swish,
}

impl FieldActivation {
    /// The activation of every entry of `x`, finite wherever `x` is.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            FieldActivation::Tanh => x.tanh()?,
            FieldActivation::Softplus => softplus(x)?,
            FieldActivation::Swish => (x * sigmoid(x)?)?,
        })
    }

    /// The activation and its derivative at every entry of `x`, both differentiable.
    pub fn apply_with_slope(self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            FieldActivation::Tanh => {
                let y = x.tanh()?;
                let slope = y.sqr()?.affine(-1.0, 1.0)?;
                (y, slope)
            }
            FieldActivation::Softplus => (softplus(x)?, sigmoid(x)?),
            FieldActivation::Swish => {
                let s = sigmoid(x)?;
                let y = (x * &s)?;
                // s + y (1 - s)
                let slope = (&s + (&y * s.affine(-1.0, 1.0)?)?)?;
                (y, slope)
            }
        })
    }
}

/// `1/(1 + e^{-x}) = (1 + tanh(x/2))/2`, which cannot overflow, nor can its gradient.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?)
}

/// `max(x, 0) + ln(1 + e^{-|x|}) = -ln sigmoid(-x)`, whose exponential cannot overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok(log_sigmoid(&x.neg()?)?.neg()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::testing::numbers::values;

    const ALL: [FieldActivation; 3] = [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish];

    /// Zero is a kink of the parts of softplus, though not of their sum.
    const POINTS: [f64; 9] = [-800.0, -30.0, -2.5, -0.3, 0.0, 0.7, 3.0, 40.0, 900.0];

    #[test]
    fn values_are_those_of_scalar_formulas_and_never_overflow() {
        let x = Tensor::new(&POINTS, &Device::Cpu).unwrap();
        for activation in ALL {
            let y = activation.apply(&x).unwrap();
            assert_eq!(values(&y), values(&activation.apply_with_slope(&x).unwrap().0));
            for (x, y) in POINTS.into_iter().zip(values(&y)) {
                let expected = match activation {
                    FieldActivation::Tanh => x.tanh(),
                    FieldActivation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
                    FieldActivation::Swish => x / (1.0 + (-x).exp()),
                };
                assert!((y - expected).abs() <= 1e-14 * expected.abs().max(1.0), "{activation:?}({x}) = {y}");
            }
        }
    }

    #[test]
    fn the_slope_is_the_gradient_and_its_gradient_the_numerical_second_derivative() {
        for activation in ALL {
            let x = Var::new(&POINTS, &Device::Cpu).unwrap();
            let (y, slope) = activation.apply_with_slope(&x).unwrap();
            let first = y.sum_all().unwrap().backward().unwrap();
            let second = slope.sum_all().unwrap().backward().unwrap();
            let slope_at = |h: f64| values(&activation.apply_with_slope(&x.affine(1.0, h).unwrap()).unwrap().1);
            let (plus, minus, h) = (slope_at(1e-5), slope_at(-1e-5), 1e-5);
            for (i, slope) in values(&slope).into_iter().enumerate() {
                let first = values(first.get(&x).unwrap())[i];
                assert!((slope - first).abs() < 1e-14, "{activation:?}'({}) = {slope}, not {first}", POINTS[i]);
                let numerical = (plus[i] - minus[i]) / (2.0 * h);
                let second = values(second.get(&x).unwrap())[i];
                assert!((second - numerical).abs() < 1e-8, "{activation:?}''({}) = {second}", POINTS[i]);
            }
        }
    }
}
