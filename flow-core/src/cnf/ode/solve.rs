//! Solving with one step size for the whole state.

use std::ops::ControlFlow;

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
    /// Where it ends: exactly the time that it had to end at, where there was one.
    pub end: f64,
    /// When the stages at its beginning and at its end are evaluated: there, or one rounding inside at a jump.
    pub edges: [f64; 2],
    /// The state before it.
    pub y: &'a S,
    /// The state after it.
    pub next: &'a S,
    /// The slopes of its stages; the first is that at its beginning.
    pub slopes: &'a [S],
}

/// Moves `y0` from `span[0]` to `span[1]`, forward or backward in time.
///
/// Fixed steps pass on numbers that are not finite.
///
/// # Errors
/// [`Error::Config`] for options outside their range; [`Error::Solver`] with time, step and reason when an adaptive step
/// underflows, a number is not finite or steps are too many; those of the right-hand side.
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
    solve_until(f, y0, span, options, &mut |step| record(step).map(|()| ControlFlow::Continue(())))
}

/// As [`solve_recorded`], until the record asks to stop; the state is then that of the last step's end.
pub(super) fn solve_until<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
    record: &mut Record<'_, S>,
) -> Result<Solution<S>> {
    options.check()?;
    check_span(span)?;
    let mut run = Run { f, method: options.method, statistics: Statistics::default(), slope: None, behind: false };
    if span[0] == span[1] {
        return Ok(Solution { y: y0.clone(), statistics: run.statistics });
    }
    let stops = Stops::new(span, options);
    run.behind = stops.jump_at_start;
    let y = match &options.stepping {
        Stepping::Fixed { steps } => run.fixed(span, y0, &stops.fixed(span, *steps), record)?,
        Stepping::Adaptive { .. } => run.adaptive(span, y0, &stops, &options.stepping, record)?,
    };
    Ok(Solution { y, statistics: run.statistics })
}

/// What is shown every accepted step.
type Record<'a, S> = dyn FnMut(Step<'_, S>) -> Result<ControlFlow<()>> + 'a;

pub(super) fn check_span(span: [f64; 2]) -> Result<()> {
    match span.iter().all(|t| t.is_finite()) {
        true => Ok(()),
        false => Err(Error::config("time span", format!("{span:?} is not finite"))),
    }
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
        if times.get(states.len()) == Some(&step.end) {
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
    step_between(f, method, [t, h], [t, t + h], y)
}

/// As [`step`], with the times of its first and last stages.
pub(super) fn step_between<S: State>(
    f: &mut RightHandSide<'_, S>,
    method: Method,
    [t, h]: [f64; 2],
    edges: [f64; 2],
    y: &S,
) -> Result<S> {
    let mut run = Run { f, method, statistics: Statistics::default(), slope: None, behind: false };
    let slopes = run.stages(t, h, edges, y)?;
    run.combine(h, y, &slopes)
}

/// When the stage at the part `c` of a step is evaluated.
pub(in crate::cnf) fn stage_time(t: f64, h: f64, edges: [f64; 2], c: f64) -> f64 {
    if c == 0.0 {
        edges[0]
    } else if c == 1.0 {
        edges[1]
    } else {
        t + c * h
    }
}

/// The time next to a jump on the side of `towards`: a right-hand side that jumps is asked on the step's own side.
pub(super) fn beside(jump: f64, towards: f64) -> f64 {
    if towards > jump { jump.next_up() } else { jump.next_down() }
}

/// A time at which a step must end.
#[derive(Debug, Clone, Copy)]
struct Stop {
    t: f64,
    jump: bool,
}

/// Those of a solve, in the direction of time; the last is its end.
struct Stops {
    all: Vec<Stop>,
    jump_at_start: bool,
}

impl Stops {
    fn new([from, to]: [f64; 2], options: &SolveOptions) -> Self {
        let marks = |times: &[f64], jump: bool| times.iter().map(|&t| Stop { t, jump }).collect::<Vec<_>>();
        let mut all = [marks(&options.step_times, false), marks(&options.jump_times, true)].concat();
        // Times are scaled, so that a jump at an end of the span need not be there to the bit.
        let close = |t: f64, end: f64| (t - end).abs() <= 4.0 * f64::EPSILON * from.abs().max(to.abs());
        let jump_at = |end: f64| options.jump_times.iter().any(|&t| close(t, end));
        all.retain(|stop| (stop.t - from) * (stop.t - to) < 0.0 && !close(stop.t, from) && !close(stop.t, to));
        all.push(Stop { t: to, jump: jump_at(to) });
        let sign = (to - from).signum();
        all.sort_by(|a, b| (a.t * sign).total_cmp(&(b.t * sign)));
        all.dedup_by(|later, kept| {
            let same = later.t == kept.t;
            kept.jump |= same && later.jump;
            same
        });
        Stops { all, jump_at_start: jump_at(from) }
    }

    /// Equal steps, cut where a stop lies inside one; a stop takes the place of an end of a step that it rounds to.
    fn fixed(&self, [from, to]: [f64; 2], steps: usize) -> Vec<Stop> {
        let step = (to - from) / steps as f64;
        let ends = (1..steps).map(|k| from + step * k as f64);
        let near = |t: f64| self.all.iter().any(|stop| (stop.t - t).abs() <= 1e-9 * step.abs());
        let ends = ends.filter(|&t| !near(t)).map(|t| Stop { t, jump: false });
        let mut all: Vec<Stop> = ends.chain(self.all.iter().copied()).collect();
        all.sort_by(|a, b| (a.t * step.signum()).total_cmp(&(b.t * step.signum())));
        all
    }
}

/// A solve under way.
struct Run<'a, 'f, S> {
    f: &'a mut RightHandSide<'f, S>,
    method: Method,
    statistics: Statistics,
    /// The slope at the current time, if it is known.
    slope: Option<S>,
    /// Whether the right-hand side jumps at the current time.
    behind: bool,
}

impl<S: State> Run<'_, '_, S> {
    fn evaluate(&mut self, t: f64, y: &S) -> Result<S> {
        self.statistics.evaluations += 1;
        (self.f)(t, y)
    }

    /// When the first and last stages of a step from `t` to `end` are evaluated; `jump` tells of one at its end.
    fn edges(&self, t: f64, end: f64, jump: bool) -> [f64; 2] {
        let first = if self.behind { beside(t, end) } else { t };
        [first, if jump { beside(end, t) } else { end }]
    }

    /// The slopes of all stages.
    fn stages(&mut self, t: f64, h: f64, edges: [f64; 2], y: &S) -> Result<Vec<S>> {
        let tableau = self.method.tableau();
        let first = match self.slope.take() {
            Some(slope) => slope,
            None => self.evaluate(edges[0], y)?,
        };
        let mut slopes = vec![first];
        for (row, &c) in tableau.a.iter().zip(tableau.c).skip(1) {
            let terms: Vec<(f64, &S)> =
                row.iter().zip(&slopes).filter(|(a, _)| **a != 0.0).map(|(a, k)| (a * h, k)).collect();
            let at = y.add_scaled(&terms)?;
            slopes.push(self.evaluate(stage_time(t, h, edges, c), &at)?);
        }
        Ok(slopes)
    }

    fn combine(&self, h: f64, y: &S, slopes: &[S]) -> Result<S> {
        y.add_scaled(&weighted(self.method.tableau().b, h, slopes))
    }

    fn fixed(&mut self, [from, _]: [f64; 2], y0: &S, ends: &[Stop], record: &mut Record<'_, S>) -> Result<S> {
        let (mut t, mut y) = (from, y0.clone());
        for &Stop { t: end, jump } in ends {
            let (h, edges) = (end - t, self.edges(t, end, jump));
            let slopes = self.stages(t, h, edges, &y)?;
            let next = self.combine(h, &y, &slopes)?;
            let asked = record(Step { t, h, end, edges, y: &y, next: &next, slopes: &slopes })?;
            self.statistics.accepted += 1;
            let known = self.method.tableau().first_same_as_last && !jump;
            self.slope = slopes.into_iter().next_back().filter(|_| known);
            (t, y, self.behind) = (end, next, jump);
            if asked.is_break() {
                break;
            }
        }
        Ok(y)
    }

    fn adaptive(
        &mut self,
        [from, to]: [f64; 2],
        y0: &S,
        stops: &Stops,
        stepping: &Stepping,
        record: &mut Record<'_, S>,
    ) -> Result<S> {
        let Stepping::Adaptive { tolerance, controller, first_step, min_step, max_step, max_steps, fallback } =
            stepping
        else {
            return Ok(y0.clone());
        };
        let sign = (to - from).signum();
        let longest = max_step.unwrap_or(f64::INFINITY).min((to - from).abs());
        let (mut t, mut y) = (from, y0.clone());
        let mut size = match first_step {
            Some(h) => h.min(longest),
            None => self.first_step(self.edges(from, to, false)[0], sign, &y, *tolerance, longest)?,
        };
        let mut memory = Memory::new();
        for &Stop { t: stop, jump } in &stops.all {
            while t != stop {
                let attempts = self.statistics.accepted + self.statistics.rejected;
                if attempts >= *max_steps as u64 {
                    return Err(failure(t, size * sign, None, format!("{max_steps} steps did not reach t = {to}")));
                }
                let left = (stop - t).abs();
                let smallest = control::least_step(t, left, *min_step);
                size = size.max(smallest).min(longest);
                let (h, ends) = control::step_length(size, t, stop);
                let end = if ends { stop } else { t + h };
                let edges = self.edges(t, end, jump && ends);
                let kept = self.slope.clone();
                let slopes = self.stages(t, h, edges, &y)?;
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
                    let asked = record(Step { t, h, end, edges, y: &y, next: &next, slopes: &slopes })?;
                    self.statistics.accepted += 1;
                    (t, y, self.behind) = (end, next, jump && ends);
                    if asked.is_break() {
                        return Ok(y);
                    }
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
            }
        }
        Ok(y)
    }

    /// The error of a step relative to the tolerance, and the row that has the most of it.
    fn error(&self, h: f64, y: &S, next: &S, slopes: &[S], tolerance: Tolerance) -> Result<(f64, Option<usize>)> {
        let Some(weights) = self.method.tableau().error else { return Ok((0.0, None)) };
        let Some(first) = slopes.first() else { return Ok((0.0, None)) };
        // Added to zero: the error is far smaller than a slope, and the rounding of a slope would make steps shorter.
        let zero = first.add_scaled(&[(-1.0, first)])?;
        let error = zero.add_scaled(&weighted(weights, h, slopes))?;
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
