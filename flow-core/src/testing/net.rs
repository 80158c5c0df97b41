//! A small smooth conditioner, so that finite differences meet no kinks.

use candle_core::Tensor;

use crate::nn::Conditioner;
use crate::{Init, Param, ParamPath, Result};

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
        let rows = x.flatten_from(1)?.contiguous()?;
        let mut h = rows.matmul(&self.hidden.tensor().t()?)?.broadcast_add(&self.bias.tensor())?;
        if let (Some(weight), Some(context)) = (&self.context, context) {
            h = (h + context.flatten_from(1)?.contiguous()?.matmul(&weight.tensor().t()?)?)?;
        }
        let y = h.tanh()?.matmul(&self.out.tensor().t()?)?.broadcast_add(&self.out_bias.tensor())?;
        let dims: Vec<usize> = std::iter::once(x.dim(0)?).chain(self.outputs.iter().copied()).collect();
        Ok(y.reshape(dims)?)
    }
}
