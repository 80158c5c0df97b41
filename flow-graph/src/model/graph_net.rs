//! The relational graph network on packed rows, forward and backward.
//!
//! A layer returns, for a node `v` with neighbours `u` by bonds of kind `r`,
//! `h′_v = Σ_r σ( h_v·W_r + Σ_u h_u·W_r )`, the identity being part of every relation as in the reference
//! implementation; `σ` is the rectifier, in the last layer the identity. Because the transform comes before the
//! sum, it is computed once per row of the layer before, whatever the number of rows that look at it.

use flow_core::kernels::{Real, Start, vectorized};

use super::config::GraphAfConfig;
use super::matrix::{Matrix, add, add_outer, product};
use super::pack::{LayerRows, Pack};
use super::params::{KINDS, Net};

/// What the forward pass leaves for the decisions and for the backward pass.
#[derive(Debug)]
pub(crate) struct Embedded<T> {
    /// Rows of every layer, the input first, the last one before normalization.
    layers: Vec<Vec<T>>,
    /// Rows of every layer but the last, transformed for the three kinds of bonds.
    transformed: Vec<Vec<T>>,
    /// Embeddings of the last layer's rows.
    pub rows: Vec<T>,
    /// Sums of the embeddings of each state, after a row of zeros for the empty graph.
    pub states: Vec<T>,
}

impl<T> Embedded<T> {
    /// Rows of every layer, transformed rows of every layer but the last, embeddings.
    pub fn into_parts(self) -> (Vec<Vec<T>>, Vec<Vec<T>>, Vec<T>) {
        (self.layers, self.transformed, self.rows)
    }
}

/// Embeddings of all rows and states of a pack.
pub(crate) fn forward<T: Real>(config: &GraphAfConfig, net: &Net<Matrix<T>>, pack: &Pack) -> Embedded<T> {
    let (layers, transformed) = layers(config, net, pack);
    let raw = layers.last().map(Vec::as_slice).unwrap_or_default();
    let rows = normalize(raw, &net.scale.data, &net.shift.data);
    let width = config.width;
    let mut states = vec![T::ZERO; (pack.states() + 1) * width];
    vectorized(|| {
        for (s, sum) in states.chunks_exact_mut(width).skip(1).enumerate() {
            pack.rows_of_state(s).iter().for_each(|&r| add(sum, &rows[r as usize * width..][..width]));
        }
    });
    Embedded { layers, transformed, rows, states }
}

/// The embeddings before normalization, for its data-dependent start.
pub(crate) fn unnormalized<T: Real>(config: &GraphAfConfig, net: &Net<Matrix<T>>, pack: &Pack) -> Vec<T> {
    layers(config, net, pack).0.pop().unwrap_or_default()
}

fn layers<T: Real>(config: &GraphAfConfig, net: &Net<Matrix<T>>, pack: &Pack) -> (Vec<Vec<T>>, Vec<Vec<T>>) {
    let mut layers = vec![inputs(net, pack)];
    let mut transformed = Vec::with_capacity(config.layers);
    for (l, weight) in net.gnn.iter().enumerate() {
        let below = &layers[l];
        let y = weight.apply(below);
        let mut out = vec![T::ZERO; pack.rows(l + 1) * config.width];
        let residual = (config.residual && weight.rows == config.width).then_some(below.as_slice());
        aggregate(&pack.layers[l], &y, residual, l + 1 < config.layers, &mut out, config.width);
        transformed.push(y);
        layers.push(out);
    }
    (layers, transformed)
}

/// `h·scale + shift`, the place of the reference's batch normalization; it depends on no other molecule.
pub(crate) fn normalize<T: Real>(raw: &[T], scale: &[T], shift: &[T]) -> Vec<T> {
    let mut out = raw.to_vec();
    vectorized(|| {
        for row in out.chunks_exact_mut(scale.len().max(1)) {
            row.iter_mut().zip(scale).zip(shift).for_each(|((x, &s), &b)| *x = *x * s + b);
        }
    });
    out
}

fn inputs<T: Real>(net: &Net<Matrix<T>>, pack: &Pack) -> Vec<T> {
    let width = net.embed.columns;
    let mut out = vec![T::ZERO; pack.rows(0) * width];
    for (row, span) in out.chunks_exact_mut(width.max(1)).zip(pack.feature_offsets.windows(2)) {
        pack.features[span[0] as usize..span[1] as usize]
            .iter()
            .for_each(|&f| add(row, net.embed.block(usize::from(f), usize::from(f) + 1)));
    }
    out
}

/// The sums of a row before `σ`, for the three kinds side by side.
#[inline(always)]
fn sums<T: Real>(rows: &LayerRows, row: usize, y: &[T], width: usize, sum: &mut [T]) {
    let wide = KINDS * width;
    sum.copy_from_slice(&y[rows.own[row] as usize * wide..][..wide]);
    for &(source, kind) in &rows.neighbours[rows.offsets[row] as usize..rows.offsets[row + 1] as usize] {
        let at = usize::from(kind) * width;
        add(&mut sum[at..at + width], &y[source as usize * wide + at..][..width]);
    }
}

fn aggregate<T: Real>(rows: &LayerRows, y: &[T], residual: Option<&[T]>, rectify: bool, out: &mut [T], width: usize) {
    let mut sum = vec![T::ZERO; KINDS * width];
    vectorized(|| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            sums(rows, row, y, width, &mut sum);
            if let Some(below) = residual {
                out.copy_from_slice(&below[rows.own[row] as usize * width..][..width]);
            }
            activate(&sum, rectify, out, width);
        }
    });
}

/// Adds the activated sums of the three kinds to `out`.
#[inline(always)]
pub(crate) fn activate<T: Real>(sum: &[T], rectify: bool, out: &mut [T], width: usize) {
    for kind in sum.chunks_exact(width) {
        if rectify {
            // NaN is not below zero, so it stays visible.
            out.iter_mut().zip(kind).for_each(|(o, &s)| *o += if s < T::ZERO { T::ZERO } else { s });
        } else {
            add(out, kind);
        }
    }
}

/// Sends gradients of the embeddings and of the states back, adding those of the parameters to `grads`.
pub(crate) fn backward<T: Real>(
    config: &GraphAfConfig,
    nets: (&Net<Matrix<T>>, &Net<Matrix<T>>),
    pack: &Pack,
    embedded: &Embedded<T>,
    (mut d_rows, d_states): (Vec<T>, &[T]),
    grads: &mut Net<Matrix<T>>,
) {
    let (net, transposed) = nets;
    let width = config.width;
    vectorized(|| {
        for (s, sum) in d_states.chunks_exact(width).skip(1).enumerate() {
            pack.rows_of_state(s).iter().for_each(|&r| add(&mut d_rows[r as usize * width..][..width], sum));
        }
    });
    let raw = embedded.layers.last().map(Vec::as_slice).unwrap_or_default();
    normalize_backward(raw, net, &mut d_rows, grads);
    let mut d_out = d_rows;
    for l in (0..config.layers).rev() {
        let (below, y) = (&embedded.layers[l], &embedded.transformed[l]);
        let mut d_y = vec![T::ZERO; y.len()];
        aggregate_backward(&pack.layers[l], y, l + 1 < config.layers, &d_out, &mut d_y, width);
        let mut d_below = vec![T::ZERO; below.len()];
        if config.residual && net.gnn[l].rows == width {
            super::matrix::scatter_add(&mut d_below, width, pack.layers[l].own.iter().copied(), &d_out);
        }
        product(&d_y, KINDS * width, &transposed.gnn[l].data, net.gnn[l].rows, &mut d_below, Start::Old);
        add_outer(below, &d_y, KINDS * width, &mut grads.gnn[l].data);
        d_out = d_below;
    }
    inputs_backward(pack, &d_out, &mut grads.embed);
}

fn normalize_backward<T: Real>(raw: &[T], net: &Net<Matrix<T>>, d: &mut [T], grads: &mut Net<Matrix<T>>) {
    let width = net.scale.data.len();
    let (scale, d_scale, d_shift) = (&net.scale.data, &mut grads.scale.data, &mut grads.shift.data);
    vectorized(|| {
        for (raw, d) in raw.chunks_exact(width).zip(d.chunks_exact_mut(width)) {
            add(d_shift, d);
            d_scale.iter_mut().zip(raw).zip(d.iter()).for_each(|((g, &x), &d)| *g += x * d);
            d.iter_mut().zip(scale).for_each(|(d, &s)| *d *= s);
        }
    });
}

fn aggregate_backward<T: Real>(rows: &LayerRows, y: &[T], rectify: bool, d_out: &[T], d_y: &mut [T], width: usize) {
    let wide = KINDS * width;
    let mut sum = vec![T::ZERO; wide];
    vectorized(|| {
        for (row, d_out) in d_out.chunks_exact(width).enumerate() {
            if rectify {
                sums(rows, row, y, width, &mut sum);
                for kind in sum.chunks_exact_mut(width) {
                    kind.iter_mut().zip(d_out).for_each(|(s, &d)| *s = if *s > T::ZERO { d } else { T::ZERO });
                }
            } else {
                sum.chunks_exact_mut(width).for_each(|kind| kind.copy_from_slice(d_out));
            }
            add(&mut d_y[rows.own[row] as usize * wide..][..wide], &sum);
            for &(source, kind) in &rows.neighbours[rows.offsets[row] as usize..rows.offsets[row + 1] as usize] {
                let at = usize::from(kind) * width;
                add(&mut d_y[source as usize * wide + at..][..width], &sum[at..at + width]);
            }
        }
    });
}

fn inputs_backward<T: Real>(pack: &Pack, d: &[T], embed: &mut Matrix<T>) {
    let width = embed.columns;
    for (d, span) in d.chunks_exact(width.max(1)).zip(pack.feature_offsets.windows(2)) {
        for &f in &pack.features[span[0] as usize..span[1] as usize] {
            add(&mut embed.data[usize::from(f) * width..][..width], d);
        }
    }
}
