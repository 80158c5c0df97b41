//! The prior of one level's latents given those of the frames before and what is kept of the frame itself.

use candle_core::Tensor;
use flow_core::distribution::ConditionalGaussian;
use flow_core::nn::{HiddenActivation, ZeroConv};
use flow_core::{Error, ParamPath, Result};
use flow_image::model::TopPrior;

use super::PriorConfig;
use super::encoder::{Encoder, MeanAndLogStd, last};

/// A level's prior where there are too few frames before: Glow's own.
pub(super) enum Alone {
    /// Of a factored-out part, given what is kept.
    Split(std::sync::Arc<ConditionalGaussian<ZeroConv>>),
    /// Of the top latent.
    Top(std::sync::Arc<TopPrior>),
}

/// `p(z_t | z_{t-n} … z_{t-1}, h_t) = N(μ, diag σ²)` of one level: a residual network over the past latents, joined by the mean
/// that the frame's coarser part `h_t` predicts (Kumar et al. 2020, section 4.2 and appendix; the authors' code), or another
/// [`PriorEncoder`](super::PriorEncoder).
///
/// With fewer frames before than the model looks back ([`VideoConfig::past`](super::VideoConfig::past)), the prior is Glow's: a convolution of `h_t`, or at the top a learned one.
///
/// # Shapes
/// - latent `z` `(B, C, H, W)`, past `(B, n, C, H, W)`, kept `h` `(B, C', H, W)`; where motions are followed
///   ([`Motion`](super::Motion)) the past is `(B, n + 1, C'', H, W)`, the frames themselves and the guess, squeezed to the size of the
///   latents.
pub struct LatentPrior {
    /// The channels of a step of the past.
    channels: usize,
    alone: Alone,
    encoder: Encoder,
    skip: bool,
}

impl LatentPrior {
    /// The prior of latents of `shape` with its network under `path`, which sees a past of `channels` channels and `told` more.
    pub(super) fn new(
        path: &ParamPath,
        shape: [usize; 3],
        config: &PriorConfig,
        activation: HiddenActivation,
        [channels, told]: [usize; 2],
        alone: Alone,
    ) -> Result<Self> {
        let joined = told
            + match alone {
                Alone::Split(_) => channels + shape[0],
                Alone::Top(_) => channels,
            };
        let encoder = Encoder::new(path, shape, joined, config, activation)?;
        let skip = config.skip && encoder.sees_mean();
        Ok(LatentPrior { channels, alone, encoder, skip })
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

    /// Mean and `ln σ` given the past and what [`LatentPrior::alone`] predicts.
    pub(super) fn given(&self, past: &Tensor, alone: &MeanAndLogStd, told: Option<&Tensor>) -> Result<MeanAndLogStd> {
        let (mean, log_std) = self.encoder.forward(&self.joined(past, &alone.0, told)?, alone)?;
        if !self.skip {
            return Ok((mean, log_std));
        }
        Ok(((mean + last(past)?)?, log_std))
    }

    /// Data-dependent initialisation of the network.
    pub(super) fn initialize(&self, past: &Tensor, mean: &Tensor, told: Option<&Tensor>) -> Result<()> {
        self.encoder.initialize(&self.joined(past, mean, told)?)
    }

    /// What the network sees: the past, at every step beside the mean that the frame itself predicts and what is told of the
    /// frame, `(B, A + 1, 1, 1)`.
    fn joined(&self, past: &Tensor, mean: &Tensor, told: Option<&Tensor>) -> Result<Tensor> {
        let (batch, steps, channels, height, width) = past.dims5()?;
        if channels != self.channels {
            let expected = format!("(B, n, {}, H, W)", self.channels);
            return Err(Error::Shape { layer: "latent prior".into(), expected, actual: past.dims().to_vec() });
        }
        let mut parts = vec![past.clone()];
        if matches!(self.alone, Alone::Split(_)) && self.encoder.sees_mean() {
            parts.push(mean.unsqueeze(1)?.broadcast_as((batch, steps, mean.dim(1)?, height, width))?);
        }
        if let Some(told) = told {
            parts.push(told.unsqueeze(1)?.broadcast_as((batch, steps, told.dim(1)?, height, width))?);
        }
        match &parts[..] {
            [past] => Ok(past.contiguous()?),
            _ => Ok(Tensor::cat(&parts, 2)?),
        }
    }
}
