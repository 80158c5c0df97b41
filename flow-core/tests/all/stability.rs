//! Training does not diverge: many seeds, many steps, nothing infinite, still invertible afterwards.
//!
//! Divergence is the commonest complaint about flows. Here small models are trained with a rather high
//! learning rate from twenty seeds; afterwards the f32 round trip must hold, samples must be finite, and
//! the likelihood must not exceed what the data's entropy allows.

use crate::common::affine;
use candle_core::{DType, Device, Tensor};
use flow_core::density::{Level, MultiScale};
use flow_core::distribution::{ConditionalGaussian, DiagonalGaussian, StandardGaussian};
use flow_core::layers::{ActNorm, Partition, Squeeze};
use flow_core::testing::{SmoothNet, smooth_coupling};
use flow_core::transformer::{Affine, ScaleBound};
use flow_core::{Backprop, Bijector, Chain, Density, Flow, FlowRng, Gradients, ParamPath, ParamStore, Result};

const STEPS: i32 = 200;
const SEEDS: u64 = 20;

/// Adam (Kingma & Ba 2015) in its plainest form, independent of the training engine.
struct Adam {
    moments: Vec<(Tensor, Tensor)>,
    step: i32,
}

impl Adam {
    fn new(store: &ParamStore) -> Self {
        let zeros = |p: &flow_core::Param| p.var().zeros_like().unwrap().detach();
        Adam { moments: store.trainable().iter().map(|p| (zeros(p), zeros(p))).collect(), step: 0 }
    }

    fn step(&mut self, gradients: &Gradients) -> Result<()> {
        self.step += 1;
        let (c1, c2) = (1.0 - 0.9_f64.powi(self.step), 1.0 - 0.999_f64.powi(self.step));
        for ((param, gradient), (m, v)) in gradients.iter().zip(&mut self.moments) {
            let Some(g) = gradient else { continue };
            *m = (m.affine(0.9, 0.0)? + g.affine(0.1, 0.0)?)?;
            *v = (v.affine(0.999, 0.0)? + g.sqr()?.affine(0.001, 0.0)?)?;
            let change = (m.affine(1e-3 / c1, 0.0)? / v.affine(1.0 / c2, 0.0)?.sqrt()?.affine(1.0, 1e-8)?)?;
            param.set(&(param.var().as_detached_tensor() - change)?)?;
        }
        Ok(())
    }
}

fn all_finite(t: &Tensor) -> bool {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap().iter().all(|v| v.is_finite())
}

/// Trains on batches of `draw`; returns the mean negative log-likelihood of the last batch.
fn train(model: &dyn Density, batch: usize, rng: &mut FlowRng, draw: impl Fn(usize, &mut FlowRng) -> Tensor) -> f64 {
    let mut gradients = Gradients::new(model.store());
    model.initialize(&draw(batch, rng), None).unwrap();
    let mut adam = Adam::new(model.store());
    let weight = Tensor::full(-1.0 / batch as f32, batch, &Device::Cpu).unwrap();
    let mut loss = f64::NAN;
    for step in 0..STEPS {
        gradients.clear();
        let x = draw(batch, rng);
        let scored = model.log_prob_backward(&x, None, &weight, Backprop::Reversible, &mut gradients).unwrap();
        loss = -f64::from(scored.log_prob.mean_all().unwrap().to_scalar::<f32>().unwrap());
        assert!(loss.is_finite() && gradients.global_norm().unwrap().is_finite(), "diverged at step {step}: {loss}");
        adam.step(&gradients).unwrap();
    }
    assert!(model.store().all().iter().all(|p| all_finite(p.var())), "a parameter is not finite");
    loss
}

/// The mean negative log-likelihood in nats.
fn mean_loss(model: &dyn Density, x: &Tensor) -> f64 {
    -f64::from(model.log_prob(x, None).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap())
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// A toy density over the plane, scored exactly.
#[derive(Clone, Copy, Debug)]
enum Toy {
    /// Uniform on the eight black unit squares, twice the size: area 32 (Grathwohl et al. 2019).
    Checkerboard,
    /// Eight Gaussians on a circle: scale 4, deviation ½, all over 1.414.
    Gaussians,
}

impl Toy {
    /// The differential entropy in nats: no density can have a lower expected loss.
    fn entropy(self) -> f64 {
        match self {
            Toy::Checkerboard => 32.0_f64.ln(),
            Toy::Gaussians => 2.8313,
        }
    }

    fn draw(self, n: usize, rng: &mut FlowRng) -> Tensor {
        let points: Vec<f32> = match self {
            Toy::Checkerboard => (0..n).flat_map(|_| checkerboard(rng)).collect(),
            Toy::Gaussians => {
                let noise = rng.normal(2 * n, DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
                noise.chunks_exact(2).flat_map(|z| eight_gaussians(z, rng)).collect()
            }
        };
        Tensor::from_vec(points, (n, 2), &Device::Cpu).unwrap()
    }
}

fn checkerboard(rng: &mut FlowRng) -> [f32; 2] {
    let x = rng.next_uniform() * 4.0 - 2.0;
    let y = rng.next_uniform() + rng.below(2) as f64 * -2.0 + x.floor().rem_euclid(2.0);
    [2.0 * x as f32, 2.0 * y as f32]
}

fn eight_gaussians(noise: &[f32], rng: &mut FlowRng) -> [f32; 2] {
    let angle = rng.below(8) as f32 * std::f32::consts::FRAC_PI_4;
    [(4.0 * angle.cos() + 0.5 * noise[0]) / 1.414, (4.0 * angle.sin() + 0.5 * noise[1]) / 1.414]
}

fn plane_flow(seed: u64) -> Flow<Chain, StandardGaussian> {
    let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
    let p = store.root();
    let mut layers: Vec<Box<dyn Bijector>> = Vec::new();
    for i in 0..2 {
        layers.push(Box::new(ActNorm::new(&p.pp(format!("norm{i}")), &[2]).unwrap()));
        layers.push(affine(&p, &format!("a{i}"), 2, false).unwrap());
        layers.push(affine(&p, &format!("b{i}"), 2, true).unwrap());
    }
    let base = StandardGaussian::new(&[2], DType::F32, &Device::Cpu);
    Flow::new(&store, Chain::new(layers).unwrap(), base).unwrap()
}

#[test]
fn coupling_flows_train_from_every_seed() {
    for seed in 0..SEEDS {
        let toy = if seed % 2 == 0 { Toy::Checkerboard } else { Toy::Gaussians };
        let flow = plane_flow(seed);
        let mut rng = FlowRng::seed_from(seed);
        let untrained = mean_loss(&flow, &toy.draw(1024, &mut rng));
        train(&flow, 64, &mut rng, |n, rng| toy.draw(n, rng));

        let x = toy.draw(4096, &mut rng);
        let (z, _) = flow.bijector().encode(&x, None).unwrap();
        let error = worst(&flow.bijector().decode(&z, None).unwrap().0, &x);
        assert!(error <= 1e-4, "seed {seed}: the round trip is off by {error:e}");
        assert!(all_finite(&flow.sample(4096, None, 1.0, &mut rng).unwrap()), "seed {seed}: a sample is not finite");

        let losses = flow.log_prob(&x, None).unwrap().neg().unwrap().to_dtype(DType::F64).unwrap();
        let losses = losses.to_vec1::<f64>().unwrap();
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let deviation = (losses.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / losses.len() as f64).sqrt();
        let error = 4.0 * deviation / (losses.len() as f64).sqrt();
        assert!(mean > toy.entropy() - error, "seed {seed}: {mean} nats are below the entropy of {toy:?}");
        assert!(mean < untrained - 1.0, "seed {seed}: from {untrained} to {mean} nats, nothing was learned of {toy:?}");
    }
}

fn image_coupling(p: &ParamPath, shape: &[usize], swap: bool) -> Result<Box<dyn Bijector>> {
    smooth_coupling(p, shape, Partition::Channels { swap }, Affine::new(ScaleBound::Sigmoid), 0)
}

/// Squeeze, then two rounds of actnorm and couplings.
fn level(p: &ParamPath, event: [usize; 3]) -> Result<Box<dyn Bijector>> {
    let squeeze = Squeeze::new(&event, 2)?;
    let [c, h, w] = [4 * event[0], event[1] / 2, event[2] / 2];
    let mut layers: Vec<Box<dyn Bijector>> = vec![Box::new(squeeze)];
    for i in 0..2 {
        layers.push(Box::new(ActNorm::new(&p.pp(format!("norm{i}")), &[c, h, w])?));
        layers.push(image_coupling(&p.pp(format!("a{i}")), &[c, h, w], false)?);
        layers.push(image_coupling(&p.pp(format!("b{i}")), &[c, h, w], true)?);
    }
    Ok(Box::new(Chain::new(layers)?))
}

/// Two levels over `(1, 4, 4)`: half of the first level's latent is factored out.
fn image_model(seed: u64) -> Result<MultiScale> {
    let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
    let p = store.root();
    let prior = SmoothNet::new(&p.pp("prior"), &[2, 2, 2], &[4, 2, 2], 0)?;
    let split = ConditionalGaussian::new(&[2, 2, 2], &[2, 2, 2], prior);
    let levels = vec![
        Level { flow: level(&p.pp("level0"), [1, 4, 4])?, split: Some(Box::new(split)) },
        Level { flow: level(&p.pp("level1"), [2, 2, 2])?, split: None },
    ];
    MultiScale::new(&store, levels, Box::new(DiagonalGaussian::new(&p.pp("top"), &[8, 1, 1])?))
}

/// Little gradients of random direction, with a constant column: without variance, a hard case for
/// normalisation.
fn ramps(n: usize, rng: &mut FlowRng) -> Tensor {
    let mut pixels = Vec::with_capacity(16 * n);
    for _ in 0..n {
        let (a, b) = (rng.next_uniform() - 0.5, rng.next_uniform() - 0.5);
        let noise: Vec<f64> = (0..16).map(|_| rng.next_uniform() / 32.0).collect();
        pixels.extend(noise.iter().enumerate().map(|(k, u)| {
            let (i, j) = ((k / 4) as f64, (k % 4) as f64);
            (if k % 4 == 3 { 0.5 + u } else { 0.5 + (a * i + b * j) / 4.0 + u }) as f32
        }));
    }
    Tensor::from_vec(pixels, (n, 1, 4, 4), &Device::Cpu).unwrap()
}

#[test]
fn multi_scale_flows_train_from_every_seed() {
    for seed in 0..SEEDS {
        let model = image_model(seed).unwrap();
        let mut rng = FlowRng::seed_from(seed);
        let untrained = mean_loss(&model, &ramps(256, &mut rng));
        let trained = train(&model, 16, &mut rng, ramps);
        assert!(trained < untrained - 5.0, "seed {seed}: from {untrained} to {trained} nats, nothing was learned");

        let x = ramps(256, &mut rng);
        let (latents, _) = model.encode(&x, None).unwrap();
        let error = worst(&model.decode(&latents, None).unwrap(), &x);
        assert!(error <= 1e-4, "seed {seed}: the round trip is off by {error:e}");
        assert!(all_finite(&model.sample(256, None, 1.0, &mut rng).unwrap()), "seed {seed}: a sample is not finite");
    }
}
