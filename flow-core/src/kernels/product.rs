//! `Y = X·W`, with its gradients: small products on blocks of the cache, large ones packed.

use candle_core::Shape;
use rayon::prelude::*;

use super::dots::dots;
use super::gemm::{MR, Size, Start, View, gemm, transpose};
use super::packed::packed;
use super::{Fused, Real, in_chunks};

/// Rows of a chunk of `W` in its gradient. Chunks depend on shapes alone, so sums do not depend on the threads.
const WEIGHT_ROWS: usize = 24;
/// The most rows of a chunk of the batch, and how many chunks a smaller batch is divided into.
const ROWS: usize = 11 * MR;
const CHUNKS: usize = 8;
/// Rows of the batch that a chunk of the weight's gradient adds at a time, to stay in the cache.
const BLOCK: usize = 256;
/// Rows shorter than this are transposed: their scalar products would be mostly sums of registers.
const SHORT: usize = 64;
/// More rows than these are worth a transpose of the other matrix.
const TALL: usize = 512;
/// More multiplications than these are worth packing both operands.
const LARGE: usize = 1 << 26;
/// Multiplications below which threads cost more than they save.
const ALONE: usize = 1 << 15;

/// `X·W`, `X` of shape `(M, K)` and `W` of shape `(K, N)`; the operand of the operation is the transpose of either where
/// it is said so.
pub(crate) struct Product {
    pub size: Size,
    pub x_transposed: bool,
    pub w_transposed: bool,
}

impl Product {
    /// Of operands that are as they are.
    pub(crate) fn new(size: Size) -> Self {
        Product { size, x_transposed: false, w_transposed: false }
    }

    /// `C`, of `n` columns, by chunks of `rows` rows that begin as zeros.
    fn chunked<T: Real>(
        &self,
        rows: usize,
        [all, n]: [usize; 2],
        chunk: impl Fn(usize, &mut [T]) + Sync + Send,
    ) -> Vec<T> {
        let Size { m, k, n: columns } = self.size;
        if m * k * columns <= ALONE {
            let mut c = vec![T::ZERO; all * n];
            c.chunks_mut((rows * n).max(1)).enumerate().for_each(|(index, c)| chunk(index * rows, c));
            return c;
        }
        let firsts = (0..all.div_ceil(rows)).into_par_iter().map(|index| index * rows);
        in_chunks(all * n, rows * n, firsts, chunk)
    }

    /// Whether the operands are packed.
    pub(crate) fn is_large(&self) -> bool {
        let Size { m, k, n } = self.size;
        m.saturating_mul(k).saturating_mul(n) > LARGE
    }

    /// `X`, `(M, K)`, of the operand.
    fn left<'a, T>(&self, x: &'a [T]) -> View<'a, T> {
        let Size { m, k, .. } = self.size;
        if self.x_transposed { View::transposed(x, m) } else { View::rows(x, k) }
    }

    /// `W`, `(K, N)`, of the operand.
    fn right<'a, T>(&self, w: &'a [T]) -> View<'a, T> {
        let Size { k, n, .. } = self.size;
        if self.w_transposed { View::transposed(w, k) } else { View::rows(w, n) }
    }

    /// `M` rows of length `inner` times the transpose of `n` such rows.
    fn rows_by_rows<T: Real>(&self, x: &[T], w: &[T], inner: usize, n: usize) -> Vec<T> {
        let m = self.size.m;
        if inner < SHORT || m > TALL {
            return match self.is_large() {
                true => packed(Size { m, k: inner, n }, View::rows(x, inner), View::transposed(w, inner)),
                false => self.rows(x, false, inner, &transpose(w, inner), n),
            };
        }
        // Every number is a sum of its own, so that the number of threads may choose the shares.
        let share = |rows: usize| rows.div_ceil(rayon::current_num_threads()).next_multiple_of(MR);
        if n <= m || !self.is_large() {
            return self.chunked(share(m).min(ROWS), [m, n], |first, y| {
                dots(Size { m: y.len() / n, k: inner, n }, &x[first * inner..], w, y);
            });
        }
        // Each thread reads rows of the longer matrix that no other reads.
        let columns = share(n);
        let strips: Vec<Vec<T>> = w
            .par_chunks(columns * inner)
            .map(|w| {
                let n = w.len() / inner;
                let mut strip = vec![T::ZERO; m * n];
                dots(Size { m, k: inner, n }, x, w, &mut strip);
                strip
            })
            .collect();
        let mut y = Vec::with_capacity(m * n);
        for row in 0..m {
            for strip in &strips {
                let n = strip.len() / m;
                y.extend_from_slice(&strip[row * n..][..n]);
            }
        }
        y
    }

    /// Both gradients of a large product, each in the layout of its operand.
    fn large_backward<T: Real>(&self, [x, w]: [&[T]; 2], grad: &[T]) -> [Vec<T>; 2] {
        let Size { m, k, n } = self.size;
        let (left, right, grad_view) = (self.left(x), self.right(w), View::rows(grad, n));
        let grad_x = match (self.x_transposed, self.w_transposed) {
            (true, _) => packed(Size { m: k, k: n, n: m }, right, grad_view.t()),
            (false, true) => packed(Size { m, k: n, n: k }, grad_view, right.t()),
            (false, false) => self.rows_by_rows(grad, w, n, k),
        };
        let grad_w = match self.w_transposed {
            true => packed(Size { m: n, k: m, n: k }, grad_view.t(), left),
            false => packed(Size { m: k, k: m, n }, left.t(), grad_view),
        };
        [grad_x, grad_w]
    }

    /// `M` rows of length `inner` (or the transpose of that) times a matrix with `n` columns.
    pub(super) fn rows<T: Real>(&self, x: &[T], transposed: bool, inner: usize, w: &[T], n: usize) -> Vec<T> {
        let m = self.size.m;
        let rows = m.div_ceil(CHUNKS).next_multiple_of(MR).clamp(1, ROWS);
        self.chunked(rows, [m, n], |first, y| {
            let left = match transposed {
                true => View::transposed(&x[first.min(x.len())..], m),
                false => View::rows(&x[first * inner..], inner),
            };
            gemm(Size { m: y.len() / n, k: inner, n }, left, w, y, Start::Zero, false);
        })
    }
}

impl Fused<2> for Product {
    fn name(&self) -> &'static str {
        "matrix product"
    }

    fn shape(&self) -> Shape {
        (self.size.m, self.size.n).into()
    }

    fn forward<T: Real>(&self, [x, w]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let Size { k, n, .. } = self.size;
        if n == 0 {
            return Ok(Vec::new());
        }
        if self.w_transposed && !self.x_transposed {
            return Ok(self.rows_by_rows(x, w, k, n));
        }
        if self.is_large() {
            return Ok(packed(self.size, self.left(x), self.right(w)));
        }
        let upright = self.w_transposed.then(|| transpose(w, k));
        Ok(self.rows(x, self.x_transposed, k, upright.as_deref().unwrap_or(w), n))
    }

    fn backward<T: Real>(&self, [x, w]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let Size { m, k, n } = self.size;
        if k == 0 || n == 0 {
            return Ok([Some(vec![T::ZERO; x.len()]), Some(vec![T::ZERO; w.len()])]);
        }
        if self.is_large() {
            return Ok(self.large_backward([x, w], grad).map(Some));
        }
        let grad_x = match self.w_transposed {
            true => self.rows(grad, false, n, w, k),
            false => self.rows_by_rows(grad, w, n, k),
        };
        let grad_w = self.chunked(WEIGHT_ROWS, [k, n], |first, part| {
            for row in (0..m).step_by(BLOCK) {
                let size = Size { m: part.len() / n, k: BLOCK.min(m - row), n };
                let left = match self.x_transposed {
                    true => View::rows(&x[first * m + row..], m),
                    false => View::transposed(&x[row * k + first..], k),
                };
                gemm(size, left, &grad[row * n..], part, Start::Old, false);
            }
        });
        let as_given = |grad: Vec<T>, transposed: bool, width: usize| match transposed {
            true => transpose(&grad, width),
            false => grad,
        };
        Ok([Some(as_given(grad_x, self.x_transposed, k)), Some(as_given(grad_w, self.w_transposed, n))])
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use crate::nn::matmul;
    use crate::testing::numbers::{distance, normal};

    /// Value and both gradients are those of Candle's product, for sizes on both sides of every chunk.
    #[test]
    fn it_is_the_product() {
        let sizes = [
            (0, 3, 2),
            (1, 1, 1),
            (5, 0, 3),
            (4, 3, 0),
            (65, 7, 9),
            (64, 24, 16),
            (300, 50, 33),
            (513, 25, 70),
            (101, 70, 131),
            (90, 300, 2501),
            (2501, 90, 300),
        ];
        for (m, k, n) in sizes {
            for (dtype, most) in [(DType::F64, 1e-11), (DType::F32, 2e-4)] {
                let operand =
                    |seed, shape: &[usize]| Var::from_tensor(&normal(seed, shape).to_dtype(dtype).unwrap()).unwrap();
                let (x, w) = (operand(1, &[m, k]), operand(2, &[k, n]));
                let weight = normal(3, &[m, n]).to_dtype(dtype).unwrap();
                let ours = matmul(&x, &w).unwrap();
                assert_eq!(ours.dims(), [m, n]);
                if m * k * n == 0 {
                    assert_eq!(ours.sum_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 0.0);
                    continue;
                }
                let theirs = x.as_tensor().matmul(&w).unwrap();
                assert!(distance(&ours, &theirs) < most, "{m} {k} {n} {dtype:?}");
                let [ours, theirs] =
                    [ours, theirs].map(|y| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap());
                for operand in [&x, &w] {
                    let gap = distance(ours.get(operand).unwrap(), theirs.get(operand).unwrap());
                    assert!(gap < most, "{m} {k} {n} {dtype:?}: gradient off by {gap}");
                }
            }
        }
    }

    /// A transposed view is read as it lies, and its gradient is that of what it views.
    #[test]
    fn transposed_operands_are_the_product_too() {
        for (m, k, n) in
            [(1, 1, 1), (65, 7, 9), (300, 50, 33), (5, 0, 3), (101, 70, 131), (2501, 90, 300), (90, 300, 2501)]
        {
            for (flip_x, flip_w) in [(true, false), (false, true), (true, true)] {
                let operand = |seed, flip: bool, [a, b]: [usize; 2]| {
                    Var::from_tensor(&normal(seed, &if flip { [b, a] } else { [a, b] })).unwrap()
                };
                let (x, w) = (operand(1, flip_x, [m, k]), operand(2, flip_w, [k, n]));
                let view = |v: &Var, flip: bool| if flip { v.t().unwrap() } else { v.as_tensor().clone() };
                let (left, right) = (view(&x, flip_x), view(&w, flip_w));
                let ours = matmul(&left, &right).unwrap();
                if k == 0 {
                    assert_eq!(ours.dims(), [m, n]);
                    continue;
                }
                let theirs = left.contiguous().unwrap().matmul(&right.contiguous().unwrap()).unwrap();
                assert!(distance(&ours, &theirs) < 1e-12, "{m} {k} {n} {flip_x} {flip_w}");
                let weight = normal(3, &[m, n]);
                let [ours, theirs] =
                    [ours, theirs].map(|y| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap());
                for operand in [&x, &w] {
                    let gap = distance(ours.get(operand).unwrap(), theirs.get(operand).unwrap());
                    assert!(gap < 1e-12, "{m} {k} {n} {flip_x} {flip_w}: gradient off by {gap}");
                }
            }
        }
    }

    /// Strides are honoured, and what does not fit is refused.
    #[test]
    fn transposed_operands_and_wrong_sizes() {
        let (x, w) = (normal(1, &[5, 6]), normal(2, &[4, 5]));
        let (x, w) = (x.t().unwrap(), w.t().unwrap());
        let expected = x.contiguous().unwrap().matmul(&w.contiguous().unwrap()).unwrap();
        assert!(distance(&matmul(&x, &w).unwrap(), &expected) < 1e-13);
        assert!(matmul(&w, &x).is_err() && matmul(&x, &w.to_dtype(DType::F32).unwrap()).is_err());
        assert!(matmul(&x, &w.unsqueeze(0).unwrap()).is_err());
    }
}
