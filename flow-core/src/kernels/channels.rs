//! Per-channel operations on `(B, C, P)`: scale and shift, and the reductions of their gradients.

use rayon::prelude::*;

use super::{Real, vectorized};

/// `y = x·scale[c] + shift[c]`.
pub(crate) fn scale_shift<T: Real>(x: &[T], pixels: usize, scale: &[T], shift: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    let event = (scale.len() * pixels).max(1);
    out.par_chunks_mut(event).zip(x.par_chunks(event)).for_each(|(out, x)| {
        let planes = out.chunks_exact_mut(pixels).zip(x.chunks_exact(pixels));
        for ((out, x), (&a, &b)) in planes.zip(scale.iter().zip(shift)) {
            vectorized(|| out.iter_mut().zip(x).for_each(|(o, &x)| *o = x * a + b));
        }
    });
    out
}

/// `Σ_{b,p} x` and `Σ_{b,p} x·y` for every channel.
///
/// Partial sums over planes are added up in f64 in a fixed order.
pub(crate) fn moments<T: Real>(x: &[T], y: &[T], channels: usize, pixels: usize) -> Vec<(f64, f64)> {
    let mut out = vec![(0.0, 0.0); channels];
    let planes = x.chunks_exact(pixels).zip(y.chunks_exact(pixels));
    for (i, (x, y)) in planes.enumerate() {
        let (sum, dot) = vectorized(|| plane_moments(x, y));
        let slot = &mut out[i % channels];
        slot.0 += sum;
        slot.1 += dot;
    }
    out
}

/// Sums over one plane, in independent lanes so that they vectorise.
#[inline(always)]
fn plane_moments<T: Real>(x: &[T], y: &[T]) -> (f64, f64) {
    const LANES: usize = 16;
    let (mut sums, mut dots) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for (lane, (&x, &y)) in x.iter().zip(y).enumerate() {
            sums[lane] += x;
            dots[lane] += x * y;
        }
    }
    let total = |lanes: [T; LANES]| lanes.iter().map(|v| v.to_f64()).sum();
    (total(sums), total(dots))
}
