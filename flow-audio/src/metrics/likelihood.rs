//! Bits, and the noise in a waveform.

use super::same_length;
use crate::{Error, Result};

/// Bits that a code by the model takes for a sample of `bits` bits, from a mean log-likelihood in nats per sample.
///
/// A density over waveforms in `[−1, 1]` is one over integers of `b` bits in units of `2^(1−b)`: the probability of an
/// integer is the density times that width, `ln P = LL + (1 − b)·ln 2`, and its code length `−ln P / ln 2` is
///
/// `bits = (b − 1) − LL / ln 2`.
///
/// For 16 bits that is `15 − LL/ln 2`: 5.10 nats are 7.64 bits. It is the length of a code only if the model was trained
/// and scored with dequantization noise ([`crate::data::dequantize`]); and where the model is given a mel spectrogram, of
/// a code whose reader has it too.
pub fn bits_per_sample(nats_per_sample: f64, bits: u32) -> f64 {
    f64::from(bits) - 1.0 - nats_per_sample / std::f64::consts::LN_2
}

/// The inverse of [`bits_per_sample`].
pub fn nats_per_sample(bits_per_sample: f64, bits: u32) -> f64 {
    (f64::from(bits) - 1.0 - bits_per_sample) * std::f64::consts::LN_2
}

/// `10 log₁₀ Σ x² / Σ (x − y)²` in dB, `x` the reference; infinite where the two are equal.
///
/// # Errors
/// Waveforms of different lengths, no sample, or a silent reference.
pub fn signal_to_noise(reference: &[f32], other: &[f32]) -> Result<f64> {
    same_length(reference, other)?;
    let signal: f64 = reference.iter().map(|&x| f64::from(x).powi(2)).sum();
    if signal == 0.0 {
        return Err(Error::config("signal-to-noise ratio", "the reference is silent"));
    }
    let noise: f64 = reference.iter().zip(other).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum();
    Ok(10.0 * (signal / noise).log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_are_bits_of_integers() {
        assert!((bits_per_sample(5.10, 16) - 7.642_3).abs() < 1e-3);
        // Uniform over [-1, 1]: density a half, so all 16 bits.
        assert!((bits_per_sample(0.5f64.ln(), 16) - 16.0).abs() < 1e-12);
        assert!((bits_per_sample(0.5f64.ln(), 8) - 8.0).abs() < 1e-12);
        assert!((nats_per_sample(bits_per_sample(4.2, 16), 16) - 4.2).abs() < 1e-12);
    }

    #[test]
    fn noise_of_a_tenth_is_twenty_decibels() {
        let x = [1.0f32, -1.0, 0.5, 0.25];
        let y = x.map(|x| x * 1.1);
        assert!((signal_to_noise(&x, &y).unwrap() - 20.0).abs() < 1e-5);
        assert_eq!(signal_to_noise(&x, &x).unwrap(), f64::INFINITY);
        assert!(signal_to_noise(&x, &x[1..]).is_err() && signal_to_noise(&[0.0], &[1.0]).is_err());
    }
}
