//! What does not depend on the pixels: gains, and the biases that the flag channel gives.
//!
//! The flag channel is one on the padding and zero inside. What a convolution makes of it at a pixel depends on which of
//! the taps fall outside, hence on the border class of the pixel, and on whether the step before is padding too.

use flow_core::kernels::{Real, vectorized};

use super::{LOG_SCALE_FACTOR, Shape, TAPS, Weights, halves, halves_mut};

/// Border classes: bit 0 for taps that fall outside above, 1 below, 2 at the left, 3 at the right.
pub(super) const CLASSES: usize = 16;

/// One branch: its parameters, and what is made of them before pixels are touched.
pub(super) struct Branch<'a, T> {
    pub dilation: usize,
    pub weights: Weights<'a, T>,
    /// The class of every pixel of a frame.
    pub classes: Vec<u8>,
    /// What the first convolution starts from, `(hidden steps, 16, H)`.
    pub first: Vec<T>,
    /// `exp(3 l)` of the hidden steps, `(hidden steps, H)`.
    pub first_gain: Vec<T>,
    /// The same of the second convolution, `(hidden steps, G)`.
    pub second_gain: Vec<T>,
    /// What is added to the output, gain included, `(output steps, 16, C)`.
    pub last: Vec<T>,
    /// `exp(3 l)` of the output, `(C,)`.
    pub last_gain: Vec<T>,
}

impl<'a, T: Real> Branch<'a, T> {
    pub fn new(s: &Shape, dilation: usize, weights: Weights<'a, T>) -> Self {
        let w = &weights;
        let biases = last_rows(w.first_bias, s.hidden, s.hidden_steps());
        let first = table(s, s.hidden, s.hidden_steps(), w.first_flag, biases.chunks_exact(s.hidden));
        let constant = std::iter::repeat_n(w.last_bias, s.outputs);
        let mut last = table(s, s.channels, s.outputs, w.last_flag, constant);
        let last_gain = gains(w.last_log_scale);
        scale_rows(&mut last, &last_gain);
        Branch {
            dilation,
            weights,
            classes: classes(s, dilation),
            first,
            first_gain: gains(last_rows(w.first_log_scale, s.hidden, s.hidden_steps())),
            second_gain: gains(last_rows(w.second_log_scale, s.wide(), s.hidden_steps())),
            last,
            last_gain,
        }
    }

    /// Biases of the second convolution at the hidden steps, `(hidden steps, G)`.
    pub fn second_bias(&self, s: &Shape) -> &'a [T] {
        last_rows(self.weights.second_bias, s.wide(), s.hidden_steps())
    }
}

/// The branches of a block with these parameters.
pub(super) fn branches<'a, T: Real>(s: &Shape, weights: &[Weights<'a, T>]) -> Vec<Branch<'a, T>> {
    s.dilations.iter().zip(weights).map(|(&dilation, &weights)| Branch::new(s, dilation, weights)).collect()
}

/// The last `count` rows.
fn last_rows<T>(rows: &[T], width: usize, count: usize) -> &[T] {
    &rows[rows.len() - count * width..]
}

/// Multiplies every row by `gain`.
pub(super) fn scale_rows<T: Real>(rows: &mut [T], gain: &[T]) {
    vectorized(|| {
        for row in rows.chunks_exact_mut(gain.len()) {
            row.iter_mut().zip(gain).for_each(|(value, &gain)| *value *= gain);
        }
    });
}

/// Adds `term` to `sum`.
#[inline(always)]
pub(super) fn add<T: Real>(sum: &mut [T], term: &[T]) {
    sum.iter_mut().zip(term).for_each(|(sum, &term)| *sum += term);
}

fn gains<T: Real>(log_scales: &[T]) -> Vec<T> {
    let factor = T::from_f64(LOG_SCALE_FACTOR);
    vectorized(|| log_scales.iter().map(|&l| (factor * l).exp_bounded()).collect())
}

/// The class of every pixel of a frame.
fn classes(s: &Shape, dilation: usize) -> Vec<u8> {
    let axis = |place: usize, size: usize| u8::from(place < dilation) | u8::from(place + dilation >= size) << 1;
    (0..s.pixels()).map(|p| axis(p / s.width, s.height) | axis(p % s.width, s.width) << 2).collect()
}

/// Whether a tap at a pixel of this class falls outside the frame.
fn outside(class: usize, tap: usize) -> bool {
    let (u, v) = (tap / 3, tap % 3);
    (u == 0 && class & 1 != 0) || (u == 2 && class & 2 != 0) || (v == 0 && class & 4 != 0) || (v == 2 && class & 8 != 0)
}

/// The bias of the last `count` steps by class, `(count, 16, width)`: what the flag gives, plus a row for each step.
fn table<'b, T: Real>(
    s: &Shape,
    width: usize,
    count: usize,
    flag: &[T],
    biases: impl Iterator<Item = &'b [T]>,
) -> Vec<T> {
    let mut table = vec![T::ZERO; count * CLASSES * width];
    vectorized(|| {
        for ((i, rows), bias) in table.chunks_exact_mut(CLASSES * width).enumerate().zip(biases) {
            let parts = parts(s, s.steps - count + i, flag);
            for (class, row) in rows.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(bias);
                for (half, everywhere) in parts.iter().flatten() {
                    let taps = half.chunks_exact(width).enumerate();
                    taps.filter(|&(tap, _)| *everywhere || outside(class, tap)).for_each(|(_, flag)| add(row, flag));
                }
            }
        }
    });
    table
}

/// The halves of the flag's kernel at a step, each with whether all of its taps see padding.
fn parts<'a, T>(s: &Shape, step: usize, flag: &'a [T]) -> [Option<(&'a [T], bool)>; 2] {
    let (now, before) = halves(s, flag);
    [Some((now, false)), before.map(|before| (before, step == 0))]
}

/// The adjoint of [`table`]: gradients of the flag's kernel, added to `flag`, and for each step that of its bias, given
/// to `bias` with the step.
pub(super) fn table_gradient<T: Real>(
    s: &Shape,
    width: usize,
    table: &[T],
    flag: &mut [T],
    mut bias: impl FnMut(usize, &[T]),
) {
    let count = table.len() / (CLASSES * width);
    let (now, mut before) = halves_mut(s, flag);
    for (i, rows) in table.chunks_exact(CLASSES * width).enumerate() {
        let step = s.steps - count + i;
        for (class, row) in rows.chunks_exact(width).enumerate() {
            bias(step, row);
            for (tap, flag) in now.chunks_exact_mut(width).enumerate().take(TAPS) {
                if outside(class, tap) {
                    add(flag, row);
                }
            }
            for (tap, flag) in before.iter_mut().flat_map(|half| half.chunks_exact_mut(width).enumerate()) {
                if step == 0 || outside(class, tap) {
                    add(flag, row);
                }
            }
        }
    }
}
