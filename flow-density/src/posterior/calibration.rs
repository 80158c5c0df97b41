//! Whether posteriors mean what they say: ranks of the true parameters among draws, and how often regions hold them.

use std::fmt;

use flow_core::numerics::host;
use flow_core::{Density, FlowRng};
use serde::Serialize;

use super::{CHUNK, Pairs, Posterior};
use crate::{Error, Result};

/// Bins of a histogram of ranks where there are pairs enough for them; a fifth of that where there are not.
pub const BINS: usize = 25;
/// Pairs that make it worth while to tell [`BINS`] bins apart.
const ENOUGH: usize = 10 * BINS;

/// Ranks that should be uniform, and the test of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Uniformity {
    /// How many ranks lie in each of some equal bins.
    pub histogram: Vec<usize>,
    /// The probability of a histogram at least as uneven, if ranks are uniform: Pearson's χ² test.
    pub p_value: f64,
}

impl Uniformity {
    /// Of ranks from 0 to `draws`, of which there are one more than draws.
    fn of(ranks: &[usize], draws: usize) -> Self {
        let bins = if ranks.len() >= ENOUGH { BINS } else { BINS / 5 };
        let mut histogram = vec![0; bins];
        ranks.iter().for_each(|rank| histogram[rank * bins / (draws + 1)] += 1);
        let expected = ranks.len() as f64 / bins as f64;
        let statistic: f64 = histogram.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
        Uniformity { histogram, p_value: above(statistic, bins - 1) }
    }
}

/// The probability that a χ² number of an even number of degrees of freedom exceeds `x`: `e^(-x/2)·Σ (x/2)^i/i!`.
fn above(x: f64, degrees: usize) -> f64 {
    let half = 0.5 * x;
    let mut term = (-half).exp();
    let mut sum = term;
    for i in 1..degrees / 2 {
        term *= half / i as f64;
        sum += term;
    }
    sum.min(1.0)
}

/// Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788) and expected coverage (Hermans et al. 2022, arXiv
/// 2110.06581), over pairs that the fit has not seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Calibration {
    /// Pairs.
    pub pairs: usize,
    /// Draws for each of them.
    pub draws: usize,
    /// Of every parameter: the rank of the true one among draws given its observation. A posterior that is too narrow piles
    /// ranks up at both ends, one that is too wide in the middle, one that is off to a side at an end.
    pub ranks: Vec<Uniformity>,
    /// The same of the share of draws that are likelier than the true parameters.
    pub coverage: Uniformity,
    /// That share for every pair, ascending: the smallest probability of a highest-density region that holds the truth.
    pub levels: Vec<f64>,
}

impl Calibration {
    /// The share of pairs whose parameters lie in the highest-density region of this probability; it should be that
    /// probability. Less is overconfidence.
    pub fn coverage_of(&self, probability: f64) -> f64 {
        self.levels.partition_point(|level| *level <= probability) as f64 / self.levels.len().max(1) as f64
    }

    /// The smallest of the p-values.
    pub fn least_p_value(&self) -> f64 {
        self.ranks.iter().chain([&self.coverage]).map(|test| test.p_value).fold(1.0, f64::min)
    }

    /// What is wrong with the calibration in plain words, at a level of one in a hundred over all tests together; `None` if
    /// nothing is to be seen.
    pub fn warning(&self) -> Option<String> {
        let tests = self.ranks.len() + 1;
        (self.least_p_value() * (tests as f64) < 0.01).then(|| {
            let covered = self.coverage_of(0.9);
            let how = match covered {
                c if c < 0.88 => "too narrow (overconfident)",
                c if c > 0.92 => "too wide",
                _ => "off in place or shape",
            };
            format!(
                "the posteriors are not calibrated, p = {:.1e} over {tests} tests: they are {how}, regions of 90 % hold the \
                 truth in {:.1} % of cases; more pairs, more steps or a larger flow may help",
                self.least_p_value(),
                100.0 * covered
            )
        })
    }
}

/// One line of numbers, and a warning if there is one.
impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.ranks.iter().map(|test| format!("{:.3}", test.p_value)).collect();
        write!(
            f,
            "calibration over {} pairs of {} draws: p of ranks {}, of coverage {:.3}; regions of 50 % hold the truth in {:.1} \
             %, of 90 % in {:.1} %",
            self.pairs,
            self.draws,
            values.join(", "),
            self.coverage.p_value,
            100.0 * self.coverage_of(0.5),
            100.0 * self.coverage_of(0.9)
        )?;
        self.warning().map_or(Ok(()), |warning| write!(f, "\nwarning: {warning}"))
    }
}

impl<D: Density + ?Sized> Posterior<'_, D> {
    /// Ranks of the true parameters of `pairs`, which the fit must not have seen, among `draws` draws given their
    /// observations.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for fewer than 25 pairs and for draws that are not one less than a multiple of
    /// [`BINS`], whose ranks would fill the bins unevenly.
    pub fn calibrate(&self, pairs: &Pairs, draws: usize, rng: &mut FlowRng) -> Result<Calibration> {
        if !(draws + 1).is_multiple_of(BINS) {
            let reason = format!("must be one less than a multiple of {BINS}, such as 99 or 199; got {draws}");
            return Err(Error::config("draws of the calibration", reason));
        }
        if pairs.len() < BINS {
            let reason = format!("must be at least {BINS} for a calibration, got {}", pairs.len());
            return Err(Error::config("held-out pairs", reason));
        }
        let (theta, x) = self.tensors(pairs)?;
        let truth = self.scores(&theta, &x)?;
        let (width, at_once) = (pairs.parameters(), (CHUNK / draws).max(1));
        let (mut ranks, mut likelier) = (vec![Vec::new(); width], Vec::with_capacity(pairs.len()));
        let seen = host::wide(&theta)?.to_vec2::<f64>()?;
        for start in (0..pairs.len()).step_by(at_once) {
            let count = at_once.min(pairs.len() - start);
            let rows: Vec<u32> = (0..count * draws).map(|k| (start + k / draws) as u32).collect();
            let context = x.index_select(&candle_core::Tensor::from_vec(rows, count * draws, x.device())?, 0)?;
            let drawn = self.density.sample(count * draws, Some(&context), 1.0, rng)?;
            let logs = self.scores(&drawn, &context)?;
            let drawn = host::wide(&drawn)?.to_vec2::<f64>()?;
            for pair in 0..count {
                let (true_theta, true_log) = (&seen[start + pair], truth[start + pair]);
                let mine = pair * draws..(pair + 1) * draws;
                likelier.push(logs[mine.clone()].iter().filter(|log| **log > true_log).count());
                for (parameter, ranks) in ranks.iter_mut().enumerate() {
                    ranks.push(drawn[mine.clone()].iter().filter(|row| row[parameter] < true_theta[parameter]).count());
                }
            }
        }
        let mut levels: Vec<f64> = likelier.iter().map(|&rank| rank as f64 / draws as f64).collect();
        levels.sort_by(f64::total_cmp);
        Ok(Calibration {
            pairs: pairs.len(),
            draws,
            ranks: ranks.iter().map(|ranks| Uniformity::of(ranks, draws)).collect(),
            coverage: Uniformity::of(&likelier, draws),
            levels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_the_test_are_those_of_tables() {
        // Upper five per cent of χ² with 4 and 24 degrees of freedom.
        assert!((above(9.487_729, 4) - 0.05).abs() < 1e-7 && (above(36.415_03, 24) - 0.05).abs() < 1e-7);
        assert_eq!(above(0.0, 4), 1.0);
    }

    #[test]
    fn even_ranks_pass_and_piled_up_ones_do_not() {
        let even: Vec<usize> = (0..1000).map(|i| i % 100).collect();
        let test = Uniformity::of(&even, 99);
        assert!(test.histogram == vec![40; BINS] && test.p_value > 0.999);
        let ends: Vec<usize> = (0..1000).map(|i| if i % 2 == 0 { i % 40 } else { 99 - i % 40 }).collect();
        assert!(Uniformity::of(&ends, 99).p_value < 1e-6);
        assert_eq!(Uniformity::of(&even[..100], 99).histogram.len(), BINS / 5);
    }
}
