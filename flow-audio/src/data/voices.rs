//! Synthesised voices: speech-like sound of which everything is known, made without any file.
//!
//! These are no recordings of anybody, and no speech: nothing is said. A train of glottal pulses with vibrato goes through
//! formant resonators (vowels), noise through one resonator (fricatives), with silence between, as in the serial
//! synthesizer of Klatt (1980). The same seed gives the same clips, on any number of threads, and clip `i` of a part is
//! the same however many there are.

use std::f64::consts::PI;

use flow_core::FlowRng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Clip, Clips, Splits};
use crate::{Error, Result};

/// Formants in Hz of vowels of men, by the measurements of Peterson and Barney (1952).
const VOWELS: [(&str, [f64; 3]); 6] = [
    ("i", [270.0, 2290.0, 3010.0]),
    ("e", [530.0, 1840.0, 2480.0]),
    ("a", [730.0, 1090.0, 2440.0]),
    ("o", [570.0, 840.0, 2410.0]),
    ("u", [300.0, 870.0, 2240.0]),
    ("er", [490.0, 1350.0, 1690.0]),
];

/// Widths of the resonances, in Hz.
const WIDTHS: [f64; 3] = [70.0, 100.0, 140.0];

/// Fricatives: the centre of the noise as a fraction of half the rate.
const FRICATIVES: [(&str, f64); 3] = [("s", 0.82), ("sh", 0.55), ("f", 0.68)];

/// Seconds in which a sound rises and falls.
const FADE: f64 = 0.02;

/// The peak of a clip.
const PEAK: f64 = 0.7;

/// How voices are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Voices {
    /// Clips to train on.
    pub clips: usize,
    /// Clips to validate on.
    pub validation: usize,
    /// Clips to test on.
    pub test: usize,
    /// Length of a clip in seconds.
    pub seconds: f64,
    /// Samples a second, 8,000 or 16,000.
    pub rate: u32,
}

impl Default for Voices {
    /// Four minutes at 8 kHz to train on.
    fn default() -> Self {
        Voices { clips: 120, validation: 8, test: 8, seconds: 2.0, rate: 8000 }
    }
}

/// What kind of sound a piece of a clip is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SoundKind {
    /// A vowel with its three formants in Hz, which glide to those of the second list.
    Vowel {
        /// At the beginning.
        from: [f64; 3],
        /// At the end.
        to: [f64; 3],
    },
    /// Noise around a frequency in Hz.
    Fricative {
        /// The centre.
        centre: f64,
    },
    /// Nothing.
    Silence,
}

/// A piece of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sound {
    /// Its name, `-` for silence.
    pub name: &'static str,
    /// What it is.
    pub kind: SoundKind,
    /// Its first sample.
    pub start: usize,
    /// Number of samples.
    pub length: usize,
}

/// A clip and all that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Voice {
    /// The waveform, of 16 bits.
    pub clip: Clip,
    /// Mean pitch in Hz.
    pub pitch: f64,
    /// Vibrations of the pitch a second.
    pub vibrato_rate: f64,
    /// How far the pitch swings to either side, as a fraction of it.
    pub vibrato_depth: f64,
    /// What the formants are multiplied by: a shorter throat has higher ones.
    pub formant_scale: f64,
    /// The sounds in their order; they cover the clip.
    pub sounds: Vec<Sound>,
}

impl Voices {
    fn check(&self) -> Result<()> {
        let fail = |what: &str, reason: String| Err(Error::config(format!("voices: {what}"), reason));
        if !matches!(self.rate, 8000 | 16_000) {
            return fail("rate", format!("must be 8000 or 16000 Hz, got {}", self.rate));
        }
        if !(0.25..=60.0).contains(&self.seconds) {
            return fail("seconds", format!("must be 0.25 to 60, got {}", self.seconds));
        }
        if self.clips == 0 {
            return fail("clips", "there must be one to train on".into());
        }
        Ok(())
    }

    /// The three parts, which share no clip.
    ///
    /// # Errors
    /// A rate, a length or a number of clips outside its domain.
    pub fn splits(&self, seed: u64) -> Result<Splits> {
        let part = |name: &str, count: usize| -> Result<Clips> {
            let clips = (0..count.max(1))
                .into_par_iter()
                .map(|index| Ok(self.voice(seed, name, index)?.clip))
                .collect::<Result<_>>()?;
            let source = format!("synthesised voices ({name}, {count} clips of {} s, seed {seed})", self.seconds);
            let set = Clips::new(clips, source)?;
            if count == 0 { set.subset([]) } else { Ok(set) }
        };
        let note = "voices: synthesised from glottal pulses and resonators, no recordings of anybody".to_string();
        let train = part("train", self.clips)?.with_notes([note]);
        Ok(Splits { train, validation: part("validation", self.validation)?, test: part("test", self.test)? })
    }

    /// Clip `index` of a part, with what it was made of.
    ///
    /// # Errors
    /// Those of [`Voices::splits`].
    pub fn voice(&self, seed: u64, part: &str, index: usize) -> Result<Voice> {
        self.check()?;
        let mut rng = FlowRng::named(seed, &format!("voices {} {part} {index}", self.rate));
        let mut between = |low: f64, high: f64| low + (high - low) * rng.next_uniform();
        // Low and high voices, with throats to match.
        let pitch = 90.0 * 2f64.powf(between(0.0, 1.4));
        let formant_scale = 0.95 + 0.25 * (pitch / 90.0).log2() / 1.4;
        let (vibrato_rate, vibrato_depth) = (between(4.5, 6.5), between(0.01, 0.03));
        let length = (self.seconds * f64::from(self.rate)).round() as usize;
        let sounds = self.sounds(length, formant_scale, &mut rng);
        let mut source =
            Source { rate: f64::from(self.rate), pitch, vibrato_rate, vibrato_depth, phase: 0.0, time: 0.0 };
        let mut samples = Vec::with_capacity(length);
        for sound in &sounds {
            source.append(sound, &mut samples, &mut rng);
        }
        let peak = samples.iter().fold(1e-9, |peak: f64, x| peak.max(x.abs()));
        let level = PEAK / peak * 32_768.0;
        let samples = samples.iter().map(|x| ((x * level).round() / 32_768.0) as f32).collect();
        let clip = Clip::new(format!("{part}-{index}"), self.rate, samples, 16)?;
        Ok(Voice { clip, pitch, vibrato_rate, vibrato_depth, formant_scale, sounds })
    }

    /// Vowels, fricatives and pauses that fill a clip.
    fn sounds(&self, length: usize, scale: f64, rng: &mut FlowRng) -> Vec<Sound> {
        let rate = f64::from(self.rate);
        let mut sounds = Vec::new();
        let mut start = 0;
        let mut vowel = rng.below(VOWELS.len());
        while start < length {
            let draw = rng.next_uniform();
            let (name, kind, least, most) = match sounds.last().map(|sound: &Sound| sound.kind) {
                None | Some(SoundKind::Silence | SoundKind::Fricative { .. }) => {
                    let next = rng.below(VOWELS.len());
                    let formants = |index: usize| VOWELS.get(index).map_or([500.0; 3], |(_, f)| f.map(|hz| hz * scale));
                    let kind = SoundKind::Vowel { from: formants(vowel), to: formants(next) };
                    let name = VOWELS.get(vowel).map_or("-", |(name, _)| name);
                    vowel = next;
                    (name, kind, 0.12, 0.35)
                }
                Some(SoundKind::Vowel { .. }) if draw < 0.6 => {
                    let (name, centre) = FRICATIVES.get(rng.below(FRICATIVES.len())).copied().unwrap_or(("s", 0.8));
                    (name, SoundKind::Fricative { centre: centre * rate / 2.0 }, 0.06, 0.14)
                }
                Some(SoundKind::Vowel { .. }) => ("-", SoundKind::Silence, 0.05, 0.15),
            };
            let seconds = least + (most - least) * rng.next_uniform();
            let own = ((seconds * rate) as usize).clamp(1, length - start);
            sounds.push(Sound { name, kind, start, length: own });
            start += own;
        }
        sounds
    }
}

/// The glottis, which goes on from sound to sound.
struct Source {
    rate: f64,
    pitch: f64,
    vibrato_rate: f64,
    vibrato_depth: f64,
    /// Of the pulse, in `[0, 1)`.
    phase: f64,
    /// Seconds since the beginning.
    time: f64,
}

impl Source {
    fn append(&mut self, sound: &Sound, samples: &mut Vec<f64>, rng: &mut FlowRng) {
        let mut resonators: Vec<Resonator> = Vec::new();
        for n in 0..sound.length {
            let along = n as f64 / sound.length as f64;
            let pulse = self.pulse();
            let raw = match sound.kind {
                SoundKind::Vowel { from, to } => {
                    resonators.resize(3, Resonator::default());
                    let breath = 0.02 * rng.next_normal();
                    let glide = (1.0 - (PI * along).cos()) / 2.0;
                    let formants =
                        from.iter().zip(&to).zip(&WIDTHS).map(|((a, b), width)| (a + (b - a) * glide, *width));
                    resonators.iter_mut().zip(formants).fold(pulse + breath, |x, (resonator, (centre, width))| {
                        // A resonance beyond what the rate holds is left out.
                        if centre < 0.45 * self.rate { resonator.step(x, centre, width, self.rate) } else { x }
                    })
                }
                SoundKind::Fricative { centre } => {
                    resonators.resize(1, Resonator::default());
                    let noise = 0.12 * rng.next_normal();
                    resonators.iter_mut().fold(noise, |x, r| r.step(x, centre, 0.15 * self.rate, self.rate))
                }
                SoundKind::Silence => 0.0,
            };
            samples.push(raw * self.envelope(n, sound.length));
        }
    }

    /// The derivative of the flow through the glottis (Rosenberg 1971): it opens for two fifths of a period, closes
    /// faster, and is shut for the rest.
    fn pulse(&mut self) -> f64 {
        let (opening, closing) = (0.4, 0.16);
        let swing = 1.0 + self.vibrato_depth * (2.0 * PI * self.vibrato_rate * self.time).sin();
        self.time += 1.0 / self.rate;
        self.phase = (self.phase + self.pitch * swing / self.rate).fract();
        match self.phase {
            p if p < opening => 0.5 * (PI * p / opening).sin() * closing / opening,
            p if p < opening + closing => -(PI * (p - opening) / (2.0 * closing)).sin(),
            _ => 0.0,
        }
    }

    /// Raised-cosine flanks.
    fn envelope(&self, n: usize, length: usize) -> f64 {
        let fade = (FADE * self.rate).min(length as f64 / 2.0).max(1.0);
        let near = (n.min(length - 1 - n) as f64 + 0.5) / fade;
        if near >= 1.0 { 1.0 } else { (1.0 - (PI * near).cos()) / 2.0 }
    }
}

/// Two poles: `y[n] = A x[n] + B y[n−1] + C y[n−2]`, gain one at zero frequency (Klatt 1980, equations 1 and 2).
#[derive(Debug, Clone, Copy, Default)]
struct Resonator {
    before: [f64; 2],
}

impl Resonator {
    fn step(&mut self, x: f64, centre: f64, width: f64, rate: f64) -> f64 {
        let c = -(-2.0 * PI * width / rate).exp();
        let b = 2.0 * (-PI * width / rate).exp() * (2.0 * PI * centre / rate).cos();
        let y = (1.0 - b - c) * x + b * self.before[0] + c * self.before[1];
        self.before = [y, self.before[0]];
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mel::Stft;

    #[test]
    fn a_seed_gives_the_same_clips_and_parts_share_none() {
        let few = Voices { clips: 3, validation: 1, test: 0, seconds: 0.5, rate: 8000 };
        let (one, again) = (few.splits(1).unwrap(), few.splits(1).unwrap());
        assert_eq!((one.fingerprint(), one.train.len(), one.test.len()), (again.fingerprint(), 3, 0));
        assert_ne!(one.fingerprint(), few.splits(2).unwrap().fingerprint());
        let more = Voices { clips: 5, ..few }.splits(1).unwrap();
        assert_eq!(more.train.get(2), one.train.get(2));
        assert_ne!(one.train.get(0).unwrap().samples(), one.validation.get(0).unwrap().samples());
        assert!(one.notes()[0].contains("no recordings of anybody"));
    }

    #[test]
    fn clips_are_sixteen_bits_below_full_scale_and_sounds_cover_them() {
        for rate in [8000, 16_000] {
            let voices = Voices { rate, ..Voices::default() };
            for index in 0..6 {
                let voice = voices.voice(7, "train", index).unwrap();
                assert_eq!((voice.clip.len(), voice.clip.rate()), (2 * rate as usize, rate));
                let is_level = |x: &f32| (x * 32_768.0).fract() == 0.0;
                assert!(voice.clip.samples().iter().all(is_level) && (voice.clip.peak() - 0.7).abs() < 1e-3);
                let ends = voice.sounds.iter().fold(0, |at, sound| {
                    assert_eq!(sound.start, at);
                    at + sound.length
                });
                assert_eq!(ends, voice.clip.len());
                for sound in voice.sounds.iter().filter(|sound| sound.kind == SoundKind::Silence) {
                    assert!(voice.clip.samples()[sound.start..][..sound.length].iter().all(|&x| x == 0.0));
                }
            }
        }
    }

    /// The autocorrelation of a vowel peaks at the period, and its spectrum is loudest at the first formant's harmonics.
    #[test]
    fn vowels_have_the_pitch_that_is_told() {
        let voices = Voices::default();
        let mut seen = 0;
        for index in 0..8 {
            let voice = voices.voice(3, "train", index).unwrap();
            for sound in voice.sounds.iter().filter(|s| matches!(s.kind, SoundKind::Vowel { .. }) && s.length > 1600) {
                let x = &voice.clip.samples()[sound.start + 200..][..1200];
                let correlation = |lag: usize| x.iter().zip(&x[lag..]).map(|(a, b)| a * b).sum::<f32>();
                let best = (25..120).max_by(|&a, &b| correlation(a).total_cmp(&correlation(b))).unwrap();
                let period = 8000.0 / voice.pitch;
                let ratio = best as f64 / period;
                assert!((ratio - ratio.round()).abs() < 0.08, "lag {best}, period {period:.1}");
                seen += 1;
            }
        }
        assert!(seen > 5, "{seen}");
    }

    #[test]
    fn fricatives_are_noise_around_their_centre() {
        let voices = Voices { rate: 16_000, ..Voices::default() };
        let stft = Stft::new(512, 512, 128, 0).unwrap();
        let mut seen = 0;
        for index in 0..8 {
            let voice = voices.voice(3, "train", index).unwrap();
            for sound in &voice.sounds {
                let SoundKind::Fricative { centre } = sound.kind else { continue };
                if sound.length < 800 {
                    continue;
                }
                let spectrum = stft.forward(&voice.clip.samples()[sound.start..][..sound.length]).unwrap();
                let (mut sum, mut weight) = (0.0, 0.0);
                for frame in spectrum.magnitudes().chunks_exact(spectrum.bins) {
                    for (bin, magnitude) in frame.iter().enumerate() {
                        sum += magnitude * magnitude * bin as f64 * 16_000.0 / 512.0;
                        weight += magnitude * magnitude;
                    }
                }
                assert!((sum / weight - centre).abs() < 1500.0, "{} Hz, not {centre}", sum / weight);
                seen += 1;
            }
        }
        assert!(seen > 5, "{seen}");
    }

    #[test]
    fn impossible_voices_are_refused() {
        let good = Voices::default();
        for (voices, expected) in [
            (Voices { rate: 22_050, ..good.clone() }, "8000 or 16000"),
            (Voices { seconds: f64::NAN, ..good.clone() }, "seconds"),
            (Voices { clips: 0, ..good.clone() }, "clips"),
        ] {
            assert!(voices.splits(0).unwrap_err().to_string().contains(expected));
        }
    }
}
