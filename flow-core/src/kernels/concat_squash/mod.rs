//! Concat-squash networks as one kernel: value, tangents and the gradient of both, block by block.
//!
//! A layer is `h = a((W x + b) ⊙ g + s)`, where gate `g` and shift `s` depend on the row's group only and come in as
//! an argument. Tangents run through the same products as values: a block holds the values of some rows and below
//! them their tangents, so every layer is one matrix product. Nothing of the size of the batch is kept but results: the
//! gradient goes through a block in both directions while its activations are in the cache.

mod elementwise;
mod gradient;

use rayon::prelude::*;

use super::Real;
use super::gemm::{MR, Size, Start, View, gemm, transpose};
pub(crate) use elementwise::Act;
use elementwise::{Rows, squash};
pub(crate) use gradient::{Objective, gradient};

/// Rows of a block, values and tangents together.
const BLOCK: usize = 144;

/// At most so many units of parallel work, each with its own gradient of the weights,
const CHUNKS: usize = 16;

/// and none much smaller than this many rows and tangents, or the sum of those gradients costs more than they do.
const CHUNK: usize = 1024;

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
        let count = (self.rows * self.copies()).div_ceil(CHUNK).clamp(1, CHUNKS);
        let size = self.rows.div_ceil(count).max(1);
        (0..self.rows).step_by(size).map(|start| (start, size.min(self.rows - start))).collect()
    }

    /// First row and length of every block of a chunk, as even as whole tiles of the product allow.
    fn blocks(&self, (start, len): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
        let count = len.div_ceil(self.block()).max(1);
        let size = len.div_ceil(count).next_multiple_of(MR).min(self.block()).max(1);
        (0..len).step_by(size).map(move |at| (start + at, size.min(len - at)))
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
    /// A row's slopes.
    work: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(shape: &Shape) -> Self {
        let rows = shape.block() * shape.copies();
        let zeros = |w: &usize| vec![T::ZERO; rows * w];
        Scratch {
            h: shape.widths.iter().map(zeros).collect(),
            y: shape.widths[1..].iter().map(zeros).collect(),
            class: vec![0; rows],
            work: vec![T::ZERO; shape.widths.iter().copied().max().unwrap_or(0)],
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
            for row in 0..count {
                let gates = &o.hyper[shape.group(first + row) * shape.hyper() + layer.gate..][..2 * n];
                squash(act, gates, y, out, &mut self.work, Rows { row, count, copies: shape.copies() });
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
            for (first, count) in shape.blocks((start, len)) {
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
