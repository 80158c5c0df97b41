//! Flows over vectors: a builder for each family, and what a checkpoint says of a model.
//!
//! A builder is a function that takes the number of features, and methods for everything else; it knows of no data and of
//! no training:
//!
//! | builder | density | samples | shape of one dimension |
//! |---|---|---|---|
//! | [`maf`] | one pass | a pass for each feature | Gaussian, or what the transformer can |
//! | [`nsf_autoregressive`] | one pass | a pass for each feature | any |
//! | [`realnvp`] | one pass | one pass | Gaussian, or what the transformer can |
//! | [`nsf_coupling`] | one pass | one pass | any |
//! | [`planar`], [`radial`], [`sylvester`] | one pass | a scalar iteration for each unit | any |
//! | [`cnf`], [`matching`] | an ordinary differential equation | the same backward | any |
//!
//! `build(&store)` gives the flow over a standard Gaussian; seed, precision and device are the
//! [`ParamStore`]'s. `bijector(&path)` gives the map alone, to be put over another base, turned round by
//! [`Inverse`], or made part of a larger model.
//!
//! Layers that normalise ([`ActNorm`](flow_core::layers::ActNorm)) take their first scales from data when
//! [`Density::initialize`](flow_core::Density::initialize) is called with a batch; without that call they start as the
//! identity, which suits standardised data as well.

mod any;
mod autoregressive;
mod bumps;
mod conditioned;
mod config;
mod continuous;
mod couplings;
mod mixing;
mod transformer;

use std::sync::Arc;

use flow_core::cnf::{Cnf, ConcatSquash};
use flow_core::distribution::StandardGaussian;
use flow_core::nn::{Activation, MlpConfig};
use flow_core::{Bijector, Chain, Flow, Inverse, ParamPath, ParamStore};

use crate::{Error, Result};

pub use any::Model;
pub use autoregressive::{Autoregressive, Masked, maf, nsf_autoregressive};
pub use bumps::{Bumps, planar, radial, sylvester};
pub use conditioned::Conditioned;
pub use config::{Kind, ModelConfig, Purpose};
pub use continuous::{Continuous, cnf, matching};
pub use couplings::{Couplings, Halves, nsf_coupling, realnvp};
pub use mixing::Mixing;
pub use transformer::TransformerConfig;

/// The end time of continuous flows.
pub const END_TIME: f64 = 1.0;

/// A chain of layers over a standard Gaussian.
pub type DiscreteFlow = Flow<Chain, StandardGaussian>;

/// The solution of a differential equation over a standard Gaussian.
pub type ContinuousFlow = Flow<Cnf<Arc<ConcatSquash>>, StandardGaussian>;

/// The layers of the inverse map.
fn turned(layers: Vec<Box<dyn Bijector>>) -> Vec<Box<dyn Bijector>> {
    layers.into_iter().rev().map(|layer| Box::new(Inverse(layer)) as Box<dyn Bijector>).collect()
}

/// The flow of a map over vectors.
pub(crate) fn over_gaussian<B: Bijector>(store: &ParamStore, bijector: B) -> Result<Flow<B, StandardGaussian>> {
    let base = StandardGaussian::new(bijector.latent_shape(), store.dtype(), store.device());
    Ok(Flow::new(store, bijector, base)?)
}

/// Where the parameters of each transform lie.
fn layer_paths(path: &ParamPath, features: usize, transforms: usize) -> Result<Vec<ParamPath>> {
    for (what, number) in [("features", features), ("transforms", transforms)] {
        if number == 0 {
            return Err(Error::config(what, "must be at least 1, got 0"));
        }
    }
    Ok((0..transforms).map(|index| path.pp(format!("layer{index:02}"))).collect())
}

/// Two hidden layers that are wide enough for every feature.
fn usual_widths(features: usize) -> Vec<usize> {
    vec![features.saturating_mul(8).clamp(64, 512); 2]
}

fn network(hidden: &[usize], activation: Activation, context: Option<usize>) -> MlpConfig {
    MlpConfig::new(hidden).activation(activation).context(context)
}
