//! Which elementwise map a discrete flow moves its entries by.

use flow_core::transformer::{Affine, LogisticMixture, RationalQuadraticSpline, ScaleBound, Transformer};
use serde::{Deserialize, Serialize};

use crate::Result;

/// `|ln s|` of an affine map stays below this.
const CLAMP: f64 = 3.0;
/// Half the interval on which a spline bends; standardised data and latents lie inside, nearly all.
const SPLINE_BOUND: f64 = 5.0;

/// A [`Transformer`] as a value: each layer of a builder makes one of its own.
///
/// Another transformer than these goes into a flow that is put together by hand, from
/// [`MaskedAutoregressive`](flow_core::layers::MaskedAutoregressive) or [`Coupling`](flow_core::layers::Coupling).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransformerConfig {
    /// `y = (x + t)·s` with a bounded scale ([`Affine`]).
    Affine {
        /// How the scale is bounded.
        bound: ScaleBound,
    },
    /// A monotone rational-quadratic spline with linear tails ([`RationalQuadraticSpline`]).
    Spline {
        /// The number of pieces.
        bins: usize,
        /// Where the tails begin.
        bound: f64,
    },
    /// The cumulative distribution function of a mixture of logistics ([`LogisticMixture`]): several modes in one layer.
    /// Decoding is iterative.
    LogisticMixture {
        /// The number of logistics.
        components: usize,
    },
}

impl TransformerConfig {
    /// An affine map whose log-scale is softly clamped to ±3.
    pub fn affine() -> Self {
        TransformerConfig::Affine { bound: ScaleBound::SoftClamp(CLAMP) }
    }

    /// A spline of `bins` pieces on `[-5, 5]`.
    pub fn spline(bins: usize) -> Self {
        TransformerConfig::Spline { bins, bound: SPLINE_BOUND }
    }

    /// A mixture of `components` logistics.
    pub fn logistic_mixture(components: usize) -> Self {
        TransformerConfig::LogisticMixture { components }
    }

    /// The transformer.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for numbers that make none: fewer than two bins, a bound that is not positive, no
    /// component.
    pub fn build(self) -> Result<Box<dyn Transformer>> {
        Ok(match self {
            TransformerConfig::Affine { bound } => Box::new(Affine::new(bound)),
            TransformerConfig::Spline { bins, bound } => Box::new(RationalQuadraticSpline::new(bins, bound)?),
            TransformerConfig::LogisticMixture { components } => Box::new(LogisticMixture::new(components)?),
        })
    }
}
