//! The exact gradient of the steps that a solver took, in the memory of one evaluation.
//!
//! A step is `k_i = f(t + c_i h, x + h Σ_j a_ij k_j)`, `x' = x + h Σ_i b_i k_i`. With `λ'` the gradient of `x'`, its
//! reverse is, from the last stage to the first,
//! `μ_i = J_iᵀ h (b_i λ' + Σ_{j>i} a_ji μ_j)`, and `λ = λ' + Σ_i μ_i`:
//! one vector-Jacobian product for each stage, of one evaluation alone. The points of the stages follow from the slopes
//! `k`, which are kept: states are small beside an evaluation.

use candle_core::{DType, Tensor};

use super::dynamics::{Dynamics, add_rows, select_rows};
use super::ode::{RowState, RowStep, State, Step, stage_time};
use super::vjp::{Cotangents, vjp};
use super::{Regularization, VectorField};
use crate::bijector::Tape;
use crate::{Error, Gradients, Result};

/// One accepted step of some rows of the state.
pub(super) struct Record {
    /// Which rows, ascending.
    pub(super) rows: Vec<usize>,
    /// Where each row's step starts, in scaled time.
    pub(super) s: Vec<f64>,
    /// Each row's step.
    pub(super) h: Vec<f64>,
    /// When the first and the last stages of each were evaluated.
    edges: [Vec<f64>; 2],
    /// The rows of `x` before it, `(rows, B/rows·D)`.
    x: Tensor,
    /// The slopes of `x` at all stages but the last, which no other stage uses.
    slopes: Vec<Tensor>,
}

impl Record {
    /// A step of all rows together.
    pub(super) fn of(step: &Step<'_, Vec<Tensor>>) -> Result<Self> {
        let edges = step.edges.map(|t| vec![t]);
        Record::new(vec![0], vec![step.t], vec![step.h], edges, step.y, step.slopes)
    }

    /// A step of rows of their own.
    pub(super) fn of_rows(step: &RowStep<'_, Vec<Tensor>>) -> Result<Self> {
        let ends = step.t.iter().zip(step.h).map(|(t, h)| t + h).collect();
        let edges = [step.t.to_vec(), ends];
        Record::new(step.rows.to_vec(), step.t.to_vec(), step.h.to_vec(), edges, step.y, &step.slopes()?)
    }

    fn new(
        rows: Vec<usize>,
        s: Vec<f64>,
        h: Vec<f64>,
        edges: [Vec<f64>; 2],
        y: &[Tensor],
        slopes: &[Vec<Tensor>],
    ) -> Result<Self> {
        let x = |state: &[Tensor]| state.first().map(Tensor::detach);
        let slopes = slopes.iter().take(slopes.len().saturating_sub(1)).filter_map(|k| x(k)).collect();
        let x = x(y).ok_or_else(|| Error::config("cnf", "the solver returned an empty state"))?;
        Ok(Record { rows, s, h, edges, x, slopes })
    }

    /// When the stage at the part `c` of each step was evaluated.
    fn times(&self, c: f64) -> Vec<f64> {
        let [first, last] = &self.edges;
        let edges = first.iter().zip(last);
        self.s.iter().zip(&self.h).zip(edges).map(|((s, h), (a, b))| stage_time(*s, *h, [*a, *b], c)).collect()
    }

    /// The point `x + h Σ_j a_j k_j` at which a stage with these coefficients was evaluated.
    fn point(&self, a: &[f64]) -> Result<Tensor> {
        let terms: Vec<(f64, &Tensor)> = a.iter().copied().zip(&self.slopes).filter(|(w, _)| *w != 0.0).collect();
        if terms.is_empty() { Ok(self.x.clone()) } else { self.x.add_scaled_rows(&self.h, &terms) }
    }

    /// The record as tensors; times keep f64.
    pub(super) fn into_tape(self) -> Result<Tape> {
        let n = self.rows.len();
        let rows: Vec<u32> = self.rows.iter().map(|&r| r as u32).collect();
        let [first, last] = self.edges;
        let times: Vec<f64> = [self.s, self.h, first, last].concat();
        let device = candle_core::Device::Cpu;
        let (rows, times) = (Tensor::from_vec(rows, n, &device)?, Tensor::from_vec(times, (4, n), &device)?);
        Ok(Tape::Saved([rows, times, self.x].into_iter().chain(self.slopes).collect()))
    }

    /// The inverse of [`Record::into_tape`].
    ///
    /// # Errors
    /// [`Error::Config`] naming `layer` for any other tape.
    pub(super) fn from_tape(layer: &str, tape: &Tape) -> Result<Self> {
        let parts = if let Tape::Saved(parts) = tape { parts.as_slice() } else { &[] };
        let [rows, times, x, slopes @ ..] = parts else {
            return Err(Error::config(layer, "was given the tape of another bijector"));
        };
        let times = times.to_dtype(DType::F64)?;
        Ok(Record {
            rows: rows.to_vec1::<u32>()?.into_iter().map(|r| r as usize).collect(),
            s: times.get(0)?.to_vec1()?,
            h: times.get(1)?.to_vec1()?,
            edges: [times.get(2)?.to_vec1()?, times.get(3)?.to_vec1()?],
            x: x.clone(),
            slopes: slopes.to_vec(),
        })
    }
}

/// A Runge–Kutta step's coefficients without the error estimate.
pub(super) struct Coefficients {
    pub(super) a: Vec<Vec<f64>>,
    pub(super) b: Vec<f64>,
    pub(super) c: Vec<f64>,
}

/// Gradients with respect to the start of a solve.
pub(super) struct Gradient {
    /// `(rows, B/rows·D)`.
    pub(super) x: Tensor,
    /// `(G, C)`, if there is a context.
    pub(super) context: Option<Tensor>,
}

/// Walks the records backwards with the gradients of the end, both by row of the state.
pub(super) fn backprop<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    coefficients: &Coefficients,
    records: &[Record],
    weights: Regularization,
    grad_z: &Tensor,
    grad_log_det: &Tensor,
    gradients: &mut Gradients,
) -> Result<Gradient> {
    let context = dynamics.context.as_ref().map(Tensor::zeros_like).transpose()?;
    let mut total = Gradient { x: grad_z.clone(), context };
    for record in records.iter().rev() {
        let part = dynamics.select(&record.rows)?;
        let end = select_rows(&total.x, &record.rows)?;
        let grad_log_det = select_rows(grad_log_det, &record.rows)?;
        let start = step_back(&part, coefficients, record, weights, &end, &grad_log_det, gradients)?;
        total.x = add_rows(&total.x, &record.rows, &start.x)?;
        if let (Some(sum), Some(term)) = (&total.context, &start.context) {
            // Steps that all rows share have every row of the context, steps of their own a row each.
            total.context =
                Some(if part.rows == dynamics.rows { (sum + term)? } else { add_rows(sum, &record.rows, term)? });
        }
    }
    Ok(total)
}

/// What one step adds to the gradients: `Σ_i μ_i` and the context's.
fn step_back<F: VectorField>(
    dynamics: &Dynamics<'_, F>,
    Coefficients { a, b, c }: &Coefficients,
    record: &Record,
    weights: Regularization,
    end: &Tensor,
    grad_log_det: &Tensor,
    gradients: &mut Gradients,
) -> Result<Gradient> {
    let points = a.iter().map(|row| record.point(row)).collect::<Result<Vec<_>>>()?;
    let (zeros, no_rates) = (end.zeros_like()?, grad_log_det.zeros_like()?);
    let mut pulled: Vec<Option<Tensor>> = vec![None; b.len()];
    let mut context: Option<Tensor> = None;
    for i in (0..b.len()).rev() {
        let later = pulled.iter().enumerate().filter_map(|(j, mu)| Some((*a.get(j)?.get(i)?, mu.as_ref()?)));
        let terms: Vec<(f64, &Tensor)> = later.chain([(b[i], end)]).filter(|(w, _)| *w != 0.0).collect();
        if terms.is_empty() {
            continue;
        }
        let x = dynamics.points(&zeros.add_scaled_rows(&record.h, &terms)?)?;
        let log_det = match b[i] == 0.0 {
            true => None,
            false => Some(no_rates.add_scaled_rows(&record.h, &[(b[i], grad_log_det)])?.flatten_all()?),
        };
        let point = dynamics.points(&points[i])?;
        let back = vjp(dynamics, &record.times(c[i]), &point, &Cotangents { x, log_det }, weights, gradients)?;
        pulled[i] = Some(dynamics.by_row(&back.x)?);
        context = crate::autodiff::add_optional(context, back.context)?;
    }
    let terms: Vec<(f64, &Tensor)> = pulled.iter().flatten().map(|mu| (1.0, mu)).collect();
    Ok(Gradient { x: zeros.add_scaled(&terms)?, context })
}
