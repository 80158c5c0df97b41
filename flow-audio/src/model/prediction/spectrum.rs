//! From the frame of a mel spectrogram to the filter that predicts the samples around it.

use std::sync::Arc;

use flow_core::{Error, Result};
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner};

use crate::mel::{MelBasis, MelConfig};

/// The least power of a bin beside the loudest one, and of white noise beside the whole: 120 and 50 dB. Without them the
/// silence between the bands of a frame would let prediction rest on what is not there.
const POWER_RANGE: f64 = 1e-12;
const WHITE_NOISE: f64 = 1e-5;

/// `-E ln` of an exponential variable.
const EULER: f64 = 0.577_215_664_901_532_9;

/// The predictors of all orders up to `p` of a stationary signal.
#[derive(Debug, Clone)]
pub(in crate::model) struct Predictors {
    /// Reflection coefficients `k_1 … k_p`, each inside ±1.
    pub reflections: Vec<f64>,
    /// `ln σ_0`, the deviation of the samples.
    pub log_level: f64,
}

/// Turns frames into predictors.
pub(super) struct Spectrum {
    order: usize,
    /// The bin about which each band lies, in fractions, and the logarithm of its weights' sum.
    bands: Vec<(f64, f64)>,
    /// Of the windowed samples' power over that of the samples, in logarithms.
    log_window: f64,
    bins: usize,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

impl Spectrum {
    pub fn new(order: usize, config: &MelConfig) -> Self {
        let basis = MelBasis::new(config);
        let band = |weights: &[f64]| {
            let sum: f64 = weights.iter().sum();
            let moment: f64 = weights.iter().enumerate().map(|(bin, weight)| bin as f64 * weight).sum();
            (moment / sum, sum.ln())
        };
        Spectrum {
            order,
            bands: basis.matrix().chunks_exact(basis.bins()).map(band).collect(),
            // The squares of a periodic Hann window add up to 3/8 of its length.
            log_window: (0.375 * config.window as f64).ln(),
            bins: basis.bins(),
            inverse: RealFftPlanner::new().plan_fft_inverse(config.fft),
        }
    }

    /// The predictors for one frame of logarithmic magnitudes; `offsets` are added to the logarithms of the bins' powers, as far
    /// as there are any.
    pub fn predictors(&self, frame: &[f64], offsets: &[f64]) -> Result<Predictors> {
        if frame.iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFinite { layer: "linear prediction".into(), what: "spectrogram".into(), step: None });
        }
        let mut log_powers = self.log_powers(frame);
        log_powers.iter_mut().zip(offsets).for_each(|(log, offset)| *log += offset);
        let loudest = log_powers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers = log_powers.iter().map(|log| (log - loudest).exp().max(POWER_RANGE));
        let mut lags = self.autocorrelation(powers)?;
        lags.truncate(self.order + 1);
        if let Some(whole) = lags.first_mut() {
            *whole *= 1.0 + WHITE_NOISE;
        }
        let log_level = 0.5 * (lags.first().copied().unwrap_or(1.0).ln() + loudest);
        Ok(Predictors { reflections: levinson(&lags), log_level })
    }

    /// The logarithm of each bin's power density, on straight lines between the bands.
    pub fn log_powers(&self, frame: &[f64]) -> Vec<f64> {
        let level = |band: usize| 2.0 * (frame[band] - self.bands[band].1) - self.log_window;
        let last = self.bands.len().min(frame.len()) - 1;
        let mut above = 0;
        let of = |bin: usize| {
            while above < last && self.bands[above].0 < bin as f64 {
                above += 1;
            }
            let ((high, _), (low, _)) = (self.bands[above], self.bands[above.saturating_sub(1)]);
            let share = if high > low { ((bin as f64 - low) / (high - low)).clamp(0.0, 1.0) } else { 1.0 };
            (1.0 - share) * level(above.saturating_sub(1)) + share * level(above)
        };
        (0..self.bins).map(of).collect()
    }

    /// By how much the logarithms of a windowed frame's powers, in the mean of noise, lie above what its bands say.
    pub fn differences(&self, frame: &[f64], spectrum: &[Complex<f64>]) -> Vec<f64> {
        let said = self.log_powers(frame).into_iter();
        // Least squared magnitudes are those of rounding; the logarithm of a squared magnitude of Gaussian noise lies, in the
        // mean, Euler's constant below that of its power.
        let found = spectrum.iter().map(|value| value.norm_sqr().max(1e-14).ln() + EULER - self.log_window);
        found.zip(said).map(|(found, said)| found - said).collect()
    }

    fn autocorrelation(&self, powers: impl Iterator<Item = f64>) -> Result<Vec<f64>> {
        let mut spectrum: Vec<Complex<f64>> = powers.map(|power| Complex::new(power, 0.0)).collect();
        let mut lags = self.inverse.make_output_vec();
        let done = self.inverse.process(&mut spectrum, &mut lags);
        done.map_err(|error| Error::config("linear prediction", error.to_string()))?;
        let count = lags.len() as f64;
        lags.iter_mut().for_each(|lag| *lag /= count);
        Ok(lags)
    }
}

/// Levinson's recursion: the reflection coefficients of a process with these lags.
fn levinson(lags: &[f64]) -> Vec<f64> {
    let order = lags.len() - 1;
    let mut reflections = Vec::with_capacity(order);
    let mut power = lags[0];
    let mut filter = vec![1.0];
    for m in 1..=order {
        let sum: f64 = filter.iter().zip(lags[1..=m].iter().rev()).map(|(a, lag)| a * lag).sum();
        // Positive powers keep it inside ±1; rounding is kept from leading it out.
        let k = (-sum / power).clamp(-1.0 + 1e-12, 1.0 - 1e-12);
        filter.push(0.0);
        let turned: Vec<f64> = filter.iter().rev().copied().collect();
        filter.iter_mut().zip(turned).for_each(|(a, turned)| *a += k * turned);
        power *= 1.0 - k * k;
        reflections.push(k);
    }
    reflections
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An autoregressive process of order two has these lags, and no more than two coefficients.
    #[test]
    fn levinson_finds_the_process() {
        let (a1, a2) = (-1.2f64, 0.5f64);
        let mut lags = vec![1.0, -a1 / (1.0 + a2)];
        for m in 2..6 {
            lags.push(-a1 * lags[m - 1] - a2 * lags[m - 2]);
        }
        let reflections = levinson(&lags);
        assert!((reflections[1] - a2).abs() < 1e-12 && reflections[2..].iter().all(|k| k.abs() < 1e-12));
        let left = 1.0 + a1 * lags[1] + a2 * lags[2];
        assert!((reflections.iter().map(|k| 1.0 - k * k).product::<f64>() - left).abs() < 1e-12);
    }

    /// White noise needs no prediction, and its level is that of the samples.
    #[test]
    fn a_flat_spectrum_is_white_noise_of_its_level() {
        let config = MelConfig::speech_8k();
        let mut rng = flow_core::FlowRng::seed_from(4);
        let noise: Vec<f32> = (0..80_000).map(|_| 0.01 * rng.next_normal() as f32).collect();
        let mel = config.spectrogram(&noise).unwrap();
        let mean = |band: usize| {
            let rows = mel.values().chunks_exact(mel.frames());
            f64::from(rows.skip(band).take(1).flatten().sum::<f32>()) / mel.frames() as f64
        };
        let frame: Vec<f64> = (0..config.mels).map(mean).collect();
        let predictors = Spectrum::new(32, &config).predictors(&frame, &[]).unwrap();
        assert!(predictors.reflections.iter().all(|k| k.abs() < 0.1), "{:?}", predictors.reflections);
        // The logarithm of magnitudes lies somewhat below that of the power: by 0.12 to 0.29 for Gaussian noise.
        let off = predictors.log_level - 0.01f64.ln();
        assert!((-0.35..0.0).contains(&off), "{off}");
        let louder = Spectrum::new(32, &config).predictors(&frame, &vec![1.0; 257]).unwrap();
        assert!((louder.log_level - predictors.log_level - 0.5).abs() < 1e-9);
    }

    #[test]
    fn extreme_frames_give_finite_predictors_and_others_are_refused() {
        let spectrum = Spectrum::new(128, &MelConfig::speech_8k());
        let mut jagged = vec![-11.5; 64];
        (jagged[3], jagged[40]) = (300.0, -1e4);
        for frame in [vec![0.0; 64], vec![-11.512_925; 64], vec![700.0; 64], jagged] {
            let made = spectrum.predictors(&frame, &[]).unwrap();
            assert!(made.reflections.iter().all(|k| k.abs() < 1.0) && made.log_level.is_finite());
        }
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(spectrum.predictors(&[bad; 64], &[]).is_err());
        }
    }
}
