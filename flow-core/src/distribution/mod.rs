//! Base densities: what the latent of a flow is distributed as.

use candle_core::Tensor;

use crate::bijector::check_float;
use crate::{Error, FlowRng, Result};

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

/// Refuses a temperature that is not a number of at least zero, on behalf of the density `name`; every
/// [`Distribution::sample`] calls it.
///
/// # Errors
/// [`Error::Config`] naming both.
pub fn check_temperature(name: &str, temperature: f64) -> Result<()> {
    if temperature.is_finite() && temperature >= 0.0 {
        return Ok(());
    }
    let reason =
        format!("must be a number of at least 0 for {name}, got {temperature}; 1 is the model's own distribution");
    Err(Error::config("temperature", reason))
}

/// The samples, unless they are of a type that cannot hold them.
fn in_floats(name: &str, samples: Tensor) -> Result<Tensor> {
    check_float(name, &samples)?;
    Ok(samples)
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
    ///
    /// # Errors
    /// [`Error::Config`] for a negative temperature or one that is not finite.
    fn sample(&self, n: usize, context: Option<&Tensor>, temperature: f64, rng: &mut FlowRng) -> Result<Tensor>;

    /// `n` samples at temperature 1 as a differentiable function of the parameters and the context: the noise is drawn,
    /// and what is done with it is tracked (Kingma & Welling 2014, section 2.4).
    ///
    /// Two calls with generators in the same state draw the same noise.
    ///
    /// # Errors
    /// [`Error::Config`] for a density whose draws are no such function, which is the default: a mixture chooses a
    /// component.
    fn rsample(&self, _n: usize, _context: Option<&Tensor>, _rng: &mut FlowRng) -> Result<Tensor> {
        let reason = "its draws cannot be differentiated; use a Gaussian, logistic or uniform base, or a fit that only \
                      scores draws (forward divergence by importance weights)";
        Err(Error::config(self.name(), reason))
    }

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

/// A pointer to a density is a density.
macro_rules! forward {
    ($pointer:ty) => {
        impl<D: Distribution + ?Sized> Distribution for $pointer {
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
            fn sample(
                &self,
                n: usize,
                context: Option<&Tensor>,
                temperature: f64,
                rng: &mut FlowRng,
            ) -> Result<Tensor> {
                (**self).sample(n, context, temperature, rng)
            }
            fn rsample(&self, n: usize, context: Option<&Tensor>, rng: &mut FlowRng) -> Result<Tensor> {
                (**self).rsample(n, context, rng)
            }
            fn whiten(&self, z: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
                (**self).whiten(z, context)
            }
            fn color(&self, noise: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
                (**self).color(noise, context)
            }
        }
    };
}

forward!(Box<D>);
// A density that is part of a flow, and known to others as well.
forward!(std::sync::Arc<D>);

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::testing::distribution::refusals;
    use crate::testing::numbers::store64;

    #[test]
    fn every_density_refuses_what_makes_no_sense() {
        let (store, cpu, shape) = (store64(1), Device::Cpu, [2]);
        let root = store.root();
        let densities: Vec<Box<dyn Distribution>> = vec![
            Box::new(StandardGaussian::new(&shape, DType::F64, &cpu)),
            Box::new(DiagonalGaussian::new(&root.pp("gaussian"), &shape).unwrap()),
            Box::new(StandardLogistic::new(&shape, DType::F64, &cpu)),
            Box::new(LearnedLogistic::new(&root.pp("logistic"), &shape).unwrap()),
            Box::new(GaussianMixture::new(&root.pp("mixture"), &shape, 3, 1.0).unwrap()),
            Box::new(Uniform::new(&shape, -1.0, 1.0, DType::F64, &cpu).unwrap()),
        ];
        densities.iter().for_each(|d| refusals(d.as_ref()));
        for integer in [DType::U8, DType::I64] {
            let standard = StandardGaussian::new(&shape, integer, &cpu);
            let drawn = standard.sample(2, None, 1.0, &mut FlowRng::seed_from(1));
            assert!(matches!(drawn, Err(Error::DType { .. })), "{integer:?}");
        }
        assert!(GaussianMixture::new(&root.pp("nan"), &shape, 3, f64::NAN).is_err());
    }
}
