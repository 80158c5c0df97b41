//! The right-hand side that a continuous flow integrates.

use std::ops::Range;

use candle_core::{DType, Tensor};

use super::VectorField;
use super::pieces::{Cut, ROWS, cut, join, narrow};
use crate::Result;
use crate::numerics::host;

/// The end of the time interval, as a number for the solver and, if it is learned, as a tensor for the graph.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) value: f64,
    /// `(1,)`, tracked.
    pub(super) learned: Option<Tensor>,
}

impl End {
    /// `T·y`.
    fn scale(&self, y: &Tensor) -> Result<Tensor> {
        Ok(match &self.learned {
            Some(end) => y.broadcast_mul(&end.reshape(vec![1; y.rank()])?)?,
            None if self.value == 1.0 => y.clone(),
            None => y.affine(self.value, 0.0)?,
        })
    }
}

/// Which integrals are carried along besides the log-determinant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channels {
    pub(super) kinetic: bool,
    pub(super) jacobian: bool,
}

impl Channels {
    pub(super) fn any(self) -> bool {
        self.kinetic || self.jacobian
    }
}

/// Rates of change of all that a flow integrates, per unit of scaled time.
pub(super) struct Rates {
    /// `(B, D)`.
    pub(super) x: Tensor,
    /// `(B,)`.
    pub(super) log_det: Tensor,
    /// `(B,)`, if asked for.
    pub(super) kinetic: Option<Tensor>,
    /// `(B,)`, if asked for.
    pub(super) jacobian: Option<Tensor>,
}

impl Rates {
    /// Those of a batch from those of its pieces.
    fn join(parts: Vec<Rates>) -> Result<Self> {
        let (mut x, mut log_det, mut kinetic, mut jacobian) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            x.push(part.x);
            log_det.push(part.log_det);
            kinetic.push(part.kinetic);
            jacobian.push(part.jacobian);
        }
        let (kinetic, jacobian) = (join(&kinetic)?, join(&jacobian)?);
        Ok(Rates { x: Tensor::cat(&x, 0)?, log_det: Tensor::cat(&log_det, 0)?, kinetic, jacobian })
    }
}

/// A field with all that stays the same over one solve, in scaled time `s = t/T` from 0 to 1.
///
/// `dx/ds = T f(sT, x)` makes the interval the same for every `T`, so that a graph through the evaluations holds the
/// whole dependence on a learned `T`.
///
/// A solver's state is a list of tensors with one row for each of `rows` units that may have steps of their own:
/// `x` as `(rows, B/rows·D)`, then the log-determinant and the penalties as `(rows, B/rows)`.
pub(super) struct Dynamics<'a, F> {
    pub(super) field: &'a F,
    /// Unit vectors or one probe, each `(B, D)`.
    pub(super) tangents: Vec<Tensor>,
    /// `(G, C)`.
    pub(super) context: Option<Tensor>,
    pub(super) end: End,
    /// Scaled times at which the field jumps.
    pub(super) jumps: Vec<f64>,
    pub(super) channels: Channels,
    pub(super) rows: usize,
}

/// The dynamics of some consecutive rows of a batch.
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
        narrow(t, &self.rows)
    }
}

impl<'a, F: VectorField> Dynamics<'a, F> {
    /// The times `s` as times `t` of the field.
    fn times(&self, s: &[f64], like: &Tensor) -> Result<Tensor> {
        let scale = if self.end.learned.is_some() { 1.0 } else { self.end.value };
        let t: Vec<f64> = s.iter().map(|&s| self.beside_jumps(s, like.dtype()) * scale).collect();
        let t = host::tensor_like(&t, s.len(), like)?;
        Ok(match &self.end.learned {
            Some(end) => t.broadcast_mul(end)?,
            None => t,
        })
    }

    /// The time itself, but beside a jump so far from it that the precision of the field keeps the side.
    fn beside_jumps(&self, s: f64, dtype: DType) -> f64 {
        let epsilon = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let apart = |jump: f64| 4.0 * epsilon * jump.abs().max(f64::from(f32::MIN_POSITIVE));
        match self.jumps.iter().find(|&&jump| s != jump && (s - jump).abs() < apart(jump)) {
            Some(&jump) => jump + apart(jump).copysign(s - jump),
            None => s,
        }
    }

    /// Cuts a batch; the pieces depend on shapes alone. `None` if it is small enough or the field does so itself.
    pub(super) fn pieces(&self, s: &[f64], x: &Tensor) -> Result<Option<Vec<Piece<'a, F>>>> {
        let batch = x.dim(0)?;
        if batch <= ROWS || self.field.needs_no_pieces(x) {
            return Ok(None);
        }
        let context_rows = self.context.as_ref().map_or(Ok(1), |c| c.dim(0))?;
        let mut pieces = Vec::new();
        for Cut { rows, groups } in cut(batch, context_rows.max(s.len())) {
            let context = match &self.context {
                Some(c) if context_rows > 1 => Some(narrow(c, &groups)?),
                whole => whole.clone(),
            };
            let tangents = self.tangents.iter().map(|v| narrow(v, &rows)).collect::<Result<_>>()?;
            let group = if context_rows > 1 { groups.start } else { 0 };
            let s = if s.len() > 1 { s[groups].to_vec() } else { s.to_vec() };
            let dynamics = Dynamics { tangents, ..self.with_context(context) };
            pieces.push(Piece { dynamics, s, rows, group });
        }
        Ok(Some(pieces))
    }

    /// `T f(sT, x)` alone, `(B, D)`.
    pub(super) fn value(&self, s: &[f64], x: &Tensor) -> Result<Tensor> {
        if let Some(pieces) = self.pieces(s, x)? {
            let parts = pieces.iter().map(|p| p.dynamics.value(&p.s, &p.of(x)?)).collect::<Result<Vec<_>>>()?;
            return Ok(Tensor::cat(&parts, 0)?);
        }
        self.end.scale(&self.field.value(&self.times(s, x)?, x, self.context.as_ref())?)
    }

    /// All rates at `x`, `(B, D)`.
    pub(super) fn rates(&self, s: &[f64], x: &Tensor) -> Result<Rates> {
        if let Some(pieces) = self.pieces(s, x)? {
            let parts = pieces.iter().map(|p| p.dynamics.rates(&p.s, &p.of(x)?)).collect::<Result<Vec<_>>>()?;
            return Rates::join(parts);
        }
        let (t, context, per_entry) = (self.times(s, x)?, self.context.as_ref(), 1.0 / self.field.dim() as f64);
        let mut jacobian = None;
        let (f, divergence) = if self.channels.jacobian {
            let (f, products) = self.field.jvp(&t, x, &self.tangents, context)?;
            let mut trace = Tensor::zeros(x.dim(0)?, x.dtype(), x.device())?;
            let mut square = trace.clone();
            for (v, product) in self.tangents.iter().zip(&products) {
                trace = (trace + (v * product)?.sum(1)?)?;
                square = (square + product.sqr()?.sum(1)?)?;
            }
            jacobian = Some(self.end.scale(&square.affine(per_entry, 0.0)?)?);
            (f, trace)
        } else {
            self.field.divergence(&t, x, &self.tangents, context)?
        };
        let kinetic = match self.channels.kinetic {
            true => Some(self.end.scale(&f.sqr()?.sum(1)?.affine(per_entry, 0.0)?)?),
            false => None,
        };
        Ok(Rates { x: self.end.scale(&f)?, log_det: self.end.scale(&divergence)?, kinetic, jacobian })
    }

    /// The tracked scalar `⟨x, T f⟩ + ⟨log_det, rate of the log-determinant⟩` of fixed cotangents `(B, D)` and `(B,)`,
    /// and `T f`, detached. Small batches only.
    pub(super) fn pairing(
        &self,
        s: &[f64],
        x: &Tensor,
        cotangent: &Tensor,
        log_det: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let mut cotangents = vec![cotangent.clone()];
        let tangents = match log_det {
            None => &[],
            Some(weight) => {
                let weight = weight.unsqueeze(1)?;
                for v in &self.tangents {
                    cotangents.push(v.broadcast_mul(&weight)?);
                }
                self.tangents.as_slice()
            }
        };
        let t = self.times(s, x)?;
        let (objective, value) = self.field.pairing(&t, x, tangents, self.context.as_ref(), &cotangents)?;
        Ok((self.end.scale(&objective)?, self.end.scale(&value)?))
    }

    /// The rates of a solver's state.
    pub(super) fn state_rates(&self, s: &[f64], state: &[Tensor]) -> Result<Vec<Tensor>> {
        let Some(x) = state.first() else { return Ok(Vec::new()) };
        let rates = self.rates(s, &self.points(x)?)?;
        let parts = [Some(rates.x), Some(rates.log_det), rates.kinetic, rates.jacobian];
        parts.into_iter().flatten().map(|t| self.by_row(&t)).collect()
    }

    /// The state that starts at `x`, `(B, D)`, with all integrals at zero.
    pub(super) fn start(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let zeros = Tensor::zeros(x.dim(0)?, x.dtype(), x.device())?;
        let count = 1 + usize::from(self.channels.kinetic) + usize::from(self.channels.jacobian);
        let mut state = vec![self.by_row(x)?];
        for _ in 0..count {
            state.push(self.by_row(&zeros)?);
        }
        Ok(state)
    }

    /// `(B, …)` as `(rows, …)`.
    pub(super) fn by_row(&self, t: &Tensor) -> Result<Tensor> {
        Ok(t.reshape((self.rows, ()))?)
    }

    /// The `x` of a state as `(B, D)`.
    pub(super) fn points(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.reshape(((), self.field.dim()))?)
    }

    /// The same for some of the rows alone, in ascending order.
    pub(super) fn select(&self, rows: &[usize]) -> Result<Self> {
        if rows.len() == self.rows {
            return Ok(self.unchanged());
        }
        let pick = |t: &Tensor| select_rows(t, rows);
        let tangents = self.tangents.iter().map(|v| self.points(&pick(&self.by_row(v)?)?)).collect::<Result<_>>()?;
        let context = self.context.as_ref().map(pick).transpose()?;
        Ok(Dynamics { tangents, context, rows: rows.len(), ..self.unchanged() })
    }

    /// The same with another context tensor (a variable, to differentiate for it).
    pub(super) fn with_context(&self, context: Option<Tensor>) -> Self {
        Dynamics { context, ..self.unchanged() }
    }

    fn unchanged(&self) -> Self {
        Dynamics {
            field: self.field,
            tangents: self.tangents.clone(),
            context: self.context.clone(),
            end: self.end.clone(),
            jumps: self.jumps.clone(),
            channels: self.channels,
            rows: self.rows,
        }
    }
}

/// The rows at `index`; the tensor itself if these are all of them in order.
pub(super) fn select_rows(t: &Tensor, index: &[usize]) -> Result<Tensor> {
    if is_all(index, t)? {
        return Ok(t.clone());
    }
    Ok(t.index_select(&index_tensor(index, t)?, 0)?)
}

/// `t` with `rows` added at `index`, whose entries differ.
pub(super) fn add_rows(t: &Tensor, index: &[usize], rows: &Tensor) -> Result<Tensor> {
    if is_all(index, t)? {
        return Ok((t + rows)?);
    }
    Ok(t.index_add(&index_tensor(index, t)?, rows, 0)?)
}

/// Whether `index` names every row of `t` in order.
fn is_all(index: &[usize], t: &Tensor) -> Result<bool> {
    Ok(index.len() == t.dim(0)? && index.iter().enumerate().all(|(i, &k)| i == k))
}

fn index_tensor(index: &[usize], like: &Tensor) -> Result<Tensor> {
    // Batches have far fewer rows than 2^32.
    let index: Vec<u32> = index.iter().map(|&i| i as u32).collect();
    let len = index.len();
    Ok(Tensor::from_vec(index, len, like.device())?)
}
