//! The likelihood of binary pixels under independent probabilities given as logits.

use candle_core::{Shape, Tensor};
use flow_core::kernels::{Fused, Real, accepts, fuse, read, vectorized};
use rayon::prelude::*;

use crate::{Error, Result};

/// Factors whose product is taken before one logarithm; each is between one and two.
const GROUP: usize = 16;

/// `Σ_d x_d·l_d - ln(1 + e^{l_d})`: operands logits and pixels, `(B, D)` each, value `(B,)`.
struct Bernoulli {
    rows: usize,
    dims: usize,
}

/// The log-likelihood of a row, and, if asked, its gradient `x - σ(l)`.
#[inline(always)]
fn row<T: Real>(logits: &[T], x: &[T], scratch: &mut [T], residual: Option<&mut [T]>) -> T {
    let one = T::from_f64(1.0);
    let (linear, factor) = scratch.split_at_mut(logits.len());
    let magnitude = |l: T| if l < T::ZERO { T::ZERO - l } else { l };
    vectorized(|| {
        for (((&l, &x), a), e) in logits.iter().zip(x).zip(linear.iter_mut()).zip(factor.iter_mut()) {
            let above = if l < T::ZERO { T::ZERO } else { l };
            *a = x * l - above;
            *e = one + (T::ZERO - magnitude(l)).exp_bounded();
        }
    });
    if let Some(residual) = residual {
        vectorized(|| {
            for (((&l, &x), &e), r) in logits.iter().zip(x).zip(factor.iter()).zip(residual) {
                let share = one / e;
                *r = x - if l < T::ZERO { one - share } else { share };
            }
        });
    }
    let sum: f64 = linear.iter().map(|a| a.to_f64()).sum();
    let logs: f64 = factor.chunks(GROUP).map(|group| group.iter().map(|e| e.to_f64()).product::<f64>().ln()).sum();
    T::from_f64(sum - logs)
}

impl Bernoulli {
    /// The log-likelihoods, and the gradients of each with respect to its logits.
    fn both<T: Real>(&self, logits: &[T], x: &[T]) -> (Vec<T>, Vec<T>) {
        let dims = self.dims.max(1);
        let (mut value, mut residual) = (vec![T::ZERO; self.rows], vec![T::ZERO; logits.len()]);
        let rows = value.par_iter_mut().zip(residual.par_chunks_mut(dims));
        rows.zip(logits.par_chunks(dims).zip(x.par_chunks(dims))).for_each_init(
            || vec![T::ZERO; 2 * dims],
            |scratch, ((value, residual), (logits, x))| *value = row(logits, x, scratch, Some(residual)),
        );
        (value, residual)
    }
}

impl Fused<2> for Bernoulli {
    fn name(&self) -> &'static str {
        "bernoulli"
    }

    fn shape(&self) -> Shape {
        self.rows.into()
    }

    fn forward<T: Real>(&self, [logits, x]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        let (dims, mut value) = (self.dims.max(1), vec![T::ZERO; self.rows]);
        value.par_iter_mut().zip(logits.par_chunks(dims).zip(x.par_chunks(dims))).for_each_init(
            || vec![T::ZERO; 2 * dims],
            |scratch, (value, (logits, x))| *value = row(logits, x, scratch, None),
        );
        Ok(value)
    }

    fn backward<T: Real>(&self, [logits, x]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let scale = |values: &mut [T]| {
            for (row, &g) in values.chunks_exact_mut(self.dims.max(1)).zip(grad) {
                row.iter_mut().for_each(|v| *v *= g);
            }
        };
        let (mut of_logits, mut of_x) = (self.both(logits, x).1, logits.to_vec());
        scale(&mut of_logits);
        scale(&mut of_x);
        Ok([Some(of_logits), Some(of_x)])
    }
}

/// `ln p(x)` of each row of pixels, `(B,)`, for the logits of their probabilities, `(B, D)`.
pub(super) fn log_likelihood(logits: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (rows, dims) = logits.dims2()?;
    if accepts(logits) && accepts(x) && logits.dtype() == x.dtype() {
        return Ok(fuse(Bernoulli { rows, dims }, [logits, x])?);
    }
    composed(logits, x)
}

/// The same in operations of Candle: the specification, and the path of other devices.
pub(super) fn composed(logits: &Tensor, x: &Tensor) -> Result<Tensor> {
    let above = logits.maximum(0.0)?;
    // -|l| as l - 2 max(l, 0).
    let decay = ((logits - (&above * 2.0)?)?.exp()? + 1.0)?.log()?;
    Ok((((logits * x)? - above)? - decay)?.sum(1)?)
}

/// The log-likelihoods, `(B,)`, and `∂ ln p(x) / ∂ logits = x - σ(logits)`, `(B, D)`, outside any graph. On the CPU.
pub(super) fn with_gradient(logits: &Tensor, x: &Tensor) -> Result<(Tensor, Tensor)> {
    match logits.dtype() {
        candle_core::DType::F64 => with_gradient_as::<f64>(logits, x),
        _ => with_gradient_as::<f32>(logits, x),
    }
}

fn with_gradient_as<T: Real>(logits: &Tensor, x: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, dims) = logits.dims2()?;
    if x.dims() != logits.dims() {
        let reason = format!("of shape {:?} for logits of {:?}", x.dims(), logits.dims());
        return Err(Error::config("pixels", reason));
    }
    let kernel = Bernoulli { rows, dims };
    let (value, residual) = read::<T, _>(logits, |logits| read::<T, _>(x, |x| Ok(kernel.both(logits, x))))?;
    let device = logits.device();
    Ok((Tensor::from_vec(value, rows, device)?, Tensor::from_vec(residual, (rows, dims), device)?))
}
