//! The coupling network of the Glow authors' code: 3×3 → 1×1 → 3×3 convolutions, rectified or gated.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::statistics::whitening;
use super::zero_conv::{edge_conv, norm};
use super::{Conditioner, Evaluation, is_half, round};
use crate::kernels::accepts;
use crate::kernels::coupling_net::Shape;
use crate::param::{Init, Param, ParamPath};
use crate::{Error, Result};

mod fused;
#[cfg(test)]
mod tests;

/// What follows the 1×1 convolution of a [`CouplingNet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HiddenActivation {
    /// `relu(an(conv₁(h)))`: Glow (Kingma & Dhariwal 2018).
    #[default]
    Relu,
    /// `tanh(an(conv₁(h))) · sigmoid(an′(conv₁′(h)))`, two convolutions each with its own normalization: VideoFlow (Kumar
    /// et al. 2019; `gatu` in tensor2tensor).
    Gated,
}

/// `h₁ = relu(an(conv₃(x)))`, `h₂ = a(h₁)`, `out = (conv₃(h₂) + b) · exp(3 l)`, where `a` is a [`HiddenActivation`] of 1×1
/// convolutions: `relu(an(conv₁(h₁)))` if it is the usual one.
///
/// As in the authors' code and unlike most ports: activation normalization `(· + b)·exp(3 l)` with
/// data-dependent initialisation follows every hidden convolution, every 3×3 convolution sees one more
/// channel that is one on the zero padding and zero inside (the edge indicator), and the last
/// convolution starts at zero, so that the coupling starts as the identity up to a constant
/// (Kingma & Dhariwal 2018, sections 3.3 and B).
///
/// On the CPU one fused kernel computes the whole network; [`CouplingNet::composed`] is its
/// specification and the path of other devices.
///
/// # Shapes
/// - `x`: `(B, C, H, W)`; output `(B, O, H, W)`.
#[derive(Debug)]
pub struct CouplingNet {
    shape: Shape,
    /// In the order of [`Shape::parameter_lengths`]: nine, and three more if the network is gated.
    params: Vec<Param>,
}

/// Standard deviation of the hidden weights at the start.
const WEIGHT_STD: f64 = 0.05;

/// A convolution's weight with the bias and the log-scale that follow it.
type Layer<'a> = [&'a Param; 3];

impl CouplingNet {
    /// A rectified network from `inputs` to `outputs` channels with two hidden layers of `hidden` channels, over
    /// samples of `height × width`.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is zero.
    pub fn new(path: &ParamPath, inputs: usize, hidden: usize, outputs: usize, size: [usize; 2]) -> Result<Self> {
        Self::with_activation(path, inputs, hidden, outputs, size, HiddenActivation::Relu)
    }

    /// The same with a choice of what follows the 1×1 convolution.
    ///
    /// The parameters are `w1`, `b1`, `l1` (3×3), `w2`, `b2`, `l2` (1×1) and `w3`, `b3`, `l3` (3×3): weight, bias and
    /// log-scale. A gated network has `w2_gate`, `b2_gate` and `l2_gate` besides, for the sigmoid.
    ///
    /// # Errors
    /// [`Error::Config`] when a size is zero.
    pub fn with_activation(
        path: &ParamPath,
        inputs: usize,
        hidden: usize,
        outputs: usize,
        [height, width]: [usize; 2],
        activation: HiddenActivation,
    ) -> Result<Self> {
        let gated = activation == HiddenActivation::Gated;
        let shape = Shape { inputs, hidden, outputs, height, width, gated };
        if [inputs, hidden, outputs, height, width].contains(&0) {
            return Err(Error::config("coupling network", format!("no size may be zero: {shape:?}")));
        }
        let zero = Init::Const(0.0);
        let mut params = vec![
            path.param("w1", (hidden, inputs + 1, 3, 3), Init::Normal(WEIGHT_STD))?,
            path.param("b1", hidden, zero)?,
            path.param("l1", hidden, zero)?,
            path.param("w2", (hidden, hidden), Init::Normal(WEIGHT_STD))?,
            path.param("b2", hidden, zero)?,
            path.param("l2", hidden, zero)?,
            path.param("w3", (outputs, hidden + 1, 3, 3), zero)?,
            path.param("b3", outputs, zero)?,
            path.param("l3", outputs, zero)?,
        ];
        if gated {
            params.push(path.param("w2_gate", (hidden, hidden), Init::Normal(WEIGHT_STD))?);
            params.push(path.param("b2_gate", hidden, zero)?);
            params.push(path.param("l2_gate", hidden, zero)?);
        }
        Ok(CouplingNet { shape, params })
    }

    /// What follows the 1×1 convolution.
    pub fn activation(&self) -> HiddenActivation {
        if self.shape.gated { HiddenActivation::Gated } else { HiddenActivation::Relu }
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        let s = &self.shape;
        crate::bijector::check_batch_as("coupling network", x, &[s.inputs, s.height, s.width], self.params[0].dtype())
            .map(drop)
    }

    /// The three convolutions, and the gate's if there is one.
    fn layers(&self) -> ([Layer<'_>; 3], Option<Layer<'_>>) {
        let layer = |i: usize| [&self.params[i], &self.params[i + 1], &self.params[i + 2]];
        ([layer(0), layer(3), layer(6)], self.shape.gated.then(|| layer(9)))
    }

    /// The same network in Candle's operations.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::DType`] for an input that does not fit.
    pub fn composed(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x)?;
        let ([first, second, third], gate) = self.layers();
        let h = normed(&edge_conv(x, &first[0].tensor())?, first)?.relu()?;
        let above = |layer: Layer<'_>| normed(&pointwise(&h, &layer[0].tensor())?, layer);
        let h = match gate {
            None => above(second)?.relu()?,
            Some(gate) => (above(second)?.tanh()? * sigmoid(&above(gate)?)?)?,
        };
        normed(&edge_conv(&h, &third[0].tensor())?, third)
    }
}

/// `½ + ½ tanh(x/2)`, which neither overflows nor loses its gradient to an infinite exponential.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)?)
}

/// A 1×1 convolution as a matrix product.
fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let (x, weight) = (x.reshape((b, c, h * w))?, weight.unsqueeze(0)?);
    let y = match is_half(&x) {
        true => round(&weight)?.broadcast_matmul(&round(&x)?)?.to_dtype(x.dtype())?,
        false => weight.broadcast_matmul(&x)?,
    };
    Ok(y.reshape((b, (), h, w))?)
}

/// What a layer makes of its convolution.
fn normed(pre: &Tensor, [_, bias, log_scale]: Layer<'_>) -> Result<Tensor> {
    norm(pre, &bias.tensor(), &log_scale.tensor())
}

/// Sets bias and log-scale so that `(pre + b)·exp(3 l)` has mean 0 and deviation 1 per channel.
fn set_norm(pre: &Tensor, layer: Layer<'_>) -> Result<Tensor> {
    let (b, l) = whitening("coupling net", pre)?;
    layer[1].set(&b)?;
    layer[2].set(&l)?;
    normed(pre, layer)
}

impl Conditioner for CouplingNet {
    fn forward(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        self.check(x)?;
        if accepts(x) { self.fused(x) } else { self.composed(x) }
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        self.check(x)?;
        let ([first, second, _], gate) = self.layers();
        let h = set_norm(&edge_conv(x, &first[0].tensor())?, first)?.relu()?;
        for layer in std::iter::once(second).chain(gate) {
            set_norm(&pointwise(&h, &layer[0].tensor())?, layer)?;
        }
        self.forward(x, context)
    }

    fn evaluate<'a>(&'a self, x: &Tensor, context: Option<&Tensor>) -> Result<Evaluation<'a>> {
        self.check(x)?;
        match x.dtype() {
            _ if !accepts(x) => super::evaluate_by_graph(self, x, context),
            DType::F32 => self.fused_evaluation::<f32>(x),
            _ => self.fused_evaluation::<f64>(x),
        }
    }
}
