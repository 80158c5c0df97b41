//! `C = A·Bᵀ` of row-major matrices, single-threaded: scalar products of rows, which both lie as they are read, so that nothing is
//! transposed or packed. The gradient of a dense layer's input is such a product.

use super::simd::Vector;
use super::{Real, Size};

/// Numbers of each row that are multiplied at a time: what belongs to them stays in the second-level cache.
const DEPTH: usize = 1024;

/// `C = A·Bᵀ`: `A` has `m` rows, `B` has `n`, both of length `k`; `C` is `(m, n)`.
///
/// # Panics
/// When a slice is shorter than its size says: a bug in the calling kernel, never input.
pub(super) fn dots<T: Real>(size: Size, a: &[T], b: &[T], c: &mut [T]) {
    let Size { m, k, n } = size;
    let holds =
        |data: &[T], rows: usize, width: usize| rows.checked_mul(width).is_some_and(|least| data.len() >= least);
    assert!(holds(a, m, k) && holds(b, n, k) && holds(c, m, n), "operands of scalar products are too short");
    if k == 0 {
        c[..m * n].fill(T::ZERO);
        return;
    }
    // Safety: the assertion bounds every access of the kernels.
    unsafe { T::dots(size, a, b, c) }
}

/// All of it for one instruction set.
///
/// # Safety
/// Slices must be as long as [`dots`] checks, and the machine must have the instructions.
#[inline(always)]
pub(super) unsafe fn blocks<V: Vector>(size: Size, a: &[V::Elem], b: &[V::Elem], c: &mut [V::Elem]) {
    for from in (0..size.k).step_by(DEPTH) {
        let part = Part { size, from, depth: DEPTH.min(size.k - from) };
        // A tile of accumulators, a register for each of its columns and one more: twenty-nine registers of thirty-two, or
        // sixteen of sixteen.
        unsafe { if V::LANES >= 16 { part.tiles::<V, 6, 4>(a, b, c) } else { part.tiles::<V, 4, 3>(a, b, c) } }
    }
}

/// Some numbers of every row.
struct Part {
    size: Size,
    from: usize,
    depth: usize,
}

impl Part {
    #[inline(always)]
    unsafe fn tiles<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        a: &[V::Elem],
        b: &[V::Elem],
        c: &mut [V::Elem],
    ) {
        unsafe {
            let whole = self.size.n / COLUMNS * COLUMNS;
            for j in (0..whole).step_by(COLUMNS) {
                self.strip::<V, ROWS, COLUMNS>(j, a, b, c);
            }
            for j in whole..self.size.n {
                self.strip::<V, ROWS, 1>(j, a, b, c);
            }
        }
    }

    /// Some columns of the result, all rows.
    #[inline(always)]
    unsafe fn strip<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        j: usize,
        a: &[V::Elem],
        b: &[V::Elem],
        c: &mut [V::Elem],
    ) {
        unsafe {
            let mut i = 0;
            while i + ROWS <= self.size.m {
                self.tile::<V, ROWS, COLUMNS>([i, j], a, b, c);
                i += ROWS;
            }
            while i + 2 <= self.size.m {
                self.tile::<V, 2, COLUMNS>([i, j], a, b, c);
                i += 2;
            }
            if i < self.size.m {
                self.tile::<V, 1, COLUMNS>([i, j], a, b, c);
            }
        }
    }

    /// One tile of the result.
    #[inline(always)]
    unsafe fn tile<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        [i, j]: [usize; 2],
        a: &[V::Elem],
        b: &[V::Elem],
        c: &mut [V::Elem],
    ) {
        unsafe {
            let Size { k, n, .. } = self.size;
            let (pa, pb) = (a.as_ptr().add(i * k + self.from), b.as_ptr().add(j * k + self.from));
            let mut sums = [[V::zero(); COLUMNS]; ROWS];
            let whole = self.depth / V::LANES * V::LANES;
            for l in (0..whole).step_by(V::LANES) {
                add::<V, ROWS, COLUMNS>(&mut sums, |r| V::load(pa.add(r * k + l)), |s| V::load(pb.add(s * k + l)));
            }
            let rest = self.depth - whole;
            if rest > 0 {
                add::<V, ROWS, COLUMNS>(
                    &mut sums,
                    |r| V::load_first(pa.add(r * k + whole), rest),
                    |s| V::load_first(pb.add(s * k + whole), rest),
                );
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (s, sum) in sums.into_iter().enumerate() {
                    let out = c.as_mut_ptr().add((i + r) * n + j + s);
                    *out = if self.from == 0 { sum.sum() } else { V::plus(*out, sum.sum()) };
                }
            }
        }
    }
}

/// Adds the products of one register of each row and column.
#[inline(always)]
unsafe fn add<V: Vector, const ROWS: usize, const COLUMNS: usize>(
    sums: &mut [[V; COLUMNS]; ROWS],
    row: impl Fn(usize) -> V,
    column: impl Fn(usize) -> V,
) {
    let columns: [V; COLUMNS] = std::array::from_fn(column);
    for (r, sums) in sums.iter_mut().enumerate() {
        let a = row(r);
        for (sum, &b) in sums.iter_mut().zip(&columns) {
            *sum = unsafe { sum.mul_add(a, b) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::simd::x86::{F32x8, F32x16};
    use super::{Size, blocks};

    /// Whether the machine can run [`avx512`].
    pub(in super::super) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
    }

    /// With the short forms of the instructions as well: without them the sums at the end of a tile can be made in the lower
    /// sixteen registers only, and the compiler keeps most of a tile in memory.
    #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
    pub(in super::super) unsafe fn avx512(size: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
        unsafe { blocks::<F32x16>(size, a, b, c) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn avx2(size: Size, a: &[f32], b: &[f32], c: &mut [f32]) {
        unsafe { blocks::<F32x8>(size, a, b, c) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Portable;
    use super::*;
    use crate::testing::numbers::normal;

    fn numbers<T: Real>(count: usize, seed: u64) -> Vec<T> {
        let normal = normal(seed, &[count]).to_vec1::<f64>().unwrap();
        normal.into_iter().map(T::from_f64).collect()
    }

    fn direct<T: Real>(Size { m, k, n }: Size, a: &[T], b: &[T]) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..k).map(|l| a[i * k + l].to_f64() * b[j * k + l].to_f64()).sum();
        (0..m * n).map(|at_| at(at_ / n, at_ % n)).collect()
    }

    /// For sizes on both sides of every tile and block; what was there before is forgotten.
    fn check<T: Real>(tolerance: f64) {
        for (m, k, n) in [(0, 3, 2), (1, 1, 1), (3, 0, 2), (7, 16, 5), (12, 33, 8), (13, 1024, 9), (5, 2051, 7)] {
            let size = Size { m, k, n };
            let (a, b) = (numbers::<T>(m * k, 1), numbers::<T>(n * k, 2));
            let mut c = vec![T::from_f64(f64::NAN); m * n];
            dots(size, &a, &b, &mut c);
            for (got, want) in c.iter().zip(direct(size, &a, &b)) {
                assert!((got.to_f64() - want).abs() <= tolerance, "{m}x{k}x{n}: {} {want}", got.to_f64());
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        check::<f64>(1e-11);
        check::<f32>(2e-4);
    }

    #[test]
    fn every_instruction_set_agrees() {
        let size = Size { m: 13, k: 1100, n: 10 };
        let (a, b) = (numbers::<f32>(13 * 1100, 1), numbers::<f32>(10 * 1100, 2));
        let expected = direct(size, &a, &b);
        type Kernel = unsafe fn(Size, &[f32], &[f32], &mut [f32]);
        let mut kernels: Vec<Kernel> = vec![blocks::<Portable<f32>>];
        #[cfg(target_arch = "x86_64")]
        for (present, kernel) in [
            (x86::has_avx512(), x86::avx512 as Kernel),
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"), x86::avx2),
        ] {
            kernels.extend(present.then_some(kernel));
        }
        for kernel in kernels {
            let mut c = vec![0.0; 13 * 10];
            unsafe { kernel(size, &a, &b, &mut c) };
            assert!(c.iter().zip(&expected).all(|(&x, y)| (f64::from(x) - y).abs() < 2e-4));
        }
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn sizes_do_not_wrap() {
        dots(Size { m: 1, k: 1 << 63, n: 2 }, &[0.0_f32], &[], &mut [0.0; 2]);
    }
}
