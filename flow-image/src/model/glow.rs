//! Glow: generative flow with invertible 1×1 convolutions.

use candle_core::Tensor;
use flow_core::bijector::LayerReport;
use flow_core::density::{Latents, Level};
use flow_core::distribution::ConditionalGaussian;
use flow_core::layers::{ActNorm, Coupling, InvertibleConv, Parametrization, Partition, Permute, Squeeze};
use flow_core::nn::{CouplingNet, ZeroConv};
use flow_core::transformer::{Additive, Affine, ScaleBound};
use flow_core::{
    Backprop, Bijector, Chain, Density, Distribution, Error, FlowRng, Gradients, MultiScale, ParamPath, ParamStore,
    Result, Scored, Transformer,
};

use super::density::{forward_density, forward_latents};
use super::glow_prior::{ClassHead, TopPrior};
use super::{GlowConfig, GlowCoupling, GlowPermutation, ImageDensity, ImageSpec};

/// `L` levels of (squeeze, `K` × [actnorm, 1×1 convolution, coupling], split) over images in `[-½, ½)`.
///
/// Kingma & Dhariwal 2018 (arXiv 1807.03039), figure 2 and the authors' code: coupling networks with
/// activation normalization, edge indicator and zero-initialised output, split priors and a top prior
/// whose parameters are predicted by zero-initialised convolutions. A conditional model adds the class
/// to the top prior and a classification loss on the top latent.
pub struct Glow {
    flow: MultiScale,
    class: Option<Class>,
}

/// The classification part of a conditional model.
struct Class {
    head: ClassHead,
    count: usize,
    weight: f64,
    dims: f64,
}

impl Glow {
    /// Builds the model with its parameters under `path`.
    ///
    /// # Errors
    /// [`Error::Config`] when the image cannot be halved `levels` times or a size is zero.
    pub fn new(config: &GlowConfig, spec: &ImageSpec, path: &ParamPath) -> Result<Self> {
        if config.levels == 0 || config.steps == 0 || config.width == 0 {
            let reason = format!("levels, steps and width must be positive, got {config:?}");
            return Err(Error::config("glow", reason));
        }
        spec.check_scales("glow", config.levels, config.levels)?;
        let mut shape = spec.event_shape();
        let mut levels = Vec::with_capacity(config.levels);
        for i in 0..config.levels {
            let at = path.pp(format!("level{i}"));
            let flow = level(config, &at, shape)?;
            let [c, h, w] = [flow.latent_shape()[0], shape[1] / 2, shape[2] / 2];
            shape = [c, h, w];
            let split: Option<Box<dyn Distribution>> = if i + 1 == config.levels {
                None
            } else {
                let (kept, out) = (c.div_ceil(2), c / 2);
                shape = [kept, h, w];
                let net = ZeroConv::new(&at.pp("split"), kept, 2 * out)?;
                Some(Box::new(ConditionalGaussian::new(&[out, h, w], &[kept, h, w], net)))
            };
            levels.push(Level { flow, split });
        }
        let top = TopPrior::new(&path.pp("prior"), shape, config.learn_top, config.class_condition)?;
        let class = match config.class_condition {
            None => None,
            Some(0) => return Err(Error::config("glow", "a conditional model needs at least one class")),
            Some(count) => Some(Class {
                head: ClassHead::new(&path.pp("classifier"), shape[0], count)?,
                count,
                weight: config.class_weight,
                dims: spec.dims() as f64,
            }),
        };
        Ok(Glow { flow: MultiScale::new(path.store(), levels, Box::new(top))?, class })
    }

    /// The multi-scale flow, for inspection.
    pub fn flow(&self) -> &MultiScale {
        &self.flow
    }

    /// `ln p(class | x)` in nats of a conditional model's classifier head, `(B, classes)` never formed:
    /// one number per image for the one-hot classes of `context`.
    ///
    /// # Errors
    /// [`Error::Config`] for an unconditional model.
    pub fn class_log_prob(&self, latents: &Latents, context: &Tensor) -> Result<Tensor> {
        let (Some(class), Some(top)) = (&self.class, latents.0.last()) else {
            return Err(Error::config("glow", "has no classifier: it is not conditional"));
        };
        let _paused = self.flow.store().no_grad();
        class.head.log_prob(&self.flow.top().color(top, Some(context))?, context)
    }
}

/// Squeeze and `K` steps.
fn level(config: &GlowConfig, path: &ParamPath, shape: [usize; 3]) -> Result<Box<dyn Bijector>> {
    let squeeze = Squeeze::new(&shape, 2)?;
    let event = squeeze.latent_shape().to_vec();
    let mut layers: Vec<Box<dyn Bijector>> = vec![Box::new(squeeze)];
    for k in 0..config.steps {
        let at = path.pp(format!("step{k}"));
        layers.push(Box::new(ActNorm::new(&at.pp("actnorm"), &event)?));
        layers.push(mixing(config.permutation, &at.pp("mix"), &event)?);
        layers.push(match config.coupling {
            GlowCoupling::Additive => coupling(Additive, config.width, &at.pp("coupling"), &event)?,
            GlowCoupling::Affine => {
                coupling(Affine::new(ScaleBound::Sigmoid), config.width, &at.pp("coupling"), &event)?
            }
        });
    }
    Ok(Box::new(Chain::new(layers)?))
}

fn mixing(kind: GlowPermutation, path: &ParamPath, event: &[usize]) -> Result<Box<dyn Bijector>> {
    let conv = |form| -> Result<Box<dyn Bijector>> { Ok(Box::new(InvertibleConv::new(path, event, form)?)) };
    match kind {
        GlowPermutation::Plu => conv(Parametrization::Plu),
        GlowPermutation::Full => conv(Parametrization::Full),
        GlowPermutation::Householder => conv(Parametrization::Householder { reflections: event[0] }),
        GlowPermutation::Reverse => Ok(Box::new(Permute::reverse(path, event)?)),
        GlowPermutation::Shuffle => Ok(Box::new(Permute::random(path, event)?)),
    }
}

fn coupling<T: Transformer + 'static>(
    transformer: T,
    width: usize,
    path: &ParamPath,
    event: &[usize],
) -> Result<Box<dyn Bijector>> {
    let partition = Partition::Channels { swap: false };
    let inputs = Coupling::<T, CouplingNet>::input_channels(event[0], &partition);
    let outputs = Coupling::<T, CouplingNet>::output_channels(event[0], &partition, &transformer);
    let net = CouplingNet::new(path, inputs, width, outputs, [event[1], event[2]])?;
    Ok(Box::new(Coupling::new(event, partition, transformer, net)?))
}

forward_density!(Glow);

impl ImageDensity for Glow {
    fn classes(&self) -> Option<usize> {
        self.class.as_ref().map(|c| c.count)
    }

    forward_latents!();

    /// The authors' loss is `bits/dim + w · CE / ln 2`; in units of the log-likelihood, whose weight turns
    /// nats into bits/dim, the class term is `D · w · ln p(class | z)`. Answers `ln p(class | z)`.
    fn backward_with(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Option<Tensor>)> {
        let (Some(class), Some(one_hot)) = (&self.class, context) else {
            return self.flow.backward_with(x, context, weight, None, mode, gradients);
        };
        let scale = class.dims * class.weight;
        let objective = |top: &Tensor| Ok(class.head.log_prob(top, one_hot)?.affine(scale, 0.0)?);
        let (scored, bonus) = self.flow.backward_with(x, context, weight, Some(&objective), mode, gradients)?;
        let nats = bonus.filter(|_| scale > 0.0).map(|b| b.affine(1.0 / scale, 0.0)).transpose()?;
        Ok((scored, nats))
    }
}
