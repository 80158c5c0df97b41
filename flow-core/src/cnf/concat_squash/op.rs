//! The kernel as operations of `x`, packed weights, and gates and shifts.

use candle_core::{Device, Tensor};

use crate::kernels::concat_squash::{self as kernel, Objective, Operands, Shape};
use crate::kernels::{Fused, Kept, Real, fuse, read};
use crate::{Error, Result};

/// The arguments of the kernel, checked.
pub(super) struct Call {
    pub(super) shape: Shape,
    /// `x`, packed weights, and gates and shifts, all contiguous.
    pub(super) arguments: [Tensor; 3],
    /// `(K, B, D)`; anything if `K` is zero.
    pub(super) tangents: Tensor,
}

impl Call {
    /// Whether any argument has a graph.
    pub(super) fn is_tracked(&self) -> bool {
        self.arguments.iter().any(Tensor::track_op)
    }

    /// Value and tangents, `(1 + K, B, D)`.
    pub(super) fn outputs(self) -> Result<Tensor> {
        fuse(Outputs { shape: self.shape, tangents: self.tangents }, self.arguments.each_ref())
    }

    /// The inner product of the outputs with `cotangents`, `(1 + K, B, D)`, and the value.
    pub(super) fn pairing(self, cotangents: &Tensor) -> Result<(Tensor, Tensor)> {
        let (objective, value) = self.objective(Of::Pairing, cotangents)?;
        let value = value.take().ok_or_else(|| Error::config(super::NAME, "the kernel left no value"))?;
        Ok((objective, value))
    }

    /// `Σ |f − target|²`.
    pub(super) fn squared_error(self, target: &Tensor) -> Result<Tensor> {
        Ok(self.objective(Of::SquaredError, target)?.0)
    }

    /// The objective, and the place of the value.
    fn objective(self, of: Of, against: &Tensor) -> Result<(Tensor, Kept)> {
        let value = Kept::default();
        let op = OneSweep {
            shape: self.shape,
            tangents: self.tangents,
            of,
            against: against.detach().contiguous()?,
            value: value.clone(),
            gradients: Kept::default(),
        };
        Ok((fuse(op, self.arguments.each_ref())?, value))
    }
}

/// Value and tangents; the backward pass goes through every block again.
struct Outputs {
    shape: Shape,
    tangents: Tensor,
}

impl Fused<3> for Outputs {
    fn name(&self) -> &'static str {
        "concat-squash"
    }

    fn shape(&self) -> candle_core::Shape {
        (self.shape.tangents + 1, self.shape.rows, self.shape.widths[0]).into()
    }

    fn forward<T: Real>(&self, operands: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        with_operands(operands, &self.tangents, |o| kernel::forward(&self.shape, &o))
    }

    fn backward<T: Real>(&self, operands: [&[T]; 3], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 3]> {
        let objective = Objective::Pairing(grad);
        let g = with_operands(operands, &self.tangents, |o| kernel::gradient(&self.shape, &o, objective))?;
        Ok([Some(g.x), Some(g.weights), Some(g.hyper)])
    }
}

#[derive(Clone, Copy)]
enum Of {
    Pairing,
    SquaredError,
}

/// A scalar of the outputs whose gradient is computed with it: the backward pass only scales what is kept.
struct OneSweep {
    shape: Shape,
    tangents: Tensor,
    of: Of,
    /// Cotangents or target.
    against: Tensor,
    /// `(B, D)`.
    value: Kept,
    /// Of `x`, weights, and gates and shifts.
    gradients: Kept,
}

impl Fused<3> for OneSweep {
    fn name(&self) -> &'static str {
        "concat-squash objective"
    }

    fn shape(&self) -> candle_core::Shape {
        ().into()
    }

    fn forward<T: Real>(&self, operands: [&[T]; 3]) -> candle_core::Result<Vec<T>> {
        let against = self.against.flatten_all()?.to_vec1::<T>()?;
        let objective = match self.of {
            Of::Pairing => Objective::Pairing(&against[..]),
            Of::SquaredError => Objective::SquaredError(&against[..]),
        };
        let found = with_operands(operands, &self.tangents, |o| kernel::gradient(&self.shape, &o, objective))?;
        let rows = (self.shape.rows, self.shape.widths[0]);
        self.value.put(Tensor::from_vec(found.output, rows, &Device::Cpu)?);
        self.gradients.put([found.x, found.weights, found.hyper]);
        Ok(vec![T::from_f64(found.objective)])
    }

    fn backward<T: Real>(&self, _operands: [&[T]; 3], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 3]> {
        let &[scale] = grad else { candle_core::bail!("concat-squash: the gradient of a scalar has one entry") };
        let scaled = |g: &Vec<T>| match scale.to_f64() {
            1.0 => g.clone(),
            _ => g.iter().map(|&g| g * scale + T::ZERO).collect(),
        };
        self.gradients.with(|kept: Option<&[Vec<T>; 3]>| match kept {
            Some(gradients) => Ok(gradients.each_ref().map(|g| Some(scaled(g)))),
            None => candle_core::bail!("concat-squash: the backward pass came before the forward pass"),
        })
    }
}

fn with_operands<T: Real, R>(
    [x, weights, hyper]: [&[T]; 3],
    tangents: &Tensor,
    f: impl FnOnce(Operands<'_, T>) -> R,
) -> candle_core::Result<R> {
    read(tangents, |tangents| Ok(f(Operands { x, weights, hyper, tangents }))).map_err(candle_core::Error::wrap)
}
