//! Masked autoregressive flows.

use flow_core::layers::{ActNorm, MaskedAutoregressive};
use flow_core::nn::MlpConfig;
use flow_core::{Bijector, Chain, ParamPath, ParamStore};

use super::{Conditioned, DiscreteFlow, Mixing, TransformerConfig, layer_paths, over_gaussian, turned};
use crate::Result;

/// Bins of a spline where none are named.
const BINS: usize = 8;

/// The masked autoregressive flow (MAF, Papamakarios et al. 2017, arXiv 1705.07057) over vectors of `features` entries:
/// affine maps whose shift and scale of entry `d` are functions of the entries before it and of the context.
///
/// Five transforms unless [`Conditioned::transforms`] says otherwise. In one dimension without a context all of them
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
    Conditioned::new(features, 5, Masked { mixing: Mixing::Reverse, inverse: false })
}

/// The autoregressive neural spline flow (Durkan et al. 2019, arXiv 1906.04032) over vectors of `features` entries: as
/// [`maf`], with rational-quadratic splines of eight bins in place of affine maps.
pub fn nsf_autoregressive(features: usize) -> Autoregressive {
    maf(features).transformer(TransformerConfig::spline(BINS))
}

/// What [`maf`] and [`nsf_autoregressive`] start from.
///
/// Each transform is an [`ActNorm`], a [`MaskedAutoregressive`] layer and a [`Mixing`]. Encoding, and so the density, is
/// one pass of each network; sampling takes `features` passes.
pub type Autoregressive = Conditioned<Masked>;

/// The structure of [`Autoregressive`]: an entry is conditioned on those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Masked {
    mixing: Mixing,
    inverse: bool,
}

impl Autoregressive {
    /// What lies between transforms, the reversed order by default.
    #[must_use]
    pub fn mixing(mut self, mixing: Mixing) -> Self {
        self.structure.mixing = mixing;
        self
    }

    /// Turns the flow round, which makes it the inverse autoregressive flow (IAF, Kingma et al. 2016, arXiv 1606.04934):
    /// sampling is one pass of each network, and the density takes `features` passes.
    #[must_use]
    pub fn inverse(mut self) -> Self {
        self.structure.inverse = true;
        self
    }

    /// The bijector alone, with parameters `layer00.norm…`, `layer00.net…`, … under `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no flow.
    pub fn bijector(&self, path: &ParamPath) -> Result<Chain> {
        let config = self.network();
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        for path in layer_paths(path, self.features, self.transforms)? {
            layers.push(Box::new(ActNorm::new(&path.pp("norm"), &[self.features])?));
            layers.push(layer(&path, self.features, self.transformer, &config)?);
            self.structure.mixing.push(&mut layers, &path, self.features)?;
        }
        Ok(Chain::new(if self.structure.inverse { turned(layers) } else { layers })?)
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
