//! What looks at the past latents of a level: mean and `ln σ` of the next one.

use candle_core::Tensor;
use flow_core::nn::{Conditioner, ConvGeometry, CouplingNet, HiddenActivation, ZeroConv, conv2d};
use flow_core::numerics::host;
use flow_core::{Init, Param, ParamPath, Result};

use super::config::{PriorConfig, PriorEncoder};
use super::latent::{LatentNet, LatentNetConfig};

/// Log-scales are stored divided by this, as Glow's.
const LOG_SCALE_FACTOR: f64 = 3.0;
/// Standard deviation of the weights of an LSTM at the start.
const WEIGHT_STD: f64 = 0.05;

/// Mean and `ln σ` of Gaussian latents, each `(B, C, H, W)`.
pub(super) type MeanAndLogStd = (Tensor, Tensor);

/// A network over the past latents of a level, beside the mean that the frame's coarser part predicts, or their multiples.
///
/// # Shapes
/// - past `(B, n, C, H, W)`, oldest first; what [`Encoder::forward`] sees `(B, n, J, H, W)` with `J` the channels of latent and
///   mean together; mean and `ln σ` `(B, C, H, W)`.
pub(super) enum Encoder {
    /// [`PriorEncoder::Conv3dNet`], then a convolution of 1×1.
    Conv3dNet(LatentNet, ScaledPointwise),
    /// [`PriorEncoder::ConvNet`], then a convolution that starts at zero.
    ConvNet(Vec<CouplingNet>, ZeroConv),
    /// [`PriorEncoder::ConvLstm`], then a convolution that starts at zero.
    ConvLstm(ConvLstm, ZeroConv),
    /// [`PriorEncoder::Pointwise`]: the multiples, one for each entry.
    Pointwise(Param),
}

impl Encoder {
    /// The network of latents of `shape` that sees `joined` channels at every step.
    pub(super) fn new(
        path: &ParamPath,
        [channels, height, width]: [usize; 3],
        joined: usize,
        config: &PriorConfig,
        activation: HiddenActivation,
    ) -> Result<Self> {
        let (out, size) = (path.pp("out"), [height, width]);
        Ok(match config.encoder {
            PriorEncoder::Conv3dNet => {
                let net = LatentNetConfig {
                    channels: joined,
                    steps: config.steps(),
                    height,
                    width,
                    hidden: config.width,
                    blocks: config.blocks,
                    dilations: config.dilations,
                    gated: activation == HiddenActivation::Gated,
                };
                let net = LatentNet::new(path, &net)?;
                Encoder::Conv3dNet(net, ScaledPointwise::new(&out, joined, 2 * channels)?)
            }
            PriorEncoder::ConvNet => {
                let seen = config.steps() * joined;
                let block = |i: usize| {
                    let path = path.pp(format!("block{i}"));
                    CouplingNet::with_activation(&path, seen, config.width, seen, size, activation)
                };
                let blocks = (0..config.blocks).map(block).collect::<Result<Vec<_>>>()?;
                Encoder::ConvNet(blocks, ZeroConv::new(&out, seen, 2 * channels)?)
            }
            PriorEncoder::ConvLstm => {
                let lstm = ConvLstm::new(&path.pp("lstm"), joined, config.width)?;
                Encoder::ConvLstm(lstm, ZeroConv::new(&out, config.width, 2 * channels)?)
            }
            PriorEncoder::Pointwise => {
                Encoder::Pointwise(path.param("multiple", (channels, height, width), Init::Const(1.0))?)
            }
        })
    }

    /// Whether it sees the mean that the frame's coarser part predicts; otherwise it changes that mean.
    pub(super) fn sees_mean(&self) -> bool {
        !matches!(self, Encoder::Pointwise(_))
    }

    /// Mean and `ln σ` given the past, joined with the mean if it is seen, and what the frame alone predicts.
    pub(super) fn forward(&self, x: &Tensor, alone: &MeanAndLogStd) -> Result<MeanAndLogStd> {
        let out = match self {
            Encoder::Conv3dNet(net, out) => out.forward(&net.forward(x)?)?,
            Encoder::ConvNet(blocks, out) => out.forward(
                &blocks.iter().try_fold(side_by_side(x)?, |x, net| added(&x, net.forward(&x, None)?))?,
                None,
            )?,
            Encoder::ConvLstm(lstm, out) => out.forward(&lstm.forward(x)?, None)?,
            Encoder::Pointwise(multiple) => {
                let moved = last(x)?.broadcast_mul(&multiple.tensor())?;
                return Ok(((&alone.0 + moved)?, alone.1.clone()));
            }
        };
        let (batch, channels, height, width) = out.dims4()?;
        let out = out.reshape((batch, channels / 2, 2, height, width))?;
        Ok((out.narrow(2, 0, 1)?.squeeze(2)?, out.narrow(2, 1, 1)?.squeeze(2)?))
    }

    /// Data-dependent initialisation.
    pub(super) fn initialize(&self, x: &Tensor) -> Result<()> {
        match self {
            Encoder::Conv3dNet(net, _) => net.initialize(x).map(drop),
            Encoder::ConvNet(blocks, _) => {
                let grown = |x: Tensor, net: &CouplingNet| added(&x, net.initialize(&x, None)?);
                blocks.iter().try_fold(side_by_side(x)?, grown).map(drop)
            }
            Encoder::ConvLstm(..) | Encoder::Pointwise(_) => Ok(()),
        }
    }
}

fn added(x: &Tensor, change: Tensor) -> Result<Tensor> {
    Ok((x + change)?)
}

/// Time steps as channels.
fn side_by_side(x: &Tensor) -> Result<Tensor> {
    let (batch, steps, channels, height, width) = x.dims5()?;
    Ok(x.reshape((batch, steps * channels, height, width))?)
}

/// The last time step.
pub(super) fn last(x: &Tensor) -> Result<Tensor> {
    Ok(x.narrow(1, x.dim(1)? - 1, 1)?.squeeze(1)?.contiguous()?)
}

/// `out = (W x + b) · exp(3 l)` at every pixel, everything zero at the start.
pub(super) struct ScaledPointwise {
    weight: Param,
    bias: Param,
    log_scale: Param,
}

impl ScaledPointwise {
    pub(super) fn new(path: &ParamPath, inputs: usize, outputs: usize) -> Result<Self> {
        let zero = Init::Const(0.0);
        Ok(ScaledPointwise {
            weight: path.param("weight", (outputs, inputs, 1, 1), zero)?,
            bias: path.param("bias", outputs, zero)?,
            log_scale: path.param("log_scale", outputs, zero)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = conv2d(x, &self.weight.tensor(), Some(&self.bias.tensor()), &ConvGeometry::new([1, 1]))?;
        let scale = self.log_scale.tensor().affine(LOG_SCALE_FACTOR, 0.0)?.exp()?;
        Ok(h.broadcast_mul(&scale.reshape((1, (), 1, 1))?)?)
    }

    /// Sets what it returns at the start, one number for each output.
    pub(super) fn start(&self, values: &[f64]) -> Result<()> {
        self.bias.set(&host::tensor_like(values, values.len(), &self.bias.tensor())?)
    }

    #[cfg(test)]
    pub(super) fn params(&self) -> [&Param; 3] {
        [&self.weight, &self.bias, &self.log_scale]
    }
}

/// A convolutional LSTM (Shi et al. 2015, arXiv 1506.04214, without peepholes) that begins with nothing known:
/// `i, f, o = σ(conv([x_t, h]))`, `g = tanh(conv([x_t, h]))`, `c ← f·c + i·g`, `h ← o·tanh(c)`, 3×3 convolutions, the bias of
/// `f` one at the start.
pub(super) struct ConvLstm {
    weight: Param,
    bias: Param,
    width: usize,
}

impl ConvLstm {
    fn new(path: &ParamPath, inputs: usize, width: usize) -> Result<Self> {
        let weight = path.param("weight", (4 * width, inputs + width, 3, 3), Init::Normal(WEIGHT_STD))?;
        let bias = path.param("bias", 4 * width, Init::Const(0.0))?;
        Ok(ConvLstm { weight, bias, width })
    }

    /// The hidden state after the last of `(B, n, J, H, W)`, `(B, width, H, W)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, steps, _, height, width) = x.dims5()?;
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        let mut hidden = Tensor::zeros((batch, self.width, height, width), x.dtype(), x.device())?;
        let mut cell = hidden.clone();
        for t in 0..steps {
            let seen = Tensor::cat(&[&x.narrow(1, t, 1)?.squeeze(1)?, &hidden], 1)?;
            let gates = conv2d(&seen, &weight, Some(&bias), &ConvGeometry::same(3))?;
            let part = |i: usize| gates.narrow(1, i * self.width, self.width)?.contiguous();
            let kept = (cell * sigmoid(&(part(1)? + 1.0)?)?)?;
            cell = (kept + (sigmoid(&part(0)?)? * part(3)?.tanh()?)?)?;
            hidden = (sigmoid(&part(2)?)? * cell.tanh()?)?;
        }
        Ok(hidden)
    }
}

/// `σ(x) = (1 + tanh(x/2))/2`, which does not overflow.
fn sigmoid(x: &Tensor) -> candle_core::Result<Tensor> {
    x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
}
