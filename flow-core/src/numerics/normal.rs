//! The standard normal distribution function and its inverse.

use std::f64::consts::{SQRT_2, TAU};

/// `Φ(x)`, the probability below `x`, without loss of digits in the lower tail; `1 - Φ(x)` is `cdf(-x)`.
pub fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// `ln φ(x) = -x² / 2 - ln √(2π)`.
pub fn log_density(x: f64) -> f64 {
    -0.5 * (x * x + TAU.ln())
}

/// `Φ⁻¹(p)`, to the last digits of an f64; the infinities for 0 and 1, NaN outside.
///
/// Near one the digits of `p` itself are lost: take `-quantile(1 - p)` of a `1 - p` that is known better.
///
/// A rational approximation (P. J. Acklam, relative error 1e-9) and one step of Halley's method.
pub fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p <= 0.0 {
        return if p == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    }
    let start = if p < 0.02425 { tail(p) } else { centre(p - 0.5) };
    let step = (cdf(start) - p) * (-log_density(start)).exp();
    start - step / (1.0 + 0.5 * start * step)
}

fn horner(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

fn centre(q: f64) -> f64 {
    const ABOVE: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const BELOW: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    let r = q * q;
    q * horner(&ABOVE, r) / horner(&BELOW, r)
}

fn tail(p: f64) -> f64 {
    const ABOVE: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const BELOW: [f64; 5] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    let q = (-2.0 * p.ln()).sqrt();
    horner(&ABOVE, q) / horner(&BELOW, q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_inverts_the_distribution_function() {
        for i in -3700..=3700 {
            let x = f64::from(i) / 100.0;
            let (lower, upper) = (cdf(x), cdf(-x));
            let back = if x < 0.0 { quantile(lower) } else { -quantile(upper) };
            assert!((back - x).abs() < 1e-13 * x.abs().max(1.0), "{x} {back}");
        }
        assert!((quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-14);
        assert_eq!(quantile(0.5), 0.0);
    }

    #[test]
    fn the_ends_are_infinite_and_beyond_them_is_no_number() {
        assert_eq!([quantile(0.0), quantile(1.0)], [f64::NEG_INFINITY, f64::INFINITY]);
        assert!([-0.1, 1.1, f64::NAN].iter().all(|&p| quantile(p).is_nan()));
    }
}
