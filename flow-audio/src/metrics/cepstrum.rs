//! Mel cepstra.

use crate::mel::Mel;
use crate::{Error, Result};

/// Coefficients that are compared, after the one that is the loudness.
const COEFFICIENTS: usize = 13;

/// Cepstral coefficients `c₁ … c₁₃` of every frame: the orthonormal cosine transform (type II) of the log-mel values,
///
/// `c_d = √(2/M) Σ_m mel_m · cos(π d (m + ½) / M)`.
///
/// The mean, `c₀`, is left out: it is the loudness. Fewer bands than fourteen give fewer coefficients.
pub fn mel_cepstrum(mel: &Mel) -> Vec<Vec<f64>> {
    let mels = mel.mels();
    let last = COEFFICIENTS.min(mels.saturating_sub(1));
    let coefficient = |frame: &[f32], d: usize| {
        let angle = std::f64::consts::PI * d as f64 / mels as f64;
        let sum: f64 = frame.iter().enumerate().map(|(m, &v)| f64::from(v) * (angle * (m as f64 + 0.5)).cos()).sum();
        (2.0 / mels as f64).sqrt() * sum
    };
    let frames = (0..mel.frames()).map(|frame| mel.frame(frame));
    frames.map(|frame| (1..=last).map(|d| coefficient(&frame, d)).collect()).collect()
}

/// Mel-cepstral distortion in dB (Kubichek 1993): `10·√2 / ln 10` times the mean over frames of the Euclidean distance of
/// the coefficients `c₁ … c₁₃` ([`mel_cepstrum`]).
///
/// Frame is compared with frame: nothing is warped in time, as is right for a vocoder, whose output has the times of what
/// it was told. The cepstra are of logarithms of magnitudes over these bands; numbers of other cepstra (of powers, or of
/// the analysis of a vocoder) are not comparable.
///
/// # Errors
/// Spectrograms of different configurations, which are named, or of different numbers of frames.
pub fn mel_cepstral_distortion(reference: &Mel, other: &Mel) -> Result<f64> {
    if let Some(difference) = reference.config().difference(other.config()) {
        return Err(Error::config("mel-cepstral distortion", format!("spectrograms of different kinds: {difference}")));
    }
    if reference.frames() != other.frames() {
        let reason = format!("needs as many frames, got {} and {}", reference.frames(), other.frames());
        return Err(Error::config("mel-cepstral distortion", reason));
    }
    let distance = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let (a, b) = (mel_cepstrum(reference), mel_cepstrum(other));
    let mean = a.iter().zip(&b).map(distance).sum::<f64>() / a.len().max(1) as f64;
    Ok(10.0 * 2f64.sqrt() / std::f64::consts::LN_10 * mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::MelConfig;

    fn mel(of: impl Fn(usize, usize) -> f32) -> Mel {
        let values = (0..80).flat_map(|band| (0..4).map(move |frame| (band, frame)));
        Mel::new(MelConfig::tacotron2(), 4, values.map(|(band, frame)| of(band, frame)).collect()).unwrap()
    }

    #[test]
    fn loudness_does_not_count_and_a_cosine_is_one_coefficient() {
        let flat = mel(|_, _| -3.0);
        assert!(mel_cepstral_distortion(&flat, &mel(|_, frame| frame as f32)).unwrap() < 1e-12);
        let wave = |d: f64| move |band: usize| (std::f64::consts::PI * d * (band as f64 + 0.5) / 80.0).cos() as f32;
        let third = mel(|band, _| 0.5 * wave(3.0)(band));
        let cepstrum = mel_cepstrum(&third);
        // 0.5 · √(2/80) · 80/2.
        let wanted = 0.5 * (2.0f64 / 80.0).sqrt() * 40.0;
        assert!((cepstrum[1][2] - wanted).abs() < 1e-5 && cepstrum[1][1].abs() < 1e-5 && cepstrum[0].len() == 13);
        let distortion = mel_cepstral_distortion(&mel(|_, _| 0.0), &third).unwrap();
        assert!((distortion - 10.0 * 2f64.sqrt() / 10f64.ln() * wanted).abs() < 1e-4, "{distortion}");
        let beyond = mel(|band, _| wave(14.0)(band));
        assert!(mel_cepstral_distortion(&mel(|_, _| 0.0), &beyond).unwrap() < 1e-4);
    }

    #[test]
    fn other_kinds_and_lengths_are_refused() {
        let a = mel(|_, _| 0.0);
        let error = mel_cepstral_distortion(&a, &a.cut(0, 3).unwrap()).unwrap_err().to_string();
        assert!(error.contains("4 and 3"), "{error}");
        let b = Mel::new(MelConfig::hifi_gan(), 4, vec![0.0; 320]).unwrap();
        assert!(mel_cepstral_distortion(&a, &b).unwrap_err().to_string().contains("convention"));
    }
}
