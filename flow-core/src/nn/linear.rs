//! The affine layer of a multi-layer perceptron, with an optional 0/1 mask on its weight.

use candle_core::{DType, Tensor};

use super::Activation;
use crate::bijector::check_dtype;
use crate::kernels::sparse::Lists;
use crate::kernels::{Real, accepts, read};
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Gradients, Result};

/// `y = x W + b`, or `y = x (M ∘ W) + b` with a fixed mask `M`, which is applied anew in every pass.
///
/// # Shapes
/// - `x`: `(B, …, I)` with any strides; `W`, `M`: `(I, O)`; `b`: `(O,)`; `y`: `(B, …, O)`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Param,
    bias: Option<Param>,
    mask: Option<Tensor>,
}

impl Linear {
    /// Parameters `weight` and, if wanted, `bias` (zero) under `path`.
    pub fn new(path: &ParamPath, inputs: usize, outputs: usize, init: Init, with_bias: bool) -> Result<Self> {
        Ok(Linear {
            weight: path.param("weight", (inputs, outputs), init)?,
            bias: if with_bias { Some(path.param("bias", outputs, Init::Const(0.0))?) } else { None },
            mask: None,
        })
    }

    /// A layer whose parameters start uniform in `±1/√I`, bias too.
    ///
    /// # Errors
    /// Those of [`Linear::new`].
    pub fn uniform(path: &ParamPath, inputs: usize, outputs: usize) -> Result<Self> {
        let bound = Init::Uniform(1.0 / (inputs.max(1) as f64).sqrt());
        let layer = Linear::new(path, inputs, outputs, bound, false)?;
        Ok(Linear { bias: Some(path.param("bias", outputs, bound)?), ..layer })
    }

    /// A layer with a bias whose weight is multiplied by `mask`, `(I, O)`, which is not a parameter.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the mask is a matrix.
    pub fn masked(path: &ParamPath, mask: &Tensor, init: Init) -> Result<Self> {
        let &[inputs, outputs] = mask.dims() else {
            return Err(Error::Shape {
                layer: "linear mask".into(),
                expected: "(inputs, outputs)".into(),
                actual: mask.dims().to_vec(),
            });
        };
        let mask = mask.to_dtype(path.store().dtype())?.to_device(path.store().device())?;
        Ok(Linear { mask: Some(mask.detach()), ..Linear::new(path, inputs, outputs, init, true)? })
    }

    /// The element type of the parameters.
    pub(super) fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// `W`, or `M ∘ W`: what multiplies the input, `(I, O)`.
    pub(super) fn weight(&self) -> Result<Tensor> {
        Ok(match &self.mask {
            Some(mask) => (self.weight.tensor() * mask)?,
            None => self.weight.tensor(),
        })
    }

    /// `b`, `(O,)`, if there is one.
    pub(super) fn bias(&self) -> Option<Tensor> {
        self.bias.as_ref().map(Param::tensor)
    }

    /// The layer applied to the last dimension of `x`.
    ///
    /// # Errors
    /// [`Error::Shape`] when that dimension is not `I`, [`Error::DType`] for another type than the parameters'.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.activated(x, None)
    }

    /// [`Linear::forward`], followed by a nonlinearity.
    pub(super) fn activated(&self, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let (inputs, outputs) = self.weight.var().dims2()?;
        let mut dims = x.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => {
                return Err(Error::Shape {
                    layer: format!("linear '{}'", self.weight.name()),
                    expected: format!("(B, …, {inputs})"),
                    actual: x.dims().to_vec(),
                });
            }
        }
        check_dtype("linear", x, self.dtype())?;
        // One product over contiguous rows: with a transposed batch Candle's own fold is wrong.
        let rows = dims[..dims.len() - 1].iter().product::<usize>();
        let y =
            super::dense(&x.contiguous()?.reshape((rows, inputs))?, &self.weight()?, self.bias().as_ref(), activation)?;
        Ok(y.reshape(dims)?)
    }

    /// `b`, zeros if there is none.
    pub(super) fn bias_or_zero(&self) -> Result<Tensor> {
        match self.bias() {
            Some(bias) => Ok(bias),
            None => Ok(self.weight.var().as_detached_tensor().get(0)?.zeros_like()?),
        }
    }

    /// `x W` outside any graph, where most of `x` is zero, as in binary data, so that only the rest is multiplied.
    fn sparse(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let weight = self.weight()?.detach();
        match x.dtype() {
            DType::F64 => sparse_product::<f64>(x, &weight, false),
            _ => sparse_product::<f32>(x, &weight, false),
        }
    }

    /// `x W` outside any graph.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        match self.sparse(x)? {
            Some(product) => Ok(product),
            None => super::matmul(x, &self.weight()?.detach()),
        }
    }

    /// The layer applied to `x`, `(B, I)`, outside any graph. On the CPU.
    ///
    /// # Errors
    /// Operands that do not fit.
    pub fn evaluate(&self, x: &Tensor) -> Result<Tensor> {
        check_dtype("linear", x, self.dtype())?;
        let (x, bias) = (x.detach(), self.bias().map(|bias| bias.detach()));
        match (self.sparse(&x)?, bias) {
            (Some(product), Some(bias)) => Ok(product.broadcast_add(&bias)?),
            (Some(product), None) => Ok(product),
            (None, bias) => super::dense(&x, &self.weight()?.detach(), bias.as_ref(), None),
        }
    }

    /// Adds the gradients of the parameters to `gradients`, for the input `x`, `(B, I)`, and the gradient `grad`, `(B, O)`,
    /// of the output: `xᵀ·grad`, and the sum of `grad` over rows. On the CPU.
    ///
    /// # Errors
    /// Operands that do not fit, and those of [`Gradients::add`].
    pub fn pull_back(&self, x: &Tensor, grad: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let (x, grad) = (x.detach(), grad.detach());
        let sparse = match x.dtype() {
            DType::F64 => sparse_product::<f64>(&x, &grad, true)?,
            _ => sparse_product::<f32>(&x, &grad, true)?,
        };
        let of_weight = match sparse {
            Some(product) => product,
            None => super::matmul(&x.t()?, &grad)?,
        };
        let of_weight = match &self.mask {
            Some(mask) => (of_weight * mask)?,
            None => of_weight,
        };
        gradients.add(&self.weight, &of_weight)?;
        if let Some(bias) = &self.bias {
            let ones = Tensor::ones((1, grad.dim(0)?), grad.dtype(), grad.device())?;
            gradients.add(bias, &super::matmul(&ones, &grad)?.squeeze(0)?)?;
        }
        Ok(())
    }

    /// The gradient of the input for the gradient `grad`, `(B, O)`, of the output: `grad·Wᵀ`.
    ///
    /// # Errors
    /// Operands that do not fit.
    pub fn pull_back_input(&self, grad: &Tensor) -> Result<Tensor> {
        Ok(super::matmul(&grad.detach(), &self.weight()?.detach().t()?)?.detach())
    }
}

/// `x m`, or `xᵀ m` if `transposed`, where `x` is sparse enough and both are on the CPU.
fn sparse_product<T: Real>(x: &Tensor, m: &Tensor, transposed: bool) -> Result<Option<Tensor>> {
    if !(accepts(x) && accepts(m)) {
        return Ok(None);
    }
    let ((rows, columns), (inner, n)) = (x.dims2()?, m.dims2()?);
    if inner != if transposed { rows } else { columns } {
        let (expected, actual) = (format!("a matrix that fits {:?}", x.dims()), m.dims().to_vec());
        return Err(Error::Shape { layer: "linear".into(), expected, actual });
    }
    let product = read::<T, _>(x, |entries| {
        let Some(lists) = Lists::of_rows(entries, columns) else { return Ok(None) };
        let lists = if transposed { lists.transposed(columns) } else { lists };
        read::<T, _>(m, |m| Ok(Some(lists.product(m, n))))
    })?;
    let shape = (if transposed { columns } else { rows }, n);
    Ok(product.map(|product| Tensor::from_vec(product, shape, x.device())).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers::{distance, normal, store64, values};

    #[test]
    fn strided_input_and_leading_dimensions() {
        let store = store64(1);
        let layer = Linear::new(&store.root(), 3, 2, Init::Normal(1.0), true).unwrap();
        store.get("bias").unwrap().set(&normal(4, &[2])).unwrap();
        let x = normal(2, &[4, 3, 5]).transpose(1, 2).unwrap();
        let y = layer.forward(&x).unwrap();
        assert_eq!(y.dims(), [4, 5, 2]);
        let weight = store.get("weight").unwrap().tensor().to_vec2::<f64>().unwrap();
        let bias = values(store.get("bias").unwrap().var());
        let (x, y) = (x.to_vec3::<f64>().unwrap(), y.to_vec3::<f64>().unwrap());
        for (b, i, o) in (0..4).flat_map(|b| (0..5).flat_map(move |i| (0..2).map(move |o| (b, i, o)))) {
            let expected = (0..3).map(|j| x[b][i][j] * weight[j][o]).sum::<f64>() + bias[o];
            assert!((y[b][i][o] - expected).abs() < 1e-13);
        }
    }

    #[test]
    fn a_mask_cuts_value_and_gradient() {
        let store = store64(1);
        let mask = Tensor::new(&[[1.0, 1.0], [0.0, 1.0f64]], &candle_core::Device::Cpu).unwrap();
        let layer = Linear::masked(&store.root(), &mask, Init::Normal(1.0)).unwrap();
        let x = normal(2, &[3, 2]);
        let gradients = layer.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        let weight = store.get("weight").unwrap();
        assert_eq!(gradients.get(weight.var()).unwrap().to_vec2::<f64>().unwrap()[1][0], 0.0);
        let expected = x.matmul(&(weight.tensor() * mask).unwrap()).unwrap();
        assert!(distance(&layer.forward(&x).unwrap(), &expected) < 1e-14);
    }

    #[test]
    fn a_wrong_width_is_refused_by_name() {
        let layer = Linear::new(&store64(1).root().pp("head"), 3, 2, Init::Const(0.0), true).unwrap();
        let message = layer.forward(&normal(1, &[3, 4])).unwrap_err().to_string();
        assert!(message.contains("head.weight") && message.contains("[3, 4]"), "{message}");
    }
}
