//! A dense layer, `y = a(X·W + b)`, in one pass over cache-sized chunks of rows, with its gradients.

use candle_core::Shape;
use rayon::prelude::*;

use super::product::Product;
use super::{Fused, Kept, Pass, Real, Size, run_vectorized, vectorized};
use crate::nn::Activation;

/// Numbers that one thread takes at a time of what is computed entry by entry.
const ENTRIES: usize = 1 << 13;

/// `a(X·W + b)`, `X` of shape `(M, K)`, `W` of shape `(K, N)`, `b` of shape `(N,)`, or `(M, N)`: one for each row.
pub(crate) struct Dense {
    size: Size,
    /// None for the last layer of a network.
    activation: Option<Activation>,
    /// `X·W + b`, which the gradient of the activation needs.
    sums: Kept,
}

impl Dense {
    pub(crate) fn new(size: Size, activation: Option<Activation>) -> Self {
        Dense { size, activation, sums: Kept::default() }
    }

    fn product(&self) -> Product {
        Product::new(self.size)
    }

    /// `X·W + b`.
    fn sums<T: Real>(&self, [x, w, b]: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        let n = self.size.n;
        let mut sums = self.product().forward([x, w])?;
        let of_rows = b.len() == sums.len();
        sums.par_chunks_mut(n * (ENTRIES / n).max(1)).enumerate().for_each(|(index, part)| {
            let first = index * n * (ENTRIES / n).max(1);
            vectorized(|| {
                for (row, sums) in part.chunks_exact_mut(n).enumerate() {
                    let b = if of_rows { &b[first + row * n..][..n] } else { b };
                    sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum += b);
                }
            });
        });
        Ok(sums)
    }
}

impl Activation {
    /// The value at one place. NaN stays NaN.
    #[inline(always)]
    fn at<T: Real>(self, x: T) -> T {
        match self {
            Activation::Relu => {
                if x < T::ZERO {
                    T::ZERO
                } else {
                    x
                }
            }
            Activation::Tanh => x.tanh_fast(),
            Activation::Silu => x * sigmoid(x),
        }
    }

    /// The derivative at one place.
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let one = T::from_f64(1.0);
        match self {
            Activation::Relu => {
                if x > T::ZERO {
                    one
                } else {
                    T::ZERO
                }
            }
            Activation::Tanh => {
                let h = x.tanh_fast();
                one - h * h
            }
            Activation::Silu => {
                let s = sigmoid(x);
                s + x * s * (one - s)
            }
        }
    }
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let one = T::from_f64(1.0);
    one / (one + (T::ZERO - x).exp_bounded())
}

/// The activation of every number of `sums`, or, with the gradient of the activations, that of the sums.
struct Along<'a, T> {
    activation: Activation,
    sums: &'a [T],
    grad: Option<&'a [T]>,
    out: &'a mut [T],
}

impl<T: Real> Pass for Along<'_, T> {
    type Output = ();

    /// The choice of the activation is taken out of the loops.
    #[inline(always)]
    fn run(self) {
        match self.activation {
            Activation::Relu => self.each(Activation::Relu),
            Activation::Tanh => self.each(Activation::Tanh),
            Activation::Silu => self.each(Activation::Silu),
        }
    }
}

impl<T: Real> Along<'_, T> {
    #[inline(always)]
    fn each(self, activation: Activation) {
        match self.grad {
            None => {
                for (slot, &x) in self.out.iter_mut().zip(self.sums) {
                    *slot = activation.at(x);
                }
            }
            Some(grad) => {
                for ((slot, &x), &g) in self.out.iter_mut().zip(self.sums).zip(grad) {
                    *slot = activation.slope(x) * g;
                }
            }
        }
    }
}

/// [`Along`] for all of a batch.
fn along<T: Real>(activation: Activation, sums: &[T], grad: Option<&[T]>) -> Vec<T> {
    let mut out = vec![T::ZERO; sums.len()];
    out.par_chunks_mut(ENTRIES).zip(sums.par_chunks(ENTRIES)).enumerate().for_each(|(index, (out, sums))| {
        let grad = grad.map(|grad| &grad[index * ENTRIES..]);
        run_vectorized(Along { activation, sums, grad, out });
    });
    out
}

impl Fused<3> for Dense {
    fn name(&self) -> &'static str {
        "dense layer"
    }

    fn shape(&self) -> Shape {
        (self.size.m, self.size.n).into()
    }

    fn forward<T: Real>(&self, operands: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        if self.size.n == 0 {
            return Ok(Vec::new());
        }
        let sums = self.sums(operands)?;
        let Some(activation) = self.activation else { return Ok(sums) };
        let value = along(activation, &sums, None);
        self.sums.put(sums);
        Ok(value)
    }

    fn backward<T: Real>(&self, operands: [&[T]; 3], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 3]> {
        let [x, w, b] = operands;
        let n = self.size.n;
        let of_activation = |activation| {
            // Taken for the time being: a lock held here could be met again by the same thread, which steals work while it
            // waits.
            let sums = match self.sums.take() {
                Some(sums) => sums,
                None => self.sums(operands)?,
            };
            let of_sums = along(activation, &sums, Some(grad));
            self.sums.put(sums);
            candle_core::Result::Ok(of_sums)
        };
        let of_sums = self.activation.map(of_activation).transpose()?;
        let grad = of_sums.as_deref().unwrap_or(grad);
        let [grad_x, grad_w] = self.product().backward([x, w], grad)?;
        let grad_b = if b.len() == n { column_sums(grad, n) } else { grad.to_vec() };
        Ok([grad_x, grad_w, Some(grad_b)])
    }
}

/// The sum of the rows of a matrix with `n` columns.
fn column_sums<T: Real>(rows: &[T], n: usize) -> Vec<T> {
    let mut sums = vec![T::ZERO; n];
    vectorized(|| {
        for row in rows.chunks_exact(n.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += v);
        }
    });
    sums
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;
    use crate::kernels::fuse;
    use crate::testing::numbers::{distance, normal};

    /// Value and all gradients are those of the composed operations, with a bias for all rows and with one for each.
    #[test]
    fn it_is_the_composed_layer() {
        let activations = [None, Some(Activation::Relu), Some(Activation::Tanh), Some(Activation::Silu)];
        for (m, k, n) in [(0, 3, 2), (1, 1, 1), (65, 7, 9), (300, 50, 33), (700, 300, 330)] {
            for activation in activations {
                for (dtype, rows, most) in
                    [(DType::F64, false, 1e-12), (DType::F64, true, 1e-12), (DType::F32, false, 3e-4)]
                {
                    let operand = |seed, shape: &[usize]| {
                        Var::from_tensor(&normal(seed, shape).to_dtype(dtype).unwrap()).unwrap()
                    };
                    let b = if rows { operand(3, &[m, n]) } else { operand(3, &[n]) };
                    let (x, w) = (operand(1, &[m, k]), operand(2, &[k, n]));
                    let ours =
                        fuse(Dense::new(Size { m, k, n }, activation), [x.as_tensor(), w.as_tensor(), b.as_tensor()])
                            .unwrap();
                    assert_eq!(ours.dims(), [m, n]);
                    if m == 0 {
                        continue;
                    }
                    let sums = x.matmul(&w).unwrap().broadcast_add(&b).unwrap();
                    let theirs = activation.map_or_else(|| Ok(sums.clone()), |a| a.apply(&sums)).unwrap();
                    assert!(distance(&ours, &theirs) < most, "{m} {k} {n} {activation:?} {dtype:?}");
                    let weight = normal(4, &[m, n]).to_dtype(dtype).unwrap();
                    let [ours, theirs] =
                        [ours, theirs].map(|y| (y * &weight).unwrap().sum_all().unwrap().backward().unwrap());
                    for operand in [&x, &w, &b] {
                        let gap = distance(ours.get(operand).unwrap(), theirs.get(operand).unwrap());
                        assert!(gap < most, "{m} {k} {n} {activation:?} {dtype:?}: gradient off by {gap}");
                    }
                }
            }
        }
    }

    /// What is not a number is not hidden, by the rectifier least of all.
    #[test]
    fn nan_stays() {
        let x = Var::new(&[[f64::NAN], [-1.0], [2.0]], &candle_core::Device::Cpu).unwrap();
        let (w, b) = (x.ones_like().unwrap().narrow(0, 0, 1).unwrap(), x.zeros_like().unwrap().get(0).unwrap());
        for activation in [Activation::Relu, Activation::Tanh, Activation::Silu] {
            let size = Size { m: 3, k: 1, n: 1 };
            let y = fuse(Dense::new(size, Some(activation)), [x.as_tensor(), &w, &b]).unwrap();
            let y = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(y[0].is_nan() && y[1..].iter().all(|v| v.is_finite()), "{activation:?}: {y:?}");
        }
    }
}
