//! The vector-Jacobian product of one evaluation: the only graph that training a continuous flow needs.

use candle_core::Tensor;

use super::dynamics::Dynamics;
use super::{Regularization, VectorField};
use crate::autodiff::{Leaves, pair};
use crate::{Gradients, Result};

/// What comes back from one evaluation.
pub(super) struct Vjp {
    /// `T f`, `(B, D)`, detached.
    pub(super) value: Tensor,
    /// The gradient with respect to `x`, `(B, D)`.
    pub(super) x: Tensor,
    /// The gradient with respect to the context, if there is one.
    pub(super) context: Option<Tensor>,
}

/// The cotangents of one evaluation.
#[derive(Clone)]
pub(super) struct Cotangents {
    /// That of `T f`, `(B, D)`.
    pub(super) x: Tensor,
    /// That of the log-determinant's rate, `(B,)`, from which the penalties' follow. Without it the divergence is not
    /// even computed.
    pub(super) log_det: Option<Tensor>,
}

/// Pulls the cotangents of the rates at scaled times `s` and points `x` back; parameter gradients go to `gradients`.
pub(super) fn vjp<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    s: &[f64],
    x: &Tensor,
    cotangents: &Cotangents,
    weights: Regularization,
    gradients: &mut Gradients,
) -> Result<Vjp> {
    let Some(pieces) = dynamics.pieces(s, x)? else {
        return whole(dynamics, s, x, cotangents, weights, gradients);
    };
    let (mut values, mut xs, mut contexts): (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>) = Default::default();
    let mut last_group = None;
    for piece in &pieces {
        let log_det = cotangents.log_det.as_ref().map(|g| piece.of(g)).transpose()?;
        let cotangents = Cotangents { x: piece.of(&cotangents.x)?, log_det };
        let part = whole(&piece.dynamics, &piece.s, &piece.of(x)?, &cotangents, weights, gradients)?;
        values.push(part.value);
        xs.push(part.x);
        if let Some(gradient) = part.context {
            // Pieces of one group share its row of the context.
            match contexts.last_mut() {
                Some(sum) if last_group == Some(piece.group) => *sum = (&*sum + gradient)?,
                _ => contexts.push(gradient),
            }
            last_group = Some(piece.group);
        }
    }
    let context = if contexts.is_empty() { None } else { Some(Tensor::cat(&contexts, 0)?) };
    Ok(Vjp { value: Tensor::cat(&values, 0)?, x: Tensor::cat(&xs, 0)?, context })
}

/// The same in one graph.
fn whole<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    s: &[f64],
    x: &Tensor,
    cotangents: &Cotangents,
    weights: Regularization,
    gradients: &mut Gradients,
) -> Result<Vjp> {
    let leaves = Leaves::new(x, dynamics.context.as_ref())?;
    let (x, tracked) = (leaves.x(), dynamics.with_context(leaves.context().cloned()));
    let (value, objective) = match &cotangents.log_det {
        Some(grad) if tracked.channels.any() => penalised(&tracked, s, x, &cotangents.x, grad, weights)?,
        log_det => {
            let (objective, value) = tracked.pairing(s, x, &cotangents.x, log_det.as_ref())?;
            (value, objective)
        }
    };
    let (x, context) = leaves.pull_back(&objective, gradients)?;
    Ok(Vjp { value: value.detach(), x, context })
}

/// The value and the objective with the penalties' terms.
fn penalised<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    s: &[f64],
    x: &Tensor,
    cotangent: &Tensor,
    grad_log_det: &Tensor,
    weights: Regularization,
) -> Result<(Tensor, Tensor)> {
    let rates = dynamics.rates(s, x)?;
    let mut objective = pair(&rates.x, cotangent)?.add(&pair(&rates.log_det, grad_log_det)?)?;
    for (rate, weight) in [(rates.kinetic, weights.kinetic), (rates.jacobian, weights.jacobian)] {
        if let Some(rate) = rate {
            objective = (objective - pair(&rate, &grad_log_det.affine(weight, 0.0)?)?)?;
        }
    }
    Ok((rates.x, objective))
}
