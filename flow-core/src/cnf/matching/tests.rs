use candle_core::{DType, Device};
use rayon::ThreadPoolBuilder;

use super::*;
use crate::cnf::ode::Method;
use crate::testing::numbers::{distance, normal, values};

/// `v(t, x) = slope(t)·x + offset(t)` in every dimension.
struct Affine<F>(F);

impl<F: Fn(f64) -> (f64, f64) + Send + Sync> VectorField for Affine<F> {
    fn name(&self) -> String {
        "affine".into()
    }
    fn dim(&self) -> usize {
        1
    }
    fn value(&self, t: &Tensor, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        let per_group = x.elem_count() / t.elem_count();
        let at: Vec<(f64, f64)> = values(t).into_iter().map(&self.0).collect();
        let row = |i: usize, x: f64| at[i / per_group].0 * x + at[i / per_group].1;
        let out: Vec<f64> = values(x).into_iter().enumerate().map(|(i, x)| row(i, x)).collect();
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
    fn jvp(&self, _: &Tensor, _: &Tensor, _: &[Tensor], _: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        Err(Error::config("affine", "has no products in this test"))
    }
}

fn ot(block: usize) -> FlowMatching {
    FlowMatching { coupling: Pairing::MinibatchOt { block }, ..FlowMatching::default() }
}

#[test]
fn the_target_is_the_velocity_of_the_path() {
    let (x, noise) = (normal(1, &[6, 2]), normal(2, &[6, 2]));
    for (end_time, sigma_min) in [(1.0, 0.0), (0.5, 0.0), (2.0, 0.1)] {
        let matching = FlowMatching { end_time, sigma_min, ..FlowMatching::default() };
        let pairs = matching.pairs_with(&x, &noise, 3, &mut FlowRng::seed_from(3)).unwrap();
        assert_eq!(pairs.time.dims(), [3]);
        let at = |h: f64| matching.path(&x, &noise, &pairs.time.affine(1.0, h).unwrap()).unwrap().0;
        let slope = (at(1e-4) - at(-1e-4)).unwrap().affine(0.5e4, 0.0).unwrap();
        assert!(distance(&slope, &pairs.target) < 1e-9);
        // The ends of the path are noise and (smoothed) data.
        let end = |t: f64| matching.path(&x, &noise, &Tensor::full(t, 3, &Device::Cpu).unwrap()).unwrap().0;
        assert!(distance(&end(end_time), &noise) < 1e-14);
        assert!(distance(&end(0.0), &(&x + noise.affine(sigma_min, 0.0).unwrap()).unwrap()) < 1e-14);
    }
}

#[test]
fn every_group_has_its_time_and_its_loss() {
    let x = normal(1, &[6, 1]);
    let matching = FlowMatching::default();
    let pairs = matching.pairs(&x, 3, &mut FlowRng::seed_from(3)).unwrap();
    let (t, x_t, target) = (values(&pairs.time), values(&pairs.x_t), values(&pairs.target));
    let noise = values(&pairs.noise);
    for (i, x) in values(&x).into_iter().enumerate() {
        let t = t[i / 2];
        assert!((x_t[i] - (1.0 - t) * x - t * noise[i]).abs() < 1e-14 && (target[i] - noise[i] + x).abs() < 1e-14);
    }
    let field = Affine(|t: f64| (t, 0.3));
    let losses = values(&matching.group_losses(&field, &x, None, 3, &mut FlowRng::seed_from(3)).unwrap());
    for (g, loss) in losses.iter().enumerate() {
        let error = |i: usize| (t[g] * x_t[i] + 0.3 - target[i]).powi(2);
        assert!((loss - 0.5 * (error(2 * g) + error(2 * g + 1))).abs() < 1e-12);
    }
    let mean = values(&matching.loss(&field, &x, None, 3, &mut FlowRng::seed_from(3)).unwrap())[0];
    assert!((mean - losses.iter().sum::<f64>() / 3.0).abs() < 1e-14);
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    let insert = |at: usize| shorter.iter().map(move |p| [&p[..at], &[n - 1], &p[at..]].concat());
    (0..n).flat_map(insert).collect()
}

/// `Σ |x_i - noise_{order(i)}|²` over two-dimensional rows.
fn cost(x: &[f64], noise: &[f64], order: &[usize]) -> f64 {
    let square = |i: usize, j: usize| (x[2 * i] - noise[2 * j]).powi(2) + (x[2 * i + 1] - noise[2 * j + 1]).powi(2);
    order.iter().enumerate().map(|(i, &j)| square(i, j)).sum()
}

#[test]
fn transport_is_the_best_of_all_orders_within_each_group() {
    for n in 1..=6 {
        let x = normal(n as u64, &[2 * n, 2]);
        let noise = ot(n).pairs(&x, 2, &mut FlowRng::seed_from(9)).unwrap().noise;
        for group in 0..2 {
            let part = |t: &Tensor| values(&t.narrow(0, group * n, n).unwrap());
            let (x, noise) = (part(&x), part(&noise));
            let best = permutations(n).iter().map(|p| cost(&x, &noise, p)).fold(f64::INFINITY, f64::min);
            let kept: Vec<usize> = (0..n).collect();
            assert!((cost(&x, &noise, &kept) - best).abs() < 1e-12, "n = {n}");
        }
    }
}

#[test]
fn transport_reorders_noise_within_blocks_and_loses_none() {
    let x = normal(1, &[60, 2]);
    let sorted = |t: &Tensor| {
        let mut rows: Vec<(u64, u64)> = values(t).chunks(2).map(|r| (r[0].to_bits(), r[1].to_bits())).collect();
        rows.sort_unstable();
        rows
    };
    let draw = |matching: &FlowMatching, count| matching.pairs(&x, count, &mut FlowRng::seed_from(4)).unwrap().noise;
    let whole = |noise: &Tensor| (noise - &x).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let independent = draw(&FlowMatching::default(), 1);
    let costs: Vec<f64> = [1, 7, 20, 60].iter().map(|&b| whole(&draw(&ot(b), 1))).collect();
    assert!(costs.is_sorted_by(|a, b| a > b) && costs[0] == whole(&independent), "{costs:?}");
    for (matching, count) in [(ot(7), 1), (ot(20), 3), (ot(60), 60)] {
        assert_eq!(sorted(&draw(&matching, count)), sorted(&independent));
    }
    // Rows that are groups of their own are matched over the whole batch.
    assert_eq!(whole(&draw(&ot(60), 60)), costs[3]);
    // Groups keep their own noise.
    let grouped = draw(&ot(20), 3);
    let part = |t: &Tensor| sorted(&t.narrow(0, 20, 20).unwrap());
    assert_eq!(part(&grouped), part(&independent));
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    let x = normal(1, &[48, 3]);
    let run = |threads: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let pairs = pool.install(|| ot(8).pairs(&x, 2, &mut FlowRng::seed_from(4)).unwrap());
        let plan = pool.install(|| OfflinePlan::new(&[x.clone(), x.clone()], 5, 3).unwrap());
        (values(&pairs.noise), values(&pairs.time), plan)
    };
    assert_eq!(run(1), run(3));
}

/// The closed-form regression of the target on `x_t` at one time, over many pairs in one dimension.
fn regression(matching: &FlowMatching, x: &Tensor, noise: &Tensor, t: f64) -> (f64, f64) {
    let (x_t, target) = matching.path(x, noise, &Tensor::full(t, 1, &Device::Cpu).unwrap()).unwrap();
    let (a, b, n) = (values(&x_t), values(&target), x.elem_count() as f64);
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let covariance: f64 = a.iter().zip(&b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
    let slope = covariance / a.iter().map(|a| (a - mean_a).powi(2)).sum::<f64>();
    (slope, mean_b - slope * mean_a)
}

/// Data `N(m, d²)` in one dimension: with transport the fitted field carries noise along straight lines to `m + d·ε`, which
/// is the transport map; with independent pairs it arrives at the same map along bent ones.
#[test]
fn a_gaussian_is_matched_by_the_transport_map() {
    const ROWS: usize = 1000;
    let (m, d) = (1.5, 0.4);
    let x = normal(5, &[ROWS, 1]).affine(d, m).unwrap();
    let pair = |matching: &FlowMatching| matching.pairs(&x, 1, &mut FlowRng::seed_from(6)).unwrap().noise;
    let (straight, independent) = (ot(ROWS), FlowMatching::default());
    let (paired, free) = (pair(&straight), pair(&independent));
    for t in [0.1, 0.5, 0.9] {
        // ε = (x - m)/d, so x_t = (1 - t)(m + d·ε) + t·ε and v = (1 - d)·ε - m.
        let along = (1.0 - d) / ((1.0 - t) * d + t);
        let (slope, offset) = regression(&straight, &x, &paired, t);
        assert!((slope - along).abs() < 0.12 && (offset + m + along * (1.0 - t) * m).abs() < 0.2, "{slope} {offset}");
        // Cov(v, x_t)/Var(x_t) of independent normals.
        let bent = (t - (1.0 - t) * d * d) / ((1.0 - t).powi(2) * d * d + t * t);
        let (slope, _) = regression(&independent, &x, &free, t);
        assert!((slope - bent).abs() < 0.12, "{slope} for {bent}");
    }
    let exact = Affine(|t: f64| {
        let along = (1.0 - d) / ((1.0 - t) * d + t);
        (along, -m - along * (1.0 - t) * m)
    });
    let bent = Affine(|t: f64| {
        let slope = (t - (1.0 - t) * d * d) / ((1.0 - t).powi(2) * d * d + t * t);
        (slope, -m - slope * (1.0 - t) * m)
    });
    let noise = normal(7, &[50, 1]);
    let map = noise.affine(d, m).unwrap();
    // One evaluation is enough on straight lines, many are needed on bent ones.
    let sample = |steps, method| sample_few_steps(&exact, &noise, None, FewSteps::new(steps, method)).unwrap();
    assert!(distance(&sample(1, Method::Euler), &map) < 1e-12);
    let sample = |steps, method| sample_few_steps(&bent, &noise, None, FewSteps::new(steps, method)).unwrap();
    assert!(distance(&sample(1, Method::Euler), &map) > 0.1);
    assert!(distance(&sample(64, Method::Rk4), &map) < 1e-6);
    let bend = |field: &dyn VectorField| straightness(field, &noise, None, FewSteps::new(50, Method::Rk4)).unwrap();
    assert!(bend(&exact) < 1e-20 && bend(&bent) > 1e-2, "{} {}", bend(&exact), bend(&bent));
}

#[test]
fn methods_have_their_orders() {
    // dx/dt = x·cos t from T = 2 back to 0: x(0) = x(2)·exp(-sin 2).
    let field = Affine(|t: f64| (t.cos(), 0.0));
    let noise = normal(1, &[4, 1]);
    let exact = noise.affine((-(2.0_f64.sin())).exp(), 0.0).unwrap();
    for (method, order) in [(Method::Euler, 1.0), (Method::Midpoint, 2.0), (Method::Heun, 2.0), (Method::Rk4, 4.0)] {
        let sample = |steps| sample_few_steps(&field, &noise, None, FewSteps::new(steps, method).with_end_time(2.0));
        let error = |steps| distance(&sample(steps).unwrap(), &exact);
        let found = (error(40) / error(80)).log2();
        assert!((found - order).abs() < 0.2, "{method:?} has order {found}");
    }
    let states = trajectory(&field, &noise, None, FewSteps::new(40, Method::Rk4).with_end_time(2.0)).unwrap();
    assert!(states.len() == 41 && distance(&states[0], &noise) == 0.0);
    // Half way, at t = 1, the solution is x(2)·exp(sin 1 - sin 2).
    let half = noise.affine((1.0_f64.sin() - 2.0_f64.sin()).exp(), 0.0).unwrap();
    assert!(distance(&states[20], &half) < 1e-6 && distance(&states[40], &exact) < 1e-6);
    for wrong in [FewSteps::new(0, Method::Euler), FewSteps::new(1, Method::Euler).with_end_time(0.0)] {
        assert!(sample_few_steps(&field, &noise, None, wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn reflow_and_distillation_agree_with_the_field_they_come_from() {
    let (m, d, end_time) = (0.7, 2.0, 0.5);
    // At constant speed along straight lines: x_t = (1 - s)(m + d·ε) + s·ε.
    let field = Affine(move |t: f64| {
        let s = t / end_time;
        let slope = (1.0 - d) / ((1.0 - s) * d + s);
        (slope / end_time, (-m - slope * (1.0 - s) * m) / end_time)
    });
    let noise = normal(3, &[20, 1]);
    let data = reflow_pairs(&field, &noise, None, FewSteps::new(3, Method::Midpoint).with_end_time(end_time)).unwrap();
    assert!(distance(&data, &noise.affine(d, m).unwrap()) < 1e-12);
    let matching = FlowMatching { end_time, ..FlowMatching::default() };
    let pairs = matching.pairs_with(&data, &noise, 20, &mut FlowRng::seed_from(1)).unwrap();
    assert!(values(&velocity_error(&field, &pairs, None).unwrap()).iter().all(|&e| e < 1e-20));
    let loss = |data: &Tensor| values(&distillation_loss(&field, &noise, data, None, end_time).unwrap())[0];
    assert!(loss(&data) < 1e-20);
    // Moved by 0.3, every prediction is 0.3 off.
    assert!((loss(&data.affine(1.0, 0.3).unwrap()) - 0.09).abs() < 1e-12);
}

#[test]
fn times_are_distributed_as_they_say() {
    const COUNT: usize = 4000;
    let draw = |times: TimeSampling| {
        let mut s = times.draw(COUNT, &mut FlowRng::seed_from(8));
        assert!(s.iter().all(|s| (0.0..1.0).contains(s)));
        s.sort_by(f64::total_cmp);
        s
    };
    // Kolmogorov's distance; 1.95/√n is exceeded once in a thousand draws.
    let gap = |s: &[f64], cdf: &dyn Fn(f64) -> f64| {
        s.iter().enumerate().map(|(i, &s)| (cdf(s) - i as f64 / COUNT as f64).abs()).fold(0.0, f64::max)
    };
    let limit = 1.95 / (COUNT as f64).sqrt();
    assert!(gap(&draw(TimeSampling::Uniform), &|s| s) < limit);
    // One in every part: the distance is below the width of a part.
    assert!(gap(&draw(TimeSampling::Stratified), &|s| s) <= 1.0 / COUNT as f64);
    let tilted = draw(TimeSampling::LogitNormal { mean: 0.5, std: 1.0 });
    let (median, upper) = (1.0 / (1.0 + (-0.5_f64).exp()), 1.0 / (1.0 + (-1.5_f64).exp()));
    let below = |bound: f64| tilted.iter().filter(|&&s| s < bound).count() as f64 / COUNT as f64;
    assert!((below(median) - 0.5).abs() < limit && (below(upper) - 0.841_345).abs() < limit);
}

#[test]
fn planned_noise_is_paired_and_stays_standard_normal() {
    const POINTS: usize = 400;
    let shape = normal(2, &[POINTS, 2]).affine(0.5, 1.0).unwrap();
    let plan = OfflinePlan::new(std::slice::from_ref(&shape), POINTS, 5).unwrap();
    assert_eq!((plan.shapes(), plan.points(0), plan.points(1)), (1, Some(POINTS), None));
    let all: Vec<usize> = (0..POINTS).collect();
    let draw = |rows: &[usize], blend: f64, seed: u64| {
        let mut rng = FlowRng::seed_from(seed);
        plan.noise(0, rows, blend, &mut rng, DType::F64, &Device::Cpu).unwrap()
    };
    // The pairs are as close as exact transport makes them, and a part of them is the same pairs.
    let paired = draw(&all, 0.0, 1);
    let again = OfflinePlan::new(std::slice::from_ref(&shape), 1, 5).unwrap();
    let unmatched = again.noise(0, &all, 0.0, &mut FlowRng::seed_from(1), DType::F64, &Device::Cpu).unwrap();
    let apart = |noise: &Tensor| values(&(&shape - noise).unwrap().sqr().unwrap().sum_all().unwrap())[0];
    assert!(apart(&paired) < 0.6 * apart(&unmatched), "{} {}", apart(&paired), apart(&unmatched));
    assert!(distance(&draw(&[7, 3], 0.0, 2).narrow(0, 1, 1).unwrap(), &paired.narrow(0, 3, 1).unwrap()) == 0.0);
    // Means, variances and the correlation of the blend, within four standard errors over all draws.
    for blend in [0.0, 0.2, 0.7, 1.0] {
        let draws: Vec<f64> = (0..10).flat_map(|seed| values(&draw(&all, blend, seed))).collect();
        // Without fresh noise the ten draws are one and the same.
        let n = if blend == 0.0 { POINTS as f64 } else { POINTS as f64 * 2.0 };
        let moment = |f: &dyn Fn(&[f64]) -> f64| draws.chunks(2).map(f).sum::<f64>() / (draws.len() / 2) as f64;
        for k in 0..2 {
            assert!(moment(&|r| r[k]).abs() < 4.0 / n.sqrt(), "mean with {blend}");
            assert!((moment(&|r| r[k] * r[k]) - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "variance with {blend}");
        }
        assert!(moment(&|r| r[0] * r[1]).abs() < 4.0 / n.sqrt(), "correlation with {blend}");
    }
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<OfflinePlan>(&text).unwrap(), plan);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let x = normal(1, &[6, 2]);
    let mut rng = FlowRng::seed_from(1);
    let base = FlowMatching::default();
    let cases = [
        (FlowMatching { end_time: 0.0, ..base.clone() }, "end_time: is 0"),
        (FlowMatching { sigma_min: 1.0, ..base.clone() }, "sigma_min: is 1"),
        (ot(0), "coupling.block: is 0"),
        (
            FlowMatching { times: TimeSampling::LogitNormal { mean: 0.0, std: 0.0 }, ..base.clone() },
            "logit-normal times",
        ),
    ];
    for (matching, expected) in cases {
        let message = matching.pairs(&x, 1, &mut rng).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(matches!(base.pairs(&x, 4, &mut rng), Err(Error::Context { .. })));
    assert!(matches!(base.pairs(&normal(1, &[6]), 1, &mut rng), Err(Error::Shape { .. })));
    assert!(matches!(base.pairs_with(&x, &normal(1, &[6, 3]), 1, &mut rng), Err(Error::Shape { .. })));
    let plan = OfflinePlan::new(std::slice::from_ref(&x), 6, 1).unwrap();
    let mut draw = |shape, rows: &[usize], blend| plan.noise(shape, rows, blend, &mut rng, DType::F64, &Device::Cpu);
    assert!(draw(1, &[0], 0.0).is_err() && draw(0, &[6], 0.0).is_err() && draw(0, &[0], 1.5).is_err());
    assert!(OfflinePlan::new(&[], 1, 1).is_err() && OfflinePlan::new(&[normal(1, &[3])], 1, 1).is_err());
    let text = r#"{"coupling": {"kind": "minibatch-ot", "block": 32}, "times": {"kind": "stratified"}}"#;
    let read: FlowMatching = serde_json::from_str(text).unwrap();
    assert_eq!(read, FlowMatching { times: TimeSampling::Stratified, ..ot(32) });
    assert!(serde_json::from_str::<FlowMatching>(r#"{"sigma": 1}"#).is_err());
}

/// A field that has a context of its own for every row.
struct Conditional;

impl VectorField for Conditional {
    fn name(&self) -> String {
        "conditional".into()
    }
    fn dim(&self) -> usize {
        2
    }
    fn context_dim(&self) -> Option<usize> {
        Some(1)
    }
    fn value(&self, _t: &Tensor, x: &Tensor, _context: Option<&Tensor>) -> Result<Tensor> {
        Ok(x.clone())
    }
    fn jvp(&self, _: &Tensor, x: &Tensor, v: &[Tensor], _: Option<&Tensor>) -> Result<(Tensor, Vec<Tensor>)> {
        Ok((x.clone(), v.to_vec()))
    }
}

#[test]
fn transport_across_contexts_is_refused() {
    let (x, context) = (normal(1, &[6, 2]), normal(2, &[6, 1]));
    let mut rng = FlowRng::seed_from(1);
    let error = ot(6).loss(&Conditional, &x, Some(&context), 6, &mut rng).unwrap_err();
    assert!(error.to_string().contains("across contexts"), "{error}");
    let context = context.narrow(0, 0, 2).unwrap();
    assert!(ot(3).loss(&Conditional, &x, Some(&context), 2, &mut rng).is_ok());
}
