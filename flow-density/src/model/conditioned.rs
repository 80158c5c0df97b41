//! What the builders of flows with a network in each transform share.

use flow_core::nn::{Activation, MlpConfig};

use super::{TransformerConfig, network, usual_widths};

/// The builder of a flow whose transforms move entries by an elementwise map with parameters that a network reads from
/// other entries and from the context. Which entries those are is the structure `S`:
/// [`Autoregressive`](super::Autoregressive) or [`Couplings`](super::Couplings).
#[derive(Debug, Clone, PartialEq)]
pub struct Conditioned<S> {
    pub(super) features: usize,
    pub(super) context: Option<usize>,
    pub(super) transforms: usize,
    pub(super) hidden: Vec<usize>,
    pub(super) activation: Activation,
    pub(super) transformer: TransformerConfig,
    pub(super) waves: usize,
    pub(super) structure: S,
}

impl<S> Conditioned<S> {
    /// Affine maps, networks of the usual widths, no context.
    pub(super) fn new(features: usize, transforms: usize, structure: S) -> Self {
        Conditioned {
            features,
            context: None,
            transforms,
            hidden: usual_widths(features),
            activation: Activation::Silu,
            transformer: TransformerConfig::affine(),
            waves: 0,
            structure,
        }
    }

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

    /// The network of a transform.
    pub(super) fn network(&self) -> MlpConfig {
        network(&self.hidden, self.activation, self.context)
    }
}
