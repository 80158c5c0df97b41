//! The probability that each of several independent Gaussian numbers is the largest.

use flow_core::numerics::normal;

/// Nodes and weights of the eight-point Gauss–Legendre rule on `[−1, 1]`, positive half.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_5),
    (0.960_289_856_497_536_2, 0.101_228_536_290_376_26),
];

/// Distances from a mean, in standard deviations, at which the line is cut.
const CUTS: [f64; 9] = [-9.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 9.0];

/// `P(argmax = k) = ∫ φ_k(x) Π_{c≠k} Φ_c(x) dx` for independent `x_k ~ N(mean_k, deviation_k²)`.
///
/// The line is cut where any of the factors changes, so narrow factors beside wide ones are resolved; the
/// probabilities sum to one within `1e-9`. A class with deviation zero or infinite makes them NaN.
pub(crate) fn argmax_probabilities(mean: &[f64], deviation: &[f64]) -> Vec<f64> {
    let k = mean.len();
    let mut cuts: Vec<f64> = mean.iter().zip(deviation).flat_map(|(m, s)| CUTS.map(|z| m + z * s)).collect();
    cuts.sort_by(f64::total_cmp);
    let mut p = vec![0.0; k];
    let (mut log_below, mut ratio) = (vec![0.0; k], vec![0.0; k]);
    for pair in cuts.windows(2) {
        let (middle, half) = (0.5 * (pair[0] + pair[1]), 0.5 * (pair[1] - pair[0]));
        for (node, weight) in GAUSS.into_iter().flat_map(|(n, w)| [(-n, w), (n, w)]) {
            let x = middle + half * node;
            for c in 0..k {
                let z = (x - mean[c]) / deviation[c];
                let below = normal::cdf(z);
                log_below[c] = below.max(f64::MIN_POSITIVE).ln();
                ratio[c] = -0.5 * z * z - deviation[c].ln();
            }
            let all: f64 = log_below.iter().sum();
            for c in 0..k {
                p[c] += weight * half * (ratio[c] + all - log_below[c]).exp();
            }
        }
    }
    let root = std::f64::consts::TAU.sqrt();
    p.iter_mut().for_each(|p| *p /= root);
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_have_a_closed_form_and_all_sum_to_one() {
        for (mean, deviation) in [([0.0, 0.3], [1.0, 1.0]), ([2.0, -1.0], [0.01, 3.0]), ([0.0, 0.0], [1e-4, 1e3])] {
            let p = argmax_probabilities(&mean, &deviation);
            let z = (mean[0] - mean[1]) / f64::hypot(deviation[0], deviation[1]);
            let expected = normal::cdf(z);
            assert!((p[0] - expected).abs() < 1e-9, "{p:?} {expected}");
        }
        let p = argmax_probabilities(&[1.0, 0.2, -3.0, 0.9, 0.9], &[0.5, 0.01, 4.0, 1.0, 1.0]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{p:?}");
        assert!((p[3] - p[4]).abs() < 1e-12);
    }
}
