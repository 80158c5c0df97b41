//! Bijectors between the real line and the sets that parameters of models live in: what lets a flow over unconstrained
//! vectors be a density of scales, probabilities and correlations.
//!
//! Encoding goes from the constrained set to the reals, decoding back, so that such a layer stands first in a chain.
//! [`Blockwise`](super::Blockwise) puts several over the parts of one vector. The maps are those of the Stan reference
//! manual (version 2.3x, "Constraint Transforms"), but that positive numbers grow linearly far out unless asked otherwise.

mod correlation;
mod interval;
mod ordered;
mod positive;
mod simplex;

pub use correlation::CorrelationCholesky;
pub use interval::Interval;
pub use ordered::Ordered;
pub use positive::Positive;
pub use simplex::Simplex;

use candle_core::{DType, Tensor};

use crate::Result;
use crate::numerics::softmax::log_sigmoid;

/// Where the inverse of the soft-plus changes its formula.
const NEAR: f64 = 0.25;

/// A map from the real line to the positive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// `ln(1 + eᶻ)`: exponential below, linear above, so that no latent overflows.
    #[default]
    Softplus,
    /// `eᶻ`: what is multiplied becomes what is added, so that a power law becomes an exponential tail. In single precision
    /// it overflows beyond 88.
    Exponential,
}

impl Link {
    /// The positive number of `z` and the logarithm of its derivative, elementwise.
    fn to_positive(self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok(match self {
            Link::Exponential => (z.exp()?, z.clone()),
            Link::Softplus => (log_sigmoid(&z.neg()?)?.neg()?, log_sigmoid(z)?),
        })
    }

    /// The real number of a positive `x` and the logarithm of its derivative, elementwise.
    fn to_real(self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let z = match self {
            Link::Exponential => {
                let z = x.log()?;
                return Ok((z.clone(), z.neg()?));
            }
            Link::Softplus => softplus_inverse(x)?,
        };
        let log = (x - &z)?;
        Ok((z, log))
    }
}

/// `ln(eˣ - 1)` of positive numbers, from the denormal to the largest.
fn softplus_inverse(x: &Tensor) -> Result<Tensor> {
    // Both formulas are evaluated where they hold, so that no gradient meets an infinity that a mask multiplies by zero.
    let (far, near) = (x.maximum(NEAR)?, x.minimum(NEAR)?);
    let far = (&far + far.neg()?.exp()?.affine(-1.0, 1.0)?.log()?)?;
    // ln((eˣ - 1)/x) = x/2 + x²/24 - x⁴/2880 + x⁶/181440 - x⁸/9676800 + …
    let square = near.sqr()?;
    let series = square.affine(-1.0 / 9_676_800.0, 1.0 / 181_440.0)?;
    let series = (series * &square)?.affine(1.0, -1.0 / 2880.0)?;
    let series = (series * &square)?.affine(1.0, 1.0 / 24.0)?;
    let near = ((near.log()? + (series * &square)?)? + near.affine(0.5, 0.0)?)?;
    Ok(x.detach().ge(NEAR)?.where_cond(&far, &near)?)
}

/// Ones strictly above the diagonal: a row times it holds at each place the sum of the entries before.
fn before(n: usize, like: &Tensor) -> Result<Tensor> {
    let entries: Vec<f64> = (0..n * n).map(|k| f64::from(k / n < k % n)).collect();
    Ok(Tensor::from_vec(entries, (n, n), &candle_core::Device::Cpu)?
        .to_dtype(like.dtype())?
        .to_device(like.device())?)
}

/// A mask of the numbers above zero; a comparison with NaN is zero.
fn positive(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach().gt(0.0)?.to_dtype(DType::U8)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::values;
    use candle_core::Device;

    #[test]
    fn the_inverse_soft_plus_has_its_digits_everywhere() {
        let inputs: [f64; 10] = [1e-300, 1e-12, 1e-3, 0.1, 0.249_999_999, 0.25, 0.250_000_001, 1.0, 30.0, 1e6];
        let x = Tensor::new(&inputs, &Device::Cpu).unwrap();
        let z = values(&softplus_inverse(&x).unwrap());
        for (x, z) in inputs.into_iter().zip(z) {
            let expected = if x > 30.0 { x } else { x.exp_m1().ln() };
            assert!((z - expected).abs() < 1e-14 * (1.0 + expected.abs()), "{x}: {z}, expected {expected}");
        }
    }
}
