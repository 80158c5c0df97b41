//! Coupling flows.

use flow_core::layers::{ActNorm, Coupling, Partition};
use flow_core::nn::Mlp;
use flow_core::transformer::Transformer;
use flow_core::{Bijector, Chain, ParamPath, ParamStore};

use super::{Conditioned, DiscreteFlow, Mixing, TransformerConfig, autoregressive, layer_paths, over_gaussian};
use crate::{Error, Result};

/// Bins of a spline where none are named.
const BINS: usize = 8;

/// RealNVP for vectors (Dinh et al. 2017, arXiv 1605.08803): affine couplings, one half of the entries being shifted and
/// scaled by functions of the other half and of the context.
///
/// Eight transforms unless [`Conditioned::transforms`] says otherwise. In one dimension see [`Couplings`].
///
/// ```
/// use candle_core::{DType, Device};
/// use flow_core::{Density, FlowRng, ParamStore};
///
/// # fn main() -> flow_density::Result<()> {
/// let store = ParamStore::new(0, DType::F32, &Device::Cpu);
/// let flow = flow_density::model::realnvp(3).hidden(&[32]).build(&store)?;
/// let x = flow.sample(7, None, 1.0, &mut FlowRng::seed_from(2))?;
/// assert_eq!(flow.log_prob(&x, None)?.dims(), &[7]);
/// # Ok(())
/// # }
/// ```
pub fn realnvp(features: usize) -> Couplings {
    Conditioned::new(features, 8, Halves)
}

/// The neural spline flow with couplings (Durkan et al. 2019, arXiv 1906.04032): as [`realnvp`], with rational-quadratic
/// splines of eight bins in place of affine maps, and five transforms.
pub fn nsf_coupling(features: usize) -> Couplings {
    realnvp(features).transforms(5).transformer(TransformerConfig::spline(BINS))
}

/// What [`realnvp`] and [`nsf_coupling`] start from.
///
/// Each transform is an [`ActNorm`], a learned invertible matrix ([`Mixing::Plu`]) and a [`Coupling`]; density and samples
/// cost the same. The matrix gives every entry its turn; a permutation may leave some in the conditioning half of all
/// couplings, as reversal does the middle one of an odd number.
///
/// # In few dimensions
/// In the plane the two entries take turns, which is all that a mixing is for, and there is none. In **one dimension** there
/// is nothing to couple: the layer is then the one-dimensional autoregressive one, whose parameters are functions of the
/// context alone, and constants without one. Affine maps make a Gaussian of that, splines and mixtures any shape.
pub type Couplings = Conditioned<Halves>;

/// The structure of [`Couplings`]: one half of the entries is conditioned on the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Halves;

impl Couplings {
    /// Lets the networks see so many waves of each of their inputs ([`Mlp`]), none by default: for densities that bend often.
    /// In one dimension networks have no inputs, and waves are refused.
    #[must_use]
    pub fn waves(mut self, waves: usize) -> Self {
        self.waves = waves;
        self
    }

    /// The bijector alone, with parameters `layer00.norm…`, `layer00.net…`, … under `path`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the number that makes no flow.
    pub fn bijector(&self, path: &ParamPath) -> Result<Chain> {
        let dims = self.features;
        let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
        for (index, path) in layer_paths(path, dims, self.transforms)?.iter().enumerate() {
            layers.push(Box::new(ActNorm::new(&path.pp("norm"), &[dims])?));
            if dims > 2 {
                Mixing::Plu.push(&mut layers, path, dims)?;
            }
            layers.push(self.layer(path, index)?);
        }
        Ok(Chain::new(layers)?)
    }

    /// The flow over a standard Gaussian, with seed, precision and device of `store`.
    ///
    /// # Errors
    /// As [`Couplings::bijector`].
    pub fn build(&self, store: &ParamStore) -> Result<DiscreteFlow> {
        over_gaussian(store, self.bijector(&store.root())?)
    }

    /// The coupling of a transform; what replaces it in one dimension.
    fn layer(&self, path: &ParamPath, index: usize) -> Result<Box<dyn Bijector>> {
        let (dims, config) = (self.features, self.network());
        if dims == 1 && self.waves > 0 {
            return Err(Error::config("waves", "one dimension has no inputs to see waves of; leave them out"));
        }
        if dims == 1 {
            return autoregressive::layer(path, dims, self.transformer, &config);
        }
        let (transformer, partition) =
            (self.transformer.build()?, Partition::Channels { swap: dims == 2 && index % 2 == 1 });
        let inputs = Coupling::<Box<dyn Transformer>, Mlp>::input_channels(dims, &partition);
        let outputs = Coupling::<Box<dyn Transformer>, Mlp>::output_channels(dims, &partition, &transformer);
        let net = Mlp::new(&path.pp("net"), inputs, outputs, &config.waves(self.waves))?;
        let coupling = Coupling::new(&[dims], partition, transformer, net)?;
        Ok(match self.context {
            Some(size) => Box::new(coupling.with_context(&[size])),
            None => Box::new(coupling),
        })
    }
}
