//! Elementwise invertible maps whose parameters come from a conditioner.
//!
//! A coupling or an autoregressive structure takes one of these as a value: `n` structures and `m`
//! transformers cost `n + m` files.

use candle_core::{Tensor, Var};

use crate::autodiff::{gradient_or_zero, pair};
use crate::bijector::{check_dtype, check_float, sum_event};
use crate::{Error, Result};

mod affine;
mod logistic_mixture;
mod spline;

pub use affine::{Additive, Affine, ScaleBound};
pub use logistic_mixture::LogisticMixture;
pub use spline::RationalQuadraticSpline;

/// `y = τ(x; θ)`, monotone in each element of `x`.
///
/// # Shapes
/// - `x`, `y` and the elementwise log-derivatives: `(B, C, …)`.
/// - `params`: `(B, C, P, …)`, the `P` parameters of channel `c` side by side in dimension 2.
pub trait Transformer: Send + Sync {
    /// A short name for messages.
    fn name(&self) -> String;

    /// `P`, the number of parameters per transformed element.
    fn params_per_element(&self) -> usize;

    /// Refuses settings that make no map; the layers that take a transformer call it when they are built.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// `y` and `ln |∂y/∂x|` for every element.
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)>;

    /// `x` and `ln |∂x/∂y|` for every element.
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)>;

    /// [`Transformer::encode`] with the log-derivatives summed over each sample, `(B,)`.
    ///
    /// One pass on the hot path of a coupling; the default sums what `encode` returns.
    fn encode_summed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (y, log) = self.encode(x, params)?;
        Ok((y, sum_event(&log)?))
    }

    /// [`Transformer::decode`] with the log-derivatives summed over each sample, `(B,)`.
    fn decode_summed(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (x, log) = self.decode(y, params)?;
        Ok((x, sum_event(&log)?))
    }

    /// Inverts and differentiates at once: the input of `y`, and the gradients of
    /// `⟨grad_y, y⟩ + ⟨grad_log, ln|∂y/∂x|⟩` with respect to input and parameters.
    ///
    /// `grad_log` is either one number per sample, `(B, 1, …, 1)`, or one per element, the shape of `x`.
    fn backprop(&self, y: &Tensor, params: &Tensor, grad_y: &Tensor, grad_log: &Tensor) -> Result<TransformerPullback> {
        backprop_by_graph(self, y, params, grad_y, grad_log)
    }
}

/// Checks that `params` is `(B, C, P, …)` for `x` of shape `(B, C, …)`, both of one floating type.
fn check_params(transformer: &dyn Transformer, x: &Tensor, params: &Tensor) -> Result<()> {
    check_float(&transformer.name(), x)?;
    check_dtype(&format!("{} (parameters)", transformer.name()), params, x.dtype())?;
    let (dims, per) = (x.dims(), transformer.params_per_element());
    let fits = dims.len() >= 2
        && params.rank() == dims.len() + 1
        && params.dims()[..2] == dims[..2]
        && params.dims()[2] == per
        && params.dims()[3..] == dims[2..];
    if fits {
        return Ok(());
    }
    Err(Error::Shape {
        layer: transformer.name(),
        expected: format!("parameters (B, C, {per}, …) for elements (B, C, …) = {dims:?}"),
        actual: params.dims().to_vec(),
    })
}

/// The default of [`Transformer::backprop`]: decode, then a local graph differentiated by Candle.
pub fn backprop_by_graph<T: Transformer + ?Sized>(
    transformer: &T,
    y: &Tensor,
    params: &Tensor,
    grad_y: &Tensor,
    grad_log: &Tensor,
) -> Result<TransformerPullback> {
    let (x, _) = transformer.decode(y, &params.detach())?;
    let x = Var::from_tensor(&x.detach())?;
    let params = Var::from_tensor(&params.detach())?;
    let (value, log) = transformer.encode(x.as_tensor(), params.as_tensor())?;
    let log_term = pair(&log, &grad_log.broadcast_as(log.shape())?)?;
    let store = (pair(&value, grad_y)? + log_term)?.backward()?;
    Ok(TransformerPullback {
        grad_x: gradient_or_zero(&store, &x)?,
        grad_params: gradient_or_zero(&store, &params)?,
        x: x.as_detached_tensor(),
    })
}

/// The result of [`Transformer::backprop`].
pub struct TransformerPullback {
    /// The reconstructed input.
    pub x: Tensor,
    /// Gradient with respect to the input.
    pub grad_x: Tensor,
    /// Gradient with respect to the parameters, `(B, C, P, …)`.
    pub grad_params: Tensor,
}

impl<T: Transformer + ?Sized> Transformer for Box<T> {
    fn name(&self) -> String {
        (**self).name()
    }
    fn params_per_element(&self) -> usize {
        (**self).params_per_element()
    }
    fn check(&self) -> Result<()> {
        (**self).check()
    }
    fn encode(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        (**self).encode(x, params)
    }
    fn decode(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        (**self).decode(y, params)
    }
    fn encode_summed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        (**self).encode_summed(x, params)
    }
    fn decode_summed(&self, y: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        (**self).decode_summed(y, params)
    }
    fn backprop(&self, y: &Tensor, params: &Tensor, grad_y: &Tensor, grad_log: &Tensor) -> Result<TransformerPullback> {
        (**self).backprop(y, params, grad_y, grad_log)
    }
}
