//! The kernels as operations of Candle, and without a graph where there is none.

use std::ops::Deref;

use candle_core::{Layout, Storage, Tensor};
use flow_core::kernels::{Fused, Real, refuse_if_off, transpose};
use flow_core::{Error, Param, Result};

use super::kernel::{self, Pool, Shape, Weights};

/// One residual block as a function of its input, `(B, input steps, H, W, C)`, and of the parameters of all branches one
/// after the other.
///
/// The graph keeps the input; the backward pass computes hidden layers again, strip by strip.
pub(super) struct BlockOp {
    pub shape: Shape,
    pub batch: usize,
}

impl Fused<2> for BlockOp {
    fn name(&self) -> &'static str {
        "latent-block"
    }

    fn shape(&self) -> candle_core::Shape {
        let s = &self.shape;
        (self.batch, s.outputs, s.height, s.width, s.channels).into()
    }

    fn forward<T: Real>(&self, [x, packed]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        Ok(kernel::forward(&self.shape, &Weights::split(&self.shape, packed), x, &Pool::new()))
    }

    fn backward<T: Real>(&self, [x, packed]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let weights = Weights::split(&self.shape, packed);
        let (dx, dw) = kernel::backward(&self.shape, &weights, x, grad, &Pool::new());
        Ok([Some(dx), Some(dw)])
    }
}

/// `(B, T, C, H, W)` to `(B, T, H, W, C)`, or back.
pub(super) struct Relayout {
    /// The shape of the value.
    pub to: [usize; 5],
    /// Columns of each matrix that is transposed: `H·W` on the way there, `C` on the way back.
    pub columns: usize,
}

impl Fused<1> for Relayout {
    fn name(&self) -> &'static str {
        "latent-relayout"
    }

    fn shape(&self) -> candle_core::Shape {
        self.to.to_vec().into()
    }

    fn forward<T: Real>(&self, [x]: [&[T]; 1]) -> candle_core::Result<Vec<T>> {
        Ok(relayout(x, self.to[2..].iter().product(), self.columns))
    }

    fn backward<T: Real>(&self, [_]: [&[T]; 1], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 1]> {
        let frame: usize = self.to[2..].iter().product();
        Ok([Some(relayout(grad, frame, frame / self.columns))])
    }
}

/// Transposes every frame, a matrix with this many columns.
fn relayout<T: Real>(x: &[T], frame: usize, columns: usize) -> Vec<T> {
    x.chunks_exact(frame).flat_map(|frame| transpose(frame, columns)).collect()
}

/// The blocks of a network one after the other, without a graph: `x` is `(B, T, C, H, W)`, the value `(B, C, H, W)`.
///
/// Parameters are read where they lie.
pub(super) fn evaluate<'p, T: Real>(
    blocks: impl Iterator<Item = (&'p Shape, Vec<&'p Param>)>,
    x: &Tensor,
) -> Result<Tensor> {
    refuse_if_off("latent network")?;
    let (batch, steps, c, h, w) = x.dims5()?;
    let x = x.contiguous()?;
    let lent = lend(&x);
    let (values, pool) = (lent.values::<T>()?, Pool::new());
    let mut frames: Option<Vec<T>> = None;
    for (shape, params) in blocks {
        let input = frames.take().unwrap_or_else(|| {
            let wanted = values.chunks_exact(steps * shape.frame());
            let skipped = (steps - shape.input_steps()) * shape.frame();
            wanted.flat_map(|sample| relayout(&sample[skipped..], shape.frame(), shape.pixels())).collect()
        });
        let lent: Vec<_> = params.iter().map(|param| lend(param.var())).collect();
        let slices = lent.iter().map(Lent::values).collect::<Result<Vec<&[T]>>>()?;
        let weights: Vec<Weights<'_, T>> = slices.as_chunks().0.iter().map(|&parts| Weights::from(parts)).collect();
        frames = Some(kernel::forward(shape, &weights, &input, &pool));
    }
    let out = frames.map(|frames| relayout(&frames, c * h * w, c)).unwrap_or_default();
    Ok(Tensor::from_vec(out, (batch, c, h, w), x.device())?)
}

/// The elements of a CPU tensor while they are read.
struct Lent<'a, S> {
    storage: S,
    layout: &'a Layout,
}

/// Lends a tensor's elements.
fn lend(tensor: &Tensor) -> Lent<'_, impl Deref<Target = Storage>> {
    let (storage, layout) = tensor.storage_and_layout();
    Lent { storage, layout }
}

impl<S: Deref<Target = Storage>> Lent<'_, S> {
    fn values<T: Real>(&self) -> Result<&[T]> {
        match (&*self.storage, self.layout.contiguous_offsets()) {
            (Storage::Cpu(cpu), Some((start, end))) => Ok(&cpu.as_slice::<T>()?[start..end]),
            _ => Err(Error::config("latent network", "its kernels take contiguous tensors of the CPU")),
        }
    }
}
