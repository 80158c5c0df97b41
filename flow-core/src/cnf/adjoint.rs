//! The continuous adjoint: gradients from an equation that is integrated backward.
//!
//! With `λ(s)` the gradient of the objective with respect to `x(s)` and `g` that of the log-determinant,
//! `dλ/ds = -∂/∂x (λ·F + g·L)` and the gradient of a parameter `θ` is `∫ ∂/∂θ (λ·F + g·L) ds`, where `F` and `L` are
//! the rates of `x` and of the log-determinant (Chen et al. 2018, algorithm 1; the log-determinant's own adjoint is
//! constant, since nothing depends on it).

use candle_core::Tensor;

use super::dynamics::Dynamics;
use super::ode::{Parts, SolveOptions, Statistics, solve};
use super::vjp::{Cotangents, vjp};
use super::{Regularization, VectorField};
use crate::param::Param;
use crate::{Error, Gradients, Result};

/// The start of a solve, reconstructed, with its gradients.
pub(super) struct Adjoint {
    /// `(B, D)`.
    pub(super) x: Tensor,
    /// `(B, D)`.
    pub(super) grad_x: Tensor,
    /// `(G, C)`, if there is a context.
    pub(super) grad_context: Option<Tensor>,
    pub(super) statistics: Statistics,
}

/// The latent and the gradients that arrive at it.
pub(super) struct Arrival<'a> {
    /// `(B, D)`.
    pub(super) z: &'a Tensor,
    /// `(B, D)`.
    pub(super) grad_z: &'a Tensor,
    /// `(B,)`.
    pub(super) grad_log_det: &'a Tensor,
}

/// Integrates state, adjoint and parameter gradients from scaled time 1 to 0.
pub(super) fn backprop<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    options: &SolveOptions,
    seminorm: bool,
    weights: Regularization,
    Arrival { z, grad_z, grad_log_det }: Arrival<'_>,
    gradients: &mut Gradients,
) -> Result<Adjoint> {
    let store = gradients.store().clone();
    let evaluate = |s: f64, x: &Tensor, adjoint: &Tensor| {
        let mut found = Gradients::new(&store);
        let cotangents = Cotangents { x: adjoint.clone(), log_det: Some(grad_log_det.clone()) };
        let back = vjp(dynamics, &[s], x, &cotangents, weights, &mut found)?;
        Ok::<_, Error>((back, found))
    };
    // The parameters that the field uses; others of the model have no gradient to integrate.
    let used: Vec<Param> = {
        let (_, found) = evaluate(1.0, z, grad_z)?;
        found.iter().filter(|(_, gradient)| gradient.is_some()).map(|(param, _)| param.clone()).collect()
    };
    let mut start = vec![z.detach(), grad_z.detach()];
    let context = dynamics.context.as_ref().map(Tensor::zeros_like).transpose()?;
    start.extend(context.iter().map(Tensor::detach));
    for param in &used {
        start.push(param.var().zeros_like()?.detach());
    }
    let counted = if seminorm { 2 } else { start.len() };
    let mut rates = |s: f64, state: &Parts| -> Result<Parts> {
        let [x, adjoint, ..] = state.y.as_slice() else { return Err(Error::config("adjoint", "lost its state")) };
        let (back, found) = evaluate(s, x, adjoint)?;
        let mut y = vec![back.value, back.x.neg()?];
        if let Some(gradient) = &back.context {
            y.push(gradient.neg()?);
        }
        for param in &used {
            y.push(match found.get(param) {
                Some(gradient) => gradient.neg()?,
                None => param.var().zeros_like()?,
            });
        }
        Ok(Parts { y: y.into_iter().map(|t| t.detach()).collect(), counted })
    };
    let solution = solve(&mut rates, &Parts { y: start, counted }, [1.0, 0.0], options)?;
    let mut parts = solution.y.y.into_iter();
    let (Some(x), Some(grad_x)) = (parts.next(), parts.next()) else {
        return Err(Error::config("adjoint", "lost its state"));
    };
    let grad_context = if context.is_some() { parts.next() } else { None };
    for (param, gradient) in used.iter().zip(parts) {
        gradients.add(param, &gradient)?;
    }
    Ok(Adjoint { x, grad_x, grad_context, statistics: solution.statistics })
}
