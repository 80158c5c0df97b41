//! At which times a field is asked.

use serde::{Deserialize, Serialize};

use crate::{Error, FlowRng, Result};

/// The distribution of `s = t/T`, 0 at the data and 1 at the noise.
///
/// It weighs the regression only; the field that solves it is the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TimeSampling {
    /// Uniform in `[0, 1)`, each group by itself.
    #[default]
    Uniform,
    /// `σ(mean + std·n)` with a standard normal `n`: more weight on the middle of the path (Esser et al. 2024, arXiv
    /// 2403.03206, section 3.1).
    LogitNormal {
        /// The logit of the median; positive is nearer to the noise.
        mean: f64,
        /// The spread.
        std: f64,
    },
    /// Uniform, but one in each of `G` equal parts of `[0, 1)`, in random order: the mean over a batch varies less.
    Stratified,
}

impl TimeSampling {
    pub(super) fn check(self) -> Result<()> {
        match self {
            TimeSampling::LogitNormal { mean, std } if !(mean.is_finite() && std > 0.0 && std.is_finite()) => {
                let reason = format!("mean {mean} must be finite and std {std} a finite number > 0");
                Err(Error::config("logit-normal times", reason))
            }
            _ => Ok(()),
        }
    }

    /// `count` values of `s`; given a generator for rows, those of a larger batch that belong to the rows at hand.
    pub(super) fn draw(self, count: usize, rng: &mut FlowRng) -> Vec<f64> {
        let share = rng.share_of(count);
        let mut whole = self.draw_whole(share.of, rng);
        whole.drain(share.range()).collect()
    }

    fn draw_whole(self, count: usize, rng: &mut FlowRng) -> Vec<f64> {
        match self {
            TimeSampling::Uniform => (0..count).map(|_| rng.next_uniform()).collect(),
            TimeSampling::LogitNormal { mean, std } => {
                (0..count).map(|_| 1.0 / (1.0 + (-mean - std * rng.next_normal()).exp())).collect()
            }
            TimeSampling::Stratified => {
                let parts = rng.permutation(count);
                parts.into_iter().map(|part| (part as f64 + rng.next_uniform()) / count as f64).collect()
            }
        }
    }
}
