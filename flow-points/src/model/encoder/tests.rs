use super::*;
use candle_core::{DType, Device};
use flow_core::FlowRng;

fn encoder(dtype: DType, config: &EncoderConfig) -> (ParamStore, Encoder) {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let encoder = Encoder::new(&store.root(), config, 5, true).unwrap();
    // Gains of both signs: the maximum of a reflected channel is its minimum.
    let mut rng = FlowRng::seed_from(9);
    for p in store.trainable() {
        let noise = rng.normal(p.var().shape(), dtype, &Device::Cpu).unwrap().affine(0.5, 0.0).unwrap();
        p.set(&(p.tensor() + noise).unwrap()).unwrap();
    }
    (store, encoder)
}

fn small() -> EncoderConfig {
    EncoderConfig { point: vec![7, 20, 33], head: vec![6], norm: EncoderNorm::Batch }
}

fn layered() -> EncoderConfig {
    EncoderConfig { norm: EncoderNorm::Layer, ..small() }
}

fn largest(t: &Tensor) -> f64 {
    t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

fn objective(p: &Posterior, weight: &Tensor) -> Tensor {
    let both = Tensor::cat(&[&p.mean, p.log_variance.as_ref().unwrap()], 1).unwrap();
    (both * weight).unwrap().sum_all().unwrap()
}

#[test]
fn fused_equals_composed_values_gradients_and_running_averages() {
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 2e-3)] {
        for sizes in [(2, 1), (3, 5), (4, 300), (2, 1100)] {
            for (config, training) in [(small(), true), (small(), false), (layered(), true)] {
                fused_equals_composed(&config, training, dtype, tolerance, sizes);
            }
        }
        // Without batch normalization one cloud is enough; many win in more blocks and units of rows than one.
        for sizes in [(1, 7), (40, 40), (150, 60)] {
            fused_equals_composed(&layered(), true, dtype, tolerance, sizes);
        }
    }
}

fn fused_equals_composed(
    config: &EncoderConfig,
    training: bool,
    dtype: DType,
    tolerance: f64,
    (clouds, points): (usize, usize),
) {
    let what = format!("{clouds}x{points} {dtype:?} {:?} training {training}", config.norm);
    let (fused_store, fused) = encoder(dtype, config);
    let (spec_store, spec) = encoder(dtype, config);
    let mut rng = FlowRng::seed_from(1);
    let x = rng.normal((clouds, points, 3), dtype, &Device::Cpu).unwrap();
    let weight = rng.normal((clouds, 10), dtype, &Device::Cpu).unwrap();
    // Running averages that are not those of the start.
    fused.forward(&x).unwrap();
    spec.composed(&x).unwrap();
    fused.set_training(training);
    spec.set_training(training);
    let (a, b) = (fused.forward(&x).unwrap(), spec.composed(&x).unwrap());
    assert!(largest(&(&a.mean - &b.mean).unwrap()) < tolerance, "{what}");
    let (ga, gb) = (objective(&a, &weight).backward().unwrap(), objective(&b, &weight).backward().unwrap());
    let scale = spec_store.trainable().iter().map(|p| largest(gb.get(p.var()).unwrap())).fold(1.0, f64::max);
    for (p, q) in fused_store.all().iter().zip(spec_store.all()) {
        assert_eq!(p.name(), q.name());
        let (got, want) = match p.trainable() {
            true => (ga.get(p.var()).unwrap().clone(), gb.get(q.var()).unwrap().clone()),
            false => (p.tensor(), q.tensor()),
        };
        let error = largest(&(got - &want).unwrap()) / scale;
        assert!(error < tolerance, "{what} {}: {error}", p.name());
    }
    fused.set_training(false);
    let _paused = fused_store.no_grad();
    let (a, b) = (fused.forward(&x).unwrap(), fused.composed(&x).unwrap());
    assert!(largest(&(a.mean - b.mean).unwrap()) < tolerance, "{what}, evaluation");
}

#[test]
fn with_layer_normalization_a_latent_is_a_function_of_its_cloud() {
    let (_, encoder) = encoder(DType::F32, &layered());
    let x = FlowRng::seed_from(6).normal((4, 50, 3), DType::F32, &Device::Cpu).unwrap();
    let mean = |x: &Tensor| encoder.forward(x).unwrap().mean.to_vec2::<f32>().unwrap();
    let alone = mean(&x.narrow(0, 2, 1).unwrap());
    for training in [true, false] {
        encoder.set_training(training);
        assert!(mean(&x)[2].iter().zip(&alone[0]).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for config in [small(), layered()] {
        gradients_are_those_of(&config);
    }
}

fn gradients_are_those_of(config: &EncoderConfig) {
    let (store, encoder) = encoder(DType::F64, config);
    let mut rng = FlowRng::seed_from(4);
    let x = rng.normal((3, 40, 3), DType::F64, &Device::Cpu).unwrap();
    let weight = rng.normal((3, 10), DType::F64, &Device::Cpu).unwrap();
    let gradients = objective(&encoder.forward(&x).unwrap(), &weight).backward().unwrap();
    let _paused = store.no_grad();
    let value = || objective(&encoder.forward(&x).unwrap(), &weight).to_scalar::<f64>().unwrap();
    for p in store.trainable() {
        let analytic: Vec<f64> = gradients.get(p.var()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let old: Vec<f64> = p.tensor().copy().unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for k in (0..old.len()).step_by(old.len().div_ceil(4)) {
            let at = |by: f64| {
                let mut v = old.clone();
                v[k] += by;
                p.set(&Tensor::from_vec(v, p.var().shape(), &Device::Cpu).unwrap()).unwrap();
                value()
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            at(0.0);
            assert!(
                (slope - analytic[k]).abs() < 1e-5 * (1.0 + slope.abs()),
                "{}[{k}]: {slope} {}",
                p.name(),
                analytic[k]
            );
        }
    }
}

#[test]
fn duplicated_points_do_not_change_the_gradient() {
    // Doubling every point changes neither statistics nor maxima, so the gradient must be the same; with a maximum
    // that pays every tie it would double.
    for config in [small(), layered()] {
        let gradient = |twice: bool| {
            let (store, encoder) = encoder(DType::F64, &config);
            let x = FlowRng::seed_from(4).normal((4, 30, 3), DType::F64, &Device::Cpu).unwrap();
            let x = if twice { Tensor::cat(&[&x, &x], 1).unwrap() } else { x };
            let g = encoder.forward(&x).unwrap().mean.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let w: Vec<f64> =
                g.get(store.get("conv3.weight").unwrap().var()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            w
        };
        let (once, twice) = (gradient(false), gradient(true));
        assert!(once.iter().any(|g| g.abs() > 1e-3));
        assert!(once.iter().zip(&twice).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + a.abs())));
    }
}

#[test]
fn the_latent_does_not_depend_on_the_order_of_points_or_on_threads() {
    for config in [small(), layered()] {
        let (store, encoder) = encoder(DType::F32, &config);
        let x = FlowRng::seed_from(4).normal((2, 2500, 3), DType::F32, &Device::Cpu).unwrap();
        let mean = |x: &Tensor| encoder.forward(x).unwrap().mean.to_vec2::<f32>().unwrap();
        {
            encoder.set_training(false);
            let _paused = store.no_grad();
            let order: Vec<u32> = FlowRng::seed_from(5).permutation(2500).iter().map(|&i| i as u32).collect();
            let shuffled = x.index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 1).unwrap();
            assert_eq!(mean(&x), mean(&shuffled));
        }
        encoder.set_training(true);
        let pass = || {
            let loss = encoder.forward(&x).unwrap().mean.sqr().unwrap().sum_all().unwrap();
            let weight = loss.backward().unwrap().get(store.get("conv1.weight").unwrap().var()).unwrap().clone();
            (mean(&x), weight.to_vec2::<f32>().unwrap())
        };
        let on = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(pass);
        assert_eq!(on(1), on(3));
    }
}

#[test]
fn what_is_not_a_number_does_not_hide_behind_the_maximum() {
    let (_, encoder) = encoder(DType::F32, &layered());
    let mut points = FlowRng::seed_from(4).normal((2, 2500, 3), DType::F32, &Device::Cpu).unwrap().to_vec3().unwrap();
    points[1][2000][1] = f32::NAN;
    let mean = encoder.forward(&Tensor::new(points, &Device::Cpu).unwrap()).unwrap().mean.to_vec2::<f32>().unwrap();
    assert!(mean[0].iter().all(|v| v.is_finite()) && mean[1].iter().all(|v| v.is_nan()));
}

#[test]
fn the_paper_has_this_many_parameters() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    Encoder::new(&store.root(), &EncoderConfig::paper(), 128, true).unwrap();
    assert_eq!(store.parameter_count(), 546_688);
}

#[test]
fn wrong_shapes_are_refused_by_name() {
    let (_, encoder) = encoder(DType::F32, &small());
    for shape in [vec![2, 5, 2], vec![2, 0, 3], vec![1, 5, 3], vec![10, 3]] {
        let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        assert!(encoder.forward(&x).unwrap_err().to_string().contains("encoder"));
    }
}
