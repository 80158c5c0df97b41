//! Densities with known answers, to see what a fit is worth.

use candle_core::{DType, Tensor};
use flow_core::ParamStore;

use super::constrained::{Constraint, constrained};
use super::diagnostics::Weighted;
use super::target::LogDensityResult;
use crate::Result;
use crate::model::{DiscreteFlow, nsf_coupling, realnvp};

/// A density with known integral and a known mean of one of its coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The effects of coaching in eight schools (Rubin 1981; Gelman et al., Bayesian Data Analysis, section 5.5):
    /// `y_j ~ N(μ + τ·t_j, σ_j)`, `t_j ~ N(0, 1)`, `μ ~ N(0, 5)`, `τ` half-Cauchy of scale 5, all constants left out.
    EightSchools,
    /// Deaths of animals by the dose that they were given (Racine et al. 1986; Bayesian Data Analysis, section 3.7):
    /// binomial with `logit p = α + β·dose`, `α ~ N(0, 2)`, `β ~ N(10, 10)`, with all constants but those of the binomial.
    Bioassay,
    /// A bent normal: `a ~ N(0, 2)`, `b ~ N((a² - 4)/4, 1)`.
    Banana,
    /// Neal's funnel (2003) of four dimensions: `v ~ N(0, 3)`, `x_i ~ N(0, e^(v/2))`.
    Funnel,
    /// A normal of 50 dimensions whose neighbouring coordinates have the correlation 0.8, with deviations from 0.1 to 10
    /// and the mean one everywhere, without its constant.
    Gaussian,
}

/// Effects and standard errors of the eight schools.
const SCHOOLS: [[f64; 8]; 2] =
    [[28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]];
/// Logarithms of doses, and deaths of five animals each.
const DOSES: [[f64; 4]; 2] = [[-0.86, -0.30, -0.05, 0.73], [0.0, 1.0, 3.0, 5.0]];
const ANIMALS: f64 = 5.0;
/// Of the Gaussian.
const DIMENSIONS: usize = 50;
const CORRELATION: f64 = 0.8;

impl Problem {
    /// All of them.
    pub const ALL: [Problem; 5] =
        [Problem::EightSchools, Problem::Bioassay, Problem::Banana, Problem::Funnel, Problem::Gaussian];

    /// The problem of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Problem::ALL.into_iter().find(|problem| problem.name() == name)
    }

    /// Its name: `eight-schools`.
    pub fn name(self) -> &'static str {
        match self {
            Problem::EightSchools => "eight-schools",
            Problem::Bioassay => "bioassay",
            Problem::Banana => "banana",
            Problem::Funnel => "funnel",
            Problem::Gaussian => "gaussian",
        }
    }

    /// What it is.
    pub fn description(self) -> &'static str {
        match self {
            Problem::EightSchools => "a hierarchical model of ten parameters (Rubin 1981)",
            Problem::Bioassay => "a logistic regression of two (Racine et al. 1986)",
            Problem::Banana => "a bent normal of two dimensions",
            Problem::Funnel => "Neal's funnel of four dimensions",
            Problem::Gaussian => "a correlated normal of 50 dimensions",
        }
    }

    /// The domains of its parameters.
    pub fn constraints(self) -> Vec<Constraint> {
        match self {
            Problem::EightSchools => vec![Constraint::Real(1), Constraint::LogPositive(1), Constraint::Real(8)],
            Problem::Bioassay | Problem::Banana => vec![Constraint::Real(2)],
            Problem::Funnel => vec![Constraint::Real(4)],
            Problem::Gaussian => vec![Constraint::Real(DIMENSIONS)],
        }
    }

    /// The names of its parameters, one for each entry.
    pub fn names(self) -> Vec<String> {
        match self {
            Problem::EightSchools => {
                let effects = (1..=8).map(|j| format!("t{j}"));
                ["mu", "tau"].map(String::from).into_iter().chain(effects).collect()
            }
            Problem::Bioassay => ["alpha", "beta"].map(String::from).into(),
            Problem::Banana => ["a", "b"].map(String::from).into(),
            Problem::Funnel => ["v", "x1", "x2", "x3"].map(String::from).into(),
            Problem::Gaussian => (1..=DIMENSIONS).map(|i| format!("x{i}")).collect(),
        }
    }

    /// A flow that suits it.
    ///
    /// # Errors
    /// A store that holds parameters already.
    pub fn flow(self, store: &ParamStore) -> Result<DiscreteFlow> {
        constrained(store, &self.constraints(), |path, features| match self {
            Problem::Gaussian => realnvp(features).transforms(4).hidden(&[32]).bijector(path),
            Problem::EightSchools => nsf_coupling(features).transforms(4).hidden(&[32, 32]).bijector(path),
            _ => nsf_coupling(features).transforms(4).hidden(&[32]).bijector(path),
        })
    }

    /// `ln p` of points `(B, D)` up to the constant that [`Problem::log_evidence`] speaks of, `(B,)`.
    ///
    /// # Errors
    /// What Candle returns for another shape.
    pub fn log_density(self, x: &Tensor) -> LogDensityResult {
        let column = |i: usize| x.narrow(1, i, 1)?.squeeze(1);
        match self {
            Problem::EightSchools => {
                let (mu, tau, t) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, 1)?, x.narrow(1, 2, 8)?);
                let effects = t.broadcast_mul(&tau)?.broadcast_add(&mu)?;
                let [y, sigma] = SCHOOLS;
                let (y, sigma) = (constant(&y, x)?, constant(&sigma, x)?);
                let likelihood = (effects.broadcast_sub(&y)?.broadcast_div(&sigma)?.sqr()?.sum(1)? * -0.5)?;
                let of_t = (t.sqr()?.sum(1)? * -0.5)?;
                let of_mu = ((mu / 5.0)?.sqr()? * -0.5)?.squeeze(1)?;
                let of_tau = ((tau / 5.0)?.sqr()? + 1.0)?.log()?.squeeze(1)?;
                (likelihood + of_t)? + (of_mu - of_tau)?
            }
            Problem::Bioassay => {
                let (alpha, beta) = (x.narrow(1, 0, 1)?, x.narrow(1, 1, 1)?);
                let [dose, deaths] = DOSES;
                let logit = beta.broadcast_mul(&constant(&dose, x)?)?.broadcast_add(&alpha)?;
                // deaths·l - n·ln(1 + eˡ), with ln(1 + eˡ) = max(l, 0) + ln(1 + e^-|l|).
                let soft = (logit.relu()? + (logit.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
                let likelihood = (logit.broadcast_mul(&constant(&deaths, x)?)? - (soft * ANIMALS)?)?.sum(1)?;
                let priors = (log_normal(&alpha, 0.0, 2.0)? + log_normal(&beta, 10.0, 10.0)?)?.squeeze(1)?;
                likelihood + priors
            }
            Problem::Banana => {
                let (a, b) = (column(0)?, column(1)?);
                let bend = (b - a.sqr()?.affine(0.25, -1.0)?)?;
                log_normal(&a, 0.0, 2.0)? + log_normal(&bend, 0.0, 1.0)?
            }
            Problem::Funnel => {
                let v = x.narrow(1, 0, 1)?;
                let scaled = x.narrow(1, 1, 3)?.broadcast_mul(&(&v * -0.5)?.exp()?)?;
                let inner = log_normal(&scaled, 0.0, 1.0)?.sum(1)?;
                let of_v = (log_normal(&v, 0.0, 3.0)? - (v * 1.5)?)?.squeeze(1)?;
                inner + of_v
            }
            Problem::Gaussian => {
                let noise = x.broadcast_sub(&constant(&[1.0; DIMENSIONS], x)?)?;
                let noise = noise.broadcast_div(&constant(&deviations(), x)?)?;
                // A chain: each coordinate given the one before it.
                let (first, rest) = (noise.narrow(1, 0, 1)?, noise.narrow(1, 1, DIMENSIONS - 1)?);
                let step = (rest - (noise.narrow(1, 0, DIMENSIONS - 1)? * CORRELATION)?)?;
                let quadratic = (step.sqr()?.sum(1)? / (1.0 - CORRELATION.powi(2)))?;
                (first.sqr()?.squeeze(1)? + quadratic)? * -0.5
            }
        }
    }

    /// `ln ∫ exp(log_density)`: by quadrature over `μ` and `ln τ` for the schools (the effects are integrated by formula)
    /// and over the plane for the animals, by formula for the others.
    pub fn log_evidence(self) -> f64 {
        match self {
            Problem::EightSchools => 7.950_26,
            Problem::Bioassay => bioassay().0,
            Problem::Banana | Problem::Funnel => 0.0,
            Problem::Gaussian => {
                let n = DIMENSIONS as f64;
                0.5 * n * std::f64::consts::TAU.ln()
                    + deviations().iter().map(|s| s.ln()).sum::<f64>()
                    + 0.5 * (n - 1.0) * (1.0 - CORRELATION.powi(2)).ln()
            }
        }
    }

    /// The coordinate whose mean is known, and the mean.
    pub fn known_mean(self) -> (usize, f64) {
        match self {
            Problem::EightSchools => (0, 4.396_82),
            Problem::Bioassay => (1, bioassay().1),
            Problem::Banana | Problem::Funnel => (0, 0.0),
            Problem::Gaussian => (0, 1.0),
        }
    }

    /// The mean of that coordinate by weighted draws, and its standard error.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn mean_of(self, draws: &Weighted) -> Result<(f64, f64)> {
        let (coordinate, _) = self.known_mean();
        draws.mean_and_error(|x| x.narrow(1, coordinate, 1)?.squeeze(1))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Deviations of the Gaussian, from 0.1 to 10 in equal ratios.
fn deviations() -> [f64; DIMENSIONS] {
    std::array::from_fn(|i| 10.0_f64.powf(2.0 * i as f64 / (DIMENSIONS - 1) as f64 - 1.0))
}

/// Numbers as a row beside `like`.
fn constant(values: &[f64], like: &Tensor) -> LogDensityResult {
    Tensor::new(values, &candle_core::Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?.unsqueeze(0)
}

/// `ln N(x; mean, deviation)`, elementwise.
fn log_normal(x: &Tensor, mean: f64, deviation: f64) -> LogDensityResult {
    let constant = deviation.ln() + 0.5 * std::f64::consts::TAU.ln();
    x.affine(1.0 / deviation, -mean / deviation)?.sqr()?.affine(-0.5, -constant)
}

/// `ln Z` and the mean of `β` of the animals, by the midpoint rule over twelve deviations of the prior.
fn bioassay() -> (f64, f64) {
    const SIDE: usize = 400;
    let at = |i: usize, low: f64, high: f64| low + (i as f64 + 0.5) * (high - low) / SIDE as f64;
    let points: Vec<[f64; 2]> =
        (0..SIDE * SIDE).map(|k| [at(k % SIDE, -10.0, 10.0), at(k / SIDE, -40.0, 80.0)]).collect();
    let evaluate = || -> candle_core::Result<Vec<f64>> {
        let flat: Vec<f64> = points.iter().flatten().copied().collect();
        let points = Tensor::from_vec(flat, (points.len(), 2), &candle_core::Device::Cpu)?;
        Problem::Bioassay.log_density(&points)?.to_dtype(DType::F64)?.to_vec1()
    };
    // A density of tensors that are at hand does not fail.
    let logs = evaluate().unwrap_or_default();
    let (log_mean, shares) = super::objective::normalised(logs.iter().copied());
    let mean = shares.iter().zip(&points).map(|(w, p)| w * p[1]).sum();
    (log_mean + (20.0_f64 * 120.0).ln(), mean)
}
