//! Continuous flows against closed forms, finite differences and each other.

use crate::continuous::{
    Jumping, LinearField, Objective, concat, distance, expm, fixed, mlp, normal, scalar, store, values,
};
use candle_core::{DType, Device, Tensor};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{Cnf, CnfConfig, Divergence, EndTime, OdeGradient, Probe, Regularization, VectorField};
use flow_core::distribution::StandardGaussian;
use flow_core::testing::quadrature::total_probability;
use flow_core::testing::randomise;
use flow_core::{Backprop, Bijector, Density, Direction, Flow, FlowRng, Gradients, ParamStore};

fn adaptive(method: Method, tolerance: f64) -> SolveOptions {
    SolveOptions::new(method, Stepping::adaptive(tolerance, tolerance))
}

#[test]
fn a_linear_field_is_a_matrix_exponential_with_its_trace_as_log_determinant() {
    let matrix = [[0.3, -1.2, 0.4], [0.9, -0.5, 0.2], [0.1, 0.6, 0.8]];
    for end in [0.7, 2.0] {
        let store = store(1);
        let field = LinearField::new(&store.root(), &matrix);
        let config = CnfConfig::new(adaptive(Method::Dopri5, 1e-9)).end_time(EndTime::Fixed(end));
        let cnf = Cnf::new(&store.root(), field, config).unwrap();
        let _paused = store.no_grad();
        let x = normal(1, &[5, 3]);
        let trace = end * (0.3 - 0.5 + 0.8);
        for (direction, sign) in [(Direction::Encode, 1.0), (Direction::Decode, -1.0)] {
            let (z, log_det) = match direction {
                Direction::Encode => cnf.encode(&x, None).unwrap(),
                Direction::Decode => cnf.decode(&x, None).unwrap(),
            };
            assert!(values(&log_det).iter().all(|l| (l - sign * trace).abs() < 1e-6), "{log_det}");
            let expected = x.matmul(&expm(&matrix, sign * end).t().unwrap()).unwrap();
            assert!(distance(&z, &expected) < 1e-6, "off by {}", distance(&z, &expected));
        }
    }
}

#[test]
fn densities_add_up_to_one() {
    for seed in 0..2 {
        let store = store(seed);
        let config = CnfConfig::new(adaptive(Method::Dopri5, 1e-6));
        let cnf = Cnf::new(&store.root(), concat(&store, 2, None), config).unwrap();
        let flow = Flow::new(&store, cnf, StandardGaussian::new(&[2], DType::F64, &Device::Cpu)).unwrap();
        randomise(&store, 0.4, &mut FlowRng::seed_from(seed)).unwrap();
        let total = total_probability(&flow, None, [-10.0, 10.0], 200).unwrap();
        assert!((total - 1.0).abs() < 1e-3, "∫ p = {total} with seed {seed}");
        // The map is far from the identity, whose integral would be one as well.
        let _paused = store.no_grad();
        let (z, log_det) = flow.bijector().encode(&normal(3, &[50, 2]), None).unwrap();
        assert!(distance(&z, &normal(3, &[50, 2])) > 0.3 && values(&log_det).iter().any(|l| l.abs() > 0.3));
    }
}

/// The mean over many probes is the exact trace, on neither side of it.
#[test]
fn the_stochastic_divergence_is_unbiased() {
    const PROBES: usize = 20_000;
    let log_dets = |divergence: Divergence, rows: usize| {
        let store = store(3);
        let config = CnfConfig::new(fixed(Method::Rk4, 3)).divergence(divergence);
        let cnf = Cnf::new(&store.root(), concat(&store, 3, None), config).unwrap();
        randomise(&store, 0.5, &mut FlowRng::seed_from(3)).unwrap();
        let _paused = store.no_grad();
        let x = normal(4, &[1, 3]).broadcast_as((rows, 3)).unwrap().contiguous().unwrap();
        values(&cnf.encode(&x, None).unwrap().1)
    };
    let exact = log_dets(Divergence::Exact, 1)[0];
    let mut deviations = Vec::new();
    for probe in [Probe::Gaussian, Probe::Rademacher] {
        let estimates = log_dets(Divergence::Hutchinson(probe), PROBES);
        let n = PROBES as f64;
        let mean = estimates.iter().sum::<f64>() / n;
        let deviation = (estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let error = deviation / n.sqrt();
        assert!((mean - exact).abs() < 4.0 * error, "{probe:?}: {mean} ± {error} against {exact}");
        // Tight enough to tell the trace from zero, and not exact by accident.
        assert!(error > 1e-5 && 20.0 * error < exact.abs(), "{probe:?}: {mean} ± {error}");
        deviations.push(deviation);
    }
    assert!(deviations[1] < deviations[0], "Rademacher probes have the smaller variance: {deviations:?}");
}

#[test]
fn round_trips_are_as_good_as_the_tolerance() {
    let store = store(5);
    let x = normal(6, &[20, 2]);
    let mut errors = Vec::new();
    for (i, tolerance) in [1e-4, 1e-6, 1e-8].into_iter().enumerate() {
        let config = CnfConfig::new(adaptive(Method::Dopri5, tolerance));
        let path = store.root().pp(i);
        let cnf = Cnf::new(&path, mlp(&path, 2, None), config).unwrap();
        let _paused = store.no_grad();
        for param in store.trainable() {
            // The same weights for each of the three, whose names differ.
            let name = param.name().trim_start_matches(char::is_numeric);
            let value = FlowRng::named(0, name).normal(param.var().shape(), DType::F64, &Device::Cpu).unwrap();
            param.set(&value.affine(0.7, 0.0).unwrap()).unwrap();
        }
        let (z, forward) = cnf.encode(&x, None).unwrap();
        let (back, backward) = cnf.decode(&z, None).unwrap();
        let error = distance(&back, &x).max(distance(&forward, &backward.neg().unwrap()));
        assert!(error <= 100.0 * tolerance, "{error:e} at {tolerance:e}");
        errors.push(error);
    }
    assert!(errors[1] < errors[0] / 10.0 && errors[2] < errors[1] / 10.0, "{errors:?}");
}

/// Every way to configure a flow over two groups of three points with a context, as the gradients see it.
fn configurations() -> Vec<CnfConfig> {
    let base = CnfConfig::default().end_time(EndTime::Learned { initial: 0.6 });
    let regularization = Regularization::new(0.3, 0.2);
    let hutchinson = Divergence::Hutchinson(Probe::Gaussian);
    let mut configs: Vec<CnfConfig> =
        [Method::Euler, Method::Midpoint, Method::Heun, Method::Rk4, Method::Bosh3, Method::Dopri5, Method::Tsit5]
            .into_iter()
            .chain([Method::Dopri8])
            .map(|method| base.clone().solver(fixed(method, 2)))
            .collect();
    let loose = adaptive(Method::Dopri5, 1e-3);
    configs.push(base.clone().solver(loose.clone()).divergence(hutchinson));
    configs.push(base.clone().solver(loose.clone()).regularization(regularization));
    configs.push(base.clone().solver(loose.clone()).per_group_steps(true).regularization(regularization));
    configs.push(base.solver(loose).per_group_steps(true).divergence(hutchinson));
    configs
}

#[test]
fn recomputed_gradients_are_those_of_one_graph() {
    for config in configurations() {
        let objective = Objective::new(config.clone());
        let (plain, direct) = (objective.plain(), objective.backprop());
        let worst = plain.distance(&direct);
        assert!(worst < 1e-10, "off by {worst:e}: {config:?}");
        assert!(plain.norm() > 0.1);
    }
}

/// Of the log-determinant without its penalties and with them.
#[test]
fn recomputed_gradients_are_the_numerical_ones() {
    let solver = fixed(Method::Bosh3, 2);
    let base = CnfConfig::new(solver).end_time(EndTime::Learned { initial: 0.6 });
    let hutchinson = Divergence::Hutchinson(Probe::Rademacher);
    let penalised = Regularization::new(0.3, 0.2);
    for config in [
        base.clone(),
        base.clone().per_group_steps(true).divergence(hutchinson),
        base.clone().regularization(penalised),
        base.regularization(penalised).divergence(hutchinson),
    ] {
        let objective = Objective::new(config.clone());
        let worst = objective.differs_from_numerical(&objective.backprop());
        assert!(worst < 1e-6, "off by {worst:e}: {config:?}");
    }
}

#[test]
fn the_adjoint_tends_to_the_recomputed_gradient() {
    let solver = adaptive(Method::Dopri5, 1e-8);
    let regularization = Regularization::new(0.1, 0.1);
    let direct = CnfConfig::new(solver).end_time(EndTime::Learned { initial: 0.6 }).regularization(regularization);
    let exact = Objective::new(direct.clone()).backprop();
    let mut evaluations = Vec::new();
    for seminorm in [false, true] {
        let config = direct.clone().gradient(OdeGradient::Adjoint { solver: None, seminorm });
        let objective = Objective::new(config);
        let worst = exact.distance(&objective.backprop());
        assert!(worst < 1e-5, "off by {worst:e}, seminorm {seminorm}");
        evaluations.push(objective.cnf.adjoint_statistics().evaluations);
    }
    assert!(evaluations[1] < evaluations[0], "the seminorm saves evaluations: {evaluations:?}");
}

/// A group's value, gradient and step count do not depend on what else is in the batch.
#[test]
fn groups_with_their_own_steps_do_not_see_each_other() {
    let config = CnfConfig::new(adaptive(Method::Dopri5, 1e-5)).per_group_steps(true);
    let store = store(7);
    let cnf = Cnf::new(&store.root(), mlp(&store.root(), 2, Some(2)), config).unwrap();
    randomise(&store, 0.5, &mut FlowRng::seed_from(7)).unwrap();
    let (x, grad_z, grad_log_det) = (normal(1, &[9, 2]), normal(2, &[9, 2]), normal(3, &[9]));
    // The last group moves faster than the others.
    let context = Tensor::new(&[[0.1, 0.2], [-0.3, 0.1], [9.0, -7.0]], &Device::Cpu).unwrap();
    let run = |x: &Tensor, context: &Tensor, grad_z: &Tensor, grad_log_det: &Tensor| {
        let (z, log_det, tape) = {
            let _paused = store.no_grad();
            cnf.encode_taped(x, Some(context)).unwrap()
        };
        let mut gradients = Gradients::new(&store);
        let back = cnf.backprop(&z, &tape, Some(context), grad_z, grad_log_det, &mut gradients).unwrap();
        (z, log_det, back, gradients, cnf.group_statistics())
    };
    let (z, log_det, back, whole, statistics) = run(&x, &context, &grad_z, &grad_log_det);
    let evaluations: Vec<_> = statistics.iter().map(|s| s.evaluations).collect();
    assert!(evaluations.iter().any(|e| *e != evaluations[0]), "the groups are equally hard: {evaluations:?}");
    let mut sum = Gradients::new(&store);
    for (g, of_group) in statistics.iter().enumerate() {
        let rows = |t: &Tensor| t.narrow(0, 3 * g, 3).unwrap();
        let one = context.narrow(0, g, 1).unwrap();
        let (z1, log_det1, back1, part, alone) = run(&rows(&x), &one, &rows(&grad_z), &rows(&grad_log_det));
        assert_eq!((alone[0].accepted, alone[0].rejected), (of_group.accepted, of_group.rejected));
        let apart = distance(&z1, &rows(&z)).max(distance(&log_det1, &rows(&log_det)));
        assert!(apart < 1e-12, "group {g} is off by {apart:e}");
        assert!(distance(&back1.grad_x, &rows(&back.grad_x)) < 1e-11);
        let grad_context = back.grad_context.as_ref().unwrap().narrow(0, g, 1).unwrap();
        assert!(distance(&back1.grad_context.unwrap(), &grad_context) < 1e-11);
        sum.merge(&part).unwrap();
    }
    for ((param, a), (_, b)) in whole.iter().zip(sum.iter()) {
        assert!(distance(a.unwrap(), b.unwrap()) < 1e-10, "{}", param.name());
    }
}

#[test]
fn both_directions_share_a_probe_until_new_noise_is_set() {
    for probe in [Probe::Gaussian, Probe::Rademacher] {
        let store = store(8);
        let config = CnfConfig::new(fixed(Method::Dopri8, 4)).divergence(Divergence::Hutchinson(probe));
        let cnf = Cnf::new(&store.root(), concat(&store, 4, None), config).unwrap();
        let _paused = store.no_grad();
        let x = normal(1, &[6, 4]);
        let encode = |cnf: &dyn Bijector| cnf.encode(&x, None).unwrap();
        let (z, first) = encode(&cnf);
        let backward = cnf.decode(&z, None).unwrap().1;
        assert!(distance(&first, &backward.neg().unwrap()) < 1e-7);
        let (mut rng, mut resumed) = (FlowRng::seed_from(5), FlowRng::seed_from(5));
        cnf.set_noise(&mut rng);
        let second = encode(&cnf).1;
        assert!(distance(&first, &second) > 1e-3, "new noise gives another estimate");
        // A combinator hands the noise on, and the same generator gives the same bits.
        let inverse = flow_core::Inverse(cnf);
        let chain = flow_core::Chain::new(vec![Box::new(inverse)]).unwrap();
        chain.set_noise(&mut resumed);
        assert_eq!(rng, resumed);
        assert_eq!(values(&chain.decode(&x, None).unwrap().1), values(&second));
    }
}

#[test]
fn a_penalty_changes_the_gradient_and_not_the_value() {
    let value = |regularization: Regularization| {
        let config = CnfConfig::new(fixed(Method::Rk4, 4)).regularization(regularization);
        let objective = Objective::new(config);
        let penalties = objective.cnf.penalties(&objective.x, objective.context.as_ref()).unwrap();
        (values(&objective.encode().1), objective.plain(), values(&penalties.kinetic), values(&penalties.jacobian))
    };
    let (bare, gradient, kinetic, jacobian) = value(Regularization::default());
    let (same, other, _, _) = value(Regularization::new(1.0, 1.0));
    assert_eq!(bare, same);
    assert!(gradient.distance(&other) > 1e-3);
    assert!(kinetic.iter().chain(&jacobian).all(|p| *p > 0.0));
}

/// Of a linear field `K = ∫ |Ax|²/D dt` and `J = T |A|²/D` in the Frobenius norm.
#[test]
fn penalties_of_a_linear_field_are_known() {
    let store = store(1);
    let (rate, end) = (0.8, 1.5);
    let field = LinearField::new(&store.root(), &[[rate, 0.0], [0.0, -rate]]);
    let config = CnfConfig::new(adaptive(Method::Dopri5, 1e-10)).end_time(EndTime::Fixed(end));
    let cnf = Cnf::new(&store.root(), field, config).unwrap();
    let _paused = store.no_grad();
    let x = Tensor::new(&[[2.0, 0.0], [0.0, 3.0]], &Device::Cpu).unwrap();
    let penalties = cnf.penalties(&x, None).unwrap();
    let integral = |start: f64, a: f64| (a * start).powi(2) * ((2.0 * a * end).exp() - 1.0) / (2.0 * a) / 2.0;
    let kinetic = [integral(2.0, rate), integral(3.0, -rate)];
    assert!(values(&penalties.kinetic).iter().zip(kinetic).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(values(&penalties.jacobian).iter().all(|j| (j - end * rate * rate).abs() < 1e-6));
}

/// Data at ±4 flow along `-x` to a standard normal latent: the likelihood is greatest at `T = ln 4`.
#[test]
fn the_end_time_is_learned() {
    for mode in [Backprop::Reversible, Backprop::Plain] {
        let store = store(1);
        let field = LinearField::constant(&[[-1.0]]);
        let end_time = EndTime::Learned { initial: 0.5 };
        let config = CnfConfig::new(fixed(Method::Rk4, 12)).end_time(end_time);
        let cnf = Cnf::new(&store.root(), field, config).unwrap();
        let flow = Flow::new(&store, cnf, StandardGaussian::new(&[1], DType::F64, &Device::Cpu)).unwrap();
        let x = Tensor::new(&[[4.0], [-4.0]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[-0.5, -0.5], &Device::Cpu).unwrap();
        let root = store.get("sqrt_end_time").unwrap();
        for _ in 0..60 {
            let mut gradients = Gradients::new(&store);
            flow.log_prob_backward(&x, None, &weight, mode, &mut gradients).unwrap();
            let step = gradients.get(&root).unwrap().clamp(-1.0, 1.0).unwrap().affine(0.1, 0.0).unwrap();
            root.set(&(root.var().as_tensor() - step).unwrap()).unwrap();
        }
        let end = flow.bijector().end_time().unwrap();
        assert!((end - 4.0_f64.ln()).abs() < 1e-3, "T = {end}");
    }
}

#[test]
fn a_trajectory_leads_from_one_end_to_the_other() {
    let store = store(2);
    let config = CnfConfig::new(adaptive(Method::Dopri5, 1e-8)).end_time(EndTime::Fixed(0.8));
    let cnf = Cnf::new(&store.root(), concat(&store, 2, None), config).unwrap();
    let _paused = store.no_grad();
    let x = normal(1, &[3, 2]);
    let z = cnf.encode(&x, None).unwrap().0;
    let path = cnf.trajectory(&x, &[0.0, 0.2, 0.5, 0.8], Direction::Encode, None).unwrap();
    assert!(path.len() == 4 && distance(&path[0], &x) == 0.0);
    assert!(distance(&path[3], &z) < 1e-6);
    let back = cnf.trajectory(&z, &[0.5, 0.2], Direction::Decode, None).unwrap();
    assert!(distance(&back[0], &path[2]) < 1e-6 && distance(&back[1], &path[1]) < 1e-6);
    assert!(distance(&path[1], &path[2]) > 1e-3);
    for wrong in [[0.5, 0.2], [0.0, 0.9]] {
        let message = cnf.trajectory(&x, &wrong, Direction::Encode, None).unwrap_err().to_string();
        assert!(message.contains("cnf(concat) times"), "{message}");
    }
}

/// A field that jumps at a known time: values, inverse and gradients are those of the two sides, in either precision.
#[test]
fn a_field_may_jump_at_a_known_time() {
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-5)] {
        for (end_time, jump) in [(1.0, 0.5), (1.0, 0.1), (0.7, 0.3)] {
            for learned in [false, true] {
                let store = ParamStore::new(1, dtype, &Device::Cpu);
                let rate = |name: &str, value: f64| {
                    let value = Tensor::full(value, 1, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                    store.root().param_from(name, &value).unwrap()
                };
                let field = Jumping { before: rate("before", 0.8), after: rate("after", -1.5), jump };
                let solver = fixed(Method::Dopri8, 12).jump_times(vec![jump]);
                let end = if learned { EndTime::Learned { initial: end_time } } else { EndTime::Fixed(end_time) };
                let config = CnfConfig::new(solver).end_time(end);
                let cnf = Cnf::new(&store.root(), field, config).unwrap();
                let x = normal(3, &[4, 2]).to_dtype(dtype).unwrap();
                let (z, log_det, tape) = {
                    let _paused = store.no_grad();
                    cnf.encode_taped(&x, None).unwrap()
                };
                let exact = 2.0 * (0.8 * jump - 1.5 * (end_time - jump));
                let wide = |t: &Tensor| values(&t.to_dtype(DType::F64).unwrap());
                let what = format!("{dtype:?}, T = {end_time}, jump {jump}, learned {learned}");
                assert!(wide(&log_det).iter().all(|v| (v - exact).abs() < tolerance), "{what}: {log_det} for {exact}");
                let back = cnf.decode(&z, None).unwrap();
                let error = wide(&(back.0 - &x).unwrap()).into_iter().fold(0.0, |a, b| b.abs().max(a));
                assert!(error < tolerance, "{what}: {error}");
                assert!(wide(&back.1).iter().all(|v| (v + exact).abs() < tolerance), "{what}: {}", back.1);
                // The gradient of the log-determinants' sum: 4 rows · 2 entries · the time on each side.
                let mut gradients = Gradients::new(&store);
                let (zeros, ones) = (z.zeros_like().unwrap(), log_det.ones_like().unwrap());
                cnf.backprop(&z, &tape, None, &zeros, &ones, &mut gradients).unwrap();
                let Jumping { before, after, .. } = cnf.field();
                for (rate, expected) in [(before, 8.0 * jump), (after, 8.0 * (end_time - jump))] {
                    let found = wide(gradients.get(rate).unwrap())[0];
                    assert!((found - expected).abs() < 10.0 * tolerance, "{what}: {found} for {expected}");
                }
            }
        }
    }
}

/// Times and steps of the options are in units of `t`: the same steps whether `T` is 1 or 2.
#[test]
fn options_are_in_units_of_time() {
    let evaluations = |end: f64, step: f64| {
        let store = store(2);
        let mut solver = adaptive(Method::Dopri5, 1e-2);
        if let Stepping::Adaptive { max_step, first_step, .. } = &mut solver.stepping {
            (*max_step, *first_step) = (Some(step), Some(step));
        }
        let config = CnfConfig::new(solver).end_time(EndTime::Fixed(end));
        let cnf = Cnf::new(&store.root(), LinearField::constant(&[[-0.1]]), config).unwrap();
        let _paused = store.no_grad();
        cnf.encode(&normal(1, &[2, 1]), None).unwrap();
        cnf.statistics().accepted
    };
    assert_eq!((evaluations(1.0, 0.25), evaluations(2.0, 0.25), evaluations(2.0, 0.5)), (4, 8, 4));
}

#[test]
fn a_configuration_survives_being_written_and_refuses_what_it_does_not_know() {
    for config in configurations() {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<CnfConfig>(&text).unwrap(), config);
    }
    assert_eq!(serde_json::from_str::<CnfConfig>("{}").unwrap(), CnfConfig::default());
    assert!(serde_json::from_str::<CnfConfig>(r#"{"divergance": "exact"}"#).is_err());
    let refused = |config: CnfConfig| {
        let store: ParamStore = store(1);
        Cnf::new(&store.root(), concat(&store, 2, None), config).err().unwrap().to_string()
    };
    let end_time = EndTime::Learned { initial: 0.0 };
    assert!(refused(CnfConfig::default().end_time(end_time)).contains("cnf(concat) end time"));
    let regularization = Regularization::new(-1.0, 0.0);
    assert!(refused(CnfConfig::default().regularization(regularization)).contains("kinetic"));
    assert_eq!(scalar(&Tensor::new(1.0, &Device::Cpu).unwrap()), 1.0);
    assert_eq!(concat(&store(1), 2, None).name(), "concat");
}
