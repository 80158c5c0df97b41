//! The points' half of an encoder without batch normalization as one CPU pass.
//!
//! Nothing ties the rows of a batch together but the maximum over a cloud: blocks of rows pass all layers within the
//! cache, and of the whole batch only the place of every maximum is kept. The gradient enters at those places, a few rows
//! of a cloud, which the backward pass computes again; the others have none.
//!
//! Work is split in a way that no number of threads changes, and partial sums are added in order: results do not depend
//! on it.

use candle_core::Shape;
use flow_core::kernels::{Fused, Kept, Real, Size, Start, View, gemm, transpose, vectorized};
use rayon::prelude::*;

use super::kernel::{BLOCK, Batch, SEGMENT, rectified_backward};

/// Units of parallel work of a backward pass at the most, each with a gradient of all parameters.
const UNITS: usize = 32;

/// The parameters of one layer, borrowed.
struct Layer<'a, T> {
    inputs: usize,
    outputs: usize,
    /// `(outputs, inputs)`.
    weight: &'a [T],
    transposed: Vec<T>,
    bias: &'a [T],
}

/// Cuts a packed vector, weight and bias of every layer, into layers.
fn unpack<'a, T: Real>(widths: &[usize], mut flat: &'a [T]) -> Vec<Layer<'a, T>> {
    let mut take = |n: usize| {
        let (head, tail) = flat.split_at(n);
        flat = tail;
        head
    };
    let layer = |w: &[usize]| {
        let (inputs, outputs) = (w[0], w[1]);
        let weight = take(inputs * outputs);
        Layer { inputs, outputs, weight, transposed: transpose(weight, inputs), bias: take(outputs) }
    };
    widths.windows(2).map(layer).collect()
}

/// What the layers make of a block of rows.
struct Activations<T> {
    /// After every layer, rectified but for the last, `(BLOCK, width)`.
    of: Vec<Vec<T>>,
}

impl<T: Real> Activations<T> {
    fn new(layers: &[Layer<'_, T>]) -> Self {
        Activations { of: layers.iter().map(|l| vec![T::ZERO; BLOCK * l.outputs]).collect() }
    }

    /// Runs rows `x`, `(rows, 3)`, through the layers, and returns the last one's values.
    fn run(&mut self, layers: &[Layer<'_, T>], x: &[T]) -> &[T] {
        let class = [0_u8; BLOCK];
        let rows = layers.first().map_or(0, |first| x.len() / first.inputs);
        for (l, layer) in layers.iter().enumerate() {
            let (below, above) = self.of.split_at_mut(l);
            let input = below.last().map_or(x, |a| &a[..rows * layer.inputs]);
            let size = Size { m: rows, k: layer.inputs, n: layer.outputs };
            let bias = Start::Table { table: layer.bias, class: &class };
            let input = View::rows(input, layer.inputs);
            gemm(size, input, &layer.transposed, &mut above[0][..rows * layer.outputs], bias, l + 1 < layers.len());
        }
        self.of.last().zip(layers.last()).map_or(&[], |(a, layer)| &a[..rows * layer.outputs])
    }
}

/// The largest value of every channel so far and the row that has it.
struct Largest<T> {
    value: Vec<T>,
    row: Vec<u32>,
}

impl<T: Real> Largest<T> {
    fn of(first: &[T], row: u32) -> Self {
        Largest { value: first.to_vec(), row: vec![row; first.len()] }
    }

    /// Takes in another row; the earlier one keeps its place in a tie, and what is not a number wins, so that it
    /// cannot hide.
    fn take(&mut self, values: &[T], row: impl Fn(usize) -> u32) {
        for (channel, ((best, place), &v)) in self.value.iter_mut().zip(&mut self.row).zip(values).enumerate() {
            if v > *best || (v.to_f64().is_nan() && !best.to_f64().is_nan()) {
                (*best, *place) = (v, row(channel));
            }
        }
    }
}

/// The largest value over the points of each cloud, `(clouds, width)`, and the row within the cloud that has it.
fn forward<T: Real>(widths: &[usize], packed: &[T], x: &[T], batch: Batch) -> (Vec<T>, Vec<u32>) {
    let layers = unpack(widths, packed);
    let (inputs, width) = (widths[0], widths[widths.len() - 1]);
    let segments = batch.segments();
    let parts: Vec<Option<Largest<T>>> = segments
        .par_iter()
        .map(|&(first, len)| {
            let (mut activations, mut largest) = (Activations::new(&layers), None::<Largest<T>>);
            for start in (first..first + len).step_by(BLOCK) {
                let rows = BLOCK.min(first + len - start);
                let top = activations.run(&layers, &x[start * inputs..(start + rows) * inputs]);
                for (r, values) in top.chunks_exact(width).enumerate() {
                    let row = ((start + r) % batch.points) as u32;
                    match &mut largest {
                        None => largest = Some(Largest::of(values, row)),
                        Some(largest) => vectorized(|| largest.take(values, |_| row)),
                    }
                }
            }
            largest
        })
        .collect();
    let (mut pooled, mut winner) = (Vec::new(), Vec::new());
    for cloud in parts.chunks(batch.points.div_ceil(SEGMENT).max(1)) {
        let mut cloud = cloud.iter().flatten();
        let Some(first) = cloud.next() else { continue };
        let mut all = Largest { value: first.value.clone(), row: first.row.clone() };
        cloud.for_each(|next| all.take(&next.value, |channel| next.row[channel]));
        pooled.extend(all.value);
        winner.extend(all.row);
    }
    (pooled, winner)
}

/// Gradient of every packed parameter, given that of the largest values, `(clouds, width)`, and their rows.
fn backward<T: Real>(widths: &[usize], packed: &[T], x: &[T], batch: Batch, winner: &[u32], grad: &[T]) -> Vec<T> {
    let layers = unpack(widths, packed);
    let width = widths[widths.len() - 1];
    let entry = |(i, (&row, &g)): (usize, (&u32, &T))| (i / width * batch.points + row as usize, i % width, g);
    let mut entries: Vec<(usize, usize, T)> = winner.iter().zip(grad).enumerate().map(entry).collect();
    entries.sort_unstable_by_key(|&(row, channel, _)| (row, channel));
    let rows: Vec<&[(usize, usize, T)]> = entries.chunk_by(|a, b| a.0 == b.0).collect();
    let partial: Vec<Vec<T>> = rows
        .par_chunks(rows.len().div_ceil(UNITS).max(BLOCK))
        .map(|unit| {
            let mut total = vec![T::ZERO; packed.len()];
            let mut sweep = Sweep::new(&layers);
            unit.chunks(BLOCK).for_each(|block| sweep.add(&layers, x, block, &mut total));
            total
        })
        .collect();
    let mut total = vec![T::ZERO; packed.len()];
    for part in partial {
        total.iter_mut().zip(&part).for_each(|(t, &v)| *t += v);
    }
    total
}

/// The room that a block needs on its way up and back.
struct Sweep<T> {
    activations: Activations<T>,
    x: Vec<T>,
    upper: Vec<T>,
    lower: Vec<T>,
}

impl<T: Real> Sweep<T> {
    fn new(layers: &[Layer<'_, T>]) -> Self {
        let widest = layers.iter().map(|l| l.outputs.max(l.inputs)).max().unwrap_or(0);
        let room = vec![T::ZERO; BLOCK * widest];
        Sweep { activations: Activations::new(layers), x: Vec::new(), upper: room.clone(), lower: room }
    }

    /// Adds the gradient of a block of rows, each with its `(row, channel, gradient)`, to `total`, packed as the
    /// parameters are.
    fn add(&mut self, layers: &[Layer<'_, T>], x: &[T], block: &[&[(usize, usize, T)]], total: &mut [T]) {
        let Some(&Layer { outputs: width, .. }) = layers.last() else { return };
        let (rows, inputs) = (block.len(), layers[0].inputs);
        self.x.clear();
        for &(row, ..) in block.iter().filter_map(|entries| entries.first()) {
            self.x.extend(&x[row * inputs..(row + 1) * inputs]);
        }
        self.activations.run(layers, &self.x);
        self.upper[..rows * width].fill(T::ZERO);
        for (r, entries) in block.iter().enumerate() {
            entries.iter().for_each(|&(_, channel, g)| self.upper[r * width + channel] = g);
        }
        let mut end = total.len();
        for (l, layer) in layers.iter().enumerate().rev() {
            let Layer { inputs, outputs, .. } = *layer;
            let begin = end - outputs * (inputs + 1);
            let (weight, bias) = total[begin..end].split_at_mut(outputs * inputs);
            end = begin;
            let dy = &self.upper[..rows * outputs];
            let input = match l {
                0 => &self.x,
                _ => &self.activations.of[l - 1][..rows * inputs],
            };
            let size = Size { m: outputs, k: rows, n: inputs };
            gemm(size, View::transposed(dy, outputs), input, weight, Start::Old, false);
            for row in dy.chunks_exact(outputs) {
                bias.iter_mut().zip(row).for_each(|(b, &g)| *b += g);
            }
            if l > 0 {
                let below = &mut self.lower[..rows * inputs];
                let size = Size { m: rows, k: outputs, n: inputs };
                gemm(size, View::rows(dy, outputs), layer.weight, below, Start::Zero, false);
                rectified_backward(input, below);
                std::mem::swap(&mut self.upper, &mut self.lower);
            }
        }
    }
}

/// The layers of every point and the maximum over points, of points `(clouds, points, 3)` and packed parameters.
pub(super) struct PlainPool {
    widths: Vec<usize>,
    batch: Batch,
    /// The rows of the maxima, from the forward pass of the same operation.
    winner: Kept,
}

impl PlainPool {
    pub(super) fn new(widths: &[usize], batch: Batch) -> Self {
        PlainPool { widths: widths.to_vec(), batch, winner: Kept::default() }
    }
}

impl Fused<2> for PlainPool {
    fn name(&self) -> &'static str {
        "plain-point-pool"
    }

    fn shape(&self) -> Shape {
        (self.batch.clouds, self.widths[self.widths.len() - 1]).into()
    }

    fn forward<T: Real>(&self, [x, packed]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (pooled, winner) = forward(&self.widths, packed, x, self.batch);
        self.winner.put(winner);
        Ok(pooled)
    }

    fn backward<T: Real>(&self, [x, packed]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let winner: Vec<u32> = self.winner.take().unwrap_or_else(|| forward(&self.widths, packed, x, self.batch).1);
        Ok([None, Some(backward(&self.widths, packed, x, self.batch, &winner, grad))])
    }
}
