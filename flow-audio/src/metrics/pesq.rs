//! PESQ, by the crate of that name.

use super::same_length;
use crate::data::resample;
use crate::{Error, Result};

/// The rates that PESQ is defined for.
const NARROW: u32 = 8000;
const WIDE: u32 = 16_000;

/// Which of its two bands a PESQ score is of; the two are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PesqBand {
    /// At 8 kHz (ITU-T P.862, mapped by P.862.1).
    Narrow,
    /// At 16 kHz (P.862.2).
    Wide,
}

impl PesqBand {
    /// The wider band that recordings of a rate have.
    pub fn of(rate: u32) -> Self {
        if rate < WIDE { PesqBand::Narrow } else { PesqBand::Wide }
    }
}

/// PESQ of `other` against `reference` as MOS-LQO, a listener's opinion between 1 and 4.6 as a model of hearing predicts it:
/// wide band from 16 kHz on, narrow band below ([`PesqBand::of`]), other rates than 8 and 16 kHz after resampling, and samples
/// rounded to 16 bits.
///
/// The score is made for what a telephone line does to speech: it looks for the times of both and corrects their levels, and it
/// knows no clip shorter than a quarter of a second. The crate `pesq` that computes it agrees with the ITU's own program to
/// 0.001 on 72 pairs of real speech in both bands (noise, low-pass, clipping, quantization, delay).
///
/// # Errors
/// Waveforms of different lengths, a rate of zero, samples that are not finite, less than a quarter of a second, silence, and a pair in which no speech is found.
pub fn pesq(reference: &[f32], other: &[f32], rate: u32) -> Result<f64> {
    same_length(reference, other)?;
    if reference.iter().chain(other).any(|x| !x.is_finite()) {
        return Err(Error::config("PESQ", "a sample is not a finite number"));
    }
    let band = PesqBand::of(rate);
    let to = if band == PesqBand::Wide { WIDE } else { NARROW };
    let pcm = |samples: &[f32]| -> Result<Vec<i16>> {
        let samples = resample(samples, rate, to)?;
        // From a float to an integer, what is beyond its range is its end.
        Ok(samples.iter().map(|x| (x * 32_768.0).round() as i16).collect())
    };
    let (reference, other) = (pcm(reference)?, pcm(other)?);
    if [&reference, &other].into_iter().any(|samples| samples.iter().all(|&x| x == 0)) {
        return Err(Error::config("PESQ", "one of the waveforms is silent"));
    }
    let score = match band {
        PesqBand::Wide => pesq::pesq_wb(&reference, &other),
        PesqBand::Narrow => pesq::pesq_8k(&reference, &other).map(|raw| pesq::score::mos_lqo(f64::from(raw))),
    };
    match score {
        Ok(score) if score.is_finite() => Ok(f64::from(score)),
        Ok(_) => Err(Error::config("PESQ", "the score is not finite")),
        Err(error) => Err(Error::config("PESQ", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pulses through two resonators, in integers alone, and the same with noise.
    fn voices(rate: i64, [r1, s1]: [i64; 2]) -> [Vec<f32>; 2] {
        let ([r2, s2], mut state) = ([-15_099, -14_787], 1_i64);
        let ([mut a, mut b], [mut c, mut d]) = ([0; 2], [0; 2]);
        let mut made = [Vec::new(), Vec::new()];
        for i in 0..3 * rate {
            let on = (4..14).contains(&(i * 10 / rate)) || (18..28).contains(&(i * 10 / rate));
            let pulse = if on && i % (rate / 125) == 0 { 2400 } else { 0 };
            (a, b) = (pulse + ((r1 * a + r2 * b) >> 14), a);
            (c, d) = (a + ((s1 * c + s2 * d) >> 14), c);
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            made[0].push(c as f32 / 32_768.0);
            made[1].push((c + (state >> 16) % 1024 - 512) as f32 / 32_768.0);
        }
        made
    }

    /// Scores of the ITU's program (as packaged for Python, version 0.0.4).
    #[test]
    fn scores_are_those_of_the_reference_program() {
        for (rate, resonators, wanted) in
            [(8000, [26_822, 4870], [4.5486, 2.3340, 3.8031]), (16_000, [30_276, 23_671], [4.6439, 2.8964, 4.2112])]
        {
            let [clean, noisy] = voices(i64::from(rate), resonators);
            let coarse: Vec<f32> = clean.iter().map(|x| (x * 32.0).floor() / 32.0).collect();
            for (other, wanted) in [&clean, &noisy, &coarse].into_iter().zip(wanted) {
                let score = pesq(&clean, other, rate).unwrap();
                assert!((score - wanted).abs() < 2e-3, "{rate}: {score} {wanted}");
            }
        }
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let [clean, noisy] = voices(8000, [26_822, 4870]);
        assert!(pesq(&clean, &noisy[1..], 8000).is_err());
        assert!(pesq(&clean[4000..5999], &noisy[4000..5999], 8000).unwrap_err().to_string().contains("250 ms"));
        assert!(pesq(&clean, &noisy, 0).is_err());
        let silence = vec![0.0; 16_000];
        assert!(pesq(&silence, &silence, 8000).unwrap_err().to_string().contains("silent"));
        for strange in [f32::NAN, f32::INFINITY] {
            let strange = vec![strange; clean.len()];
            assert!(pesq(&clean, &strange, 8000).unwrap_err().to_string().contains("finite"));
            assert!(resample(&strange, 22_050, 8000).unwrap_err().to_string().contains("sample 0"));
        }
        // What is beyond the range of a file is a score or a refusal.
        let loud = vec![-1e30; clean.len()];
        for rate in [8000, 22_050] {
            let _ = pesq(&clean, &loud, rate).map(|score| assert!(score.is_finite()));
        }
    }
}
