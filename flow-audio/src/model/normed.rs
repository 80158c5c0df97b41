//! Weight-normalised convolutions with PyTorch's initialisation.

use candle_core::Tensor;
use flow_core::nn::ConvGeometry;
use flow_core::param::Init;
use flow_core::{Error, Param, ParamPath, Result};

/// A kernel `w_o = g_o · v_o / ‖v_o‖` (Salimans & Kingma 2016) and a bias.
///
/// Unlike [`flow_core::nn::WeightNormConv2d`] it starts where PyTorch's layers do: `v` and the bias uniform in
/// `±1/√fan_in`, and `g_o = ‖v_o‖`.
#[derive(Debug, Clone)]
pub(crate) struct Normed {
    direction: Param,
    magnitude: Param,
    bias: Param,
}

impl Normed {
    /// Parameters `direction` of the shape `(O, …)`, `magnitude` `(O,)` and `bias` `(biases,)` under `path`.
    pub fn new(path: &ParamPath, shape: [usize; 4], biases: usize) -> Result<Self> {
        let fan_in: usize = shape[1..].iter().product();
        let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
        let direction = path.param("direction", shape.to_vec(), Init::Uniform(bound))?;
        let norms = norms(&direction.var().as_detached_tensor())?;
        Ok(Normed {
            magnitude: path.param_from("magnitude", &norms)?,
            bias: path.param("bias", biases, Init::Uniform(bound))?,
            direction,
        })
    }

    /// `g · v / ‖v‖`.
    pub fn weight(&self) -> Result<Tensor> {
        let v = self.direction.tensor();
        let scale = (self.magnitude.tensor() / norms(&v)?)?;
        Ok(v.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?)
    }

    pub fn bias(&self) -> Tensor {
        self.bias.tensor()
    }

    /// Whether passes over it build a graph.
    pub fn tracked(&self) -> bool {
        self.direction.tracked()
    }

    /// Takes a kernel and a bias that were multiplied out: the kernel becomes the direction, its norms the magnitudes.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the parameter.
    pub fn set(&self, weight: &Tensor, bias: &Tensor) -> Result<()> {
        self.direction.set(weight)?;
        self.magnitude.set(&norms(&self.direction.var().as_detached_tensor())?)?;
        self.bias.set(bias)
    }

    /// The shapes of what [`Normed::set`] takes.
    pub fn shapes(&self) -> [Vec<usize>; 2] {
        [self.direction.var().dims().to_vec(), self.bias.var().dims().to_vec()]
    }

    pub fn dtype(&self) -> candle_core::DType {
        self.direction.dtype()
    }
}

/// `‖v_o‖`, `(O,)`; a tiny constant keeps the gradient finite should a kernel ever be exactly zero.
fn norms(v: &Tensor) -> Result<Tensor> {
    Ok((v.sqr()?.flatten_from(1)?.sum(1)? + 1e-30)?.sqrt()?)
}

/// A convolution of one row and one column.
pub(crate) fn pointwise(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    flow_core::nn::conv2d(x, weight, Some(bias), &ConvGeometry::same(1))
}

/// The error of a tensor that is not what a layer takes.
pub(crate) fn misshapen(layer: &str, expected: impl Into<String>, actual: &Tensor) -> Error {
    Error::Shape { layer: layer.into(), expected: expected.into(), actual: actual.dims().to_vec() }
}
