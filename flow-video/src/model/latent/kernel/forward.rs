//! The forward pass of a block.

use flow_core::kernels::{Real, Size, Start, View, gemm};
use rayon::prelude::*;

use super::passes::{gate, rectify, rectify_second};
use super::patches::{Towards, gather, scatter_add};
use super::strips::{Strip, strips};
use super::tables::{Branch, CLASSES, add, branches, scale_rows};
use super::{Pool, Shape, Weights, Workspace, halves, room};

/// How the steps of a convolution's output, the upper ones, lie over those of its input: both are the last ones.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub lower: usize,
    pub upper: usize,
}

impl Steps {
    /// The lower step at the time of the first upper one. The step before that of upper step `skip()` is the lower one 0.
    pub fn shift(self) -> usize {
        self.lower - self.upper
    }

    /// How many upper steps have nothing but padding before them.
    pub fn skip(self) -> usize {
        1 - self.shift()
    }
}

impl Shape {
    /// The steps of the first convolution. With one step in all nothing is before it, see [`halves`].
    pub(super) fn first_steps(&self) -> Steps {
        Steps { lower: self.input_steps(), upper: self.hidden_steps() }
    }

    /// The steps of the last convolution.
    pub(super) fn last_steps(&self) -> Steps {
        Steps { lower: self.hidden_steps(), upper: self.outputs }
    }
}

/// `x + Σ branches`, of the last steps: `(B, input steps, H, W, C)` to `(B, output steps, H, W, C)`.
pub(in super::super) fn forward<T: Real>(s: &Shape, weights: &[Weights<'_, T>], x: &[T], pool: &Pool<T>) -> Vec<T> {
    let branches = branches(s, weights);
    let batch = x.len() / (s.input_steps() * s.frame());
    let jobs = jobs(&branches, &strips(s, batch));
    let windows: Vec<Vec<T>> =
        jobs.par_iter().map(|(branch, strip)| pool.lend(|work| work.forward(s, branch, strip, x))).collect();
    let skipped = (s.input_steps() - s.outputs) * s.frame();
    let mut out = Vec::with_capacity(batch * s.outputs * s.frame());
    x.chunks_exact(s.input_steps() * s.frame()).for_each(|sample| out.extend_from_slice(&sample[skipped..]));
    add_windows(s, &jobs, &windows, &mut out, s.outputs);
    out
}

/// Every branch on every strip.
pub(super) fn jobs<'b, 'a, T>(branches: &'b [Branch<'a, T>], strips: &[Strip]) -> Vec<(&'b Branch<'a, T>, Strip)> {
    branches.iter().flat_map(|branch| strips.iter().map(move |&strip| (branch, strip))).collect()
}

/// Adds the windows of all strips to frames, `(B, steps, H, W, C)`, always in the same order.
pub(super) fn add_windows<T: Real>(
    s: &Shape,
    jobs: &[(&Branch<'_, T>, Strip)],
    windows: &[Vec<T>],
    frames: &mut [T],
    steps: usize,
) {
    let line = s.width * s.channels;
    frames.par_chunks_mut(s.frame()).enumerate().for_each(|(frame, out)| {
        let (sample, step) = (frame / steps, frame % steps);
        for ((branch, strip), window) in jobs.iter().zip(windows) {
            let Some(place) = sample.checked_sub(strip.first).filter(|&place| place < strip.count) else { continue };
            let rows = strip.window(s, branch.dilation);
            let part = &window[(place * steps + step) * rows.len() * line..][..rows.len() * line];
            add(&mut out[rows.start * line..rows.end * line], part);
        }
    });
}

impl<T: Real> Workspace<T> {
    /// What a branch adds because of a strip's pixels: the window `(count, output steps, window rows, W, C)`.
    fn forward(&mut self, s: &Shape, branch: &Branch<'_, T>, strip: &Strip, x: &[T]) -> Vec<T> {
        let (px, wide) = (strip.pixels(s), s.wide());
        self.hidden(s, branch, strip, x);
        let activate = if s.gated { gate } else { rectify_second };
        let rows = s.hidden_steps() * px;
        activate(&mut self.wide[..rows * wide], px, branch.second_bias(s), &branch.second_gain, s.hidden);
        let (steps, (now, before)) = (s.last_steps(), halves(s, branch.weights.last));
        let out = room(&mut self.rows, s.outputs * px * s.patch());
        let size = Size { m: s.outputs * px, k: s.hidden, n: s.patch() };
        // Rows of the hidden layer are the first parts of wide rows.
        let view = |step: usize| View { data: &self.wide[step * px * wide..], row: wide, col: 1 };
        gemm(size, view(steps.shift()), now, out, Start::Zero, false);
        if let Some(before) = before {
            let size = Size { m: (s.outputs - steps.skip()) * px, ..size };
            gemm(size, view(0), before, &mut out[steps.skip() * px * s.patch()..], Start::Old, false);
        }
        let line = s.width * s.channels;
        let window_rows = strip.window(s, branch.dilation);
        let mut window = vec![T::ZERO; strip.count * s.outputs * window_rows.len() * line];
        scatter_add(s, branch.dilation, Towards::Centre, strip, out, &mut window);
        scale_rows(&mut window, &branch.last_gain);
        add_biases(s, branch, strip, &mut window);
        window
    }

    /// The neighbourhoods of a strip's pixels, its first hidden layer and the second product.
    pub(super) fn hidden(&mut self, s: &Shape, branch: &Branch<'_, T>, strip: &Strip, x: &[T]) {
        let (px, steps) = (strip.pixels(s), s.first_steps());
        let patches = room(&mut self.patches, steps.lower * px * s.patch());
        gather(s, branch.dilation, Towards::Tap, strip, x, patches);
        strip_classes(s, &branch.classes, strip, steps.upper, &mut self.classes);
        let (now, before) = halves(s, branch.weights.first);
        let first = room(&mut self.first, steps.upper * px * s.hidden);
        let size = Size { m: steps.upper * px, k: s.patch(), n: s.hidden };
        let start = Start::Table { table: &branch.first, class: &self.classes };
        gemm(size, View::rows(&patches[steps.shift() * px * size.k..], size.k), now, first, start, false);
        if let Some(before) = before {
            let size = Size { m: (steps.upper - steps.skip()) * px, ..size };
            let first = &mut first[steps.skip() * px * s.hidden..];
            gemm(size, View::rows(patches, size.k), before, first, Start::Old, false);
        }
        rectify(first, px, &branch.first_gain, s.hidden);
        let wide = room(&mut self.wide, steps.upper * px * s.wide());
        let size = Size { m: steps.upper * px, k: s.hidden, n: s.wide() };
        gemm(size, View::rows(first, s.hidden), branch.weights.second, wide, Start::Zero, false);
    }
}

/// For every row of the first product the row of its table.
fn strip_classes(s: &Shape, classes: &[u8], strip: &Strip, steps: usize, rows: &mut Vec<u8>) {
    rows.clear();
    for step in 0..steps {
        // At most eight steps: the number fits.
        let base = (step * CLASSES) as u8;
        for (_, row) in strip.frame_rows() {
            rows.extend(classes[row * s.width..][..s.width].iter().map(|class| base + class));
        }
    }
}

/// Adds the biases of a strip's own pixels.
fn add_biases<T: Real>(s: &Shape, branch: &Branch<'_, T>, strip: &Strip, window: &mut [T]) {
    let (c, rows) = (s.channels, strip.window(s, branch.dilation));
    for step in 0..s.outputs {
        let table = &branch.last[step * CLASSES * c..][..CLASSES * c];
        for (sample, row) in strip.frame_rows() {
            let line = (sample * s.outputs + step) * rows.len() + row - rows.start;
            let pixels = window[line * s.width * c..][..s.width * c].chunks_exact_mut(c);
            for (pixel, &class) in pixels.zip(&branch.classes[row * s.width..]) {
                add(pixel, &table[usize::from(class) * c..][..c]);
            }
        }
    }
}
