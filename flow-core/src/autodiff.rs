//! What hand-written and local backward passes share of gradients.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::{Gradients, Result};

/// The start of a graph of its own: an input and the context that goes with it, cut off from whatever made them.
pub struct Leaves {
    x: Var,
    context: Option<Var>,
}

impl Leaves {
    /// Takes `x`, and the context if there is one.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn new(x: &Tensor, context: Option<&Tensor>) -> Result<Self> {
        let context = context.map(|c| Var::from_tensor(&c.detach())).transpose()?;
        Ok(Leaves { x: Var::from_tensor(&x.detach())?, context })
    }

    /// The input, from which gradients are tracked.
    pub fn x(&self) -> &Tensor {
        self.x.as_tensor()
    }

    /// The context, from which gradients are tracked.
    pub fn context(&self) -> Option<&Tensor> {
        self.context.as_ref().map(Var::as_tensor)
    }

    /// Input and context, for [`Gradients::check_variables`].
    pub fn inputs(&self) -> Vec<&Tensor> {
        std::iter::once(self.x()).chain(self.context()).collect()
    }

    /// The gradients of `objective`, a scalar, with respect to input and context, detached; those of parameters are added
    /// to `gradients`.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn pull_back(&self, objective: &Tensor, gradients: &mut Gradients) -> Result<(Tensor, Option<Tensor>)> {
        let store = objective.backward()?;
        gradients.accumulate(&store)?;
        let of_context = self.context().map(|c| gradient_or_zero(&store, c)).transpose()?;
        Ok((gradient_or_zero(&store, self.x())?, of_context))
    }
}

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
