//! Log-mel spectrograms.

use candle_core::{Device, Tensor};

use super::basis::MelBasis;
use super::stft::mirrored;
use super::{Convention, MelConfig, Stft};
use crate::{Error, Result};

/// The smallest magnitude in a band: everything below is as silent as this.
pub const LOG_FLOOR: f64 = 1e-5;

/// The peak to which Parakeet's convention brings a clip.
const PARAKEET_PEAK: f64 = 0.999;

/// A log-mel spectrogram, `ln max(basis · |STFT|, 1e-5)`, with what it was computed with.
///
/// # Shapes
/// - values `[mels, frames]`, band after band.
#[derive(Debug, Clone, PartialEq)]
pub struct Mel {
    config: MelConfig,
    frames: usize,
    values: Vec<f32>,
}

/// A spectrogram and the samples that belong to its frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// Samples of which `f · hop .. (f + 1) · hop` belong to frame `f`.
    ///
    /// The clip itself in the first two conventions, with fewer samples than `frames · hop` or a few more. In Parakeet's
    /// it is the clip brought to its peak and extended by reflection at both ends: exactly `frames · hop` samples.
    pub samples: Vec<f32>,
    /// By how much the clip was multiplied; one unless the convention brings clips to a peak.
    pub gain: f32,
    /// The spectrogram.
    pub mel: Mel,
}

impl Mel {
    /// A spectrogram of values `[mels, frames]` computed elsewhere with this configuration.
    ///
    /// # Errors
    /// A configuration outside its domain, another number of values, no frame, or a value that is not finite, named.
    pub fn new(config: MelConfig, frames: usize, values: Vec<f32>) -> Result<Self> {
        config.check()?;
        if frames == 0 || config.mels.checked_mul(frames) != Some(values.len()) {
            let reason = format!("{} values are not {} bands of {frames} frames", values.len(), config.mels);
            return Err(Error::config("mel spectrogram", reason));
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let reason = format!("band {}, frame {} is not finite", place / frames, place % frames);
            return Err(Error::config("mel spectrogram", reason));
        }
        Ok(Mel { config, frames, values })
    }

    /// What it was computed with.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Number of frames, at least one.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Number of bands.
    pub fn mels(&self) -> usize {
        self.config.mels
    }

    /// All values, `[mels, frames]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values of one band, `[frames]`; nothing beyond the last one.
    pub fn band(&self, band: usize) -> &[f32] {
        self.values.chunks_exact(self.frames).nth(band).unwrap_or(&[])
    }

    /// The values of one frame, `[mels]`; nothing beyond the last one.
    pub fn frame(&self, frame: usize) -> Vec<f32> {
        self.values.chunks_exact(self.frames).filter_map(|band| band.get(frame).copied()).collect()
    }

    /// `count` frames from `from` on.
    ///
    /// # Errors
    /// No frame, or frames beyond the end.
    pub fn cut(&self, from: usize, count: usize) -> Result<Self> {
        if count == 0 || from.checked_add(count).is_none_or(|end| end > self.frames) {
            let reason = format!("{count} frames from {from} on, of {}", self.frames);
            return Err(Error::config("mel spectrogram", reason));
        }
        let bands = self.values.chunks_exact(self.frames);
        let values = bands.flat_map(|band| band.iter().skip(from).take(count).copied()).collect();
        Ok(Mel { config: self.config, frames: count, values })
    }

    /// `(1, mels, frames)` in f32.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, (1, self.config.mels, self.frames), device)?)
    }

    /// Refuses a spectrogram that was not computed with `wanted`.
    ///
    /// # Errors
    /// Names every field that differs; `what` names the spectrogram.
    pub fn expect(&self, wanted: &MelConfig, what: &str) -> Result<()> {
        match self.config.difference(wanted) {
            None => Ok(()),
            Some(difference) => Err(Error::config(
                what,
                format!("this mel spectrogram is of another kind than the model's: {difference}; compute it anew"),
            )),
        }
    }
}

/// A clip with all its padding.
struct Padded {
    values: Vec<f64>,
    gain: f64,
    /// Values at each end that belong to no frame's own samples.
    edge: usize,
}

impl MelConfig {
    /// The spectrogram of a clip of this configuration's rate, in units of full scale.
    ///
    /// # Errors
    /// A configuration outside its domain, a clip too short for the reflection of its ends, samples that are not finite,
    /// or silence in a convention that brings clips to a peak.
    pub fn spectrogram(&self, samples: &[f32]) -> Result<Mel> {
        let stft = self.stft()?;
        self.transformed(&stft, &self.padded(samples)?)
    }

    /// The spectrogram of a clip with the samples that belong to its frames.
    ///
    /// # Errors
    /// Those of [`MelConfig::spectrogram`].
    pub fn aligned(&self, samples: &[f32]) -> Result<Aligned> {
        let stft = self.stft()?;
        let padded = self.padded(samples)?;
        let mel = self.transformed(&stft, &padded)?;
        let samples = match self.convention {
            Convention::Tacotron2 | Convention::HifiGan => samples.to_vec(),
            Convention::Parakeet => {
                let own = padded.values.iter().skip(padded.edge).take(mel.frames * self.hop);
                own.map(|&x| x as f32).collect()
            }
        };
        Ok(Aligned { samples, gain: padded.gain as f32, mel })
    }

    fn transformed(&self, stft: &Stft, padded: &Padded) -> Result<Mel> {
        let basis = MelBasis::new(self);
        let epsilon = self.convention.epsilon();
        let columns = stft.map_frames(&padded.values, |bins| {
            let magnitudes: Vec<f64> = bins.iter().map(|bin| (bin.norm_sqr() + epsilon).sqrt()).collect();
            basis.apply(&magnitudes)
        })?;
        let (mels, frames) = (self.mels, columns.len());
        let mut values = vec![0.0; mels * frames];
        for (frame, column) in columns.iter().enumerate() {
            let places = values.iter_mut().skip(frame).step_by(frames);
            places.zip(column).for_each(|(place, value)| *place = value.max(LOG_FLOOR).ln() as f32);
        }
        Ok(Mel { config: *self, frames, values })
    }

    fn padded(&self, samples: &[f32]) -> Result<Padded> {
        if let Some(place) = samples.iter().position(|x| !x.is_finite()) {
            return Err(Error::config("clip", format!("sample {place} is not finite")));
        }
        let edge = self.padding();
        if self.convention != Convention::Parakeet {
            let values = mirrored(samples, edge, edge)?;
            return Ok(Padded { values, gain: 1.0, edge });
        }
        let total = samples.len().div_ceil(self.hop) * self.hop + 2 * edge - samples.len();
        let mut values = mirrored(samples, total / 2, total - total / 2)?;
        let peak = values.iter().fold(0.0, |peak: f64, x| peak.max(x.abs()));
        if peak == 0.0 {
            let reason = "is silent, and cannot be brought to a peak as the convention parakeet does";
            return Err(Error::config("clip", reason));
        }
        let gain = PARAKEET_PEAK / peak;
        values.iter_mut().for_each(|x| *x *= gain);
        Ok(Padded { values, gain, edge })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::hz_to_mel;

    fn sine(hz: f64, rate: u32, count: usize) -> Vec<f32> {
        let angle = 2.0 * std::f64::consts::PI * hz / f64::from(rate);
        (0..count).map(|n| (0.5 * (angle * n as f64).sin()) as f32).collect()
    }

    #[test]
    fn a_sine_peaks_in_the_band_of_its_frequency() {
        for convention in Convention::ALL {
            let config = MelConfig::tacotron2().with_convention(convention);
            for hz in [300.0, 1000.0, 2500.0, 6000.0] {
                let mel = config.spectrogram(&sine(hz, config.rate, 8192)).unwrap();
                let frame = mel.frame(10);
                let loudest = (0..mel.mels()).max_by(|&a, &b| frame[a].total_cmp(&frame[b])).unwrap();
                let step = hz_to_mel(config.high) / (config.mels + 1) as f64;
                let wanted = hz_to_mel(hz) / step - 1.0;
                assert!((loudest as f64 - wanted).abs() <= 1.0, "{convention} {hz}: band {loudest}, not {wanted:.1}");
            }
        }
    }

    /// Of a sine of amplitude `a` in the middle of a bin the magnitude there is `a/2 · Σw = a·N/4`.
    #[test]
    fn levels_are_those_of_the_sum_of_the_window() {
        let config = MelConfig::hifi_gan();
        let hz = 64.0 * f64::from(config.rate) / 1024.0;
        let stft = config.stft().unwrap();
        let spectrum = stft.forward(&sine(hz, config.rate, 8192)).unwrap();
        let magnitude = spectrum.values[10 * 513 + 64].norm();
        assert!((magnitude - 0.5 * 1024.0 / 4.0).abs() < 1e-4, "{magnitude}");
    }

    #[test]
    fn frames_are_as_many_as_the_convention_says_and_silence_is_the_floor() {
        for count in [1024usize, 1025, 2047, 5000, 5120] {
            for (convention, wanted) in [
                (Convention::Tacotron2, count / 256 + 1),
                (Convention::HifiGan, count / 256),
                (Convention::Parakeet, count.div_ceil(256)),
            ] {
                let config = MelConfig::tacotron2().with_convention(convention);
                let mel = config.spectrogram(&sine(440.0, 22_050, count)).unwrap();
                assert_eq!([mel.frames(), config.frames(count)], [wanted; 2], "{convention}, {count} samples");
                assert_eq!(mel.values().len(), 80 * wanted);
            }
        }
        let silent = MelConfig::tacotron2().spectrogram(&[0.0; 2000]).unwrap();
        assert!(silent.values().iter().all(|&v| v == (1e-5f64).ln() as f32));
        let error = MelConfig::parakeet().spectrogram(&[0.0; 2000]).unwrap_err().to_string();
        assert!(error.contains("silent"), "{error}");
    }

    #[test]
    fn conventions_differ_and_parakeet_takes_no_notice_of_loudness() {
        let x = sine(700.0, 22_050, 6000);
        let quiet: Vec<f32> = x.iter().map(|x| x * 0.25).collect();
        let of = |convention, x: &[f32]| {
            let config = MelConfig::tacotron2().with_convention(convention);
            config.spectrogram(x).unwrap().cut(3, 15).unwrap()
        };
        let worst =
            |a: &Mel, b: &Mel| a.values().iter().zip(b.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let all = Convention::ALL.map(|convention| of(convention, &x));
        assert!(worst(&all[0], &all[1]) > 0.1 && worst(&all[1], &all[2]) > 0.1 && worst(&all[0], &all[2]) > 0.1);
        assert!(worst(&all[2], &of(Convention::Parakeet, &quiet)) < 1e-4);
        let softer = of(Convention::Tacotron2, &quiet);
        let loudest = |mel: &Mel| mel.values().iter().copied().fold(f32::MIN, f32::max);
        assert!((loudest(&all[0]) - loudest(&softer) - 4f32.ln()).abs() < 1e-4);
    }

    #[test]
    fn aligned_samples_belong_to_their_frames() {
        let mut x = vec![0.0f32; 6000];
        x[3000] = 0.5;
        for convention in Convention::ALL {
            let config = MelConfig::tacotron2().with_convention(convention);
            let Aligned { samples, gain, mel } = config.aligned(&x).unwrap();
            let click = samples.iter().position(|&x| x > 0.1).unwrap();
            let loudness = |frame: usize| mel.frame(frame).iter().sum::<f32>();
            let loudest = (0..mel.frames()).max_by(|&a, &b| loudness(a).total_cmp(&loudness(b))).unwrap();
            assert!(loudest.abs_diff(click / 256) <= 1, "{convention}: frame {loudest}, sample {click}");
            if convention == Convention::Parakeet {
                assert_eq!((samples.len(), (gain - 1.998).abs() < 1e-6), (mel.frames() * 256, true));
            } else {
                assert_eq!((samples, gain), (x.clone(), 1.0));
            }
        }
    }

    #[test]
    fn short_clips_and_bad_samples_are_refused() {
        for (config, most) in [(MelConfig::tacotron2(), 512), (MelConfig::hifi_gan(), 384)] {
            let error = config.spectrogram(&vec![0.1; most]).unwrap_err().to_string();
            assert!(error.contains(&format!("needs {} or more", most + 1)), "{error}");
            config.spectrogram(&vec![0.1; most + 1]).unwrap();
        }
        assert!(MelConfig::parakeet().spectrogram(&[0.1; 384]).unwrap_err().to_string().contains("too short"));
        let mut x = vec![0.1; 2000];
        x[1234] = f32::NAN;
        assert!(MelConfig::default().spectrogram(&x).unwrap_err().to_string().contains("sample 1234"));
    }

    #[test]
    fn values_and_kinds_are_checked() {
        let config = MelConfig { mels: 2, ..MelConfig::tacotron2() };
        let mel = Mel::new(config, 3, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!((mel.band(1), mel.frame(2)), (&[3.0, 4.0, 5.0][..], vec![2.0, 5.0]));
        assert_eq!(mel.cut(1, 2).unwrap().values(), [1.0, 2.0, 4.0, 5.0]);
        assert_eq!(mel.tensor(&Device::Cpu).unwrap().dims(), [1, 2, 3]);
        assert!(mel.cut(1, 3).is_err() && mel.cut(usize::MAX, 2).is_err() && mel.cut(0, 0).is_err());
        assert!(Mel::new(config, 2, vec![0.0; 5]).is_err() && Mel::new(config, 0, vec![]).is_err());
        let error = Mel::new(config, 2, vec![0.0, 0.0, 0.0, f32::NAN]).unwrap_err().to_string();
        assert!(error.contains("band 1, frame 1"), "{error}");
        mel.expect(&config, "x").unwrap();
        let error = mel.expect(&MelConfig { hop: 200, ..config }, "x.npz").unwrap_err().to_string();
        assert!(error.starts_with("x.npz: ") && error.contains("hop 256 against 200 samples"), "{error}");
    }
}
