//! Hyper-parameters of VideoFlow.

use flow_core::nn::HiddenActivation;
use flow_core::{Error, Result};
use flow_image::model::{GlowConfig, GlowCoupling, ImageSpec};
use serde::{Deserialize, Serialize};

use super::Motion;

/// What the prior over time makes of the past latents of a level (`latent_dist_encoder` of the authors' code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PriorEncoder {
    /// Residual blocks of causal convolutions over time and space, the paper's.
    #[default]
    Conv3dNet,
    /// Residual blocks of convolutions over space, which see the past latents side by side as channels.
    ConvNet,
    /// A convolutional LSTM that reads the past latents one after the other.
    ConvLstm,
    /// A multiple of the last latent, entry by entry. It reads one past frame and none of the network's sizes.
    Pointwise,
}

/// The prior of a frame's latents given those of the frames before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PriorConfig {
    /// What looks at the past.
    #[serde(skip_serializing_if = "is_default")]
    pub encoder: PriorEncoder,
    /// How many past frames it sees: `n`, unless motions are followed over more of them ([`VideoConfig::past`]).
    pub past: usize,
    /// Residual blocks of the network; an LSTM has none.
    pub blocks: usize,
    /// Hidden channels of the network.
    pub width: usize,
    /// Whether each block of [`PriorEncoder::Conv3dNet`] adds branches of dilation 2 and 4 where the latent is large enough.
    pub dilations: bool,
    /// Whether the mean is predicted as a change of the last latent.
    pub skip: bool,
    /// Motions of layers, if they are modelled: the priors see the past frames themselves and the guess that the motions make, in
    /// the place of past latents, so that `skip` must be off; and a histogram of levels ([`VideoConfig::gaussianize`]) becomes one
    /// given the guess ([`GaussianizeGuessed`](flow_core::layers::GaussianizeGuessed)). Beyond the paper; none for its model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motion: Option<Motion>,
}

impl Default for PriorConfig {
    /// The paper's.
    fn default() -> Self {
        PriorConfig {
            encoder: PriorEncoder::Conv3dNet,
            past: 3,
            blocks: 5,
            width: 256,
            dilations: true,
            skip: true,
            motion: None,
        }
    }
}

impl PriorConfig {
    /// A smaller network that sees as much as the paper's.
    pub fn new(blocks: usize, width: usize) -> Self {
        PriorConfig { blocks, width, ..PriorConfig::default() }
    }

    /// The steps that the network sees: the past frames, and the guess that motions make of the next.
    pub(super) fn steps(&self) -> usize {
        self.past + usize::from(self.motion.is_some())
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

fn is_default(encoder: &PriorEncoder) -> bool {
    *encoder == PriorEncoder::default()
}

/// VideoFlow: `levels × (squeeze, steps × (actnorm, 1×1 convolution, coupling), split)` for every frame, and an
/// autoregressive prior of each level's latents.
///
/// Needs frames whose sides can be halved `levels` times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct VideoConfig {
    /// `L`, the number of scales.
    pub levels: usize,
    /// `K`, steps per level.
    pub steps: usize,
    /// Hidden channels of the coupling networks.
    pub width: usize,
    /// The coupling.
    pub coupling: GlowCoupling,
    /// What the hidden layers of all networks do: gates in the paper, rectifiers in its first code.
    pub activation: HiddenActivation,
    /// Whether a learned histogram of levels makes every value normal before the first level
    /// ([`Gaussianize`](flow_core::layers::Gaussianize)); beyond the paper, for frames of which most values are the same.
    pub gaussianize: bool,
    /// Hidden channels of the network that shapes the noise of dequantization (variational dequantization, Ho et al. 2019,
    /// Flow++), 0 for uniform noise; beyond the paper.
    #[serde(skip_serializing_if = "is_zero")]
    pub noise_width: usize,
    /// `A`, how many numbers are told beside each frame (actions, or a label as numbers of which one is one) and seen by the
    /// prior over time; 0 for none. Beyond the paper.
    #[serde(skip_serializing_if = "is_zero")]
    pub actions: usize,
    /// The prior over time.
    pub prior: PriorConfig,
}

impl Default for VideoConfig {
    /// The paper's model of best likelihood on BAIR robot pushing.
    fn default() -> Self {
        VideoConfig {
            levels: 3,
            steps: 24,
            width: 512,
            coupling: GlowCoupling::Affine,
            activation: HiddenActivation::Gated,
            gaussianize: false,
            noise_width: 0,
            actions: 0,
            prior: PriorConfig::default(),
        }
    }
}

impl VideoConfig {
    /// `levels` scales of `steps` steps with `width` hidden channels, everything else as in the paper.
    pub fn new(levels: usize, steps: usize, width: usize, prior: PriorConfig) -> Self {
        VideoConfig { levels, steps, width, prior, ..VideoConfig::default() }
    }

    /// Checks that the model fits frames of `spec`.
    ///
    /// # Errors
    /// [`Error::Config`] naming what does not.
    pub fn check(&self, spec: &ImageSpec) -> Result<()> {
        spec.validate()?;
        let sizes = [self.levels, self.steps, self.width, self.prior.past, self.prior.width];
        if sizes.contains(&0) {
            let [levels, steps, width, past, prior] = sizes;
            let reason = format!(
                "levels, steps, width, past frames and the prior's width must be positive, got {levels}, {steps}, {width}, \
                 {past} and {prior}"
            );
            return Err(Error::config("videoflow", reason));
        }
        if let Some(motion) = &self.prior.motion {
            if self.prior.encoder == PriorEncoder::Pointwise {
                let reason = "a pointwise prior sees one latent and no motions; choose another encoder";
                return Err(Error::config("videoflow", reason));
            }
            motion.check(spec.event_shape())?;
            if self.prior.skip {
                let reason =
                    "where motions are followed the priors see frames in the place of past latents; set skip to false";
                return Err(Error::config("videoflow", reason));
            }
        }
        if self.prior.encoder == PriorEncoder::Pointwise && self.prior.past != 1 {
            let reason =
                format!("a pointwise prior reads the last latent only, got {} past frames; set 1", self.prior.past);
            return Err(Error::config("videoflow", reason));
        }
        if self.prior.encoder == PriorEncoder::Pointwise && self.actions > 0 {
            return Err(Error::config("videoflow", "a pointwise prior sees no actions; choose another encoder"));
        }
        spec.check_scales("videoflow", self.levels, self.levels)
    }

    /// How many frames the model looks back: those that the prior sees, and those over which motions are followed.
    pub fn past(&self) -> usize {
        self.prior.past.max(self.prior.motion.map_or(0, |motion| motion.memory))
    }

    /// The flow of one frame as Glow's.
    pub(super) fn frame(&self) -> GlowConfig {
        let mut glow = GlowConfig::new(self.levels, self.steps, self.width);
        glow.coupling = self.coupling;
        glow.activation = self.activation;
        glow
    }
}
