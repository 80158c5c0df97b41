//! The central contract: an invertible map that knows its log-determinant.
//!
//! Directions are named by meaning. **Encode** maps data `x` to latent `z` (the normalizing
//! direction, used for likelihoods), **decode** maps latent to data (the generative direction, used
//! for sampling). Each returns its value together with the per-sample `log |det J|` of *that*
//! direction, a tensor of shape `(B,)`, in one pass.

mod chain;
mod checks;
mod each_row;
mod inspect;

use std::sync::Arc;

use candle_core::Tensor;

pub use chain::{Chain, Inverse};
pub use checks::{
    check_batch, check_batch_as, check_context, check_domain, check_dtype, check_float, check_shape,
    first_non_finite_row, sum_event, zero_log_det,
};
pub use each_row::{EachRow, each_row};
pub(crate) use inspect::scale_range;
pub use inspect::{LayerReport, largest};

use crate::autodiff::{Leaves, pair};
use crate::error::Direction;
use crate::{Error, FlowRng, Gradients, Result};

/// What a bijector keeps of a pass so that it can be back-propagated later.
///
/// Memory does not grow with depth as long as layers return [`Tape::Inverse`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Tape {
    /// Nothing: the input is reconstructed from the output.
    Inverse,
    /// The input, because the inverse is slow or not analytic.
    Input(Tensor),
    /// Some small tensors of the layer's own (batch statistics).
    Saved(Vec<Tensor>),
    /// The tapes of the parts, in encode order whatever the direction of the pass.
    Parts(Vec<Tape>),
}

/// The result of back-propagation through one bijector.
#[derive(Debug, Clone)]
pub struct Pullback {
    /// The input of the pass, reconstructed or recalled: data, of a decode pass the latent.
    pub x: Tensor,
    /// The gradient of the objective with respect to that input.
    pub grad_x: Tensor,
    /// The gradient with respect to the context, if there is a context that the bijector uses.
    pub grad_context: Option<Tensor>,
}

/// An invertible, differentiable map between data `x` and latent `z`.
///
/// # Shapes
/// - `x`: `(B, event_shape…)`; `z`: `(B, latent_shape…)`; log-determinants: `(B,)`.
/// - `context`: `(B, context_shape…)` if [`Bijector::context_shape`] is `Some`, ignored otherwise: what no layer of a
///   flow takes, the [`Flow`](crate::Flow) refuses.
///
/// # Errors
/// Methods check their arguments and return [`Error::Shape`], [`Error::DType`] or [`Error::Context`]
/// naming the layer; they never panic on input. Where a row has no answer ([`Error::NotInvertible`], [`Error::Domain`])
/// the error names it, and [`each_row`] returns the results of the others.
pub trait Bijector: Send + Sync {
    /// A short name for messages, `coupling(affine)`.
    fn name(&self) -> String;

    /// The shape of one data sample, without the batch dimension.
    fn event_shape(&self) -> &[usize];

    /// The shape of one latent sample. Same number of elements as the event.
    fn latent_shape(&self) -> &[usize] {
        self.event_shape()
    }

    /// The shape of one context sample, `None` if the context is ignored.
    fn context_shape(&self) -> Option<&[usize]> {
        None
    }

    /// Whether a context may have fewer rows than the batch: `G` rows of which each serves `B/G` consecutive samples.
    ///
    /// Where `false`, a flow gives its bijector one row of context for each sample, repeating a single one.
    fn groups_context(&self) -> bool {
        false
    }

    /// Whether `direction` has a closed form costing about as much as the other one.
    ///
    /// `false` for the sequential direction of an autoregressive map, and for maps without an inverse.
    fn analytic(&self, _direction: Direction) -> bool {
        true
    }

    /// `z = f(x)` and `log |det ∂f/∂x|`.
    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)>;

    /// `x = f⁻¹(z)` and `log |det ∂f⁻¹/∂z|`.
    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)>;

    /// Data-dependent initialisation from one batch, then an encode pass with the new parameters.
    ///
    /// An explicit call, made once before training; loading a checkpoint never triggers it.
    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.encode(x, context)
    }

    /// Switches batch statistics on (training) or to their running averages (evaluation).
    fn set_training(&self, _training: bool) {}

    /// Fresh random numbers for stochastic estimates in the passes that follow (the probe of a stochastic divergence).
    ///
    /// Layers keep a generator forked from `rng`, so that all passes up to the next call see the same numbers.
    /// Layers without such estimates leave `rng` untouched.
    fn set_noise(&self, _rng: &mut FlowRng) {}

    /// What every layer does to a batch, in encode order. Call it in evaluation mode with tracking paused.
    ///
    /// The default is the one entry that can be written for any bijector; a composition returns one for
    /// each of its layers, a layer with scales or a matrix adds their ranges.
    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        Ok(vec![LayerReport::of(self, x, context)?])
    }

    /// An encode pass that leaves a [`Tape`] for [`Bijector::backprop`]. Call it with tracking paused.
    fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        let (z, log_det) = self.encode(x, context)?;
        let tape = if self.analytic(Direction::Decode) { Tape::Inverse } else { Tape::Input(x.clone()) };
        Ok((z, log_det, tape))
    }

    /// Pulls gradients with respect to `z` and to the log-determinant back to the input.
    ///
    /// Parameter gradients are added to `gradients`. `grad_log_det` has shape `(B,)`. The default
    /// reconstructs the input, rebuilds this one layer's graph and back-propagates through it; layers
    /// on the hot path override it with hand-written gradients.
    fn backprop(
        &self,
        z: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        backprop_locally(self, z, tape, context, grad_z, grad_log_det, gradients)
    }

    /// A decode pass that leaves a [`Tape`] for [`Bijector::backprop_decode`]. Call it with tracking paused.
    fn decode_taped(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        let (x, log_det) = self.decode(z, context)?;
        let tape = if self.analytic(Direction::Encode) { Tape::Inverse } else { Tape::Input(z.clone()) };
        Ok((x, log_det, tape))
    }

    /// As [`Bijector::backprop`] for a decode pass: pulls gradients with respect to `x` and to the log-determinant of
    /// decoding back to the latent, which is the [`Pullback::x`] of the result.
    ///
    /// This is what fits a flow by its own samples: memory does not grow with depth here either.
    fn backprop_decode(
        &self,
        x: &Tensor,
        tape: &Tape,
        context: Option<&Tensor>,
        grad_x: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        backprop_decode_locally(self, x, tape, context, grad_x, grad_log_det, gradients)
    }
}

impl LayerReport {
    /// What can be said of any bijector.
    ///
    /// # Errors
    /// Those of [`Bijector::encode`] and [`Bijector::decode`].
    pub fn of<B: Bijector + ?Sized>(layer: &B, x: &Tensor, context: Option<&Tensor>) -> Result<Self> {
        let (z, _) = layer.encode(x, context)?;
        let round_trip = match layer.analytic(Direction::Decode) {
            true => Some(largest(&(layer.decode(&z, context)?.0 - x)?)?),
            false => None,
        };
        let largest = largest(&z)?;
        Ok(LayerReport { place: String::new(), name: layer.name(), scale: None, condition: None, largest, round_trip })
    }
}

/// The default of [`Bijector::backprop`]: reconstruct, rebuild the layer's graph, differentiate it.
pub fn backprop_locally<B: Bijector + ?Sized>(
    layer: &B,
    z: &Tensor,
    tape: &Tape,
    context: Option<&Tensor>,
    grad_z: &Tensor,
    grad_log_det: &Tensor,
    gradients: &mut Gradients,
) -> Result<Pullback> {
    backprop_in(Direction::Encode, layer, z, tape, context, grad_z, grad_log_det, gradients)
}

/// The default of [`Bijector::backprop_decode`], as [`backprop_locally`].
pub(crate) fn backprop_decode_locally<B: Bijector + ?Sized>(
    layer: &B,
    x: &Tensor,
    tape: &Tape,
    context: Option<&Tensor>,
    grad_x: &Tensor,
    grad_log_det: &Tensor,
    gradients: &mut Gradients,
) -> Result<Pullback> {
    backprop_in(Direction::Decode, layer, x, tape, context, grad_x, grad_log_det, gradients)
}

/// One layer's own graph of a pass in `direction` whose result was `output`, differentiated.
#[allow(clippy::too_many_arguments, reason = "those of the trait's methods and the direction")]
fn backprop_in<B: Bijector + ?Sized>(
    direction: Direction,
    layer: &B,
    output: &Tensor,
    tape: &Tape,
    context: Option<&Tensor>,
    grad_output: &Tensor,
    grad_log_det: &Tensor,
    gradients: &mut Gradients,
) -> Result<Pullback> {
    let run = |direction: Direction, input: &Tensor, context: Option<&Tensor>| match direction {
        Direction::Encode => layer.encode(input, context),
        Direction::Decode => layer.decode(input, context),
    };
    let input = match tape {
        Tape::Input(input) => input.clone(),
        Tape::Inverse => {
            let _paused = gradients.no_grad();
            run(direction.opposite(), output, context)?.0
        }
        _ => return Err(Error::config(layer.name(), "cannot use the tape it was given")),
    };
    let leaves = Leaves::new(&input, context.filter(|_| layer.context_shape().is_some()))?;
    let (value, log_det) = run(direction, leaves.x(), leaves.context())?;
    let objective = (pair(&value, grad_output)? + pair(&log_det, grad_log_det)?)?;
    let (grad_x, grad_context) = leaves.pull_back(&objective, gradients)?;
    Ok(Pullback { x: leaves.x().detach(), grad_x, grad_context })
}

/// A pointer to a bijector is a bijector.
macro_rules! forward_bijector {
    ($($pointer:ident),*) => {$(
        impl<B: Bijector + ?Sized> Bijector for $pointer<B> {
            fn name(&self) -> String {
                (**self).name()
            }
            fn event_shape(&self) -> &[usize] {
                (**self).event_shape()
            }
            fn latent_shape(&self) -> &[usize] {
                (**self).latent_shape()
            }
            fn context_shape(&self) -> Option<&[usize]> {
                (**self).context_shape()
            }
            fn groups_context(&self) -> bool {
                (**self).groups_context()
            }
            fn analytic(&self, direction: Direction) -> bool {
                (**self).analytic(direction)
            }
            fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
                (**self).encode(x, context)
            }
            fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
                (**self).decode(z, context)
            }
            fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
                (**self).initialize(x, context)
            }
            fn set_training(&self, training: bool) {
                (**self).set_training(training);
            }
            fn set_noise(&self, rng: &mut FlowRng) {
                (**self).set_noise(rng);
            }
            fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
                (**self).describe(x, context)
            }
            fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
                (**self).encode_taped(x, context)
            }
            fn backprop(
                &self,
                z: &Tensor,
                tape: &Tape,
                context: Option<&Tensor>,
                grad_z: &Tensor,
                grad_log_det: &Tensor,
                gradients: &mut Gradients,
            ) -> Result<Pullback> {
                (**self).backprop(z, tape, context, grad_z, grad_log_det, gradients)
            }
            fn decode_taped(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
                (**self).decode_taped(z, context)
            }
            fn backprop_decode(
                &self,
                x: &Tensor,
                tape: &Tape,
                context: Option<&Tensor>,
                grad_x: &Tensor,
                grad_log_det: &Tensor,
                gradients: &mut Gradients,
            ) -> Result<Pullback> {
                (**self).backprop_decode(x, tape, context, grad_x, grad_log_det, gradients)
            }
        }
    )*};
}
forward_bijector!(Box, Arc);
