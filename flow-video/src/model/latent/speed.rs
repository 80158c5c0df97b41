//! How fast a single clip goes through the networks of two models, beside the peak of the machine's products.
//!
//! `RAYON_NUM_THREADS=1 cargo test --release -p flow-video latent::speed -- --ignored --nocapture`; `tests/parity_latent.py
//! --speed` measures PyTorch.

use std::time::Instant;

use candle_core::{DType, Device, Var};
use flow_core::kernels::{Size, Start, View, gemm};
use flow_core::{FlowRng, ParamStore};

use super::{LatentNet, LatentNetConfig};

/// Seconds since some moment: of computing where Linux tells, so that other programs do not count, else of the clock.
fn seconds(start: Instant) -> f64 {
    let computed = |task: std::fs::DirEntry| -> Option<f64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks.flatten().filter_map(computed).sum::<f64>() / 1e9,
        Err(_) => start.elapsed().as_secs_f64(),
    }
}

/// The least time of some calls, in seconds of one thread.
fn least(calls: usize, mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    (0..calls).fold(f64::INFINITY, |least, _| {
        let before = seconds(start);
        f();
        least.min(seconds(start) - before)
    })
}

/// Multiplications a second of a product that stays in the first-level cache.
fn peak() -> f64 {
    let size = Size { m: 48, k: 256, n: 16 };
    let (a, b, mut c) = (vec![0.5_f32; size.m * size.k], vec![0.25_f32; size.k * size.n], vec![0.0; size.m * size.n]);
    let repeats = 5_000;
    let time = least(9, || {
        for _ in 0..repeats {
            gemm(size, View::rows(&a, size.k), &b, &mut c, Start::Zero, false);
        }
    });
    (repeats * size.m * size.k * size.n) as f64 / time
}

/// The multiplications that the last step of the output depends on.
fn needed(c: &LatentNetConfig) -> f64 {
    let mut sum = 0;
    for after in 0..c.blocks {
        let s = c.block(after);
        // Steps of each convolution, and of those the ones that have a step before them.
        let products = |upper: usize| upper + upper.min(s.steps - 1);
        let edges = 9 * s.channels * s.hidden * (products(s.hidden_steps()) + products(s.outputs));
        sum += s.pixels() * s.dilations.len() * (edges + s.hidden_steps() * s.hidden * s.wide());
    }
    sum as f64
}

#[test]
#[ignore = "measures: cargo test --release -p flow-video latent::speed -- --ignored --nocapture"]
fn of_single_clips() {
    let peak = peak();
    println!("peak {:.1} G multiplications/s", peak / 1e9);
    for (name, hidden, blocks, first) in [("bair-quant", 256, 5, 12), ("small", 64, 2, 4)] {
        let (mut all, mut work) = (0.0, 0.0);
        for (channels, side) in [(first, 32), (2 * first, 16), (4 * first, 8)] {
            let (height, width, steps) = (side, side, 3);
            let config =
                LatentNetConfig { channels, steps, height, width, hidden, blocks, dilations: true, gated: true };
            let store = ParamStore::new(0, DType::F32, &Device::Cpu);
            let net = LatentNet::new(&store.root(), &config).unwrap();
            let x = FlowRng::seed_from(1).normal((1, steps, channels, side, side), DType::F32, &Device::Cpu).unwrap();
            let calls = if hidden > 100 { 7 } else { 40 };
            let forward = {
                let _guard = store.no_grad();
                least(calls, || drop(net.forward(&x).unwrap()))
            };
            let x = Var::from_tensor(&x).unwrap();
            let training = least(calls / 4 + 1, || {
                drop(net.forward(&x).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap());
            });
            let share = |time: f64, factor: f64| 100.0 * factor * needed(&config) / time / peak;
            println!(
                "{name} C={channels} {side}x{side}: forward {:.2} ms ({:.0} % of the peak), with backward {:.2} ms ({:.0} %)",
                1e3 * forward,
                share(forward, 1.0),
                1e3 * training,
                share(training, 3.0)
            );
            all += forward;
            work += needed(&config);
        }
        println!("{name}: {:.2} ms, {:.0} % of the peak", 1e3 * all, 100.0 * work / all / peak);
    }
}
