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

/// Value and log-derivative, `(2, B, C, …)`, of `x`, `(B, C, …)`, with the logits of histograms, a row of bins each; where there
/// are guesses, a row ends with the logit of what the guess adds.
pub(crate) struct Gaussianize {
    /// The shape of `x`.
    pub(crate) shape: Shape,
    pub(crate) bins: usize,
    pub(crate) given: Given,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// From `y` to `x` instead.
    pub(crate) inverse: bool,
}

/// Which histogram an entry has.
pub(crate) enum Given {
    /// That of its channel.
    Channel,
    /// That of its class; and its guess, a bin to which the class adds mass, or [`NO_GUESS`]. One of each for every entry.
    Guess { classes: Vec<u16>, guesses: Vec<u32> },
}

/// In the place of a guess.
pub(crate) const NO_GUESS: u32 = u32::MAX;

/// The most that a guess has of the mass.
const MOST_SURE: f64 = 0.9999;

/// One channel's or class's histogram.
struct Histogram {
    /// `softmax` of the logits.
    shares: Vec<f64>,
    mass: Vec<f64>,
    /// The mass of the bins before each one, and of those behind it.
    before: Vec<f64>,
    behind: Vec<f64>,
    /// The share of the whole that a guess has, and its derivative by its logit.
    sure: f64,
    sure_slope: f64,
}

/// An element's place: its bin, how far into it, and the normal number.
struct Place {
    bin: usize,
    part: f64,
    y: f64,
    /// The mass of its bin, and the share of all that is the histogram's.
    mass: f64,
    kept: f64,
    /// The derivatives of the probability below it and of the mass of its bin by the share of the guess.
    below_by_sure: f64,
    mass_by_sure: f64,
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
    /// By the share of the guess.
    sure: f64,
}

impl Histogram {
    fn new<T: Real>(row: &[T], bins: usize) -> Self {
        let (logits, guess) = row.split_at(bins);
        let logits: Vec<f64> = logits.iter().map(|l| l.to_f64()).collect();
        let sigmoid = guess.first().map_or(0.0, |l| 1.0 / (1.0 + (-l.to_f64()).exp()));
        let (sure, sure_slope) = (MOST_SURE * sigmoid, MOST_SURE * sigmoid * (1.0 - sigmoid));
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
        Histogram { shares, mass, before, behind, sure, sure_slope }
    }

    fn encode(&self, unit: f64, guess: Option<usize>) -> Place {
        let at = unit.clamp(0.0, 1.0) * self.mass.len() as f64;
        let bin = (at as usize).min(self.mass.len() - 1);
        let part = at - bin as f64;
        let below = self.before[bin] + part * self.mass[bin];
        let above = self.behind[bin] + (1.0 - part) * self.mass[bin];
        let (below, above) = match guess {
            None => (below, above),
            Some(guess) => {
                let passed = passed(bin, part, guess);
                let kept = 1.0 - self.sure;
                (kept * below + self.sure * passed, kept * above + self.sure * (1.0 - passed))
            }
        };
        let lower = below <= above;
        let tail = below.min(above);
        let y = normal::quantile(tail.max(END));
        Place { lower, at_end: tail < END, ..self.place(bin, part, if lower { y } else { -y }, guess) }
    }

    fn decode(&self, y: f64, guess: Option<usize>) -> Place {
        let lower = y <= 0.0;
        let tail = if y.abs() < LAST { normal::cdf(-y.abs()) } else { END * (LAST * (LAST - y.abs())).exp() };
        let found = match guess {
            None => Err(tail),
            Some(guess) => self.in_guess(tail, guess, lower),
        };
        let (bin, part) = match found {
            Ok(part) => (guess.unwrap_or(0), part),
            Err(tail) => self.in_histogram(tail, lower),
        };
        Place { lower, ..self.place(bin, part.clamp(0.0, 1.0), y, guess) }
    }

    /// How far into the bin of a guess a probability from the nearer end leads, or what it is in the histogram alone.
    fn in_guess(&self, tail: f64, guess: usize, lower: bool) -> std::result::Result<f64, f64> {
        let kept = 1.0 - self.sure;
        let start = kept * if lower { self.before[guess] } else { self.behind[guess] };
        let mass = kept * self.mass[guess] + self.sure;
        if tail < start {
            return Err(tail / kept);
        }
        if tail > start + mass {
            return Err((tail - self.sure) / kept);
        }
        let part = (tail - start) / mass;
        Ok(if lower { part } else { 1.0 - part })
    }

    /// Bin and part of a probability from the nearer end.
    fn in_histogram(&self, tail: f64, lower: bool) -> (usize, f64) {
        if lower {
            let bin = self.before.partition_point(|&p| p <= tail).saturating_sub(1);
            return (bin, (tail - self.before[bin]) / self.mass[bin]);
        }
        // The masses behind fall from bin to bin; those that are still above the tail's lie to the left.
        let bin = self.behind.partition_point(|&p| p > tail).min(self.mass.len() - 1);
        (bin, 1.0 - (tail - self.behind[bin]) / self.mass[bin])
    }

    /// A place that is no end.
    fn place(&self, bin: usize, part: f64, y: f64, guess: Option<usize>) -> Place {
        let own = self.mass[bin];
        let at = Place {
            bin,
            part,
            y,
            mass: own,
            kept: 1.0,
            below_by_sure: 0.0,
            mass_by_sure: 0.0,
            lower: true,
            at_end: false,
        };
        let Some(guess) = guess else { return at };
        let (kept, hit) = (1.0 - self.sure, if bin == guess { 1.0 } else { 0.0 });
        Place {
            mass: kept * own + self.sure * hit,
            kept,
            below_by_sure: passed(bin, part, guess) - self.before[bin] - part * own,
            mass_by_sure: hit - own,
            ..at
        }
    }

    /// The gradient of a row of logits that `width` entries has.
    fn pull_back(&self, pull: &Pull, width: usize) -> Vec<f64> {
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
        let logits = grad.iter().zip(&self.shares).map(|(g, s)| (1.0 - EVEN) * s * (g - mean));
        logits.chain([pull.sure * self.sure_slope]).take(width).collect()
    }
}

/// How much of the bin of a guess lies below a place.
fn passed(bin: usize, part: f64, guess: usize) -> f64 {
    match bin.cmp(&guess) {
        std::cmp::Ordering::Less => 0.0,
        std::cmp::Ordering::Equal => part,
        std::cmp::Ordering::Greater => 1.0,
    }
}

impl Pull {
    fn new(bins: usize) -> Self {
        Pull { lower: vec![0.0; bins], upper: vec![0.0; bins], own: vec![0.0; bins], sure: 0.0 }
    }

    /// `below` is the gain by the probability below the element, `mass` that by its bin's mass.
    fn add(&mut self, place: &Place, below: f64, mass: f64) {
        let Place { bin, part, kept, .. } = *place;
        self.sure += below * place.below_by_sure + mass * place.mass_by_sure;
        let (below, mass) = (kept * below, kept * mass);
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
        self.sure += other.sure;
    }
}

impl Gaussianize {
    /// How many logits a histogram has.
    fn width(&self) -> usize {
        match self.given {
            Given::Channel => self.bins,
            Given::Guess { .. } => self.bins + 1,
        }
    }

    fn histograms<T: Real>(&self, logits: &[T]) -> Vec<Histogram> {
        logits.chunks_exact(self.width()).map(|row| Histogram::new(row, self.bins)).collect()
    }

    /// Entries of one row of the batch.
    fn event(&self) -> usize {
        self.shape.dims().iter().skip(1).product::<usize>().max(1)
    }

    /// The histogram of entry `at` of row `row` of `event` entries, of so many, and its guess.
    fn given(&self, row: usize, at: usize, event: usize, histograms: usize) -> (usize, Option<usize>) {
        match &self.given {
            Given::Channel => (at * histograms / event, None),
            Given::Guess { classes, guesses } => {
                let (class, guess) = (classes[row * event + at], guesses[row * event + at]);
                (usize::from(class), (guess != NO_GUESS).then_some(guess as usize))
            }
        }
    }

    /// `ln ρ`, the logarithm of the density in a bin of so much mass.
    fn log_density(&self, mass: f64) -> f64 {
        (mass * self.bins as f64 / (self.high - self.low)).ln()
    }

    fn place(&self, histogram: &Histogram, guess: Option<usize>, input: f64) -> Place {
        if self.inverse {
            histogram.decode(input, guess)
        } else {
            histogram.encode((input - self.low) / (self.high - self.low), guess)
        }
    }

    /// The value and log-derivative of an element at a place.
    fn value(&self, place: &Place) -> (f64, f64) {
        let log = self.log_density(place.mass) - log_normal(place.y);
        if !self.inverse {
            return (place.y, log);
        }
        let unit = (place.bin as f64 + place.part) / self.bins as f64;
        (self.low + unit * (self.high - self.low), -log)
    }

    /// The gradient of an element at a place, with what the masses gain added to `pull`.
    fn gradient(&self, place: &Place, by_value: f64, by_log: f64, pull: &mut Pull) -> f64 {
        let density = self.log_density(place.mass).exp();
        let normal = log_normal(place.y).exp();
        if self.inverse {
            pull.add(place, -by_value / density, -by_log / place.mass);
            return by_value * normal / density - by_log * place.y.clamp(-LAST, LAST);
        }
        // At an end the value does not move.
        let below = if place.at_end { 0.0 } else { (by_value + by_log * place.y) / normal };
        pull.add(place, below, by_log / place.mass);
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
        let (histograms, event) = (self.histograms(logits), self.event());
        let mut out = vec![T::from_f64(0.0); 2 * x.len()];
        let (values, logs) = out.split_at_mut(x.len());
        let rows = values.par_chunks_mut(event).zip(logs.par_chunks_mut(event)).zip(x.par_chunks(event)).enumerate();
        rows.for_each(|(row, ((values, logs), x))| {
            for (at, ((value, log), x)) in values.iter_mut().zip(logs).zip(x).enumerate() {
                let (histogram, guess) = self.given(row, at, event, histograms.len());
                let (v, l) = self.value(&self.place(&histograms[histogram], guess, x.to_f64()));
                (*value, *log) = (T::from_f64(v), T::from_f64(l));
            }
        });
        Ok(out)
    }

    fn backward<T: Real>(&self, [x, logits]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (histograms, event) = (self.histograms(logits), self.event());
        let none = vec![Pull::new(self.bins); histograms.len()];
        let (by_value, by_log) = grad.split_at(x.len());
        let mut grad_x = vec![T::from_f64(0.0); x.len()];
        let rows = grad_x.par_chunks_mut(event).zip(x.par_chunks(event));
        let rows = rows.zip(by_value.par_chunks(event)).zip(by_log.par_chunks(event)).enumerate();
        let pulls: Vec<Vec<Pull>> = rows
            .map(|(row, (((out, x), by_value), by_log))| {
                let mut pulls = none.clone();
                for (at, (((out, x), v), l)) in out.iter_mut().zip(x).zip(by_value).zip(by_log).enumerate() {
                    let (histogram, guess) = self.given(row, at, event, histograms.len());
                    let place = self.place(&histograms[histogram], guess, x.to_f64());
                    *out = T::from_f64(self.gradient(&place, v.to_f64(), l.to_f64(), &mut pulls[histogram]));
                }
                pulls
            })
            .collect();
        let mut totals = none;
        for of_row in &pulls {
            totals.iter_mut().zip(of_row).for_each(|(total, pull)| total.merge(pull));
        }
        let rows = histograms.iter().zip(&totals);
        let grad_logits = rows.flat_map(|(h, pull)| h.pull_back(pull, self.width())).map(T::from_f64);
        Ok([Some(grad_x), Some(grad_logits.collect())])
    }
}
