//! Products with a matrix that is mostly zeros, binary data above all.

use rayon::prelude::*;

use super::{Pass, Real, in_chunks, run_vectorized};

/// Columns that are summed in registers: the part of the other operand that belongs to them stays in the cache.
const BLOCK: usize = 64;

/// For each row of a matrix, or each column, its entries that are not zero.
pub(crate) struct Lists<T> {
    starts: Vec<usize>,
    entries: Vec<(u32, T)>,
}

impl<T: Real> Lists<T> {
    /// Those of the rows of `x` with this many columns; `None` where more than a quarter of it is not zero: then an
    /// ordinary product is as fast.
    pub(crate) fn of_rows(x: &[T], columns: usize) -> Option<Self> {
        let limit = x.len() / 4;
        let (mut starts, mut entries, mut end) = (vec![0], vec![(0, T::ZERO); limit + columns + 1], 0);
        for row in x.chunks_exact(columns.max(1)) {
            // Every number is written, and counted if it is not zero: no branch that would be mispredicted.
            let slots = &mut entries[end..=end + columns];
            let mut count = 0;
            for (i, &v) in (0u32..).zip(row) {
                slots[count] = (i, v);
                count += usize::from(v != T::ZERO);
            }
            end += count;
            if end > limit {
                return None;
            }
            starts.push(end);
        }
        entries.truncate(end);
        let lists = Lists { starts, entries };
        Some(lists)
    }

    /// Those of the columns of a matrix whose rows these are.
    pub(crate) fn transposed(&self, columns: usize) -> Self {
        let mut starts = vec![0; columns + 1];
        for &(i, _) in &self.entries {
            starts[i as usize + 1] += 1;
        }
        for i in 0..columns {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut entries = vec![(0, T::ZERO); self.entries.len()];
        for row in 0..self.len() {
            for &(i, v) in self.list(row) {
                entries[next[i as usize]] = (row as u32, v);
                next[i as usize] += 1;
            }
        }
        Lists { starts, entries }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn list(&self, row: usize) -> &[(u32, T)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// The product with `matrix`, row-major with `n` columns: row-major with as many.
    pub(crate) fn product(&self, matrix: &[T], n: usize) -> Vec<T> {
        let rows = self.len();
        // Every number is a sum of its own, so that the number of threads may choose the shares. Of a large matrix every thread
        // reads its own columns: after an optimizer's step they lie in the caches of all.
        if matrix.len() > rows * n && n >= 2 * BLOCK * rayon::current_num_threads() {
            let strips: Vec<Vec<T>> =
                (0..n.div_ceil(BLOCK)).into_par_iter().map(|b| self.strip(matrix, n, b)).collect();
            return in_chunks(rows * n, n, (0..rows).into_par_iter(), |row, out| {
                for (out, strip) in out.chunks_mut(BLOCK).zip(&strips) {
                    out.copy_from_slice(&strip[row * out.len()..][..out.len()]);
                }
            });
        }
        let share = rows.div_ceil(2 * rayon::current_num_threads()).max(1);
        let firsts = (0..rows.div_ceil(share)).into_par_iter().map(|part| part * share);
        in_chunks(rows * n, share * n, firsts, |first, out| {
            run_vectorized(Part { lists: self, first, matrix, n, from: 0, width: n, out });
        })
    }

    /// Some columns of the product.
    fn strip(&self, matrix: &[T], n: usize, block: usize) -> Vec<T> {
        let from = block * BLOCK;
        let width = BLOCK.min(n - from);
        let mut out = vec![T::ZERO; self.len() * width];
        run_vectorized(Part { lists: self, first: 0, matrix, n, from, width, out: &mut out });
        out
    }
}

/// Some rows and columns of a product.
struct Part<'a, T> {
    lists: &'a Lists<T>,
    first: usize,
    matrix: &'a [T],
    n: usize,
    /// The first of the columns, and how many they are.
    from: usize,
    width: usize,
    out: &'a mut [T],
}

impl<T: Real> Pass for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Part { lists, first, matrix, n, from, width, out } = self;
        for start in (0..width).step_by(BLOCK) {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let (list, out) = (lists.list(first + row), &mut out[start..width.min(start + BLOCK)]);
                if out.len() == BLOCK {
                    let mut sums = [T::ZERO; BLOCK];
                    for &(i, v) in list {
                        let line = &matrix[i as usize * n + from + start..][..BLOCK];
                        for (sum, &m) in sums.iter_mut().zip(line) {
                            *sum += v * m;
                        }
                    }
                    out.copy_from_slice(&sums);
                } else {
                    for &(i, v) in list {
                        let line = &matrix[i as usize * n + from + start..][..out.len()];
                        out.iter_mut().zip(line).for_each(|(sum, &m)| *sum += v * m);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products by rows and by columns, whole blocks of columns and what is left of them, a row without an entry.
    #[test]
    fn it_is_the_product() {
        for (rows, columns, n) in [(5, 9, 70), (3, 40, 64), (3, 40, 2 * BLOCK * rayon::current_num_threads() + 7)] {
            let x: Vec<f64> =
                (0..rows * columns).map(|i| if i % 7 == 3 && i > columns { i as f64 } else { 0.0 }).collect();
            let lists = Lists::of_rows(&x, columns).unwrap();
            let matrix: Vec<f64> = (0..columns * n).map(|i| (i as f64).sin()).collect();
            let other: Vec<f64> = (0..rows * n).map(|i| (i as f64).cos()).collect();
            let (product, across) = (lists.product(&matrix, n), lists.transposed(columns).product(&other, n));
            for j in 0..n {
                for i in 0..rows {
                    let sum: f64 = (0..columns).map(|l| x[i * columns + l] * matrix[l * n + j]).sum();
                    assert!((product[i * n + j] - sum).abs() < 1e-11, "{rows} {columns} {n}: {i} {j}");
                }
                for i in 0..columns {
                    let sum: f64 = (0..rows).map(|l| x[l * columns + i] * other[l * n + j]).sum();
                    assert!((across[i * n + j] - sum).abs() < 1e-11, "transposed {rows} {columns} {n}: {i} {j}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_longer_sparse_is_refused() {
        assert!(Lists::of_rows(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0_f32], 4).is_some());
        assert!(Lists::of_rows(&[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0_f32], 4).is_none());
        assert!(Lists::of_rows(&[1.0, 2.0, 3.0, 4.0_f32], 4).is_none());
        assert!(Lists::<f32>::of_rows(&[], 0).is_some());
    }
}
