//! What is integrated: a vector field that knows its Jacobian-vector products.

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::autodiff::pair;
use crate::{Error, Result};

/// A time-dependent vector field `f(t, x; c)` on vectors of `D` entries.
///
/// Candle has no forward mode and its backward pass cannot be differentiated again, so a field offers its
/// Jacobian-vector products as ordinary tensor code: then one ordinary backward pass differentiates a divergence.
///
/// # Shapes
/// - `x`, tangents and results: `(B, D)`.
/// - `context`: `(G, C)`, where `G` divides `B`: each row of it serves `B/G` consecutive rows of `x` (the points of
///   one cloud). Fields that use a context compute what depends on it once per group.
/// - `t`: `(1,)`, one time for all rows, or `(G,)`, one per group of `B/G` consecutive rows (`G` must be the same as
///   that of the context where there is one). Of the dtype of `x`; it may carry a graph.
pub trait VectorField: Send + Sync {
    /// A short name for messages.
    fn name(&self) -> String;

    /// `D`.
    fn dim(&self) -> usize;

    /// `C`, `None` if the context is ignored.
    fn context_dim(&self) -> Option<usize> {
        None
    }

    /// Whether evaluating at `x`, and the gradient of [`VectorField::pairing`], needs memory for arguments and results
    /// alone, so that nothing is gained by cutting a large batch into pieces.
    fn needs_no_pieces(&self, _x: &Tensor) -> bool {
        false
    }

    /// `f(t, x; c)`, tracked for differentiation unless the store's tracking is paused.
    fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor>;

    /// `f` together with `∂f/∂x · v` for every tangent `v`, all tracked, in one pass.
    fn jvp(
        &self,
        t: &Tensor,
        x: &Tensor,
        tangents: &[Tensor],
        context: Option<&Tensor>,
    ) -> Result<(Tensor, Vec<Tensor>)>;

    /// `f` together with `Σ_k v_k · (∂f/∂x · v_k)`, `(B,)`: the exact trace when the `v_k` are the `D` unit vectors,
    /// an unbiased estimate when there is one random `v` of identity covariance.
    ///
    /// A field that has a fused kernel for the sum overrides this.
    fn divergence(
        &self,
        t: &Tensor,
        x: &Tensor,
        tangents: &[Tensor],
        context: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let (value, products) = self.jvp(t, x, tangents, context)?;
        let mut sum = Tensor::zeros(x.dim(0)?, x.dtype(), x.device())?;
        for (v, jv) in tangents.iter().zip(&products) {
            sum = (sum + (v * jv)?.sum(1)?)?;
        }
        Ok((value, sum))
    }

    /// The tracked scalar `⟨c_0, f⟩ + Σ_k ⟨c_k, ∂f/∂x · v_k⟩` of fixed cotangents `c`, each `(B, D)`, one more than
    /// there are tangents, and `f` itself, detached: whoever knows the cotangents beforehand asks for this, because a
    /// field with a fused kernel computes the gradient in the same sweep.
    fn pairing(
        &self,
        t: &Tensor,
        x: &Tensor,
        tangents: &[Tensor],
        context: Option<&Tensor>,
        cotangents: &[Tensor],
    ) -> Result<(Tensor, Tensor)> {
        pairing_of_products(self, t, x, tangents, context, cotangents)
    }

    /// The tracked scalar `|f − target|²`, summed over all rows; `target` `(B, D)` is fixed. Like
    /// [`VectorField::pairing`] for flow matching.
    fn squared_error(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>, target: &Tensor) -> Result<Tensor> {
        squared_error_of_values(self, t, x, context, target)
    }
}

/// [`VectorField::squared_error`] from values.
pub(super) fn squared_error_of_values<F: VectorField + ?Sized>(
    field: &F,
    t: &Tensor,
    x: &Tensor,
    context: Option<&Tensor>,
    target: &Tensor,
) -> Result<Tensor> {
    Ok((field.value(t, x, context)? - target)?.sqr()?.sum_all()?)
}

/// [`VectorField::pairing`] from values and products.
pub(super) fn pairing_of_products<F: VectorField + ?Sized>(
    field: &F,
    t: &Tensor,
    x: &Tensor,
    tangents: &[Tensor],
    context: Option<&Tensor>,
    cotangents: &[Tensor],
) -> Result<(Tensor, Tensor)> {
    let (value, products) = match tangents {
        [] => (field.value(t, x, context)?, Vec::new()),
        some => field.jvp(t, x, some, context)?,
    };
    let mut objective = Tensor::zeros((), x.dtype(), x.device())?;
    for (output, cotangent) in [&value].into_iter().chain(&products).zip(cotangents) {
        objective = (objective + pair(output, cotangent)?)?;
    }
    Ok((objective, value.detach()))
}

/// A pointer to a field is a field.
macro_rules! forward_vector_field {
    ($($pointer:ident),*) => {$(
        impl<F: VectorField + ?Sized> VectorField for $pointer<F> {
            fn name(&self) -> String {
                (**self).name()
            }
            fn dim(&self) -> usize {
                (**self).dim()
            }
            fn context_dim(&self) -> Option<usize> {
                (**self).context_dim()
            }
            fn needs_no_pieces(&self, x: &Tensor) -> bool {
                (**self).needs_no_pieces(x)
            }
            fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
                (**self).value(t, x, context)
            }
            fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
                (**self).jvp(t, x, v, context)
            }
            fn divergence(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
                (**self).divergence(t, x, v, context)
            }
            fn pairing(&self, t: &Tensor, x: &Tensor, v: &[Tensor], context: Option<&Tensor>, c: &[Tensor]) -> Result<(Tensor, Tensor)> {
                (**self).pairing(t, x, v, context, c)
            }
            fn squared_error(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>, target: &Tensor) -> Result<Tensor> {
                (**self).squared_error(t, x, context, target)
            }
        }
    )*};
}
forward_vector_field!(Box, Arc);

/// The distribution of the random vectors of Hutchinson's estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Probe {
    /// Standard normal entries (FFJORD's default, PointFlow's only choice).
    Gaussian,
    /// Entries of ±1: the smallest variance of all.
    Rademacher,
}

/// How `tr ∂f/∂x` is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Divergence {
    /// One Jacobian-vector product per dimension: exact, for few dimensions.
    Exact,
    /// One product with a random vector that stays the same over a whole solve (Hutchinson 1990; Grathwohl et al.
    /// 2019, section 3.1).
    Hutchinson(Probe),
}

/// The number of rows that each of `count` groups has in a batch of `rows`.
///
/// # Errors
/// [`Error::Context`] naming `layer` when `count` does not divide `rows`.
pub fn groups(layer: &str, rows: usize, count: usize) -> Result<usize> {
    if count == 0 || !rows.is_multiple_of(count) {
        let reason = format!("{count} groups (rows of the context, or times) do not divide {rows} rows of x");
        return Err(Error::Context { layer: layer.to_string(), reason });
    }
    Ok(rows / count)
}
