//! Row-major matrices for the fused passes.

use flow_core::kernels::{Real, Size, Start, View, gemm, transpose, vectorized};

/// A row-major matrix; a vector is one row.
#[derive(Debug, Clone)]
pub(crate) struct Matrix<T> {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<T>,
}

impl<T: Real> Matrix<T> {
    /// Zeros of the same size.
    pub fn zeros_like(&self) -> Self {
        Matrix { data: vec![T::ZERO; self.data.len()], ..*self }
    }

    /// The transpose.
    pub fn transposed(&self) -> Self {
        Matrix { rows: self.columns, columns: self.rows, data: transpose(&self.data, self.columns) }
    }

    /// Rows `from .. to` as a slice.
    pub fn block(&self, from: usize, to: usize) -> &[T] {
        &self.data[from * self.columns..to * self.columns]
    }

    /// `X·W` for the rows of `X`.
    pub fn apply(&self, x: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; x.len() / self.rows.max(1) * self.columns];
        product(x, self.rows, &self.data, self.columns, &mut out, Start::Zero);
        out
    }

    /// Adds `Xᵀ·dY`, the gradient of [`Matrix::apply`] with respect to the matrix, to this gradient.
    pub fn add_outer(&mut self, x: &[T], dy: &[T]) {
        add_outer(x, dy, self.columns, &mut self.data);
    }

    /// Adds the sum of the rows of `dy` to this vector.
    pub fn add_row_sum(&mut self, dy: &[T]) {
        let sum = &mut self.data;
        vectorized(|| dy.chunks_exact(sum.len().max(1)).for_each(|row| add(sum, row)));
    }
}

/// `C = start + A·B` with contiguous rows: `A` has `k` columns, `B` is `k × n`.
pub(crate) fn product<T: Real>(a: &[T], k: usize, b: &[T], n: usize, c: &mut [T], start: Start<'_, T>) {
    let m = a.len().checked_div(k).unwrap_or(0);
    gemm(Size { m, k, n }, View::rows(a, k), b, c, start, false);
}

/// `C += Xᵀ·dY` for matrices of as many rows; `dY` has `n` columns.
pub(crate) fn add_outer<T: Real>(x: &[T], dy: &[T], n: usize, c: &mut [T]) {
    let rows = dy.len().checked_div(n).unwrap_or(0);
    let m = x.len().checked_div(rows).unwrap_or(0);
    gemm(Size { m, k: rows, n }, View::transposed(x, m), dy, c, Start::Old, false);
}

/// `a += b`, entry by entry.
#[inline(always)]
pub(crate) fn add<T: Real>(a: &mut [T], b: &[T]) {
    a.iter_mut().zip(b).for_each(|(a, &b)| *a += b);
}

/// The rows of `x`, of length `width`, named by `indices`, one after the other.
pub(crate) fn gather<T: Real>(x: &[T], width: usize, indices: impl ExactSizeIterator<Item = u32>) -> Vec<T> {
    let mut out = Vec::with_capacity(indices.len() * width);
    indices.for_each(|i| out.extend_from_slice(&x[i as usize * width..][..width]));
    out
}

/// Adds rows of `y` to the rows of `x` named by `indices`: the adjoint of [`gather`].
pub(crate) fn scatter_add<T: Real>(x: &mut [T], width: usize, indices: impl Iterator<Item = u32>, y: &[T]) {
    vectorized(|| {
        for (i, row) in indices.zip(y.chunks_exact(width.max(1))) {
            add(&mut x[i as usize * width..][..width], row);
        }
    });
}
