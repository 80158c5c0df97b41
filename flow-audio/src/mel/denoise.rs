//! A vocoder's own constant hum, taken out of what it makes.

use super::{Complex, Spectrum, Stft};
use crate::{Error, Result};

/// Subtracts a multiple of the spectrum that a model makes of silence: `|X| ← max(|X| − strength · bias, 0)`, phases kept.
///
/// The `Denoiser` of WaveGlow (NVIDIA): the bias is the audio that the model gives for a mel spectrogram of zeros and a
/// latent of zeros; its strength there is 0.1 by default. WaveGlow takes the magnitudes of the first frame, this the mean
/// of all frames, of which none is special.
#[derive(Debug, Clone)]
pub struct Denoiser {
    stft: Stft,
    /// `[bins]`.
    bias: Vec<f64>,
}

impl Denoiser {
    /// A denoiser for a model whose bias audio this is.
    ///
    /// # Errors
    /// Bias audio too short for a frame, or samples that are not finite.
    pub fn new(stft: Stft, bias_audio: &[f32]) -> Result<Self> {
        let spectrum = stft.forward(bias_audio)?;
        let mut bias = vec![0.0; spectrum.bins];
        for frame in spectrum.values.chunks_exact(spectrum.bins) {
            bias.iter_mut().zip(frame).for_each(|(sum, value)| *sum += value.norm() / spectrum.frames as f64);
        }
        if bias.iter().any(|value| !value.is_finite()) {
            return Err(Error::config("denoiser", "the bias audio holds numbers that are not finite"));
        }
        Ok(Denoiser { stft, bias })
    }

    /// The samples without `strength` times the bias; as many as there were.
    ///
    /// # Errors
    /// A negative strength, or a clip too short for a frame.
    pub fn apply(&self, samples: &[f32], strength: f64) -> Result<Vec<f32>> {
        if !(strength >= 0.0 && strength.is_finite()) {
            return Err(Error::config("denoiser strength", format!("must be at least 0, got {strength}")));
        }
        let Spectrum { frames, bins, mut values } = self.stft.forward(samples)?;
        for frame in values.chunks_exact_mut(bins) {
            for (value, bias) in frame.iter_mut().zip(&self.bias) {
                let norm = value.norm();
                let kept = (norm - strength * bias).max(0.0);
                *value = if norm > 0.0 { *value * (kept / norm) } else { Complex::new(0.0, 0.0) };
            }
        }
        self.stft.inverse(&Spectrum { frames, bins, values }, samples.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, count: usize) -> Vec<f32> {
        (0..count).map(|n| (0.3 * (2.0 * std::f64::consts::PI * hz * n as f64 / 8000.0).sin()) as f32).collect()
    }

    #[test]
    fn the_hum_goes_and_the_voice_stays() {
        let stft = Stft::centred(512, 512, 128).unwrap();
        let (hum, voice) = (tone(1000.0, 6144), tone(300.0, 6144));
        let mixed: Vec<f32> = hum.iter().zip(&voice).map(|(a, b)| a + b).collect();
        let denoiser = Denoiser::new(stft, &hum).unwrap();
        let error = |x: &[f32]| x.iter().zip(&voice).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let (before, after) = (error(&mixed), error(&denoiser.apply(&mixed, 1.0).unwrap()));
        assert!(after < 0.01 * before, "{before} to {after}");
        let same = denoiser.apply(&mixed, 0.0).unwrap();
        assert!(same.iter().zip(&mixed).take(6000).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(denoiser.apply(&mixed, -1.0).is_err() && denoiser.apply(&mixed, f64::NAN).is_err());
        assert!(denoiser.apply(&mixed[..100], 1.0).is_err());
    }
}
