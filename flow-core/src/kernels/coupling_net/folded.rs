//! The parameters of the network as its products take them: scales and edges folded into the weights, and the adjoint of
//! that.

use super::super::patches::{CLASSES, tap_outside};
use super::super::{LOG_SCALE_FACTOR, Real};
use super::{Shape, TAPS};

/// Views of the packed parameter vector.
struct Packed<'a, T>([&'a [T]; 9]);

impl<'a, T> Packed<'a, T> {
    fn new(shape: &Shape, mut flat: &'a [T]) -> Self {
        Packed(shape.parameter_lengths().map(|len| {
            let (head, tail) = flat.split_at(len);
            flat = tail;
            head
        }))
    }
}

/// Weights with scales and edges folded in, in the layouts of the products.
pub(crate) struct Folded<T> {
    /// `(9·C, H)`.
    pub(super) first: Vec<T>,
    /// Bias by border class, `(16, H)`.
    pub(super) first_bias: Vec<T>,
    /// `(H, H)`, input-major.
    pub(super) second: Vec<T>,
    /// `(1, H)`.
    pub(super) second_bias: Vec<T>,
    /// `(H, 9·O)`; taps mirrored, so that the output is a scatter of the product.
    pub(super) third: Vec<T>,
    /// `(16, O)`.
    pub(super) third_bias: Vec<T>,
}

fn scale<T: Real>(log: T) -> T {
    T::from_f64((LOG_SCALE_FACTOR * log.to_f64()).exp())
}

impl<T: Real> Folded<T> {
    pub(super) fn zeros(s: &Shape) -> Self {
        let zero = |n| vec![T::ZERO; n];
        Folded {
            first: zero(TAPS * s.inputs * s.hidden),
            first_bias: zero(CLASSES * s.hidden),
            second: zero(s.hidden * s.hidden),
            second_bias: zero(s.hidden),
            third: zero(s.hidden * TAPS * s.outputs),
            third_bias: zero(CLASSES * s.outputs),
        }
    }

    /// Folds the packed parameters.
    pub fn new(s: &Shape, flat: &[T]) -> Self {
        let Packed([w1, b1, l1, w2, b2, l2, w3, b3, l3]) = Packed::new(s, flat);
        let (c, h, o) = (s.inputs, s.hidden, s.outputs);
        let mut f = Self::zeros(s);
        for n in 0..h {
            let (gain, w) = (scale(l1[n]), &w1[n * (c + 1) * TAPS..(n + 1) * (c + 1) * TAPS]);
            for (k, &v) in w[..c * TAPS].iter().enumerate() {
                f.first[((k % TAPS) * c + k / TAPS) * h + n] = v * gain;
            }
            for class in 0..CLASSES {
                f.first_bias[class * h + n] = (b1[n] + edge_sum(&w[c * TAPS..], class)) * gain;
            }
            let gain = scale(l2[n]);
            for (i, &v) in w2[n * h..(n + 1) * h].iter().enumerate() {
                f.second[i * h + n] = v * gain;
            }
            f.second_bias[n] = b2[n] * gain;
        }
        for n in 0..o {
            let (gain, w) = (scale(l3[n]), &w3[n * (h + 1) * TAPS..(n + 1) * (h + 1) * TAPS]);
            for (k, &v) in w[..h * TAPS].iter().enumerate() {
                f.third[(k / TAPS) * TAPS * o + (TAPS - 1 - k % TAPS) * o + n] = v * gain;
            }
            for class in 0..CLASSES {
                f.third_bias[class * o + n] = (b3[n] + edge_sum(&w[h * TAPS..], class)) * gain;
            }
        }
        f
    }

    /// The adjoint of [`Folded::new`]: `grad` holds gradients of the folded weights, the result those
    /// of the packed parameters at `flat`.
    pub(super) fn unfold_gradient(s: &Shape, flat: &[T], folded: &Self, grad: &Self) -> Vec<T> {
        let Packed([_, _, l1, _, _, l2, _, _, l3]) = Packed::new(s, flat);
        let (c, h, o) = (s.inputs, s.hidden, s.outputs);
        let mut out = vec![T::ZERO; flat.len()];
        let mut rest = out.as_mut_slice();
        let [w1, b1, g1, w2, b2, g2, w3, b3, g3] = s.parameter_lengths().map(|len| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            head
        });
        for n in 0..h {
            let (gain, w) = (scale(l1[n]), &mut w1[n * (c + 1) * TAPS..(n + 1) * (c + 1) * TAPS]);
            for (k, slot) in w[..c * TAPS].iter_mut().enumerate() {
                *slot = grad.first[((k % TAPS) * c + k / TAPS) * h + n] * gain;
            }
            b1[n] = edge_gradient(&grad.first_bias, h, n, gain, &mut w[c * TAPS..]);
            g1[n] = log_gradient(&[(&folded.first, &grad.first), (&folded.first_bias, &grad.first_bias)], h, n);
            let gain = scale(l2[n]);
            for (i, slot) in w2[n * h..(n + 1) * h].iter_mut().enumerate() {
                *slot = grad.second[i * h + n] * gain;
            }
            b2[n] = grad.second_bias[n] * gain;
            g2[n] = log_gradient(&[(&folded.second, &grad.second), (&folded.second_bias, &grad.second_bias)], h, n);
        }
        for n in 0..o {
            let (gain, w) = (scale(l3[n]), &mut w3[n * (h + 1) * TAPS..(n + 1) * (h + 1) * TAPS]);
            for (k, slot) in w[..h * TAPS].iter_mut().enumerate() {
                *slot = grad.third[(k / TAPS) * TAPS * o + (TAPS - 1 - k % TAPS) * o + n] * gain;
            }
            b3[n] = edge_gradient(&grad.third_bias, o, n, gain, &mut w[h * TAPS..]);
            g3[n] = log_gradient(&[(&folded.third, &grad.third), (&folded.third_bias, &grad.third_bias)], o, n);
        }
        out
    }

    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.first, &other.first),
            (&mut self.first_bias, &other.first_bias),
            (&mut self.second, &other.second),
            (&mut self.second_bias, &other.second_bias),
            (&mut self.third, &other.third),
            (&mut self.third_bias, &other.third_bias),
        ];
        for (sum, term) in pairs {
            sum.iter_mut().zip(term).for_each(|(s, &t)| *s += t);
        }
    }
}

/// What the edge channel adds at a pixel of this class: the taps that fall outside.
fn edge_sum<T: Real>(taps: &[T], class: usize) -> T {
    taps.iter().enumerate().filter(|&(t, _)| tap_outside(class, t)).fold(T::ZERO, |sum, (_, &v)| sum + v)
}

/// Gradient of the edge taps into `taps`, of the bias as the result, for output `n` of a bias table.
fn edge_gradient<T: Real>(table: &[T], width: usize, n: usize, gain: T, taps: &mut [T]) -> T {
    let mut total = T::ZERO;
    for class in 0..CLASSES {
        let g = table[class * width + n] * gain;
        total += g;
        for (t, slot) in taps.iter_mut().enumerate().filter(|&(t, _)| tap_outside(class, t)) {
            let _ = t;
            *slot += g;
        }
    }
    total
}

/// Gradient of a log-scale: everything folded is linear in `exp(3 l)`, so it is `3 Σ value · gradient`.
fn log_gradient<T: Real>(parts: &[(&Vec<T>, &Vec<T>)], width: usize, n: usize) -> T {
    let mut sum = 0.0;
    for (value, grad) in parts {
        let columns = value.iter().skip(n).step_by(width).zip(grad.iter().skip(n).step_by(width));
        sum += columns.map(|(v, g)| v.to_f64() * g.to_f64()).sum::<f64>();
    }
    T::from_f64(LOG_SCALE_FACTOR * sum)
}
