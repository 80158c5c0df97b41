//! Masked autoregressive flows.

use flow_core::layers::{ActNorm, MaskedAutoregressive};
use flow_core::nn::{Activation, MlpConfig};
use flow_core::{Bijector, Chain, ParamPath, ParamStore};

use super::{DiscreteFlow, Mixing, TransformerConfig, layer_paths, network, over_gaussian, usual_widths};
use crate::Result;

/// Bins of a spline where none are named.
const BINS: usize = 8;

/// The masked autoregressive flow (MAF, Papamakarios et al. 2017, arXiv 1705.07057) over vectors of `features` entries:
/// affine maps whose shift and scale of entry `d` are functions of the entries before it and of the context.
///
/// Five transforms unless [`Autoregressive::transforms`] says otherwise. In one dimension without a context all of them
/// are constants, and the density a Gaussian: take [`nsf_autoregressive`], or another transformer.
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::{Density, FlowRng, ParamStore};
///
/// # fn main() -> flow_density::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let flow = flow_density::model::maf(2).transforms(5).hidden(&[64, 64]).context(1).build(&store)?;
/// let context = FlowRng::seed_from(1).normal((7, 1), DType::F32, &Device::Cpu)?;
/// let x = flow.sample(7, Some(&context), 1.0, &mut FlowRng::seed_from(2))?;
/// assert_eq!(flow.log_prob(&x, Some(&context))?.dims(), &[7]);
/// # Ok(())
/// # }
/// ```
pub fn maf(features: usize) -> Autoregressive {
    Autoregressive {
        features,
        context: None,
        transforms: 5,
        hidden: usual_widths(features),
        activation: Activation::Silu,
        transformer: TransformerConfig::affine(),
        mixing: Mixing::Reverse,
    }
}

/// The autoregressive neural spline flow (Durkan et al. 2019, arXiv 1906.04032) over vectors of `features` entries: as
/// [`maf`], with rational-quadratic splines of eight bins in place of affine maps.
pub fn nsf_autoregressive(features: usize) -> Autoregressive {
    Autoregressive { transformer: TransformerConfig::spline(BINS), ..maf(features) }
}

/// What [`maf`] and [`nsf_autoregressive`] start from.
///
/// Each transform is an [`ActNorm`], a [`MaskedAutoregressive`] layer and a [`Mixing`]. Encoding, and so the density, is
/// one pass of each network; sampling takes `features` passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoregressive {
    features: usize,
    context: Option<usize>,
    transforms: usize,
    hidden: Vec<usize>,
    activation: Activation,
    transformer: TransformerConfig,
    mixing: Mixing,
}

impl Autoregressive {
    /// The number of transforms.
    #[must_use]
    pub fn transforms(mut self, transforms: usize) -> Self {
        self.transforms = transforms;
        self
    }

    /// The widths of the networks' hidden layers; two of 64 units by default, of eight for each feature where that is
    /// more, up to 512.
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

    /// The nonlinearity of the networks, `x·σ(x)` by default.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The elementwise map.
    #[must_use]
    pub fn transformer(mut self, transformer: TransformerConfig) -> Self {
        self.transformer = transformer;
        self
    }

    /// What lies between transforms, the reversed order by default.
    #[must_use]
    pub fn mixing(mut self, mixing: Mixing) -> Self {
        self.mixing = mixing;
        self
    }

    /// The bijector alone, with parameters `layer00.norm…`, `layer00.net…`, … under `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no flow.
    pub fn bijector(&self, path: &ParamPath) -> Result<Chain> {
        let config = network(&self.hidden, self.activation, self.context);
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        for path in layer_paths(path, self.features, self.transforms)? {
            layers.push(Box::new(ActNorm::new(&path.pp("norm"), &[self.features])?));
            layers.push(layer(&path, self.features, self.transformer, &config)?);
            self.mixing.push(&mut layers, &path, self.features)?;
        }
        Ok(Chain::new(layers)?)
    }

    /// The flow over a standard Gaussian, with seed, precision and device of `store`.
    ///
    /// # Errors
    /// As [`Autoregressive::bijector`].
    pub fn build(&self, store: &ParamStore) -> Result<DiscreteFlow> {
        over_gaussian(store, self.bijector(&store.root())?)
    }
}

/// One autoregressive layer with its network under `net`.
pub(super) fn layer(
    path: &ParamPath,
    dims: usize,
    transformer: TransformerConfig,
    config: &MlpConfig,
) -> Result<Box<dyn Bijector>> {
    Ok(Box::new(MaskedAutoregressive::new(&path.pp("net"), dims, transformer.build()?, config)?))
}
