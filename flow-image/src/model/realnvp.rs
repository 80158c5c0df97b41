//! RealNVP (Dinh, Sohl-Dickstein & Bengio 2017): affine couplings over checkerboards and channels.

use candle_core::{DType, Tensor};
use flow_core::bijector::LayerReport;
use flow_core::density::{Latents, Level};
use flow_core::distribution::{Distribution, StandardGaussian};
use flow_core::layers::{BatchNorm, Coupling, Partition, Squeeze};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{
    Backprop, Bijector, Chain, Density, Error, FlowRng, Gradients, Inverse, MultiScale, Param, ParamPath, ParamStore,
    Result, Scored,
};
use serde::{Deserialize, Serialize};

use super::density::{forward_density, forward_latents};
use super::resnet::{RealNvpNet, Seen};
use super::{ImageDensity, ImageSpec};

/// Hyper-parameters of [`RealNvp`]; the defaults are the paper's CIFAR-10 model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

/// The multi-scale RealNVP of section 3.6 over images already mapped by the logit.
///
/// Every scale but the last is three couplings on alternating checkerboards, a squeeze, three couplings on
/// alternating halves of the channels, then the un-squeeze and the *ordered* squeeze that makes half of
/// the channels one colour of a checkerboard; the other half is factored out with a standard Gaussian.
/// The last scale is four checkerboard couplings. Batch normalization follows every coupling on what it
/// transformed (section 3.7).
pub struct RealNvp {
    flow: MultiScale,
    penalised: Vec<Param>,
    l2: f64,
}

impl RealNvp {
    /// Builds the model, all parameters under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] when the image cannot be halved `scales - 1` times, or for empty sizes.
    pub fn new(config: &RealNvpConfig, spec: &ImageSpec, path: &ParamPath) -> Result<Self> {
        spec.validate()?;
        if config.scales == 0 || config.base_width == 0 {
            return Err(Error::config("realnvp", "needs at least one scale and a width of at least 1"));
        }
        if !(config.l2 >= 0.0 && config.l2.is_finite()) {
            return Err(Error::config("realnvp l2", format!("must be finite and not negative, got {}", config.l2)));
        }
        spec.check_scales("realnvp", config.scales, config.scales - 1)?;
        let store = path.store();
        let mut shape = spec.event_shape().to_vec();
        let mut levels = Vec::with_capacity(config.scales);
        for scale in 0..config.scales {
            let builder = Builder { path: path.pp(format!("scale{scale}")), width: config.width(scale)?, config };
            if scale + 1 == config.scales {
                levels.push(Level { flow: Box::new(builder.last(&shape)?), split: None });
                break;
            }
            let flow = builder.scale(&shape)?;
            shape = flow.latent_shape().to_vec();
            shape[0] /= 2;
            let split: Box<dyn Distribution> = Box::new(StandardGaussian::new(&shape, store.dtype(), store.device()));
            levels.push(Level { flow: Box::new(flow), split: Some(split) });
        }
        let top = StandardGaussian::new(&shape, store.dtype(), store.device());
        let penalised = |p: &Param| p.name().ends_with(".magnitude") || p.name().ends_with(".rescale");
        Ok(RealNvp {
            flow: MultiScale::new(store, levels, Box::new(top))?,
            penalised: store.trainable().into_iter().filter(penalised).collect(),
            l2: config.l2,
        })
    }

    /// The flow.
    pub fn flow(&self) -> &MultiScale {
        &self.flow
    }
}

impl RealNvpConfig {
    fn width(&self, scale: usize) -> Result<usize> {
        let doubled = u32::try_from(scale).ok().and_then(|s| self.base_width.checked_mul(1usize.checked_shl(s)?));
        doubled.ok_or_else(|| Error::config("realnvp", "too many scales: the width overflows"))
    }
}

/// Builds the layers of one scale.
struct Builder<'a> {
    path: ParamPath,
    width: usize,
    config: &'a RealNvpConfig,
}

type Layers = Vec<Box<dyn Bijector>>;

impl Builder<'_> {
    fn scale(&self, shape: &[usize]) -> Result<Chain> {
        let mut layers = self.checkerboards(shape, 3)?;
        let squeeze = Squeeze::new(shape, 2)?;
        let squeezed = squeeze.latent_shape().to_vec();
        layers.push(Box::new(squeeze.clone()));
        for i in 0..3 {
            let partition = Partition::Channels { swap: i % 2 == 1 };
            let half = squeezed[0] / 2;
            let path = self.path.pp(format!("channel{i}"));
            let net = RealNvpNet::new(&path, half, half, Seen::Channels, 2 * self.width, self.config.blocks)?;
            push_coupling(&mut layers, &path, &squeezed, &partition, net)?;
        }
        layers.push(Box::new(Inverse(squeeze)));
        layers.push(Box::new(Squeeze::ordered(shape)?));
        Chain::new(layers)
    }

    fn last(&self, shape: &[usize]) -> Result<Chain> {
        Chain::new(self.checkerboards(shape, 4)?)
    }

    fn checkerboards(&self, shape: &[usize], count: usize) -> Result<Layers> {
        let (mut layers, channels) = (Vec::new(), shape[0]);
        for i in 0..count {
            let partition = Partition::checkerboard(shape, i % 2 == 1)?;
            let Partition::Mask(mask) = &partition else {
                return Err(Error::config("realnvp", "a checkerboard has to be a mask"));
            };
            let seen = Seen::Checkerboard(mask.narrow(0, 0, 1)?);
            let path = self.path.pp(format!("checkerboard{i}"));
            let net = RealNvpNet::new(&path, channels, channels, seen, self.width, self.config.blocks)?;
            push_coupling(&mut layers, &path, shape, &partition, net)?;
        }
        Ok(layers)
    }
}

/// A coupling and the batch normalization of what it transformed.
fn push_coupling(
    layers: &mut Layers,
    path: &ParamPath,
    shape: &[usize],
    partition: &Partition,
    net: RealNvpNet,
) -> Result<()> {
    let norm = BatchNorm::new(&path.pp("flow_norm"), shape)?.on_transformed(partition)?;
    let transformer = Affine::new(ScaleBound::ByConditioner);
    layers.push(Box::new(Coupling::new(shape, partition.clone(), transformer, net)?));
    layers.push(Box::new(norm));
    Ok(())
}

forward_density!(RealNvp);

impl ImageDensity for RealNvp {
    forward_latents!();

    /// `l2 · Σ v²` over magnitudes and learned scales, with gradient `2 · l2 · v`.
    fn penalize(&self, scale: f64, gradients: &mut Gradients) -> Result<f64> {
        let mut total = 0.0;
        for param in &self.penalised {
            let value = param.var().as_detached_tensor();
            gradients.add(param, &value.affine(2.0 * scale * self.l2, 0.0)?)?;
            total += value.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        }
        Ok(self.l2 * total)
    }
}
