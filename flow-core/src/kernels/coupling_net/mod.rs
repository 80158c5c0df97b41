//! The network 3×3 → 1×1 → 3×3 as one kernel: forward and backward on blocks that stay in the cache.
//!
//! Activation normalization after the hidden convolutions and the output gain are linear, so they are
//! folded into the weights before the pixels are touched (see [`Folded`]); the edge-indicator channel
//! becomes a bias that depends only on which sides of the image a pixel touches. What remains per
//! pixel are three matrix products, two rectifications, a gather and a scatter.

mod folded;

pub(crate) use folded::Folded;
use rayon::prelude::*;

use super::gemm::{Size, Start, View, gemm, transpose};
use super::patches::{Extent, border_classes, crop, gather, pad, scatter_add};
use super::{Real, vectorized};

/// The sizes of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub height: usize,
    pub width: usize,
}

const TAPS: usize = 9;

impl Shape {
    /// Lengths of the nine parameters in the order of the packed vector:
    /// `w1 (H, C+1, 3, 3)`, `b1`, `l1`, `w2 (H, H)`, `b2`, `l2`, `w3 (O, H+1, 3, 3)`, `b3`, `l3`.
    pub fn parameter_lengths(&self) -> [usize; 9] {
        let (c, h, o) = (self.inputs, self.hidden, self.outputs);
        [h * (c + 1) * TAPS, h, h, h * h, h, h, o * (h + 1) * TAPS, o, o]
    }

    fn input(&self) -> Extent {
        Extent { channels: self.inputs, height: self.height, width: self.width }
    }

    fn output(&self) -> Extent {
        Extent { channels: self.outputs, height: self.height, width: self.width }
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// How the batch is cut: samples per chunk (a unit of parallel work with its own weight gradient)
    /// and per block (what is in the cache at once). Depends on shapes alone.
    fn cut(&self, batch: usize) -> (usize, usize) {
        let chunks = (batch * self.pixels() / 128).clamp(1, batch.clamp(1, 16));
        let per_chunk = batch.div_ceil(chunks).max(1);
        (per_chunk, (256 / self.pixels()).clamp(1, per_chunk))
    }
}

/// The rectified hidden activations of one chunk, `(rows, hidden)` each.
pub(crate) struct Hidden<T> {
    first: Vec<T>,
    second: Vec<T>,
}

/// The network's output `(B, O, H, W)`; with `keep` also what the backward pass needs, by chunk.
pub(crate) fn forward<T: Real>(s: &Shape, f: &Folded<T>, x: &[T], keep: bool) -> (Vec<T>, Option<Vec<Hidden<T>>>) {
    let (pixels, classes) = (s.pixels(), border_classes(s.input()));
    let (in_len, out_len) = (s.inputs * pixels, s.outputs * pixels);
    let batch = x.len() / in_len;
    let (per_chunk, per_block) = s.cut(batch);
    let mut out = vec![T::ZERO; batch * out_len];
    let hidden = x
        .par_chunks(per_chunk * in_len)
        .zip(out.par_chunks_mut(per_chunk * out_len))
        .map(|(x, out)| {
            let mut work = Workspace::new(s, per_block);
            // Without `keep` the activations of one block are overwritten by the next.
            let samples = if keep { x.len() / in_len } else { per_block };
            let zero = vec![T::ZERO; samples * pixels * s.hidden];
            let mut hidden = Hidden { first: zero.clone(), second: zero };
            let mut from = 0;
            for (x, out) in x.chunks(per_block * in_len).zip(out.chunks_mut(per_block * out_len)) {
                let range = from..from + x.len() / in_len * pixels * s.hidden;
                from = if keep { range.end } else { 0 };
                let rows = (&mut hidden.first[range.clone()], &mut hidden.second[range]);
                vectorized(|| work.forward(s, f, &classes, x, out, rows));
            }
            hidden
        })
        .collect::<Vec<_>>();
    (out, keep.then_some(hidden))
}

/// Gradients of the input `(B, C, H, W)` and of the packed parameters.
pub(crate) fn backward<T: Real>(
    s: &Shape,
    flat: &[T],
    f: &Folded<T>,
    x: &[T],
    hidden: &[Hidden<T>],
    grad_out: &[T],
) -> (Vec<T>, Vec<T>) {
    let (pixels, classes) = (s.pixels(), border_classes(s.input()));
    let (in_len, out_len, rows) = (s.inputs * pixels, s.outputs * pixels, pixels * s.hidden);
    let (per_chunk, per_block) = s.cut(x.len() / in_len);
    let mut grad_x = vec![T::ZERO; x.len()];
    let transposed = Transposed::new(s, f);
    let inputs = x.par_chunks(per_chunk * in_len).zip(grad_out.par_chunks(per_chunk * out_len)).zip(hidden);
    let sums: Vec<Folded<T>> = inputs
        .zip(grad_x.par_chunks_mut(per_chunk * in_len))
        .map(|(((x, grad_out), hidden), grad_x)| {
            let mut work = Workspace::new(s, per_block);
            let mut sum = Folded::zeros(s);
            let blocks = x
                .chunks(per_block * in_len)
                .zip(grad_out.chunks(per_block * out_len))
                .zip(hidden.first.chunks(per_block * rows).zip(hidden.second.chunks(per_block * rows)));
            for (((x, grad_out), (first, second)), grad_x) in blocks.zip(grad_x.chunks_mut(per_block * in_len)) {
                let block = Block { x, first, second, grad_out };
                vectorized(|| work.backward(s, &transposed, &classes, &block, grad_x, &mut sum));
            }
            sum
        })
        .collect();
    let mut sums = sums.into_iter();
    let mut total = sums.next().unwrap_or_else(|| Folded::zeros(s));
    sums.for_each(|part| total.add(&part));
    (grad_x, Folded::unfold_gradient(s, flat, f, &total))
}

/// The folded weights transposed, for the products that send gradients down.
struct Transposed<T> {
    first: Vec<T>,
    second: Vec<T>,
    third: Vec<T>,
}

impl<T: Real> Transposed<T> {
    fn new(s: &Shape, f: &Folded<T>) -> Self {
        Transposed {
            first: transpose(&f.first, s.hidden),
            second: transpose(&f.second, s.hidden),
            third: transpose(&f.third, TAPS * s.outputs),
        }
    }
}

/// One block of samples on its way back.
struct Block<'a, T> {
    x: &'a [T],
    first: &'a [T],
    second: &'a [T],
    grad_out: &'a [T],
}

/// Buffers of one thread, reused over the blocks of a chunk.
struct Workspace<T> {
    padded_in: Vec<T>,
    padded_out: Vec<T>,
    patches_in: Vec<T>,
    patches_out: Vec<T>,
    first: Vec<T>,
    second: Vec<T>,
    classes: Vec<u8>,
}

impl<T: Real> Workspace<T> {
    fn new(s: &Shape, samples: usize) -> Self {
        let (zero, rows) = (|n| vec![T::ZERO; n], samples * s.pixels());
        Workspace {
            padded_in: zero(s.input().padded()),
            padded_out: zero(s.output().padded()),
            patches_in: zero(rows * TAPS * s.inputs),
            patches_out: zero(rows * TAPS * s.outputs),
            first: zero(rows * s.hidden),
            second: zero(rows * s.hidden),
            classes: vec![0; rows],
        }
    }

    #[inline(always)]
    fn forward(
        &mut self,
        s: &Shape,
        f: &Folded<T>,
        classes: &[u8],
        x: &[T],
        out: &mut [T],
        hidden: (&mut [T], &mut [T]),
    ) {
        let (pixels, (first, second)) = (s.pixels(), hidden);
        let m = first.len() / s.hidden;
        self.gather_input(s, x);
        self.classes.iter_mut().zip(classes.iter().cycle()).for_each(|(slot, &c)| *slot = c);
        let bias = Start::Table { table: &f.first_bias, class: &self.classes };
        let size = Size { m, k: TAPS * s.inputs, n: s.hidden };
        gemm(size, View::rows(&self.patches_in, size.k), &f.first, first, bias, true);
        self.classes.fill(0);
        let bias = Start::Table { table: &f.second_bias, class: &self.classes };
        let size = Size { m, k: s.hidden, n: s.hidden };
        gemm(size, View::rows(first, s.hidden), &f.second, second, bias, true);
        let size = Size { m, k: s.hidden, n: TAPS * s.outputs };
        gemm(size, View::rows(second, s.hidden), &f.third, &mut self.patches_out, Start::Zero, false);
        let rows = pixels * TAPS * s.outputs;
        for (patches, out) in self.patches_out.chunks_exact(rows).zip(out.chunks_exact_mut(s.outputs * pixels)) {
            self.padded_out.fill(T::ZERO);
            scatter_add(s.output(), patches, &mut self.padded_out);
            crop(s.output(), &self.padded_out, out);
            for (o, plane) in out.chunks_exact_mut(pixels).enumerate() {
                for (slot, &class) in plane.iter_mut().zip(classes) {
                    *slot += f.third_bias[usize::from(class) * s.outputs + o];
                }
            }
        }
    }

    #[inline(always)]
    fn gather_input(&mut self, s: &Shape, x: &[T]) {
        let pixels = s.pixels();
        let rows = self.patches_in.chunks_exact_mut(pixels * TAPS * s.inputs);
        for (x, rows) in x.chunks_exact(s.inputs * pixels).zip(rows) {
            pad(s.input(), x, &mut self.padded_in);
            gather(s.input(), &self.padded_in, rows);
        }
    }

    #[inline(always)]
    fn backward(
        &mut self,
        s: &Shape,
        t: &Transposed<T>,
        classes: &[u8],
        block: &Block<'_, T>,
        grad_x: &mut [T],
        sum: &mut Folded<T>,
    ) {
        let m = block.first.len() / s.hidden;
        self.third_gradient(s, classes, block, sum);
        let (first, second) = (&mut self.first[..m * s.hidden], &mut self.second[..m * s.hidden]);
        // Down through the third convolution and the second rectifier …
        let size = Size { m, k: TAPS * s.outputs, n: s.hidden };
        gemm(size, View::rows(&self.patches_out, size.k), &t.third, second, Start::Zero, false);
        rectify(second, block.second);
        let size = Size { m: s.hidden, k: m, n: s.hidden };
        gemm(size, View::transposed(block.first, s.hidden), second, &mut sum.second, Start::Old, false);
        add_rows(second, s.hidden, std::iter::repeat(&0), &mut sum.second_bias);
        // … the second convolution and the first rectifier …
        let size = Size { m, k: s.hidden, n: s.hidden };
        gemm(size, View::rows(second, s.hidden), &t.second, first, Start::Zero, false);
        rectify(first, block.first);
        // … and the first convolution.
        self.gather_input(s, block.x);
        let (first, k) = (&self.first[..m * s.hidden], TAPS * s.inputs);
        let size = Size { m: k, k: m, n: s.hidden };
        gemm(size, View::transposed(&self.patches_in, k), first, &mut sum.first, Start::Old, false);
        add_rows(first, s.hidden, classes.iter().cycle(), &mut sum.first_bias);
        let size = Size { m, k: s.hidden, n: k };
        gemm(size, View::rows(first, s.hidden), &t.first, &mut self.patches_in, Start::Zero, false);
        let pixels = s.pixels();
        for (rows, grad_x) in self.patches_in.chunks_exact(pixels * k).zip(grad_x.chunks_exact_mut(s.inputs * pixels)) {
            self.padded_in.fill(T::ZERO);
            scatter_add(s.input(), rows, &mut self.padded_in);
            crop(s.input(), &self.padded_in, grad_x);
        }
        clear_border(s.input(), &mut self.padded_in);
    }

    #[inline(always)]
    /// Patches of the output gradient, and the gradient of the last weights and biases.
    fn third_gradient(&mut self, s: &Shape, classes: &[u8], block: &Block<'_, T>, sum: &mut Folded<T>) {
        let (pixels, k) = (s.pixels(), TAPS * s.outputs);
        let m = block.first.len() / s.hidden;
        self.padded_out.fill(T::ZERO);
        let rows = self.patches_out.chunks_exact_mut(pixels * k);
        for (grad, rows) in block.grad_out.chunks_exact(s.outputs * pixels).zip(rows) {
            pad(s.output(), grad, &mut self.padded_out);
            gather(s.output(), &self.padded_out, rows);
            for (o, plane) in grad.chunks_exact(pixels).enumerate() {
                for (&g, &class) in plane.iter().zip(classes) {
                    sum.third_bias[usize::from(class) * s.outputs + o] += g;
                }
            }
        }
        let size = Size { m: s.hidden, k: m, n: k };
        gemm(size, View::transposed(block.second, s.hidden), &self.patches_out, &mut sum.third, Start::Old, false);
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

/// Makes the border of a padded block zero again, as [`pad`] expects it.
#[inline(always)]
fn clear_border<T: Real>(e: Extent, padded: &mut [T]) {
    let (stride, c) = ((e.width + 2) * e.channels, e.channels);
    for (i, line) in padded.chunks_exact_mut(stride).enumerate() {
        if i == 0 || i == e.height + 1 {
            line.fill(T::ZERO);
        } else {
            line[..c].fill(T::ZERO);
            line[stride - c..].fill(T::ZERO);
        }
    }
}
