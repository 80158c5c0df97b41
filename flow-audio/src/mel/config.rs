//! What a mel spectrogram is computed with.

use serde::{Deserialize, Serialize};

use super::basis::MelBasis;
use super::stft::Stft;
use crate::{Error, Result};

/// Sizes beyond these are mistakes, and would ask for gigabytes.
const MAX_FFT: usize = 1 << 17;
const MAX_MELS: usize = 4096;
const MAX_RATE: u32 = 1_000_000;

/// How the ends of a clip are padded and how magnitudes are taken. The three are not interchangeable.
///
/// With `N` samples in a transform, `h` samples between two frames and `T` samples in the clip:
///
/// | | padding | frames | magnitude | level |
/// |---|---|---|---|---|
/// | `Tacotron2` | `N/2` reflected at both ends | `⌊T/h⌋ + 1` | `√(re² + im²)` | as it is |
/// | `HifiGan` | `(N − h)/2` reflected at both ends | `⌊T/h⌋` | `√(re² + im² + 1e-9)` | as it is |
/// | `Parakeet` | reflected to whole hops and `(N − h)/2` more at both ends | `⌈T/h⌉` | `√(re² + im²)` | peak 0.999 |
///
/// Sources: Tacotron 2 and WaveGlow of NVIDIA (and the PyTorch WaveFlow made of them); HiFi-GAN and BigVGAN; the
/// WaveFlow of Parakeet. HiFi-GAN's own training scales its clips to a peak of 0.95 before anything else; that is a
/// choice of its data, not of the spectrogram, and is not done here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Convention {
    /// Tacotron 2, WaveGlow: frames centred on multiples of the hop.
    #[default]
    Tacotron2,
    /// HiFi-GAN, BigVGAN, VITS: as many frames as whole hops.
    HifiGan,
    /// Parakeet: clips extended to whole hops and brought to one peak.
    Parakeet,
}

impl Convention {
    /// All of them.
    pub const ALL: [Convention; 3] = [Convention::Tacotron2, Convention::HifiGan, Convention::Parakeet];

    /// The name that files and command lines use.
    pub fn name(self) -> &'static str {
        match self {
            Convention::Tacotron2 => "tacotron2",
            Convention::HifiGan => "hifi-gan",
            Convention::Parakeet => "parakeet",
        }
    }

    /// What is added to the squared magnitude.
    pub(super) fn epsilon(self) -> f64 {
        match self {
            Convention::HifiGan => 1e-9,
            Convention::Tacotron2 | Convention::Parakeet => 0.0,
        }
    }
}

impl std::fmt::Display for Convention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Convention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Convention::ALL.into_iter().find(|c| c.name() == text).ok_or_else(|| {
            let names = Convention::ALL.map(Convention::name).join(", ");
            Error::config("convention", format!("must be one of {names}, got {text}"))
        })
    }
}

/// What a mel spectrogram is computed with.
///
/// The bands lie evenly on Slaney's mel scale between `low` and `high`, each a triangle of area one over frequency
/// ([`MelBasis`]); the window is the periodic Hann window; values are natural logarithms of magnitudes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Samples a second.
    pub rate: u32,
    /// Samples in a transform, `N`.
    pub fft: usize,
    /// Samples under the window, at most `N`.
    pub window: usize,
    /// Samples between two frames, `h`.
    pub hop: usize,
    /// Bands.
    pub mels: usize,
    /// Lower end of the lowest band, in Hz.
    pub low: f64,
    /// Upper end of the highest band, in Hz.
    pub high: f64,
    /// Padding and magnitudes.
    pub convention: Convention,
}

impl Default for MelConfig {
    fn default() -> Self {
        MelConfig::tacotron2()
    }
}

impl MelConfig {
    /// 22,050 Hz, 1,024 samples under the window, hop 256, 80 bands up to 8 kHz: Tacotron 2, WaveGlow.
    pub fn tacotron2() -> Self {
        MelConfig {
            rate: 22_050,
            fft: 1024,
            window: 1024,
            hop: 256,
            mels: 80,
            low: 0.0,
            high: 8000.0,
            convention: Convention::Tacotron2,
        }
    }

    /// The sizes of [`MelConfig::tacotron2`] in HiFi-GAN's convention (its configurations V1 to V3).
    pub fn hifi_gan() -> Self {
        MelConfig { convention: Convention::HifiGan, ..MelConfig::tacotron2() }
    }

    /// The sizes of [`MelConfig::tacotron2`] in Parakeet's convention, whose bands reach half the rate, 11,025 Hz: its
    /// preparation of data (`examples/waveflow/preprocess.py`) leaves the upper limit at the default of librosa.
    pub fn parakeet() -> Self {
        MelConfig { convention: Convention::Parakeet, high: 11_025.0, ..MelConfig::tacotron2() }
    }

    /// 16 kHz: the window of 64 ms and the hop of 16 ms, rounded to powers of two; bands up to half the rate.
    pub fn speech_16k() -> Self {
        MelConfig { rate: 16_000, high: 8000.0, ..MelConfig::tacotron2() }
    }

    /// 8 kHz, telephone speech: windows of 512 samples, hop 128, 64 bands up to half the rate.
    pub fn speech_8k() -> Self {
        MelConfig { rate: 8000, fft: 512, window: 512, hop: 128, mels: 64, high: 4000.0, ..MelConfig::tacotron2() }
    }

    /// The same in another convention.
    #[must_use]
    pub fn with_convention(self, convention: Convention) -> Self {
        MelConfig { convention, ..self }
    }

    /// Whether every field is inside its domain and every band holds a bin of the transform.
    ///
    /// # Errors
    /// The first field that is not, with what would be right.
    pub fn check(&self) -> Result<()> {
        let MelConfig { rate, fft, window, hop, mels, low, high, convention } = *self;
        let fail = |what: &str, reason: String| Err(Error::config(format!("mel spectrogram: {what}"), reason));
        match () {
            () if !(1..=MAX_RATE).contains(&rate) => fail("rate", format!("must be 1 to {MAX_RATE} Hz, got {rate}")),
            () if !(2..=MAX_FFT).contains(&fft) => fail("fft", format!("must be 2 to {MAX_FFT} samples, got {fft}")),
            () if !(1..=fft).contains(&window) => {
                fail("window", format!("must be 1 to {fft} samples, the size of the transform, got {window}"))
            }
            () if !(1..=window).contains(&hop) => {
                let reason = format!("must be 1 to {window} samples: no sample may lie between two windows, got {hop}");
                fail("hop", reason)
            }
            () if !(1..=MAX_MELS).contains(&mels) => fail("mels", format!("must be 1 to {MAX_MELS}, got {mels}")),
            () if !(low >= 0.0 && low < high && high <= f64::from(rate) / 2.0) => {
                let reason = format!("must be 0 <= low < high <= {} Hz, half the rate, got {low} to {high}", rate / 2);
                fail("low and high", reason)
            }
            () if convention != Convention::Tacotron2 && !(fft - hop).is_multiple_of(2) => {
                fail("hop", format!("{convention} pads (fft - hop) / 2 samples, a whole number; got {fft} - {hop}"))
            }
            () => match MelBasis::new(self).empty_band() {
                Some(band) => {
                    let reason = format!(
                        "{mels} bands from {low} to {high} Hz are too narrow for {fft} samples: no bin lies in band \
                         {band}; take fewer bands or a larger transform"
                    );
                    fail("mels", reason)
                }
                None => Ok(()),
            },
        }
    }

    /// Samples by which each end is padded, beyond what Parakeet adds to reach whole hops.
    pub fn padding(&self) -> usize {
        match self.convention {
            Convention::Tacotron2 => self.fft / 2,
            Convention::HifiGan | Convention::Parakeet => (self.fft - self.hop.min(self.fft)) / 2,
        }
    }

    /// Frames of a clip of so many samples; see [`Convention`].
    pub fn frames(&self, samples: usize) -> usize {
        let hop = self.hop.max(1);
        match self.convention {
            // The transform may be of an odd size, of which only the half below is padded.
            Convention::Tacotron2 => (samples + 2 * (self.fft / 2)).saturating_sub(self.fft) / hop + 1,
            Convention::HifiGan => samples / hop,
            Convention::Parakeet => samples.div_ceil(hop),
        }
    }

    /// The transform with this configuration's padding.
    ///
    /// # Errors
    /// Those of [`MelConfig::check`].
    pub fn stft(&self) -> Result<Stft> {
        self.check()?;
        Stft::new(self.fft, self.window, self.hop, self.padding())
    }

    /// How another configuration differs, field by field, in words; `None` if it is the same.
    pub fn difference(&self, other: &Self) -> Option<String> {
        fn field(name: &str, a: impl std::fmt::Display, b: impl std::fmt::Display, unit: &str) -> Option<String> {
            let (a, b) = (a.to_string(), b.to_string());
            (a != b).then(|| format!("{name} {a} against {b}{unit}"))
        }
        let fields = [
            field("convention", self.convention, other.convention, ""),
            field("rate", self.rate, other.rate, " Hz"),
            field("fft", self.fft, other.fft, " samples"),
            field("window", self.window, other.window, " samples"),
            field("hop", self.hop, other.hop, " samples"),
            field("mels", self.mels, other.mels, ""),
            field("low", self.low, other.low, " Hz"),
            field("high", self.high, other.high, " Hz"),
        ];
        let differing: Vec<String> = fields.into_iter().flatten().collect();
        (!differing.is_empty()).then(|| differing.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_legal_and_fields_outside_their_domain_are_named() {
        let good = MelConfig::tacotron2();
        let presets =
            [good, MelConfig::hifi_gan(), MelConfig::parakeet(), MelConfig::speech_16k(), MelConfig::speech_8k()];
        for preset in presets {
            preset.check().unwrap();
        }
        for (config, expected) in [
            (MelConfig { rate: 0, ..good }, "rate"),
            (MelConfig { fft: 0, ..good }, "fft: must be 2"),
            (MelConfig { fft: usize::MAX, ..good }, "fft"),
            (MelConfig { window: 1025, ..good }, "window: must be 1 to 1024"),
            (MelConfig { hop: 0, ..good }, "hop"),
            (MelConfig { hop: 1025, ..good }, "no sample may lie between"),
            (MelConfig { mels: 0, ..good }, "mels"),
            (MelConfig { high: 11_026.0, ..good }, "half the rate"),
            (MelConfig { low: 8000.0, ..good }, "low < high"),
            (MelConfig { low: f64::NAN, ..good }, "low and high"),
            (MelConfig { mels: 400, ..good }, "no bin lies in band"),
            (MelConfig { hop: 255, convention: Convention::HifiGan, ..good }, "whole number"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn differences_are_named_and_descriptions_read_strictly() {
        let (a, b) = (MelConfig::tacotron2(), MelConfig { rate: 24_000, ..MelConfig::hifi_gan() });
        assert_eq!(a.difference(&a), None);
        assert_eq!(a.difference(&b).unwrap(), "convention tacotron2 against hifi-gan, rate 22050 against 24000 Hz");
        let text = serde_json::to_string(&b).unwrap();
        assert_eq!(serde_json::from_str::<MelConfig>(&text).unwrap(), b);
        let more = text.replace("\"hop\"", "\"log_base\":10,\"hop\"");
        assert!(serde_json::from_str::<MelConfig>(&more).unwrap_err().to_string().contains("log_base"));
        for convention in Convention::ALL {
            assert_eq!(convention.name().parse::<Convention>().unwrap(), convention);
            assert_eq!(serde_json::to_string(&convention).unwrap(), format!("\"{convention}\""));
        }
        assert!("whisper".parse::<Convention>().unwrap_err().to_string().contains("tacotron2, hifi-gan, parakeet"));
    }
}
