//! Base densities: what the latent of a flow is distributed as.

use candle_core::Tensor;

use crate::{FlowRng, Result};

mod gaussian;
mod logistic;
mod mixture;
mod uniform;

pub use gaussian::{ConditionalGaussian, DiagonalGaussian, StandardGaussian, gaussian_log_prob};
pub use logistic::{LearnedLogistic, StandardLogistic};
pub use mixture::GaussianMixture;
pub use uniform::Uniform;

/// `ln √(2π)`.
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;

/// The shape of `n` samples of `shape`.
fn batched(n: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(n).chain(shape.iter().copied()).collect()
}

/// A density over latents with exact log-probability and sampling.
///
/// # Shapes
/// - `z`: `(B, event_shape…)`, `log_prob`: `(B,)` in nats.
pub trait Distribution: Send + Sync {
    /// A short name for messages.
    fn name(&self) -> String;

    /// The shape of one sample, without the batch dimension.
    fn event_shape(&self) -> &[usize];

    /// The shape of one context sample, `None` if the context is ignored.
    fn context_shape(&self) -> Option<&[usize]> {
        None
    }

    /// `log p(z | context)` in nats, shape `(B,)`.
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor>;

    /// `n` samples. `temperature` multiplies the standard deviation; 1 is the model's own distribution.
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor>;

    /// Removes location and scale: the noise `ε` that [`Distribution::color`] maps back to `z`.
    ///
    /// The default, for densities without a location-scale form, is the identity.
    fn whiten(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        Ok(z.clone())
    }

    /// The inverse of [`Distribution::whiten`].
    fn color(&self, noise: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        Ok(noise.clone())
    }
}

impl<D: Distribution + ?Sized> Distribution for Box<D> {
    fn name(&self) -> String {
        (**self).name()
    }
    fn event_shape(&self) -> &[usize] {
        (**self).event_shape()
    }
    fn context_shape(&self) -> Option<&[usize]> {
        (**self).context_shape()
    }
    fn log_prob(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        (**self).log_prob(z, context)
    }
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor> {
        (**self).sample(n, context, temperature, rng)
    }
    fn whiten(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        (**self).whiten(z, context)
    }
    fn color(&self, noise: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        (**self).color(noise, context)
    }
}
