//! A small smooth conditioner, so that finite differences meet no kinks, and couplings with it.

use candle_core::Tensor;

use crate::bijector::check_dtype;
use crate::layers::{Coupling, Partition};
use crate::nn::{Conditioner, matmul};
use crate::transformer::Transformer;
use crate::{Bijector, Error, Init, Param, ParamPath, Result};

/// `W₂ tanh(W₁ x + W_c c + b₁) + b₂` over the flattened event: every output sees every input.
///
/// The last layer starts at zero, as in a real conditioner.
///
/// # Shapes
/// - input `(B, inputs…)`, context `(B, …)` of `context` elements, output `(B, outputs…)`.
#[derive(Debug, Clone)]
pub struct SmoothNet {
    outputs: Vec<usize>,
    hidden: Param,
    bias: Param,
    context: Option<Param>,
    out: Param,
    out_bias: Param,
}

/// Width of the hidden layer.
const WIDTH: usize = 8;

impl SmoothNet {
    /// Parameters `hidden`, `bias`, `out`, `out_bias` and, for `context > 0`, `context` under `path`.
    pub fn new(path: &ParamPath, inputs: &[usize], outputs: &[usize], context: usize) -> Result<Self> {
        let (n, m) = (inputs.iter().product::<usize>(), outputs.iter().product::<usize>());
        Ok(SmoothNet {
            outputs: outputs.to_vec(),
            hidden: path.param("hidden", (WIDTH, n), Init::Normal(0.5))?,
            bias: path.param("bias", WIDTH, Init::Normal(0.5))?,
            context: match context {
                0 => None,
                k => Some(path.param("context", (WIDTH, k), Init::Normal(0.5))?),
            },
            out: path.param("out", (m, WIDTH), Init::Const(0.0))?,
            out_bias: path.param("out_bias", m, Init::Const(0.0))?,
        })
    }
}

impl Conditioner for SmoothNet {
    fn forward(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        check_dtype("smooth net", x, self.hidden.dtype())?;
        let rows = x.flatten_from(1)?.contiguous()?;
        let mut h = matmul(&rows, &self.hidden.tensor().t()?)?.broadcast_add(&self.bias.tensor())?;
        if let (Some(weight), Some(context)) = (&self.context, context) {
            h = (h + matmul(&context.flatten_from(1)?, &weight.tensor().t()?)?)?;
        }
        let y = matmul(&h.tanh()?, &self.out.tensor().t()?)?.broadcast_add(&self.out_bias.tensor())?;
        let dims: Vec<usize> = std::iter::once(x.dim(0)?).chain(self.outputs.iter().copied()).collect();
        Ok(y.reshape(dims)?)
    }
}

/// A [`Coupling`] over events of `shape` whose conditioner is a [`SmoothNet`], parameters under `path`.
///
/// `context` is the number of entries of its context, zero for none.
///
/// # Errors
/// [`Error::Config`] for an event without channels, or when a name is taken.
pub fn smooth_coupling<T: Transformer + 'static>(
    path: &ParamPath,
    shape: &[usize],
    partition: Partition,
    transformer: T,
    context: usize,
) -> Result<Box<dyn Bijector>> {
    type Layer<T> = Coupling<T, SmoothNet>;
    let Some((&channels, space)) = shape.split_first() else {
        return Err(Error::config("smooth coupling", "needs an event with at least one dimension"));
    };
    let with_space = |c: usize| std::iter::once(c).chain(space.iter().copied()).collect::<Vec<_>>();
    let inputs = with_space(Layer::<T>::input_channels(channels, &partition));
    let outputs = with_space(Layer::<T>::output_channels(channels, &partition, &transformer));
    let net = SmoothNet::new(&path.pp("net"), &inputs, &outputs, context)?;
    let layer = Coupling::new(shape, partition, transformer, net)?;
    Ok(if context > 0 { Box::new(layer.with_context(&[context])) } else { Box::new(layer) })
}
