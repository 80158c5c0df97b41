//! Another sampling rate.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use crate::{Error, Result};

/// Samples of a chunk that is transformed at once, or a few more. The filter is as long, and as steep: there is no hurry
/// here.
const CHUNK: usize = 4096;

/// A waveform of one channel at another rate: band-limited, by transforms of overlapping chunks with a windowed sinc (the
/// synchronous resampler of rubato), without delay; `⌈length · to / from⌉` samples.
///
/// # Errors
/// A rate of zero or beyond a million, and samples that are not finite.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Result<Vec<f32>> {
    if !(1..=1_000_000).contains(&from) || !(1..=1_000_000).contains(&to) {
        return Err(Error::config("rate", format!("must be 1 to 1000000 Hz, got {from} and {to}")));
    }
    if from == to || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let failed = |error: String| Error::config("resampling", error);
    if let Some(place) = samples.iter().position(|x| !x.is_finite()) {
        return Err(failed(format!("sample {place} is {}, not a finite number", samples[place])));
    }
    let (window, fixed) = (WindowFunction::BlackmanHarris2, FixedSync::Both);
    // Its delay is half a chunk, which it rounds down: a chunk of an odd length would come out half a sample late.
    let (from, to) = (from as usize, to as usize);
    let even = 2 * from / greatest_divisor(from, to);
    let mut resampler = Fft::<f64>::new_custom(from, to, CHUNK.next_multiple_of(even), 1, 1, window, fixed)
        .map_err(|error| failed(error.to_string()))?;
    let input: Vec<f64> = samples.iter().map(|&x| f64::from(x)).collect();
    let input = InterleavedSlice::new(&input, 1, samples.len()).map_err(|error| failed(error.to_string()))?;
    let output = resampler.process_all(&input, samples.len(), None).map_err(|error| failed(error.to_string()))?;
    Ok(output.take_data().into_iter().map(|x| x as f32).collect())
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: u32, count: usize) -> Vec<f32> {
        (0..count)
            .map(|n| (0.5 * (2.0 * std::f64::consts::PI * hz * n as f64 / f64::from(rate)).sin()) as f32)
            .collect()
    }

    #[test]
    fn a_tone_stays_that_tone_in_time_and_pitch() {
        for (from, to) in [(44_100, 22_050), (48_000, 22_050), (8000, 22_050), (22_050, 16_000), (16_000, 8000)] {
            let count = from as usize;
            let made = resample(&sine(440.0, from, count), from, to).unwrap();
            assert_eq!(made.len(), (count as u64 * u64::from(to)).div_ceil(u64::from(from)) as usize);
            let wanted = sine(440.0, to, made.len());
            // The tone begins and ends all at once, which no band-limited signal does.
            let edge = made.len() * 3 / 8;
            let worst = (edge..made.len() - edge).map(|n| (made[n] - wanted[n]).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        let made = resample(&sine(7000.0, 22_050, 22_050), 22_050, 8000).unwrap();
        let loudest = made[3000..made.len() - 3000].iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        assert!(loudest < 1e-5, "{loudest}");
    }

    #[test]
    fn impossible_rates_are_refused_and_equal_ones_change_nothing() {
        assert!(resample(&[0.0], 0, 8000).is_err() && resample(&[0.0], 8000, 0).is_err());
        assert_eq!(resample(&[0.25; 9], 8000, 8000).unwrap(), [0.25; 9]);
        assert_eq!(resample(&[0.25], 8000, 16_000).unwrap().len(), 2);
    }
}
