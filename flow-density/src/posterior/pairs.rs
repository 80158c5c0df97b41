//! Parameters and what was simulated with them.

use flow_core::FlowRng;

use crate::{Error, Result};

/// Pairs of parameters `θ` and observations `x`, row after row.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    parameters: usize,
    observed: usize,
    theta: Vec<f64>,
    x: Vec<f64>,
}

impl Pairs {
    /// Rows of `parameters` numbers and as many rows of `observed` numbers.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for different numbers of rows or numbers that make no whole rows,
    /// [`flow_core::Error::NonFiniteRow`] naming the first pair that holds a NaN or an infinity.
    pub fn new(parameters: usize, theta: Vec<f64>, observed: usize, x: Vec<f64>) -> Result<Self> {
        let whole = |width: usize, values: &[f64]| width > 0 && values.len().is_multiple_of(width);
        if !(whole(parameters, &theta) && whole(observed, &x) && theta.len() / parameters == x.len() / observed) {
            let (t, o) = (theta.len(), x.len());
            let reason = format!(
                "must have as many rows of {parameters} parameters as of {observed} observed numbers, got {t} and {o} numbers"
            );
            return Err(Error::config("pairs", reason));
        }
        let bad = |values: &[f64], width: usize| values.iter().position(|v| !v.is_finite()).map(|i| i / width);
        if let Some(row) = bad(&theta, parameters).into_iter().chain(bad(&x, observed)).min() {
            return Err(flow_core::Error::NonFiniteRow { what: "pairs".into(), row }.into());
        }
        Ok(Pairs { parameters, observed, theta, x })
    }

    /// `count` runs of a simulator, which draws parameters from the prior and returns them with what came of them.
    ///
    /// # Errors
    /// As [`Pairs::new`], for runs of different lengths as well.
    pub fn simulate(
        count: usize,
        mut simulator: impl FnMut(&mut FlowRng) -> (Vec<f64>, Vec<f64>),
        rng: &mut FlowRng,
    ) -> Result<Self> {
        let (mut theta, mut x, mut widths) = (Vec::new(), Vec::new(), None);
        for run in 0..count {
            let (parameters, observed) = simulator(rng);
            let found = (parameters.len(), observed.len());
            let (p, o) = *widths.get_or_insert(found);
            if found != (p, o) {
                let reason = format!("run {run} gave {} and {} numbers, the first one {p} and {o}", found.0, found.1);
                return Err(Error::config("simulator", reason));
            }
            theta.extend(parameters);
            x.extend(observed);
        }
        let (parameters, observed) = widths.unwrap_or((0, 0));
        Self::new(parameters, theta, observed, x)
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.theta.len() / self.parameters
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.theta.is_empty()
    }

    /// Numbers of a `θ`.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Numbers of an `x`.
    pub fn observed(&self) -> usize {
        self.observed
    }

    /// All parameters, row after row.
    pub fn theta(&self) -> &[f64] {
        &self.theta
    }

    /// All observations, row after row.
    pub fn x(&self) -> &[f64] {
        &self.x
    }

    /// The rest and `count` pairs, chosen by `seed`.
    pub fn split(&self, count: usize, seed: u64) -> (Pairs, Pairs) {
        let order = FlowRng::named(seed, "held-out pairs").permutation(self.len());
        let (held_out, rest) = order.split_at(count.min(self.len()));
        (self.chosen(rest), self.chosen(held_out))
    }

    /// The pairs of these numbers.
    fn chosen(&self, rows: &[usize]) -> Pairs {
        let of = |values: &[f64], width: usize| -> Vec<f64> {
            rows.iter().flat_map(|&row| values[row * width..(row + 1) * width].iter().copied()).collect()
        };
        let (theta, x) = (of(&self.theta, self.parameters), of(&self.x, self.observed));
        Pairs { parameters: self.parameters, observed: self.observed, theta, x }
    }
}

/// Models that are run instead of computed, with what is known of their posteriors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Simulator {
    /// Two parameters, `θ ~ N(0, I)`, and two observations, `x ~ N(Aθ, ½²·I)` with `A = [[1, 0.5], [-0.3, 0.8]]`: the
    /// posterior is a Gaussian, [`Simulator::exact_log_prob`].
    Gaussian,
    /// Two parameters, even on `[-1, 1]²`, whose posterior is a pair of crescents (Greenberg et al. 2019; the benchmark of
    /// Lueckmann et al. 2021, arXiv 2101.04653, T.8): `x = (r·cos a + 0.25, r·sin a) + (-|θ₁+θ₂|, θ₂-θ₁)/√2` with
    /// `a ~ U(-π/2, π/2)` and `r ~ N(0.1, 0.01)`.
    TwoMoons,
}

/// The matrix of the Gaussian simulator and the deviation of its noise.
const A: [[f64; 2]; 2] = [[1.0, 0.5], [-0.3, 0.8]];
const NOISE: f64 = 0.5;

impl Simulator {
    /// All of them.
    pub const ALL: [Simulator; 2] = [Simulator::TwoMoons, Simulator::Gaussian];

    /// The simulator of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Simulator::ALL.into_iter().find(|simulator| simulator.name() == name)
    }

    /// Its name: `two-moons`.
    pub fn name(self) -> &'static str {
        match self {
            Simulator::Gaussian => "gaussian-pairs",
            Simulator::TwoMoons => "two-moons",
        }
    }

    /// One run: parameters and observations.
    pub fn run(self, rng: &mut FlowRng) -> (Vec<f64>, Vec<f64>) {
        match self {
            Simulator::Gaussian => {
                let theta = [rng.next_normal(), rng.next_normal()];
                let x = A.map(|row| row[0] * theta[0] + row[1] * theta[1] + NOISE * rng.next_normal());
                (theta.into(), x.into())
            }
            Simulator::TwoMoons => {
                let theta = [0; 2].map(|_| 2.0 * rng.next_uniform() - 1.0);
                let angle = std::f64::consts::PI * (rng.next_uniform() - 0.5);
                let radius = 0.1 + 0.01 * rng.next_normal();
                let root = std::f64::consts::FRAC_1_SQRT_2;
                let x = [
                    radius * angle.cos() + 0.25 - (theta[0] + theta[1]).abs() * root,
                    radius * angle.sin() + (theta[1] - theta[0]) * root,
                ];
                (theta.into(), x.into())
            }
        }
    }

    /// `ln p(θ|x)` where it is known, in nats.
    pub fn exact_log_prob(self, theta: &[f64], x: &[f64]) -> Option<f64> {
        let (Simulator::Gaussian, [t0, t1], [x0, x1]) = (self, theta, x) else { return None };
        // Precision I + AᵀA/s², mean Σ·Aᵀx/s².
        let square = NOISE * NOISE;
        let entry = |i: usize, j: usize| f64::from(u8::from(i == j)) + (A[0][i] * A[0][j] + A[1][i] * A[1][j]) / square;
        let (a, b, c) = (entry(0, 0), entry(0, 1), entry(1, 1));
        let determinant = a * c - b * b;
        let h = [(A[0][0] * x0 + A[1][0] * x1) / square, (A[0][1] * x0 + A[1][1] * x1) / square];
        let mean = [(c * h[0] - b * h[1]) / determinant, (a * h[1] - b * h[0]) / determinant];
        let (d0, d1) = (t0 - mean[0], t1 - mean[1]);
        let quadratic = a * d0 * d0 + 2.0 * b * d0 * d1 + c * d1 * d1;
        Some(-0.5 * quadratic + 0.5 * determinant.ln() - std::f64::consts::TAU.ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_whole_finite_and_split_without_overlap() {
        let pairs = Pairs::new(1, (0..10).map(f64::from).collect(), 2, (0..20).map(f64::from).collect()).unwrap();
        let (rest, held) = pairs.split(3, 1);
        assert_eq!((rest.len(), held.len()), (7, 3));
        let mut all = [rest.theta(), held.theta()].concat();
        all.sort_by(f64::total_cmp);
        assert_eq!(all, pairs.theta());
        assert!(held.theta().iter().zip(held.x().chunks(2)).all(|(t, x)| x == [2.0 * t, 2.0 * t + 1.0]));
        for (theta, x) in [(vec![1.0], vec![1.0]), (vec![1.0, 2.0], vec![1.0, 2.0]), (vec![], vec![])] {
            let made = Pairs::new(1, theta.clone(), 2, x);
            assert!(if theta.is_empty() { made.unwrap().is_empty() } else { made.is_err() });
        }
        let error = Pairs::new(1, vec![1.0, 2.0], 1, vec![0.0, f64::NAN]).unwrap_err().to_string();
        assert!(error.contains("row 1"), "{error}");
        let mut calls = 0;
        let uneven = |_: &mut FlowRng| {
            calls += 1;
            (vec![0.0; calls], vec![0.0])
        };
        let error = Pairs::simulate(3, uneven, &mut FlowRng::seed_from(0)).unwrap_err().to_string();
        assert!(error.contains("run 1"), "{error}");
    }

    /// The exact posterior adds up to one, and is prior times likelihood over evidence.
    #[test]
    fn the_gaussian_posterior_is_exact() {
        let x = [0.7, -0.4];
        let at = |i: usize| -6.0 + 12.0 * (i as f64 + 0.5) / 400.0;
        let log = |theta: &[f64]| Simulator::Gaussian.exact_log_prob(theta, &x).unwrap();
        let total: f64 = (0..400 * 400).map(|k| log(&[at(k % 400), at(k / 400)]).exp()).sum::<f64>() * 0.03_f64.powi(2);
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        let joint = |t: [f64; 2]| {
            let misfit: f64 = (0..2).map(|i| (x[i] - A[i][0] * t[0] - A[i][1] * t[1]).powi(2)).sum();
            -0.5 * (t[0] * t[0] + t[1] * t[1]) - 0.5 * misfit / 0.25
        };
        let (a, b) = ([0.3, 0.9], [-1.0, 0.2]);
        assert!((log(&a) - log(&b) - joint(a) + joint(b)).abs() < 1e-12);
        assert_eq!(Simulator::TwoMoons.exact_log_prob(&a, &b), None);
    }
}
