//! A square matrix applied to the channels of every pixel, and the gradient of that matrix.

use rayon::prelude::*;

use super::Real;
use super::gemm::{Size, Start, View, gemm, transpose};

/// `y[b] = W·x[b]`, or `Wᵀ·x[b]`, for `x` of shape `(B, C, P)`.
pub(crate) fn apply<T: Real>(w: &[T], channels: usize, transposed: bool, x: &[T], pixels: usize) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    let event = (channels * pixels).max(1);
    let view = if transposed { View::transposed(w, channels) } else { View::rows(w, channels) };
    let size = Size { m: channels, k: channels, n: pixels };
    out.par_chunks_exact_mut(event)
        .zip(x.par_chunks_exact(event))
        .for_each(|(out, x)| gemm(size, view, x, out, Start::Zero, false));
    out
}

/// `Σ_b g[b]·x[b]ᵀ`, summed in f64 in the order of the batch.
pub(crate) fn outer<T: Real>(g: &[T], x: &[T], channels: usize, pixels: usize) -> Vec<f64> {
    let event = (channels * pixels).max(1);
    let size = Size { m: channels, k: pixels, n: channels };
    let parts: Vec<Vec<T>> = g
        .par_chunks_exact(event)
        .zip(x.par_chunks_exact(event))
        .map(|(g, x)| {
            let mut sum = vec![T::ZERO; channels * channels];
            gemm(size, View::rows(g, pixels), &transpose(x, pixels), &mut sum, Start::Zero, false);
            sum
        })
        .collect();
    let mut total = vec![0.0; channels * channels];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(s, v)| *s += v.to_f64());
    }
    total
}
