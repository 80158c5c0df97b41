//! One clip: a waveform of one channel.

use crate::{Error, Result};

/// A clip whose samples all lie below this peak, −60 dB of full scale, is silent: a model learns nothing from it, and a
/// likelihood may grow without bound on it.
pub const SILENCE_PEAK: f32 = 1e-3;

/// So many samples in a row at full scale are a recording that was too loud.
const CLIPPED_RUN: usize = 3;

/// A waveform of one channel.
///
/// Samples are fractions of full scale in `[−1, 1]`: an integer `i` of `b` bits is `i / 2^(b−1)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    name: String,
    rate: u32,
    samples: Vec<f32>,
    bits: u32,
    transcript: Option<String>,
    facts: Facts,
}

/// What happened to a clip on its way from the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Facts {
    /// Channels of the file; several were averaged.
    pub(super) channels: usize,
    /// Samples beyond ±1, which were clipped.
    pub(super) beyond: usize,
    /// Runs of full-scale samples.
    pub(super) full_scale_runs: usize,
    /// The rate of the file, if it was another.
    pub(super) resampled_from: Option<u32>,
    /// Whatever else a reader has to tell.
    pub(super) other: Vec<String>,
}

/// What a reader makes of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    pub(super) rate: u32,
    pub(super) channels: usize,
    pub(super) bits: u32,
    /// Channel by channel of one moment after the other.
    pub(super) interleaved: Vec<f32>,
    pub(super) notes: Vec<String>,
}

impl Clip {
    /// A clip from samples of so many bits; see [`Clip::bits`].
    ///
    /// # Errors
    /// No sample, a rate of zero, bits outside 1 to 32, or a sample that is not finite or beyond ±1, named by its number.
    pub fn new(name: impl Into<String>, rate: u32, samples: Vec<f32>, bits: u32) -> Result<Self> {
        let name = name.into();
        if samples.is_empty() || rate == 0 || !(1..=32).contains(&bits) {
            let reason =
                format!("a clip has samples, a rate and 1 to 32 bits; got {}, {rate} Hz and {bits}", samples.len());
            return Err(Error::config(name, reason));
        }
        // Written so that NaN is refused as well.
        if let Some((place, value)) = samples.iter().enumerate().find(|(_, x)| !(-1.0..=1.0).contains(*x)) {
            return Err(Error::config(name, format!("sample {place} is {value}, expected -1 to 1")));
        }
        let full_scale_runs = full_scale_runs(&samples, 1, bits);
        let facts = Facts { channels: 1, full_scale_runs, ..Facts::default() };
        Ok(Clip { name, rate, samples, bits, transcript: None, facts })
    }

    /// What a reader made of a file, mixed to one channel.
    pub(super) fn from_decoded(name: &str, decoded: Decoded) -> Result<Self> {
        let Decoded { rate, channels, bits, mut interleaved, notes } = decoded;
        let full_scale_runs = full_scale_runs(&interleaved, channels, bits);
        let mut beyond = 0;
        for x in interleaved.iter_mut().filter(|x| x.abs() > 1.0) {
            *x = x.clamp(-1.0, 1.0);
            beyond += 1;
        }
        let samples = match channels {
            0 | 1 => interleaved,
            _ => interleaved.chunks_exact(channels).map(|all| all.iter().sum::<f32>() / channels as f32).collect(),
        };
        let mut clip = Clip::new(name, rate, samples, bits)?;
        clip.facts = Facts { channels, beyond, full_scale_runs, resampled_from: None, other: notes };
        Ok(clip)
    }

    /// Where it was read from, relative to what was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The waveform.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Number of samples, at least one.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples, which no clip is.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// Bits of a sample: those of the file's integers, 24 at most, as many as a float's mantissa has; 24 for floats; 16 for
    /// Ogg Vorbis and MP3, which have none.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// What is said, where a corpus tells.
    pub fn transcript(&self) -> Option<&str> {
        self.transcript.as_deref()
    }

    /// The largest size of a sample.
    pub fn peak(&self) -> f32 {
        self.samples.iter().fold(0.0, |peak, x| peak.max(x.abs()))
    }

    /// Whether the peak lies below −60 dB of full scale.
    pub fn is_silent(&self) -> bool {
        self.peak() < SILENCE_PEAK
    }

    /// Runs of three samples or more at full scale, in any channel: where a recording was too loud.
    pub fn full_scale_runs(&self) -> usize {
        self.facts.full_scale_runs
    }

    /// What was changed on the way from the file, a sentence for each.
    pub fn notes(&self) -> Vec<String> {
        let Facts { channels, beyond, full_scale_runs, resampled_from, other } = &self.facts;
        let said = [
            (*channels > 1).then(|| format!("{channels} channels mixed to one")),
            (*beyond > 0).then(|| format!("{beyond} samples beyond full scale clipped")),
            (*full_scale_runs > 0).then(|| format!("{full_scale_runs} runs of samples at full scale")),
            resampled_from.map(|from| format!("resampled from {from} to {} Hz", self.rate)),
        ];
        said.into_iter().flatten().chain(other.iter().cloned()).collect()
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The same clip with what is said in it.
    #[must_use]
    pub fn with_transcript(mut self, transcript: Option<String>) -> Self {
        self.transcript = transcript;
        self
    }

    /// The same clip at another rate; see [`super::resample`].
    ///
    /// # Errors
    /// A rate of zero.
    pub fn resampled(mut self, rate: u32) -> Result<Self> {
        if rate == self.rate {
            return Ok(self);
        }
        let samples = super::resample(&self.samples, self.rate, rate)?;
        // A resampled peak may overshoot by a little.
        self.facts.beyond += samples.iter().filter(|x| x.abs() > 1.0).count();
        self.samples = samples.into_iter().map(|x| x.clamp(-1.0, 1.0)).collect();
        self.facts.resampled_from = Some(self.rate);
        self.rate = rate;
        Ok(self)
    }
}

/// Runs of [`CLIPPED_RUN`] samples or more at full scale of one sign, in each channel of its own.
fn full_scale_runs(interleaved: &[f32], channels: usize, bits: u32) -> usize {
    // The highest integer is one step below full scale; beyond 16 bits a step is nothing that a converter keeps to.
    let step = 2f32.powi(1 - bits.min(16) as i32);
    let sign = |x: f32| {
        if x.abs() >= 1.0 - 1.5 * step { x.signum() } else { 0.0 }
    };
    let of_channel = |channel: usize| {
        let (mut runs, mut length, mut before) = (0, 0, 0.0);
        for &x in interleaved.iter().skip(channel).step_by(channels.max(1)) {
            let now = sign(x);
            length = if now != 0.0 && now == before { length + 1 } else { 1 };
            runs += usize::from(now != 0.0 && length == CLIPPED_RUN);
            before = now;
        }
        runs
    };
    (0..channels.max(1)).map(of_channel).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_averaged_and_what_is_beyond_is_counted() {
        let decoded = Decoded {
            rate: 8000,
            channels: 2,
            bits: 24,
            interleaved: vec![0.5, -0.5, 1.5, 0.5, 0.25, 0.25],
            notes: vec!["said".into()],
        };
        let clip = Clip::from_decoded("x", decoded).unwrap();
        assert_eq!(clip.samples(), [0.0, 0.75, 0.25]);
        assert_eq!(clip.notes(), ["2 channels mixed to one", "1 samples beyond full scale clipped", "said"]);
    }

    #[test]
    fn runs_at_full_scale_are_counted_by_channel_and_sign() {
        let top = 32_767.0 / 32_768.0;
        assert_eq!(full_scale_runs(&[top, top, top, 0.0, -1.0, -1.0, -1.0, -1.0, top, top], 1, 16), 2);
        assert_eq!(full_scale_runs(&[top, -1.0, top], 1, 16), 0);
        assert_eq!(full_scale_runs(&[top, 0.0, top, 0.0, top, 0.0], 2, 16), 1);
        assert_eq!(full_scale_runs(&[127.0 / 128.0; 5], 1, 8), 1);
        assert_eq!(full_scale_runs(&[0.98; 5], 1, 16), 0);
    }

    #[test]
    fn clips_are_samples_between_minus_one_and_one() {
        for (samples, rate, bits) in
            [(vec![], 8000, 16), (vec![0.0], 0, 16), (vec![0.0], 8000, 0), (vec![0.0], 8000, 33)]
        {
            assert!(Clip::new("x", rate, samples, bits).is_err());
        }
        for bad in [f32::NAN, 1.5, f32::NEG_INFINITY] {
            let error = Clip::new("x", 8000, vec![0.0, bad], 16).unwrap_err().to_string();
            assert!(error.contains("sample 1"), "{error}");
        }
        let clip = Clip::new("x", 8000, vec![9e-4; 4000], 16).unwrap();
        assert!(clip.is_silent() && clip.seconds() == 0.5);
        assert!(!Clip::new("x", 8000, vec![1.1e-3], 16).unwrap().is_silent());
    }
}
