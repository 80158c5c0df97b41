//! Solving with a time and a step for every row: one hard sample neither slows nor changes the others.

use super::control::{Fallback, Memory, Pid, SolveOptions, Stepping, first_step, least_step, step_length, trial_step};
use super::solve::{Statistics, check_span, failure};
use super::{Method, RowState, Tolerance};
use crate::{Error, Result};

/// Which rows are asked for, and at what times.
#[derive(Debug, Clone, Copy)]
pub struct RowTimes<'a> {
    /// Their places in the whole batch.
    pub rows: &'a [usize],
    /// The time of each.
    pub t: &'a [f64],
}

/// `f(t, y)` of some rows.
pub type RowRightHandSide<'a, S> = dyn FnMut(&RowTimes<'_>, &S) -> Result<S> + 'a;

/// The state at the end, and what each row took.
#[derive(Debug, Clone)]
pub struct RowSolution<S> {
    /// The state.
    pub y: S,
    /// For each row.
    pub statistics: Vec<Statistics>,
}

/// Steps that some rows took at once.
#[derive(Debug)]
pub struct RowStep<'a, S> {
    /// Their places in the whole batch.
    pub rows: &'a [usize],
    /// Where each step begins.
    pub t: &'a [f64],
    /// The length of each.
    pub h: &'a [f64],
    /// The rows before it.
    pub y: &'a S,
    /// The slopes of all stages, of these rows and others.
    stages: &'a [S],
    /// Where these rows are in `stages`.
    places: &'a [usize],
}

impl<S: RowState> RowStep<'_, S> {
    /// The slopes of these rows' stages; the first is that at the beginning.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn slopes(&self) -> Result<Vec<S>> {
        self.stages.iter().map(|slope| slope.select(self.places)).collect()
    }
}

/// As [`solve`](super::solve), with steps of its own for each row. Rows that have arrived leave the batch.
///
/// # Errors
/// As [`solve`](super::solve), naming the row; [`Error::Config`] for step or jump times, which rows do not support.
pub fn solve_rows<S: RowState>(
    f: &mut RowRightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
) -> Result<RowSolution<S>> {
    solve_rows_recorded(f, y0, span, options, &mut |_| Ok(()))
}

/// As [`solve_rows`], showing the accepted steps of every round.
///
/// # Errors
/// As [`solve_rows`], and those of `record`.
pub fn solve_rows_recorded<S: RowState>(
    f: &mut RowRightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
    record: &mut dyn FnMut(RowStep<'_, S>) -> Result<()>,
) -> Result<RowSolution<S>> {
    options.check()?;
    check_span(span)?;
    if !(options.step_times.is_empty() && options.jump_times.is_empty()) {
        return Err(Error::config("step times", "are not for rows with steps of their own"));
    }
    let mut run = Run { f, method: options.method, statistics: vec![Statistics::default(); y0.rows()] };
    if span[0] == span[1] || y0.rows() == 0 {
        return Ok(RowSolution { y: y0.clone(), statistics: run.statistics });
    }
    let y = match &options.stepping {
        Stepping::Fixed { steps } => run.fixed(y0, span, *steps, record)?,
        Stepping::Adaptive { tolerance, controller, first_step, min_step, max_step, max_steps, fallback } => {
            let limits = Limits {
                tolerance: *tolerance,
                controller: *controller,
                first_step: *first_step,
                min_step: *min_step,
                longest: max_step.unwrap_or(f64::INFINITY).min((span[1] - span[0]).abs()),
                max_steps: *max_steps as u64,
                fallback: *fallback,
            };
            run.adaptive(y0, span, &limits, record)?
        }
    };
    Ok(RowSolution { y, statistics: run.statistics })
}

/// One step of each row by itself: row `i` at `t_i + h_i`.
///
/// # Errors
/// Those of the right-hand side.
pub fn step_rows<S: RowState>(
    f: &mut RowRightHandSide<'_, S>,
    method: Method,
    rows: &[usize],
    t: &[f64],
    h: &[f64],
    y: &S,
) -> Result<S> {
    let count = rows.iter().max().map_or(0, |m| m + 1);
    let mut run = Run { f, method, statistics: vec![Statistics::default(); count] };
    let slopes = run.stages(rows, t, h, y, None)?;
    y.add_scaled_rows(h, &weighted(method.tableau().b, &slopes))
}

struct Limits {
    tolerance: Tolerance,
    controller: Pid,
    first_step: Option<f64>,
    min_step: f64,
    longest: f64,
    max_steps: u64,
    fallback: Fallback,
}

/// The steps of the rows under way.
struct Lengths {
    /// Signed.
    h: Vec<f64>,
    /// Whether each ends at the end.
    ends: Vec<bool>,
    /// How short each may be.
    least: Vec<f64>,
}

/// The rows under way, all vectors in the same order.
struct Active<S> {
    rows: Vec<usize>,
    t: Vec<f64>,
    size: Vec<f64>,
    memory: Vec<Memory>,
    y: S,
    slope: S,
}

struct Run<'a, 'f, S> {
    f: &'a mut RowRightHandSide<'f, S>,
    method: Method,
    statistics: Vec<Statistics>,
}

impl<S: RowState> Run<'_, '_, S> {
    fn evaluate(&mut self, rows: &[usize], t: &[f64], y: &S) -> Result<S> {
        for &row in rows {
            if let Some(s) = self.statistics.get_mut(row) {
                s.evaluations += 1;
            }
        }
        (self.f)(&RowTimes { rows, t }, y)
    }

    fn stages(&mut self, rows: &[usize], t: &[f64], h: &[f64], y: &S, first: Option<S>) -> Result<Vec<S>> {
        let tableau = self.method.tableau();
        let first = match first {
            Some(slope) => slope,
            None => self.evaluate(rows, t, y)?,
        };
        let mut slopes = vec![first];
        for (row, &c) in tableau.a.iter().zip(tableau.c).skip(1) {
            let at = y.add_scaled_rows(h, &weighted(row, &slopes))?;
            let times: Vec<f64> = t.iter().zip(h).map(|(t, h)| t + c * h).collect();
            slopes.push(self.evaluate(rows, &times, &at)?);
        }
        Ok(slopes)
    }

    fn fixed(
        &mut self,
        y0: &S,
        [from, to]: [f64; 2],
        steps: usize,
        record: &mut dyn FnMut(RowStep<'_, S>) -> Result<()>,
    ) -> Result<S> {
        let rows: Vec<usize> = (0..y0.rows()).collect();
        let (mut y, mut first) = (y0.clone(), None);
        for k in 0..steps {
            let at = |k: usize| from + (to - from) * k as f64 / steps as f64;
            let (t, h) = (vec![at(k); rows.len()], vec![at(k + 1) - at(k); rows.len()]);
            let slopes = self.stages(&rows, &t, &h, &y, first.take())?;
            record(RowStep { rows: &rows, t: &t, h: &h, y: &y, stages: &slopes, places: &rows })?;
            y = y.add_scaled_rows(&h, &weighted(self.method.tableau().b, &slopes))?;
            self.statistics.iter_mut().for_each(|s| s.accepted += 1);
            first = slopes.into_iter().next_back().filter(|_| self.method.tableau().first_same_as_last);
        }
        Ok(y)
    }

    fn adaptive(
        &mut self,
        y0: &S,
        [from, to]: [f64; 2],
        limits: &Limits,
        record: &mut dyn FnMut(RowStep<'_, S>) -> Result<()>,
    ) -> Result<S> {
        let sign = (to - from).signum();
        let mut whole = y0.clone();
        let mut active = self.start(y0, from, sign, limits)?;
        while !active.rows.is_empty() {
            let lengths = self.lengths(&mut active, to, sign, limits)?;
            let (h, ends) = (&lengths.h, &lengths.ends);
            let slopes = self.stages(&active.rows, &active.t, h, &active.y, Some(active.slope.clone()))?;
            let next = active.y.add_scaled_rows(h, &weighted(self.method.tableau().b, &slopes))?;
            let errors = self.errors(h, &active.y, &next, &slopes, limits.tolerance)?;
            let taken = self.judge(&mut active, &lengths, &errors, limits)?;
            if taken.is_empty() {
                continue;
            }
            let pick = |v: &[f64]| taken.iter().filter_map(|&i| v.get(i).copied()).collect::<Vec<f64>>();
            let rows: Vec<usize> = taken.iter().filter_map(|&i| active.rows.get(i).copied()).collect();
            let (t, taken_h) = (pick(&active.t), pick(h));
            let y = active.y.select(&taken)?;
            record(RowStep { rows: &rows, t: &t, h: &taken_h, y: &y, stages: &slopes, places: &taken })?;
            let arrived = next.select(&taken)?;
            whole = whole.replace(&rows, &arrived)?;
            active.y = active.y.replace(&taken, &arrived)?;
            for &i in &taken {
                active.t[i] = if ends[i] { to } else { active.t[i] + h[i] };
            }
            let fresh = match slopes.last().filter(|_| self.method.tableau().first_same_as_last) {
                Some(last) => last.select(&taken)?,
                // Rows that have arrived need no slope; they leave below, but the evaluation would count.
                None => self.slopes_at(&active, &taken, to)?,
            };
            active.slope = active.slope.replace(&taken, &fresh)?;
            active = active.without_arrived(to)?;
        }
        Ok(whole)
    }

    /// The slopes of `taken` rows at their new times; those at the end get their old one.
    fn slopes_at(&mut self, active: &Active<S>, taken: &[usize], to: f64) -> Result<S> {
        let old = active.slope.select(taken)?;
        let under_way: Vec<usize> = (0..taken.len()).filter(|&k| active.t[taken[k]] != to).collect();
        if under_way.is_empty() {
            return Ok(old);
        }
        let places: Vec<usize> = under_way.iter().map(|&k| taken[k]).collect();
        let rows: Vec<usize> = places.iter().map(|&i| active.rows[i]).collect();
        let t: Vec<f64> = places.iter().map(|&i| active.t[i]).collect();
        let fresh = self.evaluate(&rows, &t, &active.y.select(&places)?)?;
        old.replace(&under_way, &fresh)
    }

    /// Hairer's first step for each row, or the caller's.
    fn start(&mut self, y0: &S, from: f64, sign: f64, limits: &Limits) -> Result<Active<S>> {
        let count = y0.rows();
        let rows: Vec<usize> = (0..count).collect();
        let t = vec![from; count];
        let slope = self.evaluate(&rows, &t, y0)?;
        let size = match limits.first_step {
            Some(h) => vec![h.min(limits.longest); count],
            None => {
                let norms = |s: &S| S::error_norm_rows(s, y0, y0, limits.tolerance);
                let (d0, d1) = (norms(y0)?, norms(&slope)?);
                if let Some(row) = d1.iter().position(|d| !d.is_finite()) {
                    return Err(failure(from, 0.0, Some(row), "the right-hand side is not finite at the start".into()));
                }
                let trial = |(&state, &slope): (&f64, &f64)| trial_step(state, slope, limits.longest);
                let h0: Vec<f64> = d0.iter().zip(&d1).map(trial).collect();
                let signed: Vec<f64> = h0.iter().map(|h| h * sign).collect();
                let ahead: Vec<f64> = signed.iter().map(|h| from + h).collect();
                let next = self.evaluate(&rows, &ahead, &y0.add_scaled_rows(&signed, &[(1.0, &slope)])?)?;
                let d2 = norms(&next.add_scaled(&[(-1.0, &slope)])?)?;
                let order = self.method.order();
                (0..count).map(|i| first_step(h0[i], d1[i], d2[i], order, limits.longest)).collect()
            }
        };
        Ok(Active { rows, t, size, memory: vec![Memory::new(); count], y: y0.clone(), slope })
    }

    /// The step of each row.
    fn lengths(&self, active: &mut Active<S>, to: f64, sign: f64, limits: &Limits) -> Result<Lengths> {
        let (mut h, mut ends, mut shortest) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..active.rows.len() {
            let row = active.rows[i];
            let s = self.statistics.get(row).copied().unwrap_or_default();
            if s.accepted + s.rejected >= limits.max_steps {
                let reason = format!("{} steps did not reach t = {to}", limits.max_steps);
                return Err(failure(active.t[i], active.size[i] * sign, Some(row), reason));
            }
            let left = (to - active.t[i]).abs();
            let least = least_step(active.t[i], left, limits.min_step);
            active.size[i] = active.size[i].max(least).min(limits.longest);
            let (length, end) = step_length(active.size[i], active.t[i], to);
            h.push(length);
            ends.push(end);
            shortest.push(least);
        }
        Ok(Lengths { h, ends, least: shortest })
    }

    fn errors(&self, h: &[f64], y: &S, next: &S, slopes: &[S], tolerance: Tolerance) -> Result<Vec<f64>> {
        let (Some(weights), Some(first)) = (self.method.tableau().error, slopes.first()) else {
            return Ok(vec![0.0; h.len()]);
        };
        // `first + h Σ w k − first`, without a state of zeros.
        let error = first.add_scaled_rows(h, &weighted(weights, slopes))?.add_scaled(&[(-1.0, first)])?;
        S::error_norm_rows(&error, y, next, tolerance)
    }

    /// The places of rows whose step is accepted; sizes are set for the next round.
    fn judge(
        &mut self,
        active: &mut Active<S>,
        Lengths { h, ends, least }: &Lengths,
        errors: &[f64],
        limits: &Limits,
    ) -> Result<Vec<usize>> {
        let mut taken = Vec::new();
        for (i, &error) in errors.iter().enumerate() {
            let (factor, mut accepted) = active.memory[i].judge(&limits.controller, self.method.order(), error);
            if !accepted && h[i].abs() <= least[i] * (1.0 + 1e-9) {
                if limits.fallback != Fallback::AcceptMinStep || !error.is_finite() {
                    return Err(super::solve::underflow(active.t[i], h[i], (error, Some(active.rows[i]))));
                }
                accepted = true;
            }
            let proposal = h[i].abs() * factor;
            let statistics = self.statistics.get_mut(active.rows[i]);
            if accepted {
                taken.push(i);
                active.size[i] = if ends[i] { proposal.max(active.size[i]) } else { proposal };
                statistics.into_iter().for_each(|s| s.accepted += 1);
            } else {
                active.size[i] = proposal;
                statistics.into_iter().for_each(|s| s.rejected += 1);
            }
        }
        Ok(taken)
    }
}

impl<S: RowState> Active<S> {
    fn without_arrived(self, to: f64) -> Result<Self> {
        let keep: Vec<usize> = (0..self.rows.len()).filter(|&i| self.t[i] != to).collect();
        if keep.len() == self.rows.len() {
            return Ok(self);
        }
        fn pick<T: Clone>(v: &[T], keep: &[usize]) -> Vec<T> {
            keep.iter().filter_map(|&i| v.get(i).cloned()).collect()
        }
        if keep.is_empty() {
            return Ok(Active { rows: vec![], t: vec![], size: vec![], memory: vec![], ..self });
        }
        Ok(Active {
            rows: pick(&self.rows, &keep),
            t: pick(&self.t, &keep),
            size: pick(&self.size, &keep),
            memory: pick(&self.memory, &keep),
            y: self.y.select(&keep)?,
            slope: self.slope.select(&keep)?,
        })
    }
}

fn weighted<'a, S>(weights: &[f64], slopes: &'a [S]) -> Vec<(f64, &'a S)> {
    weights.iter().copied().zip(slopes).filter(|(w, _)| *w != 0.0).collect()
}
