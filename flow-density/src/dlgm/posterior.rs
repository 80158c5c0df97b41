//! The maps that bend a Gaussian towards the posterior, one set for every image.

use candle_core::Tensor;
use flow_core::layers::{Coupling, MaskedAutoregressive, Partition, Permute, PlanarChain, RadialChain, SylvesterChain};
use flow_core::nn::{Mlp, MlpConfig};
use flow_core::numerics::host::tensor_like;
use flow_core::transformer::{Additive, Affine, ScaleBound};
use flow_core::{Bijector, Chain, ParamPath};

use super::config::{DlgmConfig, Family};
use crate::{Error, Result};

/// How far an autoregressive map stretches an entry at most, as the logarithm.
const STRETCH: f64 = 2.0;

/// The first weights of the last layers of networks: small, so that a fresh posterior is nearly its Gaussian, and not
/// zero, so that all of it learns.
const FRESH: f64 = 1e-2;

/// The maps of a posterior, and the context with which they begin.
pub(super) struct Maps {
    pub(super) bijector: Box<dyn Bijector>,
    pub(super) start: Option<Vec<f64>>,
}

/// The maps of a posterior in the direction of their closed form, which is the one that draws take: the context is what
/// the encoder says of an image. `None` for a Gaussian.
pub(super) fn maps(path: &ParamPath, config: &DlgmConfig) -> Result<Option<Maps>> {
    let &DlgmConfig { latents, flows, network, units, family, .. } = config;
    if flows == 0 {
        return Ok(None);
    }
    let net = MlpConfig::new(&[network]).context(network).output_bound(FRESH);
    let mut start = None;
    let bijector: Box<dyn Bijector> = match family {
        Family::Planar => {
            let chain = PlanarChain::amortized(latents, flows)?;
            start = Some(chain.identity(&mut path.rng("start"))?);
            Box::new(chain)
        }
        Family::Radial => Box::new(RadialChain::amortized(latents, flows)?),
        Family::Sylvester => Box::new(SylvesterChain::amortized(latents, units, flows)?),
        Family::Nice => Box::new(chain(path, flows, |path| coupling(path, latents, &net))?),
        Family::Iaf => Box::new(chain(path, flows, |path| autoregressive(path, latents, &net))?),
    };
    Ok(Some(Maps { bijector, start }))
}

/// Makes the layer that says all of a code begin so that posteriors are their Gaussians: the parameters of the maps, which
/// follow `first` other numbers, are `start` and hardly depend on the image.
pub(super) fn begin(layer: &ParamPath, first: usize, start: &[f64]) -> Result<()> {
    let (store, prefix) = (layer.store(), layer.prefix());
    let (Some(weight), Some(bias)) = (store.get(&format!("{prefix}.weight")), store.get(&format!("{prefix}.bias")))
    else {
        return Err(Error::config(prefix, "is no layer with a bias"));
    };
    let (own, rest) = (weight.var().narrow(1, 0, first)?, weight.var().narrow(1, first, start.len())?);
    weight.set(&Tensor::cat(&[own, rest.affine(FRESH, 0.0)?], 1)?)?;
    let start = tensor_like(start, start.len(), bias.var())?;
    Ok(bias.set(&Tensor::cat(&[bias.var().narrow(0, 0, first)?, start], 0)?)?)
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
