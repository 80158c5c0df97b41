//! What is minimised: divergences between a flow and a density, and the weight that each sample has in their gradients.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A divergence between the flow `q` and the density `p`, of which a step estimates value and gradient by `n` samples of
/// `q` with log-weights `ln w_i = ln p(x_i) - ln q(x_i)`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Divergence {
    /// `KL(q‖p)`, the mean of `-ln w_i`: the negative evidence lower bound (ELBO) up to `ln Z`. It prefers to miss a mode
    /// of `p` rather than to put mass where there is none.
    #[default]
    Reverse,
    /// `KL(p‖q)` by self-normalised importance weights, `-Σ w̄_i ln q(x_i)` with `w̄ = w/Σw` (Bornschein & Bengio 2015,
    /// arXiv 1406.2751): it covers `p`, as far as the samples reach it, and needs no gradient of `ln p`. Biased where the
    /// weights are uneven: begin with a flow that is wide enough, or anneal.
    Forward,
    /// The Rényi bound `1/(1-α)·ln mean w^(1-α)` (Li & Turner 2016, arXiv 1602.02311). It is a lower bound of `ln Z` for
    /// `α ≥ 0`, which is made large: for `α = 0` the importance-weighted bound (Burda et al. 2016, arXiv 1509.00519),
    /// near one the ELBO. For `α < 0` it is an upper bound, which is made small: `α = -1` is the χ² bound (CUBO, Dieng et
    /// al. 2017, arXiv 1611.00328). The bounds are those of infinitely many samples; a step's estimate is biased towards
    /// the ELBO.
    Renyi {
        /// The order `α`, not one.
        alpha: f64,
    },
}

/// How the gradient of a divergence goes through the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Estimator {
    /// Only through the samples: what `ln q` gains by its parameters alone has mean zero and is left out ("sticking the
    /// landing", Roeder et al. 2017, arXiv 1703.09194; for the other bounds "doubly reparameterized", Tucker et al. 2018,
    /// arXiv 1810.04152). The gradient has no variance where `q = p`. It costs a pass that scores the samples.
    #[default]
    PathDerivative,
    /// The gradient of the estimate itself. It costs less where the flow's inverse is slow, and is noisier near the end.
    Total,
}

impl Divergence {
    /// The χ² divergence, by the bound of order `α = -1`.
    pub fn chi_squared() -> Self {
        Divergence::Renyi { alpha: -1.0 }
    }

    /// The importance-weighted bound, of order `α = 0`.
    pub fn importance_weighted() -> Self {
        Divergence::Renyi { alpha: 0.0 }
    }

    pub(super) fn check(self) -> Result<()> {
        match self {
            Divergence::Renyi { alpha } if !alpha.is_finite() || alpha == 1.0 => {
                let reason = "must be a finite number other than 1, of which the bound is Divergence::Reverse";
                Err(Error::config("the order of the Rényi bound", format!("{reason}; got {alpha}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether a sample of density zero makes it infinite: the others give it the weight zero.
    pub(super) fn refuses_zero(self) -> bool {
        match self {
            Divergence::Reverse => true,
            Divergence::Forward => false,
            Divergence::Renyi { alpha } => alpha >= 1.0,
        }
    }

    /// The estimate from log-weights, and how its gradient is made of theirs.
    pub(super) fn terms(self, log_weights: &[f64], estimator: Estimator) -> Terms {
        let n = log_weights.len().max(1) as f64;
        match self {
            Divergence::Reverse => {
                Terms { loss: -log_weights.iter().sum::<f64>() / n, coefficients: vec![-1.0 / n; log_weights.len()] }
            }
            Divergence::Forward => {
                let (log_mean, weights) = normalised(log_weights.iter().copied());
                let mean: f64 = weights.iter().zip(log_weights).filter(|(w, _)| **w > 0.0).map(|(w, l)| w * l).sum();
                // KL(p‖q) = E_p[ln p̃ - ln q] - ln Z.
                Terms { loss: mean - log_mean, coefficients: weights.iter().map(|w| -w).collect() }
            }
            Divergence::Renyi { alpha } => {
                let power = 1.0 - alpha;
                let (log_mean, weights) = normalised(log_weights.iter().map(|l| power * l));
                let sign = if alpha < 0.0 { 1.0 } else { -1.0 };
                let coefficient = |w: &f64| match estimator {
                    Estimator::Total => sign * w,
                    Estimator::PathDerivative => sign * (alpha * w + power * w * w),
                };
                Terms { loss: sign * log_mean / power, coefficients: weights.iter().map(coefficient).collect() }
            }
        }
    }
}

/// The estimate of a divergence.
pub(super) struct Terms {
    /// In nats; of a lower bound its negative.
    pub(super) loss: f64,
    /// What multiplies the derivative of each log-weight; of the forward divergence, that of `ln q`.
    pub(super) coefficients: Vec<f64>,
}

/// `ln mean exp` of some logarithms, and their exponentials as shares of the sum; all alike if all are `-∞`.
pub(super) fn normalised(logs: impl Iterator<Item = f64> + Clone) -> (f64, Vec<f64>) {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = match most.is_finite() {
        true => logs.map(|l| (l - most).exp()).collect(),
        false => logs.map(|_| 1.0).collect(),
    };
    let (sum, n) = (weights.iter().sum::<f64>(), weights.len().max(1) as f64);
    (most + (sum / n).ln(), weights.into_iter().map(|w| w / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_ordered_and_equal_where_weights_are() {
        let logs = [-1.0, 0.3, 0.8, -0.2, 2.0];
        let bound = |divergence: Divergence| {
            let loss = divergence.terms(&logs, Estimator::Total).loss;
            if divergence == Divergence::chi_squared() { loss } else { -loss }
        };
        let renyi = |alpha| bound(Divergence::Renyi { alpha });
        let all = [renyi(2.0), renyi(1.0 + 1e-7), bound(Divergence::Reverse), renyi(0.5), renyi(0.0), renyi(-1.0)];
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6), "{all:?}");
        assert!((all[1] - all[2]).abs() < 1e-5);
        for divergence in [Divergence::Forward, Divergence::Reverse, Divergence::Renyi { alpha: 3.0 }] {
            let terms = divergence.terms(&[0.7; 4], Estimator::PathDerivative);
            assert!(terms.coefficients.iter().all(|c| (c - terms.coefficients[0]).abs() < 1e-15));
        }
        assert!(Divergence::Forward.terms(&[0.7; 4], Estimator::Total).loss.abs() < 1e-12);
        assert!(Divergence::Forward.terms(&logs, Estimator::Total).loss > 0.0);
    }

    #[test]
    fn a_weight_of_zero_counts_for_nothing() {
        let terms = Divergence::Forward.terms(&[f64::NEG_INFINITY, 1.0, 1.0], Estimator::Total);
        assert_eq!(terms.coefficients, [-0.0, -0.5, -0.5]);
        assert!((terms.loss - 1.5_f64.ln()).abs() < 1e-12);
        for alpha in [1.0, f64::NAN, f64::INFINITY] {
            assert!(Divergence::Renyi { alpha }.check().is_err());
        }
    }
}
