use super::*;
use crate::testing::numbers::{gap, normal, values};
use crate::testing::transformer::{
    assert_finite, check, gradients, grid, numerical_derivative, params, round_trip, row, shared,
};
use candle_core::Device;

const BOUND: f64 = 3.0;

fn spline(bins: usize) -> RationalQuadraticSpline {
    RationalQuadraticSpline::new(bins, BOUND).unwrap()
}

/// The knots on the axis whose raw lengths begin at `start`, summed on the host.
fn knots(t: &RationalQuadraticSpline, params: &Tensor, start: usize) -> Vec<f64> {
    let raw = values(&params.narrow(3, 0, 1).unwrap().narrow(2, start, t.bins).unwrap());
    let total: f64 = raw.iter().map(|r| r.exp()).sum();
    let length = |r: &f64| 2.0 * t.bound * (MIN_BIN + (1.0 - MIN_BIN * t.bins as f64) * r.exp() / total);
    let mut sums = vec![-t.bound];
    raw.iter().for_each(|r| sums.push(sums[sums.len() - 1] + length(r)));
    sums
}

#[test]
fn zero_parameters_are_the_identity() {
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        for bins in [2, 5, 8] {
            let t = spline(bins);
            let x = row(&grid(-4.0, 4.0, 33)).to_dtype(dtype).unwrap();
            let zeros = Tensor::zeros((1, 1, t.params_per_element(), 33), dtype, &Device::Cpu).unwrap();
            for (value, log) in [t.encode(&x, &zeros).unwrap(), t.decode(&x, &zeros).unwrap()] {
                assert!(gap(&value, &x) < tolerance, "{value}");
                assert!(gap(&log, &x.zeros_like().unwrap()) < 2.0 * tolerance, "{log}");
            }
        }
    }
}

#[test]
fn knots_map_to_knots_with_the_slopes_that_were_asked_for() {
    let t = spline(6);
    let params = shared(&t, 7, 1.5, 1);
    let (x, y) = (row(&knots(&t, &params, 0)), row(&knots(&t, &params, 6)));
    let raw = values(&params.narrow(3, 0, 1).unwrap().narrow(2, 12, 5).unwrap());
    let slope = |r: f64| 1e-3 + (r + 0.999_f64.exp_m1().ln()).exp().ln_1p();
    let logs: Vec<f64> = [0.0].into_iter().chain(raw.into_iter().map(|r| slope(r).ln())).chain([0.0]).collect();
    let ((to, forward), (back, backward)) = (t.encode(&x, &params).unwrap(), t.decode(&y, &params).unwrap());
    assert!(gap(&to, &y) < 1e-13 && gap(&back, &x) < 1e-13);
    assert!(gap(&forward, &row(&logs)) < 1e-11 && gap(&backward.neg().unwrap(), &row(&logs)) < 1e-11);
    assert!(round_trip(&t, &x, &params) < 1e-11);
}

#[test]
fn the_tails_are_the_identity_from_the_bound_on() {
    let t = spline(5);
    let x = row(&[-10.0 * BOUND, -1.0 - BOUND, -BOUND, BOUND, BOUND + 1e-9, 10.0 * BOUND, 1e300]);
    let params = params(&t, 7, 2.0, 2);
    for (value, log) in [t.encode(&x, &params).unwrap(), t.decode(&x, &params).unwrap()] {
        assert_eq!(values(&value), values(&x));
        assert_eq!(values(&log), [0.0; 7]);
    }
    // From the inside both the value and the derivative run into the tail's.
    let near = row(&[-BOUND * (1.0 - 1e-9), BOUND * (1.0 - 1e-9)]);
    let params = shared(&t, 2, 2.0, 3);
    let (value, log) = t.encode(&near, &params).unwrap();
    assert!(gap(&value, &near) < 1e-8 && gap(&log, &near.zeros_like().unwrap()) < 1e-4, "{value} {log}");
}

#[test]
fn gradients_are_finite_on_knots_at_the_bound_and_outside() {
    let t = spline(4);
    for dtype in [DType::F64, DType::F32] {
        let params = shared(&t, 13, 1.0, 4);
        let points: Vec<f64> =
            knots(&t, &params, 0).into_iter().chain(knots(&t, &params, 4)).chain([-30.0, 30.0, 1e30]).collect();
        let (x, params) = (row(&points).to_dtype(dtype).unwrap(), params.to_dtype(dtype).unwrap());
        for found in [gradients(|x, p| t.encode(x, p), &x, &params), gradients(|y, p| t.decode(y, p), &x, &params)] {
            found.iter().for_each(|g| assert_finite("gradient", g));
            // Outside, the input passes through and the parameters see nothing.
            let [of_input, of_params] = &found;
            assert_eq!(values(&of_input.narrow(2, 10, 3).unwrap()), [1.0; 3]);
            assert_eq!(values(&of_params.narrow(3, 10, 3).unwrap()), [0.0; 33]);
        }
    }
}

#[test]
fn increases_and_inverts() {
    for (bins, spread, seed) in [(2, 1.0, 5), (8, 1.0, 6), (16, 3.0, 7)] {
        let t = spline(bins);
        let x = row(&grid(-3.5, 3.5, 1001));
        let params = shared(&t, 1001, spread, seed);
        for (value, _) in [t.encode(&x, &params).unwrap(), t.decode(&x, &params).unwrap()] {
            assert!(values(&value).windows(2).all(|w| w[0] < w[1]), "{bins} bins, spread {spread}");
        }
        let worst = round_trip(&t, &x, &params);
        assert!(worst < 1e-9, "{bins} bins, spread {spread}: {worst:e}");
    }
}

#[test]
fn inverts_in_single_precision() {
    let t = spline(8);
    let x = row(&grid(-3.5, 3.5, 501)).to_dtype(DType::F32).unwrap();
    let params = shared(&t, 501, 1.0, 8).to_dtype(DType::F32).unwrap();
    let worst = round_trip(&t, &x, &params);
    assert!(worst < 1e-4, "{worst:e}");
}

#[test]
fn log_derivatives_are_those_of_the_map() {
    let t = spline(6);
    // An irregular grid: a difference across a knot, where the second derivative jumps, is less exact.
    let x = row(&grid(-3.317, 3.291, 97));
    let worst = numerical_derivative(&t, &x, &params(&t, 97, 1.0, 9));
    assert!(worst < 1e-6, "{worst:e}");
}

#[test]
fn extreme_parameters_stay_finite() {
    let t = spline(3);
    let x = row(&grid(-2.9, 2.9, 9));
    for dtype in [DType::F64, DType::F32] {
        for size in [-1e3, -30.0, 30.0, 1e3] {
            // Every third parameter is large, so that all kinds meet large and ordinary ones.
            let raw: Vec<f64> = (0..72).map(|i| if i % 3 == 0 { size } else { 0.1 * (i % 7) as f64 }).collect();
            let params = Tensor::from_vec(raw, (1, 1, 8, 9), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let x = x.to_dtype(dtype).unwrap();
            for (value, log) in [t.encode(&x, &params).unwrap(), t.decode(&x, &params).unwrap()] {
                assert_finite("value", &value);
                assert_finite("log-derivative", &log);
            }
            for found in [gradients(|x, p| t.encode(x, p), &x, &params), gradients(|y, p| t.decode(y, p), &x, &params)]
            {
                found.iter().for_each(|g| assert_finite(&format!("gradient at {size}, {dtype:?}"), g));
            }
        }
    }
}

#[test]
fn refuses_what_makes_no_sense() {
    for (bins, bound) in [(0, 1.0), (1, 1.0), (501, 1.0), (8, 0.0), (8, -1.0), (8, f64::NAN), (8, f64::INFINITY)] {
        assert!(matches!(RationalQuadraticSpline::new(bins, bound), Err(Error::Config { .. })), "{bins}, {bound}");
    }
    let (t, x) = (spline(4), row(&[0.0, 1.0]));
    for wrong in [params(&t, 3, 1.0, 1), params(&spline(5), 2, 1.0, 1), params(&t, 2, 1.0, 1).squeeze(0).unwrap()] {
        let error = t.encode(&x, &wrong).unwrap_err();
        assert!(matches!(&error, Error::Shape { layer, .. } if layer.contains("spline")), "{error}");
    }
}

#[test]
fn holds_in_several_channels_and_dimensions() {
    // A wide interval: the check's steps of 1e-5 cannot resolve the narrowest bins of a small one.
    check(&RationalQuadraticSpline::new(4, 12.0).unwrap(), &normal(11, &[2, 2, 3]), 1e-9);
    check(&spline(2), &normal(12, &[2, 3]), 1e-9);
}
