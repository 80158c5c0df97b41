//! Flows as densities: samples carry their own likelihood, both backward passes agree, several levels
//! are one density.

use crate::common::{affine, soft_affine, vector_coupling};
use candle_core::{DType, Device, Tensor};
use flow_core::density::{Level, MultiScale};
use flow_core::distribution::{ConditionalGaussian, DiagonalGaussian, GaussianMixture, LearnedLogistic};
use flow_core::layers::ActNorm;
use flow_core::testing::quadrature::total_probability;
use flow_core::testing::{SmoothNet, randomise};
use flow_core::{Backprop, Chain, Density, Distribution, Flow, FlowRng, Gradients, ParamStore};

fn close(got: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (g, e) in flat(got).iter().zip(flat(expected)) {
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what}: {g}, expected {e}");
    }
}

/// Two couplings with a context of three entries before `base`.
fn conditional(store: &ParamStore, base: Box<dyn Distribution>) -> Flow<Chain, Box<dyn Distribution>> {
    let p = store.root();
    let layers = vec![
        vector_coupling(&p, "a", 3, false, soft_affine(), 3).unwrap(),
        Box::new(ActNorm::new(&p.pp("norm"), &[3]).unwrap()),
        vector_coupling(&p, "b", 3, true, soft_affine(), 3).unwrap(),
    ];
    let flow = Flow::new(store, Chain::new(layers).unwrap(), base).unwrap();
    randomise(store, 0.3, &mut FlowRng::seed_from(5)).unwrap();
    flow
}

fn bases(store: &ParamStore) -> Vec<Box<dyn Distribution>> {
    let p = store.root().pp("base");
    vec![
        Box::new(DiagonalGaussian::new(&p.pp("gaussian"), &[3]).unwrap()),
        Box::new(LearnedLogistic::new(&p.pp("logistic"), &[3]).unwrap()),
        Box::new(GaussianMixture::new(&p.pp("mixture"), &[3], 3, 1.0).unwrap()),
    ]
}

#[test]
fn samples_carry_their_own_likelihood_with_a_context_per_row() {
    for i in 0..3 {
        let store = ParamStore::new(i, DType::F64, &Device::Cpu);
        let flow = conditional(&store, bases(&store).swap_remove(i as usize));
        let mut rng = FlowRng::seed_from(i);
        let context = rng.normal((6, 3), DType::F64, &Device::Cpu).unwrap();
        let (x, log_prob) = flow.sample_and_log_prob(6, Some(&context), 0.8, &mut rng).unwrap();
        let scored = flow.log_prob(&x, Some(&context)).unwrap();
        close(&log_prob, &scored, 1e-9, flow.base().name().as_str());
        assert!(!x.track_op() && !log_prob.track_op(), "samples hold a graph");
    }
}

#[test]
fn both_backward_passes_agree_for_every_base() {
    for i in 0..3 {
        let store = ParamStore::new(i, DType::F64, &Device::Cpu);
        let flow = conditional(&store, bases(&store).swap_remove(i as usize));
        agree(&flow, Some(&FlowRng::seed_from(9).normal((4, 3), DType::F64, &Device::Cpu).unwrap()));
    }
}

fn agree(model: &dyn Density, context: Option<&Tensor>) {
    let mut rng = FlowRng::seed_from(3);
    let shape: Vec<usize> = std::iter::once(4).chain(model.event_shape().iter().copied()).collect();
    let x = rng.normal(shape, DType::F64, &Device::Cpu).unwrap();
    let weight = rng.normal(4, DType::F64, &Device::Cpu).unwrap();
    let run = |mode| {
        let mut gradients = Gradients::new(model.store());
        let scored = model.log_prob_backward(&x, context, &weight, mode, &mut gradients).unwrap();
        (scored, gradients)
    };
    let ((plain, expected), (reversible, got)) = (run(Backprop::Plain), run(Backprop::Reversible));
    close(&reversible.log_prob, &plain.log_prob, 1e-9, "log p");
    close(&reversible.grad_x, &plain.grad_x, 1e-8, "gradient of x");
    if context.is_some() {
        close(&reversible.grad_context.unwrap(), &plain.grad_context.unwrap(), 1e-8, "gradient of the context");
    }
    for ((param, got), (_, expected)) in got.iter().zip(expected.iter()) {
        match (got, expected) {
            (Some(got), Some(expected)) => close(got, expected, 1e-8, param.name()),
            // A base that this flow does not use has parameters in the store all the same.
            (got, expected) => assert!(got.is_none() && expected.is_none(), "{}", param.name()),
        }
    }
}

/// Two levels over the plane: the second entry is factored out after the first level.
fn two_levels(seed: u64) -> MultiScale {
    let store = ParamStore::new(seed, DType::F64, &Device::Cpu);
    let p = store.root();
    let first = vec![affine(&p, "a", 2, false).unwrap(), affine(&p, "b", 2, true).unwrap()];
    let prior = SmoothNet::new(&p.pp("prior"), &[1], &[2], 0).unwrap();
    let levels = vec![
        Level {
            flow: Box::new(Chain::new(first).unwrap()),
            split: Some(Box::new(ConditionalGaussian::new(&[1], &[1], prior))),
        },
        Level { flow: Box::new(ActNorm::new(&p.pp("norm"), &[1]).unwrap()), split: None },
    ];
    let model = MultiScale::new(&store, levels, Box::new(DiagonalGaussian::new(&p.pp("top"), &[1]).unwrap())).unwrap();
    randomise(&store, 0.3, &mut FlowRng::seed_from(seed)).unwrap();
    model
}

#[test]
fn several_levels_are_one_density() {
    for seed in 0..3 {
        let model = two_levels(seed);
        let total = total_probability(&model, None, [-40.0, 40.0], 600).unwrap();
        assert!((total - 1.0).abs() < 1e-3, "∫ p = {total} with seed {seed}");
        agree(&model, None);
    }
}

#[test]
fn latents_of_several_levels_decode_to_the_data() {
    let model = two_levels(7);
    let x = FlowRng::seed_from(1).normal((5, 2), DType::F64, &Device::Cpu).unwrap();
    let (latents, log_prob) = model.encode(&x, None).unwrap();
    close(&model.decode(&latents, None).unwrap(), &x, 1e-10, "decode(encode(x))");
    close(&log_prob, &model.log_prob(&x, None).unwrap(), 1e-12, "log p");
}
