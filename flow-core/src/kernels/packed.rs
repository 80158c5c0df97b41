//! Large matrix products, by the crate gemm: it packs both operands into blocks, which is worth its cost here.

use std::mem::MaybeUninit;

use gemm::Parallelism;

use super::{Real, Size, View};

/// `A·B`, row-major, on all threads of the pool; operands lie as their strides say.
///
/// The result is written once and not cleared first: the gradient of a large weight is tens of megabytes.
///
/// # Panics
/// When an operand is shorter than its size and strides say: a bug in the calling kernel, never input.
pub(super) fn packed<T: Real>(size: Size, a: View<'_, T>, b: View<'_, T>) -> Vec<T> {
    let Size { m, k, n } = size;
    assert!(a.spans(m, k) && b.spans(k, n), "operands of a packed product are too short");
    if m * k * n == 0 {
        return vec![T::ZERO; m * n];
    }
    let mut c = Vec::with_capacity(m * n);
    let out: &mut [MaybeUninit<T>] = &mut c.spare_capacity_mut()[..m * n];
    let threads = Parallelism::Rayon(rayon::current_num_threads());
    let (zero, one) = (T::ZERO, T::from_f64(1.0));
    let stride = |stride: usize| stride as isize;
    // Safety: operands span what is read of them, as asserted; what is read of the result is nothing, and all of it is
    // written, since no size is zero.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr().cast::<T>(),
            1,
            stride(n),
            false,
            a.data.as_ptr(),
            stride(a.col),
            stride(a.row),
            b.data.as_ptr(),
            stride(b.col),
            stride(b.row),
            zero,
            one,
            false,
            false,
            false,
            threads,
        );
        c.set_len(m * n);
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{normal, values};

    #[test]
    fn it_is_the_product_of_what_strides_say() {
        for (m, k, n) in [(1, 1, 1), (7, 33, 19), (100, 64, 130), (0, 3, 2), (2, 0, 3), (3, 2, 0)] {
            let (a, b) = (values(&normal(1, &[m * k])), values(&normal(2, &[k * n])));
            for (flip_a, flip_b) in [(false, false), (true, false), (false, true), (true, true)] {
                let left = if flip_a { View::transposed(&a, m) } else { View::rows(&a, k) };
                let right = if flip_b { View::transposed(&b, k) } else { View::rows(&b, n) };
                let entry = |of: View<'_, f64>, i: usize, j: usize| of.data[i * of.row + j * of.col];
                let c = packed(Size { m, k, n }, left, right);
                assert_eq!(c.len(), m * n);
                for (at, c) in c.into_iter().enumerate() {
                    let (i, j) = (at / n, at % n);
                    let sum: f64 = (0..k).map(|l| entry(left, i, l) * entry(right, l, j)).sum();
                    assert!((c - sum).abs() < 1e-12, "{m}x{k}x{n} {flip_a} {flip_b}: {c} {sum}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn sizes_do_not_wrap() {
        packed(Size { m: 1 << 63, k: 2, n: 1 }, View::rows(&[0.0_f32], 2), View::rows(&[0.0; 2], 1));
    }
}
