//! Dense output: a solution that can be asked at every time of its span.

use super::solve::{RightHandSide, Statistics, solve_recorded, weighted};
use super::{Method, SolveOptions, State};
use crate::{Error, Result};

/// A solution at every time of its span, from [`solve_dense`].
#[derive(Debug, Clone)]
pub struct DenseSolution<S> {
    method: Method,
    span: [f64; 2],
    /// In the order in which they were taken; none if the span is a point.
    pieces: Vec<Piece<S>>,
    end: S,
    /// What it took.
    pub statistics: Statistics,
}

/// A step with all that its interpolant needs.
#[derive(Debug, Clone)]
struct Piece<S> {
    t: f64,
    h: f64,
    /// When the slope at its end is evaluated.
    last: f64,
    y: S,
    /// Of the stages; the last is that at the step's end.
    slopes: Vec<S>,
}

/// As [`solve`](super::solve), keeping what is needed to ask for the state anywhere in the span.
///
/// Between the ends of its steps the solution is a polynomial through the states and slopes at both ends: the methods' own
/// of order 4 for [`Method::Dopri5`] (Hairer, Nørsett & Wanner 1993, II.6) and [`Method::Tsit5`] (Tsitouras 2011), the
/// cubic Hermite interpolant for the others. Its error is of the method's order but at most of order 5, 5 and 4; ask
/// [`solve_at`](super::solve_at) for the full order of [`Method::Dopri8`] at times known beforehand. Memory: the state and
/// the stages' slopes of every step.
///
/// ```
/// use flow_core::cnf::ode::{SolveOptions, Stepping, solve_dense};
///
/// # fn main() -> flow_core::Result<()> {
/// let options = SolveOptions::default().stepping(Stepping::adaptive(1e-9, 1e-9));
/// let decay = solve_dense(&mut |_, y: &[f64; 1]| Ok([-y[0]]), &[1.0], [0.0, 2.0], &options)?;
/// assert!((decay.at(1.234)?[0] - (-1.234_f64).exp()).abs() < 1e-8);
/// assert!(decay.at(2.5).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`solve`](super::solve).
pub fn solve_dense<S: State>(
    f: &mut RightHandSide<'_, S>,
    y0: &S,
    span: [f64; 2],
    options: &SolveOptions,
) -> Result<DenseSolution<S>> {
    let mut pieces: Vec<Piece<S>> = Vec::new();
    let solution = solve_recorded(f, y0, span, options, &mut |s| {
        pieces.push(Piece { t: s.t, h: s.h, last: s.edges[1], y: s.y.clone(), slopes: s.slopes.to_vec() });
        Ok(())
    })?;
    let mut dense =
        DenseSolution { method: options.method, span, pieces, end: solution.y, statistics: solution.statistics };
    if !options.method.tableau().first_same_as_last {
        dense.close(f)?;
    }
    Ok(dense)
}

impl<S: State> DenseSolution<S> {
    /// Appends to every step the slope at its end: the one with which the next step begins, except across a jump.
    fn close(&mut self, f: &mut RightHandSide<'_, S>) -> Result<()> {
        for index in 0..self.pieces.len() {
            let (before, after) = self.pieces.split_at_mut(index + 1);
            let Some(piece) = before.last_mut() else { continue };
            // Beside a jump the neighbour's slope is that of the other side.
            let shared =
                after.first().filter(|next| next.t == piece.last).and_then(|next| next.slopes.first().cloned());
            let slope = match shared {
                Some(slope) => slope,
                None => {
                    self.statistics.evaluations += 1;
                    f(piece.last, after.first().map_or(&self.end, |next| &next.y))?
                }
            };
            piece.slopes.push(slope);
        }
        Ok(())
    }

    /// The state at `t`.
    ///
    /// # Errors
    /// [`Error::Config`] for a time outside the span.
    pub fn at(&self, t: f64) -> Result<S> {
        let [from, to] = self.span;
        if t.is_nan() || (t - from) * (t - to) > 0.0 {
            return Err(Error::config("time", format!("{t} lies outside the span from {from} to {to}")));
        }
        let sign = (to - from).signum();
        let index = self.pieces.partition_point(|piece| (piece.t - t) * sign <= 0.0);
        let Some(piece) = index.checked_sub(1).and_then(|i| self.pieces.get(i)) else { return Ok(self.end.clone()) };
        if t == to {
            return Ok(self.end.clone());
        }
        let weights = interpolant(self.method, (t - piece.t) / piece.h);
        piece.y.add_scaled(&weighted(&weights, piece.h, &piece.slopes))
    }

    /// The times at which steps begin, and the end of the last: between two of them the solution is one polynomial.
    pub fn knots(&self) -> impl Iterator<Item = f64> + '_ {
        self.pieces.iter().map(|piece| piece.t).chain([self.span[1]])
    }
}

/// `w` with `y(t + θh) = y + h Σ w_i k_i`; where the last stage is not the slope at the step's end, that slope is appended.
fn interpolant(method: Method, theta: f64) -> Vec<f64> {
    match method {
        Method::Dopri5 => hermite(method, theta)
            .iter()
            .zip(DOPRI5_QUARTIC)
            .map(|(w, d)| w + (theta * (1.0 - theta)).powi(2) * d)
            .collect(),
        Method::Tsit5 => tsit5(theta).to_vec(),
        _ => hermite(method, theta),
    }
}

/// The cubic with the states and slopes of both ends.
fn hermite(method: Method, theta: f64) -> Vec<f64> {
    let tableau = method.tableau();
    let mut weights: Vec<f64> = tableau.b.iter().map(|b| b * theta * theta * (3.0 - 2.0 * theta)).collect();
    if !tableau.first_same_as_last {
        weights.push(0.0);
    }
    if let Some(first) = weights.first_mut() {
        *first += theta * (1.0 - theta).powi(2);
    }
    if let Some(last) = weights.last_mut() {
        *last += theta * theta * (theta - 1.0);
    }
    weights
}

/// What `θ²(1 − θ)²` is multiplied by so that Dormand and Prince's cubic becomes their interpolant of order 4.
const DOPRI5_QUARTIC: [f64; 7] = [
    -12_715_105_075.0 / 11_282_082_432.0,
    0.0,
    87_487_479_700.0 / 32_700_410_799.0,
    -10_690_763_975.0 / 1_880_347_072.0,
    701_980_252_875.0 / 199_316_789_632.0,
    -1_453_857_185.0 / 822_651_844.0,
    69_997_945.0 / 29_380_423.0,
];

/// Tsitouras' interpolant of order 4.
fn tsit5(theta: f64) -> [f64; 7] {
    let square = theta * theta;
    let quadratic = |scale: f64, p: f64, q: f64| scale * square * (square - p * theta + q);
    let roots = |scale: f64, a: f64, b: f64| scale * square * (theta - a) * (theta - b);
    [
        -1.053_088_497_729_021_6
            * theta
            * (theta - 1.329_989_018_975_141)
            * (square - 1.436_402_854_171_635_1 * theta + 0.713_981_691_707_420_9),
        quadratic(0.1017, 2.196_656_833_824_975_4, 1.294_985_250_737_463),
        quadratic(2.490_627_285_651_253, 2.385_356_454_720_616_6, 1.578_034_682_080_925),
        roots(-16.548_102_889_244_903, 1.217_129_272_955_332_4, 0.616_204_060_378_000_9),
        roots(47.379_521_962_819_28, 1.203_071_208_372_362_6, 0.658_047_292_653_547_4),
        roots(-34.870_657_861_496_61, 1.2, 2.0 / 3.0),
        roots(2.5, 1.0, 0.6),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnf::ode::Stepping;

    const ALL: [(Method, f64); 8] = [
        (Method::Euler, 1.0),
        (Method::Midpoint, 2.0),
        (Method::Heun, 2.0),
        (Method::Rk4, 4.0),
        (Method::Bosh3, 3.0),
        (Method::Dopri5, 5.0),
        (Method::Tsit5, 5.0),
        (Method::Dopri8, 4.0),
    ];

    /// `y' = (cos t) y` with `y(0) = 1`: `exp(sin t)`.
    fn wave(method: Method, span: [f64; 2], steps: usize) -> DenseSolution<[f64; 1]> {
        let options = SolveOptions { method, stepping: Stepping::fixed(steps), ..SolveOptions::default() };
        let start = span[0].sin().exp();
        solve_dense(&mut |t, y: &[f64; 1]| Ok([t.cos() * y[0]]), &[start], span, &options).unwrap()
    }

    fn largest_error(solution: &DenseSolution<[f64; 1]>, [from, to]: [f64; 2]) -> f64 {
        let times = (0..=997).map(|k| from + (to - from) * f64::from(k) / 997.0);
        times.map(|t| (solution.at(t).unwrap()[0] - t.sin().exp()).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn weights_are_consistent_and_smooth_at_the_ends() {
        for (method, _) in ALL {
            let tableau = method.tableau();
            let b: Vec<f64> = tableau.b.iter().copied().chain([0.0]).collect();
            for theta in [0.0, 0.1, 0.45, 0.8, 1.0] {
                let sum: f64 = interpolant(method, theta).iter().sum();
                assert!((sum - theta).abs() < 1e-12, "{method:?} at {theta}: {sum}");
            }
            assert!(interpolant(method, 0.0).iter().all(|w| w.abs() < 1e-14), "{method:?}");
            let end = interpolant(method, 1.0);
            assert!(end.iter().zip(&b).all(|(w, b)| (w - b).abs() < 1e-12), "{method:?}: {end:?}");
            // The slope at each end is that end's own.
            let slope = |at: f64, step: f64| -> Vec<f64> {
                let (a, b) = (interpolant(method, at), interpolant(method, at + step));
                a.iter().zip(&b).map(|(a, b)| (b - a) / step).collect()
            };
            for (slopes, own) in [(slope(0.0, 1e-7), 0), (slope(1.0, -1e-7), end.len() - 1)] {
                let expected = |i: usize| if i == own { 1.0 } else { 0.0 };
                let close = slopes.iter().enumerate().all(|(i, s)| (s - expected(i)).abs() < 1e-4);
                assert!(close, "{method:?}: {slopes:?}");
            }
        }
    }

    #[test]
    fn the_error_between_steps_is_of_the_stated_order_in_both_directions() {
        for (method, order) in ALL {
            for span in [[0.0, 3.0], [3.0, 0.0]] {
                // The coarser of the methods are compared where their leading term is the error.
                let steps = if order < 5.0 { 200 } else { 40 };
                let [coarse, fine] = [steps, 2 * steps].map(|n| largest_error(&wave(method, span, n), span));
                let found = (coarse / fine).log2();
                assert!((found - order).abs() < 0.2, "{method:?} over {span:?}: order {found}");
            }
        }
    }

    #[test]
    fn ends_knots_and_times_outside() {
        let solution = wave(Method::Rk4, [0.0, 3.0], 7);
        assert_eq!(solution.at(0.0).unwrap(), [1.0]);
        assert_eq!(solution.knots().count(), 8);
        assert_eq!(solution.statistics.evaluations, 7 * 4 + 1);
        for t in [-1e-9, 3.1, f64::NAN] {
            assert!(solution.at(t).unwrap_err().to_string().contains("outside the span"), "{t}");
        }
        let still = wave(Method::Dopri5, [1.0, 1.0], 3);
        assert_eq!(still.at(1.0).unwrap(), [1.0_f64.sin().exp()]);
        assert!(still.at(1.1).is_err());
    }

    #[test]
    fn a_jump_keeps_the_slopes_of_its_two_sides() {
        // Slope 1, then −2 from t = 1 on: piecewise linear, so every interpolant is exact if the sides are kept apart.
        for (method, _) in ALL {
            for (span, start) in [([0.0, 2.0], 0.0), ([2.0, 0.0], -1.0)] {
                let stepping = Stepping::fixed(3);
                let options = SolveOptions { method, stepping, jump_times: vec![1.0], ..SolveOptions::default() };
                let mut bend = |t: f64, _: &[f64; 1]| Ok([if t < 1.0 { 1.0 } else { -2.0 }]);
                let solution = solve_dense(&mut bend, &[start], span, &options).unwrap();
                let mut odd = |t: f64, _: &[f64; 1]| Ok([if t < 0.1 { 1.0 } else { -2.0 }]);
                let options = SolveOptions { jump_times: vec![0.1], stepping: Stepping::fixed(1), ..options };
                let middle = solve_dense(&mut odd, &[0.0], [-1.0, 1.0], &options).unwrap().at(-0.3).unwrap()[0];
                assert!((middle - 0.7).abs() < 1e-12, "{method:?}: {middle}");
                for k in 0..=200 {
                    let t = f64::from(k) / 100.0;
                    let exact = if t < 1.0 { t } else { 1.0 - 2.0 * (t - 1.0) };
                    let found = solution.at(t).unwrap()[0];
                    assert!((found - exact).abs() < 1e-12, "{method:?} {span:?} at {t}: {found} for {exact}");
                }
            }
        }
    }
}
