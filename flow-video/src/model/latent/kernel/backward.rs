//! The backward pass of a block: every strip computes its hidden layers again.

use flow_core::kernels::{Real, Size, Start, View, gemm, transpose};
use rayon::prelude::*;

use super::forward::{add_windows, jobs};
use super::passes::{Normalization, activate, deactivate, derectify, normalize};
use super::patches::{Towards, gather, scatter_add};
use super::strips::{Strip, strips};
use super::tables::{Branch, CLASSES, add, branches, scale_rows, table_gradient};
use super::{LOG_SCALE_FACTOR, Pool, Shape, Weights, Workspace, halves, halves_mut, room};

/// Weight gradients that are summed apart, over all branches: the units of parallel work …
const PARTS: usize = 16;
/// … as long as each has this many pixels, so that the sums do not cost more than the products.
const LEAST_PIXELS: usize = 256;

/// Gradients of the input `(B, input steps, H, W, C)` and of the packed parameters, for the gradient `grad` of the output.
pub(in super::super) fn backward<T: Real>(
    s: &Shape,
    weights: &[Weights<'_, T>],
    x: &[T],
    grad: &[T],
    pool: &Pool<T>,
) -> (Vec<T>, Vec<T>) {
    let branches = branches(s, weights);
    let batch = x.len() / (s.input_steps() * s.frame());
    let strips = strips(s, batch);
    let down: Vec<Down<'_, '_, T>> = branches.iter().map(|branch| Down::new(s, branch, grad)).collect();
    let worth = batch * s.pixels() / LEAST_PIXELS;
    let parts = (PARTS / branches.len()).min(worth).clamp(1, strips.len().max(1));
    let per_part = strips.len().div_ceil(parts).max(1);
    let work: Vec<_> = down.iter().flat_map(|down| strips.chunks(per_part).map(move |part| (down, part))).collect();
    let done: Vec<(Vec<Vec<T>>, Vec<T>)> = work
        .par_iter()
        .map(|(down, part)| {
            let mut sum = Sum::new(s);
            let window = |strip: &Strip| pool.lend(|work| work.backward(s, down, strip, x, &mut sum));
            let windows = part.iter().map(window).collect();
            (windows, sum.into_packed(s))
        })
        .collect();
    let mut packed = vec![T::ZERO; branches.len() * s.lengths().iter().sum::<usize>()];
    let mut windows = Vec::with_capacity(branches.len() * strips.len());
    let parts = done.len() / branches.len().max(1);
    let length = packed.len() / branches.len().max(1);
    for (i, (part, sum)) in done.into_iter().enumerate() {
        windows.extend(part);
        add(&mut packed[i / parts.max(1) * length..][..length], &sum);
    }
    for (branch, packed) in branches.iter().zip(packed.chunks_exact_mut(length)) {
        finish(s, &branch.weights, packed);
    }
    (input_gradient(s, &jobs(&branches, &strips), &windows, grad, batch), packed)
}

/// The gradient of the output where it is a sum with the input, plus what comes through the branches.
fn input_gradient<T: Real>(
    s: &Shape,
    jobs: &[(&Branch<'_, T>, Strip)],
    windows: &[Vec<T>],
    grad: &[T],
    batch: usize,
) -> Vec<T> {
    let (len, skipped) = (s.input_steps() * s.frame(), (s.input_steps() - s.outputs) * s.frame());
    let mut out = vec![T::ZERO; batch * len];
    for (sample, grad) in out.chunks_exact_mut(len).zip(grad.chunks_exact(len - skipped)) {
        sample[skipped..].copy_from_slice(grad);
    }
    add_windows(s, jobs, windows, &mut out, s.input_steps());
    out
}

/// Factors of log-scales, and the gradient of the last one: everything there is linear in `exp(3 l)`, so that it is
/// `3 Σ value · gradient` over weights, flag and bias.
fn finish<T: Real>(s: &Shape, weights: &Weights<'_, T>, packed: &mut [T]) {
    let mut rest = packed;
    let [_, _, _, first, _, _, second, last, flag, bias, log_scale] = s.lengths().map(|len| {
        let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
        rest = tail;
        head
    });
    let factor = T::from_f64(LOG_SCALE_FACTOR);
    first.iter_mut().chain(second).for_each(|slot| *slot *= factor);
    let pairs = [(weights.last, &*last), (weights.last_flag, &*flag), (weights.last_bias, &*bias)];
    for (values, gradients) in pairs {
        for (values, gradients) in values.chunks_exact(s.channels).zip(gradients.chunks_exact(s.channels)) {
            for (slot, (&value, &gradient)) in log_scale.iter_mut().zip(values.iter().zip(gradients)) {
                *slot += factor * value * gradient;
            }
        }
    }
}

/// A branch with what sends gradients down: transposed weights, and the gradient of its output before the last gain.
struct Down<'b, 'a, T> {
    branch: &'b Branch<'a, T>,
    /// `(H, 9·C)`, of the step itself and of the step before.
    first: (Vec<T>, Option<Vec<T>>),
    /// `(G, H)`.
    second: Vec<T>,
    /// `(9·C, H)`.
    last: (Vec<T>, Option<Vec<T>>),
    /// `(B, output steps, H, W, C)`.
    gradient: Vec<T>,
}

impl<'b, 'a, T: Real> Down<'b, 'a, T> {
    fn new(s: &Shape, branch: &'b Branch<'a, T>, grad: &[T]) -> Self {
        let both = |kernel, width| {
            let (now, before) = halves(s, kernel);
            (transpose(now, width), before.map(|before| transpose(before, width)))
        };
        let mut gradient = grad.to_vec();
        scale_rows(&mut gradient, &branch.last_gain);
        Down {
            branch,
            first: both(branch.weights.first, s.hidden),
            second: transpose(branch.weights.second, s.wide()),
            last: both(branch.weights.last, s.patch()),
            gradient,
        }
    }
}

/// Sums over strips of one branch.
struct Sum<T> {
    /// In the order of [`Weights`].
    packed: Vec<T>,
    /// Of what the first convolution starts from.
    first: Vec<T>,
    /// Of what is added to the output.
    last: Vec<T>,
}

impl<T: Real> Sum<T> {
    fn new(s: &Shape) -> Self {
        let zero = |len| vec![T::ZERO; len];
        Sum {
            packed: zero(s.lengths().iter().sum()),
            first: zero(s.hidden_steps() * CLASSES * s.hidden),
            last: zero(s.outputs * CLASSES * s.channels),
        }
    }

    fn parts(&mut self, s: &Shape) -> [&mut [T]; 11] {
        let mut rest = self.packed.as_mut_slice();
        s.lengths().map(|len| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(len);
            rest = tail;
            head
        })
    }

    /// The packed sums, with those of the tables taken to flags and biases.
    fn into_packed(mut self, s: &Shape) -> Vec<T> {
        let (first, last) = (std::mem::take(&mut self.first), std::mem::take(&mut self.last));
        let [_, first_flag, first_bias, .., last_flag, last_bias, _] = self.parts(s);
        let bias = |step: usize, row: &[T]| add(&mut first_bias[step * s.hidden..][..s.hidden], row);
        table_gradient(s, s.hidden, &first, first_flag, bias);
        table_gradient(s, s.channels, &last, last_flag, |_, row| add(last_bias, row));
        self.packed
    }
}

/// The last rows of a gradient with a row for each step.
fn last_rows_mut<T>(rows: &mut [T], width: usize, count: usize) -> &mut [T] {
    let start = rows.len() - count * width;
    &mut rows[start..]
}

impl<T: Real> Workspace<T> {
    /// Adds a strip's part of the weight gradients to `sum`; its part of the input's gradient is the window
    /// `(count, input steps, window rows, W, C)`.
    fn backward(&mut self, s: &Shape, down: &Down<'_, '_, T>, strip: &Strip, x: &[T], sum: &mut Sum<T>) -> Vec<T> {
        let (px, branch) = (strip.pixels(s), down.branch);
        self.hidden(s, branch, strip, x);
        let rows = s.hidden_steps() * px;
        let second = room(&mut self.second, rows * s.hidden);
        let wide = &mut self.wide[..rows * s.wide()];
        normalize(wide, px, branch.second_bias(s), &branch.second_gain, s.wide());
        activate(wide, second, s.hidden, s.gated);
        add_by_class(s, branch, strip, s.outputs, &down.gradient, &mut sum.last);
        self.last_gradient(s, down, strip, sum);
        self.second_gradient(s, down, px, sum);
        let gradient = &self.gradient[..rows * s.hidden];
        for (rows, table) in gradient.chunks_exact(px * s.hidden).zip(sum.first.chunks_exact_mut(CLASSES * s.hidden)) {
            for (row, &class) in rows.chunks_exact(s.hidden).zip(&self.classes) {
                add(&mut table[usize::from(class) * s.hidden..][..s.hidden], row);
            }
        }
        self.first_gradient(s, down, strip, sum)
    }

    /// Through the last convolution: `gradient` becomes that of the second hidden layer.
    fn last_gradient(&mut self, s: &Shape, down: &Down<'_, '_, T>, strip: &Strip, sum: &mut Sum<T>) {
        let (px, steps, h, patch) = (strip.pixels(s), s.last_steps(), s.hidden, s.patch());
        let grad = room(&mut self.rows, steps.upper * px * patch);
        gather(s, down.branch.dilation, Towards::Centre, strip, &down.gradient, grad);
        let second = &self.second[..steps.lower * px * h];
        let [.., kernel, _, _, _] = sum.parts(s);
        let (now, before) = halves_mut(s, kernel);
        let out = room(&mut self.gradient, steps.lower * px * h);
        let (low, high) = out.split_at_mut(steps.shift() * px * h);
        low.fill(T::ZERO);
        let later = &second[steps.shift() * px * h..];
        let m = steps.upper * px;
        gemm(Size { m: h, k: m, n: patch }, View::transposed(later, h), grad, now, Start::Old, false);
        gemm(Size { m, k: patch, n: h }, View::rows(grad, patch), &down.last.0, high, Start::Zero, false);
        if let (Some(before), Some(weight)) = (before, &down.last.1) {
            let (grad, m) = (&grad[steps.skip() * px * patch..], (steps.upper - steps.skip()) * px);
            gemm(Size { m: h, k: m, n: patch }, View::transposed(second, h), grad, before, Start::Old, false);
            gemm(Size { m, k: patch, n: h }, View::rows(grad, patch), weight, out, Start::Old, false);
        }
    }

    /// Through the second hidden layer and the first rectifier: `gradient` becomes that of the first product.
    fn second_gradient(&mut self, s: &Shape, down: &Down<'_, '_, T>, px: usize, sum: &mut Sum<T>) {
        let (count, h, g) = (s.hidden_steps(), s.hidden, s.wide());
        let (rows, branch) = (count * px, down.branch);
        let (wide, gradient) = (&mut self.wide[..rows * g], &mut self.gradient[..rows * h]);
        let [_, _, _, first_log_scale, second, bias, log_scale, ..] = sum.parts(s);
        let (bias, log_scale) = (last_rows_mut(bias, g, count), last_rows_mut(log_scale, g, count));
        let norm = Normalization { gains: &branch.second_gain, bias, log_scale };
        deactivate(wide, gradient, px, h, s.gated, norm);
        let first = &self.first[..rows * h];
        gemm(Size { m: h, k: rows, n: g }, View::transposed(first, h), wide, second, Start::Old, false);
        gemm(Size { m: rows, k: g, n: h }, View::rows(wide, g), &down.second, gradient, Start::Zero, false);
        derectify(first, gradient, px, &branch.first_gain, last_rows_mut(first_log_scale, h, count), h);
    }

    /// Through the first convolution.
    fn first_gradient(&mut self, s: &Shape, down: &Down<'_, '_, T>, strip: &Strip, sum: &mut Sum<T>) -> Vec<T> {
        let (px, steps, h, patch) = (strip.pixels(s), s.first_steps(), s.hidden, s.patch());
        let gradient = &self.gradient[..steps.upper * px * h];
        let patches = &self.patches[..steps.lower * px * patch];
        let [kernel, ..] = sum.parts(s);
        let (now, before) = halves_mut(s, kernel);
        let out = room(&mut self.rows, steps.lower * px * patch);
        let (low, high) = out.split_at_mut(steps.shift() * px * patch);
        low.fill(T::ZERO);
        let later = &patches[steps.shift() * px * patch..];
        let m = steps.upper * px;
        gemm(Size { m: patch, k: m, n: h }, View::transposed(later, patch), gradient, now, Start::Old, false);
        gemm(Size { m, k: h, n: patch }, View::rows(gradient, h), &down.first.0, high, Start::Zero, false);
        if let (Some(before), Some(weight)) = (before, &down.first.1) {
            let (gradient, m) = (&gradient[steps.skip() * px * h..], (steps.upper - steps.skip()) * px);
            gemm(Size { m: patch, k: m, n: h }, View::transposed(patches, patch), gradient, before, Start::Old, false);
            gemm(Size { m, k: h, n: patch }, View::rows(gradient, h), weight, out, Start::Old, false);
        }
        let rows = strip.window(s, down.branch.dilation).len();
        let mut window = vec![T::ZERO; strip.count * steps.lower * rows * s.width * s.channels];
        scatter_add(s, down.branch.dilation, Towards::Tap, strip, out, &mut window);
        window
    }
}

/// Adds the pixels of a strip, of frames `(B, steps, H, W, C)`, by step and class to `table`.
fn add_by_class<T: Real>(
    s: &Shape,
    branch: &Branch<'_, T>,
    strip: &Strip,
    steps: usize,
    frames: &[T],
    table: &mut [T],
) {
    let c = s.channels;
    for (step, table) in table.chunks_exact_mut(CLASSES * c).enumerate().take(steps) {
        for (sample, row) in strip.frame_rows() {
            let line = ((strip.first + sample) * steps + step) * s.height + row;
            let pixels = frames[line * s.width * c..][..s.width * c].chunks_exact(c);
            for (pixel, &class) in pixels.zip(&branch.classes[row * s.width..]) {
                add(&mut table[usize::from(class) * c..][..c], pixel);
            }
        }
    }
}
