//! What hand-written and local backward passes share of gradients.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::Result;

/// `⟨value, cotangent⟩`, whose gradient is the vector-Jacobian product.
pub fn pair(value: &Tensor, cotangent: &Tensor) -> Result<Tensor> {
    Ok((value * cotangent.detach())?.sum_all()?)
}

/// The gradient of `var` in `store`, detached; zeros if nothing depends on it.
pub fn gradient_or_zero(store: &GradStore, var: &Tensor) -> Result<Tensor> {
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
