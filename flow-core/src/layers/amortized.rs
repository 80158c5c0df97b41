//! Parameters that come with the rows: what layers whose parameters are the context share.

use candle_core::Tensor;

use crate::bijector::{check_batch, check_batch_as};
use crate::{Error, Result};

/// The number of rows of `x`, `(B, event…)`, and the context, `(G, width)`, checked: each of its rows serves `B/G`
/// consecutive ones of `x`.
///
/// # Errors
/// Those of [`check_batch`], and [`Error::Context`] without a context or where its rows do not divide those of `x`.
pub(super) fn check_parameters<'a>(
    layer: &str,
    x: &Tensor,
    event: &[usize],
    context: Option<&'a Tensor>,
    width: &[usize; 1],
) -> Result<(usize, &'a Tensor)> {
    let batch = check_batch(layer, x, event)?;
    let Some(context) = context else {
        let reason = format!("its parameters are the context, {} for each row; none was given", width[0]);
        return Err(Error::Context { layer: layer.into(), reason });
    };
    let groups = check_batch_as(&format!("{layer} (context)"), context, width, x.dtype())?;
    if groups == batch || (groups > 0 && batch.is_multiple_of(groups)) {
        return Ok((batch, context));
    }
    let reason = format!("the context has {groups} rows, the input {batch}, which is no multiple of it");
    Err(Error::Context { layer: layer.into(), reason })
}

/// `len` columns of the parameters from `start` on, each row as often as it serves: `(G, width)` to `(B, len)`.
pub(super) fn spread(params: &Tensor, rows: usize, start: usize, len: usize) -> Result<Tensor> {
    let groups = params.dim(0)?;
    let part = params.narrow(1, start, len)?;
    if groups == rows {
        return Ok(part.contiguous()?);
    }
    let each = part.unsqueeze(1)?.broadcast_as((groups, rows / groups.max(1), len))?;
    Ok(each.contiguous()?.reshape((rows, len))?)
}
