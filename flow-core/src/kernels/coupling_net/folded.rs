//! The parameters of the network as its products take them: scales and edges folded into the weights, and the adjoint of
//! that.

use super::super::gemm::View;
use super::super::panels::Panels;
use super::super::patches::{CLASSES, tap_outside};
use super::super::{LOG_SCALE_FACTOR, Real};
use super::{PARAMETERS, Shape, TAPS};

/// Views of the parameters, in the order of [`Shape::parameter_lengths`].
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a, T>(pub [&'a [T]; PARAMETERS]);

impl<'a, T> Packed<'a, T> {
    /// Parameters that lie one after the other.
    pub fn new(shape: &Shape, mut flat: &'a [T]) -> Self {
        Packed(shape.parameter_lengths().map(|len| {
            let (head, tail) = flat.split_at(len);
            flat = tail;
            head
        }))
    }
}

/// Weights with scales and edges folded in, packed for the products.
pub(crate) struct Folded<T> {
    /// `(9·C, H)`.
    pub(super) first: Panels<T>,
    /// Bias by border class, `(16, H)`.
    pub(super) first_bias: Vec<T>,
    /// `(H, H)`, input-major; `(H, 2·H)` with the gate's beside it.
    pub(super) second: Panels<T>,
    /// One row.
    pub(super) second_bias: Vec<T>,
    /// `(H, 9·O)`; taps mirrored, so that the output is a scatter of the product.
    pub(super) third: Panels<T>,
    /// `(16, O)`.
    pub(super) third_bias: Vec<T>,
    gains: Gains<T>,
}

/// `exp(3 l)` of every normalization.
struct Gains<T> {
    first: Vec<T>,
    /// With the gate's behind it.
    second: Vec<T>,
    third: Vec<T>,
}

impl<T: Real> Gains<T> {
    fn new(l1: &[T], l2: &[T], gate: &[T], l3: &[T]) -> Self {
        let scale = |log: &T| T::from_f64((LOG_SCALE_FACTOR * log.to_f64()).exp());
        Gains {
            first: l1.iter().map(scale).collect(),
            second: l2.iter().chain(gate).map(scale).collect(),
            third: l3.iter().map(scale).collect(),
        }
    }
}

impl<T: Real> Folded<T> {
    /// Folds the parameters.
    pub fn new(s: &Shape, parameters: Packed<'_, T>) -> Self {
        let Packed([w1, b1, l1, w2, b2, l2, w3, b3, l3, w_gate, b_gate, l_gate]) = parameters;
        let (c, h, o) = (s.inputs, s.hidden, s.outputs);
        let gains = Gains::new(l1, l2, l_gate, l3);
        let mut first = Panels::zeros(TAPS * c, h);
        let mut third = Panels::zeros(h, TAPS * o);
        for tap in 0..TAPS {
            let source = View { data: &w1[tap..], row: (c + 1) * TAPS, col: TAPS };
            first.set((tap * c, 0), c, source, &gains.first);
            let source = View { data: &w3[tap..], row: (h + 1) * TAPS, col: TAPS };
            third.set((0, (TAPS - 1 - tap) * o), h, source, &gains.third);
        }
        let mut second = Panels::zeros(h, s.middle());
        let (gains2, gains_gate) = gains.second.split_at(h);
        second.set((0, 0), h, View::rows(w2, h), gains2);
        second.set((0, h), h, View::rows(w_gate, h), gains_gate);
        Folded {
            first,
            first_bias: edge_biases(w1, b1, &gains.first),
            second,
            second_bias: b2.iter().chain(b_gate).zip(&gains.second).map(|(&b, &gain)| b * gain).collect(),
            third,
            third_bias: edge_biases(w3, b3, &gains.third),
            gains,
        }
    }
}

/// The biases of every border class, `(16, N)`, for `weights (N, …, 9)` whose last channel is the edge's.
fn edge_biases<T: Real>(weights: &[T], bias: &[T], gains: &[T]) -> Vec<T> {
    let (n, mut table) = (bias.len(), vec![T::ZERO; CLASSES * bias.len()]);
    for (j, row) in weights.chunks_exact(weights.len() / n).enumerate() {
        let taps = &row[row.len() - TAPS..];
        for class in 0..CLASSES {
            let outside = taps.iter().enumerate().filter(|&(t, _)| tap_outside(class, t));
            let edge = outside.fold(T::ZERO, |sum, (_, &v)| sum + v);
            table[class * n + j] = (bias[j] + edge) * gains[j];
        }
    }
    table
}

/// Gradients of folded weights and biases, shaped like those of [`Folded`] but in plain rows.
pub(super) struct Sums<T> {
    pub(super) first: Vec<T>,
    pub(super) first_bias: Vec<T>,
    pub(super) second: Vec<T>,
    pub(super) second_bias: Vec<T>,
    pub(super) third: Vec<T>,
    pub(super) third_bias: Vec<T>,
}

impl<T: Real> Sums<T> {
    pub(super) fn zeros(s: &Shape) -> Self {
        let zero = |n| vec![T::ZERO; n];
        Sums {
            first: zero(TAPS * s.inputs * s.hidden),
            first_bias: zero(CLASSES * s.hidden),
            second: zero(s.hidden * s.middle()),
            second_bias: zero(s.middle()),
            third: zero(s.hidden * TAPS * s.outputs),
            third_bias: zero(CLASSES * s.outputs),
        }
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

    /// The adjoint of [`Folded::new`]: the gradient of the parameters, one after the other.
    pub(super) fn unfold(&self, s: &Shape, f: &Folded<T>) -> Vec<T> {
        let (c, h, o) = (s.inputs, s.hidden, s.outputs);
        let mut out = vec![T::ZERO; s.parameter_lengths().iter().sum()];
        let mut rest = out.as_mut_slice();
        let [w1, b1, l1, w2, b2, l2, w3, b3, l3, w_gate, b_gate, l_gate] = s.parameter_lengths().map(|len| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            head
        });
        for tap in 0..TAPS {
            let rows = &self.first[tap * c * h..(tap + 1) * c * h];
            columns_to_rows(rows, h, 0, &f.gains.first, &mut w1[tap..], [(c + 1) * TAPS, TAPS]);
            let column = (TAPS - 1 - tap) * o;
            columns_to_rows(&self.third, TAPS * o, column, &f.gains.third, &mut w3[tap..], [(h + 1) * TAPS, TAPS]);
        }
        let (gains2, gains_gate) = f.gains.second.split_at(h);
        columns_to_rows(&self.second, s.middle(), 0, gains2, w2, [h, 1]);
        columns_to_rows(&self.second, s.middle(), h, gains_gate, w_gate, [h, 1]);
        edge_gradients(&self.first_bias, &f.gains.first, w1, b1);
        edge_gradients(&self.third_bias, &f.gains.third, w3, b3);
        let biases = b2.iter_mut().chain(b_gate).zip(self.second_bias.iter().zip(&f.gains.second));
        biases.for_each(|(slot, (&g, &gain))| *slot = g * gain);
        let (weights, biases) = ((&f.first, &self.first[..]), (&f.first_bias[..], &self.first_bias[..]));
        log_gradients(h, weights, biases, l1.iter_mut());
        let (weights, biases) = ((&f.second, &self.second[..]), (&f.second_bias[..], &self.second_bias[..]));
        log_gradients(s.middle(), weights, biases, l2.iter_mut().chain(l_gate));
        let (weights, biases) = ((&f.third, &self.third[..]), (&f.third_bias[..], &self.third_bias[..]));
        log_gradients(o, weights, biases, l3.iter_mut());
        out
    }
}

/// Sets `out[j·row + i·col]`, for `strides` `row` and `col`, to `matrix[i][column + j]·gains[j]`; `matrix` has `width`
/// columns.
fn columns_to_rows<T: Real>(
    matrix: &[T],
    width: usize,
    column: usize,
    gains: &[T],
    out: &mut [T],
    [row, col]: [usize; 2],
) {
    /// Columns at a time, so that what is read and what is written stay in the cache.
    const TILE: usize = 8;
    for (tile, gains) in gains.chunks(TILE).enumerate() {
        for (i, from) in matrix.chunks_exact(width).enumerate() {
            let from = &from[column + tile * TILE..][..gains.len()];
            for (j, (&v, &gain)) in (tile * TILE..).zip(from.iter().zip(gains)) {
                out[j * row + i * col] = v * gain;
            }
        }
    }
}

/// Gradients of the edge's taps, at the end of each row of `weights`, and of the bias, for those of a bias table.
fn edge_gradients<T: Real>(table: &[T], gains: &[T], weights: &mut [T], bias: &mut [T]) {
    let n = bias.len();
    let row_len = weights.len() / n;
    for (j, (row, bias)) in weights.chunks_exact_mut(row_len).zip(bias).enumerate() {
        for class in 0..CLASSES {
            let g = table[class * n + j] * gains[j];
            *bias += g;
            let taps = row[row_len - TAPS..].iter_mut().enumerate();
            taps.filter(|&(t, _)| tap_outside(class, t)).for_each(|(_, slot)| *slot += g);
        }
    }
}

/// Gradients of log-scales: everything folded is linear in `exp(3 l)`, so each is `3 Σ value · gradient` over the columns
/// that it scales, those of its number modulo the number of log-scales.
fn log_gradients<'a, T: Real>(
    count: usize,
    (weights, weight_grads): (&Panels<T>, &[T]),
    (biases, bias_grads): (&[T], &[T]),
    slots: impl Iterator<Item = &'a mut T>,
) {
    let [mut of_weights, mut of_biases] = [vec![0.0; count], vec![0.0; count]];
    let columns = weights.columns();
    let mut take = |i: usize, j: usize| {
        let mut at = j % count;
        for (v, g) in weights.run(i, j).iter().zip(&weight_grads[i * columns + j..]) {
            of_weights[at] += v.to_f64() * g.to_f64();
            at = if at + 1 == count { 0 } else { at + 1 };
        }
    };
    if count == columns {
        weights.starts().for_each(|j| (0..weights.rows()).for_each(|i| take(i, j)));
    } else {
        (0..weights.rows()).for_each(|i| weights.starts().for_each(|j| take(i, j)));
    }
    for (values, grads) in biases.chunks_exact(count).zip(bias_grads.chunks_exact(count)) {
        let products = values.iter().zip(grads).map(|(v, g)| v.to_f64() * g.to_f64());
        of_biases.iter_mut().zip(products).for_each(|(sum, p): (&mut f64, f64)| *sum += p);
    }
    for (slot, (w, b)) in slots.zip(of_weights.iter().zip(&of_biases)) {
        *slot = T::from_f64(LOG_SCALE_FACTOR * (w + b));
    }
}
