//! Properties of RealNVP and NICE as image models, on shapes small enough for numerical Jacobians.

use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::gradient_or_zero;
use flow_core::testing::{ThreadRanks, jacobian};
use flow_core::train::{FitOptions, fit};
use flow_core::{Backprop, Bijector, Density, Direction, FlowRng, Gradients, ParamStore};

use super::*;

fn realnvp(scales: usize) -> ModelConfig {
    ModelConfig::RealNvp(RealNvpConfig { scales, base_width: 4, blocks: 1, ..Default::default() })
}

fn nice(prior: NicePrior) -> ModelConfig {
    ModelConfig::Nice(NiceConfig { couplings: 3, hidden_layers: 2, width: 8, prior })
}

/// Shapes with one and three channels, non-square, and (NICE) an odd number of entries.
fn models() -> Vec<(ModelConfig, ImageSpec)> {
    vec![
        (realnvp(1), ImageSpec::new(1, 3, 5, 256).unwrap()),
        (realnvp(2), ImageSpec::new(1, 4, 4, 32).unwrap()),
        (realnvp(2), ImageSpec::new(3, 2, 4, 17).unwrap()),
        (nice(NicePrior::Logistic), ImageSpec::new(1, 4, 4, 256).unwrap()),
        (nice(NicePrior::Gaussian), ImageSpec::new(3, 3, 1, 2).unwrap()),
    ]
}

/// A model whose parameters are moved away from their special initial values.
fn perturbed(config: &ModelConfig, spec: &ImageSpec, dtype: DType) -> ImageModel {
    let store = ParamStore::new(4, dtype, &Device::Cpu);
    let model = ImageModel::new(config, spec, &store).unwrap();
    perturb(&store);
    model
}

fn perturb(store: &ParamStore) {
    let mut rng = FlowRng::seed_from(8);
    for param in store.trainable() {
        let noise = rng.normal(param.var().shape(), store.dtype(), &Device::Cpu).unwrap().affine(0.2, 0.0).unwrap();
        param.set(&(param.var().as_tensor() + noise).unwrap()).unwrap();
    }
}

/// Batches with some structure: neighbouring pixels are alike.
fn images(spec: &ImageSpec, batch: usize, seed: u64) -> Tensor {
    let (mut rng, [c, h, w]) = (FlowRng::seed_from(seed), spec.event_shape());
    let top = (spec.levels - 1) as f64;
    let values: Vec<f32> = (0..batch)
        .flat_map(|_| {
            let base = rng.next_uniform();
            (0..c * h * w).map(|_| ((0.7 * base + 0.3 * rng.next_uniform()) * top).round() as f32).collect::<Vec<_>>()
        })
        .collect();
    Tensor::from_vec(values, (batch, c, h, w), &Device::Cpu).unwrap()
}

/// Moves running averages to where training would bring them.
fn warm(model: &ImageModel, batch: &Tensor) {
    model.set_training(true);
    for seed in 0..20 {
        model.log_prob(batch, None, &mut FlowRng::seed_from(seed)).unwrap();
    }
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    flat(a)
        .iter()
        .zip(flat(b))
        .fold(0.0, |w, (a, b)| if a.is_nan() || b.is_nan() { f64::NAN } else { w.max((a - b).abs()) })
}

#[test]
fn decoding_undoes_encoding() {
    for (config, spec) in models() {
        for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F64, 1e-9)] {
            let model = perturbed(&config, &spec, dtype);
            let levels = images(&spec, 4, 1);
            warm(&model, &levels);
            model.set_training(false);
            let y =
                FlowRng::seed_from(5).normal((4, spec.channels, spec.height, spec.width), dtype, &Device::Cpu).unwrap();
            let (latents, log_prob) = model.flow().encode(&y, None).unwrap();
            let shapes: Vec<Vec<usize>> = latents.0.iter().map(|z| z.dims()[1..].to_vec()).collect();
            assert_eq!(shapes, model.flow().latent_shapes());
            let back = model.flow().decode(&latents, None).unwrap();
            assert!(worst(&back, &y) < tolerance, "{config:?} {dtype:?}: {}", worst(&back, &y));
            assert!(worst(&log_prob, &model.flow().log_prob(&y, None).unwrap()) < 10.0 * tolerance);

            let (latents, _) = model.encode(&levels, None).unwrap();
            let back = model.decode(&latents, None).unwrap();
            assert_eq!(flat(&back), flat(&levels), "levels come back exactly");
        }
    }
}

/// `log p(y) = log p(z) + log |det ∂z/∂y|` with the Jacobian taken numerically and the density of the
/// whitened latents (both priors have unit scale) written out here.
#[test]
fn log_prob_is_the_change_of_variables_of_a_numerical_jacobian() {
    for (config, spec) in models() {
        let model = perturbed(&config, &spec, DType::F64);
        warm(&model, &images(&spec, 4, 1));
        model.set_training(false);
        let y = FlowRng::seed_from(5).normal((2, spec.channels, spec.height, spec.width), DType::F64, &Device::Cpu);
        let y = y.unwrap();
        let latent = Latent(&model, spec.event_shape());
        let log_det = jacobian::log_det(&latent, Direction::Encode, &y, None, jacobian::STEP).unwrap();
        let log_prob = flat(&model.flow().log_prob(&y, None).unwrap());
        let z = latent.encode(&y, None).unwrap().0.to_vec2::<f64>().unwrap();
        for ((row, log_det), log_prob) in z.iter().zip(log_det).zip(log_prob) {
            let density: f64 = row.iter().map(|&z| prior_log_density(&config, z)).sum();
            assert!((density + log_det - log_prob).abs() < 1e-5, "{config:?}: {} {log_prob}", density + log_det);
        }
    }
}

/// All latents of a model side by side, for the numerical Jacobian; returns no log-determinant of its own.
struct Latent<'a>(&'a ImageModel, [usize; 3]);

impl Bijector for Latent<'_> {
    fn name(&self) -> String {
        "latents".into()
    }
    fn event_shape(&self) -> &[usize] {
        &self.1
    }
    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (latents, log_prob) = self.0.flow().encode(x, None)?;
        let parts = latents.0.iter().map(|z| z.flatten_from(1)).collect::<candle_core::Result<Vec<_>>>()?;
        Ok((Tensor::cat(&parts, 1)?, log_prob.zeros_like()?))
    }
    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((z.clone(), z.zeros_like()?))
    }
}

fn prior_log_density(config: &ModelConfig, z: f64) -> f64 {
    match config {
        ModelConfig::Nice(NiceConfig { prior: NicePrior::Logistic, .. }) => -z.exp().ln_1p() - (-z).exp().ln_1p(),
        _ => -0.5 * z * z - 0.5 * (2.0 * std::f64::consts::PI).ln(),
    }
}

/// In training mode, so through the batch statistics of flow layers and conditioners.
#[test]
fn reversible_gradients_equal_plain_ones() {
    for (config, spec) in models() {
        let model = perturbed(&config, &spec, DType::F64);
        let levels = images(&spec, 5, 3);
        let step = |mode: Backprop| {
            let mut gradients = Gradients::new(model.store());
            let report = model.backward(&levels, None, &mut FlowRng::seed_from(2), mode, &mut gradients).unwrap();
            let running = model.store().all().iter().filter(|p| !p.trainable()).flat_map(|p| flat(p.var())).collect();
            (report, gradients, running)
        };
        let before = model.store().snapshot().unwrap();
        let (plain, expected, averages): (_, _, Vec<f64>) = step(Backprop::Plain);
        model.store().restore(&before).unwrap();
        let (reversible, found, same): (_, _, Vec<f64>) = step(Backprop::Reversible);
        assert!((plain.bits_per_dim - reversible.bits_per_dim).abs() < 1e-10);
        assert!(averages.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-9), "running averages move alike");
        let mut largest: f64 = 0.0;
        for ((param, a), (_, b)) in found.iter().zip(expected.iter()) {
            let (Some(a), Some(b)) = (a, b) else { panic!("{} has no gradient", param.name()) };
            assert!(worst(a, b) < 1e-8, "{config:?} {}: {}", param.name(), worst(a, b));
            largest = flat(b).iter().fold(largest, |m, v| m.max(v.abs()));
        }
        assert!(largest > 1e-3, "the gradients are not all zero");
    }
}

/// Batch statistics of flow layers and of every network, over the images of three ranks.
#[test]
fn realnvp_trained_by_ranks_is_that_of_one() {
    let (config, spec) = (realnvp(2), ImageSpec::new(1, 4, 4, 32).unwrap());
    let x = FlowRng::seed_from(3).normal((23, 1, 4, 4), DType::F64, &Device::Cpu).unwrap();
    for mode in [Backprop::Reversible, Backprop::Plain] {
        let trained = |channel: Option<ThreadRanks>| -> Vec<f64> {
            let store = ParamStore::new(4, DType::F64, &Device::Cpu);
            let flow = config.build(&spec, &store.root()).unwrap().flow;
            // A network that begins on what a batch normalization has centred sees untouched entries of zero but for round-off, at
            // the kink of its rectifier.
            perturb(&store);
            let options = FitOptions::new(8).batch(7).backprop(mode).from_current_weights();
            let options = options.engine(|engine| engine.optimizer.epsilon = 1e-2);
            let options = match channel {
                Some(channel) => options.communicator(channel),
                None => options,
            };
            fit(&flow, &x, options).unwrap();
            // And alone again, which asks nobody.
            fit(&flow, &x, FitOptions::new(2).batch(7).from_current_weights()).unwrap();
            store.all().iter().flat_map(|p| flat(p.var())).collect()
        };
        let alone = trained(None);
        for weights in ThreadRanks::run(3, |channel| trained(Some(channel))) {
            let gap = alone.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(gap < 1e-7, "{mode:?}: {gap}");
        }
    }
}

/// The objective's gradient, penalty included, against central differences along a random direction.
#[test]
fn gradients_are_those_of_bits_per_dim_and_penalty() {
    for (config, spec) in models() {
        let config = match config {
            ModelConfig::RealNvp(c) => ModelConfig::RealNvp(RealNvpConfig { l2: 0.05, ..c }),
            other => other,
        };
        let model = perturbed(&config, &spec, DType::F64);
        let (levels, store) = (images(&spec, 5, 3), model.store());
        let objective = |gradients: &mut Gradients| {
            let mut rng = FlowRng::seed_from(2);
            let step = model.backward(&levels, None, &mut rng, Backprop::Plain, gradients).unwrap();
            step.bits_per_dim + step.penalty / (spec.dims() as f64 * std::f64::consts::LN_2)
        };
        let mut gradients = Gradients::new(store);
        objective(&mut gradients);
        let mut rng = FlowRng::seed_from(6);
        let directions: Vec<Tensor> =
            store.trainable().iter().map(|p| rng.normal(p.var().shape(), DType::F64, &Device::Cpu).unwrap()).collect();
        let along: f64 = gradients
            .iter()
            .zip(&directions)
            .map(|((_, g), d)| flat(&(g.unwrap() * d).unwrap()).iter().sum::<f64>())
            .sum();
        let start = store.snapshot().unwrap();
        let at = |h: f64| {
            for (param, direction) in store.trainable().iter().zip(&directions) {
                let moved = (&start[param.name()] + direction.affine(h, 0.0).unwrap()).unwrap();
                param.set(&moved).unwrap();
            }
            objective(&mut Gradients::new(store))
        };
        let numerical = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((numerical - along).abs() < 1e-4 * along.abs().max(0.1), "{config:?}: {numerical} {along}");
    }
}

#[test]
fn realnvp_penalises_the_magnitudes_of_kernels_and_the_scales_of_log_scales() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = ImageModel::new(&realnvp(2), &ImageSpec::new(1, 4, 4, 32).unwrap(), &store).unwrap();
    let trainable = store.trainable();
    let named = trainable.iter().map(|p| p.name()).filter(|n| n.ends_with(".magnitude") || n.ends_with(".rescale"));
    let penalised: Vec<&str> = model.penalty().params().iter().map(|p| p.name()).collect();
    assert_eq!(penalised, named.collect::<Vec<_>>());
}

#[test]
fn the_input_gradient_comes_in_the_shape_of_images() {
    for (config, spec) in models() {
        let model = perturbed(&config, &spec, DType::F64);
        let shape = (3, spec.channels, spec.height, spec.width);
        let y = FlowRng::seed_from(5).normal(shape, DType::F64, &Device::Cpu).unwrap();
        let weight = Tensor::new(&[1.0, -2.0, 0.5], &Device::Cpu).unwrap();
        let mut gradients = Gradients::new(model.store());
        let flow = model.flow();
        let scored = flow.log_prob_backward(&y, None, &weight, Backprop::Reversible, &mut gradients).unwrap();
        let input = Var::from_tensor(&y).unwrap();
        let objective = (flow.log_prob(input.as_tensor(), None).unwrap() * weight).unwrap().sum_all().unwrap();
        let expected = gradient_or_zero(&objective.backward().unwrap(), &input).unwrap();
        assert!(worst(&scored.grad_x, &expected) < 1e-8);
    }
}

#[test]
fn a_few_steps_lower_the_loss() {
    for (config, spec) in [
        (realnvp(2), ImageSpec::new(1, 4, 4, 32).unwrap()),
        (nice(NicePrior::Logistic), ImageSpec::new(1, 4, 4, 32).unwrap()),
    ] {
        let store = ParamStore::new(1, DType::F32, &Device::Cpu);
        let model = ImageModel::new(&config, &spec, &store).unwrap();
        let (levels, mut rng) = (images(&spec, 24, 3), FlowRng::seed_from(0));
        let mut losses = Vec::new();
        let mut second: Vec<Option<Tensor>> = vec![None; store.trainable().len()];
        for _ in 0..30 {
            let mut gradients = Gradients::new(&store);
            let step = model.backward(&levels, None, &mut rng, Backprop::Reversible, &mut gradients).unwrap();
            losses.push(step.bits_per_dim);
            for ((param, gradient), second) in gradients.iter().zip(&mut second) {
                rms_step(param, gradient.unwrap(), second);
            }
        }
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        let (first, last) = (mean(&losses[..5]), mean(&losses[25..]));
        assert!(last < first - 0.2, "{config:?}: {first} to {last}");
        model.set_training(false);
        let evaluated = mean(&flat(&model.bits_per_dim(&levels, None, &mut rng).unwrap()));
        assert!((evaluated - last).abs() < 0.5, "running averages agree with the batch: {evaluated} {last}");
        assert!(evaluated > 0.0);
    }
}

/// One step of RMSprop, enough of an optimizer for this test.
fn rms_step(param: &flow_core::Param, gradient: &Tensor, second: &mut Option<Tensor>) {
    let square = gradient.sqr().unwrap();
    let average = match second.take() {
        None => square,
        Some(old) => (old.affine(0.9, 0.0).unwrap() + square.affine(0.1, 0.0).unwrap()).unwrap(),
    };
    let update = (gradient / (average.sqrt().unwrap() + 1e-8).unwrap()).unwrap().affine(-5e-3, 0.0).unwrap();
    param.set(&(param.var().as_tensor() + update).unwrap()).unwrap();
    *second = Some(average);
}

/// An identity flow under the logistic prior, whose bits/dim can be written out: noise, scale and `ln levels`.
#[test]
fn bits_per_dim_counts_the_levels() {
    for levels in [2, 17, 32, 256] {
        let spec = ImageSpec::new(1, 2, 2, levels).unwrap();
        let config = ModelConfig::Nice(NiceConfig { couplings: 1, hidden_layers: 0, width: 1, ..Default::default() });
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let model = ImageModel::new(&config, &spec, &store).unwrap();
        for param in store.trainable() {
            param.set(&param.var().zeros_like().unwrap()).unwrap();
        }
        // The identity flow: y = (x + u) / levels is logistic, with the same draw of u.
        let x = images(&spec, 1, 2);
        let found = flat(&model.bits_per_dim(&x, None, &mut FlowRng::seed_from(3)).unwrap())[0];
        let mut rng = FlowRng::seed_from(3);
        let y = flow_core::density::dequantize::uniform(&x, levels as u32, DType::F64, &mut rng).unwrap();
        let nats: f64 = flat(&y).iter().map(|y| y.exp().ln_1p() + (-y).exp().ln_1p() + (levels as f64).ln()).sum();
        assert!((found - nats / (4.0 * 2f64.ln())).abs() < 1e-10);
    }
}

#[test]
fn samples_are_levels_and_follow_the_temperature() {
    for (config, spec) in models() {
        let model = perturbed(&config, &spec, DType::F32);
        warm(&model, &images(&spec, 4, 1));
        let draw =
            |temperature: f64, seed: u64| model.sample(3, None, &[temperature], &mut FlowRng::seed_from(seed)).unwrap();
        let sample = draw(1.0, 1);
        assert_eq!((sample.dims(), sample.dtype()), (&[3, spec.channels, spec.height, spec.width][..], DType::U8));
        assert!(flat(&sample).iter().all(|&v| v < spec.levels as f64));
        assert_eq!(flat(&sample), flat(&draw(1.0, 1)), "the same seed draws the same images");
        assert_eq!(flat(&draw(0.0, 1)), flat(&draw(0.0, 2)), "temperature zero is deterministic");
        let mut rng = FlowRng::seed_from(1);
        assert!(
            model.sample(1, None, &[0.5; 9], &mut rng).is_err() && model.sample(1, None, &[-1.0], &mut rng).is_err()
        );
    }
}

#[test]
fn evaluation_does_not_move_running_averages_and_samples_leave_training_on() {
    let (config, spec) = (realnvp(2), ImageSpec::new(1, 4, 4, 32).unwrap());
    let model = perturbed(&config, &spec, DType::F32);
    let levels = images(&spec, 4, 1);
    warm(&model, &levels);
    let state = || model.store().all().iter().flat_map(|p| flat(p.var())).collect::<Vec<f64>>();
    let before = state();
    model.sample(2, None, &[0.7], &mut FlowRng::seed_from(1)).unwrap();
    model.encode(&levels, None).unwrap();
    model.bits_per_dim(&levels, None, &mut FlowRng::seed_from(1)).unwrap();
    assert_eq!(state(), before);
    model.log_prob(&levels, None, &mut FlowRng::seed_from(1)).unwrap();
    assert_ne!(state(), before, "training mode was kept");
}

#[test]
fn small_presets_build_score_and_sample() {
    for name in ["realnvp-small", "nice-small"] {
        let Preset { model, spec, .. } = preset(name).unwrap();
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let model = ImageModel::new(&model, &spec, &store).unwrap();
        let mut rng = FlowRng::seed_from(1);
        let bits = flat(&model.bits_per_dim(&images(&spec, 2, 1), None, &mut rng).unwrap());
        assert!(bits.iter().all(|b| (0.0..20.0).contains(b)), "{name}: {bits:?}");
        assert_eq!(model.sample(2, None, &[0.8], &mut rng).unwrap().dims()[1..], spec.event_shape());
    }
}

#[test]
fn images_that_do_not_fit_are_refused_with_a_remedy() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let spec = ImageSpec::new(1, 28, 28, 256).unwrap();
    let message = ImageModel::new(&realnvp(4), &spec, &store).err().unwrap().to_string();
    assert!(message.contains("at most 3 scales") && message.contains("32x32"), "{message}");
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = ImageModel::new(&realnvp(2), &spec, &store).unwrap();
    let small = images(&ImageSpec::new(1, 14, 14, 256).unwrap(), 2, 1);
    assert!(model.log_prob(&small, None, &mut FlowRng::seed_from(1)).is_err());
    for config in [RealNvpConfig { scales: 0, ..Default::default() }, RealNvpConfig { blocks: 0, ..Default::default() }]
    {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        assert!(ImageModel::new(&ModelConfig::RealNvp(config), &spec, &store).is_err());
    }
}
