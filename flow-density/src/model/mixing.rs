//! What lets entries take turns between the layers of a discrete flow.

use flow_core::layers::{InvertibleConv, Parametrization, Permute};
use flow_core::{Bijector, ParamPath};
use serde::{Deserialize, Serialize};

use crate::Result;

/// How entries change places between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Mixing {
    /// The order is turned round (Papamakarios et al. 2017): what was conditioned on most is conditioned on least.
    Reverse,
    /// A random order for each layer, drawn from the store's seed.
    Random,
    /// A learned invertible matrix in PLU form (Kingma & Dhariwal 2018): more than a permutation, and `D²` parameters.
    Plu,
}

impl Mixing {
    /// Adds the layer over `dims` entries; the names under `path` are `turn` for permutations and `mix` for matrices.
    ///
    /// A matrix of one entry would be a second scale beside that of the normalisation, and is left out.
    pub(super) fn push(self, layers: &mut Vec<Box<dyn Bijector>>, path: &ParamPath, dims: usize) -> Result<()> {
        match self {
            Mixing::Reverse => layers.push(Box::new(Permute::reverse(&path.pp("turn"), &[dims])?)),
            Mixing::Random => layers.push(Box::new(Permute::random(&path.pp("turn"), &[dims])?)),
            Mixing::Plu if dims > 1 => {
                layers.push(Box::new(InvertibleConv::new(&path.pp("mix"), &[dims], Parametrization::Plu)?));
            }
            Mixing::Plu => {}
        }
        Ok(())
    }
}
