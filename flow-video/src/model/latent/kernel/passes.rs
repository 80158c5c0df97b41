//! What is done to single numbers between the products; rows are ordered by time step.

use flow_core::kernels::{Real, vectorized};

use super::tables::add;

/// `σ(x) = (1 + tanh(x/2))/2`.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let half = T::from_f64(0.5);
    half + half * (half * x).tanh_fast()
}

/// `max(x, 0)`, except that NaN stays NaN.
#[inline(always)]
fn relu<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

/// `max(x, 0) · gain`, with a row of gains for each step of `rows` rows.
pub(super) fn rectify<T: Real>(values: &mut [T], rows: usize, gains: &[T], width: usize) {
    vectorized(|| {
        for (values, gain) in values.chunks_exact_mut(rows * width).zip(gains.chunks_exact(width)) {
            for row in values.chunks_exact_mut(width) {
                row.iter_mut().zip(gain).for_each(|(value, &gain)| *value = relu(*value) * gain);
            }
        }
    });
}

/// The gated layer in place: the first half of each row becomes `tanh((a + b)·g) · σ((a′ + b′)·g′)`.
pub(super) fn gate<T: Real>(values: &mut [T], rows: usize, biases: &[T], gains: &[T], width: usize) {
    let steps = biases.chunks_exact(2 * width).zip(gains.chunks_exact(2 * width));
    vectorized(|| {
        for (values, (bias, gain)) in values.chunks_exact_mut(rows * 2 * width).zip(steps) {
            let ((bias, bias_gate), (gain, gain_gate)) = (bias.split_at(width), gain.split_at(width));
            for row in values.chunks_exact_mut(2 * width) {
                let (row, gate) = row.split_at_mut(width);
                for (k, (value, &gate)) in row.iter_mut().zip(&*gate).enumerate() {
                    let inner = (*value + bias[k]) * gain[k];
                    *value = inner.tanh_fast() * sigmoid((gate + bias_gate[k]) * gain_gate[k]);
                }
            }
        }
    });
}

/// The layer that is not gated in place: `max((a + b)·g, 0)`.
pub(super) fn rectify_second<T: Real>(values: &mut [T], rows: usize, biases: &[T], gains: &[T], width: usize) {
    normalize(values, rows, biases, gains, width);
    vectorized(|| values.iter_mut().for_each(|value| *value = relu(*value)));
}

/// `(a + b)·g` in place.
pub(super) fn normalize<T: Real>(values: &mut [T], rows: usize, biases: &[T], gains: &[T], width: usize) {
    let steps = biases.chunks_exact(width).zip(gains.chunks_exact(width));
    vectorized(|| {
        for (values, (bias, gain)) in values.chunks_exact_mut(rows * width).zip(steps) {
            for row in values.chunks_exact_mut(width) {
                let terms = bias.iter().zip(gain);
                row.iter_mut().zip(terms).for_each(|(value, (&bias, &gain))| *value = (*value + bias) * gain);
            }
        }
    });
}

/// The hidden layer `(rows, width)` of normalized values, `(rows, 2·width)` where gated.
pub(super) fn activate<T: Real>(normalized: &[T], hidden: &mut [T], width: usize, gated: bool) {
    vectorized(|| {
        if !gated {
            hidden.iter_mut().zip(normalized).for_each(|(slot, &value)| *slot = relu(value));
            return;
        }
        for (row, hidden) in normalized.chunks_exact(2 * width).zip(hidden.chunks_exact_mut(width)) {
            let (inner, gate) = row.split_at(width);
            for (slot, (&inner, &gate)) in hidden.iter_mut().zip(inner.iter().zip(gate)) {
                *slot = inner.tanh_fast() * sigmoid(gate);
            }
        }
    });
}

/// The gains of a normalization `(a + b)·g`, `g = exp(3 l)`, and where the gradients of `b` and of `l`, the factor 3 apart,
/// are added; a row of each for every step.
pub(super) struct Normalization<'a, T> {
    pub gains: &'a [T],
    pub bias: &'a mut [T],
    pub log_scale: &'a mut [T],
}

/// The adjoint of [`normalize`] and [`activate`]: normalized `values` become gradients of `a`, for the `gradient` of the
/// hidden layer.
pub(super) fn deactivate<T: Real>(
    values: &mut [T],
    gradient: &[T],
    rows: usize,
    width: usize,
    gated: bool,
    norm: Normalization<'_, T>,
) {
    let wide = if gated { 2 * width } else { width };
    let Normalization { gains, bias, log_scale } = norm;
    let steps = gains.chunks_exact(wide).zip(bias.chunks_exact_mut(wide).zip(log_scale.chunks_exact_mut(wide)));
    let blocks = values.chunks_exact_mut(rows * wide).zip(gradient.chunks_exact(rows * width));
    vectorized(|| {
        for ((values, gradient), (gain, (bias, log_scale))) in blocks.zip(steps) {
            for (row, gradient) in values.chunks_exact_mut(wide).zip(gradient.chunks_exact(width)) {
                // Gradient times value for the log-scale, before the value gives way.
                if gated {
                    let (inner, gate) = row.split_at_mut(width);
                    let (log_inner, log_gate) = log_scale.split_at_mut(width);
                    for k in 0..width {
                        let (a, s, g) = (inner[k].tanh_fast(), sigmoid(gate[k]), gradient[k]);
                        let one = T::from_f64(1.0);
                        let (of_inner, of_gate) = (g * s * (one - a * a), g * a * s * (one - s));
                        log_inner[k] += inner[k] * of_inner;
                        log_gate[k] += gate[k] * of_gate;
                        inner[k] = of_inner;
                        gate[k] = of_gate;
                    }
                } else {
                    for ((value, log_scale), &g) in row.iter_mut().zip(&mut *log_scale).zip(gradient) {
                        *log_scale += relu(*value) * g;
                        *value = if *value > T::ZERO { g } else { T::ZERO };
                    }
                }
                row.iter_mut().zip(gain).for_each(|(value, &gain)| *value *= gain);
                add(bias, row);
            }
        }
    });
}

/// The adjoint of [`rectify`] with its step's normalization, at the value that it gave: `gradient` becomes that of the
/// product before the gain, and `Σ value · gradient` of each step is added to `log_scale`.
pub(super) fn derectify<T: Real>(
    value: &[T],
    gradient: &mut [T],
    rows: usize,
    gains: &[T],
    log_scale: &mut [T],
    width: usize,
) {
    let steps = gains.chunks_exact(width).zip(log_scale.chunks_exact_mut(width));
    let blocks = value.chunks_exact(rows * width).zip(gradient.chunks_exact_mut(rows * width));
    vectorized(|| {
        for ((value, gradient), (gain, log_scale)) in blocks.zip(steps) {
            for (value, gradient) in value.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
                let terms = value.iter().zip(gain).zip(&mut *log_scale);
                for (slot, ((&value, &gain), log_scale)) in gradient.iter_mut().zip(terms) {
                    *log_scale += value * *slot;
                    *slot = if value > T::ZERO { *slot * gain } else { T::ZERO };
                }
            }
        }
    });
}
