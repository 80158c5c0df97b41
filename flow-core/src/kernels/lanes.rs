//! Loops over the entries of a row, in lanes that become vectors.

use super::Real;

/// Partial sums of a scalar product.
pub(super) const LANES: usize = 8;

/// In lanes, and what is left.
#[inline(always)]
pub(super) fn lanes<T>(all: &[T]) -> (&[[T; LANES]], &[T]) {
    all.as_chunks()
}

#[inline(always)]
pub(super) fn lanes_mut<T>(all: &mut [T]) -> (&mut [[T; LANES]], &mut [T]) {
    all.as_chunks_mut()
}

#[inline(always)]
fn sum<T: Real>(s: [T; LANES]) -> T {
    let pairs = [s[0] + s[4], s[1] + s[5], s[2] + s[6], s[3] + s[7]];
    (pairs[0] + pairs[2]) + (pairs[1] + pairs[3])
}

/// `aᵀb` and `aᵀc`.
#[inline(always)]
pub(super) fn dots<T: Real>(a: &[T], b: &[T], c: &[T]) -> (T, T) {
    let ((a, a_rest), (b, b_rest), (c, c_rest)) = (lanes(a), lanes(b), lanes(c));
    let (mut with_b, mut with_c) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            with_b[lane] += a[lane] * b[lane];
            with_c[lane] += a[lane] * c[lane];
        }
    }
    let (mut sum_b, mut sum_c) = (sum(with_b), sum(with_c));
    for ((&a, &b), &c) in a_rest.iter().zip(b_rest).zip(c_rest) {
        sum_b += a * b;
        sum_c += a * c;
    }
    (sum_b, sum_c)
}

/// `aᵀb`.
#[inline(always)]
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let ((a, a_rest), (b, b_rest)) = (lanes(a), lanes(b));
    let mut sums = [T::ZERO; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    a_rest.iter().zip(b_rest).fold(sum(sums), |sum, (&a, &b)| sum + a * b)
}

/// `z + a·u + b·w` in the place of `z`.
#[inline(always)]
pub(super) fn move_along<T: Real>(z: &mut [T], u: &[T], w: &[T], a: T, b: T) {
    let ((z, z_rest), (u, u_rest), (w, w_rest)) = (lanes_mut(z), lanes(u), lanes(w));
    for ((z, u), w) in z.iter_mut().zip(u).zip(w) {
        for lane in 0..LANES {
            z[lane] += a * u[lane] + b * w[lane];
        }
    }
    for ((z, &u), &w) in z_rest.iter_mut().zip(u_rest).zip(w_rest) {
        *z += a * u + b * w;
    }
}
