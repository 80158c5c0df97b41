//! The prior of one level's latents given those of the frames before and what is kept of the frame itself.

use candle_core::Tensor;
use flow_core::distribution::ConditionalGaussian;
use flow_core::nn::{ConvGeometry, HiddenActivation, ZeroConv, conv2d};
use flow_core::{Error, Init, Param, ParamPath, Result};
use flow_image::model::TopPrior;

use super::PriorConfig;
use super::latent::{LatentNet, LatentNetConfig};

/// Log-scales are stored divided by this, as Glow's.
const LOG_SCALE_FACTOR: f64 = 3.0;

/// A level's prior where there are too few frames before: Glow's own.
pub(super) enum Alone {
    /// Of a factored-out part, given what is kept.
    Split(std::sync::Arc<ConditionalGaussian<ZeroConv>>),
    /// Of the top latent.
    Top(std::sync::Arc<TopPrior>),
}

/// Mean and `ln σ` of Gaussian latents, each `(B, C, H, W)`.
pub(super) type MeanAndLogStd = (Tensor, Tensor);

/// `p(z_t | z_{t-n} … z_{t-1}, h_t) = N(μ, diag σ²)` of one level: a residual network over the past latents, joined by the mean
/// that the frame's coarser part `h_t` predicts (Kumar et al. 2020, section 4.2 and appendix; the authors' code).
///
/// With fewer than `n` frames before, the prior is Glow's: a convolution of `h_t`, or at the top a learned one.
///
/// # Shapes
/// - latent `z` `(B, C, H, W)`, past `(B, n, C, H, W)`, kept `h` `(B, C', H, W)`.
pub struct LatentPrior {
    channels: usize,
    alone: Alone,
    net: LatentNet,
    out: Pointwise,
    skip: bool,
}

impl LatentPrior {
    /// The prior of latents of `shape` with its network under `path`.
    pub(super) fn new(
        path: &ParamPath,
        [channels, height, width]: [usize; 3],
        config: &PriorConfig,
        activation: HiddenActivation,
        alone: Alone,
    ) -> Result<Self> {
        let joined = match alone {
            Alone::Split(_) => 2 * channels,
            Alone::Top(_) => channels,
        };
        let net = LatentNetConfig {
            channels: joined,
            steps: config.past,
            height,
            width,
            hidden: config.width,
            blocks: config.blocks,
            dilations: config.dilations,
            gated: activation == HiddenActivation::Gated,
        };
        Ok(LatentPrior {
            channels,
            alone,
            net: LatentNet::new(path, &net)?,
            out: Pointwise::new(&path.pp("out"), joined, 2 * channels)?,
            skip: config.skip,
        })
    }

    /// Mean and `ln σ` without a past.
    pub(super) fn alone(&self, batch: usize, kept: Option<&Tensor>) -> Result<MeanAndLogStd> {
        match &self.alone {
            Alone::Split(prior) => prior.parameters(batch, kept),
            Alone::Top(prior) => {
                let (mean, log_std) = prior.parameters(batch, None)?;
                let shape = {
                    let mut dims = mean.dims().to_vec();
                    dims[0] = batch;
                    dims
                };
                Ok((mean.broadcast_as(&shape[..])?, log_std.broadcast_as(&shape[..])?))
            }
        }
    }

    /// Mean and `ln σ` given the past; `mean` is that of [`LatentPrior::alone`].
    pub(super) fn given(&self, past: &Tensor, mean: &Tensor) -> Result<MeanAndLogStd> {
        let h = self.net.forward(&self.joined(past, mean)?)?;
        let (batch, _, height, width) = h.dims4()?;
        let h = self.out.forward(&h)?.reshape((batch, self.channels, 2, height, width))?;
        let (mean, log_std) = (h.narrow(2, 0, 1)?.squeeze(2)?, h.narrow(2, 1, 1)?.squeeze(2)?);
        if !self.skip {
            return Ok((mean, log_std));
        }
        let last = past.narrow(1, past.dim(1)? - 1, 1)?.squeeze(1)?;
        Ok(((mean + last)?, log_std))
    }

    /// Data-dependent initialisation of the network.
    pub(super) fn initialize(&self, past: &Tensor, mean: &Tensor) -> Result<()> {
        self.net.initialize(&self.joined(past, mean)?)?;
        Ok(())
    }

    /// What the network sees: the past, at every step beside the mean that the frame itself predicts.
    fn joined(&self, past: &Tensor, mean: &Tensor) -> Result<Tensor> {
        let (batch, steps, channels, height, width) = past.dims5()?;
        if channels != self.channels {
            let expected = format!("(B, n, {}, H, W)", self.channels);
            return Err(Error::Shape { layer: "latent prior".into(), expected, actual: past.dims().to_vec() });
        }
        match self.alone {
            Alone::Top(_) => Ok(past.contiguous()?),
            Alone::Split(_) => {
                let mean = mean.unsqueeze(1)?.broadcast_as((batch, steps, channels, height, width))?;
                Ok(Tensor::cat(&[past, &mean], 2)?)
            }
        }
    }
}

/// `out = (W x + b) · exp(3 l)` at every pixel, everything zero at the start.
struct Pointwise {
    weight: Param,
    bias: Param,
    log_scale: Param,
}

impl Pointwise {
    fn new(path: &ParamPath, inputs: usize, outputs: usize) -> Result<Self> {
        let zero = Init::Const(0.0);
        Ok(Pointwise {
            weight: path.param("weight", (outputs, inputs, 1, 1), zero)?,
            bias: path.param("bias", outputs, zero)?,
            log_scale: path.param("log_scale", outputs, zero)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = conv2d(x, &self.weight.tensor(), Some(&self.bias.tensor()), &ConvGeometry::new([1, 1]))?;
        let scale = self.log_scale.tensor().affine(LOG_SCALE_FACTOR, 0.0)?.exp()?;
        Ok(h.broadcast_mul(&scale.reshape((1, (), 1, 1))?)?)
    }
}
