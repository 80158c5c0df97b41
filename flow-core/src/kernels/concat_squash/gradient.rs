//! The gradient of an objective of the outputs, in one sweep: every block goes up and down while it is in the cache.

use rayon::prelude::*;

use super::super::Real;
use super::super::gemm::{Size, Start, View, gemm};
use super::elementwise::{Rows, unsquash};
use super::{Layer, Operands, Scratch, Shape, layers};

/// What the gradient is taken of.
#[derive(Clone, Copy)]
pub(crate) enum Objective<'a, T> {
    /// The inner product of values and tangents with these, `(1 + tangents, rows, D)`.
    Pairing(&'a [T]),
    /// The sum of the values' squared distances from these, `(rows, D)`.
    SquaredError(&'a [T]),
}

/// The objective and its gradients.
pub(crate) struct Gradient<T> {
    pub objective: f64,
    /// The values, `(rows, D)`.
    pub output: Vec<T>,
    /// `(rows, D)`.
    pub x: Vec<T>,
    pub weights: Vec<T>,
    /// `(groups, hyper)`.
    pub hyper: Vec<T>,
}

impl<T: Real> Gradient<T> {
    fn zero(shape: &Shape, rows: usize, groups: usize) -> Self {
        let zeros = |len: usize| vec![T::ZERO; len];
        Gradient {
            objective: 0.0,
            output: zeros(rows * shape.dim()),
            x: zeros(rows * shape.dim()),
            weights: zeros(shape.weights()),
            hyper: zeros(groups * shape.hyper()),
        }
    }
}

/// Objective, values, and the gradient with respect to all operands but the tangents.
pub(crate) fn gradient<T: Real>(shape: &Shape, o: &Operands<'_, T>, objective: Objective<'_, T>) -> Gradient<T> {
    let sweep = Sweep { shape, layers: &layers(shape, o.weights), operands: o, objective };
    let dim = shape.dim();
    let chunks = shape.chunks();
    let parts: Vec<Gradient<T>> = chunks.par_iter().map(|&chunk| sweep.chunk(chunk)).collect();
    let mut total = Gradient::zero(shape, shape.rows, shape.groups);
    for (&(start, len), part) in chunks.iter().zip(&parts) {
        total.objective += part.objective;
        total.output[start * dim..][..len * dim].copy_from_slice(&part.output);
        total.x[start * dim..][..len * dim].copy_from_slice(&part.x);
        let at = shape.group(start) * shape.hyper();
        total.hyper[at..at + part.hyper.len()].iter_mut().zip(&part.hyper).for_each(|(t, &v)| *t += v);
    }
    // Split by weight, so that the sum over chunks is parallel and its order fixed.
    total.weights.par_chunks_mut(16 * 1024).enumerate().for_each(|(i, slot)| {
        for part in &parts {
            slot.iter_mut().zip(&part.weights[i * 16 * 1024..]).for_each(|(t, &v)| *t += v);
        }
    });
    sweep.biases(&mut total);
    total
}

struct Sweep<'a, T> {
    shape: &'a Shape,
    layers: &'a [Layer<'a, T>],
    operands: &'a Operands<'a, T>,
    objective: Objective<'a, T>,
}

impl<T: Real> Sweep<'_, T> {
    /// The part of `len` rows from `start` on; its biases' gradients stay zero.
    fn chunk(&self, (start, len): (usize, usize)) -> Gradient<T> {
        let Sweep { shape, layers, operands, .. } = *self;
        let dim = shape.dim();
        let first_group = shape.group(start);
        let mut grad = Gradient::zero(shape, len, shape.group(start + len - 1) - first_group + 1);
        let mut scratch = Scratch::new(shape);
        let mut buffers = Buffers::new(shape);
        for (first, count) in shape.blocks((start, len)) {
            scratch.forward(shape, layers, operands, first, count);
            let top = &scratch.h[shape.layers()][..count * dim];
            let here = (first - start) * dim..(first - start + count) * dim;
            grad.output[here.clone()].copy_from_slice(top);
            grad.objective += self.seed(top, &scratch.h[shape.layers()], first, count, &mut buffers.above);
            self.down(&scratch, &mut buffers, first, count, first_group, &mut grad);
            grad.x[here].copy_from_slice(&buffers.above[..count * dim]);
        }
        grad
    }

    /// Writes the gradients of a block's outputs and returns its part of the objective.
    fn seed(&self, values: &[T], outputs: &[T], first: usize, count: usize, above: &mut [T]) -> f64 {
        let (dim, copies) = (self.shape.dim(), self.shape.copies());
        let len = count * dim;
        let mut sum = 0.0;
        match self.objective {
            Objective::Pairing(cotangent) => {
                for copy in 0..copies {
                    let given = &cotangent[(copy * self.shape.rows + first) * dim..][..len];
                    above[copy * len..][..len].copy_from_slice(given);
                    let terms = outputs[copy * len..].iter().zip(given).map(|(&o, &c)| (o * c).to_f64());
                    sum += terms.sum::<f64>();
                }
            }
            Objective::SquaredError(target) => {
                let target = &target[first * dim..][..len];
                for ((slot, &value), &target) in above.iter_mut().zip(values).zip(target) {
                    let error = value - target;
                    sum += (error * error).to_f64();
                    *slot = error + error;
                }
                above[len..len * copies].fill(T::ZERO);
            }
        }
        sum
    }

    /// Through all layers of a block, from the gradients of its outputs in `buffers.above` to those of its inputs.
    fn down(
        &self,
        scratch: &Scratch<T>,
        Buffers { above, below, work }: &mut Buffers<T>,
        first: usize,
        count: usize,
        first_group: usize,
        grad: &mut Gradient<T>,
    ) {
        let Sweep { shape, layers, operands: o, .. } = *self;
        let total = count * shape.copies();
        let mut end = shape.weights();
        for (l, layer) in layers.iter().enumerate().rev() {
            let (n, k) = (layer.outputs, layer.inputs);
            let begin = end - n * (k + 1);
            let act = if l + 1 == layers.len() { None } else { Some(shape.act) };
            let y = &scratch.y[l][..total * n];
            for row in 0..count {
                let group = shape.group(first + row);
                let gates = &o.hyper[group * shape.hyper() + layer.gate..][..2 * n];
                let sums = &mut grad.hyper[(group - first_group) * shape.hyper() + layer.gate..][..2 * n];
                unsquash(act, gates, y, above, sums, work, Rows { row, count, copies: shape.copies() });
            }
            let dy = &above[..total * n];
            let weight = &mut grad.weights[begin..begin + n * k];
            gemm(Size { m: n, k: total, n: k }, View::transposed(dy, n), &scratch.h[l], weight, Start::Old, false);
            let size = Size { m: total, k: n, n: k };
            gemm(size, View::rows(dy, n), layer.weight, &mut below[..total * k], Start::Zero, false);
            std::mem::swap(above, below);
            end = begin;
        }
    }

    /// The gradients of the biases, `Σ_groups g ⊙ ds`: a bias is added where a shift is, but for the gate.
    fn biases(&self, total: &mut Gradient<T>) {
        let mut at = 0;
        for layer in self.layers {
            let n = layer.outputs;
            at += n * layer.inputs;
            let bias = &mut total.weights[at..at + n];
            for group in 0..self.shape.groups {
                let here = group * self.shape.hyper() + layer.gate;
                let gate = &self.operands.hyper[here..here + n];
                let shift = &total.hyper[here + n..here + 2 * n];
                bias.iter_mut().zip(gate.iter().zip(shift)).for_each(|(b, (&g, &s))| *b += g * s);
            }
            at += n;
        }
    }
}

/// Gradients of a block between layers.
struct Buffers<T> {
    above: Vec<T>,
    below: Vec<T>,
    /// What [`unsquash`] needs for a row.
    work: Vec<T>,
}

impl<T: Real> Buffers<T> {
    fn new(shape: &Shape) -> Self {
        let widest = shape.widths.iter().copied().max().unwrap_or(0);
        let block = vec![T::ZERO; shape.block() * shape.copies() * widest];
        Buffers { above: block.clone(), below: block, work: vec![T::ZERO; 3 * widest] }
    }
}
