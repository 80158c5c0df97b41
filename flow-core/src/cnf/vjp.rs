//! The vector-Jacobian product of one evaluation: the only graph that training a continuous flow needs.

use candle_core::{Tensor, Var};

use super::dynamics::Dynamics;
use super::{Regularization, VectorField};
use crate::reversible::{gradient_or_zero, pair};
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

/// Pulls cotangents of the rates at scaled times `s` and points `x` back; parameter gradients go to `gradients`.
///
/// `grad_log_det` is that of the log-determinant's rate, `(B,)`; the penalties' follow from it. Without it the
/// divergence is not even computed.
pub(super) fn vjp<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    s: &[f64],
    x: &Tensor,
    grad_x: &Tensor,
    grad_log_det: Option<&Tensor>,
    weights: Regularization,
    gradients: &mut Gradients,
) -> Result<Vjp> {
    let x = Var::from_tensor(&x.detach())?;
    let context = dynamics.context.as_ref().map(|c| Var::from_tensor(&c.detach())).transpose()?;
    let tracked = dynamics.with_context(context.as_ref().map(|c| c.as_tensor().clone()));
    let (value, objective) = match grad_log_det {
        None => {
            let value = tracked.value(s, &x)?;
            let objective = pair(&value, grad_x)?;
            (value, objective)
        }
        Some(grad) => {
            let rates = tracked.rates(s, &x)?;
            let mut objective = pair(&rates.x, grad_x)?.add(&pair(&rates.log_det, grad)?)?;
            for (rate, weight) in [(rates.kinetic, weights.kinetic), (rates.jacobian, weights.jacobian)] {
                if let Some(rate) = rate {
                    objective = (objective - pair(&rate, &grad.affine(weight, 0.0)?)?)?;
                }
            }
            (rates.x, objective)
        }
    };
    let graph = objective.backward()?;
    gradients.accumulate(&graph)?;
    Ok(Vjp {
        value: value.detach(),
        x: gradient_or_zero(&graph, &x)?,
        context: context.as_ref().map(|c| gradient_or_zero(&graph, c)).transpose()?,
    })
}
