//! The lattice filter: prediction of a sample from those before it, its inverse and its transpose.

use std::collections::VecDeque;

use super::spectrum::Predictors;

/// Predictors over time: those of two frames around a sample, mixed by how near they are.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    pub order: usize,
    pub hop: usize,
    /// Sample about which the first frame lies.
    pub centre: usize,
    frames: VecDeque<Predictors>,
    /// Frames that were dropped because no later sample needs them.
    dropped: usize,
}

impl Frames {
    pub fn new(order: usize, hop: usize, centre: usize) -> Self {
        Frames { order, hop, centre, frames: VecDeque::new(), dropped: 0 }
    }

    pub fn push(&mut self, frame: Predictors) {
        self.frames.push_back(frame);
    }

    /// Samples whose predictors no further frame changes.
    pub fn known(&self) -> usize {
        let count = self.dropped + self.frames.len();
        count.checked_sub(1).map_or(0, |last| last * self.hop + self.centre + 1)
    }

    /// Drops the frames that samples from `sample` on do not need.
    pub fn forget_before(&mut self, sample: usize) {
        let first = sample.saturating_sub(self.centre) / self.hop;
        while self.dropped < first && self.frames.len() > 1 {
            self.frames.pop_front();
            self.dropped += 1;
        }
    }

    /// The coefficients of the stages that sample `n` of a clip has, the first `n` at most, and the logarithm of the
    /// samples' deviation. Before the first frame and behind the last their own hold.
    fn at(&self, n: usize, reflections: &mut Vec<f64>) -> f64 {
        let (a, b, share) = self.around(n);
        let mix = |a: f64, b: f64| a + share * (b - a);
        reflections.clear();
        let pairs = a.reflections.iter().zip(&b.reflections).take(n.min(self.order));
        reflections.extend(pairs.map(|(&a, &b)| mix(a, b)));
        mix(a.log_level, b.log_level)
    }

    /// The logarithms of the deviations `σ(n)` of the errors of a clip's first samples: `ln σ_0 + ½ Σ ln(1 − k_i²)`.
    pub fn log_scales(&self, samples: usize) -> Vec<f64> {
        let mut reflections = Vec::with_capacity(self.order);
        let one = |n: usize| self.at(n, &mut reflections) + 0.5 * log_of_product(&reflections);
        (0..samples).map(one).collect()
    }

    /// The predictors before and behind a sample, and the share of the latter. There is a frame: batches without one are refused, and a
    /// stream has no errors to restore before its first.
    fn around(&self, n: usize) -> (&Predictors, &Predictors, f64) {
        let place = n.saturating_sub(self.centre) as f64 / self.hop as f64 - self.dropped as f64;
        let last = self.frames.len().saturating_sub(1);
        let before = (place as usize).min(last);
        let share = (place - before as f64).clamp(0.0, 1.0);
        (&self.frames[before], &self.frames[(before + 1).min(last)], share)
    }
}

/// `Σ ln(1 − k²)`, with a logarithm only where the product would become too small.
fn log_of_product(reflections: &[f64]) -> f64 {
    let (mut sum, mut product) = (0.0, 1.0);
    for k in reflections {
        product *= 1.0 - k * k;
        if product < 1e-250 {
            sum += product.ln();
            product = 1.0;
        }
    }
    sum + product.ln()
}

/// The filter with its memory: the scaled errors of predicting backwards, order by order.
///
/// With `f_0 = b_0 = x_n / σ_0` and `c_i = √(1 − k_i²)`, stage `i` has `f_i = (f_{i-1} + k_i b'_{i-1}) / c_i` and
/// `b_i = (b'_{i-1} + k_i f_{i-1}) / c_i`, where `b'` are those of the sample before (the normalized lattice of Markel and Gray 1975).
/// Backwards each stage is a rotation, `f_{i-1} = c_i f_i − k_i b'_{i-1}` and `b_i = k_i f_i + c_i b'_{i-1}`: what is made of errors of
/// variance one has the deviation `σ_0` of its frame at every sample, however the coefficients move.
/// A clip's first samples have as many stages as there are samples before them, so that the error is
/// that of the best predictor from all that is there.
#[derive(Debug, Clone)]
pub(super) struct Lattice {
    backward: Vec<f64>,
    reflections: Vec<f64>,
    sample: usize,
}

impl Lattice {
    pub fn new(order: usize) -> Self {
        Lattice { backward: vec![0.0; order + 1], reflections: Vec::with_capacity(order), sample: 0 }
    }

    /// The sample that comes next.
    pub fn sample(&self) -> usize {
        self.sample
    }

    /// The scaled error of the next sample.
    pub fn analyse(&mut self, frames: &Frames, x: f64) -> f64 {
        let log_level = frames.at(self.sample, &mut self.reflections);
        self.sample += 1;
        let mut f = x * (-log_level).exp();
        let mut before = std::mem::replace(&mut self.backward[0], f);
        for (k, place) in self.reflections.iter().zip(&mut self.backward[1..]) {
            let widen = (1.0 - k * k).sqrt().recip();
            let next = std::mem::replace(place, (before + k * f) * widen);
            f = (f + k * before) * widen;
            before = next;
        }
        f
    }

    /// The next sample, from its scaled error.
    pub fn synthesise(&mut self, frames: &Frames, error: f64) -> f64 {
        let log_level = frames.at(self.sample, &mut self.reflections);
        self.sample += 1;
        let mut f = error;
        for (i, k) in self.reflections.iter().enumerate().rev() {
            let (narrow, before) = ((1.0 - k * k).sqrt(), self.backward[i]);
            self.backward[i + 1] = k * f + narrow * before;
            f = narrow * f - k * before;
        }
        self.backward[0] = f;
        f * log_level.exp()
    }
}

/// The transpose of the matrix that takes a clip to its scaled errors, applied to `gradient` in place.
pub(super) fn transpose(frames: &Frames, gradient: &mut [f64]) {
    let mut backward = vec![0.0; frames.order + 1];
    let mut reflections = Vec::with_capacity(frames.order);
    for (n, gradient) in gradient.iter_mut().enumerate().rev() {
        let log_level = frames.at(n, &mut reflections);
        let mut f = *gradient;
        let mut above = std::mem::take(&mut backward[reflections.len()]);
        for (i, k) in reflections.iter().enumerate().rev() {
            let widen = (1.0 - k * k).sqrt().recip();
            let here = std::mem::replace(&mut backward[i], (k * f + above) * widen);
            f = (f + k * above) * widen;
            above = here;
        }
        *gradient = (f + above) * (-log_level).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::super::spectrum::Spectrum;
    use super::*;
    use crate::mel::MelConfig;
    use flow_core::FlowRng;

    fn frames(order: usize, count: usize) -> Frames {
        let config = MelConfig { fft: 64, window: 64, hop: 10, mels: 6, ..MelConfig::speech_8k() };
        let spectrum = Spectrum::new(order, &config);
        let mut frames = Frames::new(order, 10, 5);
        let mut rng = FlowRng::seed_from(2);
        for _ in 0..count {
            let frame: Vec<f64> = (0..6).map(|_| 2.0 * rng.next_normal() - 5.0).collect();
            frames.push(spectrum.predictors(&frame, &[]).unwrap());
        }
        frames
    }

    #[test]
    fn synthesis_undoes_analysis_and_the_transpose_is_one() {
        for order in [1, 7, 32] {
            let frames = frames(order, 7);
            let mut rng = FlowRng::seed_from(1);
            let x: Vec<f64> = (0..83).map(|_| rng.next_normal()).collect();
            let (mut there, mut back) = (Lattice::new(order), Lattice::new(order));
            let errors: Vec<f64> = x.iter().map(|&x| there.analyse(&frames, x)).collect();
            let again: Vec<f64> = errors.iter().map(|&error| back.synthesise(&frames, error)).collect();
            assert!(x.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-9), "{order}");
            let weights: Vec<f64> = (0..83).map(|_| rng.next_normal()).collect();
            let mut pulled = weights.clone();
            transpose(&frames, &mut pulled);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let (left, right) = (dot(&weights, &errors), dot(&pulled, &x));
            assert!((left - right).abs() < 1e-9 * left.abs().max(1.0), "{order}: {left} {right}");
        }
    }

    /// Of a stationary process the errors and their scales are those of Cholesky's factor of its covariance, from the
    /// first sample on.
    #[test]
    fn a_stationary_clip_has_the_likelihood_of_its_gaussian_process() {
        let (order, count) = (30, 24);
        let one = frames(order, 1);
        let mut lattice = Lattice::new(order);
        let mut rng = FlowRng::seed_from(6);
        let x: Vec<f64> = (0..count).map(|_| rng.next_normal()).collect();
        let got: Vec<f64> = x.iter().map(|&x| lattice.analyse(&one, x)).collect();
        // The covariance of the process is (LᵀL)⁻¹ for the matrix L of errors; here it is built from impulses.
        let mut inverse = vec![vec![0.0; count]; count];
        for (column, row) in inverse.iter_mut().enumerate() {
            let mut lattice = Lattice::new(order);
            for (n, entry) in row.iter_mut().enumerate() {
                *entry = lattice.analyse(&one, f64::from(n == column));
            }
        }
        // Toeplitz: synthesised impulses give the covariance, which depends on the distance alone.
        let mut columns = vec![vec![0.0; count]; count];
        for (column, row) in columns.iter_mut().enumerate() {
            let mut lattice = Lattice::new(order);
            for (n, entry) in row.iter_mut().enumerate() {
                *entry = lattice.synthesise(&one, f64::from(n == column));
            }
        }
        let covariance = |i: usize, j: usize| columns.iter().map(|column| column[i] * column[j]).sum::<f64>();
        for i in 0..count {
            for j in 0..count {
                let (here, first) = (covariance(i, j), covariance(0, i.abs_diff(j)));
                assert!((here - first).abs() < 1e-9 * covariance(0, 0), "{i} {j}: {here} {first}");
            }
        }
        for (n, (error, log_scale)) in got.iter().zip(one.log_scales(count)).enumerate() {
            let want: f64 = (0..count).map(|column| inverse[column][n] * x[column]).sum();
            assert!((error - want).abs() < 1e-9);
            assert!((inverse[n][n].ln() + log_scale).abs() < 1e-9, "the diagonal is the derivative");
        }
    }

    /// Loud, silent and loud again: the level follows at once, and nothing rings on.
    #[test]
    fn noise_has_the_level_of_its_frame_however_frames_change() {
        let config = MelConfig { fft: 64, window: 64, hop: 10, mels: 6, ..MelConfig::speech_8k() };
        let spectrum = Spectrum::new(32, &config);
        let mut frames = Frames::new(32, 10, 0);
        let (loud, silent) = ([-1.0, 0.0, -9.0, -9.0, -9.0, -9.0], [-9.0, -9.0, -9.0, -8.0, -11.0, -11.0]);
        for i in 0..60 {
            frames.push(spectrum.predictors(if i / 10 % 2 == 0 { &loud } else { &silent }, &[]).unwrap());
        }
        let mut rng = FlowRng::seed_from(3);
        let (mut power, clips) = (vec![0.0; 600], 300);
        for _ in 0..clips {
            let mut lattice = Lattice::new(32);
            power
                .iter_mut()
                .for_each(|p| *p += lattice.synthesise(&frames, rng.next_normal()).powi(2) / f64::from(clips));
        }
        for (n, power) in power.iter().enumerate() {
            let off = 0.5 * power.ln() - frames.at(n, &mut Vec::new());
            assert!(off.abs() < 0.2, "{n}: {off}");
        }
    }

    #[test]
    fn frames_are_mixed_held_and_forgotten() {
        let mut frames = frames(4, 3);
        assert_eq!(frames.known(), 26);
        let at = |frames: &Frames, n| {
            let mut reflections = Vec::new();
            (frames.at(n, &mut reflections), reflections)
        };
        let (start, middle) = (at(&frames, 5), at(&frames, 10));
        assert_eq!(start.1[0], frames.frames[0].reflections[0]);
        let half = 0.5 * (frames.frames[0].log_level + frames.frames[1].log_level);
        assert!((middle.0 - half).abs() < 1e-12);
        assert_eq!(at(&frames, 25), at(&frames, 99));
        let later = at(&frames, 19);
        frames.forget_before(18);
        assert_eq!(frames.dropped, 1);
        assert_eq!(at(&frames, 19), later);
    }
}
