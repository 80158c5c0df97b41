//! Fused functions as operations of Candle.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Shape, Storage, Tensor};

use super::{Real, contiguous, refuse_if_off};

/// A function of `N` tensors, computed over slices of f32 or f64, and its vector-Jacobian product.
///
/// [`fuse`] makes an operation of it that takes its place in Candle's graphs. `N` is one, two or three; more tensors are
/// packed into one, and what needs no gradient is a field of the function.
///
/// ```
/// use candle_core::{Device, Shape, Var};
/// use flow_core::kernels::{Fused, Real, fuse};
///
/// /// The square of each entry.
/// struct Square(Shape);
///
/// impl Fused<1> for Square {
///     fn name(&self) -> &'static str {
///         "square"
///     }
///     fn shape(&self) -> Shape {
///         self.0.clone()
///     }
///     fn forward<T: Real>(&self, [x]: [&[T]; 1]) -> candle_core::Result<Vec<T>> {
///         Ok(x.iter().map(|&x| x * x).collect())
///     }
///     fn backward<T: Real>(&self, [x]: [&[T]; 1], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 1]> {
///         Ok([Some(x.iter().zip(grad).map(|(&x, &g)| (x + x) * g).collect())])
///     }
/// }
///
/// # fn main() -> flow_core::Result<()> {
/// let x = Var::new(&[3.0_f32, -2.0], &Device::Cpu)?;
/// let y = fuse(Square(x.shape().clone()), [x.as_tensor()])?;
/// let gradients = y.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&x).map(|g| g.to_vec1::<f32>()).transpose()?, Some(vec![6.0, -4.0]));
/// # Ok(())
/// # }
/// ```
pub trait Fused<const N: usize>: Send + Sync + 'static {
    /// A short name for messages.
    fn name(&self) -> &'static str;

    /// The shape of the value.
    fn shape(&self) -> Shape;

    /// The value: as many numbers as the shape has, in row-major order. So are the operands.
    ///
    /// # Errors
    /// What keeps it from being computed.
    fn forward<T: Real>(&self, operands: [&[T]; N]) -> candle_core::Result<Vec<T>>;

    /// The gradient of every operand for the gradient `grad` of the value; `None` for an operand that gets none.
    ///
    /// # Errors
    /// What keeps it from being computed.
    fn backward<T: Real>(&self, operands: [&[T]; N], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; N]>;
}

/// The value of a fused function, in the graph if one of the operands is. For CPU tensors that are all f32 or all f64
/// ([`accepts`](super::accepts)).
///
/// # Errors
/// Operands on another device or of other or different types, and what the function returns.
pub fn fuse<F, const N: usize>(function: F, operands: [&Tensor; N]) -> crate::Result<Tensor>
where
    Op<F, N>: Apply<N>,
{
    Ok(Op { function, host: false }.apply(operands)?)
}

/// The gradients of a fused function's operands, which are contiguous, for the gradient of its value, outside any graph.
///
/// # Errors
/// As for [`fuse`].
pub(crate) fn gradients<F: Fused<N>, const N: usize>(
    function: F,
    operands: [&Tensor; N],
    grad: &Tensor,
) -> crate::Result<[Option<Tensor>; N]> {
    Ok(Op { function, host: false }.gradients(operands, grad)?)
}

/// [`fuse`] for a function that has no other form: operands of another device are brought to the CPU, the value is brought
/// back, and so are gradients.
///
/// # Errors
/// As for [`fuse`].
pub fn fuse_on_host<F, const N: usize>(function: F, operands: [&Tensor; N]) -> crate::Result<Tensor>
where
    Op<F, N>: Apply<N>,
{
    let mut here = operands.map(Clone::clone);
    for operand in &mut here {
        *operand = operand.to_device(&Device::Cpu)?;
    }
    let value = Op { function, host: true }.apply(here.each_ref())?;
    match operands.first() {
        Some(operand) => Ok(value.to_device(operand.device())?),
        None => Ok(value),
    }
}

/// A fused function as Candle sees it.
#[doc(hidden)]
pub struct Op<F, const N: usize> {
    function: F,
    /// Whether its operands were brought to the CPU for it, wherever they come from.
    host: bool,
}

/// Candle has one trait for each number of operands.
#[doc(hidden)]
pub trait Apply<const N: usize> {
    fn apply(self, operands: [&Tensor; N]) -> candle_core::Result<Tensor>;
}

impl<F: Fused<N>, const N: usize> Op<F, N> {
    fn refuse_if_off(&self) -> candle_core::Result<()> {
        if self.host { Ok(()) } else { refuse_if_off(self.function.name()) }
    }

    fn value(&self, operands: [(&CpuStorage, &Layout); N]) -> candle_core::Result<(CpuStorage, Shape)> {
        self.refuse_if_off()?;
        let storage = match operands.first() {
            Some((CpuStorage::F32(_), _)) => CpuStorage::F32(self.value_as(operands)?),
            Some((CpuStorage::F64(_), _)) => CpuStorage::F64(self.value_as(operands)?),
            _ => candle_core::bail!("{}: operands must be all f32 or all f64", self.function.name()),
        };
        Ok((storage, self.function.shape()))
    }

    fn value_as<T: Real>(&self, operands: [(&CpuStorage, &Layout); N]) -> candle_core::Result<Vec<T>> {
        let mut slices: [&[T]; N] = [&[]; N];
        for (slice, (storage, layout)) in slices.iter_mut().zip(operands) {
            *slice = contiguous(storage.as_slice()?, layout)?;
        }
        self.function.forward(slices)
    }

    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> candle_core::Result<[Option<Tensor>; N]> {
        self.refuse_if_off()?;
        match grad.dtype() {
            DType::F32 => self.gradients_as::<f32>(operands, grad),
            _ => self.gradients_as::<f64>(operands, grad),
        }
    }

    fn gradients_as<T: Real>(&self, operands: [&Tensor; N], grad: &Tensor) -> candle_core::Result<[Option<Tensor>; N]> {
        let grad = grad.contiguous()?;
        let lent = operands.map(Tensor::storage_and_layout);
        let mut slices: [&[T]; N] = [&[]; N];
        for (slice, (storage, layout)) in slices.iter_mut().zip(&lent) {
            *slice = self.elements(storage, layout)?;
        }
        let (storage, layout) = grad.storage_and_layout();
        let found = self.function.backward(slices, self.elements(&storage, layout)?)?;
        let mut gradients = [const { None }; N];
        for ((slot, values), operand) in gradients.iter_mut().zip(found).zip(operands) {
            *slot = values.map(|v| Tensor::from_vec(v, operand.shape(), operand.device())).transpose()?;
        }
        Ok(gradients)
    }

    fn elements<'a, T: Real>(&self, storage: &'a Storage, layout: &Layout) -> candle_core::Result<&'a [T]> {
        match storage {
            Storage::Cpu(cpu) => contiguous(cpu.as_slice()?, layout),
            _ => candle_core::bail!("{}: was given a tensor of another device", self.function.name()),
        }
    }
}

impl<F: Fused<1>> Apply<1> for Op<F, 1> {
    fn apply(self, [a]: [&Tensor; 1]) -> candle_core::Result<Tensor> {
        a.contiguous()?.apply_op1(self)
    }
}

impl<F: Fused<1>> CustomOp1 for Op<F, 1> {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.value([(a, la)])
    }

    fn bwd(&self, a: &Tensor, _value: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let [a] = self.gradients([a], grad)?;
        Ok(a)
    }
}

impl<F: Fused<2>> Apply<2> for Op<F, 2> {
    fn apply(self, [a, b]: [&Tensor; 2]) -> candle_core::Result<Tensor> {
        a.contiguous()?.apply_op2(&b.contiguous()?, self)
    }
}

impl<F: Fused<2>> CustomOp2 for Op<F, 2> {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.value([(a, la), (b, lb)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients([a, b], grad)?;
        Ok((a, b))
    }
}

impl<F: Fused<3>> Apply<3> for Op<F, 3> {
    fn apply(self, [a, b, c]: [&Tensor; 3]) -> candle_core::Result<Tensor> {
        a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, self)
    }
}

impl<F: Fused<3>> CustomOp3 for Op<F, 3> {
    fn name(&self) -> &'static str {
        self.function.name()
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.value([(a, la), (b, lb), (c, lc)])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients([a, b, c], grad)?;
        Ok((a, b, c))
    }
}

/// What a forward pass leaves to the backward pass of the same operation, of whatever type; clones share it.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Kept {
    /// Keeps `value` in the place of what was kept.
    pub fn put(&self, value: impl Any + Send) {
        *self.lock() = Some(Box::new(value));
    }

    /// Hands over what is kept; `None` if it is nothing or of another type, and forgotten then.
    pub fn take<V: Any>(&self) -> Option<V> {
        self.lock().take().and_then(|kept| kept.downcast().ok()).map(|kept| *kept)
    }

    /// Shows what is kept; `None` if it is nothing or of another type.
    pub fn with<V: Any, R>(&self, look: impl FnOnce(Option<&V>) -> R) -> R {
        look(self.lock().as_ref().and_then(|kept| kept.downcast_ref()))
    }

    /// Forgets what is kept.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        // The content is replaced as a whole, so a panic elsewhere cannot leave it half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// `x² y`, which keeps `x y` for its gradient and has none for `y`.
    struct Product(Shape, Kept);

    impl Fused<2> for Product {
        fn name(&self) -> &'static str {
            "product"
        }
        fn shape(&self) -> Shape {
            self.0.clone()
        }
        fn forward<T: Real>(&self, [x, y]: [&[T]; 2]) -> candle_core::Result<Vec<T>> {
            let once: Vec<T> = x.iter().zip(y).map(|(&x, &y)| x * y).collect();
            let value = once.iter().zip(x).map(|(&p, &x)| p * x).collect();
            self.1.put(once);
            Ok(value)
        }
        fn backward<T: Real>(&self, [_, _]: [&[T]; 2], grad: &[T]) -> candle_core::Result<[Option<Vec<T>>; 2]> {
            let found = self.1.with(|once: Option<&Vec<T>>| {
                once.map(|once| once.iter().zip(grad).map(|(&p, &g)| (p + p) * g).collect())
            });
            Ok([found, None])
        }
    }

    #[test]
    fn strided_operands_of_both_types_have_value_and_gradient() {
        for dtype in [DType::F32, DType::F64] {
            let x = Tensor::new(&[[1.0_f64, 2.0, 3.0], [-1.0, -2.0, 0.5]], &Device::Cpu).unwrap();
            let (x, y) = (Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap(), x.t().unwrap());
            let y = Var::from_tensor(&y.contiguous().unwrap().to_dtype(dtype).unwrap()).unwrap();
            let across = x.t().unwrap();
            let value = fuse(Product((3, 2).into(), Kept::default()), [&across, y.as_tensor()]).unwrap();
            let expected = (across.sqr().unwrap() * y.as_tensor()).unwrap();
            let gap = (&value - &expected).unwrap().abs().unwrap().sum_all().unwrap();
            assert_eq!(gap.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 0.0);
            let weight = Tensor::new(&[[1.0_f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
            let weight = weight.to_dtype(dtype).unwrap();
            let [got, want] =
                [&value, &expected].map(|v| (v * &weight).unwrap().sum_all().unwrap().backward().unwrap());
            let gap = (got.get(&x).unwrap() - want.get(&x).unwrap()).unwrap().abs().unwrap().sum_all().unwrap();
            assert_eq!(gap.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap(), 0.0);
            assert!(got.get(&y).is_none());
        }
    }

    #[test]
    fn mixed_and_other_types_are_refused() {
        let tensor = |dtype| Tensor::ones((3, 2), dtype, &Device::Cpu).unwrap();
        for types in [[DType::F32, DType::F64], [DType::F64, DType::F32], [DType::U8, DType::U8]] {
            let [x, y] = types.map(tensor);
            assert!(fuse(Product((3, 2).into(), Kept::default()), [&x, &y]).is_err(), "{types:?}");
        }
    }
}
