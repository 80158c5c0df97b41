//! The right operand of a product, packed once for many products.
//!
//! The columns of one register tile are a panel, whose rows lie one after the other: a product reads it from its
//! beginning to its end. In a plain matrix whose width is a power of two, as widths of networks are, the rows of a panel
//! fall into the same few sets of a cache and drive each other out.

use super::Real;
use super::gemm::{Right, Size, Start, View, check, widest};

/// A matrix of `k` rows and `n` columns in panels; what fills up the last one is of no account.
#[derive(Debug, Clone)]
pub struct Panels<T> {
    data: Vec<T>,
    k: usize,
    n: usize,
    lanes: usize,
}

/// Columns that are copied together, each from its own place.
const TOGETHER: usize = 8;

impl<T: Real> Panels<T> {
    /// All zeros.
    pub fn zeros(k: usize, n: usize) -> Self {
        let lanes = T::lanes();
        Panels { data: vec![T::ZERO; k * n.next_multiple_of(lanes)], k, n, lanes }
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.n
    }

    /// Columns of a whole panel.
    fn width(&self) -> usize {
        widest(self.lanes) * self.lanes
    }

    /// Distance between the rows of the panel that begins with column `j`.
    fn stride(&self, j: usize) -> usize {
        self.width().min((self.n - j).next_multiple_of(self.lanes))
    }

    /// Sets `(row + i, column + j)` to `source(j, i)·gains[j]` for `i` below `rows`.
    pub fn set(&mut self, (row, column): (usize, usize), rows: usize, source: View<'_, T>, gains: &[T]) {
        let mut j = 0;
        while j < gains.len() {
            let panel = (column + j) / self.width() * self.width();
            let (inside, stride) = (column + j - panel, self.stride(panel));
            let count = TOGETHER.min(gains.len() - j).min(self.width() - inside);
            let rows_of_panel = &mut self.data[panel * self.k + row * stride..][..rows * stride];
            let gains = &gains[j..j + count];
            let from = &source.data[j * source.row..];
            if let Ok(gains) = <&[T; TOGETHER]>::try_from(gains) {
                for (i, slots) in rows_of_panel.chunks_exact_mut(stride).enumerate() {
                    let slots = &mut slots[inside..inside + TOGETHER];
                    for (x, (slot, &gain)) in slots.iter_mut().zip(gains).enumerate() {
                        *slot = from[x * source.row + i * source.col] * gain;
                    }
                }
            } else {
                for (i, slots) in rows_of_panel.chunks_exact_mut(stride).enumerate() {
                    for (x, (slot, &gain)) in slots[inside..].iter_mut().zip(gains).enumerate() {
                        *slot = from[x * source.row + i * source.col] * gain;
                    }
                }
            }
            j += count;
        }
    }

    /// The transpose.
    pub fn transposed(&self) -> Self {
        let mut out = Self::zeros(self.n, self.k);
        let width = out.width();
        for to in (0..self.k).step_by(width) {
            let (columns, out_stride) = (width.min(self.k - to), out.stride(to));
            for from in (0..self.n).step_by(width) {
                let stride = self.stride(from);
                let source = &self.data[from * self.k + to * stride..][..columns * stride];
                let target = &mut out.data[to * self.n + from * out_stride..];
                for (j, slots) in target.chunks_exact_mut(out_stride).take(width.min(self.n - from)).enumerate() {
                    for (slot, row) in slots.iter_mut().zip(source.chunks_exact(stride)) {
                        *slot = row[j];
                    }
                }
            }
        }
        out
    }

    /// Takes in row-major numbers, as many rows as there are.
    pub fn pack(&mut self, rows: &[T]) {
        self.k = rows.len() / self.n;
        self.data.resize(self.k * self.n.next_multiple_of(self.lanes), T::ZERO);
        let (width, n) = (self.width(), self.n);
        let mut rest = self.data.as_mut_slice();
        for j in (0..n).step_by(width) {
            let columns = width.min(n - j);
            let stride = columns.next_multiple_of(self.lanes);
            let (panel, tail) = std::mem::take(&mut rest).split_at_mut(self.k * stride);
            rest = tail;
            for (slots, row) in panel.chunks_exact_mut(stride).zip(rows.chunks_exact(n)) {
                slots[..columns].copy_from_slice(&row[j..j + columns]);
            }
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.k
    }

    /// The first columns of the panels.
    pub fn starts(&self) -> impl Iterator<Item = usize> {
        (0..self.n).step_by(self.width())
    }

    /// A row of the panel that starts with column `j`.
    pub fn run(&self, row: usize, j: usize) -> &[T] {
        let columns = self.width().min(self.n - j);
        &self.data[j * self.k + row * self.stride(j)..][..columns]
    }

    /// `C = start + A·self` with `m` rows, then `max(·, 0)` if `relu`.
    pub fn product(&self, m: usize, a: View<'_, T>, c: &mut [T], start: Start<'_, T>, relu: bool) {
        self.product_of_parts(m, &[a], c, start, relu);
    }

    /// The same for a left operand of several parts of as many columns each, beside each other: the shifted views of which
    /// a convolution is made need no copy.
    ///
    /// # Panics
    /// When there is no part, the parts do not divide the inner dimension, or a slice is shorter than the sizes say: a bug
    /// in the calling kernel, never input.
    pub fn product_of_parts(&self, m: usize, parts: &[View<'_, T>], c: &mut [T], start: Start<'_, T>, relu: bool) {
        let size = Size { m, k: self.k, n: self.n };
        let depth = self.k / parts.len();
        assert!(depth * parts.len() == self.k, "parts do not divide the inner dimension");
        parts.iter().for_each(|&part| check(Size { k: depth, ..size }, part, c, start));
        // Safety: the lengths were just asserted, and the panels are as `zeros` has laid them out, for the registers of
        // this machine.
        unsafe { T::gemm(size, parts, Right { data: &self.data, packed: true }, c, start, relu) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm;

    fn check_type<T: Real>() {
        for (m, k, n) in [(0, 4, 70), (13, 0, 65), (1, 1, 1), (7, 9, 64), (12, 54, 12), (5, 130, 31), (23, 17, 130)] {
            let numbers = |len: usize, seed: usize| -> Vec<T> {
                (0..len).map(|i| T::from_f64(((i * 7919 + seed) % 1009) as f64 / 504.5 - 1.0)).collect()
            };
            let (a, by_column, gains) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
            let rows: Vec<T> = (0..k * n).map(|e| by_column[e % n * k + e / n] * gains[e % n]).collect();
            let mut panels = Panels::zeros(k, n);
            // In two parts, the second of which begins inside a panel.
            let cut = n / 3;
            let source = |from: usize| View { data: &by_column[from * k..], row: k, col: 1 };
            panels.set((0, 0), k, source(0), &gains[..cut]);
            panels.set((0, cut), k, source(cut), &gains[cut..]);
            let twice = panels.transposed().transposed();
            let (mut want, mut got) = (vec![T::ZERO; m * n], vec![T::ZERO; m * n]);
            gemm(Size { m, k, n }, View::rows(&a, k), &rows, &mut want, Start::Zero, true);
            for operand in [&panels, &twice] {
                operand.product(m, View::rows(&a, k), &mut got, Start::Zero, true);
                assert!(got == want, "{m}x{k}x{n}");
            }
            for (i, row) in rows.chunks_exact(n).enumerate() {
                for j in panels.starts() {
                    assert!(panels.run(i, j) == &row[j..][..panels.run(i, j).len()]);
                }
            }
            if k % 3 == 0 && k > 0 {
                let third = |i: usize| View { data: a.get(i * k / 3..).unwrap_or(&[]), row: k, col: 1 };
                panels.product_of_parts(m, &[third(0), third(1), third(2)], &mut got, Start::Zero, true);
                assert!(got == want, "{m}x{k}x{n} in three parts");
            }
            let mut packed = Panels::zeros(k + 3, n);
            packed.pack(&rows);
            packed.product(m, View::rows(&a, k), &mut got, Start::Zero, true);
            assert!(got == want && (packed.rows(), packed.columns()) == (k, n), "{m}x{k}x{n} packed");
        }
    }

    #[test]
    fn panels_are_the_matrix() {
        check_type::<f32>();
        check_type::<f64>();
    }
}
