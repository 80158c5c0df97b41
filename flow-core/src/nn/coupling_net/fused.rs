//! The network by its CPU kernel.

use candle_core::{DType, Storage, Tensor};

use super::CouplingNet;
use crate::kernels::coupling_net::{self as kernel, Folded, PARAMETERS, Packed, Shape};
use crate::kernels::{Fused, Real, contiguous, fuse, read, refuse_if_off};
use crate::nn::Evaluation;
use crate::{Error, Gradients, Result};

impl CouplingNet {
    /// The network of a batch that the kernel takes.
    pub(super) fn fused(&self, x: &Tensor) -> Result<Tensor> {
        if x.track_op() || self.params.iter().any(|p| p.tracked()) {
            return fuse(FusedNet { sizes: self.shape, batch: x.dim(0)? }, [x, &self.packed()?]);
        }
        match x.dtype() {
            DType::F32 => self.untracked::<f32>(x),
            _ => self.untracked::<f64>(x),
        }
    }

    fn untracked<T: Real>(&self, x: &Tensor) -> Result<Tensor> {
        let folded = self.folded::<T>()?;
        let out = read::<T, _>(x, |x| Ok(kernel::forward(&self.shape, &folded, x, false).0))?;
        self.output(out, x)
    }

    fn output<T: Real>(&self, values: Vec<T>, x: &Tensor) -> Result<Tensor> {
        let s = &self.shape;
        Ok(Tensor::from_vec(values, (x.dim(0)?, s.outputs, s.height, s.width), x.device())?)
    }

    /// All parameters one after the other: the second argument of the fused operation.
    fn packed(&self) -> Result<Tensor> {
        let flat: Vec<Tensor> =
            self.params.iter().map(|p| p.tensor().flatten_all()).collect::<candle_core::Result<_>>()?;
        Ok(Tensor::cat(&flat, 0)?)
    }

    /// The parameters as they are now, folded where they lie.
    fn folded<T: Real>(&self) -> Result<Folded<T>> {
        refuse_if_off("coupling-net")?;
        let lent: Vec<_> = self.params.iter().map(|p| p.var().storage_and_layout()).collect();
        let mut slices: [&[T]; PARAMETERS] = [&[]; PARAMETERS];
        for (slice, (storage, layout)) in slices.iter_mut().zip(&lent) {
            *slice = match &**storage {
                Storage::Cpu(cpu) => contiguous(cpu.as_slice::<T>()?, layout)?,
                _ => return Err(Error::config("coupling network", "has parameters on another device than its input")),
            };
        }
        Ok(Folded::new(&self.shape, Packed(slices)))
    }

    pub(super) fn fused_evaluation<'a, T: Real>(&'a self, x: &Tensor) -> Result<Evaluation<'a>> {
        let folded = self.folded::<T>()?;
        let x = x.detach().contiguous()?;
        let (out, hidden) = read::<T, _>(&x, |x| Ok(kernel::forward(&self.shape, &folded, x, true)))?;
        let value = self.output(out, &x)?;
        let pullback = move |cotangent: &Tensor, gradients: &mut Gradients| {
            let Some(hidden) = hidden else {
                return Err(Error::config("coupling network", "its activations were not kept"));
            };
            let (grad_x, grad) = read::<T, _>(&x, |x| {
                read::<T, _>(cotangent, |grad| Ok(kernel::backward(&self.shape, &folded, x, &hidden, grad)))
            })?;
            let grad = Tensor::from_vec(grad, self.shape.parameter_lengths().iter().sum::<usize>(), x.device())?;
            let mut start = 0;
            for p in &self.params {
                let len = p.var().elem_count();
                gradients.add(p, &grad.narrow(0, start, len)?.reshape(p.var().shape())?)?;
                start += len;
            }
            Ok((Tensor::from_vec(grad_x, x.shape(), x.device())?, None))
        };
        Ok(Evaluation { value, pullback: Box::new(pullback) })
    }
}

/// The fused network as a function of `x` and the packed parameters.
///
/// The backward pass recomputes the hidden activations: keeping them would make the memory of plain
/// back-propagation grow with depth times width for a quarter less arithmetic.
struct FusedNet {
    sizes: Shape,
    batch: usize,
}

impl FusedNet {
    fn folded<T: Real>(&self, packed: &[T]) -> Folded<T> {
        Folded::new(&self.sizes, Packed::new(&self.sizes, packed))
    }
}

impl Fused<2> for FusedNet {
    fn name(&self) -> &'static str {
        "coupling-net"
    }

    fn shape(&self) -> candle_core::Shape {
        (self.batch, self.sizes.outputs, self.sizes.height, self.sizes.width).into()
    }

    fn forward<T: Real>(&self, [x, packed]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
        Ok(kernel::forward(&self.sizes, &self.folded(packed), x, false).0)
    }

    fn backward<T: Real>(&self, [x, packed]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
        let folded = self.folded(packed);
        let (_, hidden) = kernel::forward(&self.sizes, &folded, x, true);
        let Some(hidden) = hidden else { candle_core::bail!("coupling-net: activations were not kept") };
        let (dx, dw) = kernel::backward(&self.sizes, &folded, x, &hidden, grad);
        Ok([Some(dx), Some(dw)])
    }
}
