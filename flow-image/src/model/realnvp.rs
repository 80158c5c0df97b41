//! RealNVP (Dinh, Sohl-Dickstein & Bengio 2017): affine couplings over checkerboards and channels.

use flow_core::density::Level;
use flow_core::distribution::StandardGaussian;
use flow_core::layers::{BatchNorm, Coupling, Partition, Squeeze};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{Bijector, Chain, Error, Inverse, MultiScale, Param, ParamPath, Result};
use serde::{Deserialize, Serialize};

use super::resnet::{RealNvpNet, Seen};
use super::{ImageFlow, ImageSpec, Penalty, PixelScaling};

/// Hyper-parameters of RealNVP; the defaults are the paper's CIFAR-10 model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RealNvpConfig {
    /// Number of scales; the image is halved one time less.
    pub scales: usize,
    /// Channels of the residual networks at the first scale; they double at every scale and once more for
    /// channel couplings.
    pub base_width: usize,
    /// Residual blocks per network.
    pub blocks: usize,
    /// Coefficient of the L2 penalty on weight-norm magnitudes and on the learned scale of the log-scales,
    /// relative to a mean negative log-likelihood in nats.
    pub l2: f64,
    /// How far data is shrunk from 0 and 1 before the logit.
    pub alpha: f64,
}

impl Default for RealNvpConfig {
    fn default() -> Self {
        RealNvpConfig { scales: 2, base_width: 64, blocks: 8, l2: 5e-5, alpha: 0.05 }
    }
}

impl RealNvpConfig {
    /// `scales` scales with networks of `blocks` blocks, `base_width` channels at the first scale; everything else as in
    /// the paper's CIFAR-10 model.
    pub fn new(scales: usize, base_width: usize, blocks: usize) -> Self {
        RealNvpConfig { scales, base_width, blocks, ..RealNvpConfig::default() }
    }

    /// The multi-scale RealNVP of section 3.6 over images already mapped by the logit, with parameters under `path`.
    ///
    /// Every scale but the last is three couplings on alternating checkerboards, a squeeze, three couplings on
    /// alternating halves of the channels, then the un-squeeze and the *ordered* squeeze that makes half of
    /// the channels one colour of a checkerboard; the other half is factored out with a standard Gaussian.
    /// The last scale is four checkerboard couplings. Batch normalization follows every coupling on what it
    /// transformed (section 3.7).
    ///
    /// # Errors
    /// [`Error::Config`] when the image cannot be halved `scales - 1` times, for empty sizes, or for an `l2` that is
    /// negative or not finite.
    pub fn build(&self, spec: &ImageSpec, path: &ParamPath) -> Result<ImageFlow> {
        spec.validate()?;
        if self.scales == 0 || self.base_width == 0 {
            return Err(Error::config("realnvp", "needs at least one scale and a width of at least 1"));
        }
        spec.check_scales("realnvp", self.scales, self.scales - 1)?;
        let store = path.store();
        let gaussian = |shape: &[usize]| Box::new(StandardGaussian::new(shape, store.dtype(), store.device()));
        let mut shape = spec.event_shape().to_vec();
        let (mut levels, mut penalised) = (Vec::with_capacity(self.scales), Vec::new());
        for scale in 0..self.scales {
            let (path, width) = (path.pp(format!("scale{scale}")), self.width(scale)?);
            let builder = Builder { path, width, blocks: self.blocks, layers: Vec::new(), penalised: &mut penalised };
            if scale + 1 == self.scales {
                levels.push(Level { flow: Box::new(builder.last(&shape)?), split: None });
                break;
            }
            let flow = builder.scale(&shape)?;
            shape = flow.latent_shape().to_vec();
            shape[0] /= 2;
            levels.push(Level { flow: Box::new(flow), split: Some(gaussian(&shape)) });
        }
        let flow = MultiScale::new(store, levels, gaussian(&shape))?;
        let penalty = Penalty::l2(self.l2, penalised)?;
        Ok(ImageFlow { penalty, ..ImageFlow::new(flow, PixelScaling::Logit(self.alpha)) })
    }

    fn width(&self, scale: usize) -> Result<usize> {
        let doubled = u32::try_from(scale).ok().and_then(|s| self.base_width.checked_mul(1usize.checked_shl(s)?));
        doubled.ok_or_else(|| Error::config("realnvp", "too many scales: the width overflows"))
    }
}

/// Builds the layers of one scale.
struct Builder<'a> {
    path: ParamPath,
    width: usize,
    blocks: usize,
    layers: Vec<Box<dyn Bijector>>,
    penalised: &'a mut Vec<Param>,
}

impl Builder<'_> {
    fn scale(mut self, shape: &[usize]) -> Result<Chain> {
        self.checkerboards(shape, 3)?;
        let squeeze = Squeeze::new(shape, 2)?;
        let squeezed = squeeze.latent_shape().to_vec();
        self.layers.push(Box::new(squeeze.clone()));
        for i in 0..3 {
            let partition = Partition::Channels { swap: i % 2 == 1 };
            let half = squeezed[0] / 2;
            let path = self.path.pp(format!("channel{i}"));
            let net = RealNvpNet::new(&path, half, half, Seen::Channels, 2 * self.width, self.blocks)?;
            self.coupling(&path, &squeezed, &partition, net)?;
        }
        self.layers.push(Box::new(Inverse(squeeze)));
        self.layers.push(Box::new(Squeeze::ordered(shape)?));
        Chain::new(self.layers)
    }

    fn last(mut self, shape: &[usize]) -> Result<Chain> {
        self.checkerboards(shape, 4)?;
        Chain::new(self.layers)
    }

    fn checkerboards(&mut self, shape: &[usize], count: usize) -> Result<()> {
        let channels = shape[0];
        for i in 0..count {
            let partition = Partition::checkerboard(shape, i % 2 == 1)?;
            let Partition::Mask(mask) = &partition else {
                return Err(Error::config("realnvp", "a checkerboard has to be a mask"));
            };
            let seen = Seen::Checkerboard(mask.narrow(0, 0, 1)?);
            let path = self.path.pp(format!("checkerboard{i}"));
            let net = RealNvpNet::new(&path, channels, channels, seen, self.width, self.blocks)?;
            self.coupling(&path, shape, &partition, net)?;
        }
        Ok(())
    }

    /// A coupling and the batch normalization of what it transformed.
    fn coupling(&mut self, path: &ParamPath, shape: &[usize], partition: &Partition, net: RealNvpNet) -> Result<()> {
        self.penalised.extend(net.penalised());
        let norm = BatchNorm::new(&path.pp("flow_norm"), shape)?.on_transformed(partition)?;
        let transformer = Affine::new(ScaleBound::ByConditioner);
        self.layers.push(Box::new(Coupling::new(shape, partition.clone(), transformer, net)?));
        self.layers.push(Box::new(norm));
        Ok(())
    }
}
