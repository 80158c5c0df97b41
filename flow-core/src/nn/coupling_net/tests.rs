use super::*;
use crate::autodiff::pair;
use crate::param::ParamStore;
use crate::testing::numbers::relative;
use crate::{FlowRng, Gradients};
use candle_core::{Device, Var};

/// A network with every parameter away from zero, and a batch.
fn net(
    activation: HiddenActivation,
    dtype: DType,
    [c, hidden, o, h, w]: [usize; 5],
    batch: usize,
) -> (ParamStore, CouplingNet, Tensor, Tensor) {
    let store = ParamStore::new(3, dtype, &Device::Cpu);
    let net = CouplingNet::with_activation(&store.root(), c, hidden, o, [h, w], activation).unwrap();
    let mut rng = FlowRng::seed_from(5);
    for p in store.all() {
        let noise = rng.normal(p.var().shape(), dtype, &Device::Cpu).unwrap().affine(0.2, 0.0).unwrap();
        p.set(&(p.tensor() + noise).unwrap()).unwrap();
    }
    let x = rng.normal((batch, c, h, w), dtype, &Device::Cpu).unwrap();
    let cotangent = rng.normal((batch, o, h, w), dtype, &Device::Cpu).unwrap();
    (store, net, x, cotangent)
}

fn largest(t: &Tensor) -> f64 {
    t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

const BOTH: [HiddenActivation; 2] = [HiddenActivation::Relu, HiddenActivation::Gated];

/// Sizes that exercise every border case: no rows, one pixel, one row, odd, several strips, blocks and chunks.
const CASES: [([usize; 5], usize); 9] = [
    ([2, 5, 3, 2, 3], 0),
    ([3, 7, 2, 2, 3], 2),
    ([2, 9, 4, 17, 21], 2),
    ([2, 5, 3, 1, 1], 3),
    ([1, 4, 2, 1, 5], 2),
    ([3, 8, 6, 4, 4], 5),
    ([6, 32, 12, 16, 16], 3),
    ([24, 20, 48, 4, 4], 17),
    ([2, 16, 2, 5, 7], 9),
];

#[test]
fn fused_equals_composed_values_and_gradients() {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        for activation in BOTH {
            for (sizes, batch) in CASES {
                let (store, net, x, cotangent) = net(activation, dtype, sizes, batch);
                let case = format!("{activation:?} {dtype:?} {sizes:?} × {batch}");
                // The reversible path …
                let mut grads = Gradients::new(&store);
                let evaluation = net.evaluate(&x, None).unwrap();
                let value = evaluation.value.copy().unwrap();
                let (grad_x, _) = (evaluation.pullback)(&cotangent, &mut grads).unwrap();
                if batch == 0 {
                    assert_eq!((value.dims(), grad_x.dims()), (cotangent.dims(), x.dims()));
                    assert_eq!(net.forward(&x, None).unwrap().dims(), cotangent.dims());
                    continue;
                }
                let var = Var::from_tensor(&x).unwrap();
                let spec = net.composed(&var).unwrap();
                let wanted = pair(&spec, &cotangent).unwrap().backward().unwrap();
                assert!(relative(&value, &spec) < tolerance, "{case} value {}", relative(&value, &spec));
                // … outside of any graph …
                let paused = store.no_grad();
                assert_eq!(relative(&net.forward(&x, None).unwrap(), &value), 0.0, "{case} without tracking");
                drop(paused);
                // … and the operation inside an ordinary graph.
                let op = pair(&net.forward(&var, None).unwrap(), &cotangent).unwrap().backward().unwrap();
                for got in [&grad_x, op.get(&var).unwrap()] {
                    let gap = relative(got, wanted.get(&var).unwrap());
                    assert!(gap < 10.0 * tolerance, "{case} input gradient {gap}");
                }
                for p in store.trainable() {
                    let want = wanted.get(p.var().as_tensor()).unwrap();
                    for got in [grads.get(&p).unwrap(), op.get(p.var().as_tensor()).unwrap()] {
                        assert!(relative(got, want) < 10.0 * tolerance, "{case} {} {}", p.name(), relative(got, want));
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for activation in BOTH {
        check_gradients(net(activation, DType::F64, [3, 6, 4, 3, 4], 4));
    }
}

fn check_gradients((store, net, x, cotangent): (ParamStore, CouplingNet, Tensor, Tensor)) {
    let mut grads = Gradients::new(&store);
    let (grad_x, _) = (net.evaluate(&x, None).unwrap().pullback)(&cotangent, &mut grads).unwrap();
    let objective =
        |x: &Tensor| -> f64 { pair(&net.evaluate(x, None).unwrap().value, &cotangent).unwrap().to_scalar().unwrap() };
    let step = 1e-6;
    let nudge = |t: &Tensor, k: usize, by: f64| {
        let mut v: Vec<f64> = t.flatten_all().unwrap().to_vec1().unwrap();
        v[k] += by;
        Tensor::from_vec(v, t.shape(), &Device::Cpu).unwrap()
    };
    let analytic: Vec<f64> = grad_x.flatten_all().unwrap().to_vec1().unwrap();
    for k in (0..x.elem_count()).step_by(7) {
        let slope = (objective(&nudge(&x, k, step)) - objective(&nudge(&x, k, -step))) / (2.0 * step);
        assert!((slope - analytic[k]).abs() < 1e-6 * (1.0 + slope.abs()), "x[{k}]: {slope} {}", analytic[k]);
    }
    for p in store.trainable() {
        let value = p.tensor().copy().unwrap().detach();
        let analytic: Vec<f64> = grads.get(&p).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for k in (0..value.elem_count()).step_by(11) {
            p.set(&nudge(&value, k, step)).unwrap();
            let up = objective(&x);
            p.set(&nudge(&value, k, -step)).unwrap();
            let slope = (up - objective(&x)) / (2.0 * step);
            p.set(&value).unwrap();
            assert!((slope - analytic[k]).abs() < 1e-5 * (1.0 + slope.abs()), "{}[{k}]", p.name());
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    // Several samples a chunk, and single images of several strips and blocks, the second with work for several threads.
    for (sizes, batch) in [([3, 16, 6, 8, 8], 16), ([3, 8, 6, 23, 19], 1), ([2, 160, 2, 20, 18], 1)] {
        for activation in BOTH {
            let (store, net, x, cotangent) = net(activation, DType::F32, sizes, batch);
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut grads = Gradients::new(&store);
                    let e = net.evaluate(&x, None).unwrap();
                    let value: Vec<f32> = e.value.flatten_all().unwrap().to_vec1().unwrap();
                    let (grad_x, _) = (e.pullback)(&cotangent, &mut grads).unwrap();
                    let grad_x: Vec<f32> = grad_x.flatten_all().unwrap().to_vec1().unwrap();
                    (value, grad_x, grads.flatten().unwrap())
                })
            };
            assert!(run(1) == run(3), "{activation:?} {sizes:?}");
        }
    }
}

#[test]
fn a_sample_is_the_same_in_any_batch() {
    for activation in BOTH {
        let (store, net, x, _) = net(activation, DType::F32, [3, 12, 4, 9, 11], 60);
        let _paused = store.no_grad();
        let all = net.forward(&x, None).unwrap();
        for row in [0, 1, 41, 59] {
            let alone = net.forward(&x.narrow(0, row, 1).unwrap(), None).unwrap();
            assert_eq!(relative(&alone, &all.narrow(0, row, 1).unwrap()), 0.0, "{activation:?} {row}");
        }
    }
}

/// Each hidden normalization against its definition, from the activations that reach it.
#[test]
fn initialisation_normalises_the_hidden_layers() {
    for activation in BOTH {
        let (_, net, x, _) = net(activation, DType::F64, [3, 16, 6, 8, 8], 16);
        let out = net.initialize(&x, None).unwrap();
        assert!(relative(&out, &net.composed(&x).unwrap()) < 1e-12);
        let ([first, second, _], gate) = net.layers();
        let check = |layer: Layer<'_>, pre: &Tensor| {
            let (mean, std) = crate::nn::statistics::channel_moments(pre).unwrap();
            let log = (std + 1e-6).unwrap().recip().unwrap().log().unwrap().affine(1.0 / 3.0, 0.0).unwrap();
            assert!(relative(&layer[1].tensor(), &mean.neg().unwrap()) < 1e-12, "{}", layer[1].name());
            assert!(relative(&layer[2].tensor(), &log) < 1e-12, "{}", layer[2].name());
            let after = normed(pre, layer).unwrap();
            let (mean, std) = crate::nn::statistics::channel_moments(&after).unwrap();
            assert!(largest(&mean) < 1e-9 && largest(&(std - 1.0).unwrap()) < 1e-4, "{}", layer[1].name());
            after
        };
        let h = check(first, &edge_conv(&x, &first[0].tensor()).unwrap()).relu().unwrap();
        for layer in std::iter::once(second).chain(gate) {
            check(layer, &pointwise(&h, &layer[0].tensor()).unwrap());
        }
    }
}

/// The gate by hand: one pixel, one channel everywhere, so that every convolution is a product.
#[test]
fn a_gated_network_of_one_pixel_is_its_formula() {
    let (store, net, x, _) = net(HiddenActivation::Gated, DType::F64, [1, 1, 1, 1, 1], 5);
    let at = |name: &str, k: usize| -> f64 {
        store.get(name).unwrap().var().flatten_all().unwrap().to_vec1::<f64>().unwrap()[k]
    };
    // Tap 4 is the centre; the other eight of the edge's channel lie outside.
    let edge = |name: &str| (0..9).filter(|&t| t != 4).map(|t| at(name, 9 + t)).sum::<f64>();
    let an = |v: f64, layer: &str| (v + at(&format!("b{layer}"), 0)) * (3.0 * at(&format!("l{layer}"), 0)).exp();
    let want: Vec<f64> = numbers_of(&x)
        .into_iter()
        .map(|x| {
            let h = an(at("w1", 4) * x + edge("w1"), "1").max(0.0);
            let gate = 1.0 / (1.0 + (-an(at("w2_gate", 0) * h, "2_gate")).exp());
            let h = an(at("w2", 0) * h, "2").tanh() * gate;
            an(at("w3", 4) * h + edge("w3"), "3")
        })
        .collect();
    for got in [net.forward(&x, None).unwrap(), net.composed(&x).unwrap()] {
        for (got, want) in numbers_of(&got).iter().zip(&want) {
            assert!((got - want).abs() < 1e-12 * (1.0 + want.abs()), "{got} {want}");
        }
    }
}

fn numbers_of(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn extremes_stay_finite_and_nan_stays() {
    for activation in BOTH {
        for dtype in [DType::F32, DType::F64] {
            let (store, net, x, cotangent) = net(activation, dtype, [2, 6, 4, 5, 7], 3);
            for factor in [1e6, -1e6] {
                let x = x.sign().unwrap().affine(factor, 0.0).unwrap();
                let mut grads = Gradients::new(&store);
                let evaluation = net.evaluate(&x, None).unwrap();
                assert!(numbers_of(&evaluation.value).iter().all(|v| v.is_finite()), "{activation:?} {dtype:?}");
                let (grad_x, _) = (evaluation.pullback)(&cotangent, &mut grads).unwrap();
                assert!(numbers_of(&grad_x).iter().all(|v| v.is_finite()), "{activation:?} {dtype:?}");
                assert!(grads.global_norm().unwrap().is_finite(), "{activation:?} {dtype:?}");
            }
            // One NaN spoils its own sample and no other.
            let mut numbers = numbers_of(&x);
            numbers[x.elem_count() / 3 + 10] = f64::NAN;
            let spoiled = Tensor::from_vec(numbers, x.shape(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let out = net.forward(&spoiled, None).unwrap();
            for (sample, spoils) in [false, true, false].into_iter().enumerate() {
                let out = numbers_of(&out.get(sample).unwrap());
                assert_eq!(out.iter().any(|v| v.is_nan()), spoils, "{activation:?} {dtype:?} {sample}");
            }
        }
    }
}

#[test]
fn a_gate_adds_parameters_and_changes_no_other() {
    let store = |activation| {
        let store = ParamStore::new(9, DType::F32, &Device::Cpu);
        CouplingNet::with_activation(&store.root(), 2, 4, 3, [3, 3], activation).unwrap();
        store
    };
    let (plain, gated) = (store(HiddenActivation::Relu), store(HiddenActivation::Gated));
    let names = |s: &ParamStore| s.all().iter().map(|p| p.name().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&plain), ["b1", "b2", "b3", "l1", "l2", "l3", "w1", "w2", "w3"]);
    let more: Vec<String> = names(&gated).into_iter().filter(|n| plain.get(n).is_none()).collect();
    assert_eq!(more, ["b2_gate", "l2_gate", "w2_gate"]);
    for p in plain.all() {
        assert_eq!(numbers_of(&p.tensor()), numbers_of(&gated.get(p.name()).unwrap().tensor()), "{}", p.name());
    }
}

#[test]
#[ignore = "timing: cargo test --release -p flow-core --lib coupling_net -- --ignored --nocapture"]
fn speed() {
    for (sizes, batch) in [([6, 512, 12, 32, 32], 1), ([12, 512, 24, 16, 16], 1), ([24, 512, 48, 8, 8], 1)] {
        for activation in BOTH {
            let (store, net, x, cotangent) = net(activation, DType::F32, sizes, batch);
            let _paused = store.no_grad();
            let [mut forward, mut both] = [f64::INFINITY; 2];
            for _ in 0..10 {
                let begun = std::time::Instant::now();
                net.forward(&x, None).unwrap();
                forward = forward.min(begun.elapsed().as_secs_f64());
                let begun = std::time::Instant::now();
                let mut grads = Gradients::new(&store);
                (net.evaluate(&x, None).unwrap().pullback)(&cotangent, &mut grads).unwrap();
                both = both.min(begun.elapsed().as_secs_f64());
            }
            let [c, h, o, y, w] = sizes;
            let middle = if activation == HiddenActivation::Gated { 2 * h } else { h };
            let gflop = 2e-9 * (batch * y * w * h) as f64 * (9 * c + middle + 9 * o) as f64;
            println!(
                "{activation:?} {sizes:?}: forward {:.2} ms ({:.0} GFLOP/s), with backward {:.2} ms ({:.0} GFLOP/s)",
                1e3 * forward,
                gflop / forward,
                1e3 * both,
                3.0 * gflop / both
            );
        }
    }
}
