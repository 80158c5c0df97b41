//! Glow (Kingma & Dhariwal 2018): steps of actnorm, invertible 1×1 convolution and coupling, over scales.

use flow_core::density::Level;
use flow_core::distribution::ConditionalGaussian;
use flow_core::layers::{ActNorm, Coupling, InvertibleConv, Parametrization, Partition, Permute, Squeeze};
use flow_core::nn::{CouplingNet, ZeroConv};
use flow_core::transformer::{Additive, Affine, ScaleBound};
use flow_core::{Bijector, Chain, Error, MultiScale, ParamPath, Result, Transformer};

use super::glow_prior::TopPrior;
use super::{ClassHead, GlowConfig, GlowCoupling, GlowPermutation, ImageFlow, ImageSpec, PixelScaling};

impl GlowConfig {
    /// `L` levels of (squeeze, `K` × [actnorm, 1×1 convolution, coupling], split) over images in `[-½, ½)`, with
    /// parameters under `path`.
    ///
    /// Kingma & Dhariwal 2018 (arXiv 1807.03039), figure 2 and the authors' code: coupling networks with
    /// activation normalization, edge indicator and zero-initialised output, split priors and a top prior
    /// whose parameters are predicted by zero-initialised convolutions. A conditional model adds the class
    /// to the top prior and a classification loss on the top latent.
    ///
    /// # Errors
    /// [`Error::Config`] when the image cannot be halved `levels` times or a size is zero.
    pub fn build(&self, spec: &ImageSpec, path: &ParamPath) -> Result<ImageFlow> {
        spec.validate()?;
        if self.levels == 0 || self.steps == 0 || self.width == 0 {
            let (levels, steps, width) = (self.levels, self.steps, self.width);
            let reason = format!("levels, steps and width must be positive, got {levels}, {steps} and {width}");
            return Err(Error::config("glow", reason));
        }
        spec.check_scales("glow", self.levels, self.levels)?;
        let mut shape = spec.event_shape();
        let mut levels = Vec::with_capacity(self.levels);
        for i in 0..self.levels {
            let (level, kept) = level(self, &path.pp(format!("level{i}")), shape, i + 1 == self.levels)?;
            levels.push(level);
            shape = kept;
        }
        let top = TopPrior::new(&path.pp("prior"), shape, self.learn_top, self.class_condition)?;
        let head = |classes| ClassHead::new(&path.pp("classifier"), shape[0], classes, self.class_weight);
        let class_head = self.class_condition.map(head).transpose()?;
        let flow = MultiScale::new(path.store(), levels, Box::new(top))?;
        Ok(ImageFlow { class_head, ..ImageFlow::new(flow, PixelScaling::Centered) })
    }

    /// The flow of one level over `(C, H, W)`: squeeze to `(4C, H/2, W/2)` and `K` steps, without a split.
    ///
    /// # Errors
    /// [`Error::Config`] for odd sides.
    pub fn level(&self, path: &ParamPath, shape: [usize; 3]) -> Result<Box<dyn Bijector>> {
        let squeeze = Squeeze::new(&shape, 2)?;
        let event = squeeze.latent_shape().to_vec();
        let mut layers: Vec<Box<dyn Bijector>> = vec![Box::new(squeeze)];
        for k in 0..self.steps {
            let at = path.pp(format!("step{k}"));
            layers.push(Box::new(ActNorm::new(&at.pp("actnorm"), &event)?));
            layers.push(mixing(self.permutation, &at.pp("mix"), &event)?);
            layers.push(match self.coupling {
                GlowCoupling::Additive => coupling(self, Additive, &at.pp("coupling"), &event)?,
                GlowCoupling::Affine => coupling(self, Affine::new(ScaleBound::Sigmoid), &at.pp("coupling"), &event)?,
            });
        }
        Ok(Box::new(Chain::new(layers)?))
    }
}

/// One level over images of `shape`, and the shape that it passes on.
fn level(config: &GlowConfig, path: &ParamPath, shape: [usize; 3], last: bool) -> Result<(Level, [usize; 3])> {
    let flow = config.level(path, shape)?;
    let [c, h, w] = [flow.latent_shape()[0], shape[1] / 2, shape[2] / 2];
    if last {
        return Ok((Level { flow, split: None }, [c, h, w]));
    }
    let (kept, out) = (c.div_ceil(2), c / 2);
    let net = ZeroConv::new(&path.pp("split"), kept, 2 * out)?;
    let split = ConditionalGaussian::new(&[out, h, w], &[kept, h, w], net);
    Ok((Level { flow, split: Some(Box::new(split)) }, [kept, h, w]))
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
    config: &GlowConfig,
    transformer: T,
    path: &ParamPath,
    event: &[usize],
) -> Result<Box<dyn Bijector>> {
    let partition = Partition::Channels { swap: false };
    let inputs = Coupling::<T, CouplingNet>::input_channels(event[0], &partition);
    let outputs = Coupling::<T, CouplingNet>::output_channels(event[0], &partition, &transformer);
    let net =
        CouplingNet::with_activation(path, inputs, config.width, outputs, [event[1], event[2]], config.activation)?;
    Ok(Box::new(Coupling::new(event, partition, transformer, net)?))
}
