//! Convolution of any kernel, dilation and padding: patches of a few hundred columns, then a product.
//!
//! Columns are output pixels, of one image or of several small ones side by side, so the vector
//! lanes stay full whatever the image size, and a block of patches stays in the cache.

use rayon::prelude::*;

use super::Real;
use super::gemm::{Size, Start, View, gemm, transpose};

/// The geometry of a convolution: what Candle's own `conv2d` cannot say per axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvGeometry {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Dilation of rows and of columns.
    pub dilation: [usize; 2],
    /// Zeros before and after, for rows and for columns. One-sided padding makes an axis causal.
    pub padding: [[usize; 2]; 2],
}

impl ConvGeometry {
    /// A kernel of this height and width without dilation or padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        ConvGeometry { kernel, dilation: [1; 2], padding: [[0; 2]; 2] }
    }

    /// An odd square kernel whose output has the input's size.
    pub fn same(kernel: usize) -> Self {
        let pad = kernel / 2;
        ConvGeometry { kernel: [kernel; 2], dilation: [1; 2], padding: [[pad, pad]; 2] }
    }

    /// The same with rows and columns this far apart.
    #[must_use]
    pub fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.dilation = dilation;
        self
    }

    /// The same with this many zeros before and after.
    #[must_use]
    pub fn padding(mut self, padding: [[usize; 2]; 2]) -> Self {
        self.padding = padding;
        self
    }

    /// The output size for an input of height `h` and width `w`, `None` if the kernel does not fit.
    pub fn output(&self, size: [usize; 2]) -> Option<[usize; 2]> {
        let axis = |i: usize| {
            let padded = size[i] + self.padding[i][0] + self.padding[i][1];
            (padded + 1).checked_sub(self.dilation[i] * (self.kernel[i] - 1) + 1).filter(|&n| n > 0)
        };
        Some([axis(0)?, axis(1)?])
    }
}

/// A convolution's sizes.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub geometry: ConvGeometry,
    pub batch: usize,
    pub channels: usize,
    pub outputs: usize,
    /// Input height and width.
    pub size: [usize; 2],
    /// Output height and width.
    pub out: [usize; 2],
}

/// Output pixels that are worked on together: rows `from..to` of image `image` onwards for `count`
/// images (more than one only if all their rows are taken).
#[derive(Clone, Copy)]
struct Block {
    image: usize,
    count: usize,
    from: usize,
    to: usize,
}

/// Columns that a block aims at.
const COLUMNS: usize = 256;
/// Upper bound on the elements of all partial weight gradients together.
const PARTIAL_GRADIENTS: usize = 1 << 24;

impl Plan {
    fn patch(&self) -> usize {
        self.channels * self.geometry.kernel[0] * self.geometry.kernel[1]
    }

    fn in_len(&self) -> usize {
        self.channels * self.size[0] * self.size[1]
    }

    fn out_pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    fn out_len(&self) -> usize {
        self.outputs * self.out_pixels()
    }

    fn columns(&self, b: Block) -> usize {
        b.count * (b.to - b.from) * self.out[1]
    }

    /// Cuts images `first..end` into blocks.
    fn blocks(&self, first: usize, end: usize) -> Vec<Block> {
        let rows = self.out[0];
        if self.out_pixels() <= COLUMNS {
            let per = (COLUMNS / self.out_pixels()).max(1);
            return (first..end)
                .step_by(per)
                .map(|image| Block { image, count: per.min(end - image), from: 0, to: rows })
                .collect();
        }
        let per = (COLUMNS / self.out[1]).max(1);
        let strips =
            |image| (0..rows).step_by(per).map(move |from| Block { image, count: 1, from, to: (from + per).min(rows) });
        (first..end).flat_map(strips).collect()
    }

    /// Calls `f(patch_row, column, input_offset, length)` for every run of pixels that a patch row of
    /// `b` copies from inside the image; offsets are relative to the whole input.
    #[inline(always)]
    fn runs(&self, b: Block, mut f: impl FnMut(usize, usize, usize, usize)) {
        let ([kh, kw], [dh, dw], pad) = (self.geometry.kernel, self.geometry.dilation, self.geometry.padding);
        let ([h, w], out_w) = (self.size, self.out[1]);
        for n in 0..b.count {
            for c in 0..self.channels {
                let plane = (b.image + n) * self.in_len() + c * h * w;
                for u in 0..kh {
                    for v in 0..kw {
                        let row = (c * kh + u) * kw + v;
                        // Output columns j with 0 ≤ j + v·dw - left < w.
                        let start = pad[1][0].saturating_sub(v * dw);
                        let stop = (w + pad[1][0]).saturating_sub(v * dw).min(out_w);
                        for i in b.from..b.to {
                            let Some(y) = (i + u * dh).checked_sub(pad[0][0]).filter(|&y| y < h) else { continue };
                            if start < stop {
                                let column = (n * (b.to - b.from) + i - b.from) * out_w + start;
                                f(row, column, plane + y * w + start + v * dw - pad[1][0], stop - start);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The patches of a block, `(patch, columns)`.
    fn gather<T: Real>(&self, b: Block, x: &[T], patches: &mut Vec<T>) {
        let n = self.columns(b);
        patches.clear();
        patches.resize(self.patch() * n, T::ZERO);
        self.runs(b, |row, column, offset, len| {
            patches[row * n + column..][..len].copy_from_slice(&x[offset..offset + len]);
        });
    }

    /// The adjoint of [`Plan::gather`]; `x` starts at image `first`.
    fn scatter_add<T: Real>(&self, b: Block, patches: &[T], x: &mut [T], first: usize) {
        let (n, base) = (self.columns(b), first * self.in_len());
        self.runs(b, |row, column, offset, len| {
            let from = &patches[row * n + column..][..len];
            x[offset - base..][..len].iter_mut().zip(from).for_each(|(s, &v)| *s += v);
        });
    }

    /// Copies between `(outputs, columns)` and the places of a block in `(B, O, H', W')`:
    /// `f(block_offset, output_offset, length)`.
    fn places(&self, b: Block, mut f: impl FnMut(usize, usize, usize)) {
        let (n, len) = (self.columns(b), (b.to - b.from) * self.out[1]);
        for image in 0..b.count {
            for o in 0..self.outputs {
                let place = (b.image + image) * self.out_len() + o * self.out_pixels() + b.from * self.out[1];
                f(o * n + image * len, place, len);
            }
        }
    }
}

/// `(B, O, H', W')`; `bias` has `O` entries or none.
pub(crate) fn forward<T: Real>(plan: &Plan, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
    let blocks = plan.blocks(0, plan.batch);
    let parts: Vec<Vec<T>> = blocks
        .par_iter()
        .map_init(Vec::new, |patches, &b| {
            plan.gather(b, x, patches);
            let size = Size { m: plan.outputs, k: plan.patch(), n: plan.columns(b) };
            let mut y = vec![T::ZERO; size.m * size.n];
            y.chunks_exact_mut(size.n).zip(bias).for_each(|(row, &b)| row.fill(b));
            gemm(size, View::rows(weight, size.k), patches, &mut y, Start::Old, false);
            y
        })
        .collect();
    let mut out = vec![T::ZERO; plan.batch * plan.out_len()];
    for (&b, part) in blocks.iter().zip(&parts) {
        plan.places(b, |from, to, len| out[to..to + len].copy_from_slice(&part[from..from + len]));
    }
    out
}

/// Gradients of the input, the weight and the bias.
pub(crate) fn backward<T: Real>(plan: &Plan, x: &[T], weight: &[T], grad: &[T]) -> (Vec<T>, Vec<T>, Vec<T>) {
    let (k, o) = (plan.patch(), plan.outputs);
    let chunks = (PARTIAL_GRADIENTS / (k * o).max(1)).clamp(1, 16).min(plan.batch.max(1));
    let per_chunk = plan.batch.div_ceil(chunks).max(1);
    let mut grad_x = vec![T::ZERO; x.len()];
    let sums: Vec<(Vec<T>, Vec<T>)> = grad_x
        .par_chunks_mut((per_chunk * plan.in_len()).max(1))
        .enumerate()
        .map(|(chunk, grad_x)| {
            let first = chunk * per_chunk;
            let (mut patches, mut dw, mut db) = (Vec::new(), vec![T::ZERO; k * o], vec![T::ZERO; o]);
            for b in plan.blocks(first, (first + per_chunk).min(plan.batch)) {
                let n = plan.columns(b);
                let mut dy = vec![T::ZERO; o * n];
                plan.places(b, |to, from, len| dy[to..to + len].copy_from_slice(&grad[from..from + len]));
                for (sum, row) in db.iter_mut().zip(dy.chunks_exact(n)) {
                    *sum += row.iter().fold(T::ZERO, |s, &v| s + v);
                }
                plan.gather(b, x, &mut patches);
                let size = Size { m: k, k: n, n: o };
                gemm(size, View::rows(&patches, n), &transpose(&dy, n), &mut dw, Start::Old, false);
                let size = Size { m: k, k: o, n };
                gemm(size, View::transposed(weight, k), &dy, &mut patches, Start::Zero, false);
                plan.scatter_add(b, &patches, grad_x, first);
            }
            (dw, db)
        })
        .collect();
    let (mut dw, mut db) = (vec![T::ZERO; k * o], vec![T::ZERO; o]);
    for (part_w, part_b) in sums {
        dw.iter_mut().zip(part_w).for_each(|(s, v)| *s += v);
        db.iter_mut().zip(part_b).for_each(|(s, v)| *s += v);
    }
    (grad_x, transpose(&dw, o), db)
}
