//! The solvers against closed forms and against an independent solver.

mod detest;

use candle_core::{DType, Device, Tensor};
use flow_core::cnf::ode::{
    Fallback, Method, Parts, RowTimes, SolveOptions, State, Statistics, Stepping, Tolerance, solve, solve_at,
    solve_recorded, solve_rows, step,
};
use flow_core::{Error, FlowRng, Result};

const ALL: [Method; 8] = [
    Method::Euler,
    Method::Midpoint,
    Method::Heun,
    Method::Rk4,
    Method::Bosh3,
    Method::Dopri5,
    Method::Tsit5,
    Method::Dopri8,
];

fn fixed(method: Method, steps: usize) -> SolveOptions {
    SolveOptions::new(method, Stepping::fixed(steps))
}

fn adaptive(method: Method, tolerance: f64) -> SolveOptions {
    SolveOptions::new(method, Stepping::adaptive(tolerance, tolerance))
}

/// `A`, 10 × 10, of entries `N(0, ½)`, row by row.
fn matrix() -> Vec<f64> {
    let mut rng = FlowRng::seed_from(3);
    (0..100).map(|_| 0.5 * rng.next_normal()).collect()
}

fn product(a: &[f64], y: &[f64]) -> Vec<f64> {
    a.chunks(10).map(|row| row.iter().zip(y).map(|(a, y)| a * y).sum()).collect()
}

/// `e^(tA) y` by its series, which converges at once for short times.
fn exponential(a: &[f64], y: &[f64], t: f64) -> Vec<f64> {
    const PARTS: usize = 64;
    let mut y = y.to_vec();
    for _ in 0..PARTS {
        let (mut term, mut sum) = (y.clone(), y.clone());
        for k in 1..25 {
            term = product(a, &term).iter().map(|v| v * t / PARTS as f64 / f64::from(k)).collect();
            sum.iter_mut().zip(&term).for_each(|(s, t)| *s += t);
        }
        y = sum;
    }
    y
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn errors_shrink_with_the_nominal_order() {
    let a = matrix();
    let y0: Vec<f64> = (0..10).map(|i| f64::from(i).sin() + 1.0).collect();
    let exact = exponential(&a, &y0, 4.0);
    for method in ALL.into_iter().filter(|m| m.order() < 8) {
        // Steps small enough for the leading term, errors well above round-off.
        let counts: Vec<usize> = match method.order() {
            1 => vec![4000, 8000, 16000, 32000],
            2 => vec![400, 800, 1600, 3200],
            3 => vec![200, 400, 800, 1600],
            4 => vec![100, 200, 400, 800],
            _ => vec![100, 200, 400, 800],
        };
        let points: Vec<(f64, f64)> = counts
            .iter()
            .map(|&n| {
                let y = solve(&mut |_, y: &Vec<f64>| Ok(product(&a, y)), &y0, [0.0, 4.0], &fixed(method, n)).unwrap().y;
                ((4.0 / n as f64).ln(), distance(&y, &exact).ln())
            })
            .collect();
        let slope = slope(&points);
        assert!((slope - method.order() as f64).abs() < 0.2, "{method:?}: slope {slope}");
    }
}

/// The slope of the line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |f: fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / points.len() as f64;
    let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
    points.iter().map(|(x, y)| (x - mx) * (y - my)).sum::<f64>()
        / points.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>()
}

/// Order eight drowns in round-off on the system above; here the leading term shows first.
#[test]
fn the_eighth_order_shows_on_a_scalar_problem() {
    let exact = 10.0_f64.sin().exp();
    let points: Vec<(f64, f64)> = [28, 40, 56, 72]
        .iter()
        .map(|&n| {
            let options = fixed(Method::Dopri8, n);
            let y = solve(&mut |t: f64, y: &[f64; 1]| Ok([y[0] * t.cos()]), &[1.0], [0.0, 10.0], &options).unwrap().y;
            ((10.0 / n as f64).ln(), (y[0] - exact).abs().ln())
        })
        .collect();
    let slope = slope(&points);
    assert!((slope - 8.0).abs() < 0.2, "slope {slope}: {points:?}");
}

#[test]
fn tableaus_meet_the_order_conditions() {
    for method in ALL {
        let t = method.tableau();
        for (row, c) in t.a.iter().zip(t.c) {
            assert!((row.iter().sum::<f64>() - c).abs() < 1e-14, "{method:?}: a row does not sum to its time");
        }
        let a = |i: usize, j: usize| t.a[i].get(j).copied().unwrap_or(0.0);
        let stages = 0..t.c.len();
        // Quadrature: Σ b c^(k-1) = 1/k; and the trees Σ b_i a_ij c_j^k = 1/((k+1)(k+2)).
        for k in 1..=method.order() as i32 {
            let sum: f64 = t.b.iter().zip(t.c).map(|(b, c)| b * c.powi(k - 1)).sum();
            assert!((sum - 1.0 / f64::from(k)).abs() < 1e-13, "{method:?}: quadrature {k}");
            if k < method.order() as i32 {
                let inner = |i: usize| stages.clone().map(|j| a(i, j) * t.c[j].powi(k - 1)).sum::<f64>();
                let sum: f64 = stages.clone().map(|i| t.b[i] * inner(i)).sum();
                assert!((sum - 1.0 / f64::from(k * (k + 1))).abs() < 1e-13, "{method:?}: tree {k}");
            }
        }
        if let Some(error) = t.error {
            assert!(error.iter().sum::<f64>().abs() < 1e-14, "{method:?}: both weights sum to one");
            // The embedded method is one order lower, and no more than that.
            let lower: Vec<f64> = t.b.iter().zip(error).map(|(b, e)| b - e).collect();
            let quadrature = |k: i32| -> f64 {
                lower.iter().zip(t.c).map(|(b, c)| b * c.powi(k - 1)).sum::<f64>() - 1.0 / f64::from(k)
            };
            assert!((1..method.order() as i32).all(|k| quadrature(k).abs() < 1e-13), "{method:?}");
        }
    }
}

/// The four problems of torchdiffeq's tests, their solutions for `t ∈ [1, 8]`.
type Problem = (&'static str, fn(f64, f64) -> f64, fn(f64) -> f64, f64);
const PROBLEMS: [Problem; 4] = [
    ("constant", |_, _| 0.2, |t| 0.2 * t + 3.0, 1e-6),
    ("linear", |_, y| -0.4 * y, |t| (-0.4 * t).exp(), 3e-4),
    ("sine", |t, _| t.cos() - t.sin() * 0.5, |t| t.sin() + 0.5 * t.cos(), 3e-4),
    ("exponential", |t, y| 0.3 * y + (0.3 * t).exp(), |t| t * (0.3 * t).exp(), 3e-4),
];

#[test]
fn known_problems_at_ten_times_forward_and_reversed_in_f64_and_f32() {
    let forward: Vec<f64> = (0..10).map(|i| 1.0 + 7.0 * f64::from(i) / 9.0).collect();
    let reversed: Vec<f64> = forward.iter().rev().copied().collect();
    for method in ALL.into_iter().filter(|m| m.order() >= 3) {
        for (name, f, exact, tolerance) in PROBLEMS {
            for times in [&forward, &reversed] {
                let options = if method.adaptive() { adaptive(method, 1e-6) } else { fixed(method, 200) };
                let start = exact(times[0]);
                let (states, _) = solve_at(&mut |t, y: &[f64; 1]| Ok([f(t, y[0])]), &[start], times, &options).unwrap();
                assert_eq!(states.len(), 10);
                for (state, &t) in states.iter().zip(times) {
                    let error = (state[0] - exact(t)).abs() / (1.0 + exact(t).abs());
                    assert!(error < tolerance, "{method:?} {name} at {t}: {error}");
                }
                let y0 = Tensor::full(start as f32, (3, 2), &Device::Cpu).unwrap();
                let mut field = |t: f64, y: &Tensor| -> Result<Tensor> {
                    let values: Vec<f32> = y.flatten_all()?.to_vec1()?;
                    let slopes: Vec<f32> = values.iter().map(|&v| f(t, f64::from(v)) as f32).collect();
                    Ok(Tensor::from_vec(slopes, (3, 2), &Device::Cpu)?)
                };
                let (states, _) = solve_at(&mut field, &y0, times, &adaptive_or_fixed(method)).unwrap();
                let last = f64::from(states[9].to_vec2::<f32>().unwrap()[2][1]);
                let expected = exact(times[9]);
                assert!((last - expected).abs() / (1.0 + expected.abs()) < 2e-3, "{method:?} {name} in f32");
            }
        }
    }
}

fn adaptive_or_fixed(method: Method) -> SolveOptions {
    if method.adaptive() { adaptive(method, 1e-5) } else { fixed(method, 100) }
}

#[test]
fn one_time_is_the_identity_and_costs_nothing() {
    let mut calls = 0;
    let mut f = |_: f64, y: &[f64; 2]| {
        calls += 1;
        Ok(*y)
    };
    let y = solve(&mut f, &[1.0, 2.0], [3.0, 3.0], &SolveOptions::default()).unwrap();
    assert_eq!((y.y, y.statistics), ([1.0, 2.0], Statistics::default()));
    assert_eq!(calls, 0);
}

#[test]
fn statistics_count_what_happened() {
    for method in ALL {
        for options in [fixed(method, 7), adaptive(method, 1e-6)] {
            if options.check().is_err() {
                continue;
            }
            let (mut calls, mut steps, mut reached) = (0, 0, 0.0);
            let solution = solve_recorded(
                &mut |t: f64, y: &[f64; 1]| {
                    calls += 1;
                    Ok([y[0] * (3.0 * t).cos()])
                },
                &[1.0],
                [0.0, 2.0],
                &options,
                &mut |s| {
                    steps += 1;
                    assert!((s.t - reached).abs() < 1e-12, "steps follow each other");
                    let again = step(&mut |t: f64, y: &[f64; 1]| Ok([y[0] * (3.0 * t).cos()]), method, s.t, s.h, s.y)?;
                    assert_eq!(again, *s.next, "a step by itself is the step taken");
                    reached = s.t + s.h;
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!((solution.statistics.evaluations, solution.statistics.accepted), (calls, steps), "{method:?}");
            assert!((reached - 2.0).abs() < 1e-12);
        }
    }
}

#[test]
fn steps_keep_their_limits_and_end_at_given_times() {
    let mut lengths = Vec::new();
    let mut ends = Vec::new();
    let stepping = Stepping::Adaptive {
        tolerance: Tolerance::new(1e-4, 1e-4),
        controller: Default::default(),
        first_step: Some(0.01),
        min_step: 0.0,
        max_step: Some(0.3),
        max_steps: 1000,
        fallback: Fallback::Fail,
    };
    let options = SolveOptions::default().stepping(stepping).step_times(vec![0.7, 0.123, 9.0]);
    solve_recorded(&mut |_, y: &[f64; 1]| Ok([-y[0]]), &[1.0], [0.0, 2.0], &options, &mut |s| {
        lengths.push(s.h);
        ends.push(s.t + s.h);
        Ok(())
    })
    .unwrap();
    assert!((lengths[0] - 0.01).abs() < 1e-15 && lengths.iter().all(|h| *h <= 0.3 + 1e-12));
    for wanted in [0.123, 0.7, 2.0] {
        assert!(ends.iter().any(|e| (e - wanted).abs() < 1e-14), "{wanted} in {ends:?}");
    }
}

#[test]
fn a_known_jump_saves_evaluations() {
    let field = |t: f64, _: &[f64; 1]| Ok([if t < 1.0 { 1.0 } else { -3.0 }]);
    let cost = |jump_times: Vec<f64>| {
        let options = adaptive(Method::Dopri5, 1e-8).jump_times(jump_times);
        let solution = solve(&mut field.clone(), &[0.0], [0.0, 2.0], &options).unwrap();
        assert!((solution.y[0] + 2.0).abs() < 1e-5);
        solution.statistics.evaluations
    };
    let (known, unknown) = (cost(vec![1.0]), cost(vec![]));
    // The same on the way back: the slope at the jump is that of the step's own side.
    let options = fixed(Method::Rk4, 2).jump_times(vec![1.0]);
    for (span, expected) in [([0.0, 2.0], -2.0), ([2.0, 0.0], 2.0)] {
        let y = solve(&mut field.clone(), &[0.0], span, &options).unwrap().y[0];
        assert!((y - expected).abs() < 1e-12, "{span:?}: {y}");
    }
    assert!(3 * known < 2 * unknown, "{known} against {unknown}");
}

/// Slopes on both sides of a jump are those of the step's own side, wherever the jump and however its time is rounded.
#[test]
fn jumps_are_kept_apart_at_odd_times_and_at_the_ends_of_the_span() {
    for jump in [0.1, 0.0015, 1e-17, 0.0, -0.3] {
        let field = |t: f64, _: &[f64; 1]| Ok([if t < jump { 1.0 } else { -2.0 }]);
        for method in [Method::Rk4, Method::Heun, Method::Dopri5, Method::Dopri8] {
            for mut options in [fixed(method, 1), fixed(method, 7)] {
                options.jump_times = vec![jump];
                let solved = |span: [f64; 2]| solve(&mut field.clone(), &[0.0], span, &options).unwrap().y[0];
                let (before, after) = (jump + 1.0, 1.0 - jump);
                assert!((solved([-1.0, 1.0]) - (before - 2.0 * after)).abs() < 1e-12, "{jump} {method:?}");
                assert!((solved([1.0, -1.0]) + (before - 2.0 * after)).abs() < 1e-12, "{jump} {method:?}");
                // A span that ends or begins at the jump sees one side alone.
                assert!((solved([-1.0, jump]) - before).abs() < 1e-12, "{jump} {method:?}");
                assert!((solved([jump, 1.0]) + 2.0 * after).abs() < 1e-12, "{jump} {method:?}");
                assert!((solved([jump, -1.0]) + before).abs() < 1e-12, "{jump} {method:?}");
                assert!((solved([1.0, jump]) - 2.0 * after).abs() < 1e-12, "{jump} {method:?}");
            }
        }
    }
    // A jump that is also a time to stop at costs nothing.
    let field = |t: f64, _: &[f64; 1]| Ok([if t < 1.0 { 1.0 } else { -3.0 }]);
    let options = adaptive(Method::Dopri5, 1e-8).jump_times(vec![1.0]);
    let (states, statistics) = solve_at(&mut field.clone(), &[0.0], &[0.0, 1.0, 2.0], &options).unwrap();
    assert!((states[1][0] - 1.0_f64).abs() < 1e-12 && (states[2][0] + 2.0_f64).abs() < 1e-12);
    assert_eq!(statistics.rejected, 0, "{statistics:?}");
}

#[test]
fn states_are_answered_at_times_that_nearly_meet_others() {
    let grow = |_: f64, y: &[f64; 1]| Ok([y[0]]);
    for times in [vec![0.0, 0.666_666_666_7, 1.0], vec![0.0, 0.5, 0.5 + 5e-10, 1.0], vec![1.0, 0.333_333_333_3, 0.0]] {
        for options in [fixed(Method::Rk4, 1), fixed(Method::Rk4, 3), adaptive(Method::Tsit5, 1e-8)] {
            let (states, _) = solve_at(&mut grow.clone(), &[1.0], &times, &options).unwrap();
            assert_eq!(states.len(), times.len(), "{times:?} {options:?}");
            let exact = |t: f64| (t - times[0]).exp();
            assert!(states.iter().zip(&times).all(|(y, &t)| (y[0] - exact(t)).abs() < 0.03), "{states:?}");
        }
    }
}

/// A row that can go no further says so at once, or goes on at the least step.
#[test]
fn a_row_stuck_at_the_start_is_noticed() {
    let y0 = vec![Tensor::ones((2, 1), DType::F64, &Device::Cpu).unwrap()];
    let asked = std::cell::Cell::new(0);
    let mut broken = |at: &RowTimes<'_>, y: &Vec<Tensor>| -> Result<Vec<Tensor>> {
        asked.set(asked.get() + 1);
        let bad = at.t.iter().zip(at.rows).map(|(&t, &r)| if r == 1 && t > 0.0 { f64::NAN } else { 0.0 });
        let bad = Tensor::from_vec(bad.collect::<Vec<f64>>(), (at.rows.len(), 1), &Device::Cpu)?;
        Ok(vec![(&y[0] * bad)?])
    };
    let error = solve_rows(&mut broken, &y0, [0.0, 1.0], &adaptive(Method::Dopri5, 1e-6)).unwrap_err();
    let Error::Solver { row: Some(1), reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("diverged") && asked.get() < 1000, "{reason} after {}", asked.get());
    let span = solve_rows(&mut broken, &y0, [0.0, f64::NAN], &fixed(Method::Rk4, 2)).unwrap_err();
    assert!(span.to_string().contains("not finite"), "{span}");
}

/// Each row at its own pace: `y' = k·cos(k t)·y`, hard rows for large `k`.
fn rows(k: &[f64]) -> (Vec<Tensor>, Vec<Statistics>) {
    let rate = k.to_vec();
    let mut field = |at: &RowTimes<'_>, y: &Vec<Tensor>| -> Result<Vec<Tensor>> {
        let slopes: Vec<f64> = at.rows.iter().zip(at.t).map(|(&r, t)| rate[r] * (rate[r] * t).cos()).collect();
        let slopes = Tensor::from_vec(slopes, (at.rows.len(), 1), &Device::Cpu)?;
        Ok(vec![y[0].broadcast_mul(&slopes)?, y[1].broadcast_mul(&slopes)?])
    };
    let n = k.len();
    let y0 =
        vec![Tensor::ones((n, 3), DType::F64, &Device::Cpu).unwrap(), Tensor::full(2.0, (n, 1), &Device::Cpu).unwrap()];
    let solution = solve_rows(&mut field, &y0, [0.0, 1.5], &adaptive(Method::Dopri5, 1e-7)).unwrap();
    (solution.y, solution.statistics)
}

#[test]
fn a_row_does_not_see_the_rest_of_its_batch() {
    let k = [0.5, 40.0, 3.0, 11.0];
    let (together, counts) = rows(&k);
    for (i, &one) in k.iter().enumerate() {
        let (alone, count) = rows(&[one]);
        for (a, b) in together.iter().zip(&alone) {
            let row = a.narrow(0, i, 1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(row, b.flatten_all().unwrap().to_vec1::<f64>().unwrap(), "k = {one}");
        }
        assert_eq!(counts[i], count[0], "k = {one}");
        let exact = (one * 1.5_f64).sin().exp();
        let value = alone[0].get(0).unwrap().get(0).unwrap().to_scalar::<f64>().unwrap();
        assert!((value / exact - 1.0).abs() < 1e-5, "k = {one}: {value} {exact}");
    }
    assert!(counts[1].evaluations > 4 * counts[0].evaluations, "the hard row pays alone: {counts:?}");
}

fn failure(outcome: Result<f64>) -> (f64, f64, Option<usize>, String) {
    match outcome.unwrap_err() {
        Error::Solver { t, dt, row, reason } => (t, dt, row, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn failures_say_where_and_why() {
    let run = |f: fn(f64, f64) -> f64, options: &SolveOptions| {
        let y0 = Tensor::new(&[[1.0_f64], [2.0]], &Device::Cpu).unwrap();
        let mut field = |t: f64, y: &Tensor| -> Result<Tensor> {
            let v: Vec<f64> = y.flatten_all()?.to_vec1()?;
            Ok(Tensor::from_vec(v.iter().map(|y| f(t, *y)).collect::<Vec<_>>(), (2, 1), &Device::Cpu)?)
        };
        solve(&mut field, &y0, [0.0, 3.0], options).map(|s| s.y.sum_all().unwrap().to_scalar::<f64>().unwrap())
    };
    // y' = y² blows up at t = 1/2 for the second sample.
    let (t, dt, row, reason) = failure(run(|_, y| y * y, &adaptive(Method::Dopri5, 1e-6)));
    assert!((t - 0.5).abs() < 1e-3 && dt < 1e-6 && row == Some(1), "{t} {dt} {row:?} {reason}");
    // Not a number from t = 1 on.
    let (t, _, _, reason) = failure(run(|t, _| if t > 1.0 { f64::NAN } else { 1.0 }, &adaptive(Method::Tsit5, 1e-6)));
    assert!((t - 1.0).abs() < 1e-6 && reason.contains("finite"), "{t} {reason}");
    let Stepping::Adaptive { tolerance, controller, first_step, min_step, max_step, .. } =
        Stepping::adaptive(1e-9, 1e-9)
    else {
        panic!("adaptive stepping is adaptive");
    };
    let few = |max_steps, min_step, fallback| {
        SolveOptions::default().stepping(Stepping::Adaptive {
            tolerance,
            controller,
            first_step,
            min_step,
            max_step,
            max_steps,
            fallback,
        })
    };
    let (t, _, _, reason) = failure(run(|t, y| y * (50.0 * t).cos(), &few(20, min_step, Fallback::Fail)));
    assert!(t > 0.0 && t < 3.0 && reason.contains("20 steps"), "{reason}");
    // A least step that is too long: refused, or taken where the caller says so.
    let (_, dt, _, _) = failure(run(|t, y| y * (50.0 * t).cos(), &few(10_000, 0.05, Fallback::Fail)));
    assert!((dt - 0.05).abs() < 1e-12, "{dt}");
    assert!(run(|t, y| y * (50.0 * t).cos(), &few(10_000, 0.05, Fallback::AcceptMinStep)).is_ok());
    for (options, name) in [
        (adaptive(Method::Rk4, 1e-5), "method"),
        (fixed(Method::Euler, 0), "steps"),
        (adaptive(Method::Dopri5, f64::NAN), "rtol"),
    ] {
        assert!(options.check().unwrap_err().to_string().contains(name));
    }
}

#[test]
fn the_seminorm_looks_at_the_first_parts_only() {
    let part = |v: f64| Tensor::new(&[v], &Device::Cpu).unwrap();
    let norm = |counted| {
        let state = |a, b| Parts { y: vec![part(a), part(b)], counted };
        let tolerance = Tolerance::new(0.0, 1.0);
        Parts::error_norm(&state(0.5, 9.0), &state(0.0, 0.0), &state(0.0, 0.0), tolerance).unwrap()
    };
    assert_eq!((norm(1), norm(2)), (0.5, 9.0));
}
