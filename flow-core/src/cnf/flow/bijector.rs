//! The flow as a bijector, and its backward passes.

use candle_core::Tensor;

use super::super::adjoint::{self, Arrival};
use super::super::direct::{self, Coefficients, Record};
use super::super::dynamics::Dynamics;
use super::super::{Divergence, OdeGradient, VectorField};
use super::{Cnf, lock};
use crate::bijector::{Bijector, Pullback, Tape, zero_log_det};
use crate::error::Direction;
use crate::{Error, FlowRng, Gradients, Result};

impl<F: VectorField> Cnf<F> {
    fn backprop_direct(
        &self,
        dynamics: &Dynamics<'_, F>,
        x: &Tensor,
        tape: &[Tape],
        grad_z: &Tensor,
        grad_log_det: &Tensor,
        gradients: &mut Gradients,
    ) -> Result<Pullback> {
        let records = tape.iter().map(|t| Record::from_tape(&self.name, t)).collect::<Result<Vec<_>>>()?;
        let start = direct::backprop(
            dynamics,
            &Coefficients::of(self.config.solver.method),
            &records,
            self.config.regularization,
            &dynamics.by_row(&grad_z.contiguous()?)?,
            &dynamics.by_row(&grad_log_det.contiguous()?)?,
            gradients,
        )?;
        Ok(Pullback { x: x.clone(), grad_x: dynamics.points(&start.x)?, grad_context: start.context })
    }

    fn foreign_tape(&self) -> Error {
        Error::config(&self.name, "was given the tape of another bijector")
    }
}

impl<F: VectorField> Bijector for Cnf<F> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn context_shape(&self) -> Option<&[usize]> {
        self.context.as_ref().map(<[usize; 1]>::as_slice)
    }

    fn groups_context(&self) -> bool {
        true
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.transport(x, context, Direction::Encode)
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        self.transport(z, context, Direction::Decode)
    }

    fn set_noise(&self, rng: &mut FlowRng) {
        *lock(&self.noise) = rng.fork();
    }

    /// Keeps the input, and of every accepted step its start and the slopes of its stages; for the adjoint only
    /// Hutchinson's probe.
    fn encode_taped(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        if self.is_empty(x)? {
            return Ok((x.clone(), zero_log_det(x)?, Tape::Parts(Vec::new())));
        }
        let dynamics = self.dynamics(x, context, self.channels(), None)?;
        let probe = match self.config.divergence {
            Divergence::Exact => Vec::new(),
            Divergence::Hutchinson(_) => dynamics.tangents.clone(),
        };
        let direct = self.config.gradient == OdeGradient::Direct;
        let mut records = Vec::new();
        let state = self.solve(&dynamics, x, Direction::Encode, direct.then_some(&mut records))?;
        let (z, log_det) = self.finish(&state, Direction::Encode)?;
        let mut tape = vec![Tape::Saved(probe)];
        if direct {
            tape.push(Tape::Input(x.detach()));
            tape.extend(records.into_iter().map(Record::into_tape).collect::<Result<Vec<_>>>()?);
        }
        Ok((z, log_det, Tape::Parts(tape)))
    }

    /// Keeps the latent: solving back to it would cost more than its memory, and not quite come to it.
    fn decode_taped(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor, Tape)> {
        let (x, log_det) = self.decode(z, context)?;
        Ok((x, log_det, Tape::Input(z.detach())))
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
        if self.is_empty(z)? {
            let grad_context = context.map(Tensor::zeros_like).transpose()?;
            return Ok(Pullback { x: z.clone(), grad_x: grad_z.clone(), grad_context });
        }
        let parts = if let Tape::Parts(parts) = tape { parts.as_slice() } else { &[] };
        let [Tape::Saved(probe), parts @ ..] = parts else { return Err(self.foreign_tape()) };
        let dynamics = self.dynamics(z, context, self.channels(), probe.first())?;
        match (&self.config.gradient, parts) {
            (OdeGradient::Direct, [Tape::Input(x), steps @ ..]) => {
                self.backprop_direct(&dynamics, x, steps, grad_z, grad_log_det, gradients)
            }
            (OdeGradient::Adjoint { solver, seminorm }, []) => {
                let solver = solver.as_ref().unwrap_or(&self.config.solver);
                let options = solver.scaled(1.0 / dynamics.end.value);
                let (arrival, weights) = (Arrival { z, grad_z, grad_log_det }, self.config.regularization);
                let back = adjoint::backprop(&dynamics, &options, *seminorm, weights, arrival, gradients)?;
                lock(&self.statistics).adjoint = back.statistics;
                Ok(Pullback { x: back.x, grad_x: back.grad_x, grad_context: back.grad_context })
            }
            _ => Err(self.foreign_tape()),
        }
    }
}
