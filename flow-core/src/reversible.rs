//! Back-propagation whose memory does not grow with depth.
//!
//! An ordinary backward pass needs every activation of the forward pass. A chain of bijectors does
//! not: the input of a layer is its inverse applied to its output. So the chain is walked backwards;
//! each layer reconstructs its input, rebuilds its own small graph, and pushes two incoming gradients
//! through it, that of its value and that of its log-determinant (Gomez et al. 2017, arXiv 1707.04585,
//! extended by the log-determinant). Gradients equal those of plain back-propagation up to the
//! round-off of the reconstruction.

use candle_core::{DType, Tensor, Var};

use crate::bijector::{Bijector, Pullback, Tape};
use crate::{Error, Gradients, Result};

/// The largest reconstruction error of the input, relative to `max(1, max |x|)`, that is accepted.
///
/// In exact arithmetic there is none. In f32 a scale near zero loses digits of what it scales, and a
/// rare sample may pass through many such scales; the error then grows from layer to layer. The true
/// input is at hand, so the error is measured, and a batch above the bound is done again plainly.
pub const DRIFT_TOLERANCE: f64 = 1e-3;

/// The reconstruction error of a batch relative to `max(1, max |x|)`; not a number if it diverged.
pub fn drift(x: &Tensor, reconstructed: &Tensor) -> Result<f64> {
    if x.elem_count() == 0 {
        return Ok(0.0);
    }
    let largest = |t: &Tensor| -> Result<f64> {
        // A sum keeps NaN, which a maximum may lose.
        let flat = t.abs()?.flatten_all()?;
        let sum = flat.sum(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let max = flat.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(if sum.is_nan() { f64::NAN } else { max })
    };
    Ok(largest(&(x - reconstructed)?)? / largest(x)?.max(1.0))
}

/// How gradients of a flow are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Backprop {
    /// Layer by layer from the output, memory independent of depth; a batch whose reconstruction drifts
    /// beyond [`DRIFT_TOLERANCE`] is done again the plain way.
    #[default]
    Reversible,
    /// One graph over the whole chain, memory proportional to depth.
    Plain,
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
    let x = match tape {
        Tape::Input(x) => x.clone(),
        Tape::Inverse => {
            let _paused = gradients.no_grad();
            layer.decode(z, context)?.0
        }
        _ => return Err(Error::config(layer.name(), "cannot use the tape it was given")),
    };
    let x = Var::from_tensor(&x.detach())?;
    let context = match (context, layer.context_shape()) {
        (Some(c), Some(_)) => Some(Var::from_tensor(&c.detach())?),
        _ => None,
    };
    let (value, log_det) = layer.encode(x.as_tensor(), context.as_ref().map(Var::as_tensor))?;
    let store = pair(&value, grad_z)?.add(&pair(&log_det, grad_log_det)?)?.backward()?;
    gradients.accumulate(&store)?;
    Ok(Pullback {
        grad_x: gradient_or_zero(&store, &x)?,
        grad_context: context.as_ref().map(|c| gradient_or_zero(&store, c)).transpose()?,
        x: x.as_detached_tensor(),
    })
}

/// `⟨value, cotangent⟩`, whose gradient is the vector-Jacobian product.
pub fn pair(value: &Tensor, cotangent: &Tensor) -> Result<Tensor> {
    Ok((value * cotangent.detach())?.sum_all()?)
}

/// The gradient of `var` in `store`, detached; zeros if nothing depends on it.
pub fn gradient_or_zero(store: &candle_core::backprop::GradStore, var: &Tensor) -> Result<Tensor> {
    Ok(match store.get(var) {
        Some(g) => g.detach(),
        None => var.zeros_like()?.detach(),
    })
}

/// The sum of two gradients that may each be absent.
pub fn add_optional(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some((a + b)?),
        (a, b) => a.or(b),
    })
}
