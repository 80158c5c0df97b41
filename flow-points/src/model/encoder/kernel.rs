//! The points' half of the encoder as one CPU pass: linear layers with batch normalization and rectification,
//! then the largest value of every channel over the points of a cloud.
//!
//! Batch normalization needs the statistics of a whole layer before the next can start, so each layer is one pass
//! over all rows; within a pass, blocks of rows stay in the cache and only the values before normalization are kept.
//! The gradient of the maximum goes to one point (the first of those that tie): clouds may hold duplicates.
//!
//! Work is split by cloud and by segments of a fixed length, and partial sums are added in order, so results do not
//! depend on the number of threads.

use flow_core::kernels::{Real, Size, Start, View, gemm, transpose, vectorized};
use rayon::prelude::*;

/// Rows that are in the cache at once.
pub(super) const BLOCK: usize = 128;

/// Rows of a unit of parallel work.
pub(super) const SEGMENT: usize = 1024;

/// Added to every variance (torch's default).
pub(super) const EPSILON: f64 = 1e-5;

/// The parameters of one layer, borrowed.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a, T> {
    /// `(outputs, inputs)`.
    pub weight: &'a [T],
    pub bias: &'a [T],
    /// Gain and offset after normalization.
    pub gain: &'a [T],
    pub offset: &'a [T],
}

/// Widths of the network, the input first: `[3, 128, 128, 256, 512]`.
pub(super) fn parameter_lengths(widths: &[usize]) -> impl Iterator<Item = [usize; 4]> {
    widths.windows(2).map(|w| [w[1] * w[0], w[1], w[1], w[1]])
}

/// Cuts a packed parameter vector into layers.
pub(super) fn unpack<'a, T>(widths: &[usize], mut flat: &'a [T]) -> Vec<Layer<'a, T>> {
    let mut take = |n: usize| {
        let (head, tail) = flat.split_at(n);
        flat = tail;
        head
    };
    parameter_lengths(widths)
        .map(|[w, b, g, o]| Layer { weight: take(w), bias: take(b), gain: take(g), offset: take(o) })
        .collect()
}

/// Mean and biased variance of every channel of one layer.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
}

/// What the backward pass needs of a forward pass.
pub(super) struct Trace<T> {
    /// Values of every layer before normalization, `(rows, width)`.
    pre: Vec<Vec<T>>,
    /// Statistics of every layer.
    pub moments: Vec<Moments>,
    /// For each cloud and channel of the last layer the row (within the cloud) of the maximum.
    pub winner: Vec<u32>,
}

/// Sizes of a batch.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub clouds: usize,
    pub points: usize,
}

impl Batch {
    fn rows(self) -> usize {
        self.clouds * self.points
    }

    /// First row and length of every unit of work; none crosses a cloud.
    pub(super) fn segments(self) -> Vec<(usize, usize)> {
        let starts = (0..self.clouds).flat_map(|c| (0..self.points).step_by(SEGMENT).map(move |p| (c, p)));
        starts.map(|(c, p)| (c * self.points + p, SEGMENT.min(self.points - p))).collect()
    }
}

/// Normalization folded into one gain and one offset for each channel.
struct Affine<T> {
    gain: Vec<T>,
    offset: Vec<T>,
}

impl<T: Real> Affine<T> {
    fn new(layer: &Layer<'_, T>, moments: &Moments) -> Self {
        let gain: Vec<f64> =
            layer.gain.iter().zip(&moments.variance).map(|(g, v)| g.to_f64() / (v + EPSILON).sqrt()).collect();
        let offset = layer.offset.iter().zip(&moments.mean).zip(&gain).map(|((o, m), g)| o.to_f64() - m * g);
        Affine { offset: offset.map(T::from_f64).collect(), gain: gain.iter().map(|&g| T::from_f64(g)).collect() }
    }

    /// `max(gain·y + offset, 0)` of rows; NaN stays NaN.
    fn rectified(&self, pre: &[T], out: &mut [T]) {
        vectorized(|| {
            for (row, out) in pre.chunks_exact(self.gain.len()).zip(out.chunks_exact_mut(self.gain.len())) {
                for (((o, &y), &g), &c) in out.iter_mut().zip(row).zip(&self.gain).zip(&self.offset) {
                    let v = y * g + c;
                    *o = if v < T::ZERO { T::ZERO } else { v };
                }
            }
        });
    }
}

/// Adds the columns' sums and sums of squares of a block to `totals` (sums first), block sums in f32, totals in f64.
fn add_moments<T: Real>(block: &[T], width: usize, totals: &mut [f64]) {
    let mut sums = vec![T::ZERO; 2 * width];
    let (sum, square) = sums.split_at_mut(width);
    vectorized(|| {
        for row in block.chunks_exact(width) {
            for ((s, q), &v) in sum.iter_mut().zip(square.iter_mut()).zip(row) {
                *s += v;
                *q += v * v;
            }
        }
    });
    totals.iter_mut().zip(&sums).for_each(|(t, s)| *t += s.to_f64());
}

/// Splits a buffer of rows of `width` entries into the segments' parts.
fn split<'a, T>(mut buffer: &'a mut [T], width: usize, segments: &[(usize, usize)]) -> Vec<&'a mut [T]> {
    segments
        .iter()
        .map(|&(_, len)| {
            let (head, tail) = std::mem::take(&mut buffer).split_at_mut(len * width);
            buffer = tail;
            head
        })
        .collect()
}

/// Statistics for a forward pass.
pub(super) enum Statistics<'a> {
    /// Those of the batch itself.
    Batch,
    /// Given ones (running averages), one for each layer.
    Given(&'a [Moments]),
}

/// Largest value over the points of each cloud, `(clouds, width)`, with what a backward pass needs.
///
/// `x` holds `(clouds·points, widths[0])`.
pub(super) fn forward<T: Real>(
    widths: &[usize],
    layers: &[Layer<'_, T>],
    x: &[T],
    batch: Batch,
    statistics: &Statistics<'_>,
) -> (Vec<T>, Trace<T>) {
    let segments = batch.segments();
    let mut trace = Trace { pre: Vec::new(), moments: Vec::new(), winner: Vec::new() };
    for (l, layer) in layers.iter().enumerate() {
        let (inputs, outputs) = (widths[l], widths[l + 1]);
        let before = l.checked_sub(1).map(|k| (Affine::new(&layers[k], &trace.moments[k]), &trace.pre[k]));
        let weight = transpose(layer.weight, inputs);
        let mut pre = vec![T::ZERO; batch.rows() * outputs];
        let parts = split(&mut pre, outputs, &segments);
        let sums: Vec<Vec<f64>> = parts
            .into_par_iter()
            .zip(&segments)
            .map(|(out, &(first, len))| {
                let mut totals = vec![0.0; 2 * outputs];
                let mut scratch = vec![T::ZERO; BLOCK * inputs];
                let class = [0_u8; BLOCK];
                for start in (0..len).step_by(BLOCK) {
                    let rows = BLOCK.min(len - start);
                    let at = (first + start) * inputs;
                    let input = match &before {
                        None => &x[at..at + rows * inputs],
                        Some((affine, pre)) => {
                            affine.rectified(&pre[at..at + rows * inputs], &mut scratch);
                            &scratch[..rows * inputs]
                        }
                    };
                    let out = &mut out[start * outputs..(start + rows) * outputs];
                    let size = Size { m: rows, k: inputs, n: outputs };
                    let bias = Start::Table { table: layer.bias, class: &class };
                    gemm(size, View::rows(input, inputs), &weight, out, bias, false);
                    add_moments(out, outputs, &mut totals);
                }
                totals
            })
            .collect();
        let moments = match statistics {
            Statistics::Given(given) => given[l].clone(),
            Statistics::Batch => moments(&sums, outputs, batch.rows()),
        };
        trace.pre.push(pre);
        trace.moments.push(moments);
    }
    let pooled = pool(widths, layers, batch, &mut trace);
    (pooled, trace)
}

fn moments(sums: &[Vec<f64>], width: usize, rows: usize) -> Moments {
    let mut totals = vec![0.0; 2 * width];
    for sum in sums {
        totals.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
    }
    let n = rows as f64;
    let mean: Vec<f64> = totals[..width].iter().map(|s| s / n).collect();
    // NaN must survive, so no `max`.
    let spread = |(q, m): (&f64, &f64)| q / n - m * m;
    let variance = totals[width..].iter().zip(&mean).map(spread).map(|v| if v < 0.0 { 0.0 } else { v }).collect();
    Moments { mean, variance }
}

/// The maximum over points of the last layer's normalized values: normalization is monotone in every channel, so
/// the place of the maximum is found before it.
fn pool<T: Real>(widths: &[usize], layers: &[Layer<'_, T>], batch: Batch, trace: &mut Trace<T>) -> Vec<T> {
    let (Some(&width), Some(layer), Some(pre), Some(moments)) =
        (widths.last(), layers.last(), trace.pre.last(), trace.moments.last())
    else {
        return Vec::new();
    };
    let affine = Affine::new(layer, moments);
    let clouds: Vec<(Vec<T>, Vec<u32>)> = pre
        .par_chunks_exact((batch.points * width).max(1))
        .map(|cloud| {
            let mut best: Vec<T> = affine.gain.iter().zip(cloud).map(|(&g, &y)| y * g).collect();
            let mut winner = vec![0_u32; width];
            for (row, values) in cloud.chunks_exact(width).enumerate() {
                for (((b, w), &y), &g) in best.iter_mut().zip(&mut winner).zip(values).zip(&affine.gain) {
                    let v = y * g;
                    // Not a number wins, so that it cannot hide.
                    if v > *b || (v.to_f64().is_nan() && !b.to_f64().is_nan()) {
                        (*b, *w) = (v, row as u32);
                    }
                }
            }
            let value = best.iter().zip(&affine.offset).map(|(&b, &o)| b + o).collect();
            (value, winner)
        })
        .collect();
    let mut pooled = Vec::with_capacity(batch.clouds * width);
    for (value, winner) in clouds {
        pooled.extend(value);
        trace.winner.extend(winner);
    }
    pooled
}

/// Gradient of every packed parameter, given that of the pooled values, `(clouds, width)`; statistics are the batch's.
pub(super) fn backward<T: Real>(
    widths: &[usize],
    layers: &[Layer<'_, T>],
    x: &[T],
    batch: Batch,
    trace: &Trace<T>,
    grad: &[T],
) -> Vec<T> {
    let segments = batch.segments();
    let mut packed: Vec<Vec<T>> = Vec::new();
    // The gradient with respect to the normalized values of the layer at hand.
    let mut upper: Upper<T> = Upper::Pooled(winners(batch, trace, grad));
    for l in (0..layers.len()).rev() {
        let (inputs, outputs) = (widths[l], widths[l + 1]);
        let norm = Norm::new(&layers[l], &trace.moments[l], batch.rows(), upper.sums(&trace.pre[l], &trace.moments[l]));
        let before = l.checked_sub(1).map(|k| (Affine::new(&layers[k], &trace.moments[k]), &trace.pre[k]));
        let mut below = vec![T::ZERO; if l == 0 { 0 } else { batch.rows() * inputs }];
        let parts: Vec<Option<&mut [T]>> = match l {
            0 => segments.iter().map(|_| None).collect(),
            _ => split(&mut below, inputs, &segments).into_iter().map(Some).collect(),
        };
        let partial: Vec<(Vec<T>, Vec<f64>)> = parts
            .into_par_iter()
            .zip(&segments)
            .map(|(mut below, &(first, len))| {
                let mut weight = vec![T::ZERO; outputs * inputs];
                let mut sums = vec![0.0; 2 * inputs];
                let (mut dy, mut a) = (vec![T::ZERO; BLOCK * outputs], vec![T::ZERO; BLOCK * inputs]);
                for start in (0..len).step_by(BLOCK) {
                    let rows = BLOCK.min(len - start);
                    let row = first + start;
                    let dy = &mut dy[..rows * outputs];
                    upper.load(row, rows, outputs, batch.points, dy);
                    norm.backward(&trace.pre[l][row * outputs..(row + rows) * outputs], dy);
                    let at = row * inputs..(row + rows) * inputs;
                    let input = match &before {
                        None => &x[at.clone()],
                        Some((affine, pre)) => {
                            affine.rectified(&pre[at.clone()], &mut a);
                            &a[..rows * inputs]
                        }
                    };
                    let size = Size { m: outputs, k: rows, n: inputs };
                    gemm(size, View::transposed(dy, outputs), input, &mut weight, Start::Old, false);
                    if let (Some(below), Some((_, pre))) = (&mut below, &before) {
                        let g = &mut below[start * inputs..(start + rows) * inputs];
                        let size = Size { m: rows, k: outputs, n: inputs };
                        gemm(size, View::rows(dy, outputs), layers[l].weight, g, Start::Zero, false);
                        rectified_backward(input, g);
                        add_gradient_sums(g, &pre[at], &trace.moments[l - 1], inputs, &mut sums);
                    }
                }
                (weight, sums)
            })
            .collect();
        let mut weight = vec![T::ZERO; outputs * inputs];
        let mut sums = vec![0.0; 2 * inputs];
        for (w, s) in partial {
            weight.iter_mut().zip(&w).for_each(|(t, &v)| *t += v);
            sums.iter_mut().zip(&s).for_each(|(t, v)| *t += v);
        }
        // A constant added before a batch normalization has no effect.
        let bias = vec![T::ZERO; outputs];
        packed.push([weight, bias, norm.grad_gain(), norm.grad_offset()].concat());
        upper = Upper::Rows { grad: below, sums };
    }
    packed.reverse();
    packed.concat()
}

/// Where a rectifier was closed the gradient stops.
pub(super) fn rectified_backward<T: Real>(activated: &[T], grad: &mut [T]) {
    vectorized(|| {
        for (g, &a) in grad.iter_mut().zip(activated) {
            *g = if a > T::ZERO { *g } else { T::ZERO };
        }
    });
}

/// Adds `Σ g` and `Σ g·(y − mean)` of every column of a block.
fn add_gradient_sums<T: Real>(grad: &[T], pre: &[T], moments: &Moments, width: usize, totals: &mut [f64]) {
    let mean: Vec<T> = moments.mean.iter().map(|&m| T::from_f64(m)).collect();
    let mut sums = vec![T::ZERO; 2 * width];
    let (sum, product) = sums.split_at_mut(width);
    vectorized(|| {
        for (g, y) in grad.chunks_exact(width).zip(pre.chunks_exact(width)) {
            for ((((s, p), &g), &y), &m) in sum.iter_mut().zip(product.iter_mut()).zip(g).zip(y).zip(&mean) {
                *s += g;
                *p += g * (y - m);
            }
        }
    });
    totals.iter_mut().zip(&sums).for_each(|(t, s)| *t += s.to_f64());
}

/// For each cloud, the `(point, channel, gradient)` of the maxima, by point.
fn winners<T: Real>(batch: Batch, trace: &Trace<T>, grad: &[T]) -> Vec<Vec<(u32, u32, T)>> {
    let width = grad.len() / batch.clouds.max(1);
    let cloud = |(winner, grad): (&[u32], &[T])| {
        let mut list: Vec<(u32, u32, T)> =
            winner.iter().zip(grad).enumerate().map(|(channel, (&p, &g))| (p, channel as u32, g)).collect();
        list.sort_unstable_by_key(|&(point, channel, _)| (point, channel));
        list
    };
    trace.winner.chunks_exact(width.max(1)).zip(grad.chunks_exact(width.max(1))).map(cloud).collect()
}

/// The gradient that arrives at a layer's normalized values.
enum Upper<T> {
    /// From the maximum: few entries.
    Pooled(Vec<Vec<(u32, u32, T)>>),
    /// From the layer above: all rows, with `Σ g` and `Σ g·(y − mean)` of every channel.
    Rows { grad: Vec<T>, sums: Vec<f64> },
}

impl<T: Real> Upper<T> {
    fn sums(&self, pre: &[T], moments: &Moments) -> Vec<f64> {
        match self {
            Upper::Rows { sums, .. } => sums.clone(),
            Upper::Pooled(clouds) => {
                let width = moments.mean.len();
                let points = pre.len() / width.max(1) / clouds.len().max(1);
                let mut sums = vec![0.0; 2 * width];
                for (c, list) in clouds.iter().enumerate() {
                    for &(point, channel, g) in list {
                        let channel = channel as usize;
                        let y = pre[(c * points + point as usize) * width + channel];
                        sums[channel] += g.to_f64();
                        sums[width + channel] += g.to_f64() * (y.to_f64() - moments.mean[channel]);
                    }
                }
                sums
            }
        }
    }

    /// The gradient of `rows` rows from `row` on, none of which lies in another cloud than the first.
    fn load(&self, row: usize, rows: usize, width: usize, points: usize, out: &mut [T]) {
        match self {
            Upper::Rows { grad, .. } => out.copy_from_slice(&grad[row * width..(row + rows) * width]),
            Upper::Pooled(clouds) => {
                out.fill(T::ZERO);
                let (list, first) = (&clouds[row / points], (row % points) as u32);
                let from = list.partition_point(|&(p, ..)| p < first);
                for &(point, channel, g) in list[from..].iter().take_while(|&&(p, ..)| p < first + rows as u32) {
                    out[(point - first) as usize * width + channel as usize] = g;
                }
            }
        }
    }
}

/// Batch normalization backwards: `dy = gain/σ·(g − mean(g) − x̂·mean(g·x̂))`.
struct Norm<T> {
    scale: Vec<T>,
    /// `dy = scale·g + constant + slope·y`.
    constant: Vec<T>,
    slope: Vec<T>,
    sum: Vec<f64>,
    /// `Σ g·x̂`.
    product: Vec<f64>,
}

impl<T: Real> Norm<T> {
    fn new(layer: &Layer<'_, T>, moments: &Moments, rows: usize, sums: Vec<f64>) -> Self {
        let (n, width) = (rows as f64, moments.mean.len());
        let mut norm = Norm {
            scale: Vec::with_capacity(width),
            constant: Vec::with_capacity(width),
            slope: Vec::with_capacity(width),
            sum: sums[..width].to_vec(),
            product: Vec::with_capacity(width),
        };
        for j in 0..width {
            let std = (moments.variance[j] + EPSILON).sqrt();
            let product = sums[width + j] / std;
            let scale = layer.gain[j].to_f64() / std;
            let slope = -scale * product / (n * std);
            norm.scale.push(T::from_f64(scale));
            norm.slope.push(T::from_f64(slope));
            norm.constant.push(T::from_f64(-scale * sums[j] / n - slope * moments.mean[j]));
            norm.product.push(product);
        }
        norm
    }

    fn backward(&self, pre: &[T], grad: &mut [T]) {
        let width = self.scale.len();
        vectorized(|| {
            for (g, y) in grad.chunks_exact_mut(width).zip(pre.chunks_exact(width)) {
                for j in 0..width {
                    g[j] = g[j] * self.scale[j] + self.constant[j] + self.slope[j] * y[j];
                }
            }
        });
    }

    fn grad_gain(&self) -> Vec<T> {
        self.product.iter().map(|&v| T::from_f64(v)).collect()
    }

    fn grad_offset(&self) -> Vec<T> {
        self.sum.iter().map(|&v| T::from_f64(v)).collect()
    }
}
