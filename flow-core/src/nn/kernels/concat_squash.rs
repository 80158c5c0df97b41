//! Concat-squash networks as one kernel: value, tangents and the gradient of both, block by block.
//!
//! A layer is `h = a((W x + b) ⊙ g + s)`, where gate `g` and shift `s` depend on the row's group only and come in as
//! an argument. Tangents run through the same products as values: a block holds the values of some rows and below
//! them their tangents, so every layer is one matrix product. Nothing of the size of the batch is kept but results: the
//! backward pass recomputes activations in the cache.

use rayon::prelude::*;

use super::conv::transpose;
use super::gemm::{Size, Start, View, gemm};
use super::{Real, vectorized};

/// Rows of a block, values and tangents together.
const BLOCK: usize = 144;

/// At most so many units of parallel work, each with its own gradient of the weights.
const CHUNKS: usize = 16;

/// The nonlinearity between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Tanh,
    Softplus,
    Swish,
}

/// `1/(1 + e^-x)`.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let one = T::from_f64(1.0);
    one / (one + (T::ZERO - x).exp_bounded())
}

impl Act {
    /// Value, slope and curvature.
    #[inline(always)]
    fn derivatives<T: Real>(self, u: T) -> [T; 3] {
        let (one, two) = (T::from_f64(1.0), T::from_f64(2.0));
        match self {
            Act::Tanh => {
                let h = u.tanh_fast();
                let slope = one - h * h;
                [h, slope, T::ZERO - two * h * slope]
            }
            Act::Softplus => {
                let s = sigmoid(u);
                [u.softplus(), s, s * (one - s)]
            }
            Act::Swish => {
                let s = sigmoid(u);
                let bend = s * (one - s);
                [u * s, s + u * bend, bend * (two + u * (one - two * s))]
            }
        }
    }
}

/// The sizes of a network and of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Width of every layer, input and output included; both are `D`.
    pub widths: Vec<usize>,
    pub act: Act,
    /// Rows of the batch.
    pub rows: usize,
    /// Groups of consecutive rows, each with its gates and shifts.
    pub groups: usize,
    /// Tangents of every row.
    pub tangents: usize,
}

impl Shape {
    fn dim(&self) -> usize {
        self.widths[0]
    }

    fn layers(&self) -> usize {
        self.widths.len() - 1
    }

    /// Length of the packed weights: `W (out, in)` and `b (out)` of every layer.
    pub fn weights(&self) -> usize {
        self.widths.windows(2).map(|w| w[1] * (w[0] + 1)).sum()
    }

    /// Length of a group's gates and shifts: `g (out)` then `s (out)` of every layer.
    pub fn hyper(&self) -> usize {
        2 * self.widths[1..].iter().sum::<usize>()
    }

    /// Values and tangents of a row.
    fn copies(&self) -> usize {
        self.tangents + 1
    }

    fn block(&self) -> usize {
        (BLOCK / self.copies()).max(1)
    }

    /// First row and length of every unit of work. Depends on shapes alone.
    fn chunks(&self) -> Vec<(usize, usize)> {
        let blocks = self.rows.div_ceil(self.block()).max(1);
        let per_chunk = blocks.div_ceil(CHUNKS) * self.block();
        (0..self.rows).step_by(per_chunk).map(|start| (start, per_chunk.min(self.rows - start))).collect()
    }

    fn group(&self, row: usize) -> usize {
        row / (self.rows / self.groups)
    }
}

/// The operands of a pass.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, T> {
    /// `(rows, D)`.
    pub x: &'a [T],
    /// Packed weights.
    pub weights: &'a [T],
    /// `(groups, hyper)`.
    pub hyper: &'a [T],
    /// `(tangents, rows, D)`.
    pub tangents: &'a [T],
}

/// One layer's weights in the layouts of the products.
struct Layer<'a, T> {
    /// `(out, in)`.
    weight: &'a [T],
    /// `(in, out)`.
    transposed: Vec<T>,
    /// Bias, then zeros: what rows of values and rows of tangents start from.
    table: Vec<T>,
    inputs: usize,
    outputs: usize,
    /// Where the layer's gates begin in a group's row.
    gate: usize,
}

fn layers<'a, T: Real>(shape: &Shape, mut flat: &'a [T]) -> Vec<Layer<'a, T>> {
    let mut gate = 0;
    let cut = |w: &[usize]| {
        let (inputs, outputs) = (w[0], w[1]);
        let (weight, rest) = flat.split_at(inputs * outputs);
        let (bias, rest) = rest.split_at(outputs);
        flat = rest;
        let mut table = bias.to_vec();
        table.resize(2 * outputs, T::ZERO);
        gate += 2 * outputs;
        Layer { weight, transposed: transpose(weight, inputs), table, inputs, outputs, gate: gate - 2 * outputs }
    };
    shape.widths.windows(2).map(cut).collect()
}

/// The activations of one block.
struct Scratch<T> {
    /// Input of every layer and the output of the last, `(copies·rows, width)`.
    h: Vec<Vec<T>>,
    /// `W x + b` of every layer.
    y: Vec<Vec<T>>,
    /// Which row of a bias table each row starts from.
    class: Vec<u8>,
}

impl<T: Real> Scratch<T> {
    fn new(shape: &Shape) -> Self {
        let rows = shape.block() * shape.copies();
        let zeros = |w: &usize| vec![T::ZERO; rows * w];
        Scratch {
            h: shape.widths.iter().map(zeros).collect(),
            y: shape.widths[1..].iter().map(zeros).collect(),
            class: vec![0; rows],
        }
    }

    /// Values and tangents of `count` rows from `first` on, through all layers.
    fn forward(&mut self, shape: &Shape, layers: &[Layer<'_, T>], o: &Operands<'_, T>, first: usize, count: usize) {
        let dim = shape.dim();
        let total = count * shape.copies();
        for copy in 0..shape.copies() {
            let source = match copy {
                0 => &o.x[first * dim..(first + count) * dim],
                k => &o.tangents[((k - 1) * shape.rows + first) * dim..][..count * dim],
            };
            self.h[0][copy * count * dim..][..count * dim].copy_from_slice(source);
            self.class[copy * count..][..count].fill(u8::from(copy > 0));
        }
        for (l, layer) in layers.iter().enumerate() {
            let (n, last) = (layer.outputs, l + 1 == layers.len());
            let (below, above) = self.h.split_at_mut(l + 1);
            let (input, out) = (&below[l], &mut above[0][..total * n]);
            let y = &mut self.y[l][..total * n];
            let start = Start::Table { table: &layer.table, class: &self.class };
            gemm(
                Size { m: total, k: layer.inputs, n },
                View::rows(input, layer.inputs),
                &layer.transposed,
                y,
                start,
                false,
            );
            let act = if last { None } else { Some(shape.act) };
            for r in 0..count {
                let gates = &o.hyper[shape.group(first + r) * shape.hyper() + layer.gate..][..2 * n];
                squash(act, gates, y, out, r, count, shape.copies());
            }
        }
    }
}

/// Gate, shift and activation of one row and of its tangents.
#[inline(always)]
fn squash<T: Real>(act: Option<Act>, gates: &[T], y: &[T], out: &mut [T], row: usize, count: usize, copies: usize) {
    let n = gates.len() / 2;
    let (g, s) = gates.split_at(n);
    vectorized(|| match act {
        None => {
            affine(&y[row * n..][..n], g, s, &mut out[row * n..][..n]);
            for k in 1..copies {
                let at = (k * count + row) * n;
                let (y, out) = (&y[at..][..n], &mut out[at..][..n]);
                for j in 0..n {
                    out[j] = y[j] * g[j];
                }
            }
        }
        // Matched here, outside the loops, so that each is compiled for its own activation.
        Some(Act::Tanh) => activate(Act::Tanh, g, s, y, out, row, count, copies),
        Some(Act::Softplus) => activate(Act::Softplus, g, s, y, out, row, count, copies),
        Some(Act::Swish) => activate(Act::Swish, g, s, y, out, row, count, copies),
    });
}

#[inline(always)]
fn affine<T: Real>(y: &[T], g: &[T], s: &[T], out: &mut [T]) {
    let n = out.len();
    let (y, g, s) = (&y[..n], &g[..n], &s[..n]);
    for j in 0..n {
        out[j] = y[j] * g[j] + s[j];
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one row of a block, inlined into its loop")]
fn activate<T: Real>(act: Act, g: &[T], s: &[T], y: &[T], out: &mut [T], row: usize, count: usize, copies: usize) {
    let n = g.len();
    // Lengths that the compiler knows to be equal, or the loops do not vectorise.
    let s = &s[..n];
    if copies == 1 {
        let (y, out) = (&y[row * n..][..n], &mut out[row * n..][..n]);
        for j in 0..n {
            out[j] = act.derivatives(y[j] * g[j] + s[j])[0];
        }
        return;
    }
    // The slope times the gate waits where the first tangent's result will be.
    let (values, tangents) = out.split_at_mut(count * n);
    {
        let (y, h, slope) = (&y[row * n..][..n], &mut values[row * n..][..n], &mut tangents[row * n..][..n]);
        for j in 0..n {
            let [value, steepness, _] = act.derivatives(y[j] * g[j] + s[j]);
            h[j] = value;
            slope[j] = steepness * g[j];
        }
    }
    for k in (1..copies).rev() {
        let yk = &y[(k * count + row) * n..][..n];
        if k == 1 {
            let slope = &mut tangents[row * n..][..n];
            for j in 0..n {
                slope[j] *= yk[j];
            }
        } else {
            let (first, rest) = tangents.split_at_mut(count * n);
            let (slope, out) = (&first[row * n..][..n], &mut rest[((k - 2) * count + row) * n..][..n]);
            for j in 0..n {
                out[j] = slope[j] * yk[j];
            }
        }
    }
}

/// The value of every row, `(rows, D)`, then the tangents', `(tangents, rows, D)`.
pub(crate) fn forward<T: Real>(shape: &Shape, o: &Operands<'_, T>) -> Vec<T> {
    let layers = layers(shape, o.weights);
    let dim = shape.dim();
    let mut out = vec![T::ZERO; shape.copies() * shape.rows * dim];
    let chunks = shape.chunks();
    let results: Vec<Vec<T>> = chunks
        .par_iter()
        .map(|&(start, len)| {
            let mut scratch = Scratch::new(shape);
            let mut result = vec![T::ZERO; shape.copies() * len * dim];
            for first in (start..start + len).step_by(shape.block()) {
                let count = shape.block().min(start + len - first);
                scratch.forward(shape, &layers, o, first, count);
                let top = &scratch.h[shape.layers()];
                for copy in 0..shape.copies() {
                    result[(copy * len + first - start) * dim..][..count * dim]
                        .copy_from_slice(&top[copy * count * dim..][..count * dim]);
                }
            }
            result
        })
        .collect();
    for (&(start, len), result) in chunks.iter().zip(&results) {
        for copy in 0..shape.copies() {
            out[(copy * shape.rows + start) * dim..][..len * dim]
                .copy_from_slice(&result[copy * len * dim..][..len * dim]);
        }
    }
    out
}

/// Gradients of the operands.
pub(crate) struct Gradient<T> {
    /// `(rows, D)`.
    pub x: Vec<T>,
    pub weights: Vec<T>,
    /// `(groups, hyper)`.
    pub hyper: Vec<T>,
}

/// The gradient of `⟨forward, cotangent⟩` with respect to all operands but the tangents.
pub(crate) fn backward<T: Real>(shape: &Shape, o: &Operands<'_, T>, cotangent: &[T]) -> Gradient<T> {
    let layers = layers(shape, o.weights);
    let dim = shape.dim();
    let chunks = shape.chunks();
    let parts: Vec<Gradient<T>> =
        chunks.par_iter().map(|&chunk| chunk_backward(shape, &layers, o, cotangent, chunk)).collect();
    let mut total = Gradient {
        x: Vec::with_capacity(shape.rows * dim),
        weights: vec![T::ZERO; shape.weights()],
        hyper: vec![T::ZERO; shape.groups * shape.hyper()],
    };
    for (&(start, _), part) in chunks.iter().zip(&parts) {
        total.x.extend_from_slice(&part.x);
        let at = shape.group(start) * shape.hyper();
        total.hyper[at..at + part.hyper.len()].iter_mut().zip(&part.hyper).for_each(|(t, &v)| *t += v);
    }
    // Split by weight, so that the sum over chunks is parallel and its order fixed.
    total.weights.par_chunks_mut(16 * 1024).enumerate().for_each(|(i, slot)| {
        for part in &parts {
            slot.iter_mut().zip(&part.weights[i * 16 * 1024..]).for_each(|(t, &v)| *t += v);
        }
    });
    total
}

fn chunk_backward<T: Real>(
    shape: &Shape,
    layers: &[Layer<'_, T>],
    o: &Operands<'_, T>,
    cotangent: &[T],
    (start, len): (usize, usize),
) -> Gradient<T> {
    let (dim, copies) = (shape.dim(), shape.copies());
    let first_group = shape.group(start);
    let groups = shape.group(start + len - 1) - first_group + 1;
    let mut grad = Gradient {
        x: vec![T::ZERO; len * dim],
        weights: vec![T::ZERO; shape.weights()],
        hyper: vec![T::ZERO; groups * shape.hyper()],
    };
    let mut scratch = Scratch::new(shape);
    let widest = shape.widths.iter().copied().max().unwrap_or(0);
    let mut above = vec![T::ZERO; shape.block() * copies * widest];
    let mut below = above.clone();
    for first in (start..start + len).step_by(shape.block()) {
        let count = shape.block().min(start + len - first);
        let total = count * copies;
        scratch.forward(shape, layers, o, first, count);
        for copy in 0..copies {
            above[copy * count * dim..][..count * dim]
                .copy_from_slice(&cotangent[(copy * shape.rows + first) * dim..][..count * dim]);
        }
        let mut end = shape.weights();
        for (l, layer) in layers.iter().enumerate().rev() {
            let (n, k) = (layer.outputs, layer.inputs);
            let begin = end - n * (k + 1);
            let act = if l + 1 == layers.len() { None } else { Some(shape.act) };
            let y = &scratch.y[l][..total * n];
            let (weight, bias) = grad.weights[begin..end].split_at_mut(n * k);
            for r in 0..count {
                let group = shape.group(first + r);
                let gates = &o.hyper[group * shape.hyper() + layer.gate..][..2 * n];
                let sums = &mut grad.hyper[(group - first_group) * shape.hyper() + layer.gate..][..2 * n];
                unsquash(act, gates, y, &mut above, sums, bias, r, count, copies);
            }
            let dy = &above[..total * n];
            let input = &scratch.h[l][..total * k];
            gemm(Size { m: n, k: total, n: k }, View::transposed(dy, n), input, weight, Start::Old, false);
            gemm(
                Size { m: total, k: n, n: k },
                View::rows(dy, n),
                layer.weight,
                &mut below[..total * k],
                Start::Zero,
                false,
            );
            std::mem::swap(&mut above, &mut below);
            end = begin;
        }
        grad.x[(first - start) * dim..][..count * dim].copy_from_slice(&above[..count * dim]);
    }
    grad
}

/// The adjoint of [`squash`] in place: `grad` holds gradients of the layer's outputs and gets those of `y`; sums over
/// rows go to the gates and shifts of the group and to the bias.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one row of a block, inlined into its loop")]
fn unsquash<T: Real>(
    act: Option<Act>,
    gates: &[T],
    y: &[T],
    grad: &mut [T],
    sums: &mut [T],
    bias: &mut [T],
    row: usize,
    count: usize,
    copies: usize,
) {
    let n = gates.len() / 2;
    let (g, s) = gates.split_at(n);
    let (dg, ds) = sums.split_at_mut(n);
    vectorized(|| match act {
        None => {
            for copy in 0..copies {
                let at = (copy * count + row) * n;
                let (y, d) = (&y[at..][..n], &mut grad[at..][..n]);
                for j in 0..n {
                    dg[j] += d[j] * y[j];
                    if copy == 0 {
                        ds[j] += d[j];
                        bias[j] += d[j] * g[j];
                    }
                    d[j] *= g[j];
                }
            }
        }
        Some(Act::Tanh) => deactivate(Act::Tanh, g, s, y, grad, dg, ds, bias, row, count, copies),
        Some(Act::Softplus) => deactivate(Act::Softplus, g, s, y, grad, dg, ds, bias, row, count, copies),
        Some(Act::Swish) => deactivate(Act::Swish, g, s, y, grad, dg, ds, bias, row, count, copies),
    });
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one row of a block, inlined into its loop")]
fn deactivate<T: Real>(
    act: Act,
    g: &[T],
    s: &[T],
    y: &[T],
    grad: &mut [T],
    dg: &mut [T],
    ds: &mut [T],
    bias: &mut [T],
    row: usize,
    count: usize,
    copies: usize,
) {
    let n = g.len();
    let (values, tangents) = grad.split_at_mut(count * n);
    let (y0, d0) = (&y[row * n..][..n], &mut values[row * n..][..n]);
    let (dg, ds, bias, s) = (&mut dg[..n], &mut ds[..n], &mut bias[..n], &s[..n]);
    if copies == 1 {
        for j in 0..n {
            let [_, slope, _] = act.derivatives(y0[j] * g[j] + s[j]);
            let du = d0[j] * slope;
            dg[j] += du * y0[j];
            ds[j] += du;
            bias[j] += du * g[j];
            d0[j] = du * g[j];
        }
        return;
    }
    for j in 0..n {
        let [_, slope, bend] = act.derivatives(y0[j] * g[j] + s[j]);
        let mut along = T::ZERO;
        let mut gate = T::ZERO;
        for k in 1..copies {
            let (dot, d) = (y[(k * count + row) * n + j], &mut tangents[((k - 1) * count + row) * n + j]);
            // Through the tangent: ḣ = a'(u)·u̇ with u̇ = ẏ·g.
            along += *d * dot;
            let du = *d * slope;
            gate += du * dot;
            *d = du * g[j];
        }
        let du = d0[j] * slope + along * g[j] * bend;
        dg[j] += du * y0[j] + gate;
        ds[j] += du;
        bias[j] += du * g[j];
        d0[j] = du * g[j];
    }
}
