//! The optimizers against the published algorithms, and the fused kernel against composed operations.

use super::*;
use crate::param::Init;

/// A store with a matrix and a vector, filled with something uneven.
fn model(dtype: DType, rows: usize) -> ParamStore {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    store.root().param("matrix", (rows, 7), Init::Normal(1.0)).unwrap();
    store.root().param("vector", 5, Init::Uniform(1.0)).unwrap();
    store
}

/// A gradient that depends on step and position, with some exact zeros.
fn gradients(store: &ParamStore, step: u64) -> Gradients {
    let mut gradients = Gradients::new(store);
    for param in store.trainable() {
        let n = param.var().elem_count();
        let value = |i: usize| if i % 4 == 3 { 0.0 } else { ((i as f64) * 0.37 + step as f64).sin() * 2.0 };
        let flat = Tensor::from_vec((0..n).map(value).collect::<Vec<f64>>(), n, &Device::Cpu).unwrap();
        let shaped = flat.reshape(param.var().dims()).unwrap().to_dtype(param.var().dtype()).unwrap();
        gradients.add(&param, &shaped).unwrap();
    }
    gradients
}

fn values(store: &ParamStore) -> Vec<f64> {
    let flat = |p: &Param| p.tensor().flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
    store.trainable().iter().flat_map(flat).collect()
}

fn rules() -> [OptimizerConfig; 3] {
    [OptimizerConfig::adam(0.01), OptimizerConfig::adamw(0.02, 0.3), OptimizerConfig::adamax(0.03)]
}

/// The published algorithms for one scalar, written out with bias-corrected moments.
fn textbook(config: &OptimizerConfig, p0: f64, rank: usize, gradient: impl Fn(u64) -> f64, steps: u64) -> f64 {
    let (mut p, mut m, mut v) = (p0, 0.0f64, 0.0f64);
    let (b1, b2, lr) = (config.beta1, config.beta2, config.learning_rate);
    for t in 1..=steps {
        let g = gradient(t - 1);
        if config.rule == Rule::AdamW && rank >= 2 {
            p -= lr * config.weight_decay * p;
        }
        m = b1 * m + (1.0 - b1) * g;
        let m_hat = m / (1.0 - b1.powi(t as i32));
        if config.rule == Rule::Adamax {
            v = (b2 * v).max(g.abs());
            p -= lr * m_hat / (v + config.epsilon);
        } else {
            v = b2 * v + (1.0 - b2) * g * g;
            p -= lr * m_hat / ((v / (1.0 - b2.powi(t as i32))).sqrt() + config.epsilon);
        }
    }
    p
}

#[test]
fn follows_the_published_algorithms() {
    for config in rules() {
        let store = model(DType::F64, 3);
        let start = values(&store);
        let mut optimizer = Optimizer::new(config.clone(), &store).unwrap();
        (0..20).for_each(|step| optimizer.step(&gradients(&store, step), 1.0).unwrap());
        for (k, (&p0, got)) in start.iter().zip(values(&store)).enumerate() {
            let (i, rank) = if k < 21 { (k, 2) } else { (k - 21, 1) };
            let gradient = |t: u64| if i % 4 == 3 { 0.0 } else { (i as f64 * 0.37 + t as f64).sin() * 2.0 };
            let expected = textbook(&config, p0, rank, gradient, 20);
            assert!((got - expected).abs() < 1e-12, "{:?} element {k}: {got} against {expected}", config.rule);
        }
    }
}

#[test]
fn the_first_step_has_the_size_of_the_learning_rate() {
    // m̂ = g and √v̂ = |g|, whatever the gradient's scale.
    let store = ParamStore::new(0, DType::F64, &Device::Cpu);
    let p = store.root().param("p", 2, Init::Const(1.0)).unwrap();
    let mut g = Gradients::new(&store);
    g.add(&p, &Tensor::new(&[1e-3, -1e5], &Device::Cpu).unwrap()).unwrap();
    Optimizer::new(OptimizerConfig::adam(0.1), &store).unwrap().step(&g, 0.5).unwrap();
    let [a, b] = p.tensor().to_vec1::<f64>().unwrap()[..] else { panic!() };
    assert!((a - 0.95).abs() < 1e-5 && (b - 1.05).abs() < 1e-5, "{a} {b}");
}

#[test]
fn fused_equals_composed() {
    for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-14)] {
        for config in rules() {
            // 7 × 5000 elements: more than one chunk.
            let (a, b) = (model(dtype, 5000), model(dtype, 5000));
            let mut fused = Optimizer::new(config.clone(), &a).unwrap();
            let mut composed = Optimizer::composed(config.clone(), &b).unwrap();
            for step in 0..5 {
                fused.step(&gradients(&a, step), 1.0).unwrap();
                composed.step(&gradients(&b, step), 1.0).unwrap();
            }
            let worst = values(&a).iter().zip(values(&b)).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            assert!(worst < tolerance, "{:?} {dtype:?}: {worst}", config.rule);
            let (x, y) = (fused.state().unwrap(), composed.state().unwrap());
            assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
        }
    }
}

/// Seen once and never again, as a pixel that is rarely on: parameters are those of the composed rule, in which moments
/// decay for ever, and no first moment is left as a number so small that a processor is slow with it.
#[test]
fn moments_that_only_decay_end_at_zero() {
    for config in rules() {
        let (a, b) = (model(DType::F32, 3), model(DType::F32, 3));
        let mut fused = Optimizer::new(config.clone(), &a).unwrap();
        let mut composed = Optimizer::composed(config.clone(), &b).unwrap();
        for (optimizer, store) in [(&mut fused, &a), (&mut composed, &b)] {
            let mut gradients = gradients(store, 0);
            optimizer.step(&gradients, 1.0).unwrap();
            gradients.scale(0.0).unwrap();
            (0..900).for_each(|_| optimizer.step(&gradients, 1.0).unwrap());
        }
        let worst = values(&a).iter().zip(values(&b)).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-6, "{:?}: {worst}", config.rule);
        for (name, moment) in fused.state().unwrap().iter().filter(|(name, _)| name.starts_with("first/")) {
            let moment = moment.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(moment.iter().all(|m| *m == 0.0), "{:?} {name}: {moment:?}", config.rule);
        }
    }
}

#[test]
fn a_gradient_may_be_strided_or_the_parameter_itself() {
    for alias in [false, true] {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let p = store.root().param("p", (2, 3), Init::Normal(1.0)).unwrap();
        let before = p.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let columns = Tensor::new(&[[1f32, -1.], [1., 1.], [-1., 1.]], &Device::Cpu).unwrap().t().unwrap();
        let gradient = if alias { p.tensor() } else { columns };
        let signs: Vec<f32> =
            gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|g| g.signum()).collect();
        let mut g = Gradients::new(&store);
        g.add(&p, &gradient).unwrap();
        Optimizer::new(OptimizerConfig::adam(0.1), &store).unwrap().step(&g, 1.0).unwrap();
        let after = p.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for ((a, b), s) in before.iter().zip(&after).zip(&signs) {
            assert!((a - b - 0.1 * s).abs() < 1e-5, "alias {alias}: {a} → {b}");
        }
    }
}

#[test]
fn a_restored_optimizer_continues_to_the_bit() {
    for config in rules() {
        let (whole, parts) = (model(DType::F32, 4), model(DType::F32, 4));
        let mut optimizer = Optimizer::new(config.clone(), &whole).unwrap();
        (0..6).for_each(|step| optimizer.step(&gradients(&whole, step), 1.0).unwrap());
        let mut first = Optimizer::new(config.clone(), &parts).unwrap();
        (0..3).for_each(|step| first.step(&gradients(&parts, step), 1.0).unwrap());
        let mut second = Optimizer::new(config.clone(), &parts).unwrap();
        second.restore(&first.state().unwrap()).unwrap();
        assert_eq!(second.steps(), 3);
        (3..6).for_each(|step| second.step(&gradients(&parts, step), 1.0).unwrap());
        assert_eq!(values(&whole), values(&parts));
    }
}

#[test]
fn a_foreign_state_is_refused() {
    let store = model(DType::F32, 4);
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(0.1), &store).unwrap();
    let other = Optimizer::new(OptimizerConfig::adam(0.1), &model(DType::F32, 5)).unwrap();
    let message = optimizer.restore(&other.state().unwrap()).unwrap_err().to_string();
    assert!(message.contains("'first/matrix' is [5, 7]"), "{message}");
    let mut state = optimizer.state().unwrap();
    state.remove("second/vector");
    assert!(optimizer.restore(&state).is_err());
    state.insert("second/victor".into(), Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap());
    let message = optimizer.restore(&state).unwrap_err().to_string();
    assert!(message.contains("'second/vector' is missing"), "{message}");
}
