//! Pareto-smoothed importance weights (Vehtari, Simpson, Gelman, Yao & Gabry 2024, arXiv 1507.02646).

/// Log-weights whose largest are smoothed, and the shape of their tail.
#[derive(Debug, Clone)]
pub(super) struct Smoothed {
    /// The shape `k` of the generalized Pareto distribution of the largest weights: moments of order below `1/k` exist.
    pub(super) k: f64,
    /// The log-weights with the largest replaced by quantiles of that distribution.
    pub(super) logs: Vec<f64>,
}

/// Fits the tail of the weights and smooths it.
///
/// Weights that are all alike have no tail: their `k` is `-∞`. With fewer than five in the tail there is no telling, and it
/// is `+∞`.
pub(super) fn smooth(log_weights: &[f64]) -> Smoothed {
    let n = log_weights.len();
    let tail = ((0.2 * n as f64).min(3.0 * (n as f64).sqrt())).ceil() as usize;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| log_weights[a].total_cmp(&log_weights[b]));
    let most = order.last().map_or(0.0, |&i| log_weights[i]);
    let mut logs: Vec<f64> = log_weights.to_vec();
    if tail < 5 || n <= tail {
        return Smoothed { k: f64::INFINITY, logs };
    }
    let cut = log_weights[order[n - tail - 1]];
    let threshold = (cut - most).exp();
    let excesses: Vec<f64> = order[n - tail..].iter().map(|&i| (log_weights[i] - most).exp() - threshold).collect();
    // Differences of the last digits are no tail.
    if excesses.last().is_none_or(|&e| e <= 1e-9) {
        return Smoothed { k: f64::NEG_INFINITY, logs };
    }
    let (k, sigma) = fit(&excesses);
    if k.is_finite() {
        for (rank, &i) in order[n - tail..].iter().enumerate() {
            let p = (rank as f64 + 0.5) / tail as f64;
            let quantile =
                if k.abs() < 1e-12 { -sigma * (-p).ln_1p() } else { sigma * (-k * (-p).ln_1p()).exp_m1() / k };
            // No smoothed weight exceeds the largest raw one.
            logs[i] = (threshold + quantile).ln().min(0.0) + most;
        }
    }
    Smoothed { k, logs }
}

/// Shape and scale of a generalized Pareto distribution of ascending excesses, by the empirical Bayes estimate of Zhang &
/// Stephens (2009, Technometrics 51), the shape drawn to one half as if ten observations had said so.
fn fit(ascending: &[f64]) -> (f64, f64) {
    let n = ascending.len() as f64;
    let count = 30 + n.sqrt() as usize;
    let quartile = ascending[((n / 4.0 + 0.5) as usize).clamp(1, ascending.len()) - 1].max(f64::MIN_POSITIVE);
    let largest = ascending[ascending.len() - 1];
    let shape_of = |theta: f64| ascending.iter().map(|x| (-theta * x).ln_1p()).sum::<f64>() / n;
    let thetas: Vec<f64> = (1..=count)
        .map(|j| 1.0 / largest + (1.0 - (count as f64 / (j as f64 - 0.5)).sqrt()) / (3.0 * quartile))
        .collect();
    let profile: Vec<f64> = thetas
        .iter()
        .map(|&theta| {
            let k = shape_of(theta);
            n * ((-theta / k).ln() - k - 1.0)
        })
        .collect();
    let most = profile.iter().copied().filter(|p| p.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = profile.iter().map(|p| if p.is_finite() { (p - most).exp() } else { 0.0 }).collect();
    let theta = thetas.iter().zip(&weights).map(|(t, w)| t * w).sum::<f64>() / weights.iter().sum::<f64>();
    let k = shape_of(theta);
    let sigma = -k / theta;
    ((k * n + 5.0) / (n + 10.0), sigma)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights `u^-k`, whose tail has the shape `k`, at even places.
    fn power_law(k: f64, n: usize) -> Vec<f64> {
        (0..n).map(|i| -k * ((i as f64 + 0.5) / n as f64).ln()).collect()
    }

    #[test]
    fn the_shape_of_a_power_law_is_found() {
        for k in [0.1, 0.3, 0.5, 0.7, 1.0, 1.5] {
            let found = smooth(&power_law(k, 10_000)).k;
            assert!((found - k).abs() < 0.06, "{k}: {found}");
        }
    }

    #[test]
    fn even_weights_and_few_weights() {
        assert_eq!(smooth(&[0.3; 1000]).k, f64::NEG_INFINITY);
        assert_eq!(smooth(&power_law(0.5, 12)).k, f64::INFINITY);
        assert_eq!(smooth(&[]).logs.len(), 0);
        // An exponential tail has the shape zero; the prior of ten observations at one half is still seen.
        let exponential: Vec<f64> = (0..4000).map(|i| (1.0 - ((i as f64 + 0.5) / 4000.0).ln()).ln()).collect();
        assert!(smooth(&exponential).k.abs() < 0.1, "{}", smooth(&exponential).k);
    }

    #[test]
    fn smoothing_keeps_the_order_and_the_bulk() {
        let logs = power_law(0.6, 2000);
        let smoothed = smooth(&logs);
        assert!(smoothed.logs.windows(2).all(|pair| pair[0] >= pair[1] - 1e-12));
        assert_eq!(logs[1000], smoothed.logs[1000]);
        assert!(smoothed.logs[0] <= logs[0] && smoothed.logs[0].is_finite());
    }
}
