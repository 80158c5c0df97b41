//! Bits per dimension: what a density over continuous data says about coding the discrete data.
//!
//! Data with `n` levels per entry is dequantized to real numbers before a flow sees it. A bin of width
//! `w` holds the probability `P(k) = ∫_bin p(x) dx`, and by Jensen's inequality the mean of
//! `log p(k + noise) + D ln w` over the noise is a lower bound of `log P(k)` (Theis et al. 2016,
//! section 3.1). Its negative, in bits and per entry, is the code length:
//!
//! `bits/dim = -(log p(x) + D ln w) / (D ln 2)`.
//!
//! The width `w` belongs to the coordinates in which the density is evaluated: with `x` in `[0, 1)` it is
//! `1/n` and the formula reads `-log p(x) / (D ln 2) + log₂ n`; with `x` in `[0, n)` it is 1; with `x`
//! in `[-1, 1)` it is `2/n`. Mixing these up is the field's commonest error in reported numbers.

use std::f64::consts::LN_2;

use candle_core::Tensor;

use super::dequantize::check_levels;
use crate::{Error, Result};

/// `-log p(x) / (D ln 2) + log₂ n`: bits per dimension for `x` in `[0, 1)^D` with `n` levels.
///
/// `log_prob` is in nats, `D = dims` is the number of entries of one sample (channels included).
///
/// # Errors
/// [`Error::Config`] for `dims = 0` or a number of levels outside `2..=256`.
///
/// # Example
/// A uniform density over the unit cube needs the bits of the raw data:
/// ```
/// # fn main() -> flow_core::Result<()> {
/// assert_eq!(flow_core::density::bits::bits_per_dim(0.0, 3072, 256)?, 8.0);
/// # Ok(())
/// # }
/// ```
pub fn bits_per_dim(log_prob: f64, dims: usize, levels: u32) -> Result<f64> {
    check_levels(levels)?;
    check_dims(dims)?;
    Ok(f64::from(levels).log2() - log_prob / (dims as f64 * LN_2))
}

/// `-(log p(x) + D ln w) / (D ln 2)`: bits per dimension in coordinates where one level is `w` wide.
///
/// # Errors
/// [`Error::Config`] for `dims = 0` or a width that is not positive and finite.
pub fn bits_per_dim_at(log_prob: f64, dims: usize, bin_width: f64) -> Result<f64> {
    if !(bin_width > 0.0 && bin_width.is_finite()) {
        return Err(Error::config("bin width", format!("must be positive, got {bin_width}")));
    }
    check_dims(dims)?;
    Ok(-bin_width.log2() - log_prob / (dims as f64 * LN_2))
}

/// [`bits_per_dim`] of every row of `log_prob`, shape `(B,)` in and out; differentiable.
///
/// # Errors
/// As for [`bits_per_dim`].
pub fn bits_per_dim_rows(log_prob: &Tensor, dims: usize, levels: u32) -> Result<Tensor> {
    check_levels(levels)?;
    check_dims(dims)?;
    Ok(log_prob.affine(-1.0 / (dims as f64 * LN_2), f64::from(levels).log2())?)
}

fn check_dims(dims: usize) -> Result<()> {
    if dims == 0 {
        return Err(Error::config("bits per dimension", "a sample needs at least one entry"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::density::dequantize::{quantize, uniform};
    use crate::{FlowRng, Result};

    #[test]
    fn a_uniform_density_costs_the_raw_bits() {
        for levels in 2..=256 {
            let raw = f64::from(levels).log2();
            for dims in [1, 17, 3072] {
                assert_eq!(bits_per_dim(0.0, dims, levels).unwrap(), raw);
                // The same density over [-1, 1)^D is 2^-D, over [0, n)^D it is n^-D.
                let centred = bits_per_dim_at(-(dims as f64) * LN_2, dims, 2.0 / f64::from(levels)).unwrap();
                let wide = bits_per_dim_at(-(dims as f64) * f64::from(levels).ln(), dims, 1.0).unwrap();
                assert!((centred - raw).abs() < 1e-12 && (wide - raw).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_histogram_density_costs_its_entropy() {
        for levels in [2, 3, 4, 8, 16, 17, 32, 64, 128, 255, 256] {
            let weights: Vec<f64> = (0..levels).map(|k| f64::from(k * k % 7 + 1)).collect();
            let total: f64 = weights.iter().sum();
            let probabilities: Vec<f64> = weights.iter().map(|w| w / total).collect();
            let entropy: f64 = probabilities.iter().map(|p| -p * p.log2()).sum();
            // Every level once, dequantized; the density is constant on a bin, so the noise cannot matter.
            let k = Tensor::arange(0, levels, &Device::Cpu).unwrap();
            let x = uniform(&k, levels, DType::F32, &mut FlowRng::seed_from(5)).unwrap();
            let bins = quantize(&x, levels).unwrap().to_vec1::<u32>().unwrap();
            let bits = |bin: u32| {
                let density = probabilities[bin as usize] * f64::from(levels);
                bits_per_dim(density.ln(), 1, levels).unwrap()
            };
            let expected_code_length: f64 = bins.iter().zip(&probabilities).map(|(&b, p)| p * bits(b)).sum();
            assert!((expected_code_length - entropy).abs() < 1e-12, "{levels} levels");
        }
    }

    #[test]
    fn rows_agree_with_the_scalar_formula() -> Result<()> {
        let rows = bits_per_dim_rows(&Tensor::new(&[-3.0_f64, 12.5], &Device::Cpu)?, 6, 17)?.to_vec1::<f64>()?;
        for (row, log_prob) in rows.iter().zip([-3.0, 12.5]) {
            assert!((row - bits_per_dim(log_prob, 6, 17)?).abs() < 1e-12);
        }
        Ok(())
    }

    #[test]
    fn senseless_arguments_are_errors() {
        assert!(bits_per_dim(0.0, 0, 256).is_err());
        assert!(bits_per_dim(0.0, 1, 1).is_err());
        assert!(bits_per_dim(0.0, 1, 257).is_err());
        assert!(bits_per_dim_at(0.0, 1, 0.0).is_err());
        assert!(bits_per_dim_at(0.0, 1, f64::NAN).is_err());
    }
}
