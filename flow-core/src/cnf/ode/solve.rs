//! Solving with one step size for the whole state.

use super::control::{self, Fallback, Memory, SolveOptions, Stepping};
use super::{Method, State, Tolerance};
use crate::{Error, Result};

/// `f(t, y)`.
pub type RightHandSide<'a, S> = dyn FnMut(f64, &S) -> Result<S> + 'a;

/// What a solve took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Steps taken.
    pub accepted: u64,
    /// Steps whose error was too large.
    pub rejected: u64,
    /// Evaluations of the right-hand side.
    pub evaluations: u64,
}

impl std::ops::Add for Statistics {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Statistics {
            accepted: self.accepted + other.accepted,
            rejected: self.rejected + other.rejected,
            evaluations: self.evaluations + other.evaluations,
        }
    }
}

impl std::iter::Sum for Statistics {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Statistics::default(), |a, b| a + b)
    }
}

/// The state at the end.
#[derive(Debug, Clone)]
pub struct Solution<S> {
    /// The state.
    pub y: S,
    /// What it took.
    pub statistics: Statistics,
}

/// An accepted step.
#[derive(Debug)]
pub struct Step<'a, S> {
    /// Where it begins.
    pub t: f64,
    /// Its length, negative in reversed time.
    pub h: f64,
    /// The state before it.
    pub y: &'a S,
    /// The state after it.
    pub next: &'a S,
    /// The slopes of its stages; the first is that at its beginning.
    pub slopes: &'a [S],
}

/// Moves `y0` from `span[0]` to `span[1]`, forward or backward in time.
///
/// # Errors
/// [`Error::Config`] for options outside their range; [`Error::Solver`] with time, step and reason when a step underflows,
/// a number is not finite or steps are too many; those of the right-hand side.
pub fn solve<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
) -> Result<Solution<S>> {
    solve_recorded(f, y0, span, options, &mut |_| Ok(()))
}

/// As [`solve`], showing every accepted step.
///
/// # Errors
/// As [`solve`], and those of `record`.
pub fn solve_recorded<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
    record: &mut dyn FnMut(Step<'_, S>) -> Result<()>,
) -> Result<Solution<S>> {
    options.check()?;
    if !(span[0].is_finite() && span[1].is_finite()) {
        return Err(Error::config("time span", format!("{span:?} is not finite")));
    }
    let mut run =
        Run { f, method: options.method, statistics: Statistics::default(), slope: None, sides: Sides::default() };
    let mut y = y0.clone();
    if span[0] == span[1] {
        return Ok(Solution { y, statistics: run.statistics });
    }
    let stops = Stops::new(span, options);
    match &options.stepping {
        Stepping::Fixed { steps } => {
            run.sides.forward = span[1] > span[0];
            for [from, to, jump] in stops.fixed(span, *steps) {
                run.sides.ahead = (jump > 0.0).then_some(to);
                y = run.fixed(from, to - from, &y, record)?;
                run.sides.behind = run.sides.ahead;
                if jump > 0.0 {
                    run.slope = None;
                }
            }
        }
        Stepping::Adaptive { .. } => y = run.adaptive(span, &y, &stops, &options.stepping, record)?,
    }
    Ok(Solution { y, statistics: run.statistics })
}

/// The states at `times`, the first of which is the start. A step ends at each of them, so that every state has the
/// method's full order and none is interpolated.
///
/// # Errors
/// As [`solve`]; [`Error::Config`] unless the times are strictly monotone.
pub fn solve_at<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    times: &[f64],
    options: &SolveOptions,
) -> Result<(Vec<S>, Statistics)> {
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return Err(Error::config("times", "need at least one"));
    };
    let sign = (last - first).signum();
    if !times.windows(2).all(|w| (w[1] - w[0]) * sign > 0.0) {
        return Err(Error::config("times", "must increase, or decrease, strictly"));
    }
    let options = SolveOptions { step_times: [options.step_times.clone(), times.to_vec()].concat(), ..options.clone() };
    let mut states = vec![y0.clone()];
    let solution = solve_recorded(f, y0, [first, last], &options, &mut |step| {
        let end = step.t + step.h;
        if states.len() < times.len() && (end - times[states.len()]).abs() <= 1e-12 * (1.0 + end.abs()) {
            states.push(step.next.clone());
        }
        Ok(())
    })?;
    Ok((states, solution.statistics))
}

/// One step by itself: `y(t + h)`.
///
/// # Errors
/// Those of the right-hand side.
pub fn step<S: State>(f: &mut RightHandSide<'_, S>, method: Method, t: f64, h: f64, y: &S) -> Result<S> {
    let mut run = Run { f, method, statistics: Statistics::default(), slope: None, sides: Sides::default() };
    let slopes = run.stages(t, h, y)?;
    run.combine(h, y, &slopes)
}

/// Times at which a step must end, in the direction of time; a jump is marked.
struct Stops(Vec<(f64, bool)>);

impl Stops {
    fn new([from, to]: [f64; 2], options: &SolveOptions) -> Self {
        let inside = |t: &&f64| (**t - from) * (**t - to) < 0.0;
        let mut stops: Vec<(f64, bool)> = options.step_times.iter().filter(inside).map(|&t| (t, false)).collect();
        stops.extend(options.jump_times.iter().filter(inside).map(|&t| (t, true)));
        let sign = (to - from).signum();
        stops.sort_by(|a, b| (a.0 * sign).total_cmp(&(b.0 * sign)));
        stops.push((to, false));
        Stops(stops)
    }

    /// Equal steps, cut where a stop lies inside one: from, to, and whether a jump follows.
    fn fixed(&self, [from, to]: [f64; 2], steps: usize) -> Vec<[f64; 3]> {
        let mut marks: Vec<(f64, bool)> = self.0.clone();
        let step = (to - from) / steps as f64;
        marks.extend((1..steps).map(|k| (from + step * k as f64, false)));
        let sign = (to - from).signum();
        marks.sort_by(|a, b| (a.0 * sign).total_cmp(&(b.0 * sign)));
        let mut merged: Vec<(f64, bool)> = Vec::new();
        for (t, jump) in marks {
            match merged.last_mut() {
                // Two marks at one time, up to the rounding of their sums.
                Some(last) if (t - last.0).abs() <= 1e-9 * step.abs() => last.1 |= jump,
                _ => merged.push((t, jump)),
            }
        }
        let mut begin = from;
        let count = merged.len();
        merged
            .into_iter()
            .enumerate()
            .map(|(i, (end, jump))| {
                let end = if i + 1 == count { to } else { end };
                let cut = [begin, end, f64::from(u8::from(jump))];
                begin = end;
                cut
            })
            .collect()
    }
}

/// A solve under way.
struct Run<'a, 'f, S> {
    f: &'a mut RightHandSide<'f, S>,
    method: Method,
    statistics: Statistics,
    /// The slope at the current time, if it is known.
    slope: Option<S>,
    /// Jumps of the right-hand side at the ends of the step at hand, and the direction of time.
    sides: Sides,
}

/// A right-hand side that jumps is asked on the step's own side of the jump: one rounding away from it.
#[derive(Debug, Clone, Copy, Default)]
struct Sides {
    behind: Option<f64>,
    ahead: Option<f64>,
    forward: bool,
}

impl Sides {
    fn inside(&self, t: f64) -> f64 {
        let at = |jump: f64| (t - jump).abs() <= 4.0 * f64::EPSILON * jump.abs().max(f64::MIN_POSITIVE);
        let (later, earlier) = (|j: f64| j.next_up(), |j: f64| j.next_down());
        match (self.behind.filter(|j| at(*j)), self.ahead.filter(|j| at(*j))) {
            (Some(jump), _) => {
                if self.forward {
                    later(jump)
                } else {
                    earlier(jump)
                }
            }
            (None, Some(jump)) => {
                if self.forward {
                    earlier(jump)
                } else {
                    later(jump)
                }
            }
            (None, None) => t,
        }
    }
}

impl<S: State> Run<'_, '_, S> {
    fn evaluate(&mut self, t: f64, y: &S) -> Result<S> {
        self.statistics.evaluations += 1;
        (self.f)(self.sides.inside(t), y)
    }

    /// The slopes of all stages.
    fn stages(&mut self, t: f64, h: f64, y: &S) -> Result<Vec<S>> {
        let tableau = self.method.tableau();
        let first = match self.slope.take() {
            Some(slope) => slope,
            None => self.evaluate(t, y)?,
        };
        let mut slopes = vec![first];
        for (row, &c) in tableau.a.iter().zip(tableau.c).skip(1) {
            let terms: Vec<(f64, &S)> =
                row.iter().zip(&slopes).filter(|(a, _)| **a != 0.0).map(|(a, k)| (a * h, k)).collect();
            let at = y.add_scaled(&terms)?;
            slopes.push(self.evaluate(t + c * h, &at)?);
        }
        Ok(slopes)
    }

    fn combine(&self, h: f64, y: &S, slopes: &[S]) -> Result<S> {
        y.add_scaled(&weighted(self.method.tableau().b, h, slopes))
    }

    fn fixed(&mut self, t: f64, h: f64, y: &S, record: &mut dyn FnMut(Step<'_, S>) -> Result<()>) -> Result<S> {
        let slopes = self.stages(t, h, y)?;
        let next = self.combine(h, y, &slopes)?;
        record(Step { t, h, y, next: &next, slopes: &slopes })?;
        self.statistics.accepted += 1;
        if self.method.tableau().first_same_as_last {
            self.slope = slopes.last().cloned();
        }
        Ok(next)
    }

    fn adaptive(
        &mut self,
        [from, to]: [f64; 2],
        y0: &S,
        stops: &Stops,
        stepping: &Stepping,
        record: &mut dyn FnMut(Step<'_, S>) -> Result<()>,
    ) -> Result<S> {
        let Stepping::Adaptive { tolerance, controller, first_step, min_step, max_step, max_steps, fallback } =
            stepping
        else {
            return Ok(y0.clone());
        };
        let sign = (to - from).signum();
        self.sides.forward = to > from;
        let longest = max_step.unwrap_or(f64::INFINITY).min((to - from).abs());
        let (mut t, mut y) = (from, y0.clone());
        let mut size = match first_step {
            Some(h) => h.min(longest),
            None => self.first_step(from, sign, &y, *tolerance, longest)?,
        };
        let mut memory = Memory::new();
        for &(stop, jump) in &stops.0 {
            self.sides.ahead = jump.then_some(stop);
            while t != stop {
                let attempts = self.statistics.accepted + self.statistics.rejected;
                if attempts >= *max_steps as u64 {
                    return Err(failure(t, size * sign, None, format!("{max_steps} steps did not reach t = {to}")));
                }
                let left = (stop - t).abs();
                let smallest = control::least_step(t, left, *min_step);
                size = size.max(smallest).min(longest);
                let (h, ends) = control::step_length(size, t, stop);
                let kept = self.slope.clone();
                let slopes = self.stages(t, h, &y)?;
                let next = self.combine(h, &y, &slopes)?;
                let error = self.error(h, &y, &next, &slopes, *tolerance)?;
                let (factor, mut accepted) = memory.judge(controller, self.method.order(), error.0);
                if !accepted && h.abs() <= smallest * (1.0 + 1e-9) {
                    if *fallback == Fallback::AcceptMinStep && error.0.is_finite() {
                        accepted = true;
                    } else {
                        return Err(underflow(t, h, error));
                    }
                }
                let proposal = h.abs() * factor;
                if accepted {
                    record(Step { t, h, y: &y, next: &next, slopes: &slopes })?;
                    self.statistics.accepted += 1;
                    t = if ends { stop } else { t + h };
                    y = next;
                    self.slope = match self.method.tableau().first_same_as_last {
                        true => slopes.into_iter().next_back(),
                        false => None,
                    };
                    // A step cut short by a stop says little about the next one.
                    size = if ends { proposal.max(size.min(longest)) } else { proposal };
                } else {
                    self.statistics.rejected += 1;
                    self.slope = kept.or_else(|| slopes.into_iter().next());
                    size = proposal;
                }
            }
            if jump {
                self.slope = None;
                self.sides.behind = Some(stop);
            }
        }
        Ok(y)
    }

    /// The error of a step relative to the tolerance, and the row that has the most of it.
    fn error(&self, h: f64, y: &S, next: &S, slopes: &[S], tolerance: Tolerance) -> Result<(f64, Option<usize>)> {
        let Some(weights) = self.method.tableau().error else { return Ok((0.0, None)) };
        let Some(first) = slopes.first() else { return Ok((0.0, None)) };
        // `first · (w h)` plus the others, without a state of zeros.
        let mut terms = weighted(weights, h, slopes);
        terms.push((-1.0, first));
        let error = first.add_scaled(&terms)?;
        let norm = S::error_norm(&error, y, next, tolerance)?;
        Ok((norm, if norm <= 1.0 { None } else { S::worst(&error, y, next, tolerance)? }))
    }

    /// Hairer's choice (Hairer, Nørsett & Wanner 1993, II.4).
    fn first_step(&mut self, t: f64, sign: f64, y: &S, tolerance: Tolerance, longest: f64) -> Result<f64> {
        let slope = self.evaluate(t, y)?;
        let size = |s: &S| S::error_norm(s, y, y, tolerance);
        let (d0, d1) = (size(y)?, size(&slope)?);
        if !d1.is_finite() {
            let worst = S::worst(&slope, y, y, tolerance)?;
            return Err(failure(t, 0.0, worst, "the right-hand side is not finite at the start".into()));
        }
        let h0 = control::trial_step(d0, d1, longest);
        let ahead = y.add_scaled(&[(h0 * sign, &slope)])?;
        let next = self.evaluate(t + h0 * sign, &ahead)?;
        let d2 = size(&next.add_scaled(&[(-1.0, &slope)])?)?;
        self.slope = Some(slope);
        Ok(control::first_step(h0, d1, d2, self.method.order(), longest))
    }
}

pub(super) fn weighted<'a, S>(weights: &[f64], h: f64, slopes: &'a [S]) -> Vec<(f64, &'a S)> {
    weights.iter().zip(slopes).filter(|(w, _)| **w != 0.0).map(|(w, k)| (w * h, k)).collect()
}

pub(super) fn underflow(t: f64, h: f64, (error, row): (f64, Option<usize>)) -> Error {
    let reason = if error.is_finite() {
        format!(
            "the step is as small as it may be and its error still {error:.1e} times the tolerance: loosen the tolerance, \
             allow smaller steps, or fall back on steps of the least size"
        )
    } else {
        "a number is not finite however small the step: the right-hand side has diverged".into()
    };
    failure(t, h, row, reason)
}

pub(super) fn failure(t: f64, dt: f64, row: Option<usize>, reason: String) -> Error {
    Error::Solver { t, dt, row, reason }
}
