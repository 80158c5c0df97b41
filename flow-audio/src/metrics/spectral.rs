//! Distances of spectra.

use super::same_length;
use crate::Result;
use crate::mel::Stft;

/// Transform, hop and window of the three resolutions of Parallel WaveGAN (Yamamoto, Song and Kim 2020, table 1).
pub const RESOLUTIONS: [(usize, usize, usize); 3] = [(1024, 120, 600), (2048, 240, 1200), (512, 50, 240)];

/// The least squared magnitude, as in the published code of that paper.
const POWER_FLOOR: f64 = 1e-7;

/// The two halves of the STFT distance, each a mean over the resolutions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StftDistance {
    /// `‖ |X| − |Y| ‖_F / ‖ |X| ‖_F`.
    pub spectral_convergence: f64,
    /// Mean of `| ln|X| − ln|Y| |`.
    pub log_magnitude: f64,
}

impl StftDistance {
    /// Their sum, the loss of the paper (equation 9).
    pub fn total(&self) -> f64 {
        self.spectral_convergence + self.log_magnitude
    }
}

/// The multi-resolution STFT distance of `other` from `reference` (Parallel WaveGAN, equations 6 to 9), with centred
/// frames and Hann windows in [`RESOLUTIONS`].
///
/// # Errors
/// Waveforms of different lengths, or too short for the longest transform: 1,025 samples.
pub fn multi_resolution_stft(reference: &[f32], other: &[f32]) -> Result<StftDistance> {
    same_length(reference, other)?;
    let mut mean = StftDistance { spectral_convergence: 0.0, log_magnitude: 0.0 };
    for (fft, hop, window) in RESOLUTIONS {
        let stft = Stft::centred(fft, window, hop)?;
        let (x, y) = (floored(&stft, reference)?, floored(&stft, other)?);
        let apart: f64 = x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum();
        let size: f64 = x.iter().map(|x| x * x).sum();
        let logs: f64 = x.iter().zip(&y).map(|(x, y)| (x.ln() - y.ln()).abs()).sum();
        mean.spectral_convergence += (apart / size).sqrt() / RESOLUTIONS.len() as f64;
        mean.log_magnitude += logs / x.len() as f64 / RESOLUTIONS.len() as f64;
    }
    Ok(mean)
}

fn floored(stft: &Stft, samples: &[f32]) -> Result<Vec<f64>> {
    Ok(stft.forward(samples)?.values.iter().map(|value| value.norm_sqr().max(POWER_FLOOR).sqrt()).collect())
}

/// The log-spectral distance in dB: over every frame the root mean square of `20 log₁₀(|X|/|Y|)` across the bins, and of
/// these the mean over the frames (Gray and Markel 1976).
///
/// Squared magnitudes below 1e-7 count as 1e-7, or a silent bin would decide everything.
///
/// # Errors
/// Waveforms of different lengths, or too short for the transform.
pub fn log_spectral_distance(reference: &[f32], other: &[f32], stft: &Stft) -> Result<f64> {
    same_length(reference, other)?;
    let (x, y) = (floored(stft, reference)?, floored(stft, other)?);
    let bins = stft.bins();
    let frame = |(x, y): (&[f64], &[f64])| {
        let squares: f64 = x.iter().zip(y).map(|(x, y)| (20.0 * (x / y).log10()).powi(2)).sum();
        (squares / bins as f64).sqrt()
    };
    let frames = x.len() / bins;
    Ok(x.chunks_exact(bins).zip(y.chunks_exact(bins)).map(frame).sum::<f64>() / frames.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, level: f64) -> Vec<f32> {
        let mut rng = flow_core::FlowRng::seed_from(seed);
        (0..6000).map(|_| (level * rng.next_normal()) as f32).collect()
    }

    /// Half the level: every magnitude is halved.
    #[test]
    fn halved_loudness_has_known_distances() {
        let x = noise(1, 0.2);
        let y: Vec<f32> = x.iter().map(|x| x / 2.0).collect();
        let distance = multi_resolution_stft(&x, &y).unwrap();
        assert!((distance.spectral_convergence - 0.5).abs() < 1e-6, "{distance:?}");
        assert!((distance.log_magnitude - 2f64.ln()).abs() < 1e-3, "{distance:?}");
        assert!((distance.total() - 0.5 - 2f64.ln()).abs() < 1e-3);
        let stft = Stft::centred(512, 512, 128).unwrap();
        assert!((log_spectral_distance(&x, &y, &stft).unwrap() - 20.0 * 2f64.log10()).abs() < 1e-3);
    }

    #[test]
    fn equal_waveforms_are_at_no_distance_and_the_order_matters_where_it_should() {
        let (x, y) = (noise(1, 0.2), noise(2, 0.1));
        let stft = Stft::centred(512, 512, 128).unwrap();
        assert_eq!(multi_resolution_stft(&x, &x).unwrap().total(), 0.0);
        assert_eq!(log_spectral_distance(&x, &x, &stft).unwrap(), 0.0);
        let (a, b) = (multi_resolution_stft(&x, &y).unwrap(), multi_resolution_stft(&y, &x).unwrap());
        assert!((a.log_magnitude - b.log_magnitude).abs() < 1e-12);
        assert!(a.spectral_convergence < b.spectral_convergence);
        assert!(multi_resolution_stft(&x, &y[1..]).is_err() && multi_resolution_stft(&x[..900], &y[..900]).is_err());
        assert!(multi_resolution_stft(&[0.0; 3000], &y[..3000]).unwrap().total().is_finite());
    }
}
