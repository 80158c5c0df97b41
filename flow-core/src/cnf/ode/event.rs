//! Events: where a function of time and state crosses zero.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::solve::{RightHandSide, Statistics, solve_until, step_between};
use super::{SolveOptions, State};
use crate::{Error, Result};

/// Which crossings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crossing {
    /// Both.
    #[default]
    Any,
    /// From negative to positive, along the direction of integration.
    Rising,
    /// From positive to negative.
    Falling,
}

/// A condition to watch.
pub struct Event<'a, S> {
    /// Zero where the event happens.
    pub condition: &'a dyn Fn(f64, &S) -> Result<f64>,
    /// Which crossings count.
    pub crossing: Crossing,
    /// Whether the integration ends there.
    pub terminal: bool,
}

/// One event that happened.
#[derive(Debug, Clone)]
pub struct Occurrence<S> {
    /// Its place among the events watched.
    pub event: usize,
    /// When.
    pub t: f64,
    /// The state then.
    pub y: S,
}

/// What a solve with events returns.
#[derive(Debug, Clone)]
pub struct EventSolution<S> {
    /// Where the integration ended: the span's end, or a terminal event.
    pub t: f64,
    /// The state there.
    pub y: S,
    /// All events, in the order of time.
    pub occurrences: Vec<Occurrence<S>>,
    /// What it took, the location of events included.
    pub statistics: Statistics,
}

/// As [`solve`](super::solve), noting where conditions cross zero.
///
/// A crossing is looked for between the ends of every step, so two within one step are missed; bound the step where that
/// matters. Its time is found by bisection on steps of the method itself from the start of that step: as accurate as the
/// solution, to `1e-13` of the step. A condition that is zero at the start is no event.
///
/// # Errors
/// As [`solve`](super::solve), those of the conditions, and [`Error::NonFinite`] when one is not finite.
pub fn solve_events<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
    events: &[Event<'_, S>],
) -> Result<EventSolution<S>> {
    let evaluations = Cell::new(0);
    let mut counted = |t: f64, y: &S| {
        evaluations.set(evaluations.get() + 1);
        f(t, y)
    };
    let mut steps: Vec<Crossed<S>> = Vec::new();
    let mut values = conditions(events, span[0], y0)?;
    // The right-hand side is lent to the solver, so steps with a crossing are kept and refined after it; the solver stops
    // at the first terminal one.
    let solution = solve_until(&mut counted, y0, span, options, &mut |s| {
        let before = std::mem::replace(&mut values, conditions(events, s.end, s.next)?);
        let crossed = (0..events.len()).filter(|&e| crosses(events[e].crossing, before[e], values[e]));
        let crossed: Vec<(usize, f64)> = crossed.map(|e| (e, before[e])).collect();
        let last = crossed.iter().any(|&(e, _)| events[e].terminal);
        if !crossed.is_empty() {
            let (t, h, edges) = (s.t, s.h, s.edges);
            steps.push(Crossed { t, h, end: s.end, edges, y: s.y.clone(), next: s.next.clone(), crossed });
        }
        Ok(if last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let (mut t, mut y, mut occurrences) = (span[1], solution.y, Vec::new());
    'steps: for step in &steps {
        let mut inside = Vec::new();
        for &(event, before) in &step.crossed {
            let (part, at, state) = locate(&mut counted, options, &events[event], step, before)?;
            inside.push((part, Occurrence { event, t: at, y: state }));
        }
        inside.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, occurrence) in inside {
            let last = events[occurrence.event].terminal;
            if last {
                (t, y) = (occurrence.t, occurrence.y.clone());
            }
            occurrences.push(occurrence);
            if last {
                break 'steps;
            }
        }
    }
    let statistics = Statistics { evaluations: evaluations.get(), ..solution.statistics };
    Ok(EventSolution { t, y, occurrences, statistics })
}

/// A step within which conditions change their sign: which, and their values before it.
struct Crossed<S> {
    t: f64,
    h: f64,
    end: f64,
    edges: [f64; 2],
    y: S,
    next: S,
    crossed: Vec<(usize, f64)>,
}

/// Halves the part of a step in which the condition changes its sign: that part, the time and the state.
fn locate<S: State>(
    f: &mut RightHandSide<'_, S>,
    options: &SolveOptions,
    event: &Event<'_, S>,
    step: &Crossed<S>,
    before: f64,
) -> Result<(f64, f64, S)> {
    const HALVINGS: u64 = 44;
    let (mut low, mut high) = (0.0, 1.0);
    let mut found = (1.0, step.end, step.next.clone());
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        let t = step.t + middle * step.h;
        let state = step_between(f, options.method, [step.t, middle * step.h], [step.edges[0], t], &step.y)?;
        let value = (event.condition)(t, &state)?;
        if value == 0.0 || (value < 0.0) != (before < 0.0) {
            high = middle;
            found = (middle, t, state);
        } else {
            low = middle;
        }
    }
    Ok(found)
}

fn conditions<S>(events: &[Event<'_, S>], t: f64, y: &S) -> Result<Vec<f64>> {
    let one = |event: &Event<'_, S>| match (event.condition)(t, y)? {
        value if value.is_finite() => Ok(value),
        _ => Err(Error::NonFinite { layer: "ODE event".into(), what: format!("condition at t = {t}"), step: None }),
    };
    events.iter().map(one).collect()
}

fn crosses(kind: Crossing, before: f64, after: f64) -> bool {
    let (rising, falling) = (before < 0.0 && after >= 0.0, before > 0.0 && after <= 0.0);
    match kind {
        Crossing::Any => rising || falling,
        Crossing::Rising => rising,
        Crossing::Falling => falling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnf::ode::Stepping;

    /// Free fall from height 10 with speed up of 2: `y = 10 + 2t − 4.9t²`, and what happens on the way.
    fn fall(events: &[Event<'_, [f64; 2]>]) -> EventSolution<[f64; 2]> {
        let options = SolveOptions { stepping: Stepping::adaptive(1e-9, 1e-9), ..SolveOptions::default() };
        solve_events(&mut |_, y: &[f64; 2]| Ok([y[1], -9.8]), &[10.0, 2.0], [0.0, 3.0], &options, events).unwrap()
    }

    fn watch<'a>(condition: &'a dyn Fn(f64, &[f64; 2]) -> Result<f64>, terminal: bool) -> Event<'a, [f64; 2]> {
        Event { condition, crossing: Crossing::Any, terminal }
    }

    #[test]
    fn times_and_states_are_those_of_the_closed_form() {
        let ground = |_: f64, y: &[f64; 2]| Ok(y[0]);
        let top = |_: f64, y: &[f64; 2]| Ok(y[1]);
        let impact = (2.0 + (4.0_f64 + 4.0 * 4.9 * 10.0).sqrt()) / 9.8;
        let found = fall(&[watch(&ground, true), watch(&top, false)]);
        assert_eq!(found.occurrences.iter().map(|o| o.event).collect::<Vec<_>>(), [1, 0]);
        assert!((found.occurrences[0].t - 2.0 / 9.8).abs() < 1e-9 && found.occurrences[0].y[1].abs() < 1e-8);
        assert!((found.t - impact).abs() < 1e-9 && found.y[0].abs() < 1e-8);
        assert!((found.y[1] - (2.0 - 9.8 * impact)).abs() < 1e-8);
        assert!(found.statistics.accepted > 0 && found.statistics.evaluations > 6 * found.statistics.accepted);
    }

    #[test]
    fn a_terminal_event_in_a_step_that_ends_at_a_jump() {
        let near = |_: f64, y: &[f64; 1]| Ok(y[0] - 0.95);
        let stepping = Stepping::fixed(4);
        for method in [crate::cnf::ode::Method::Rk4, crate::cnf::ode::Method::Dopri5] {
            let options =
                SolveOptions { method, stepping: stepping.clone(), jump_times: vec![1.0], ..SolveOptions::default() };
            let mut bend = |t: f64, _: &[f64; 1]| Ok([if t < 1.0 { 1.0 } else { -2.0 }]);
            let event = Event { condition: &near, crossing: Crossing::Any, terminal: true };
            let found = solve_events(&mut bend, &[0.0], [0.0, 2.0], &options, &[event]).unwrap();
            assert_eq!(found.occurrences.len(), 1);
            assert!((found.t - 0.95).abs() < 1e-12 && (found.y[0] - 0.95).abs() < 1e-12, "{} {:?}", found.t, found.y);
        }
    }

    #[test]
    fn no_event_leaves_the_end_and_directions_are_told_apart() {
        let never = |_: f64, y: &[f64; 2]| Ok(y[0] - 100.0);
        let found = fall(&[watch(&never, true)]);
        assert!(found.occurrences.is_empty() && found.t == 3.0);
        assert!((found.y[0] - (10.0 + 6.0 - 4.9 * 9.0)).abs() < 1e-8);
        let level = |_: f64, y: &[f64; 2]| Ok(y[0] - 10.1);
        let times = |crossing| -> Vec<f64> {
            fall(&[Event { condition: &level, crossing, terminal: false }]).occurrences.iter().map(|o| o.t).collect()
        };
        // Up through 10.1 and down again: both within the first moments.
        let root = |sign: f64| (2.0 + sign * (4.0_f64 - 4.0 * 4.9 * 0.1).sqrt()) / 9.8;
        let bounded = |crossing| -> Vec<f64> {
            let options = SolveOptions { stepping: Stepping::fixed(300), ..SolveOptions::default() };
            let event = Event { condition: &level, crossing, terminal: false };
            let mut field = |_: f64, y: &[f64; 2]| Ok([y[1], -9.8]);
            let found = solve_events(&mut field, &[10.0, 2.0], [0.0, 3.0], &options, &[event]).unwrap();
            found.occurrences.iter().map(|o| o.t).collect()
        };
        assert!((bounded(Crossing::Rising)[0] - root(-1.0)).abs() < 1e-9);
        assert!((bounded(Crossing::Falling)[0] - root(1.0)).abs() < 1e-9);
        assert_eq!(bounded(Crossing::Any).len(), 2);
        assert!(times(Crossing::Rising).len() <= 1);
        let broken = |_: f64, _: &[f64; 2]| Ok(f64::NAN);
        let mut field = |_: f64, y: &[f64; 2]| Ok(*y);
        let event = [watch(&broken, false)];
        assert!(solve_events(&mut field, &[1.0, 1.0], [0.0, 1.0], &SolveOptions::default(), &event).is_err());
    }
}
