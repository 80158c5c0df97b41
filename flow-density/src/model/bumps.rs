//! Planar, radial and Sylvester flows: layers of few parameters, each of which bends space in one place.

use candle_core::{Device, Tensor};
use flow_core::layers::{ActNorm, Coupling, Partition, Planar, PlanarChain, Radial, Sylvester};
use flow_core::nn::{Activation, Conditioner, Mlp};
use flow_core::transformer::Transformer;
use flow_core::{Bijector, Chain, ParamPath, ParamStore};

use super::{DiscreteFlow, TransformerConfig, layer_paths, network, over_gaussian, turned, usual_widths};
use crate::{Error, Result};

/// The planar flow (Rezende & Mohamed 2015, arXiv 1505.05770) over vectors of `features` entries, of 32 transforms: each
/// is one hyperbolic tangent along one direction.
pub fn planar(features: usize) -> Bumps {
    Bumps::new(features, Family::Planar, 32)
}

/// The radial flow (Rezende & Mohamed 2015, arXiv 1505.05770) over vectors of `features` entries, of 32 transforms: each
/// expands or contracts space around one point.
pub fn radial(features: usize) -> Bumps {
    Bumps::new(features, Family::Radial, 32)
}

/// The Sylvester flow (van den Berg et al. 2018, arXiv 1803.05649) over vectors of `features` entries, of eight transforms:
/// each is a hyperbolic tangent along `width` orthogonal directions at once, `features` by default and at most.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::{Density, FlowRng, ParamStore};
///
/// # fn main() -> flow_density::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let flow = flow_density::model::sylvester(3).width(2).transforms(4).build(&store)?;
/// let x = flow.sample(7, None, 1.0, &mut FlowRng::seed_from(2))?;
/// assert_eq!(flow.log_prob(&x, None)?.dims(), &[7]);
/// # Ok(())
/// # }
/// ```
pub fn sylvester(features: usize) -> Bumps {
    Bumps::new(features, Family::Sylvester, 8)
}

/// What [`planar`], [`radial`] and [`sylvester`] start from.
///
/// Encoding is the closed direction, so these are densities; [`Bumps::inverse`] turns them round where samples have to be
/// cheap.
///
/// # Context
/// The layers themselves take none. With [`Bumps::context`] each has a shift and a scale of every entry before it, which
/// are functions of the context: where a layer bends, and how sharply, then depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bumps {
    features: usize,
    family: Family,
    width: Option<usize>,
    context: Option<usize>,
    transforms: usize,
    hidden: Vec<usize>,
    inverse: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    Planar,
    Radial,
    Sylvester,
}

impl Bumps {
    fn new(features: usize, family: Family, transforms: usize) -> Self {
        Bumps {
            features,
            family,
            width: None,
            context: None,
            transforms,
            hidden: usual_widths(features),
            inverse: false,
        }
    }

    /// The number of transforms.
    #[must_use]
    pub fn transforms(mut self, transforms: usize) -> Self {
        self.transforms = transforms;
        self
    }

    /// The orthogonal directions of each layer of a Sylvester flow; the others have no width.
    #[must_use]
    pub fn width(mut self, width: usize) -> Self {
        self.width = Some(width);
        self
    }

    /// The widths of the hidden layers of the networks that read the context; without one there are no networks.
    #[must_use]
    pub fn hidden(mut self, widths: &[usize]) -> Self {
        self.hidden = widths.to_vec();
        self
    }

    /// Makes it a conditional density `p(x | c)` with `c` of `size` entries; a size of zero is no context.
    #[must_use]
    pub fn context(mut self, size: usize) -> Self {
        self.context = (size > 0).then_some(size);
        self
    }

    /// Turns the flow round: sampling becomes the closed direction, and the density takes the iteration. That is the flow of
    /// variational inference, where samples are drawn in every step; its base is a Gaussian of learned means and deviations,
    /// by an [`ActNorm`] under `base`.
    #[must_use]
    pub fn inverse(mut self) -> Self {
        self.inverse = true;
        self
    }

    /// The bijector alone, with the layers' parameters under `layer00`, … of `path`, and those of the networks that read
    /// a context under `layer00.context`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no flow.
    pub fn bijector(&self, path: &ParamPath) -> Result<Chain> {
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        let paths = layer_paths(path, self.features, self.transforms)?;
        if let (Family::Planar, None, None) = (self.family, self.width, self.context) {
            let planes = paths.iter().map(|path| Planar::new(path, self.features)).collect::<flow_core::Result<_>>()?;
            layers.push(Box::new(PlanarChain::of_layers(planes)?));
        } else {
            for path in paths {
                if let Some(size) = self.context {
                    layers.push(conditional_affine(&path.pp("context"), self.features, size, &self.hidden)?);
                }
                layers.push(self.layer(&path)?);
            }
        }
        if self.inverse {
            layers = turned(layers);
            layers.push(Box::new(ActNorm::new(&path.pp("base"), &[self.features])?));
        }
        Ok(Chain::new(layers)?)
    }

    fn layer(&self, path: &ParamPath) -> Result<Box<dyn Bijector>> {
        let dims = self.features;
        Ok(match (self.family, self.width) {
            (Family::Sylvester, width) => Box::new(Sylvester::new(path, dims, width.unwrap_or(dims))?),
            (Family::Planar, None) => Box::new(Planar::new(path, dims)?),
            (Family::Radial, None) => Box::new(Radial::new(path, dims)?),
            (family, Some(_)) => {
                let name = format!("{family:?}").to_lowercase();
                return Err(Error::config(
                    "width",
                    format!("is for Sylvester flows, a {name} layer has one direction"),
                ));
            }
        })
    }

    /// The flow over a standard Gaussian, with seed, precision and device of `store`.
    ///
    /// # Errors
    /// As [`Bumps::bijector`].
    pub fn build(&self, store: &ParamStore) -> Result<DiscreteFlow> {
        over_gaussian(store, self.bijector(&store.root())?)
    }
}

/// A shift and a scale of every entry that are functions of the context: a coupling that nothing conditions but that.
fn conditional_affine(path: &ParamPath, dims: usize, context: usize, hidden: &[usize]) -> Result<Box<dyn Bijector>> {
    let transformer = TransformerConfig::affine().build()?;
    let net =
        Mlp::new(path, context, dims * transformer.params_per_element(), &network(hidden, Activation::Silu, None))?;
    let nothing = Partition::Mask(Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu)?);
    Ok(Box::new(Coupling::new(&[dims], nothing, transformer, OfContext { net, shape: [context] })?))
}

/// A network of the context alone.
struct OfContext {
    net: Mlp,
    shape: [usize; 1],
}

impl Conditioner for OfContext {
    fn forward(&self, _x: &Tensor, context: Option<&Tensor>) -> flow_core::Result<Tensor> {
        let missing = || flow_core::Error::Context {
            layer: "conditional affine".into(),
            reason: "needs a context, none was given".into(),
        };
        self.net.forward(context.ok_or_else(missing)?, None)
    }

    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.shape)
    }
}
