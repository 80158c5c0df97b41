//! The forward pass over all rows of one sample.

use flow_core::kernels::{Real, Start, View, gate};
use rayon::prelude::*;

use super::{FIRST, Layer, Shape, TILE, Weights};

/// What the backward pass needs of one sample.
pub(in super::super) struct Activations<T> {
    /// The input of each layer in padded rows, `(rows, pitch, C)`.
    pub(super) inputs: Vec<Vec<T>>,
    /// `tanh a` beside `σ(b)` of each layer, `(rows, W, 2C)`.
    pub(super) gates: Vec<Vec<T>>,
}

/// Writes the parameters `(rows, W, outputs)` of one sample into `out`; with `keep` also returns the activations.
pub(in super::super) fn forward<T: Real>(
    s: &Shape,
    weights: &Weights<T>,
    x: &[T],
    context: &[T],
    out: &mut [T],
    keep: bool,
) -> Option<Activations<T>> {
    let (c, rows) = (s.channels, s.rows());
    let padded = |l: usize| vec![T::ZERO; rows * s.pitch(l) * c];
    let mut kept = Activations { inputs: Vec::new(), gates: Vec::new() };
    out.chunks_exact_mut(s.outputs).for_each(|place| place.copy_from_slice(&weights.head_bias));
    let mut input = padded(0);
    input.par_chunks_exact_mut(s.pitch(0) * c).zip(x.par_chunks_exact(s.width * s.inputs)).for_each(|(row, x)| {
        front(s, weights, x, &mut row[s.left(0) * c..]);
    });
    for (l, layer) in weights.layers.iter().enumerate() {
        let mut next = if layer.residual.is_some() { padded(l + 1) } else { Vec::new() };
        let mut gates = if keep { vec![T::ZERO; rows * s.width * 2 * c] } else { Vec::new() };
        let mut work = Vec::with_capacity(rows * s.width.div_ceil(s.tile()));
        let mut next_rows = next.chunks_exact_mut((s.width + 2 * s.dilations.get(l + 1).map_or(0, |d| d[1])) * c);
        let mut gate_rows = gates.chunks_exact_mut(s.width * 2 * c);
        for (r, params) in out.chunks_exact_mut(s.outputs * s.width).enumerate() {
            let taps = Taps::new(s, l, r, |row| &input[row * s.pitch(l) * c..][..s.pitch(l) * c]);
            let next = next_rows.next().map(|row| &mut row[s.left(l + 1) * c..][..s.width * c]);
            let row = Row { l, taps, context: s.context_row(context, r) };
            tiles(s, row, next, gate_rows.next(), params, &mut work);
        }
        run(s, layer, work);
        let before = std::mem::replace(&mut input, next);
        if keep {
            kept.inputs.push(before);
            kept.gates.push(gates);
        }
    }
    keep.then_some(kept)
}

/// `W x + b` for a row of places.
pub(super) fn front<T: Real>(s: &Shape, weights: &Weights<T>, x: &[T], row: &mut [T]) {
    let [weight, bias] = &weights.front;
    let (first, others) = weight.split_at(s.channels);
    for (slots, x) in row.chunks_exact_mut(s.channels).zip(x.chunks_exact(s.inputs)) {
        slots.iter_mut().zip(first.iter().zip(bias)).for_each(|(slot, (&w, &b))| *slot = w * x[0] + b);
        for (weight, &x) in others.chunks_exact(s.channels).zip(&x[1..]) {
            slots.iter_mut().zip(weight).for_each(|(slot, &w)| *slot += w * x);
        }
    }
}

/// The padded rows that the rows of a kernel see, the row itself last; `None` above the first row.
#[derive(Clone, Copy)]
pub(super) struct Taps<'a, T> {
    rows: [Option<&'a [T]>; 3],
    count: usize,
}

impl<'a, T> Taps<'a, T> {
    pub fn new(s: &Shape, l: usize, r: usize, row: impl Fn(usize) -> &'a [T]) -> Self {
        let mut rows = [None; 3];
        for (u, place) in rows.iter_mut().enumerate().take(s.kernel_rows) {
            *place = s.tap_row(l, u, r).map(&row);
        }
        Taps { rows, count: s.kernel_rows }
    }

    fn rows(&self) -> &[Option<&'a [T]>] {
        &self.rows[..self.count]
    }
}

/// The inputs of one row of a layer: padded rows for the rows of the kernel, and the context.
#[derive(Clone, Copy)]
pub(super) struct Row<'a, T> {
    pub l: usize,
    pub taps: Taps<'a, T>,
    pub context: &'a [T],
}

/// Some columns of a row and where their results go.
pub(super) struct Tile<'a, T> {
    row: Row<'a, T>,
    from: usize,
    next: Option<&'a mut [T]>,
    gates: Option<&'a mut [T]>,
    params: &'a mut [T],
}

/// Cuts a row into tiles.
pub(super) fn tiles<'a, T: Real>(
    s: &Shape,
    row: Row<'a, T>,
    next: Option<&'a mut [T]>,
    gates: Option<&'a mut [T]>,
    params: &'a mut [T],
    work: &mut Vec<Tile<'a, T>>,
) {
    let (tile, c) = (s.tile(), s.channels);
    let mut next = next.map(|next| next.chunks_mut(tile * c));
    let mut gates = gates.map(|gates| gates.chunks_mut(tile * 2 * c));
    for (i, params) in params.chunks_mut(tile * s.outputs).enumerate() {
        let (next, gates) = (next.as_mut().and_then(Iterator::next), gates.as_mut().and_then(Iterator::next));
        work.push(Tile { row, from: i * tile, next, gates, params });
    }
}

/// Works on tiles, in any order.
pub(super) fn run<T: Real>(s: &Shape, layer: &Layer<T>, work: Vec<Tile<'_, T>>) {
    let c = s.channels;
    let buffers = || [vec![T::ZERO; TILE * 2 * c], vec![T::ZERO; TILE * c]];
    work.into_par_iter().for_each_init(buffers, |[wide, gated], tile| tile.run(s, layer, wide, gated));
}

impl<T: Real> Tile<'_, T> {
    fn run(self, s: &Shape, layer: &Layer<T>, wide: &mut [T], gated: &mut [T]) {
        let Tile { row, from, next, gates, params } = self;
        let (c, d, m) = (s.channels, s.dilations[row.l][1], params.len() / s.outputs);
        let wide = match gates {
            Some(kept) => kept,
            None => &mut wide[..m * 2 * c],
        };
        let gated = &mut gated[..m * c];
        let bias = Start::Table { table: &layer.bias, class: &FIRST[..m] };
        layer.condition.product(m, View::rows(&row.context[from * s.context..], s.context), wide, bias, false);
        for (input, weights) in row.taps.rows().iter().zip(&layer.taps) {
            let Some(input) = input else { continue };
            let parts = [0, 1, 2].map(|v| View::rows(&input[(from + v * d) * c..], c));
            weights.product_of_parts(m, &parts, wide, Start::Old, false);
        }
        gate(c, wide, gated);
        let own = row.taps.rows().last().copied().flatten();
        if let (Some((residual, bias)), Some(next), Some(input)) = (&layer.residual, next, own) {
            let centre = &input[(from + s.left(row.l)) * c..][..m * c];
            for (slots, centre) in next.chunks_exact_mut(c).zip(centre.chunks_exact(c)) {
                slots.iter_mut().zip(centre.iter().zip(bias)).for_each(|(slot, (&x, &b))| *slot = x + b);
            }
            residual.product(m, View::rows(gated, c), next, Start::Old, false);
        }
        layer.head.product(m, View::rows(gated, c), params, Start::Old, false);
    }
}
