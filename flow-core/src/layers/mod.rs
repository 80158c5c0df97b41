//! Bijectors, one per file.

mod actnorm;
mod amortized;
mod autoregressive;
mod batch_norm;
mod blockwise;
pub mod constraint;
mod conv1x1;
mod coupling;
mod gaussianize;
mod logit;
mod moving_batch_norm;
mod permute;
mod planar;
mod planar_chain;
mod radial;
mod radial_chain;
mod scaling;
mod squeeze;
mod sylvester;

pub use actnorm::ActNorm;
pub use autoregressive::MaskedAutoregressive;
pub use batch_norm::BatchNorm;
pub use blockwise::{Blockwise, Identity};
pub use conv1x1::{InvertibleConv, Parametrization};
pub use coupling::{Coupling, Partition};
pub use gaussianize::Gaussianize;
pub use logit::{Logit, Sigmoid};
pub use moving_batch_norm::{MovingBatchNorm, MovingStatistics};
pub use permute::Permute;
pub use planar::Planar;
pub use planar_chain::PlanarChain;
pub use radial::Radial;
pub use radial_chain::RadialChain;
pub use scaling::Scaling;
pub use squeeze::Squeeze;
pub use sylvester::Sylvester;
