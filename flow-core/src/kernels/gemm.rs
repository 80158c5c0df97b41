//! A small matrix product: `C = A·B + bias`, single-threaded, for blocks that live in the L2 cache.
//!
//! General libraries pack both operands on every call and split threads inside the product. Here the
//! caller splits the batch over threads and calls with a few hundred rows, so packing would cost as
//! much as it saves: `A` is read element by element through two strides (plain and transposed cost
//! the same), rows of `B` are contiguous, and a tile of up to 6 rows × 4 registers stays in registers
//! over the whole inner dimension.

use super::Real;
use super::simd::{Portable, Vector, prefetch};

/// A read-only matrix with arbitrary strides.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    /// The storage; element `(i, l)` is `data[i * row + l * col]`.
    pub data: &'a [T],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a, T> View<'a, T> {
    /// Row-major with `width` columns.
    pub fn rows(data: &'a [T], width: usize) -> Self {
        View { data, row: width, col: 1 }
    }

    /// The transpose of a row-major matrix with `width` columns.
    pub fn transposed(data: &'a [T], width: usize) -> Self {
        View { data, row: 1, col: width }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        View { data: self.data, row: self.col, col: self.row }
    }

    /// Whether there are elements for all of `(m, k)`.
    pub(super) fn spans(&self, m: usize, k: usize) -> bool {
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let end = || last(m, self.row)?.checked_add(last(k, self.col)?);
        m == 0 || k == 0 || end().is_some_and(|end| end < self.data.len())
    }
}

/// What the product starts from.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Zero: `C = A·B`.
    Zero,
    /// The old content: `C += A·B`.
    Old,
    /// One of several rows of a table, `table[class[i] * n ..]` for row `i`.
    Table {
        /// Rows of length `n`.
        table: &'a [T],
        /// Which row of the table each row of `C` starts from.
        class: &'a [u8],
    },
}

/// The sizes of a product `(m × k) · (k × n)`.
#[derive(Clone, Copy)]
pub struct Size {
    /// Rows of `A` and `C`.
    pub m: usize,
    /// Columns of `A`, rows of `B`.
    pub k: usize,
    /// Columns of `B` and `C`.
    pub n: usize,
}

/// The right operand as the kernels take it.
#[derive(Clone, Copy)]
pub struct Right<'a, T> {
    /// Rows of `n` numbers, or panels as [`Panels`](super::panels::Panels) lays them out.
    pub data: &'a [T],
    /// Whether it is panels.
    pub packed: bool,
}

/// How many registers a tile is wide: sixteen registers hold 6 × 2 accumulators, thirty-two hold 6 × 4.
pub(super) const fn widest(lanes: usize) -> usize {
    if lanes >= 16 { 4 } else { 2 }
}

/// `C = start + A·B`, then `max(·, 0)` if `relu`. `B` and `C` are row-major with `n` columns.
///
/// # Panics
/// When a slice is shorter than its size says: a bug in the calling kernel, never input.
pub fn gemm<T: Real>(size: Size, a: View<'_, T>, b: &[T], c: &mut [T], start: Start<'_, T>, relu: bool) {
    assert!(holds(size.n, b.len(), size.k), "gemm operands are too short");
    check(size, a, c, start);
    // Safety: the asserts bound every access of the kernels.
    unsafe { T::gemm(size, &[a], Right { data: b, packed: false }, c, start, relu) }
}

/// Whether `len` numbers are at least `rows` rows of `n`.
fn holds(n: usize, len: usize, rows: usize) -> bool {
    rows.checked_mul(n).is_some_and(|least| len >= least)
}

/// Asserts that everything but the right operand is long enough for the kernels.
pub(super) fn check<T: Real>(size: Size, a: View<'_, T>, c: &[T], start: Start<'_, T>) {
    let Size { m, k, n } = size;
    assert!(a.spans(m, k) && holds(n, c.len(), m), "gemm operands are too short");
    if let Start::Table { table, class } = start {
        let rows = class.iter().take(m).max().map_or(0, |&c| usize::from(c) + 1);
        assert!(class.len() >= m && holds(n, table.len(), rows), "gemm bias table is too short");
    }
}

/// The portable instantiation.
///
/// The left operand is made of parts of as many columns each, beside each other.
///
/// # Safety
/// Slices must be as long as [`gemm`] checks, and the inner dimension a multiple of the number of parts.
pub(super) unsafe fn portable<T: Real>(
    size: Size,
    a: &[View<'_, T>],
    b: Right<'_, T>,
    c: &mut [T],
    start: Start<'_, T>,
    relu: bool,
) {
    unsafe { blocks::<Portable<T>>(size, a, b, c, start, relu) }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::super::simd::x86::{F32x8, F32x16};
    use super::{Right, Size, Start, View, blocks};

    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn avx512(
        size: Size,
        a: &[View<'_, f32>],
        b: Right<'_, f32>,
        c: &mut [f32],
        start: Start<'_, f32>,
        relu: bool,
    ) {
        unsafe { blocks::<F32x16>(size, a, b, c, start, relu) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn avx2(
        size: Size,
        a: &[View<'_, f32>],
        b: Right<'_, f32>,
        c: &mut [f32],
        start: Start<'_, f32>,
        relu: bool,
    ) {
        unsafe { blocks::<F32x8>(size, a, b, c, start, relu) }
    }
}

/// Rows of a register tile: products waste nothing when their rows are a multiple.
pub(crate) const MR: usize = 6;

/// Walks over column panels and row tiles.
#[inline(always)]
unsafe fn blocks<V: Vector>(
    size: Size,
    a: &[View<'_, V::Elem>],
    b: Right<'_, V::Elem>,
    c: &mut [V::Elem],
    start: Start<'_, V::Elem>,
    relu: bool,
) {
    let widest = widest(V::LANES);
    let mut j = 0;
    while j < size.n {
        let left = size.n - j;
        let vectors = left.div_ceil(V::LANES).min(widest);
        let columns = left.min(vectors * V::LANES);
        // Where the panel's rows begin, and how far apart they lie.
        let place = |j: usize| if b.packed { j * size.k } else { j };
        let stride = if b.packed { vectors * V::LANES } else { size.n };
        // The hardware does not foresee rows that lie far apart: fetch a share of the next panel with every tile.
        let share = size.k.div_ceil(size.m.div_ceil(MR).max(1));
        let mut ahead = 0..0;
        let mut i = 0;
        while i < size.m {
            let rows = (size.m - i).min(MR);
            let tile = Tile { i, j, columns, size, relu, from: place(j), stride };
            if j + columns < size.n {
                ahead = ahead.end..(ahead.end + share).min(size.k);
                fetch_rows::<V>(b.data, place(j + columns), ahead.clone(), stride, vectors);
            }
            if let Start::Old = start {
                fetch_rows::<V>(c, j, i + rows..(i + rows + MR).min(size.m), size.n, vectors);
            }
            unsafe {
                match vectors {
                    1 => rows_of::<V, 1>(rows, &tile, a, b, c, start),
                    2 => rows_of::<V, 2>(rows, &tile, a, b, c, start),
                    3 => rows_of::<V, 3>(rows, &tile, a, b, c, start),
                    _ => rows_of::<V, 4>(rows, &tile, a, b, c, start),
                }
            }
            i += rows;
        }
        j += columns;
    }
}

/// Asks for some vectors, from column `j` on, of some rows of a row-major matrix with `n` columns.
#[inline(always)]
fn fetch_rows<V: Vector>(matrix: &[V::Elem], j: usize, rows: std::ops::Range<usize>, n: usize, vectors: usize) {
    for row in rows {
        for v in 0..vectors {
            prefetch(matrix.as_ptr().wrapping_add(row * n + j + v * V::LANES));
        }
    }
}

/// Where a register tile lies.
struct Tile {
    i: usize,
    j: usize,
    columns: usize,
    size: Size,
    relu: bool,
    /// Where its columns of the right operand begin, and how far apart the rows of them are.
    from: usize,
    stride: usize,
}

#[inline(always)]
unsafe fn rows_of<V: Vector, const NV: usize>(
    rows: usize,
    tile: &Tile,
    a: &[View<'_, V::Elem>],
    b: Right<'_, V::Elem>,
    c: &mut [V::Elem],
    start: Start<'_, V::Elem>,
) {
    unsafe {
        match rows {
            1 => micro::<V, 1, NV>(tile, a, b, c, start),
            2 => micro::<V, 2, NV>(tile, a, b, c, start),
            3 => micro::<V, 3, NV>(tile, a, b, c, start),
            4 => micro::<V, 4, NV>(tile, a, b, c, start),
            5 => micro::<V, 5, NV>(tile, a, b, c, start),
            _ => micro::<V, 6, NV>(tile, a, b, c, start),
        }
    }
}

/// One register tile over the whole inner dimension.
#[inline(always)]
unsafe fn micro<V: Vector, const ROWS: usize, const NV: usize>(
    tile: &Tile,
    a: &[View<'_, V::Elem>],
    b: Right<'_, V::Elem>,
    c: &mut [V::Elem],
    start: Start<'_, V::Elem>,
) {
    unsafe {
        let Size { k, n, .. } = tile.size;
        let last = tile.columns - (NV - 1) * V::LANES;
        let out = c.as_mut_ptr().add(tile.i * n + tile.j);
        let mut acc = [[V::zero(); NV]; ROWS];
        match start {
            Start::Zero => {}
            Start::Old => {
                for (r, row) in acc.iter_mut().enumerate() {
                    load_row(row, out.add(r * n), last);
                }
            }
            Start::Table { table, class } => {
                for (r, row) in acc.iter_mut().enumerate() {
                    let class = usize::from(*class.get_unchecked(tile.i + r));
                    load_row(row, table.as_ptr().add(class * n + tile.j), last);
                }
            }
        }
        let mut pb = b.data.as_ptr().wrapping_add(tile.from);
        // Full vectors may be loaded whole as long as they end inside `b`; the last row of the last
        // panel is the only place where they would not, so partial panels always load masked. Packed ones are filled up.
        let partial = last < V::LANES && !b.packed;
        let depth = k / a.len().max(1);
        for part in a {
            let mut pa = part.data.as_ptr().wrapping_add(tile.i * part.row);
            for _ in 0..depth {
                let mut vb = [V::zero(); NV];
                for (v, slot) in vb.iter_mut().enumerate() {
                    let p = pb.add(v * V::LANES);
                    *slot = if v == NV - 1 && partial { V::load_first(p, last) } else { V::load(p) };
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let va = V::splat(pa.add(r * part.row));
                    for (slot, &b) in row.iter_mut().zip(&vb) {
                        *slot = slot.mul_add(va, b);
                    }
                }
                pa = pa.wrapping_add(part.col);
                pb = pb.wrapping_add(tile.stride);
            }
        }
        for (r, row) in acc.iter().enumerate() {
            for (v, &value) in row.iter().enumerate() {
                let value = if tile.relu { value.relu() } else { value };
                let p = out.add(r * n + v * V::LANES);
                if v == NV - 1 { value.store_first(p, last) } else { value.store(p) }
            }
        }
    }
}

#[inline(always)]
unsafe fn load_row<V: Vector, const NV: usize>(row: &mut [V; NV], p: *const V::Elem, last: usize) {
    for (v, slot) in row.iter_mut().enumerate() {
        let p = unsafe { p.add(v * V::LANES) };
        *slot = unsafe { if v == NV - 1 { V::load_first(p, last) } else { V::load(p) } };
    }
}

/// The transpose of a row-major matrix whose rows have `width` entries, in tiles that fit the first-level cache.
pub fn transpose<T: Real>(rows: &[T], width: usize) -> Vec<T> {
    const TILE: usize = 16;
    let height = rows.len() / width.max(1);
    let mut out = vec![T::ZERO; rows.len()];
    for i0 in (0..height).step_by(TILE) {
        for j0 in (0..width).step_by(TILE) {
            for i in i0..(i0 + TILE).min(height) {
                for j in j0..(j0 + TILE).min(width) {
                    out[j * height + i] = rows[i * width + j];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes whose product wraps around must not pass for small ones.
    #[test]
    #[should_panic(expected = "too short")]
    fn sizes_do_not_wrap() {
        let (size, a) = (Size { m: 1, k: 1 << 63, n: 2 }, View { data: &[0.0_f32], row: 0, col: 0 });
        gemm(size, a, &[], &mut [0.0; 2], Start::Zero, false);
    }

    fn numbers<T: Real>(len: usize, seed: usize) -> Vec<T> {
        (0..len).map(|i| T::from_f64(((i * 7919 + seed * 104_729) % 1009) as f64 / 504.5 - 1.0)).collect()
    }

    /// The definition, in f64.
    fn direct<T: Real>(s: Size, a: View<'_, T>, b: &[T], from: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let mut c = Vec::new();
        for i in 0..s.m {
            for j in 0..s.n {
                let dot: f64 = (0..s.k).map(|l| a.data[i * a.row + l * a.col].to_f64() * b[l * s.n + j].to_f64()).sum();
                c.push(from(i, j) + dot);
            }
        }
        c
    }

    fn check<T: Real>(tolerance: f64) {
        for (m, k, n) in [
            (0, 4, 70),
            (13, 0, 65),
            (1, 1, 1),
            (6, 5, 64),
            (7, 9, 65),
            (13, 54, 12),
            (16, 3, 108),
            (5, 128, 31),
            (23, 17, 130),
        ] {
            let size = Size { m, k, n };
            let (a, b) = (numbers::<T>(m * k, 1), numbers::<T>(k * n, 2));
            let (table, class) = (numbers::<T>(3 * n, 3), (0..m).map(|i| (i % 3) as u8).collect::<Vec<_>>());
            for transposed in [false, true] {
                let view = if transposed { View::transposed(&a, m) } else { View::rows(&a, k) };
                let old = numbers::<T>(m * n, 4);
                for start in [Start::Zero, Start::Old, Start::Table { table: &table, class: &class }] {
                    let expected = direct(size, view, &b, |i, j| match start {
                        Start::Zero => 0.0,
                        Start::Old => old[i * n + j].to_f64(),
                        Start::Table { .. } => table[(i % 3) * n + j].to_f64(),
                    });
                    for relu in [false, true] {
                        let mut c = old.clone();
                        gemm(size, view, &b, &mut c, start, relu);
                        for (got, want) in c.iter().zip(&expected) {
                            let want = if relu { want.max(0.0) } else { *want };
                            assert!((got.to_f64() - want).abs() <= tolerance, "{m}x{k}x{n}: {} {want}", got.to_f64());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        check::<f64>(1e-12);
        check::<f32>(2e-5);
    }

    #[test]
    fn every_instruction_set_agrees() {
        let size = Size { m: 13, k: 40, n: 77 };
        let (a, b) = (numbers::<f32>(13 * 40, 1), numbers::<f32>(40 * 77, 2));
        let mut expected = vec![0.0; 13 * 77];
        let right = Right { data: b.as_slice(), packed: false };
        unsafe { portable(size, &[View::rows(&a, 40)], right, &mut expected, Start::Zero, true) };
        #[cfg(target_arch = "x86_64")]
        for (present, kernel) in [
            (
                is_x86_feature_detected!("avx512f"),
                x86::avx512 as unsafe fn(_, &[View<'_, f32>], Right<'_, f32>, &mut [f32], _, _),
            ),
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"), x86::avx2),
        ] {
            if present {
                let mut c = vec![0.0; 13 * 77];
                unsafe { kernel(size, &[View::rows(&a, 40)], right, &mut c, Start::Zero, true) };
                assert!(c.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-4));
            }
        }
    }

    #[test]
    fn relu_keeps_nan() {
        let mut c = [0.0_f32];
        gemm(Size { m: 1, k: 1, n: 1 }, View::rows(&[f32::NAN], 1), &[1.0], &mut c, Start::Zero, true);
        assert!(c[0].is_nan());
    }
}
