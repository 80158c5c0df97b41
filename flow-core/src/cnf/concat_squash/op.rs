//! The kernel as operations of `x`, packed weights, and gates and shifts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Tensor};

use crate::kernels::concat_squash::{self as kernel, Gradient, Objective, Operands, Shape};
use crate::kernels::{Real, contiguous};
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
        let [x, weights, hyper] = &self.arguments;
        Ok(x.apply_op3(weights, hyper, Outputs { shape: self.shape, tangents: self.tangents })?)
    }

    /// The inner product of the outputs with `cotangents`, `(1 + K, B, D)`, and the value.
    pub(super) fn pairing(self, cotangents: &Tensor) -> Result<(Tensor, Tensor)> {
        let (objective, saved) = self.objective(Of::Pairing, cotangents)?;
        let value = lock(&saved).as_ref().map(|s| s.output.clone());
        let value = value.ok_or_else(|| Error::config(super::NAME, "the kernel left no value"))?;
        Ok((objective, value))
    }

    /// `Σ |f − target|²`.
    pub(super) fn squared_error(self, target: &Tensor) -> Result<Tensor> {
        Ok(self.objective(Of::SquaredError, target)?.0)
    }

    fn objective(self, of: Of, against: &Tensor) -> Result<(Tensor, Arc<Mutex<Option<Saved>>>)> {
        let saved = Arc::new(Mutex::new(None));
        let op = OneSweep {
            shape: self.shape,
            tangents: self.tangents,
            of,
            against: against.detach().contiguous()?,
            saved: saved.clone(),
        };
        let [x, weights, hyper] = &self.arguments;
        Ok((x.apply_op3(weights, hyper, op)?, saved))
    }
}

/// Value and tangents; the backward pass goes through every block again.
struct Outputs {
    shape: Shape,
    tangents: Tensor,
}

impl Outputs {
    fn run<T: Real>(&self, operands: [(&CpuStorage, &Layout); 3]) -> candle_core::Result<Vec<T>> {
        with_operands(operands, &self.tangents, |o| kernel::forward(&self.shape, &o))
    }

    fn gradients<T: Real>(&self, arguments: [&Tensor; 3], grad: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<T>();
        let [x, weights, hyper] = arguments;
        let (fx, fw, fh, tangents) = (flat(x)?, flat(weights)?, flat(hyper)?, flat(&self.tangents)?);
        let operands = Operands { x: &fx, weights: &fw, hyper: &fh, tangents: &tangents };
        let g = kernel::gradient(&self.shape, &operands, Objective::Pairing(&flat(grad)?));
        Ok(Saved::new(g, &self.shape)?.gradients)
    }
}

impl CustomOp3 for Outputs {
    fn name(&self) -> &'static str {
        "concat-squash"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        weights: &CpuStorage,
        lw: &Layout,
        hyper: &CpuStorage,
        lh: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let operands = [(x, lx), (weights, lw), (hyper, lh)];
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run::<f32>(operands)?),
            _ => CpuStorage::F64(self.run::<f64>(operands)?),
        };
        Ok((storage, (self.shape.tangents + 1, self.shape.rows, self.shape.widths[0]).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weights: &Tensor,
        hyper: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let arguments = [x, weights, hyper];
        let [x, weights, hyper] = match x.dtype() {
            DType::F32 => self.gradients::<f32>(arguments, grad)?,
            _ => self.gradients::<f64>(arguments, grad)?,
        };
        Ok((Some(x), Some(weights), Some(hyper)))
    }
}

#[derive(Clone, Copy)]
enum Of {
    Pairing,
    SquaredError,
}

/// A scalar of the outputs whose gradient is computed with it: the backward pass only scales what is saved.
struct OneSweep {
    shape: Shape,
    tangents: Tensor,
    of: Of,
    /// Cotangents or target.
    against: Tensor,
    saved: Arc<Mutex<Option<Saved>>>,
}

/// What a sweep found.
struct Saved {
    /// Of `x`, weights, and gates and shifts.
    gradients: [Tensor; 3],
    /// `(B, D)`.
    output: Tensor,
}

impl Saved {
    fn new<T: Real>(g: Gradient<T>, shape: &Shape) -> candle_core::Result<Self> {
        let tensor = |v: Vec<T>, dims: candle_core::Shape| Tensor::from_vec(v, dims, &candle_core::Device::Cpu);
        let rows = (shape.rows, shape.widths[0]);
        Ok(Saved {
            gradients: [
                tensor(g.x, rows.into())?,
                tensor(g.weights, shape.weights().into())?,
                tensor(g.hyper, (shape.groups, shape.hyper()).into())?,
            ],
            output: tensor(g.output, rows.into())?,
        })
    }
}

fn lock(saved: &Mutex<Option<Saved>>) -> MutexGuard<'_, Option<Saved>> {
    // The content is replaced as a whole, so a panic elsewhere cannot leave it half-written.
    saved.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OneSweep {
    fn run<T: Real>(&self, operands: [(&CpuStorage, &Layout); 3]) -> candle_core::Result<Vec<T>> {
        let against = self.against.flatten_all()?.to_vec1::<T>()?;
        let objective = match self.of {
            Of::Pairing => Objective::Pairing(&against[..]),
            Of::SquaredError => Objective::SquaredError(&against[..]),
        };
        let found = with_operands(operands, &self.tangents, |o| kernel::gradient(&self.shape, &o, objective))?;
        let value = T::from_f64(found.objective);
        *lock(&self.saved) = Some(Saved::new(found, &self.shape)?);
        Ok(vec![value])
    }
}

impl CustomOp3 for OneSweep {
    fn name(&self) -> &'static str {
        "concat-squash objective"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        weights: &CpuStorage,
        lw: &Layout,
        hyper: &CpuStorage,
        lh: &Layout,
    ) -> candle_core::Result<(CpuStorage, candle_core::Shape)> {
        let operands = [(x, lx), (weights, lw), (hyper, lh)];
        let storage = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run::<f32>(operands)?),
            _ => CpuStorage::F64(self.run::<f64>(operands)?),
        };
        Ok((storage, ().into()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _weights: &Tensor,
        _hyper: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let scale = grad.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let saved = lock(&self.saved);
        let Some(Saved { gradients, .. }) = saved.as_ref() else {
            candle_core::bail!("{}: the backward pass came before the forward pass", self.name())
        };
        let scaled = |g: &Tensor| if scale == 1.0 { Ok(g.clone()) } else { g.affine(scale, 0.0) };
        let [x, weights, hyper] = gradients;
        Ok((Some(scaled(x)?), Some(scaled(weights)?), Some(scaled(hyper)?)))
    }
}

fn with_operands<T: Real, R>(
    operands: [(&CpuStorage, &Layout); 3],
    tangents: &Tensor,
    f: impl FnOnce(Operands<'_, T>) -> R,
) -> candle_core::Result<R> {
    let [x, weights, hyper] = operands.map(|(s, l)| contiguous(s.as_slice::<T>()?, l));
    let tangents = tangents.flatten_all()?.to_vec1::<T>()?;
    Ok(f(Operands { x: x?, weights: weights?, hyper: hyper?, tangents: &tangents }))
}
