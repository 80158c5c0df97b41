//! Large batches in pieces, so that one evaluation of a wide network needs little memory.

use std::ops::Range;

use candle_core::Tensor;

use super::VectorField;
use super::dynamics::Dynamics;
use crate::Result;

/// The most rows that are evaluated at once. Their activations, 8 MB for each layer of width 512, tangent and
/// intermediate in f32, are what an evaluation needs besides its arguments; matrix products gain nothing from more.
const ROWS: usize = 4096;

/// Some consecutive rows of a batch.
pub(super) struct Piece<'a, F> {
    pub(super) dynamics: Dynamics<'a, F>,
    /// Their times, one for all or one for each group.
    pub(super) s: Vec<f64>,
    /// The rows.
    rows: Range<usize>,
    /// The first of the context's rows that serve them.
    pub(super) group: usize,
}

impl<F> Piece<'_, F> {
    /// The rows of this piece.
    pub(super) fn of(&self, t: &Tensor) -> Result<Tensor> {
        Ok(t.narrow(0, self.rows.start, self.rows.len())?)
    }
}

impl<'a, F: VectorField> Dynamics<'a, F> {
    /// Cuts a batch; the pieces depend on shapes alone. `None` if it is small enough or the field does so itself.
    pub(super) fn pieces(&self, s: &[f64], x: &Tensor) -> Result<Option<Vec<Piece<'a, F>>>> {
        let batch = x.dim(0)?;
        if batch <= ROWS || self.field.needs_no_pieces(x) {
            return Ok(None);
        }
        let context_rows = self.context.as_ref().map_or(Ok(1), |c| c.dim(0))?;
        let count = context_rows.max(s.len());
        let per_group = batch / count;
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < batch {
            // Either some whole groups or a part of one.
            let group = start / per_group;
            let end = if per_group <= ROWS {
                start + per_group * (ROWS / per_group).min(count - group)
            } else {
                (start + ROWS).min((group + 1) * per_group)
            };
            let groups = group..end.div_ceil(per_group);
            let narrow = |t: &Tensor, r: &Range<usize>| t.narrow(0, r.start, r.len());
            let rows = start..end;
            let context = match &self.context {
                Some(c) if context_rows > 1 => Some(narrow(c, &groups)?),
                whole => whole.clone(),
            };
            let tangents = self.tangents.iter().map(|v| narrow(v, &rows)).collect::<candle_core::Result<_>>()?;
            let s = if s.len() > 1 { s[groups].to_vec() } else { s.to_vec() };
            let dynamics = Dynamics { tangents, ..self.with_context(context) };
            pieces.push(Piece { dynamics, s, rows, group: if context_rows > 1 { group } else { 0 } });
            start = end;
        }
        Ok(Some(pieces))
    }
}

/// The rows of a batch from those of its pieces, where every piece has them.
pub(super) fn join(parts: &[Option<Tensor>]) -> Result<Option<Tensor>> {
    let parts: Option<Vec<&Tensor>> = parts.iter().map(Option::as_ref).collect();
    Ok(parts.map(|parts| Tensor::cat(&parts, 0)).transpose()?)
}
