//! How far a fit is to be trusted, in numbers and in words.

use std::fmt;

use candle_core::Tensor;
use flow_core::numerics::host;
use flow_core::numerics::mean_and_error;
use flow_core::{FlowRng, Reparameterized};
use serde::Serialize;

use super::objective::normalised;
use super::pareto::smooth;
use super::tails;
use super::target::{LogDensityResult, Target};
use crate::{Error, Result};

/// Samples drawn and scored at once.
const CHUNK: usize = 4096;
/// The shape of the weights' tail beyond which importance sampling is of no use at any practical size (Vehtari et al. 2024).
const LIMIT: f64 = 0.7;

/// What samples of a flow say of its distance from a density `p`, of which they know no more than they reach: a mode where
/// no sample lies leaves no trace in any of these numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnostics {
    /// Samples.
    pub draws: usize,
    /// The evidence lower bound, the mean of `ln p(x) - ln q(x)`, in nats: `ln Z - KL(q‖p)`. `-∞` if a sample has density
    /// zero.
    pub elbo: f64,
    /// Its standard error.
    pub elbo_error: f64,
    /// `ln Z` by importance sampling, `ln mean (p/q)`, with smoothed weights.
    pub log_evidence: f64,
    /// Its standard error, by the deviation of the weights.
    pub log_evidence_error: f64,
    /// The effective sample size, `(Σw)²/Σw²`, as a share of the samples.
    pub effective_share: f64,
    /// The shape of the tail of the weights; `-∞` for weights that are all alike.
    pub pareto_k: f64,
    /// The largest shape that these many samples can bear: `min(1 - 1/log₁₀ S, 0.7)`.
    pub pareto_limit: f64,
    /// Samples at which the density is zero.
    pub outside: usize,
    /// The coordinate along which the density does not fall off, if there is one.
    pub does_not_decay: Option<usize>,
}

impl Diagnostics {
    /// Of the log-weights of samples.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for fewer than two samples, and without any of positive density.
    pub fn of(log_weights: &[f64]) -> Result<Self> {
        let draws = log_weights.len();
        let inside: Vec<f64> = log_weights.iter().copied().filter(|l| l.is_finite()).collect();
        if draws < 2 || inside.is_empty() {
            return Err(Error::config("diagnostics", "need at least two samples, one of them of positive density"));
        }
        let (elbo, elbo_error) = mean_and_error(log_weights);
        let smoothed = smooth(log_weights);
        let (log_evidence, shares) = normalised(smoothed.logs.iter().copied());
        let n = draws as f64;
        let squares: f64 = shares.iter().map(|w| w * w).sum();
        let deviation = (shares.iter().map(|w| (w * n - 1.0).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let outside = draws - inside.len();
        Ok(Diagnostics {
            draws,
            elbo,
            elbo_error: if outside > 0 { f64::NAN } else { elbo_error },
            log_evidence,
            log_evidence_error: deviation / n.sqrt(),
            effective_share: 1.0 / (squares * n),
            pareto_k: smoothed.k,
            pareto_limit: (1.0 - 1.0 / n.log10()).min(LIMIT),
            outside,
            does_not_decay: None,
        })
    }

    /// Whether expectations under the fit, corrected by importance weights, can be relied on: the tail of the weights is
    /// within its limit and the density is one.
    pub fn is_reliable(&self) -> bool {
        self.warnings().is_empty()
    }

    /// What is wrong with the fit and what helps, in plain words; nothing if nothing is.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(coordinate) = self.does_not_decay {
            warnings.push(format!(
                "the density does not fall off along coordinate {coordinate} (counted from 0): it has no finite integral, \
                 and a fit of it means nothing; give it a prior or a window"
            ));
        }
        if self.pareto_k > self.pareto_limit {
            let (k, limit, draws) = (self.pareto_k, self.pareto_limit, self.draws);
            let moment = if k >= 1.0 { "have no mean" } else { "are ruled by a few" };
            warnings.push(format!(
                "the fit is not to be trusted: Pareto k = {k:.2} is above {limit:.2}, so the importance weights of {draws} \
                 draws {moment}; the flow lacks tails or a part of the density. More steps, more layers, a forward or χ² \
                 divergence or annealing may help"
            ));
        } else if self.effective_share < 0.1 {
            warnings.push(format!(
                "the flow is far from the density: only {:.1} % of its draws count; use the importance weights, not the \
                 draws themselves",
                100.0 * self.effective_share
            ));
        }
        if self.outside > 0 {
            warnings.push(format!(
                "{} of {} draws lie where the density is zero; a constraint as the first layer would keep them inside",
                self.outside, self.draws
            ));
        }
        warnings
    }

    /// What Pareto k says, in a word.
    fn verdict(&self) -> &'static str {
        match self.pareto_k {
            k if k > LIMIT => "bad",
            k if k > self.pareto_limit => "too large for so few draws",
            k if k > 0.5 => "usable",
            _ => "good",
        }
    }
}

/// One line of numbers, and a line for each warning.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ELBO {:.4} ± {:.4} nats, log evidence {:.4} ± {:.4}, effective sample size {:.1} % of {} draws, Pareto k {:.2} \
             ({})",
            self.elbo,
            self.elbo_error,
            self.log_evidence,
            self.log_evidence_error,
            100.0 * self.effective_share,
            self.draws,
            self.pareto_k,
            self.verdict()
        )?;
        self.warnings().iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// Draws of a flow with their importance weights.
#[derive(Debug, Clone)]
pub struct Weighted {
    x: Tensor,
    log_weights: Vec<f64>,
    shares: Vec<f64>,
}

impl Weighted {
    /// `draws` samples of the flow and their weights `p/q`.
    ///
    /// # Errors
    /// [`Error::LogDensity`] for a density that returns something else than numbers, or is zero at all samples.
    pub fn draw<Q: Reparameterized + ?Sized>(
        q: &Q,
        log_density: impl Fn(&Tensor) -> LogDensityResult,
        draws: usize,
        rng: &mut FlowRng,
    ) -> Result<Self> {
        weigh(q, &Target::new(log_density), draws, rng)
    }

    /// The samples, `(S, D)`.
    pub fn x(&self) -> &Tensor {
        &self.x
    }

    /// `ln p(x) - ln q(x)` of each sample.
    pub fn log_weights(&self) -> &[f64] {
        &self.log_weights
    }

    /// The mean of a function of each sample under the density, by smoothed and normalised weights.
    ///
    /// # Errors
    /// [`flow_core::Error::Shape`] unless the function returns a number for each sample.
    pub fn mean(&self, function: impl Fn(&Tensor) -> LogDensityResult) -> Result<f64> {
        Ok(self.mean_and_error(function)?.0)
    }

    /// [`Weighted::mean`] and its standard error, `√Σ w²·(f - mean)²`.
    ///
    /// # Errors
    /// As for [`Weighted::mean`].
    pub fn mean_and_error(&self, function: impl Fn(&Tensor) -> LogDensityResult) -> Result<(f64, f64)> {
        let values = function(&self.x)?;
        if values.dims() != [self.shares.len()] {
            let (layer, expected) = ("mean under the density".into(), format!("[{}]", self.shares.len()));
            return Err(flow_core::Error::Shape { layer, expected, actual: values.dims().to_vec() }.into());
        }
        let values = host::numbers(&values)?;
        let mean: f64 = values.iter().zip(&self.shares).map(|(v, w)| v * w).sum();
        let error: f64 = values.iter().zip(&self.shares).map(|(v, w)| (w * (v - mean)).powi(2)).sum();
        Ok((mean, error.sqrt()))
    }

    /// `count` draws that are distributed as the density is, as far as the samples reach it: chosen from them by their
    /// smoothed weights with systematic resampling, in random order.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn resample(&self, count: usize, rng: &mut FlowRng) -> Result<Tensor> {
        let (mut chosen, mut place, mut sum) =
            (Vec::with_capacity(count), 0, self.shares.first().copied().unwrap_or(1.0));
        let start = rng.next_uniform();
        for k in 0..count {
            let at = (k as f64 + start) / count as f64;
            while at > sum && place + 1 < self.shares.len() {
                place += 1;
                sum += self.shares[place];
            }
            chosen.push(place as u32);
        }
        let order = rng.permutation(count);
        let chosen: Vec<u32> = order.into_iter().map(|i| chosen[i]).collect();
        Ok(self.x.index_select(&Tensor::from_vec(chosen, count, self.x.device())?, 0)?)
    }

    /// What the weights say of the fit.
    ///
    /// # Errors
    /// As [`Diagnostics::of`].
    pub fn diagnostics(&self) -> Result<Diagnostics> {
        Diagnostics::of(&self.log_weights)
    }
}

pub(super) fn weigh<Q: Reparameterized + ?Sized, F: Fn(&Tensor) -> LogDensityResult>(
    q: &Q,
    target: &Target<F>,
    draws: usize,
    rng: &mut FlowRng,
) -> Result<Weighted> {
    if draws == 0 {
        return Err(Error::config("draws", "must be at least 1, got 0"));
    }
    let _paused = q.store().no_grad();
    let (mut parts, mut log_weights) = (Vec::new(), Vec::with_capacity(draws));
    for start in (0..draws).step_by(CHUNK) {
        let (x, log_q) = q.rsample_and_log_prob(CHUNK.min(draws - start), None, rng)?;
        let log_q = host::numbers(&log_q)?;
        if let Some(row) = log_q.iter().position(|l| !l.is_finite()) {
            let what = format!("log q = {} of sample {}", log_q[row], start + row);
            return Err(flow_core::Error::NonFinite { layer: "flow".into(), what, step: None }.into());
        }
        log_weights.extend(target.evaluate(&x)?.logs.iter().zip(&log_q).map(|(p, q)| p - q));
        parts.push(x.detach());
    }
    let shares = normalised(smooth(&log_weights).logs.into_iter()).1;
    Ok(Weighted { x: Tensor::cat(&parts, 0)?, log_weights, shares })
}

/// Draws from a flow, weighs by a density and says how well they fit; whether the density falls off is looked at as well.
///
/// # Errors
/// [`Error::LogDensity`] for a density that returns something else than numbers, or is zero at all samples.
pub fn diagnose<Q: Reparameterized + ?Sized>(
    q: &Q,
    log_density: impl Fn(&Tensor) -> LogDensityResult,
    draws: usize,
    rng: &mut FlowRng,
) -> Result<Diagnostics> {
    let target = Target::new(log_density);
    let weighted = weigh(q, &target, draws, rng)?;
    let does_not_decay = tails::does_not_decay(q, &target, weighted.x())?;
    Ok(Diagnostics { does_not_decay, ..weighted.diagnostics()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_the_error_of_its_draws() {
        let values = Tensor::new(&[[1.0_f64], [2.0], [3.0], [6.0]], &candle_core::Device::Cpu).unwrap();
        let weighted = Weighted { x: values, log_weights: vec![0.0; 4], shares: vec![0.25; 4] };
        let (mean, error) = weighted.mean_and_error(|x| x.squeeze(1)).unwrap();
        // Squared distances 4, 1, 0 and 9 from the mean, a sixteenth of each.
        assert!((mean - 3.0).abs() < 1e-12 && (error - (14.0_f64 / 16.0).sqrt()).abs() < 1e-12, "{mean} {error}");
    }

    #[test]
    fn words_follow_the_thresholds() {
        let even = Diagnostics::of(&vec![0.25; 1000]).unwrap();
        assert!(even.is_reliable() && (even.elbo - 0.25).abs() < 1e-12 && (even.log_evidence - 0.25).abs() < 1e-12);
        assert!((even.effective_share - 1.0).abs() < 1e-12 && even.to_string().contains("(good)"), "{even}");
        let heavy: Vec<f64> = (0..4000).map(|i| -1.2 * ((f64::from(i) + 0.5) / 4000.0).ln()).collect();
        let heavy = Diagnostics::of(&heavy).unwrap();
        let said = heavy.to_string();
        assert!(said.contains("not to be trusted") && said.contains("no mean") && said.contains("(bad)"), "{said}");
        let mut partly = vec![0.0; 1000];
        partly[3] = f64::NEG_INFINITY;
        let partly = Diagnostics::of(&partly).unwrap();
        assert!(partly.outside == 1 && partly.elbo == f64::NEG_INFINITY && !partly.is_reliable());
        assert!((partly.log_evidence - 0.999_f64.ln()).abs() < 1e-9, "{partly}");
        assert!(Diagnostics::of(&[f64::NEG_INFINITY; 9]).is_err() && Diagnostics::of(&[]).is_err());
    }
}
