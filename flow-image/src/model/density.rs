//! What every family of image models offers, so that training, sampling and editing are written once.

use candle_core::Tensor;
use flow_core::bijector::LayerReport;
use flow_core::density::Latents;
use flow_core::{Backprop, Density, FlowRng, Gradients, Result, Scored};

/// A density of continuous images with latents that can be read, edited and sampled at a temperature.
///
/// # Shapes
/// - `x`: `(B, C, H, W)`; `context`: `(B, classes)` one-hot for a conditional model, else ignored.
pub trait ImageDensity: Density {
    /// Number of classes of a conditional model, `None` if labels are ignored.
    fn classes(&self) -> Option<usize> {
        None
    }

    /// The shapes of one sample's latents, finest first.
    fn latent_shapes(&self) -> Vec<Vec<usize>>;

    /// Whitened latents and `log p(x)`, `(B,)`, untracked.
    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Latents, Tensor)>;

    /// The image of whitened latents, untracked.
    fn decode(&self, latents: &Latents, context: Option<&Tensor>) -> Result<Tensor>;

    /// `n` samples with one temperature for every latent, finest first.
    fn sample_with(
        &self,
        n: usize,
        context: Option<&Tensor>,
        temperatures: &[f64],
        rng: &mut FlowRng,
    ) -> Result<Tensor>;

    /// What every layer does to a batch, in evaluation mode and untracked; empty for a model without layers
    /// to show.
    fn describe(&self, _x: &Tensor, _context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        Ok(Vec::new())
    }

    /// [`Density::log_prob_backward`] with the model's auxiliary objective, if it has one, to which the same
    /// weights apply (Glow's class loss on the top latent); also returns that objective, `(B,)`.
    fn backward_with(
        &self,
        x: &Tensor,
        context: Option<&Tensor>,
        weight: &Tensor,
        mode: Backprop,
        gradients: &mut Gradients,
    ) -> Result<(Scored, Option<Tensor>)> {
        Ok((self.log_prob_backward(x, context, weight, mode, gradients)?, None))
    }

    /// Adds the gradient of `scale · penalty` and returns the penalty on the parameters, in nats.
    fn penalize(&self, _scale: f64, _gradients: &mut Gradients) -> Result<f64> {
        Ok(0.0)
    }
}

/// [`Density`] of a model that is the flow in its field `flow`.
macro_rules! forward_density {
    ($model:ident) => {
        impl Density for $model {
            fn store(&self) -> &ParamStore {
                self.flow.store()
            }

            fn event_shape(&self) -> &[usize] {
                self.flow.event_shape()
            }

            fn log_prob(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
                self.flow.log_prob(x, context)
            }

            fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<()> {
                self.flow.initialize(x, context)
            }

            fn set_training(&self, training: bool) {
                self.flow.set_training(training);
            }

            fn set_noise(&self, rng: &mut FlowRng) {
                self.flow.set_noise(rng);
            }

            fn log_prob_backward(
                &self,
                x: &Tensor,
                context: Option<&Tensor>,
                weight: &Tensor,
                mode: Backprop,
                gradients: &mut Gradients,
            ) -> Result<Scored> {
                self.flow.log_prob_backward(x, context, weight, mode, gradients)
            }

            fn sample(
                &self,
                n: usize,
                context: Option<&Tensor>,
                temperature: f64,
                rng: &mut FlowRng,
            ) -> Result<Tensor> {
                self.flow.sample(n, context, temperature, rng)
            }
        }
    };
}

/// The methods of [`ImageDensity`] that a multi-scale flow in the field `flow` has.
macro_rules! forward_latents {
    () => {
        fn latent_shapes(&self) -> Vec<Vec<usize>> {
            self.flow.latent_shapes()
        }

        fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Latents, Tensor)> {
            self.flow.encode(x, context)
        }

        fn decode(&self, latents: &Latents, context: Option<&Tensor>) -> Result<Tensor> {
            self.flow.decode(latents, context)
        }

        fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
            self.flow.describe(x, context)
        }

        fn sample_with(
            &self,
            n: usize,
            context: Option<&Tensor>,
            temperatures: &[f64],
            rng: &mut FlowRng,
        ) -> Result<Tensor> {
            self.flow.sample_with(n, context, temperatures, rng)
        }
    };
}

pub(super) use {forward_density, forward_latents};
