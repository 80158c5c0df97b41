use candle_core::DType;

use super::*;
use crate::error::Direction;
use crate::testing::numbers::{gap, normal, values};
use crate::testing::transformer::{
    assert_finite, check, gradients, grid, numerical_derivative, params, round_trip, row, shared,
};

fn mixture(components: usize) -> LogisticMixture {
    LogisticMixture::new(components).unwrap()
}

#[test]
fn zero_parameters_are_the_identity() {
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-6)] {
        for components in [1, 3, 8] {
            let t = mixture(components);
            let x = row(&grid(-40.0, 40.0, 41)).to_dtype(dtype).unwrap();
            let zeros = Tensor::zeros((1, 1, t.params_per_element(), 41), dtype, &Device::Cpu).unwrap();
            for (value, log) in [t.encode(&x, &zeros).unwrap(), t.decode(&x, &zeros).unwrap()] {
                assert!(gap(&value, &x) < tolerance, "{value}");
                assert!(gap(&log, &x.zeros_like().unwrap()) < tolerance, "{log}");
            }
        }
    }
}

#[test]
fn the_first_step_parts_components_that_start_alike() {
    let t = mixture(3);
    let zeros = Tensor::zeros((1, 1, 11, 1), DType::F64, &Device::Cpu).unwrap();
    let [_, gradient] = gradients(|x, p| t.encode(x, p), &row(&[0.7]), &zeros);
    let of_locations = values(&gradient.narrow(2, 3, 3).unwrap());
    assert!(of_locations.iter().all(|g| g.abs() > 0.1), "{of_locations:?}");
    let parted = of_locations.windows(2).all(|w| (w[0] - w[1]).abs() > 0.1 * w[0].abs());
    assert!(parted, "{of_locations:?}");
}

/// The definition with plain logarithms, which is right where nothing is far out.
fn definition(p: &[f64], k: usize, x: f64) -> f64 {
    let total: f64 = p[..k].iter().map(|w| w.exp()).sum();
    let part = |i: usize| {
        let mean = p[k + i] * (0.5 + (i as f64 + 0.5) / k as f64);
        let scale = (5.0 * (p[2 * k + i] / 5.0).tanh()).exp();
        p[i].exp() / total / (1.0 + (-(x - mean) / scale).exp())
    };
    let cdf: f64 = (0..k).map(part).sum();
    (cdf / (1.0 - cdf)).ln() * (3.0 * (p[3 * k] / 3.0).tanh()).exp() + p[3 * k + 1]
}

#[test]
fn equals_the_definition() {
    let t = mixture(4);
    let points = grid(-3.0, 3.0, 25);
    let params = shared(&t, 25, 1.0, 1);
    let p = values(&params.narrow(3, 0, 1).unwrap());
    let expected: Vec<f64> = points.iter().map(|&x| definition(&p, 4, x)).collect();
    let y = t.encode(&row(&points), &params).unwrap().0;
    assert!(gap(&y, &row(&expected)) < 1e-11, "{y}");
}

#[test]
fn increases_and_inverts() {
    for (components, spread, seed) in [(1, 1.0, 2), (4, 1.0, 3), (8, 2.0, 4)] {
        let t = mixture(components);
        let x = row(&grid(-6.0, 6.0, 301));
        let params = shared(&t, 301, spread, seed);
        for (value, _) in [t.encode(&x, &params).unwrap(), t.decode(&x, &params).unwrap()] {
            assert!(values(&value).windows(2).all(|w| w[0] < w[1]), "{components} components, spread {spread}");
        }
        let worst = round_trip(&t, &x, &params);
        assert!(worst < 1e-8, "{components} components, spread {spread}: {worst:e}");
    }
}

#[test]
fn inverts_in_single_precision() {
    let t = mixture(4);
    let x = row(&grid(-6.0, 6.0, 301)).to_dtype(DType::F32).unwrap();
    let params = shared(&t, 301, 0.7, 5).to_dtype(DType::F32).unwrap();
    let y = t.encode(&x, &params).unwrap().0;
    let back = t.decode(&y, &params).unwrap().0;
    // The solver leaves no error of its own: what remains is the rounding of y, a few units in 2^24.
    assert!(gap(&back, &x) < 5e-6, "{:e}", gap(&back, &x));
    assert!(round_trip(&t, &x, &params) < 1e-4);
}

#[test]
fn log_derivatives_are_those_of_the_map() {
    let t = mixture(5);
    let worst = numerical_derivative(&t, &row(&grid(-5.0, 5.0, 61)), &params(&t, 61, 1.0, 6));
    assert!(worst < 1e-7, "{worst:e}");
}

#[test]
fn far_out_only_the_widest_component_counts() {
    let t = mixture(2);
    // Scales e^-2 and e^1 on either side of the soft clamp: raw = 5 artanh(ln s / 5).
    let raw = |log: f64| 5.0 * (log / 5.0).atanh();
    let p = [0.3, -0.4, 1.0, -1.0, raw(-2.0), raw(1.0), 0.0, 0.0];
    for dtype in [DType::F64, DType::F32] {
        let params = Tensor::new(&p, &Device::Cpu).unwrap().reshape((1, 1, 8, 1)).unwrap();
        let params = params.repeat((1, 1, 1, 4)).unwrap().to_dtype(dtype).unwrap();
        let x = row(&[-1e3, -200.0, 200.0, 1e3]).to_dtype(dtype).unwrap();
        let (y, log) = t.encode(&x, &params).unwrap();
        let log_weight = -0.4 - (0.3_f64.exp() + (-0.4_f64).exp()).ln();
        let expected = |x: f64| (x + 1.25) / 1.0_f64.exp() + x.signum() * -log_weight;
        let expected: Vec<f64> = [-1e3, -200.0, 200.0, 1e3].map(expected).to_vec();
        let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-6 };
        assert!(gap(&y, &row(&expected)) < tolerance, "{y} {expected:?}");
        assert!(gap(&log, &row(&[-1.0; 4])) < tolerance, "{log}");
        assert!(gap(&t.decode(&y, &params).unwrap().0, &x) < 4.0 * tolerance);
    }
}

#[test]
fn gaps_between_narrow_components_stay_finite() {
    let t = mixture(2);
    // Scales near e^-5 at ±100: between them F is ½ to all digits and the derivative is e^-15000.
    let p = [0.0, 0.0, -100.0 / 0.75, 100.0 / 1.25, -1e3, -1e3, 0.0, 0.0];
    let points = [-1e3, -100.0, -50.0, 0.0, 50.0, 100.0, 1e3];
    let params = Tensor::new(&p, &Device::Cpu).unwrap().reshape((1, 1, 8, 1)).unwrap();
    for dtype in [DType::F64, DType::F32] {
        let params = params.repeat((1, 1, 1, 7)).unwrap().to_dtype(dtype).unwrap();
        let x = row(&points).to_dtype(dtype).unwrap();
        for (value, log) in [t.encode(&x, &params).unwrap(), t.decode(&x, &params).unwrap()] {
            assert_finite("value", &value);
            assert_finite("log-derivative", &log);
        }
        for found in [gradients(|x, p| t.encode(x, p), &x, &params), gradients(|y, p| t.decode(y, p), &x, &params)] {
            found.iter().for_each(|g| assert_finite("gradient", g));
        }
    }
}

#[test]
fn decode_is_differentiated_as_the_implicit_function() {
    let t = mixture(3);
    let (y, params) = (row(&[-1.3, 0.2, 2.1]), params(&t, 3, 0.8, 7));
    let objective = |y: &Tensor, params: &Tensor| {
        let (x, log) = t.decode(y, params).unwrap();
        values(&x).iter().sum::<f64>() + 0.7 * values(&log).iter().sum::<f64>()
    };
    let [of_input, of_params] = gradients(|y, p| t.decode(y, p), &y, &params);
    let step = 1e-5;
    let difference = |at: &Tensor, i: usize, f: &dyn Fn(&Tensor) -> f64| {
        let moved = |by: f64| {
            let mut entries = values(at);
            entries[i] += by;
            f(&Tensor::from_vec(entries, at.shape(), &Device::Cpu).unwrap())
        };
        (moved(step) - moved(-step)) / (2.0 * step)
    };
    for (i, g) in values(&of_input).into_iter().enumerate() {
        let expected = difference(&y, i, &|y| objective(y, &params));
        assert!((g - expected).abs() < 1e-7 * (1.0 + g.abs()), "input {i}: {g} {expected}");
    }
    for (i, g) in values(&of_params).into_iter().enumerate() {
        let expected = difference(&params, i, &|p| objective(&y, p));
        assert!((g - expected).abs() < 1e-7 * (1.0 + g.abs()), "parameter {i}: {g} {expected}");
    }
}

#[test]
fn what_cannot_be_solved_is_an_error_that_names_the_layer() {
    let t = mixture(2);
    let params = shared(&t, 1, 1.0, 8);
    for bad in [f64::NAN, f64::INFINITY] {
        let error = t.decode(&row(&[bad]), &params).unwrap_err();
        let right = matches!(&error, Error::NotInvertible { layer, direction: Direction::Decode, .. } if layer.contains("mixture"));
        assert!(right, "{error}");
    }
    let broken = params.affine(f64::NAN, 0.0).unwrap();
    assert!(matches!(t.decode(&row(&[0.0]), &broken), Err(Error::NotInvertible { .. })));
    assert!(matches!(LogisticMixture::new(0), Err(Error::Config { .. })));
    let error = t.encode(&row(&[0.0, 1.0]), &params).unwrap_err();
    assert!(matches!(&error, Error::Shape { layer, .. } if layer.contains("mixture")), "{error}");
}

#[test]
fn holds_in_several_channels_and_dimensions() {
    check(&mixture(3), &normal(11, &[2, 2, 3]), 1e-8);
    check(&mixture(1), &normal(12, &[2, 3]), 1e-8);
}
