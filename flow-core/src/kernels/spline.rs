//! The rational-quadratic spline, value and log-derivative in one pass, and the gradients of both.
//!
//! Each element is computed in f64 whatever its type. Between close knots a spline may be steeper than 10⁶, and its
//! logarithm then depends on digits of the position inside the bin that f32 does not have: composed operations in f32
//! gave logarithms that were off by whole nats, and positions outside the bin, whose logarithm is not a number.

use candle_core::Shape;
use rayon::prelude::*;

use super::{Fused, Pass, Real, run_vectorized};

/// The least width and height of a bin, as a fraction of the interval.
pub(crate) const MIN_BIN: f64 = 1e-3;
/// The least slope at a knot.
pub(crate) const MIN_SLOPE: f64 = 1e-3;

/// Elements that one thread takes at a time; depends on nothing, so results do not depend on the number of threads.
const ELEMENTS: usize = 128;

/// What raw slope gives the slope one.
pub(crate) fn unit_slope() -> f64 {
    (1.0 - MIN_SLOPE).exp_m1().ln()
}

/// Value and log-derivative, `(2, B, C, …)`, of `x`, `(B, C, …)`, with parameters `(B, C, 3·bins - 1, …)`.
pub(crate) struct Spline {
    /// The shape of `x`.
    pub(crate) shape: Shape,
    pub(crate) bins: usize,
    pub(crate) bound: f64,
    /// From `y` to `x` instead.
    pub(crate) inverse: bool,
}

/// The bin of one element: its lower corner, its size and the slopes at its ends.
#[derive(Clone, Copy)]
struct Bin {
    index: usize,
    corner: [f64; 2],
    width: f64,
    height: f64,
    left: f64,
    right: f64,
}

/// The shares of the bins along both axes, the horizontal ones first, and the raw slopes; one for each thread.
struct Work {
    shares: Vec<f64>,
    raw_slopes: Vec<f64>,
    unit_slope: f64,
}

/// The quotient at one place of a bin, with its parts.
#[derive(Clone, Copy)]
struct Place {
    xi: f64,
    rest: f64,
    rise: f64,
    numerator: f64,
    denominator: f64,
    slopes: f64,
}

/// What an objective gains by each quantity of a bin.
#[derive(Default)]
struct Pull {
    x: f64,
    corner: [f64; 2],
    width: f64,
    height: f64,
    left: f64,
    right: f64,
}

impl Bin {
    fn at(&self, xi: f64) -> Place {
        // A corner that is a rounded sum may lie beyond the element by a digit.
        let xi = xi.clamp(0.0, 1.0);
        let (rest, rise) = (1.0 - xi, self.height / self.width);
        Place {
            xi,
            rest,
            rise,
            numerator: xi * (rise * xi + self.left * rest),
            denominator: rise * (xi * xi + rest * rest) + (self.left + self.right) * xi * rest,
            slopes: self.right * xi * xi + 2.0 * rise * xi * rest + self.left * rest * rest,
        }
    }

    /// The place whose value is `y`: `ξ = 2c/(-b - √(b² - 4ac))`, or the same root without a difference of like numbers.
    fn solve(&self, y: f64) -> Place {
        let eta = ((y - self.corner[1]) / self.height).clamp(0.0, 1.0);
        let rise = self.height / self.width;
        let b = self.left - eta * (self.left + self.right - 2.0 * rise);
        let (a, minus_c) = (rise - b, rise * eta);
        let root = (b * b + 4.0 * a * minus_c).max(0.0).sqrt();
        self.at(if b > 0.0 { 2.0 * minus_c / (b + root) } else { (root - b) / (2.0 * a) })
    }

    /// The gradients of `grad_y · y + grad_log · ln ∂y/∂x` at a place.
    fn pull(&self, p: Place, grad_y: f64, grad_log: f64) -> Pull {
        let Place { xi, rest, rise, numerator, denominator: d, slopes } = p;
        let (across, squares, ratio) = (xi * rest, xi * xi + rest * rest, numerator / d);
        let of_xi = grad_y * self.width * p.slope() + grad_log * self.bend(p);
        let of_rise = grad_y * self.height * (xi * xi - ratio * squares) / d
            + grad_log * (2.0 / rise + 2.0 * across / slopes - 2.0 * squares / d);
        let end = |own: f64, value: f64| {
            grad_y * self.height * across * value / d + grad_log * (own * own / slopes - 2.0 * across / d)
        };
        Pull {
            x: of_xi / self.width,
            corner: [-of_xi / self.width, grad_y],
            width: -(xi * of_xi + rise * of_rise) / self.width,
            height: grad_y * ratio + of_rise / self.width,
            left: end(rest, 1.0 - ratio),
            right: end(xi, -ratio),
        }
    }

    /// `∂ ln(∂y/∂x) / ∂ξ`.
    fn bend(&self, p: Place) -> f64 {
        let (both, middle) = (self.left + self.right, 1.0 - 2.0 * p.xi);
        let of_slopes = 2.0 * (self.right * p.xi - self.left * p.rest + p.rise * middle);
        of_slopes / p.slopes - 2.0 * middle * (both - 2.0 * p.rise) / p.denominator
    }
}

impl Place {
    /// `∂y/∂x`.
    fn slope(&self) -> f64 {
        let ratio = self.rise / self.denominator;
        self.slopes * ratio * ratio
    }

    fn log_slope(&self) -> f64 {
        self.slope().ln()
    }
}

fn softplus(h: f64) -> f64 {
    h.max(0.0) + (-h.abs()).exp().ln_1p()
}

/// Turns the raw numbers of each axis into shares, which are positive and sum to one.
struct Softmax<'a> {
    raw: &'a mut [f64],
    bins: usize,
}

impl Pass for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for shares in self.raw.chunks_exact_mut(self.bins) {
            let most = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            shares.iter_mut().for_each(|v| *v = (*v - most).exp_bounded());
            let total: f64 = shares.iter().sum();
            shares.iter_mut().for_each(|v| *v /= total);
        }
    }
}

impl Work {
    fn new(bins: usize) -> Self {
        Work { shares: vec![0.0; 2 * bins], raw_slopes: vec![0.0; bins - 1], unit_slope: unit_slope() }
    }

    /// Reads one element's parameters, `stride` apart, and finds the bin of `input` along the axis.
    #[inline(always)]
    fn bin<T: Real>(&mut self, s: &Spline, params: &[T], stride: usize, input: f64) -> Bin {
        let span = 2.0 * s.bound;
        let (free, least) = ((1.0 - MIN_BIN * s.bins as f64) * span, MIN_BIN * span);
        let mut raw = params.iter().step_by(stride).map(|v| v.to_f64());
        self.shares.iter_mut().zip(&mut raw).for_each(|(slot, v)| *slot = v);
        self.raw_slopes.iter_mut().zip(raw).for_each(|(slot, v)| *slot = v + self.unit_slope);
        run_vectorized(Softmax { raw: &mut self.shares, bins: s.bins });
        let length = |axis: usize, k: usize| free * self.shares[axis * s.bins + k] + least;
        let (along, mut index, mut corner) = (usize::from(s.inverse), 0, [-s.bound; 2]);
        while index + 1 < s.bins && input >= corner[along] + length(along, index) {
            corner = [corner[0] + length(0, index), corner[1] + length(1, index)];
            index += 1;
        }
        // The outer slopes are one.
        let slope = |knot: usize| match knot {
            0 => 1.0,
            k => self.raw_slopes.get(k - 1).map_or(1.0, |h| MIN_SLOPE + softplus(*h)),
        };
        let (width, height) = (length(0, index), length(1, index));
        Bin { index, corner, width, height, left: slope(index), right: slope(index + 1) }
    }

    /// Sends the gradients of a bin's quantities to the parameters.
    #[inline(always)]
    fn spread<T: Real>(&self, s: &Spline, bin: &Bin, pull: &Pull, out: &mut [T], stride: usize) {
        let free = (1.0 - MIN_BIN * s.bins as f64) * 2.0 * s.bound;
        for (axis, own) in [(0, pull.width), (1, pull.height)] {
            let of = |k: usize| match k.cmp(&bin.index) {
                std::cmp::Ordering::Less => pull.corner[axis],
                std::cmp::Ordering::Equal => own,
                std::cmp::Ordering::Greater => 0.0,
            };
            let shares = &self.shares[axis * s.bins..][..s.bins];
            let mean: f64 = shares.iter().take(bin.index + 1).enumerate().map(|(k, share)| share * of(k)).sum();
            for (k, share) in shares.iter().enumerate() {
                out[(axis * s.bins + k) * stride] = T::from_f64(free * share * (of(k) - mean));
            }
        }
        for (knot, grad) in [(bin.index, pull.left), (bin.index + 1, pull.right)] {
            if let Some(h) = knot.checked_sub(1).and_then(|k| self.raw_slopes.get(k)) {
                let slot = &mut out[(2 * s.bins + knot - 1) * stride];
                *slot = T::from_f64(grad / (1.0 + (-h).exp()));
            }
        }
    }
}

impl Spline {
    fn per_element(&self) -> usize {
        3 * self.bins - 1
    }

    /// Elements behind each pair of sample and channel.
    fn inner(&self) -> usize {
        self.shape.dims()[2..].iter().product()
    }

    fn is_inside<T: Real>(&self, x: T) -> bool {
        let bound = T::from_f64(self.bound);
        x > T::ZERO - bound && x < bound
    }

    /// The length of a piece of `x` for one thread: whole pairs of sample and channel.
    fn piece(&self) -> usize {
        let inner = self.inner().max(1);
        inner * (ELEMENTS / inner).max(1)
    }
}

impl Fused<2> for Spline {
    fn name(&self) -> &'static str {
        "rational-quadratic-spline"
    }

    fn shape(&self) -> Shape {
        [&[2], self.shape.dims()].concat().into()
    }

    fn forward<T: Real>(&self, [x, params]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (inner, piece, per) = (self.inner().max(1), self.piece(), self.per_element());
        let mut out = vec![T::ZERO; 2 * x.len()];
        let (values, logs) = out.split_at_mut(x.len());
        let outputs = values.par_chunks_mut(piece).zip(logs.par_chunks_mut(piece));
        x.par_chunks(piece).zip(params.par_chunks(piece * per)).zip(outputs).for_each(|((x, params), (value, log))| {
            let mut work = Work::new(self.bins);
            for (k, &input) in x.iter().enumerate() {
                if !self.is_inside(input) {
                    value[k] = input;
                    continue;
                }
                let input = input.to_f64();
                let bin = work.bin(self, &params[k / inner * per * inner + k % inner..], inner, input);
                let (place, found, sign) = if self.inverse {
                    let place = bin.solve(input);
                    (place, bin.corner[0] + bin.width * place.xi, -1.0)
                } else {
                    let place = bin.at((input - bin.corner[0]) / bin.width);
                    (place, bin.corner[1] + bin.height * place.numerator / place.denominator, 1.0)
                };
                // Sums of lengths may pass the bound by a digit.
                value[k] = T::from_f64(found.clamp(-self.bound, self.bound));
                log[k] = T::from_f64(sign * place.log_slope());
            }
        });
        Ok(out)
    }

    /// The inverse is differentiated as the implicit function: with `a = (g - g_log·∂ ln(∂y/∂x)/∂x)/(∂y/∂x)`, the gradient
    /// of `y` is `a` and that of the parameters the one which the map has for `-a` and `-g_log`.
    fn backward<T: Real>(&self, [x, params]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let (inner, piece, per) = (self.inner().max(1), self.piece(), self.per_element());
        let (of_value, of_log) = grad.split_at(x.len());
        let (mut grad_x, mut grad_params) = (vec![T::ZERO; x.len()], vec![T::ZERO; params.len()]);
        let inputs = x.par_chunks(piece).zip(params.par_chunks(piece * per));
        let grads = of_value.par_chunks(piece).zip(of_log.par_chunks(piece));
        let outputs = grad_x.par_chunks_mut(piece).zip(grad_params.par_chunks_mut(piece * per));
        inputs.zip(grads).zip(outputs).for_each(|(((x, params), (value, log)), (grad_x, grad_params))| {
            let mut work = Work::new(self.bins);
            for (k, &input) in x.iter().enumerate() {
                if !self.is_inside(input) {
                    grad_x[k] = value[k];
                    continue;
                }
                let (input, first) = (input.to_f64(), k / inner * per * inner + k % inner);
                let (grad_value, grad_log) = (value[k].to_f64(), log[k].to_f64());
                let bin = work.bin(self, &params[first..], inner, input);
                let pull = if self.inverse {
                    let place = bin.solve(input);
                    let along = (grad_value - grad_log * bin.bend(place) / bin.width) / place.slope();
                    Pull { x: along, ..bin.pull(place, -along, -grad_log) }
                } else {
                    bin.pull(bin.at((input - bin.corner[0]) / bin.width), grad_value, grad_log)
                };
                grad_x[k] = T::from_f64(pull.x);
                work.spread(self, &bin, &pull, &mut grad_params[first..], inner);
            }
        });
        Ok([Some(grad_x), Some(grad_params)])
    }
}
