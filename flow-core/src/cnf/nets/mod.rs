//! Vector fields that are plain networks: [`Concat`] sees the time in every layer, [`MlpField`] in the first.

mod concat;
mod dense;
mod mlp;

use candle_core::{DType, Tensor};

pub use concat::{Concat, ConcatConfig};
pub use mlp::{MlpField, MlpFieldConfig};

use super::groups;
use crate::bijector::check_batch_as;
use crate::{Error, Result};

/// Checks the arguments of a field and joins what is shared by the rows of a group: `[time, context]`, `(G, F + C)`.
///
/// `time` has one row for all or one for each group.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`] and [`Error::Context`] naming `layer`.
fn shared_inputs(
    layer: &str,
    dtype: DType,
    x: &Tensor,
    dim: usize,
    time: &Tensor,
    context: Option<&Tensor>,
    context_dim: Option<usize>,
) -> Result<Tensor> {
    let rows = check_batch_as(layer, x, &[dim], dtype)?;
    let times = time.dim(0)?;
    let Some(width) = context_dim else {
        groups(layer, rows, times)?;
        return Ok(time.clone());
    };
    let Some(context) = context else {
        let reason = format!("needs a context of shape (G, {width}), none was given");
        return Err(Error::Context { layer: layer.to_string(), reason });
    };
    let count = check_batch_as(&format!("{layer} (context)"), context, &[width], dtype)?;
    groups(layer, rows, count)?;
    if times != 1 && times != count {
        let reason = format!("{times} times were given for {count} rows of the context");
        return Err(Error::Context { layer: layer.to_string(), reason });
    }
    let time = time.broadcast_as((count, time.dim(1)?))?;
    Ok(Tensor::cat(&[&time, context], 1)?)
}

#[cfg(test)]
mod tests;
