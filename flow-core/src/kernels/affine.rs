//! `y = (x + t)·sigmoid(h + 2)`: value, log-determinant, inverse and gradients in one pass each.

use rayon::prelude::*;

use super::{Real, vectorized};

/// Sizes of a batch of transformed channels: parameters are `(B, C, 2, P)`, values `(B, C, P)`.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub channels: usize,
    pub pixels: usize,
}

impl Sizes {
    fn event(self) -> usize {
        self.channels * self.pixels
    }
}

/// Which way the transformer runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Encode,
    Decode,
}

/// The authors' offset of the raw scale.
const OFFSET: f64 = 2.0;

/// `1 / (1 + e^-(h+2))`, bounded away from zero so that its inverse stays finite.
#[inline(always)]
fn gate<T: Real>(h: T) -> T {
    let e = (T::ZERO - (h + T::from_f64(OFFSET))).exp_bounded();
    T::from_f64(1.0) / (T::from_f64(1.0) + e)
}

/// Numbers whose product is taken before one logarithm; in f64 the product cannot underflow.
const GROUP: usize = 8;

/// The transformed values `(B, C, P)` and `Σ ln |∂|` per sample, `(B,)`.
pub(crate) fn transform<T: Real>(s: Sizes, way: Way, x: &[T], params: &[T]) -> (Vec<T>, Vec<T>) {
    let mut out = vec![T::ZERO; x.len()];
    let mut log_det = vec![T::ZERO; s.batch];
    let len = s.event().max(1);
    let work = (x.par_chunks(len), params.par_chunks(2 * len), out.par_chunks_mut(len), log_det.par_iter_mut());
    work.into_par_iter().for_each(|(x, params, out, log_det)| {
        let mut sum = 0.0;
        for ((x, params), out) in
            x.chunks_exact(s.pixels).zip(params.chunks_exact(2 * s.pixels)).zip(out.chunks_exact_mut(s.pixels))
        {
            let (shift, raw) = params.split_at(s.pixels);
            vectorized(|| gated(way, x, shift, raw, out));
            sum += log_gates(raw);
        }
        *log_det = T::from_f64(if way == Way::Encode { sum } else { -sum });
    });
    (out, log_det)
}

#[inline(always)]
fn gated<T: Real>(way: Way, x: &[T], shift: &[T], raw: &[T], out: &mut [T]) {
    let inputs = x.iter().zip(shift).zip(raw);
    match way {
        Way::Encode => inputs.zip(out).for_each(|(((&x, &t), &h), o)| *o = (x + t) * gate(h)),
        Way::Decode => inputs.zip(out).for_each(|(((&y, &t), &h), o)| *o = y / gate(h) - t),
    }
}

/// `Σ ln gate(h)`, one logarithm for every few elements.
fn log_gates<T: Real>(raw: &[T]) -> f64 {
    raw.chunks(GROUP).map(|group| group.iter().map(|&h| gate(h).to_f64()).product::<f64>().ln()).sum()
}

/// What [`backward`] returns: the input and both gradients.
pub(crate) struct Gradient<T> {
    pub x: Vec<T>,
    pub grad_x: Vec<T>,
    pub grad_params: Vec<T>,
}

/// Inverts `y` and pulls `(grad_y, grad_log)` back; `grad_log` is one number per sample.
///
/// `∂/∂t = grad_y·s`, `∂/∂h = (grad_y·y + grad_log)·(1 - s)`.
pub(crate) fn backward<T: Real>(s: Sizes, y: &[T], params: &[T], grad_y: &[T], grad_log: &[T]) -> Gradient<T> {
    let zeros = |n| vec![T::ZERO; n];
    let mut out = Gradient { x: zeros(y.len()), grad_x: zeros(y.len()), grad_params: zeros(params.len()) };
    let len = s.event().max(1);
    let inputs = (y.par_chunks(len), params.par_chunks(2 * len), grad_y.par_chunks(len), grad_log.par_iter());
    let outputs = (out.x.par_chunks_mut(len), out.grad_x.par_chunks_mut(len), out.grad_params.par_chunks_mut(2 * len));
    inputs.into_par_iter().zip(outputs.into_par_iter()).for_each(|((y, params, grad_y, &grad_log), (x, gx, gp))| {
        for c in 0..s.channels {
            let (one, two) = (c * s.pixels..(c + 1) * s.pixels, 2 * c * s.pixels..2 * (c + 1) * s.pixels);
            let (shift, raw) = params[two.clone()].split_at(s.pixels);
            let (grad_shift, grad_raw) = gp[two].split_at_mut(s.pixels);
            let (y, grad_y) = (&y[one.clone()], &grad_y[one.clone()]);
            let (x, gx) = (&mut x[one.clone()], &mut gx[one]);
            vectorized(|| {
                for p in 0..y.len().min(shift.len()).min(raw.len()) {
                    let g = gate(raw[p]);
                    let down = grad_y[p] * g;
                    x[p] = y[p] / g - shift[p];
                    gx[p] = down;
                    grad_shift[p] = down;
                    grad_raw[p] = (grad_y[p] * y[p] + grad_log) * (T::from_f64(1.0) - g);
                }
            });
        }
    });
    out
}
