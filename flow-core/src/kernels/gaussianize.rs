//! Histograms as maps to normal numbers, value and log-derivative in one pass, and the gradients of both.
//!
//! Everything is computed in f64 whatever the element type: the sum of many masses has fewer digits in f32 than the
//! logarithm of a rare one needs. Probabilities are summed from the nearer end, so that both tails keep their digits.

use candle_core::Shape;
use rayon::prelude::*;

use super::{Fused, Real};
use crate::numerics::normal;

/// The share of the whole probability that is dealt out evenly, so that no value is impossible.
const EVEN: f64 = 1e-3;

/// Probabilities nearer to an end than this are taken for it: an f32 in `[0, 1]` is not known better.
const END: f64 = 1e-12;
/// `-Φ⁻¹(END)`. Beyond it the density of `y` falls like `e^-LAST |y|`, so that logarithms stay in proportion to `y`.
const LAST: f64 = 7.034_483_825_301_133;

/// `ln φ(y)`, with those tails.
fn log_normal(y: f64) -> f64 {
    let inner = y.clamp(-LAST, LAST);
    normal::log_density(inner) - LAST * (y.abs() - inner.abs())
}

/// Value and log-derivative, `(2, B, C, …)`, of `x`, `(B, C, …)`, with logits of bins, `(C, bins)`.
pub(crate) struct Gaussianize {
    /// The shape of `x`.
    pub(crate) shape: Shape,
    pub(crate) channels: usize,
    pub(crate) bins: usize,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// From `y` to `x` instead.
    pub(crate) inverse: bool,
}

/// One channel's histogram.
struct Histogram {
    /// `softmax` of the logits.
    shares: Vec<f64>,
    mass: Vec<f64>,
    /// The mass of the bins before each one, and of those behind it.
    before: Vec<f64>,
    behind: Vec<f64>,
}

/// An element's place: its bin, how far into it, and the normal number.
struct Place {
    bin: usize,
    part: f64,
    y: f64,
    /// Whether its probability was summed from the lower end.
    lower: bool,
    /// Whether it was taken for an end.
    at_end: bool,
}

/// What an objective gains by the masses of a channel.
#[derive(Clone)]
struct Pull {
    /// By the probability below elements of each bin, summed from the lower and from the upper end.
    lower: Vec<f64>,
    upper: Vec<f64>,
    /// By the mass of the bin itself.
    own: Vec<f64>,
}

impl Histogram {
    fn new<T: Real>(logits: &[T]) -> Self {
        let logits: Vec<f64> = logits.iter().map(|l| l.to_f64()).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut shares: Vec<f64> = logits.iter().map(|l| (l - most).exp()).collect();
        let total: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|s| *s /= total);
        let even = EVEN / shares.len() as f64;
        let mass: Vec<f64> = shares.iter().map(|s| even + (1.0 - EVEN) * s).collect();
        let sums = |order: &mut dyn Iterator<Item = usize>| {
            let (mut sums, mut sum) = (vec![0.0; mass.len()], 0.0);
            for bin in order {
                sums[bin] = sum;
                sum += mass[bin];
            }
            sums
        };
        let (before, behind) = (sums(&mut (0..mass.len())), sums(&mut (0..mass.len()).rev()));
        Histogram { shares, mass, before, behind }
    }

    fn encode(&self, unit: f64) -> Place {
        let at = unit.clamp(0.0, 1.0) * self.mass.len() as f64;
        let bin = (at as usize).min(self.mass.len() - 1);
        let part = at - bin as f64;
        let below = self.before[bin] + part * self.mass[bin];
        let above = self.behind[bin] + (1.0 - part) * self.mass[bin];
        let lower = below <= above;
        let tail = below.min(above);
        let y = normal::quantile(tail.max(END));
        Place { bin, part, y: if lower { y } else { -y }, lower, at_end: tail < END }
    }

    fn decode(&self, y: f64) -> Place {
        let lower = y <= 0.0;
        let tail = if y.abs() < LAST { normal::cdf(-y.abs()) } else { END * (LAST * (LAST - y.abs())).exp() };
        let (bin, part) = if lower {
            let bin = self.before.partition_point(|&p| p <= tail).saturating_sub(1);
            (bin, (tail - self.before[bin]) / self.mass[bin])
        } else {
            // The masses behind fall from bin to bin; those that are still above the tail's lie to the left.
            let bin = self.behind.partition_point(|&p| p > tail).min(self.mass.len() - 1);
            (bin, 1.0 - (tail - self.behind[bin]) / self.mass[bin])
        };
        Place { bin, part: part.clamp(0.0, 1.0), y, lower, at_end: false }
    }

    /// The gradient of the logits.
    fn pull_back(&self, pull: &Pull) -> Vec<f64> {
        let mut grad = pull.own.clone();
        let mut sum = 0.0;
        for (grad, below) in grad.iter_mut().zip(&pull.lower).rev() {
            *grad += sum;
            sum += below;
        }
        sum = 0.0;
        for (grad, above) in grad.iter_mut().zip(&pull.upper) {
            *grad -= sum;
            sum += above;
        }
        let mean: f64 = grad.iter().zip(&self.shares).map(|(g, s)| g * s).sum();
        grad.iter().zip(&self.shares).map(|(g, s)| (1.0 - EVEN) * s * (g - mean)).collect()
    }
}

impl Pull {
    fn new(bins: usize) -> Self {
        Pull { lower: vec![0.0; bins], upper: vec![0.0; bins], own: vec![0.0; bins] }
    }

    /// `below` is the gain by the probability below the element, `mass` that by its bin's mass.
    fn add(&mut self, place: &Place, below: f64, mass: f64) {
        let Place { bin, part, .. } = *place;
        if place.lower {
            self.lower[bin] += below;
            self.own[bin] += below * part + mass;
        } else {
            self.upper[bin] += below;
            self.own[bin] += mass - below * (1.0 - part);
        }
    }

    fn merge(&mut self, other: &Pull) {
        for (mine, theirs) in
            [(&mut self.lower, &other.lower), (&mut self.upper, &other.upper), (&mut self.own, &other.own)]
        {
            mine.iter_mut().zip(theirs).for_each(|(m, t)| *m += t);
        }
    }
}

impl Gaussianize {
    fn histograms<T: Real>(&self, logits: &[T]) -> Vec<Histogram> {
        logits.chunks_exact(self.bins).map(Histogram::new).collect()
    }

    /// Entries of one channel of one row.
    fn run(&self, count: usize) -> usize {
        let rows = self.shape.dims().first().copied().unwrap_or(0);
        (count / (rows * self.channels).max(1)).max(1)
    }

    /// `ln ρ`, the logarithm of the density in a bin.
    fn log_density(&self, histogram: &Histogram, bin: usize) -> f64 {
        (histogram.mass[bin] * self.bins as f64 / (self.high - self.low)).ln()
    }

    fn place(&self, histogram: &Histogram, input: f64) -> Place {
        if self.inverse {
            histogram.decode(input)
        } else {
            histogram.encode((input - self.low) / (self.high - self.low))
        }
    }

    /// An element's value and log-derivative.
    fn value(&self, histogram: &Histogram, input: f64) -> (f64, f64) {
        let place = self.place(histogram, input);
        let log = self.log_density(histogram, place.bin) - log_normal(place.y);
        if !self.inverse {
            return (place.y, log);
        }
        let unit = (place.bin as f64 + place.part) / self.bins as f64;
        (self.low + unit * (self.high - self.low), -log)
    }

    /// The gradient of an element, with what the masses gain added to `pull`.
    fn gradient(&self, histogram: &Histogram, input: f64, by_value: f64, by_log: f64, pull: &mut Pull) -> f64 {
        let place = self.place(histogram, input);
        let (mass, density) = (histogram.mass[place.bin], self.log_density(histogram, place.bin).exp());
        let normal = log_normal(place.y).exp();
        if self.inverse {
            pull.add(&place, -by_value / density, -by_log / mass);
            return by_value * normal / density - by_log * place.y.clamp(-LAST, LAST);
        }
        // At an end the value does not move.
        let below = if place.at_end { 0.0 } else { (by_value + by_log * place.y) / normal };
        pull.add(&place, below, by_log / mass);
        below * density
    }
}

impl Fused<2> for Gaussianize {
    fn name(&self) -> &'static str {
        "gaussianize"
    }

    fn shape(&self) -> Shape {
        let dims: Vec<usize> = std::iter::once(2).chain(self.shape.dims().iter().copied()).collect();
        dims.into()
    }

    fn forward<T: Real>(&self, [x, logits]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (histograms, run) = (self.histograms(logits), self.run(x.len()));
        let mut out = vec![T::from_f64(0.0); 2 * x.len()];
        let (values, logs) = out.split_at_mut(x.len());
        let parts = values.par_chunks_mut(run).zip(logs.par_chunks_mut(run)).zip(x.par_chunks(run)).enumerate();
        parts.for_each(|(i, ((values, logs), x))| {
            let histogram = &histograms[i % self.channels];
            for ((value, log), x) in values.iter_mut().zip(logs).zip(x) {
                let (v, l) = self.value(histogram, x.to_f64());
                (*value, *log) = (T::from_f64(v), T::from_f64(l));
            }
        });
        Ok(out)
    }

    fn backward<T: Real>(&self, [x, logits]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (histograms, run) = (self.histograms(logits), self.run(x.len()));
        let (by_value, by_log) = grad.split_at(x.len());
        let mut grad_x = vec![T::from_f64(0.0); x.len()];
        let parts =
            grad_x.par_chunks_mut(run).zip(x.par_chunks(run)).zip(by_value.par_chunks(run)).zip(by_log.par_chunks(run));
        let pulls: Vec<Pull> = parts
            .enumerate()
            .map(|(i, (((out, x), by_value), by_log))| {
                let (histogram, mut pull) = (&histograms[i % self.channels], Pull::new(self.bins));
                for (((out, x), v), l) in out.iter_mut().zip(x).zip(by_value).zip(by_log) {
                    *out = T::from_f64(self.gradient(histogram, x.to_f64(), v.to_f64(), l.to_f64(), &mut pull));
                }
                pull
            })
            .collect();
        let mut totals = vec![Pull::new(self.bins); self.channels];
        for (i, pull) in pulls.iter().enumerate() {
            totals[i % self.channels].merge(pull);
        }
        let grad_logits = histograms.iter().zip(&totals).flat_map(|(h, pull)| h.pull_back(pull)).map(T::from_f64);
        Ok([Some(grad_x), Some(grad_logits.collect())])
    }
}
