//! From a mel spectrogram to a waveform without a model.

use flow_core::FlowRng;

use super::basis::MelBasis;
use super::{Complex, Convention, Mel, Spectrum};
use crate::Result;

/// Steps of the non-negative least squares.
const STEPS: usize = 60;

/// Magnitudes `[frames, bins]` of which the spectrogram is the mel: non-negative least squares `min ‖basis·m − e^mel‖`.
///
/// Started from `basisᵀ·e^mel` and improved by multiplicative updates `m ← m · basisᵀe / basisᵀ(basis·m)` (Lee and Seung
/// 2001), which never leave the non-negative numbers and never increase the error. Bins that lie in no band stay zero.
pub fn linear_magnitudes(mel: &Mel) -> Vec<f64> {
    use rayon::prelude::*;
    let basis = MelBasis::new(mel.config());
    let of_frame = |frame: usize| -> Vec<f64> {
        let wanted: Vec<f64> = mel.frame(frame).iter().map(|&v| f64::from(v).exp()).collect();
        let target = basis.apply_transposed(&wanted);
        let mut magnitudes = target.clone();
        for _ in 0..STEPS {
            let now = basis.apply_transposed(&basis.apply(&magnitudes));
            for ((magnitude, target), now) in magnitudes.iter_mut().zip(&target).zip(&now) {
                *magnitude = if *now > 0.0 { *magnitude * target / now } else { 0.0 };
            }
        }
        magnitudes
    };
    (0..mel.frames()).into_par_iter().flat_map_iter(of_frame).collect()
}

/// A waveform whose spectrogram is near `mel`, by alternating projections (Griffin and Lim 1984): phases start at random
/// and are replaced, `iterations` times, by those of the signal that the inverse transform gives. Sixty iterations are
/// usual. The result sounds hollow; it is a yardstick for models, not a vocoder.
///
/// The length is `frames · hop` samples, one hop less in the convention of Tacotron 2, whose last frame is centred on the
/// end.
///
/// # Errors
/// A spectrogram so short that the ends of its signal cannot be reflected.
pub fn griffin_lim(mel: &Mel, iterations: usize, rng: &mut FlowRng) -> Result<Vec<f32>> {
    let config = mel.config();
    let stft = config.stft()?;
    let frames = mel.frames();
    let length = match config.convention {
        Convention::Tacotron2 => frames.saturating_sub(1) * config.hop,
        Convention::HifiGan | Convention::Parakeet => frames * config.hop,
    };
    let magnitudes = linear_magnitudes(mel);
    let turn = 2.0 * std::f64::consts::PI;
    let values = magnitudes.iter().map(|&m| Complex::from_polar(m, turn * rng.next_uniform())).collect();
    let mut spectrum = Spectrum { frames, bins: stft.bins(), values };
    for _ in 0..iterations {
        let signal = stft.forward(&stft.inverse(&spectrum, length)?)?;
        for ((value, phase), magnitude) in spectrum.values.iter_mut().zip(&signal.values).zip(&magnitudes) {
            let norm = phase.norm();
            *value = if norm > 0.0 { phase * (magnitude / norm) } else { Complex::new(*magnitude, 0.0) };
        }
    }
    stft.inverse(&spectrum, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::MelConfig;

    fn chord(count: usize) -> Vec<f32> {
        let tone = |hz: f64, n: usize| (2.0 * std::f64::consts::PI * hz * n as f64 / 8000.0).sin();
        (0..count).map(|n| (0.2 * (tone(330.0, n) + tone(440.0, n) + tone(1250.0, n))) as f32).collect()
    }

    #[test]
    fn magnitudes_have_the_mel_that_they_were_made_of() {
        let mel = MelConfig::speech_8k().spectrogram(&chord(4000)).unwrap();
        let (basis, magnitudes) = (MelBasis::new(mel.config()), linear_magnitudes(&mel));
        assert_eq!(magnitudes.len(), mel.frames() * basis.bins());
        for (frame, bins) in magnitudes.chunks_exact(basis.bins()).enumerate() {
            let wanted: Vec<f64> = mel.frame(frame).iter().map(|&v| f64::from(v).exp()).collect();
            let error: f64 = basis.apply(bins).iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f64 = wanted.iter().map(|w| w * w).sum();
            assert!(
                error < 0.02f64.powi(2) * size && bins.iter().all(|&m| m >= 0.0),
                "frame {frame}: {error} of {size}"
            );
        }
    }

    #[test]
    fn more_iterations_come_nearer_and_a_seed_gives_the_same_signal() {
        for convention in Convention::ALL {
            let config = MelConfig::speech_8k().with_convention(convention);
            let mel = config.spectrogram(&chord(6000)).unwrap();
            let made = |iterations, seed| griffin_lim(&mel, iterations, &mut FlowRng::seed_from(seed)).unwrap();
            // Of magnitudes, relative to their size: between the tones there is nothing but leakage.
            let distance = |samples: &[f32]| {
                let again = config.spectrogram(samples).unwrap();
                let pairs = mel.values().iter().zip(again.values()).map(|(a, b)| (a.exp(), b.exp()));
                let (apart, size) = pairs.fold((0.0, 0.0), |(d, s), (a, b)| (d + (a - b).powi(2), s + a * a));
                f32::sqrt(apart / size)
            };
            let (few, many) = (made(0, 1), made(60, 1));
            assert_eq!(many, made(60, 1));
            assert_ne!(many, made(60, 2));
            if convention == Convention::HifiGan {
                let (few, many) = (distance(&few[..5888]), distance(&many[..5888]));
                assert!(many < 0.6 * few, "{many} after sixty, {few} at first");
            }
            assert!(many.iter().all(|x| x.is_finite()));
        }
    }
}
