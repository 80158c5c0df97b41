use candle_core::{DType, Device, Tensor, Var};
use flow_core::autodiff::pair;
use flow_core::{FlowRng, ParamStore};

use super::{LatentNet, LatentNetConfig};

fn config([channels, steps, height, width]: [usize; 4], hidden: usize, blocks: usize, gated: bool) -> LatentNetConfig {
    LatentNetConfig { channels, steps, height, width, hidden, blocks, dilations: true, gated }
}

/// Sides of one, two and three pixels, frames that are no squares, every dilation, all numbers of steps, and batches that
/// are cut into strips, into several samples, and into neither; with the batch.
fn cases() -> Vec<(LatentNetConfig, usize)> {
    vec![
        (config([3, 3, 1, 1], 5, 2, true), 3),
        (config([2, 2, 2, 2], 4, 2, true), 2),
        (config([4, 1, 3, 3], 6, 1, true), 2),
        (config([4, 3, 9, 9], 8, 3, true), 1),
        (config([1, 5, 5, 7], 7, 2, false), 2),
        (config([8, 3, 12, 10], 20, 2, true), 3),
        (config([2, 2, 3, 17], 9, 2, false), 2),
        (config([5, 1, 16, 9], 12, 2, false), 1),
        (config([2, 8, 4, 4], 6, 1, true), 11),
        (LatentNetConfig { dilations: false, ..config([3, 4, 10, 10], 6, 2, true) }, 2),
    ]
}

/// A network whose parameters are all away from their start, and a batch.
fn net(dtype: DType, config: &LatentNetConfig, batch: usize) -> (ParamStore, LatentNet, Tensor) {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let net = LatentNet::new(&store.root().pp("time"), config).unwrap();
    let mut rng = FlowRng::seed_from(5);
    for p in store.all() {
        let noise = rng.normal(p.var().shape(), dtype, &Device::Cpu).unwrap().affine(0.15, 0.0).unwrap();
        p.set(&(p.tensor() + noise).unwrap()).unwrap();
    }
    let x = rng.normal(&input(config, batch)[..], dtype, &Device::Cpu).unwrap();
    (store, net, x)
}

fn input(c: &LatentNetConfig, batch: usize) -> [usize; 5] {
    [batch, c.steps, c.channels, c.height, c.width]
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// The largest difference as a fraction of the largest wanted number, or of one.
pub(super) fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let size = want.iter().fold(1.0_f64, |size, v| size.max(v.abs()));
    got.iter().zip(&want).fold(0.0, |worst: f64, (a, b)| if (a - b).abs() >= worst { (a - b).abs() } else { worst })
        / size
}

#[test]
fn fused_equals_composed_values_and_gradients() {
    for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 1e-5)] {
        for (config, batch) in cases() {
            let (store, net, x) = net(dtype, &config, batch);
            let x = Var::from_tensor(&x).unwrap();
            let want = net.composed(&x).unwrap();
            let got = net.forward(&x).unwrap();
            let apart = relative(&got, &want);
            assert!(apart < tolerance, "{config:?}: {apart:e}");
            let cotangent = FlowRng::seed_from(9).normal(want.shape(), dtype, &Device::Cpu).unwrap();
            let [got, want] = [got, want].map(|v| pair(&v, &cotangent).unwrap().backward().unwrap());
            for (name, t) in store
                .trainable()
                .iter()
                .map(|p| (p.name().to_string(), p.var().as_tensor().clone()))
                .chain([("x".to_string(), x.as_tensor().clone())])
            {
                let apart = relative(got.get(&t).unwrap(), want.get(&t).unwrap());
                assert!(apart < 20.0 * tolerance, "{config:?}, gradient of {name}: {apart:e}");
            }
        }
    }
}

#[test]
fn without_a_graph_the_bits_are_the_same() {
    for (config, batch) in cases() {
        let (store, net, x) = net(DType::F32, &config, batch);
        let tracked = net.forward(&x).unwrap();
        assert!(tracked.track_op());
        let _guard = store.no_grad();
        let plain = net.forward(&x).unwrap();
        assert!(!plain.track_op());
        assert_eq!(values(&tracked), values(&plain), "{config:?}");
    }
}

#[test]
fn gradients_match_finite_differences() {
    for (config, batch) in [cases()[3], cases()[4], cases()[2], cases()[1]] {
        let (store, net, x) = net(DType::F64, &config, batch);
        let cotangent = FlowRng::seed_from(2).normal(
            x.narrow(1, 0, 1).unwrap().squeeze(1).unwrap().shape(),
            DType::F64,
            &Device::Cpu,
        );
        let cotangent = cotangent.unwrap();
        let objective = |x: &Tensor| {
            let _guard = store.no_grad();
            pair(&net.forward(x).unwrap(), &cotangent).unwrap().to_scalar::<f64>().unwrap()
        };
        let var = Var::from_tensor(&x).unwrap();
        let found = pair(&net.forward(&var).unwrap(), &cotangent).unwrap().backward().unwrap();
        // Small, so that no rectifier changes sides.
        let step = 1e-6;
        let direction =
            |t: &Tensor, seed| FlowRng::seed_from(seed).normal(t.shape(), DType::F64, &Device::Cpu).unwrap();
        let along = |g: &Tensor, v: &Tensor| (g * v).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        let close = |slope: f64, analytic: f64, what: &str| {
            assert!((slope - analytic).abs() < 1e-6 * (1.0 + slope.abs()), "{config:?} {what}: {slope} {analytic}");
        };
        let v = direction(&x, 1);
        let moved = |by: f64| objective(&(&x + (&v * by).unwrap()).unwrap());
        close((moved(step) - moved(-step)) / (2.0 * step), along(found.get(&var).unwrap(), &v), "x");
        for p in store.trainable() {
            let old = p.tensor().copy().unwrap().detach();
            let v = direction(&old, 4);
            let moved = |by: f64| {
                p.set(&(&old + (&v * by).unwrap()).unwrap()).unwrap();
                objective(&x)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            p.set(&old).unwrap();
            close(slope, along(found.get(p.var()).unwrap(), &v), p.name());
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (config, batch) in cases() {
        let (store, net, x) = net(DType::F32, &config, batch);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let x = Var::from_tensor(&x).unwrap();
                let value = net.forward(&x).unwrap();
                let found = value.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let gradients: Vec<Vec<f64>> =
                    store.trainable().iter().map(|p| values(found.get(p.var()).unwrap())).collect();
                (values(&value), values(found.get(&x).unwrap()), gradients)
            })
        };
        assert!(run(1) == run(3), "{config:?}");
    }
}

#[test]
fn a_new_network_is_the_last_step_and_takes_no_rows() {
    let config = config([3, 3, 6, 4], 5, 2, true);
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let net = LatentNet::new(&store.root(), &config).unwrap();
    let x = FlowRng::seed_from(1).normal(&input(&config, 2)[..], DType::F32, &Device::Cpu).unwrap();
    let last = x.narrow(1, 2, 1).unwrap().squeeze(1).unwrap();
    assert_eq!(values(&net.forward(&x).unwrap()), values(&last));
    let none = Tensor::zeros(&input(&config, 0)[..], DType::F32, &Device::Cpu).unwrap();
    assert_eq!(net.forward(&none).unwrap().dims(), [0, 3, 6, 4]);
    assert!(net.initialize(&none).is_err());
}

#[test]
fn nan_stays() {
    for gated in [false, true] {
        let config = config([2, 3, 6, 6], 4, 1, gated);
        let (store, net, x) = net(DType::F32, &config, 2);
        let mut numbers: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        numbers[2 * 2 * 36 + 14] = f32::NAN;
        let x = Tensor::from_vec(numbers, x.shape(), &Device::Cpu).unwrap();
        let _guard = store.no_grad();
        let out = values(&net.forward(&x).unwrap());
        assert!(out[14].is_nan() && out[72..].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn initialisation_normalises_every_channel_of_every_step() {
    let config = config([3, 3, 6, 5], 8, 2, true);
    let (_, net, x) = net(DType::F64, &config, 16);
    net.initialize(&x).unwrap();
    let first = &net.blocks[0].branches[1];
    // Initialised again from the same batch, nothing changes but round-off.
    let before: Vec<Vec<f64>> = first.params.iter().map(|p| values(p.var())).collect();
    let out = net.initialize(&x).unwrap();
    assert!(relative(&net.forward(&x).unwrap(), &out) < 1e-10);
    for (p, before) in first.params.iter().zip(before) {
        assert_eq!(values(p.var()), before, "{}", p.name());
    }
    let pre = first.normalized(&x).unwrap();
    for step in 0..3 {
        let rows =
            pre.narrow(1, step, 1).unwrap().transpose(0, 2).unwrap().contiguous().unwrap().flatten_from(1).unwrap();
        let (mean, square) = (rows.mean(1).unwrap(), rows.sqr().unwrap().mean(1).unwrap());
        assert!(values(&mean).iter().all(|m| m.abs() < 1e-9));
        assert!(values(&square).iter().all(|s| (s - 1.0).abs() < 1e-4));
    }
}

#[test]
fn misfits_are_named() {
    let good = config([3, 3, 6, 4], 5, 2, true);
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let new = |name: &str, config: &LatentNetConfig| LatentNet::new(&store.root().pp(name), config);
    assert!(new("a", &LatentNetConfig { steps: 9, ..good }).unwrap_err().to_string().contains("not 9"));
    assert!(new("b", &LatentNetConfig { hidden: 0, ..good }).is_err());
    let net = new("c", &good).unwrap();
    let x = Tensor::zeros((1, 2, 3, 6, 4), DType::F32, &Device::Cpu).unwrap();
    assert!(net.forward(&x).unwrap_err().to_string().contains("[1, 2, 3, 6, 4]"));
    let x = Tensor::zeros((1, 3, 3, 6, 4), DType::F64, &Device::Cpu).unwrap();
    assert!(net.forward(&x).is_err());
}
