//! Large batches in pieces, so that one evaluation of a wide network needs little memory.

use std::ops::Range;

use candle_core::Tensor;

use crate::Result;

/// The most rows that are evaluated at once. Their activations, 8 MB for each layer of width 512, tangent and
/// intermediate in f32, are what an evaluation needs besides its arguments; matrix products gain nothing from more.
pub(super) const ROWS: usize = 4096;

/// Some consecutive rows of a batch.
pub(super) struct Cut {
    pub(super) rows: Range<usize>,
    /// The groups that they belong to.
    pub(super) groups: Range<usize>,
}

/// Cuts a batch of `count` groups of equal size: a piece is either some whole groups or a part of one, and depends on the
/// sizes alone.
pub(super) fn cut(batch: usize, count: usize) -> Vec<Cut> {
    let per_group = batch / count;
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < batch {
        let group = start / per_group;
        let end = if per_group <= ROWS {
            start + per_group * (ROWS / per_group).min(count - group)
        } else {
            (start + ROWS).min((group + 1) * per_group)
        };
        pieces.push(Cut { rows: start..end, groups: group..end.div_ceil(per_group) });
        start = end;
    }
    pieces
}

/// These rows of `t`.
pub(super) fn narrow(t: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    Ok(t.narrow(0, rows.start, rows.len())?)
}

/// The rows of a batch from those of its pieces, where every piece has them.
pub(super) fn join(parts: &[Option<Tensor>]) -> Result<Option<Tensor>> {
    let parts: Option<Vec<&Tensor>> = parts.iter().map(Option::as_ref).collect();
    Ok(parts.map(|parts| Tensor::cat(&parts, 0)).transpose()?)
}
