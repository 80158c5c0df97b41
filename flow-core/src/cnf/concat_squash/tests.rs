use super::*;
use crate::autodiff::pair;
use crate::testing::numbers::relative;
use crate::{FlowRng, ParamStore};
use candle_core::{DType, Device, Var};

struct Case {
    dim: usize,
    hidden: Vec<usize>,
    context: Option<usize>,
    groups: usize,
    times: usize,
    per_group: usize,
    embedding: Option<EmbeddingConfig>,
    gate: Gate,
}

fn case(dim: usize, hidden: &[usize], context: Option<usize>, groups: usize, times: usize, per_group: usize) -> Case {
    Case { dim, hidden: hidden.to_vec(), context, groups, times, per_group, embedding: None, gate: Gate::Sigmoid }
}

fn embedded(case: Case, widths: &[usize], frequencies: usize) -> Case {
    Case { embedding: Some(EmbeddingConfig { widths: widths.to_vec(), frequencies }), gate: Gate::Linear, ..case }
}

/// Sizes that exercise every border: one row, one group, odd widths, several blocks and chunks, a group per row.
fn cases() -> Vec<Case> {
    vec![
        case(1, &[1], None, 1, 1, 1),
        case(2, &[7], None, 3, 3, 5),
        case(3, &[16, 33], Some(4), 2, 1, 9),
        case(3, &[40, 40, 40], Some(2), 3, 3, 301),
        case(5, &[20], Some(1), 1, 1, 700),
        case(2, &[9, 70], None, 257, 257, 1),
        embedded(case(3, &[12, 20], Some(4), 5, 1, 40), &[10, 6], 3),
        embedded(case(2, &[8], None, 3, 3, 4), &[5], 0),
        Case { gate: Gate::Linear, ..case(3, &[16, 33], Some(4), 2, 1, 9) },
    ]
}

struct Setting {
    store: ParamStore,
    field: ConcatSquash,
    x: Var,
    t: Var,
    context: Option<Var>,
    tangents: Vec<Tensor>,
    cotangents: Vec<Tensor>,
}

fn setting(case: &Case, activation: FieldActivation, dtype: DType, tangents: usize) -> Setting {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let embedding = case.embedding.clone();
    let config = ConcatSquashConfig { activation, gate: case.gate, embedding, ..ConcatSquashConfig::new(&case.hidden) };
    let field = ConcatSquash::new(&store.root(), case.dim, case.context, &config).unwrap();
    let mut rng = FlowRng::seed_from(8);
    let rows = case.groups * case.per_group;
    let mut draw = |shape: &[usize]| rng.normal(shape, dtype, &Device::Cpu).unwrap();
    let x = Var::from_tensor(&draw(&[rows, case.dim])).unwrap();
    let t = Var::from_tensor(&draw(&[case.times])).unwrap();
    let context = case.context.map(|c| Var::from_tensor(&draw(&[case.groups, c])).unwrap());
    let tangents = (0..tangents).map(|_| draw(&[rows, case.dim])).collect::<Vec<_>>();
    let cotangents = (0..=tangents.len()).map(|_| draw(&[rows, case.dim])).collect();
    Setting { store, field, x, t, context, tangents, cotangents }
}

fn objective(s: &Setting, (value, dots): &(Tensor, Vec<Tensor>)) -> Tensor {
    let mut sum = pair(value, &s.cotangents[0]).unwrap();
    for (d, c) in dots.iter().zip(&s.cotangents[1..]) {
        sum = (sum + pair(d, c).unwrap()).unwrap();
    }
    sum
}

#[test]
fn fused_equals_composed_values_tangents_and_gradients() {
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-3)] {
        for activation in [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish] {
            for (case, tangents) in cases().iter().flat_map(|c| [(c, 0), (c, 1), (c, c.dim)]) {
                let s = setting(case, activation, dtype, tangents);
                let context = s.context.as_ref().map(Var::as_tensor);
                let spec = s.field.composed(&s.t, &s.x, &s.tangents, context).unwrap();
                let fused = s.field.jvp(&s.t, &s.x, &s.tangents, context).unwrap();
                assert!(relative(&fused.0, &spec.0) < tolerance);
                assert!(relative(&s.field.value(&s.t, &s.x, context).unwrap(), &spec.0) < tolerance);
                assert!(fused.1.iter().zip(&spec.1).all(|(a, b)| relative(a, b) < tolerance));
                let wanted = objective(&s, &spec).backward().unwrap();
                let got = objective(&s, &fused).backward().unwrap();
                let check = |var: &Var, name: &str| {
                    let error = relative(got.get(var).unwrap(), wanted.get(var).unwrap());
                    assert!(error < tolerance, "{activation:?} {dtype:?} {tangents} tangents, {name}: {error}");
                };
                check(&s.x, "x");
                check(&s.t, "t");
                s.context.iter().for_each(|c| check(c, "context"));
                s.store.trainable().iter().for_each(|p| check(p.var(), p.name()));
            }
        }
    }
}

/// The scalars that are computed together with their gradients, times three, against the definition.
#[test]
fn one_sweep_gives_the_objective_and_its_gradient() {
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-3)] {
        for activation in [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish] {
            for (case, tangents) in cases().iter().flat_map(|c| [(c, 0), (c, 1), (c, c.dim)]) {
                let s = setting(case, activation, dtype, tangents);
                let context = s.context.as_ref().map(Var::as_tensor);
                let spec = s.field.composed(&s.t, &s.x, &s.tangents, context).unwrap();
                let (paired, value) = s.field.pairing(&s.t, &s.x, &s.tangents, context, &s.cotangents).unwrap();
                assert!(relative(&value, &spec.0) < tolerance && !value.track_op());
                agree(&s, &paired, &objective(&s, &spec), tolerance);
                let error = s.field.squared_error(&s.t, &s.x, context, &s.cotangents[0]).unwrap();
                let wanted = (&spec.0 - &s.cotangents[0]).unwrap().sqr().unwrap().sum_all().unwrap();
                agree(&s, &error, &wanted, tolerance);
                let _paused = s.store.no_grad();
                let x = s.x.detach();
                let (t, context) = (s.t.detach(), context.map(Tensor::detach));
                let (untracked, _) = s.field.pairing(&t, &x, &s.tangents, context.as_ref(), &s.cotangents).unwrap();
                assert!(relative(&untracked, &paired.detach()) < tolerance && !untracked.track_op());
            }
        }
    }
}

fn agree(s: &Setting, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    assert!(relative(got, wanted) < tolerance, "{got} {wanted}");
    let (got, wanted) = ((got * 3.0).unwrap().backward().unwrap(), (wanted * 3.0).unwrap().backward().unwrap());
    let check = |var: &Var, name: &str| {
        let error = relative(got.get(var).unwrap(), wanted.get(var).unwrap());
        assert!(error < tolerance, "{name}: {error}");
    };
    check(&s.x, "x");
    check(&s.t, "t");
    s.context.iter().for_each(|c| check(c, "context"));
    s.store.trainable().iter().for_each(|p| check(p.var(), p.name()));
}

#[test]
fn tangents_and_gradients_of_the_divergence_are_those_of_finite_differences() {
    for activation in [FieldActivation::Tanh, FieldActivation::Softplus, FieldActivation::Swish] {
        let s = setting(&case(2, &[6, 5], Some(3), 2, 2, 3), activation, DType::F64, 2);
        let context = s.context.as_ref().map(Var::as_tensor);
        // Tangents.
        let step = 1e-5;
        let value = |x: &Tensor| s.field.value(&s.t, x, context).unwrap().detach();
        let along = (&s.tangents[0] * step).unwrap();
        let numeric =
            (value(&(s.x.as_tensor() + &along).unwrap()) - value(&(s.x.as_tensor() - &along).unwrap())).unwrap();
        let numeric = (numeric / (2.0 * step)).unwrap();
        let (_, dots) = s.field.jvp(&s.t, &s.x, &s.tangents, context).unwrap();
        assert!(relative(&dots[0], &numeric) < 1e-8, "{activation:?}");
        // Gradients of a weighted divergence.
        let weight = s.cotangents[0].narrow(1, 0, 1).unwrap().squeeze(1).unwrap();
        let objective = || {
            let (_, divergence) = s.field.divergence(&s.t, &s.x, &s.tangents, context).unwrap();
            pair(&divergence, &weight).unwrap()
        };
        let gradients = objective().backward().unwrap();
        let params = s.store.trainable();
        let vars = params.iter().map(|p| p.var()).chain([&s.x, &s.t]).chain(s.context.as_ref());
        for var in vars {
            let analytic: Vec<f64> = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let old: Vec<f64> = var.flatten_all().unwrap().to_vec1().unwrap();
            for k in (0..old.len()).step_by(old.len().div_ceil(4)) {
                let at = |by: f64| {
                    let mut v = old.clone();
                    v[k] += by;
                    var.set(&Tensor::from_vec(v, var.shape(), &Device::Cpu).unwrap()).unwrap();
                    objective().to_scalar::<f64>().unwrap()
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                at(0.0);
                assert!(
                    (slope - analytic[k]).abs() < 1e-6 * (1.0 + slope.abs()),
                    "{activation:?} {slope} {}",
                    analytic[k]
                );
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let s = setting(&case(3, &[32, 32], Some(4), 4, 1, 500), FieldActivation::Tanh, DType::F32, 3);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let context = s.context.as_ref().map(Var::as_tensor);
            let out = s.field.jvp(&s.t, &s.x, &s.tangents, context).unwrap();
            let gradients = objective(&s, &out).backward().unwrap();
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut all = flat(&out.0);
            s.store.trainable().iter().for_each(|p| all.extend(flat(gradients.get(p.var()).unwrap())));
            all
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn not_a_number_stays_one() {
    let s = setting(&case(2, &[8], None, 1, 1, 4), FieldActivation::Tanh, DType::F32, 1);
    let x = Tensor::new(&[[f32::NAN, 0.0], [0.0, 0.0]], &Device::Cpu).unwrap();
    let t = Tensor::new(&[0.0_f32], &Device::Cpu).unwrap();
    let value = s.field.value(&t, &x, None).unwrap().to_vec2::<f32>().unwrap();
    assert!(value[0].iter().all(|v| v.is_nan()) && value[1].iter().all(|v| v.is_finite()));
}

#[test]
fn the_papers_networks_have_this_many_parameters() {
    let count = |dim, context, hidden: &[usize]| {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        ConcatSquash::new(&store.root(), dim, context, &ConcatSquashConfig::new(hidden)).unwrap();
        store.parameter_count()
    };
    // With the end time, and gains and offsets of two normalizations: 927,513 and 134,145.
    assert_eq!(count(3, Some(128), &[512, 512, 512]) + 1 + 4 * 3, 927_513);
    assert_eq!(count(128, None, &[256, 256]) + 1 + 4 * 128, 134_145);
}

#[test]
fn no_rows_are_no_division() {
    let s = setting(&case(3, &[4, 4], Some(2), 2, 1, 0), FieldActivation::Tanh, DType::F32, 1);
    let x = s.x.as_tensor();
    assert_eq!(x.dims(), [0, 3]);
    let context = s.context.as_ref().map(Var::as_tensor);
    let (value, dots) = s.field.jvp(&s.t, x, &s.tangents, context).unwrap();
    assert!(value.dims() == [0, 3] && dots[0].dims() == [0, 3]);
    assert_eq!(s.field.value(&s.t, x, context).unwrap().dims(), [0, 3]);
    let (paired, value) = s.field.pairing(&s.t, x, &s.tangents, context, &s.cotangents).unwrap();
    assert!(value.dims() == [0, 3] && paired.to_scalar::<f32>().unwrap() == 0.0);
    assert_eq!(s.field.squared_error(&s.t, x, context, x).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn the_gain_is_of_the_first_layer_alone() {
    let weights = |input_gain: f64| {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let config = ConcatSquashConfig { input_gain, ..ConcatSquashConfig::new(&[5, 4]) };
        ConcatSquash::new(&store.root(), 2, Some(3), &config).map(|_| store)
    };
    let (plain, wide) = (weights(1.0).unwrap(), weights(8.0).unwrap());
    for param in plain.all() {
        let name = param.name();
        let factor = if ["layer0.weight", "layer0.bias"].contains(&name) { 8.0 } else { 1.0 };
        let [a, b] = [param.tensor(), wide.get(name).unwrap().tensor()].map(|t| t.flatten_all().unwrap());
        let [a, b] = [a, b].map(|t| t.to_vec1::<f64>().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (factor * a - b).abs() < 1e-12), "{name}");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(weights(bad).unwrap_err().to_string().contains("input_gain"), "{bad}");
    }
}

#[test]
fn a_linear_gate_is_one_plus_a_linear_map() {
    let store = ParamStore::new(4, DType::F64, &Device::Cpu);
    let config = ConcatSquashConfig { gate: Gate::Linear, ..ConcatSquashConfig::new(&[1]) };
    let field = ConcatSquash::new(&store.root(), 1, None, &config).unwrap();
    let (t, x) = (0.7, -1.3);
    let number = |layer: usize, name: &str| {
        let tensor = store.get(&format!("layer{layer}.{name}")).unwrap().tensor().flatten_all().unwrap();
        tensor.to_vec1::<f64>().unwrap()[0]
    };
    let layer = |i: usize, h: f64| {
        let gate = 1.0 + number(i, "gate.weight") * t + number(i, "gate.bias");
        (number(i, "weight") * h + number(i, "bias")) * gate + number(i, "shift.weight") * t
    };
    let tensor = |v: f64, shape: &[usize]| Tensor::from_vec(vec![v], shape, &Device::Cpu).unwrap();
    let found = field.value(&tensor(t, &[1]), &tensor(x, &[1, 1]), None).unwrap();
    assert!((found.sum_all().unwrap().to_scalar::<f64>().unwrap() - layer(1, layer(0, x).tanh())).abs() < 1e-12);
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["gate"], "linear");
    let older = serde_json::json!({ "hidden": [1] });
    assert_eq!(serde_json::from_value::<ConcatSquashConfig>(older).unwrap(), ConcatSquashConfig::new(&[1]));
}

#[test]
fn an_embedding_is_a_perceptron_of_harmonics_and_context() {
    let store = ParamStore::new(5, DType::F64, &Device::Cpu);
    let config = EmbeddingConfig { widths: vec![4, 3], frequencies: 2 };
    let embedding = Embedding::new(&store.root(), 2, &config).unwrap();
    let (time, context) = (0.3_f64, [0.7, -1.2]);
    let tensor = |v: &[f64]| Tensor::from_vec(v.to_vec(), (1, v.len()), &Device::Cpu).unwrap();
    let found = embedding.forward(&tensor(&[time]), Some(&tensor(&context))).unwrap().to_vec2::<f64>().unwrap();
    let angle = std::f64::consts::PI * time;
    let mut h = vec![time, angle.sin(), angle.cos(), (2.0 * angle).sin(), (2.0 * angle).cos(), context[0], context[1]];
    for (layer, width) in [(0, 4), (1, 3)] {
        let get = |name: &str| store.get(&format!("layer{layer}.{name}")).unwrap().tensor();
        let (weight, bias) = (get("weight").to_vec2::<f64>().unwrap(), get("bias").to_vec1::<f64>().unwrap());
        let linear = |o: usize| bias[o] + h.iter().zip(&weight).map(|(x, row)| x * row[o]).sum::<f64>();
        h = (0..width).map(linear).map(|u| u / (1.0 + (-u).exp())).collect();
    }
    assert!(h.iter().zip(&found[0]).all(|(a, b)| (a - b).abs() < 1e-12), "{h:?} {found:?}");
    for widths in [vec![], vec![4, 0]] {
        let error = Embedding::new(&store.root(), 2, &EmbeddingConfig { widths, frequencies: 2 }).unwrap_err();
        assert!(error.to_string().contains("embedding"), "{error}");
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let s = setting(&case(3, &[4], Some(2), 2, 1, 3), FieldActivation::Tanh, DType::F32, 0);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (x, t, c) = (zeros(&[6, 3]), zeros(&[1]), zeros(&[2, 2]));
    for (t, x, c) in [
        (zeros(&[1]), zeros(&[6, 2]), Some(c.clone())),
        (zeros(&[4]), x.clone(), Some(c.clone())),
        (zeros(&[3]), x.clone(), Some(c.clone())),
        (t.clone(), x.clone(), Some(zeros(&[4, 2]))),
        (t.clone(), x.clone(), Some(zeros(&[2, 3]))),
        (t.clone(), x.clone(), None),
        (zeros(&[1, 1]), x.clone(), Some(c.clone())),
    ] {
        let message = s.field.value(&t, &x, c.as_ref()).unwrap_err().to_string();
        assert!(message.contains("concat-squash"), "{message}");
    }
    assert!(s.field.jvp(&t, &x, &[zeros(&[6, 2])], Some(&c)).is_err());
}

#[test]
#[ignore = "timing: cargo test --release -p flow-core --lib concat_squash -- --ignored --nocapture"]
fn speed() {
    let case = case(3, &[512, 512, 512], Some(128), 16, 1, 2048);
    for tangents in [0, 1, 3] {
        let s = setting(&case, FieldActivation::Tanh, DType::F32, tangents);
        let context = s.context.as_ref().map(Var::as_tensor);
        let [mut forward, mut backward, mut sweep] = [f64::INFINITY; 3];
        for _ in 0..4 {
            let begun = std::time::Instant::now();
            let out = s.field.jvp(&s.t, &s.x, &s.tangents, context).unwrap();
            forward = forward.min(begun.elapsed().as_secs_f64());
            let objective = objective(&s, &out);
            let begun = std::time::Instant::now();
            objective.backward().unwrap();
            backward = backward.min(begun.elapsed().as_secs_f64());
            let begun = std::time::Instant::now();
            s.field.pairing(&s.t, &s.x, &s.tangents, context, &s.cotangents).unwrap().0.backward().unwrap();
            sweep = sweep.min(begun.elapsed().as_secs_f64());
        }
        let gflop = 2e-9 * 32_768.0 * 527_360.0 * (tangents + 1) as f64;
        println!(
            "{tangents} tangents: forward {forward:.3} s ({:.0} GFLOP/s), backward {backward:.3} s ({:.0} GFLOP/s), \
             one sweep {sweep:.3} s ({:.0} GFLOP/s)",
            gflop / forward,
            3.0 * gflop / backward,
            3.0 * gflop / sweep
        );
    }
}
