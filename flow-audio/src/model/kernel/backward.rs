//! The backward pass over all rows of one sample.

use flow_core::kernels::{Panels, Real, Size, Start, View, gate_backward, gemm, transpose};
use rayon::prelude::*;

use super::{Activations, LayerBack, Shape, TILE, Transposed, Weights};

/// Sums of weight gradients that are kept apart until a layer is done: as many rows share one.
const SUMS: usize = 8;

/// Stretches of a row that are worked on apart: rows are enough, but for a network of one. Shapes alone decide.
fn stretches(s: &Shape) -> usize {
    if s.rows() == 1 { SUMS } else { 1 }
}

/// The gradients of all weights.
pub(in super::super) struct Gradients<T> {
    front: [Vec<T>; 2],
    layers: Vec<LayerGradients<T>>,
    head_bias: Vec<T>,
}

/// Those of one layer, laid out as the weights are, but for `head`, which is `(outputs, C)`.
struct LayerGradients<T> {
    parts: [Vec<T>; 6],
}

impl<T: Real> LayerGradients<T> {
    fn new(s: &Shape, l: usize) -> Self {
        LayerGradients { parts: s.layer_lengths(l).map(|len| vec![T::ZERO; len]) }
    }

    fn add(&mut self, other: &Self) {
        for (sum, part) in self.parts.iter_mut().zip(&other.parts) {
            sum.iter_mut().zip(part).for_each(|(sum, &v)| *sum += v);
        }
    }
}

impl<T: Real> Gradients<T> {
    pub fn new(s: &Shape) -> Self {
        let layers = (0..s.dilations.len()).map(|l| LayerGradients::new(s, l)).collect();
        let zeros = |len: usize| vec![T::ZERO; len];
        Gradients { front: [zeros(s.inputs * s.channels), zeros(s.channels)], layers, head_bias: zeros(s.outputs) }
    }

    /// In the order of the packed weights.
    pub fn packed(self, s: &Shape) -> Vec<T> {
        let mut out = Vec::with_capacity(s.lengths().iter().sum());
        self.front.into_iter().for_each(|part| out.extend(part));
        for LayerGradients { parts: [taps, condition, bias, residual, residual_bias, head] } in self.layers {
            [taps, condition, bias, residual, residual_bias].into_iter().for_each(|part| out.extend(part));
            out.extend(transpose(&head, s.channels));
        }
        out.extend(self.head_bias);
        out
    }
}

/// For one sample: from the gradient of the parameters `(rows, W, outputs)` those of the input and the context, which are
/// added to `dx` and `dcontext`, and those of the weights, which are added to `sums`.
pub(in super::super) fn backward<T: Real>(
    s: &Shape,
    weights: &Weights<T>,
    transposed: &Transposed<T>,
    activations: Activations<T>,
    [x, context, grad]: [&[T]; 3],
    [dx, dcontext]: [&mut [T]; 2],
    sums: &mut Gradients<T>,
) {
    let (c, rows) = (s.channels, s.rows());
    let mut stream = vec![T::ZERO; rows * s.width * c];
    let layers = activations.inputs.into_iter().zip(activations.gates).enumerate().rev();
    for (l, (input, gates)) in layers {
        let pass = Pass { s, l, weights: &transposed.0[l], input: &input, gates: &gates, context, grad };
        let mut slopes = vec![T::ZERO; rows * s.pitch(l) * 2 * c];
        pass.gates_and_weights(&stream, &mut slopes, dcontext, &mut sums.layers[l]);
        pass.convolution(&slopes, &mut stream);
    }
    for place in grad.chunks_exact(s.outputs) {
        sums.head_bias.iter_mut().zip(place).for_each(|(sum, &v)| *sum += v);
    }
    let [front, _] = &weights.front;
    let [front_sum, bias_sum] = &mut sums.front;
    let places = dx.chunks_exact_mut(s.inputs).zip(x.chunks_exact(s.inputs));
    for ((dx, x), stream) in places.zip(stream.chunks_exact(c)) {
        let weights = front.chunks_exact(c).zip(front_sum.chunks_exact_mut(c));
        for ((dx, &x), (weight, sum)) in dx.iter_mut().zip(x).zip(weights) {
            let mut dot = T::ZERO;
            for ((&g, &w), of_weight) in stream.iter().zip(weight).zip(sum) {
                dot += g * w;
                *of_weight += g * x;
            }
            *dx += dot;
        }
        bias_sum.iter_mut().zip(stream).for_each(|(sum, &g)| *sum += g);
    }
}

/// One layer of one sample.
struct Pass<'a, T> {
    s: &'a Shape,
    l: usize,
    weights: &'a LayerBack<T>,
    input: &'a [T],
    gates: &'a [T],
    context: &'a [T],
    grad: &'a [T],
}

/// What the gradients of a stretch of one row are read from and written to.
struct RowWork<'a, T> {
    r: usize,
    /// The stretch's first column.
    begin: usize,
    /// The gradient of the layer's output, `(columns, C)`.
    stream: &'a [T],
    /// The gradient before the gate.
    slopes: &'a mut [T],
    context: &'a mut [T],
}

/// Buffers of one thread.
struct Workspace<T> {
    gradient: Vec<T>,
    gated: Vec<T>,
    slopes: Panels<T>,
    stream: Panels<T>,
}

impl<T: Real> Pass<'_, T> {
    /// The gradient before the gate, that of the context, and those of the weights.
    fn gates_and_weights(&self, stream: &[T], slopes: &mut [T], dcontext: &mut [T], sums: &mut LayerGradients<T>) {
        let (s, c) = (self.s, self.s.channels);
        // The context's rows in the order of the network's, which need not see all of them.
        let mut contexts: Vec<_> = dcontext.chunks_exact_mut(s.width * s.context).map(Some).collect();
        let right = 2 * s.dilations[self.l][1] - s.left(self.l);
        let columns = s.width.div_ceil(stretches(s)).next_multiple_of(s.tile()).max(1);
        let padded = slopes.chunks_exact_mut(s.pitch(self.l) * 2 * c);
        let mut work: Vec<RowWork<'_, T>> = Vec::with_capacity(s.rows());
        for (r, ((stream, slopes), &row)) in stream.chunks_exact(s.width * c).zip(padded).zip(&s.order).enumerate() {
            let Some(context) = contexts[row].take() else { continue };
            let slopes = slopes[right * 2 * c..][..s.width * 2 * c].chunks_mut(columns * 2 * c);
            let parts = stream.chunks(columns * c).zip(slopes).zip(context.chunks_mut(columns * s.context));
            for (i, ((stream, slopes), context)) in parts.enumerate() {
                work.push(RowWork { r, begin: i * columns, stream, slopes, context });
            }
        }
        let share = work.len().div_ceil(SUMS).max(1);
        let found: Vec<LayerGradients<T>> = work
            .par_chunks_mut(share)
            .map(|rows| {
                let mut sums = LayerGradients::new(s, self.l);
                let zeros = |n: usize| vec![T::ZERO; TILE * n];
                let mut buffers = Workspace {
                    gradient: zeros(c),
                    gated: zeros(c),
                    slopes: Panels::zeros(TILE, 2 * c),
                    stream: Panels::zeros(TILE, c),
                };
                rows.iter_mut().for_each(|row| self.row(row, &mut buffers, &mut sums));
                sums
            })
            .collect();
        found.iter().for_each(|part| sums.add(part));
    }

    fn row(&self, row: &mut RowWork<'_, T>, buffers: &mut Workspace<T>, sums: &mut LayerGradients<T>) {
        let columns = row.stream.len() / self.s.channels;
        for from in (0..columns).step_by(self.s.tile()) {
            let m = self.s.tile().min(columns - from);
            self.tile(row, from, m, buffers, sums);
        }
    }

    fn tile(
        &self,
        row: &mut RowWork<'_, T>,
        from: usize,
        m: usize,
        buffers: &mut Workspace<T>,
        sums: &mut LayerGradients<T>,
    ) {
        let (s, c, r) = (self.s, self.s.channels, row.r);
        // Columns of the stretch, and of the whole row.
        let column = row.begin + from;
        let stream = &row.stream[from * c..][..m * c];
        let grad = &self.grad[(r * s.width + column) * s.outputs..][..m * s.outputs];
        let (gradient, gated) = (&mut buffers.gradient[..m * c], &mut buffers.gated[..m * c]);
        self.weights.head.product(m, View::rows(grad, s.outputs), gradient, Start::Zero, false);
        if let Some(residual) = &self.weights.residual {
            residual.product(m, View::rows(stream, c), gradient, Start::Old, false);
        }
        let gates = &self.gates[(r * s.width + column) * 2 * c..][..m * 2 * c];
        let slopes = &mut row.slopes[from * 2 * c..][..m * 2 * c];
        gate_backward(c, gates, gradient, gated, slopes);
        let context = &mut row.context[from * s.context..][..m * s.context];
        self.weights.condition.product(m, View::rows(slopes, 2 * c), context, Start::Old, false);

        let [taps, condition, bias, residual, residual_bias, head] = &mut sums.parts;
        buffers.slopes.pack(slopes);
        let d = s.dilations[self.l][1];
        for u in 0..s.kernel_rows {
            let Some(seen) = s.tap_row(self.l, u, r) else { continue };
            let seen = &self.input[seen * s.pitch(self.l) * c..][..s.pitch(self.l) * c];
            for v in 0..3 {
                let view = View::transposed(&seen[(column + v * d) * c..], c);
                let sum = &mut taps[(u * 3 + v) * 2 * c * c..][..2 * c * c];
                buffers.slopes.product(c, view, sum, Start::Old, false);
            }
        }
        let known = &s.context_row(self.context, r)[column * s.context..];
        buffers.slopes.product(s.context, View::transposed(known, s.context), condition, Start::Old, false);
        add_rows(slopes, bias);
        if self.weights.residual.is_some() {
            buffers.stream.pack(stream);
            buffers.stream.product(c, View::transposed(gated, c), residual, Start::Old, false);
            add_rows(stream, residual_bias);
        }
        gemm(Size { m: s.outputs, k: m, n: c }, View::transposed(grad, s.outputs), gated, head, Start::Old, false);
    }

    /// Adds to the gradient of the layer's output what reaches its input through the convolution: the gradient of the input.
    ///
    /// Output column `j` saw input columns `j + v d - left`; so input column `j` was seen by `j + left - v d`.
    fn convolution(&self, slopes: &[T], stream: &mut [T]) {
        let (s, c) = (self.s, self.s.channels);
        let (pitch, [rows, d]) = (s.pitch(self.l) * 2 * c, s.dilations[self.l]);
        let mut work = Vec::with_capacity(s.rows() * s.width.div_ceil(s.tile()));
        for (r, row) in stream.chunks_exact_mut(s.width * c).enumerate() {
            work.extend(row.chunks_mut(s.tile() * c).enumerate().map(|(i, tile)| (r, i * s.tile(), tile)));
        }
        work.into_par_iter().for_each(|(r, from, tile)| {
            for (u, weights) in self.weights.taps.iter().enumerate() {
                let by = r + (s.kernel_rows - 1 - u) * rows;
                if by >= s.rows() {
                    continue;
                }
                let row = &slopes[by * pitch..][..pitch];
                let parts = [0, 1, 2].map(|v| View::rows(&row[(from + (2 - v) * d) * 2 * c..], 2 * c));
                weights.product_of_parts(tile.len() / c, &parts, tile, Start::Old, false);
            }
        });
    }
}

/// Adds every row to `sum`.
fn add_rows<T: Real>(rows: &[T], sum: &mut [T]) {
    for row in rows.chunks_exact(sum.len()) {
        sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += v);
    }
}
