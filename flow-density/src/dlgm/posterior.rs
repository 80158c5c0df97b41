//! The maps that bend a Gaussian towards the posterior, one set for every image.

use candle_core::Tensor;
use flow_core::layers::{Coupling, MaskedAutoregressive, Partition, Permute, PlanarChain, RadialChain, SylvesterChain};
use flow_core::nn::{Linear, Mlp, MlpConfig};
use flow_core::numerics::host::tensor_like;
use flow_core::transformer::{Additive, Affine, ScaleBound};
use flow_core::{Bijector, Chain, Gradients, ParamPath, Tape};

use super::config::{DlgmConfig, Family};
use crate::{Error, Result};

/// How far an autoregressive map stretches an entry at most, as the logarithm.
const STRETCH: f64 = 2.0;

/// The first weights of the last layers of networks: small, so that a fresh posterior is nearly its Gaussian, and not
/// zero, so that all of it learns.
const FRESH: f64 = 1e-2;

/// The maps of a posterior in the direction of their closed form, which is the one that draws take, and the layer that says
/// their context of what the encoder makes of an image.
pub(super) struct Maps {
    pub(super) bijector: Box<dyn Bijector>,
    pub(super) context: Linear,
}

/// Draws that went through the maps.
pub(super) struct Bent {
    pub(super) z: Tensor,
    pub(super) log_det: Tensor,
    context: Tensor,
    tape: Tape,
}

impl Maps {
    /// `None` for a Gaussian.
    pub(super) fn new(path: &ParamPath, config: &DlgmConfig) -> Result<Option<Self>> {
        if config.flows == 0 {
            return Ok(None);
        }
        let maps = path.pp("posterior");
        let bijector = bijector(&maps, config)?;
        let width = bijector.context_shape().map_or(0, |shape| shape.iter().product());
        let context = Linear::uniform(&path.pp("context"), config.hidden, width)?;
        if config.family == Family::Planar {
            let chain = PlanarChain::amortized(config.latents, config.flows)?;
            begin(&path.pp("context"), &chain.identity(&mut maps.rng("start"))?)?;
        }
        Ok(Some(Maps { bijector, context }))
    }

    /// Takes draws from the Gaussians through the maps, outside any graph, for the encoder's `h`. On the CPU.
    pub(super) fn bend(&self, h: &Tensor, start: &Tensor, gradients: &Gradients) -> Result<Bent> {
        let _paused = gradients.no_grad();
        let context = self.context.evaluate(h)?;
        let (z, log_det, tape) = self.bijector.encode_taped(&start.detach(), Some(&context))?;
        Ok(Bent { z, log_det, context, tape })
    }

    /// The gradients of the draws before the maps and of `h`, for that of the draws behind them and for `-weight` of each
    /// log-determinant; those of parameters are added to `gradients`.
    pub(super) fn pull_back(
        &self,
        h: &Tensor,
        bent: &Bent,
        of_z: &Tensor,
        weight: f64,
        gradients: &mut Gradients,
    ) -> Result<(Tensor, Tensor)> {
        let of_log_det = bent.log_det.ones_like()?.affine(-weight, 0.0)?;
        let Bent { z, context, tape, .. } = bent;
        let pulled = self.bijector.backprop(z, tape, Some(context), of_z, &of_log_det, gradients)?;
        let of_context = match pulled.grad_context {
            Some(of_context) => of_context,
            None => context.zeros_like()?,
        };
        self.context.pull_back(h, &of_context, gradients)?;
        Ok((pulled.grad_x, self.context.pull_back_input(&of_context)?))
    }
}

fn bijector(path: &ParamPath, config: &DlgmConfig) -> Result<Box<dyn Bijector>> {
    let &DlgmConfig { latents, flows, network, units, family, .. } = config;
    let net = MlpConfig::new(&[network]).context(network).output_bound(FRESH);
    Ok(match family {
        Family::Planar => Box::new(PlanarChain::amortized(latents, flows)?),
        Family::Radial => Box::new(RadialChain::amortized(latents, flows)?),
        Family::Sylvester => Box::new(SylvesterChain::amortized(latents, units, flows)?),
        Family::Nice => Box::new(chain(path, flows, |path| coupling(path, latents, &net))?),
        Family::Iaf => Box::new(chain(path, flows, |path| autoregressive(path, latents, &net))?),
    })
}

/// Makes the layer that says the context begin so that posteriors are their Gaussians: the parameters of the maps are
/// `start` and hardly depend on the image.
fn begin(layer: &ParamPath, start: &[f64]) -> Result<()> {
    let (store, prefix) = (layer.store(), layer.prefix());
    let (Some(weight), Some(bias)) = (store.get(&format!("{prefix}.weight")), store.get(&format!("{prefix}.bias")))
    else {
        return Err(Error::config(prefix, "is no layer with a bias"));
    };
    weight.set(&(weight.var().as_detached_tensor() * FRESH)?)?;
    Ok(bias.set(&tensor_like(start, start.len(), bias.var())?)?)
}

/// Maps of two layers each.
fn chain(path: &ParamPath, flows: usize, map: impl Fn(&ParamPath) -> Result<[Box<dyn Bijector>; 2]>) -> Result<Chain> {
    let mut layers = Vec::with_capacity(2 * flows);
    for k in 0..flows {
        layers.extend(map(&path.pp(format!("map{k:03}")))?);
    }
    Ok(Chain::new(layers)?)
}

/// One half is shifted by a function of the other and of the image, then all change places.
fn coupling(path: &ParamPath, latents: usize, net: &MlpConfig) -> Result<[Box<dyn Bijector>; 2]> {
    let partition = Partition::Channels { swap: false };
    let inputs = Coupling::<Additive, Mlp>::input_channels(latents, &partition);
    let outputs = Coupling::<Additive, Mlp>::output_channels(latents, &partition, &Additive);
    let net = Mlp::new(&path.pp("net"), inputs, outputs, net)?;
    let coupling = Coupling::new(&[latents], partition, Additive, net)?;
    Ok([Box::new(coupling), Box::new(Permute::random(&path.pp("turn"), &[latents])?)])
}

/// Every entry is moved by functions of those before it and of the image, then the order is turned round.
fn autoregressive(path: &ParamPath, latents: usize, net: &MlpConfig) -> Result<[Box<dyn Bijector>; 2]> {
    let affine = Affine::new(ScaleBound::SoftClamp(STRETCH));
    let layer = MaskedAutoregressive::new(&path.pp("net"), latents, affine, net)?;
    Ok([Box::new(layer), Box::new(Permute::reverse(&path.pp("turn"), &[latents])?)])
}

/// A row of `context` for each of `rows` rows: every one serves as many consecutive rows as the others.
pub(super) fn repeated(context: &Tensor, rows: usize) -> Result<Tensor> {
    let (groups, width) = context.dims2()?;
    if groups == rows {
        return Ok(context.clone());
    }
    let each = context.unsqueeze(1)?.broadcast_as((groups, rows / groups.max(1), width))?;
    Ok(each.contiguous()?.reshape((rows, width))?)
}
