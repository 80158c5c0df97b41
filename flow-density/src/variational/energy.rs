//! The densities of the plane of Rezende & Mohamed (2015, arXiv 1505.05770, table 1).

use candle_core::{DType, Device, Tensor};
use flow_core::Density;
use flow_core::numerics::host;

use super::objective::normalised;
use super::target::LogDensityResult;
use crate::Result;

/// The size of the envelope of [`Energy`], in which `U2` to `U4` are seen.
pub const WINDOW: f64 = 8.0;
/// Half of the square over which densities are integrated; the envelope is below `e^-19` beyond.
const HALF: f64 = 20.0;
/// Midpoints along each of its sides.
const SIDE: usize = 800;
/// Points evaluated at once, a divisor of all of them.
const CHUNK: usize = 16_000;

/// A density `p(z) ∝ exp(-U(z))` of the plane.
///
/// With `w1 = sin(2πz₁/4)`, `w2 = 3·exp(-½((z₁-1)/0.6)²)` and `w3 = 3·σ((z₁-1)/0.3)`:
///
/// - `U1 = ½((‖z‖-2)/0.4)² - ln(e^(-½((z₁-2)/0.6)²) + e^(-½((z₁+2)/0.6)²))`
/// - `U2 = ½((z₂-w1)/0.4)²`
/// - `U3 = -ln(e^(-½((z₂-w1)/0.35)²) + e^(-½((z₂-w1+w2)/0.35)²))`
/// - `U4 = -ln(e^(-½((z₂-w1)/0.4)²) + e^(-½((z₂-w1+w3)/0.35)²))`
///
/// `U2` to `U4` do not fall off along `z₁`, so that their integrals are infinite and no divergence from them is a number. The
/// paper draws them in a window of ±4 and does not say how it fits them; here they have the envelope
/// `½((z₁⁴ + z₂⁴)^¼/8)⁴`, which is that of the package normflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Energy {
    /// A ring with two heavier sides.
    U1,
    /// A wave.
    U2,
    /// A wave that splits and joins again.
    U3,
    /// A wave that splits for good.
    U4,
}

impl Energy {
    /// All of them.
    pub const ALL: [Energy; 4] = [Energy::U1, Energy::U2, Energy::U3, Energy::U4];

    /// The energy of this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        Energy::ALL.into_iter().find(|energy| energy.name() == name)
    }

    /// Its name: `u1`.
    pub fn name(self) -> &'static str {
        match self {
            Energy::U1 => "u1",
            Energy::U2 => "u2",
            Energy::U3 => "u3",
            Energy::U4 => "u4",
        }
    }

    /// What it looks like.
    pub fn description(self) -> &'static str {
        match self {
            Energy::U1 => "a ring with two heavier sides",
            Energy::U2 => "a wave",
            Energy::U3 => "a wave that splits and joins again",
            Energy::U4 => "a wave that splits for good",
        }
    }

    /// `-U(z)` of points `(B, 2)`, with the envelope where there is one, `(B,)`.
    ///
    /// # Errors
    /// What Candle returns for another shape.
    pub fn log_density(self, z: &Tensor) -> LogDensityResult {
        let (a, b) = (z.narrow(1, 0, 1)?.squeeze(1)?, z.narrow(1, 1, 1)?.squeeze(1)?);
        let bump = |t: &Tensor, at: f64, width: f64| t.affine(1.0 / width, -at / width)?.sqr()? * -0.5;
        if self == Energy::U1 {
            // The tiny number keeps the derivative of the root finite at the origin.
            let radius = ((a.sqr()? + b.sqr()?)? + 1e-12)?.sqrt()?;
            return bump(&radius, 2.0, 0.4)? + log_sum(&bump(&a, 2.0, 0.6)?, &bump(&a, -2.0, 0.6)?)?;
        }
        let above = (&b - (&a * (std::f64::consts::PI / 2.0))?.sin()?)?;
        let inside = match self {
            Energy::U1 | Energy::U2 => bump(&above, 0.0, 0.4)?,
            Energy::U3 => {
                let w2 = (bump(&a, 1.0, 0.6)?.exp()? * 3.0)?;
                log_sum(&bump(&above, 0.0, 0.35)?, &bump(&(&above + w2)?, 0.0, 0.35)?)?
            }
            Energy::U4 => {
                // σ(t) = ½(1 + tanh(t/2)), which does not overflow.
                let w3 = a.affine(0.5 / 0.3, -0.5 / 0.3)?.tanh()?.affine(1.5, 1.5)?;
                log_sum(&bump(&above, 0.0, 0.4)?, &bump(&(&above + w3)?, 0.0, 0.35)?)?
            }
        };
        let fourth = |t: &Tensor| t.sqr()?.sqr();
        inside - ((fourth(&a)? + fourth(&b)?)? * (0.5 / WINDOW.powi(4)))?
    }

    /// `ln ∫ exp(-U)`, by the midpoint rule over a square that holds it, in f64.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn log_evidence(self) -> Result<f64> {
        log_integral(|z| self.log_density(z))
    }

    /// `KL(q‖p)` in nats by the same rule: no sample is drawn, so the number has no error but that of the grid.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] for a flow that is not of the plane.
    pub fn divergence<Q: Density + ?Sized>(self, q: &Q) -> Result<f64> {
        divergence(q, |z| self.log_density(z), self.log_evidence()?)
    }
}

impl std::fmt::Display for Energy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `ln(eᵃ + eᵇ)`, stable.
fn log_sum(a: &Tensor, b: &Tensor) -> LogDensityResult {
    let most = a.detach().maximum(&b.detach())?;
    ((a - &most)?.exp()? + (b - &most)?.exp()?)?.log()? + most
}

/// Midpoints of the grid, `(n, 2)` in f64, a part of them at a time, and the area of a cell.
fn grid() -> impl Iterator<Item = Result<Tensor>> {
    let cell = 2.0 * HALF / SIDE as f64;
    let at = move |i: usize| (i as f64 + 0.5) * cell - HALF;
    (0..SIDE * SIDE).step_by(CHUNK).map(move |start| {
        let points: Vec<f64> = (start..start + CHUNK).flat_map(|k| [at(k % SIDE), at(k / SIDE)]).collect();
        Ok(Tensor::from_vec(points, (CHUNK, 2), &Device::Cpu)?)
    })
}

fn log_area() -> f64 {
    2.0 * (2.0 * HALF / SIDE as f64).ln()
}

/// `ln ∫ exp(log_density)` over the square.
fn log_integral(log_density: impl Fn(&Tensor) -> LogDensityResult) -> Result<f64> {
    let mut logs = Vec::with_capacity(SIDE * SIDE);
    for points in grid() {
        logs.extend(log_density(&points?)?.to_dtype(DType::F64)?.to_vec1::<f64>()?);
    }
    Ok(normalised(logs.iter().copied()).0 + (logs.len() as f64).ln() + log_area())
}

/// `∫ q (ln q - ln p̃) + ln Z` over the square, with the part of `q` inside it as its whole.
fn divergence<Q: Density + ?Sized>(
    q: &Q,
    log_density: impl Fn(&Tensor) -> LogDensityResult,
    log_evidence: f64,
) -> Result<f64> {
    let _paused = q.store().no_grad();
    let (mut sum, mut total) = (0.0, 0.0);
    for points in grid() {
        let points = points?.to_dtype(q.store().dtype())?.to_device(q.store().device())?;
        let log_q = host::numbers(&q.log_prob(&points, None)?)?;
        let log_p = host::numbers(&log_density(&points)?)?;
        for (log_q, log_p) in log_q.iter().zip(&log_p).filter(|(log_q, _)| **log_q > -80.0) {
            sum += log_q.exp() * (log_q - log_p);
            total += log_q.exp();
        }
    }
    let mass = total * log_area().exp();
    if !(0.95..1.05).contains(&mass) {
        let what = format!("integral of the flow's density over the square of ±{HALF}: {mass:.4}, expected 1");
        return Err(flow_core::Error::NonFinite { layer: "flow".into(), what, step: None }.into());
    }
    Ok(sum / total - mass.ln() + log_evidence)
}
