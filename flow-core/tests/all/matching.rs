//! A matched field as a density: training without a solver lowers the likelihood gap, transport straightens the paths,
//! and reflow and distillation leave a sampler of one evaluation.

use candle_core::{DType, Device, Tensor};
use flow_core::cnf::VectorField;
use flow_core::cnf::matching::{
    FewSteps, FlowMatching, Pairing, TimeSampling, distillation_loss, reflow_pairs, sample_few_steps, straightness,
};
use flow_core::cnf::ode::Method;
use flow_core::param::{Init, Param};
use flow_core::train::{Optimizer, OptimizerConfig};
use flow_core::{FlowRng, Gradients, ParamStore, Result};

const WIDTH: usize = 32;

/// Two hidden layers of hyperbolic tangents over `(x, t)`.
struct Net {
    store: ParamStore,
    weights: [Param; 3],
    times: [Param; 2],
    biases: [Param; 3],
}

impl Net {
    fn new(seed: u64) -> Self {
        let store = ParamStore::new(seed, DType::F32, &Device::Cpu);
        let root = store.root();
        let dense =
            |name: &str, i: usize, o: usize| root.param(name, (i, o), Init::Uniform((3.0 / i as f64).sqrt())).unwrap();
        let flat = |name: &str, o: usize, bound: f64| root.param(name, o, Init::Uniform(bound)).unwrap();
        Net {
            weights: [dense("w0", 2, WIDTH), dense("w1", WIDTH, WIDTH), dense("w2", WIDTH, 2)],
            times: [flat("t0", WIDTH, 1.0), flat("t1", WIDTH, 1.0)],
            biases: [flat("b0", WIDTH, 1.0), flat("b1", WIDTH, 0.1), flat("b2", 2, 0.0)],
            store,
        }
    }
}

impl VectorField for Net {
    fn name(&self) -> String {
        "perceptron".into()
    }
    fn dim(&self) -> usize {
        2
    }
    fn value(&self, t: &Tensor, x: &Tensor, context: Option<&Tensor>) -> Result<Tensor> {
        Ok(self.jvp(t, x, &[], context)?.0)
    }
    fn jvp(&self, t: &Tensor, x: &Tensor, v: &[Tensor], _: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        let t = t.unsqueeze(1)?.repeat((1, x.dim(0)? / t.elem_count()))?.reshape((x.dim(0)?, 1))?;
        let (mut h, mut tangents) = (x.clone(), v.to_vec());
        for k in 0..3 {
            let w = self.weights[k].tensor();
            h = h.matmul(&w)?.broadcast_add(&self.biases[k].tensor())?;
            tangents = tangents.iter().map(|v| Ok(v.matmul(&w)?)).collect::<Result<_>>()?;
            if k < 2 {
                h = (h + t.broadcast_mul(&self.times[k].tensor().unsqueeze(0)?)?)?.tanh()?;
                let slope = h.sqr()?.affine(-1.0, 1.0)?;
                tangents = tangents.iter().map(|v| Ok((v * &slope)?)).collect::<Result<_>>()?;
            }
        }
        Ok((h, tangents))
    }
}

/// Two Gaussians of deviation 0.3 at `(±1.5, 0.5)`.
fn data(n: usize, rng: &mut FlowRng) -> Tensor {
    let point = |rng: &mut FlowRng| {
        let side = if rng.next_uniform() < 0.5 { -1.5 } else { 1.5 };
        [(side + 0.3 * rng.next_normal()) as f32, (0.5 + 0.3 * rng.next_normal()) as f32]
    };
    let points: Vec<f32> = (0..n).flat_map(|_| point(rng)).collect();
    Tensor::from_vec(points, (n, 2), &Device::Cpu).unwrap()
}

/// The entropy of [`data`]: `ln 2` for the side, which is certain, and that of a Gaussian.
fn entropy() -> f64 {
    2.0_f64.ln() + 1.0 + std::f64::consts::TAU.ln() + 2.0 * 0.3_f64.ln()
}

/// The mean of `-ln p(x) = -ln N(x_T) - ∫ tr ∂f/∂x dt`, from data to noise by the midpoint rule in 60 steps.
fn nats(net: &Net, x: &Tensor) -> f64 {
    let _paused = net.store.no_grad();
    let (n, steps) = (x.dim(0).unwrap(), 60);
    let unit = |e: [f32; 2]| Tensor::from_vec(e.repeat(n), (n, 2), &Device::Cpu).unwrap();
    let units = [unit([1.0, 0.0]), unit([0.0, 1.0])];
    let (mut x, mut divergence, h) = (x.clone(), Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap(), 1.0 / 60.0);
    for k in 0..steps {
        let at = |t: f64| Tensor::full(t as f32, 1, &Device::Cpu).unwrap();
        let start = net.value(&at(f64::from(k) * h), &x, None).unwrap();
        let half = (&x + start.affine(0.5 * h, 0.0).unwrap()).unwrap();
        let (slope, trace) = net.divergence(&at((f64::from(k) + 0.5) * h), &half, &units, None).unwrap();
        x = (x + slope.affine(h, 0.0).unwrap()).unwrap();
        divergence = (divergence + trace.affine(h, 0.0).unwrap()).unwrap();
    }
    let base = x.sqr().unwrap().sum(1).unwrap().affine(-0.5, -std::f64::consts::TAU.ln()).unwrap();
    -f64::from((base + divergence).unwrap().mean(0).unwrap().to_scalar::<f32>().unwrap())
}

/// Adam on a loss for some steps.
fn fit(net: &Net, steps: u64, mut loss: impl FnMut(u64) -> Result<Tensor>) {
    let mut optimizer = Optimizer::new(OptimizerConfig::adam(5e-3), &net.store).unwrap();
    for step in 0..steps {
        let mut gradients = Gradients::new(&net.store);
        gradients.accumulate(&loss(step).unwrap().backward().unwrap()).unwrap();
        let decay = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
        optimizer.step(&gradients, decay.max(0.02)).unwrap();
    }
}

fn matched(coupling: Pairing) -> Net {
    let (net, mut rng) = (Net::new(3), FlowRng::seed_from(1));
    let matching = FlowMatching::new(coupling).times(TimeSampling::Stratified);
    fit(&net, 300, |_| matching.loss(&net, &data(128, &mut rng), None, 128, &mut rng));
    net
}

#[test]
fn matching_is_maximum_likelihood_enough_and_transport_makes_it_straight() {
    let mut rng = FlowRng::seed_from(2);
    let test = data(2000, &mut rng);
    let noise = rng.normal((500, 2), DType::F32, &Device::Cpu).unwrap();
    let untrained = nats(&Net::new(3), &test) - entropy();
    let mut bends = Vec::new();
    for coupling in [Pairing::Independent, Pairing::MinibatchOt { block: 64 }] {
        let net = matched(coupling);
        // The standard error of 2000 points is 0.022.
        let gap = nats(&net, &test) - entropy();
        assert!(gap > -0.07 && gap < 0.25 && gap < 0.2 * untrained, "{coupling:?}: {gap} after {untrained}");
        let _paused = net.store.no_grad();
        bends.push(straightness(&net, &noise, None, FewSteps::new(20, Method::Heun)).unwrap());
        if coupling != Pairing::Independent {
            distils(&net);
        }
    }
    assert!(bends[1] < 0.5 * bends[0], "{bends:?}");
}

/// A copy of the field learns to do in one step what it does in sixteen.
fn distils(net: &Net) {
    let mut rng = FlowRng::seed_from(7);
    let noise = rng.normal((2048, 2), DType::F32, &Device::Cpu).unwrap();
    let made = {
        let _paused = net.store.no_grad();
        reflow_pairs(net, &noise, None, FewSteps::new(16, Method::Heun)).unwrap()
    };
    let student = Net::new(3);
    student.store.restore(&net.store.snapshot().unwrap()).unwrap();
    let error = |student: &Net| -> f64 {
        let _paused = student.store.no_grad();
        let one = sample_few_steps(student, &noise, None, FewSteps::new(1, Method::Euler)).unwrap();
        f64::from((one - &made).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap())
    };
    let before = error(&student);
    fit(&student, 100, |step| {
        let start = (step as usize * 256) % 2048;
        let part = |t: &Tensor| t.narrow(0, start, 256).unwrap();
        distillation_loss(&student, &part(&noise), &part(&made), None, 1.0)
    });
    let after = error(&student);
    assert!(after < 0.5 * before, "{after} after {before}");
}
