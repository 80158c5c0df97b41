//! Products with a matrix that is mostly zeros, binary data above all.

use rayon::prelude::*;

use super::{Pass, Real, run_vectorized};

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
        let mut lists = Lists { starts: vec![0], entries: Vec::with_capacity(limit) };
        for row in x.chunks_exact(columns.max(1)) {
            lists.entries.extend((0u32..).zip(row).filter(|(_, v)| **v != T::ZERO).map(|(i, &v)| (i, v)));
            if lists.entries.len() > limit {
                return None;
            }
            lists.starts.push(lists.entries.len());
        }
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
        let mut out = vec![T::ZERO; self.len() * n];
        // Every row is a sum of its own, so that the number of threads may choose the shares.
        let share = self.len().div_ceil(2 * rayon::current_num_threads()).max(1);
        out.par_chunks_mut((share * n).max(1)).enumerate().for_each(|(part, out)| {
            run_vectorized(Rows { lists: self, first: part * share, matrix, n, out });
        });
        out
    }
}

/// Some rows of a product.
struct Rows<'a, T> {
    lists: &'a Lists<T>,
    first: usize,
    matrix: &'a [T],
    n: usize,
    out: &'a mut [T],
}

impl<T: Real> Pass for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows { lists, first, matrix, n, out } = self;
        for start in (0..n).step_by(BLOCK) {
            for (row, out) in out.chunks_exact_mut(n).enumerate() {
                let (list, out) = (lists.list(first + row), &mut out[start..n.min(start + BLOCK)]);
                if out.len() == BLOCK {
                    let mut sums = [T::ZERO; BLOCK];
                    for &(i, v) in list {
                        let line = &matrix[i as usize * n + start..][..BLOCK];
                        for (sum, &m) in sums.iter_mut().zip(line) {
                            *sum += v * m;
                        }
                    }
                    out.copy_from_slice(&sums);
                } else {
                    for &(i, v) in list {
                        let line = &matrix[i as usize * n + start..][..out.len()];
                        out.iter_mut().zip(line).for_each(|(sum, &m)| *sum += v * m);
                    }
                }
            }
        }
    }
}
