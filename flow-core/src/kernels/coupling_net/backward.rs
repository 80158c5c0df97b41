//! The backward pass.

use rayon::prelude::*;

use super::super::gemm::{MR, Start, View};
use super::super::panels::Panels;
use super::super::patches::{border_classes, crop, scatter_add};
use super::super::{Real, vectorized};
use super::folded::Sums;
use super::{Folded, Hidden, Shape, WORK, gate, gather_rows, pad_all};

/// Rows whose gradients are in the cache while those of the weights take them in.
const BLOCK: usize = 256;

/// Gradients of the input `(B, C, H, W)` and of the parameters, one after the other.
pub(crate) fn backward<T: Real>(
    s: &Shape,
    f: &Folded<T>,
    x: &[T],
    hidden: &Hidden<T>,
    grad_out: &[T],
) -> (Vec<T>, Vec<T>) {
    let pixels = s.pixels();
    let (in_len, out_len) = (s.inputs * pixels, s.outputs * pixels);
    let per_chunk = s.samples_per_chunk(x.len() / in_len);
    let rows = per_chunk * pixels;
    let mut grad_x = vec![T::ZERO; x.len()];
    let down = Down { first: f.first.transposed(), second: f.second.transposed(), third: f.third.transposed() };
    let classes = border_classes(s.input());
    let outside = x.par_chunks(per_chunk * in_len).zip(grad_out.par_chunks(per_chunk * out_len));
    let inside = hidden.first.par_chunks(rows * s.hidden).zip(hidden.second.par_chunks(rows * s.middle()));
    let sums: Vec<Sums<T>> = outside
        .zip(inside)
        .zip(grad_x.par_chunks_mut(per_chunk * in_len))
        .map(|(((x, grad_out), (first, second)), grad_x)| {
            let group = (BLOCK / pixels).clamp(1, x.len() / in_len);
            let mut work = Workspace::new(s, group);
            let mut sums = Sums::zeros(s);
            let outside = x.chunks(group * in_len).zip(grad_out.chunks(group * out_len));
            let inside = first.chunks(group * pixels * s.hidden).zip(second.chunks(group * pixels * s.middle()));
            for (((x, grad_out), hidden), grad_x) in outside.zip(inside).zip(grad_x.chunks_mut(group * in_len)) {
                work.group(s, &down, &classes, (x, grad_out), hidden, grad_x, &mut sums);
            }
            sums
        })
        .collect();
    let mut sums = sums.into_iter();
    let mut total = sums.next().unwrap_or_else(|| Sums::zeros(s));
    sums.for_each(|part| total.add(&part));
    (grad_x, total.unfold(s, f))
}

/// The folded weights transposed, for the products that send gradients down.
struct Down<T> {
    first: Panels<T>,
    second: Panels<T>,
    third: Panels<T>,
}

/// Buffers of a chunk.
struct Workspace<T> {
    // Of a group of samples:
    padded_in: Vec<T>,
    padded_out: Vec<T>,
    padded_grad: Vec<T>,
    grad_patches: Vec<T>,
    // Of a block of rows: patches, and gradients before the activations.
    patches_in: Vec<T>,
    patches_out: Vec<T>,
    first: Vec<T>,
    second: Vec<T>,
    /// The second layer, if it is gated.
    gated: Vec<T>,
    /// The right operands of the products for the weights, the last one's first.
    right: [Panels<T>; 3],
}

impl<T: Real> Workspace<T> {
    fn new(s: &Shape, samples: usize) -> Self {
        let zeros = |n| vec![T::ZERO; n];
        let (rows, [input, output]) = (samples * s.pixels(), s.patches());
        let block = rows.min(BLOCK);
        Workspace {
            padded_in: zeros(samples * s.input().padded()),
            padded_out: zeros(samples * s.output().padded()),
            padded_grad: zeros(s.input().padded()),
            grad_patches: zeros(rows * input),
            patches_in: zeros(block * input),
            patches_out: zeros(block * output),
            first: zeros(block * s.hidden),
            second: zeros(block * s.middle()),
            gated: zeros(if s.gated { block * s.hidden } else { 0 }),
            right: [output, s.middle(), s.hidden].map(|n| Panels::zeros(block, n)),
        }
    }

    /// The gradients of a group of samples.
    #[allow(clippy::too_many_arguments, reason = "the inner part of one function")]
    fn group(
        &mut self,
        s: &Shape,
        down: &Down<T>,
        classes: &[u8],
        (x, grad_out): (&[T], &[T]),
        (first, second): (&[T], &[T]),
        grad_x: &mut [T],
        sums: &mut Sums<T>,
    ) {
        let (pixels, [input, _]) = (s.pixels(), s.patches());
        vectorized(|| {
            pad_all(s.input(), x, &mut self.padded_in);
            pad_all(s.output(), grad_out, &mut self.padded_out);
            for (plane, of_plane) in grad_out.chunks_exact(pixels).enumerate() {
                let o = plane % s.outputs;
                for (&g, &class) in of_plane.iter().zip(classes) {
                    sums.third_bias[usize::from(class) * s.outputs + o] += g;
                }
            }
        });
        let mut from = 0;
        for (first, second) in first.chunks(BLOCK * s.hidden).zip(second.chunks(BLOCK * s.middle())) {
            self.block(s, down, from, first, second);
            self.weights(s, first, second, sums);
            let rows = first.len() / s.hidden;
            vectorized(|| {
                add_rows(&self.second[..rows * s.middle()], s.middle(), std::iter::repeat(&0), &mut sums.second_bias);
                let of_rows = classes.iter().cycle().skip(from % pixels);
                add_rows(&self.first[..rows * s.hidden], s.hidden, of_rows, &mut sums.first_bias);
            });
            from += rows;
        }
        let rows = self.grad_patches.chunks_exact(pixels * input);
        vectorized(|| {
            for (patches, grad_x) in rows.zip(grad_x.chunks_exact_mut(s.inputs * pixels)) {
                self.padded_grad.fill(T::ZERO);
                scatter_add(s.input(), patches, &mut self.padded_grad);
                crop(s.input(), &self.padded_grad, grad_x);
            }
        });
    }

    /// Sends the gradient of the rows from `from` on down to the patches of the input.
    fn block(&mut self, s: &Shape, down: &Down<T>, from: usize, kept_first: &[T], kept_second: &[T]) {
        let (h, middle, [input, output]) = (s.hidden, s.middle(), s.patches());
        let rows = kept_first.len() / h;
        let strip = s.strip(rows);
        let (padded_in, padded_out) = (&self.padded_in, &self.padded_out);
        let patches = self.patches_in[..rows * input]
            .par_chunks_mut(strip * input)
            .zip(self.patches_out[..rows * output].par_chunks_mut(strip * output))
            .zip(self.grad_patches[from * input..][..rows * input].par_chunks_mut(strip * input));
        let kept = kept_first.par_chunks(strip * h).zip(kept_second.par_chunks(strip * middle));
        let grads = self.first[..rows * h]
            .par_chunks_mut(strip * h)
            .zip(self.second[..rows * middle].par_chunks_mut(strip * middle));
        let step = |i: usize, patches, kept, grads, gated: &mut [T]| {
            let ((patches_in, patches_out), grad_patches): ((&mut [T], &mut [T]), &mut [T]) = patches;
            let (kept_first, kept_second): (&[T], &[T]) = kept;
            let (first, second): (&mut [T], &mut [T]) = grads;
            let m = first.len() / h;
            vectorized(|| {
                gather_rows(s.input(), padded_in, from + i * strip, patches_in);
                gather_rows(s.output(), padded_out, from + i * strip, patches_out);
            });
            let patches = View::rows(patches_out, output);
            if s.gated {
                down.third.product(m, patches, first, Start::Zero, false);
                gate::backward(h, kept_second, first, gated, second);
            } else {
                down.third.product(m, patches, second, Start::Zero, false);
                vectorized(|| rectify(second, kept_second));
            }
            down.second.product(m, View::rows(second, middle), first, Start::Zero, false);
            vectorized(|| rectify(first, kept_first));
            down.first.product(m, View::rows(first, h), grad_patches, Start::Zero, false);
        };
        let strips = patches.zip(kept).zip(grads).enumerate();
        if s.gated {
            let gated = self.gated[..rows * h].par_chunks_mut(strip * h);
            strips.zip(gated).for_each(|((i, ((patches, kept), grads)), gated)| step(i, patches, kept, grads, gated));
        } else {
            strips.for_each(|(i, ((patches, kept), grads))| step(i, patches, kept, grads, &mut []));
        }
    }

    /// Adds a block's part of the gradients of the weights.
    fn weights(&mut self, s: &Shape, first: &[T], second: &[T], sums: &mut Sums<T>) {
        let (h, [input, output]) = (s.hidden, s.patches());
        let rows = first.len() / h;
        self.right[0].pack(&self.patches_out[..rows * output]);
        self.right[1].pack(&self.second[..rows * s.middle()]);
        self.right[2].pack(&self.first[..rows * h]);
        let top = if s.gated { &self.gated[..rows * h] } else { second };
        let mut parts = Vec::new();
        cut(&mut parts, rows, (top, h), &self.right[0], &mut sums.third);
        cut(&mut parts, rows, (first, h), &self.right[1], &mut sums.second);
        cut(&mut parts, rows, (&self.patches_in, input), &self.right[2], &mut sums.first);
        parts.into_par_iter().for_each(|Part { m, a, b, c }| b.product(m, a, c, Start::Old, false));
    }
}

/// Some rows of a product `C += Aᵀ·B`.
struct Part<'a, T> {
    m: usize,
    a: View<'a, T>,
    b: &'a Panels<T>,
    c: &'a mut [T],
}

/// Cuts the product `C += Aᵀ·B`, where `A` has `k` rows and comes with its width, into parts that are worth a thread's
/// attention.
fn cut<'a, T: Real>(
    parts: &mut Vec<Part<'a, T>>,
    k: usize,
    (a, width): (&'a [T], usize),
    b: &'a Panels<T>,
    c: &'a mut [T],
) {
    let n = b.columns();
    let shares = (width * k * n / WORK).clamp(1, 4);
    let rows = width.div_ceil(shares).next_multiple_of(MR);
    for (i, c) in c.chunks_mut(rows * n).enumerate() {
        let a = View { data: &a[i * rows..], row: 1, col: width };
        parts.push(Part { m: c.len() / n, a, b, c });
    }
}

/// Zeroes gradients where the rectifier was off.
#[inline(always)]
fn rectify<T: Real>(grad: &mut [T], activation: &[T]) {
    for (g, &a) in grad.iter_mut().zip(activation) {
        *g = if a > T::ZERO { *g } else { T::ZERO };
    }
}

/// Adds each row of `rows` to the row of `table` that its class names.
#[inline(always)]
fn add_rows<'a, T: Real>(rows: &[T], width: usize, classes: impl Iterator<Item = &'a u8>, table: &mut [T]) {
    for (row, &class) in rows.chunks_exact(width).zip(classes) {
        let sum = &mut table[usize::from(class) * width..][..width];
        sum.iter_mut().zip(row).for_each(|(s, &v)| *s += v);
    }
}
