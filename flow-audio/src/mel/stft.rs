//! The short-time Fourier transform and its inverse.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// A complex number of a spectrum.
pub use realfft::num_complex::Complex;

use crate::{Error, Result};

/// Below this sum of squared windows a sample was under no window.
const UNSEEN: f64 = 1e-9;

/// The short-time Fourier transform of frames of `N` samples, `hop` apart, under a periodic Hann window.
///
/// `X[f, k] = Σ_n w[n] · x[f·hop + n] · exp(−2πi·kn/N)` of the signal with `padding` reflected samples at both ends; a
/// window shorter than `N` stands in the middle of the frame. All of it is in double precision.
#[derive(Clone)]
pub struct Stft {
    fft: usize,
    hop: usize,
    padding: usize,
    window: Vec<f64>,
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
}

impl std::fmt::Debug for Stft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stft { fft, hop, padding, .. } = self;
        write!(f, "Stft {{ fft: {fft}, hop: {hop}, padding: {padding} }}")
    }
}

/// What a transform gives.
///
/// # Shapes
/// - values `[frames, bins]`, frame after frame; `bins = N/2 + 1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// Number of frames.
    pub frames: usize,
    /// Number of bins of a frame.
    pub bins: usize,
    /// The values.
    pub values: Vec<Complex<f64>>,
}

impl Spectrum {
    /// `|X|`, of the same shape.
    pub fn magnitudes(&self) -> Vec<f64> {
        self.values.iter().map(|value| value.norm()).collect()
    }
}

impl Stft {
    /// A transform of `fft` samples with the Hann window over the middle `window` of them.
    ///
    /// # Errors
    /// Sizes of zero, a window longer than the transform, or a hop longer than the window.
    pub fn new(fft: usize, window: usize, hop: usize, padding: usize) -> Result<Self> {
        if !(2..=1 << 24).contains(&fft) || !(1..=fft).contains(&window) || !(1..=window).contains(&hop) {
            let reason = format!("needs 1 <= hop <= window <= fft and fft >= 2, got {hop}, {window} and {fft}");
            return Err(Error::config("short-time Fourier transform", reason));
        }
        let mut planner = RealFftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(fft), planner.plan_fft_inverse(fft));
        Ok(Stft { fft, hop, padding, window: hann(window, fft), forward, inverse })
    }

    /// A transform whose frames are centred on multiples of the hop: half a transform is padded.
    ///
    /// # Errors
    /// Those of [`Stft::new`].
    pub fn centred(fft: usize, window: usize, hop: usize) -> Result<Self> {
        Stft::new(fft, window, hop, fft / 2)
    }

    /// Bins of a frame, `N/2 + 1`.
    pub fn bins(&self) -> usize {
        self.fft / 2 + 1
    }

    /// Frames of a signal of so many samples.
    pub fn frames(&self, samples: usize) -> usize {
        (samples + 2 * self.padding).checked_sub(self.fft).map_or(0, |room| room / self.hop + 1)
    }

    /// `[samples]` to `[frames, bins]`.
    ///
    /// # Errors
    /// A signal too short to be reflected or shorter than one frame.
    pub fn forward(&self, samples: &[f32]) -> Result<Spectrum> {
        let padded = mirrored(samples, self.padding, self.padding)?;
        let frames = self.map_frames(&padded, <[Complex<f64>]>::to_vec)?;
        Ok(Spectrum { frames: frames.len(), bins: self.bins(), values: frames.concat() })
    }

    /// What `of` makes of the spectrum of every frame of a signal that is padded already.
    pub(super) fn map_frames<T: Send>(
        &self,
        padded: &[f64],
        of: impl Fn(&[Complex<f64>]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let Some(room) = padded.len().checked_sub(self.fft) else {
            let reason =
                format!("{} samples, padding included, are fewer than one frame of {}", padded.len(), self.fft);
            return Err(Error::config("clip", reason));
        };
        let scratch =
            || (self.forward.make_input_vec(), self.forward.make_output_vec(), self.forward.make_scratch_vec());
        let frame = |(input, output, scratch): &mut (Vec<f64>, Vec<Complex<f64>>, Vec<Complex<f64>>), index: usize| {
            let values = padded.iter().skip(index * self.hop);
            input.iter_mut().zip(values).zip(&self.window).for_each(|((to, x), w)| *to = x * w);
            self.forward.process_with_scratch(input, output, scratch).map_err(failed)?;
            Ok(of(output))
        };
        (0..room / self.hop + 1).into_par_iter().map_init(scratch, frame).collect()
    }

    /// `[frames, bins]` to `[length]` samples: the least-squares inverse, overlap-add of the windowed frames over the sum
    /// of the squared windows (Griffin and Lim 1984, equation 6). What lies under no window is zero.
    ///
    /// # Errors
    /// Another number of bins than the transform has, or no frame.
    pub fn inverse(&self, spectrum: &Spectrum, length: usize) -> Result<Vec<f32>> {
        let Spectrum { frames, bins, values } = spectrum;
        if *bins != self.bins() || *frames == 0 || values.len() != frames * bins {
            let reason = format!("expected frames of {} bins, got {frames} of {bins}", self.bins());
            return Err(Error::config("inverse short-time Fourier transform", reason));
        }
        let scratch = || (self.inverse.make_input_vec(), self.inverse.make_scratch_vec());
        let frame = |(input, scratch): &mut (Vec<Complex<f64>>, Vec<Complex<f64>>), values: &[Complex<f64>]| {
            input.copy_from_slice(values);
            // The first bin of a real signal is real, and so is the last one of an even number.
            let last = if self.fft.is_multiple_of(2) { input.len().saturating_sub(1) } else { 0 };
            [0, last].iter().filter_map(|&bin| input.get_mut(bin).map(|value| value.im = 0.0)).for_each(drop);
            let mut output = vec![0.0; self.fft];
            self.inverse.process_with_scratch(input, &mut output, scratch).map_err(failed)?;
            Ok(output)
        };
        let pieces: Vec<Vec<f64>> = values.par_chunks(*bins).map_init(scratch, frame).collect::<Result<_>>()?;
        let total = (frames - 1) * self.hop + self.fft;
        let (mut sum, mut weight) = (vec![0.0; total], vec![0.0; total]);
        for (index, piece) in pieces.iter().enumerate() {
            let places = sum.iter_mut().zip(&mut weight).skip(index * self.hop);
            for ((sum, weight), (value, window)) in places.zip(piece.iter().zip(&self.window)) {
                *sum += value * window / self.fft as f64;
                *weight += window * window;
            }
        }
        let sample = |(sum, weight): (&f64, &f64)| if *weight > UNSEEN { (sum / weight) as f32 } else { 0.0 };
        let mut samples: Vec<f32> = sum.iter().zip(&weight).skip(self.padding).take(length).map(sample).collect();
        samples.resize(length, 0.0);
        Ok(samples)
    }
}

fn failed(error: realfft::FftError) -> Error {
    Error::config("Fourier transform", error.to_string())
}

/// `½ − ½ cos(2πn/window)`, `n` from 0 to `window − 1`, in the middle of `fft` samples.
fn hann(window: usize, fft: usize) -> Vec<f64> {
    let mut all = vec![0.0; fft];
    let angle = 2.0 * std::f64::consts::PI / window as f64;
    let places = all.iter_mut().skip((fft - window) / 2).take(window);
    places.enumerate().for_each(|(n, place)| *place = 0.5 - 0.5 * (angle * n as f64).cos());
    all
}

/// The samples with reflected ones at both ends, the outermost sample not repeated.
///
/// # Errors
/// A clip that has not more samples than are reflected.
pub(super) fn mirrored(samples: &[f32], left: usize, right: usize) -> Result<Vec<f64>> {
    let most = left.max(right);
    if samples.len() <= most {
        let reason = format!(
            "of {} samples is too short: its ends are padded with {most} reflected samples, so it needs {} or more",
            samples.len(),
            most + 1
        );
        return Err(Error::config("clip", reason));
    }
    let before = samples.iter().take(left + 1).skip(1).rev();
    let after = samples.iter().rev().skip(1).take(right);
    Ok(before.chain(samples).chain(after).map(|&x| f64::from(x)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<f32> {
        let mut rng = flow_core::FlowRng::seed_from(1);
        (0..count).map(|_| rng.next_normal() as f32 * 0.1).collect()
    }

    #[test]
    fn reflection_does_not_repeat_the_outermost_sample() {
        let x = [1.0f32, 2.0, 3.0, 4.0];
        assert_eq!(mirrored(&x, 2, 3).unwrap(), [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]);
        let error = mirrored(&x, 4, 0).unwrap_err().to_string();
        assert!(error.contains("of 4 samples is too short") && error.contains("needs 5"), "{error}");
    }

    #[test]
    fn bins_are_the_sums_of_the_definition() {
        for fft in [16, 15] {
            let stft = Stft::new(fft, 12, 5, 4).unwrap();
            let x = noise(40);
            let spectrum = stft.forward(&x).unwrap();
            assert_eq!((spectrum.frames, spectrum.bins), (stft.frames(40), fft / 2 + 1));
            let padded = mirrored(&x, 4, 4).unwrap();
            for (frame, bin) in [(0, 0), (1, 3), (spectrum.frames - 1, fft / 2)] {
                let term = |n: usize| {
                    let angle = -2.0 * std::f64::consts::PI * (bin * n) as f64 / fft as f64;
                    Complex::from_polar(stft.window[n] * padded[frame * 5 + n], angle)
                };
                let wanted: Complex<f64> = (0..fft).map(term).sum();
                assert!((spectrum.values[frame * spectrum.bins + bin] - wanted).norm() < 1e-12);
            }
        }
    }

    /// Parseval: the energy of the bins is that of the windowed samples, each of which is under `Σ w²`.
    #[test]
    fn energy_is_kept() {
        let stft = Stft::new(256, 256, 64, 0).unwrap();
        let x = noise(256 + 64 * 20);
        let spectrum = stft.forward(&x).unwrap();
        for frame in 0..spectrum.frames {
            let windowed: f64 = (0..256).map(|n| (f64::from(x[frame * 64 + n]) * stft.window[n]).powi(2)).sum();
            let bins = &spectrum.values[frame * 129..(frame + 1) * 129];
            let twice = |(bin, value): (usize, &Complex<f64>)| if matches!(bin, 0 | 128) { 1.0 } else { 2.0 } * value.norm_sqr();
            let energy = bins.iter().enumerate().map(twice).sum::<f64>() / 256.0;
            assert!((energy - windowed).abs() < 1e-12 * windowed.max(1.0));
        }
        // Four Hann windows a quarter apart: their squares sum to 1.5 everywhere.
        let sum: Vec<f64> = (0..64).map(|n| (0..4).map(|k| stft.window[n + 64 * k].powi(2)).sum()).collect();
        assert!(sum.iter().all(|s| (s - 1.5).abs() < 1e-12));
    }

    #[test]
    fn the_inverse_gives_the_signal_back() {
        for (fft, window, hop, padding, count) in [
            (64, 64, 16, 32, 300),
            (64, 48, 16, 32, 301),
            (64, 64, 16, 24, 320),
            (63, 60, 20, 31, 299),
            (64, 64, 16, 32, 64),
        ] {
            let stft = Stft::new(fft, window, hop, padding).unwrap();
            let x = noise(count);
            let again = stft.inverse(&stft.forward(&x).unwrap(), count).unwrap();
            // The last samples may lie beyond the last whole frame.
            let seen = ((stft.frames(count) - 1) * hop + fft - padding - (fft - window)).min(count);
            let worst = x.iter().zip(&again).take(seen - 2).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{fft} {window} {hop} {padding}: {worst}");
            assert_eq!(again.len(), count);
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (fft, window, hop) in [(0, 0, 0), (64, 65, 16), (64, 32, 33), (64, 64, 0), (usize::MAX, 64, 16)] {
            assert!(Stft::new(fft, window, hop, 0).is_err(), "{fft} {window} {hop}");
        }
        let stft = Stft::new(64, 64, 16, 0).unwrap();
        assert!(stft.forward(&noise(63)).unwrap_err().to_string().contains("fewer than one frame"));
        let other = Spectrum { frames: 1, bins: 3, values: vec![Complex::new(0.0, 0.0); 3] };
        assert!(stft.inverse(&other, 10).is_err());
    }
}
