//! Composition and inversion of bijectors.

use candle_core::Tensor;

use crate::bijector::{Bijector, LayerReport, Pullback, Tape};
use crate::error::Direction;
use crate::{Error, FlowRng, Gradients, Result};

/// Bijectors applied one after the other in the encode direction.
///
/// `z = fₙ(… f₁(x))`, and the log-determinants add up.
pub struct Chain {
    layers: Vec<Box<dyn Bijector>>,
    context_shape: Option<Vec<usize>>,
}

impl Chain {
    /// Checks that neighbouring shapes fit and that all layers agree on the context.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty chain or the first pair that does not fit.
    pub fn new(layers: Vec<Box<dyn Bijector>>) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::config("chain", "needs at least one layer"));
        }
        for (i, pair) in layers.windows(2).enumerate() {
            if pair[0].latent_shape() != pair[1].event_shape() {
                return Err(Error::config(
                    format!("chain layer {}", i + 1),
                    format!(
                        "{} takes {:?} but {} before it gives {:?}",
                        pair[1].name(),
                        pair[1].event_shape(),
                        pair[0].name(),
                        pair[0].latent_shape()
                    ),
                ));
            }
        }
        let mut context_shape: Option<Vec<usize>> = None;
        for layer in &layers {
            if let Some(shape) = layer.context_shape() {
                match &context_shape {
                    Some(known) if known != shape => {
                        let reason = format!("wants context {shape:?}, an earlier layer {known:?}");
                        return Err(Error::config(format!("chain layer {}", layer.name()), reason));
                    }
                    _ => context_shape = Some(shape.to_vec()),
                }
            }
        }
        Ok(Chain { layers, context_shape })
    }

    /// The layers in encode order.
    pub fn layers(&self) -> &[Box<dyn Bijector>] {
        &self.layers
    }

    /// The tapes of the layers.
    fn parts<'a>(&self, tape: &'a Tape) -> Result<&'a [Tape]> {
        match tape {
            Tape::Parts(parts) if parts.len() == self.layers.len() => Ok(parts),
            _ => Err(Error::config(self.name(), "was given the tape of another bijector")),
        }
    }
}

/// Runs `step` over `layers`, adding up log-determinants.
fn fold<'a>(
    layers: impl Iterator<Item = &'a Box<dyn Bijector>>,
    start: &Tensor,
    step: impl Fn(&dyn Bijector, &Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<(Tensor, Tensor)> {
    let mut value = start.clone();
    let mut total: Option<Tensor> = None;
    for layer in layers {
        let (next, log_det) = step(layer.as_ref(), &value)?;
        total = Some(match total {
            None => log_det,
            Some(sum) => (sum + log_det)?,
        });
        value = next;
    }
    let total = match total {
        Some(total) => total,
        None => crate::bijector::zero_log_det(&value)?,
    };
    Ok((value, total))
}

impl Bijector for Chain {
    fn name(&self) -> String {
        format!("chain of {}", self.layers.len())
    }

    fn event_shape(&self) -> &[usize] {
        self.layers.first().map_or(&[], |l| l.event_shape())
    }

    fn latent_shape(&self) -> &[usize] {
        self.layers.last().map_or(&[], |l| l.latent_shape())
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.context_shape.as_deref()
    }

    fn groups_context(&self) -> bool {
        self.context_shape.is_some() && self.layers.iter().all(|l| l.context_shape().is_none() || l.groups_context())
    }

    fn analytic(&self, direction: Direction) -> bool {
        self.layers.iter().all(|l| l.analytic(direction))
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        fold(self.layers.iter(), x, |layer, x| layer.encode(x, context))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        fold(self.layers.iter().rev(), z, |layer, z| layer.decode(z, context))
    }

    fn initialize(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        fold(self.layers.iter(), x, |layer, x| layer.initialize(x, context))
    }

    fn set_training(&self, training: bool) {
        self.layers.iter().for_each(|l| l.set_training(training));
    }

    fn set_noise(&self, rng: &mut FlowRng) {
        self.layers.iter().for_each(|l| l.set_noise(rng));
    }

    fn describe(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Vec<LayerReport>> {
        let (mut x, mut reports) = (x.clone(), Vec::with_capacity(self.layers.len()));
        for (index, layer) in self.layers.iter().enumerate() {
            reports.extend(layer.describe(&x, context)?.into_iter().map(|r| r.within(&index.to_string())));
            x = layer.encode(&x, context)?.0;
        }
        Ok(reports)
    }

    fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        let tapes = std::cell::RefCell::new(Vec::with_capacity(self.layers.len()));
        let (z, log_det) = fold(self.layers.iter(), x, |layer, x| {
            let (z, log_det, tape) = layer.encode_taped(x, context)?;
            tapes.borrow_mut().push(tape);
            Ok((z, log_det))
        })?;
        Ok((z, log_det, Tape::Parts(tapes.into_inner())))
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
        let parts = self.parts(tape)?;
        let mut state = Pullback { x: z.clone(), grad_x: grad_z.clone(), grad_context: None };
        for (layer, part) in self.layers.iter().zip(parts).rev() {
            let next = layer.backprop(&state.x, part, context, &state.grad_x, grad_log_det, gradients)?;
            let grad_context = crate::autodiff::add_optional(state.grad_context, next.grad_context)?;
            state = Pullback { grad_context, ..next };
        }
        Ok(state)
    }

    fn decode_taped(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        let tapes = std::cell::RefCell::new(Vec::with_capacity(self.layers.len()));
        let (x, log_det) = fold(self.layers.iter().rev(), z, |layer, z| {
            let (x, log_det, tape) = layer.decode_taped(z, context)?;
            tapes.borrow_mut().push(tape);
            Ok((x, log_det))
        })?;
        let mut tapes = tapes.into_inner();
        tapes.reverse();
        Ok((x, log_det, Tape::Parts(tapes)))
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
        let parts = self.parts(tape)?;
        let mut state = Pullback { x: x.clone(), grad_x: grad_x.clone(), grad_context: None };
        for (layer, part) in self.layers.iter().zip(parts) {
            let next = layer.backprop_decode(&state.x, part, context, &state.grad_x, grad_log_det, gradients)?;
            let grad_context = crate::autodiff::add_optional(state.grad_context, next.grad_context)?;
            state = Pullback { grad_context, ..next };
        }
        Ok(state)
    }
}

/// The same map with its directions exchanged: `Inverse(f).encode = f.decode`.
///
/// IAF is the inverse of MAF: fast sampling, slow likelihood.
pub struct Inverse<B>(pub B);

impl<B: Bijector> Bijector for Inverse<B> {
    fn name(&self) -> String {
        format!("inverse of {}", self.0.name())
    }
    fn event_shape(&self) -> &[usize] {
        self.0.latent_shape()
    }
    fn latent_shape(&self) -> &[usize] {
        self.0.event_shape()
    }
    fn context_shape(&self) -> Option<&[usize]> {
        self.0.context_shape()
    }
    fn groups_context(&self) -> bool {
        self.0.groups_context()
    }
    fn analytic(&self, direction: Direction) -> bool {
        self.0.analytic(direction.opposite())
    }
    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.0.decode(x, context)
    }
    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.0.encode(z, context)
    }
    fn set_training(&self, training: bool) {
        self.0.set_training(training);
    }
    fn set_noise(&self, rng: &mut FlowRng) {
        self.0.set_noise(rng);
    }
    fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        self.0.decode_taped(x, context)
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
        self.0.backprop_decode(z, tape, context, grad_z, grad_log_det, gradients)
    }
    fn decode_taped(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        self.0.encode_taped(z, context)
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
        self.0.backprop(x, tape, context, grad_x, grad_log_det, gradients)
    }
}
