//! The model against what it must be.

use candle_core::{DType, Device, Tensor};
use flow_core::testing::randomise;
use flow_core::{FlowRng, Gradients, ParamStore};

use super::bernoulli::{composed, log_likelihood, with_gradient};
use super::model::host;
use super::{BinaryImages, Dlgm, DlgmConfig, DlgmRun, Family, score};

const FAMILIES: [(Family, usize); 6] = [
    (Family::Planar, 0),
    (Family::Planar, 3),
    (Family::Radial, 2),
    (Family::Sylvester, 2),
    (Family::Nice, 2),
    (Family::Iaf, 2),
];

fn images(count: usize, shape: [usize; 2]) -> BinaryImages {
    let bits = (0..count * shape[0] * shape[1]).map(|i| u8::from(i * i % 7 == 2)).collect();
    BinaryImages::from_bits(bits, shape).unwrap()
}

fn model(family: Family, flows: usize, latents: usize) -> Dlgm {
    let store = ParamStore::new(3, DType::F64, &Device::Cpu);
    let config =
        DlgmConfig { latents, hidden: 6, pieces: 3, network: 5, units: 2, ..DlgmConfig::new([3, 4], family, flows) };
    let model = Dlgm::new(&store, &config).unwrap();
    randomise(&store, 0.1, &mut FlowRng::seed_from(1)).unwrap();
    model
}

fn batch(count: usize) -> Tensor {
    images(count, [3, 4]).batch(&(0..count).collect::<Vec<_>>(), DType::F64, &Device::Cpu).unwrap()
}

fn near(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    for (a, b) in host(a).unwrap().iter().zip(host(b).unwrap()) {
        assert!((a - b).abs() < tolerance * (1.0 + b.abs()), "{what}: {a} {b}");
    }
}

/// However many maps there are: eighty that each contract by a third would leave nothing of it.
#[test]
fn a_fresh_planar_posterior_is_nearly_its_gaussian() {
    let config = DlgmConfig { latents: 4, hidden: 6, pieces: 3, ..DlgmConfig::new([3, 4], Family::Planar, 80) };
    let model = Dlgm::new(&ParamStore::new(3, DType::F64, &Device::Cpu), &config).unwrap();
    let (x, noise) = (batch(5), model.noise(5, &mut FlowRng::seed_from(2)).unwrap());
    let code = model.code(&x).unwrap();
    let (z, log_q) = model.draw(&code, &noise).unwrap();
    let (mean, log_var) = (code.gaussian.narrow(1, 0, 4).unwrap(), code.gaussian.narrow(1, 4, 4).unwrap());
    let start = (mean + ((log_var.clone() * 0.5).unwrap().exp().unwrap() * &noise).unwrap()).unwrap();
    near(&z, &start, 0.2, "z");
    let density = (log_var + noise.sqr().unwrap()).unwrap().affine(-0.5, -0.5 * 1.837_877_066_409_345_5).unwrap();
    near(&log_q, &density.sum(1).unwrap(), 0.2, "log q");
}

#[test]
fn gradients_by_hand_are_those_of_the_graph_for_every_posterior() {
    for (family, flows) in FAMILIES {
        let (model, x) = (model(family, flows, 4), batch(5));
        let noise = model.noise(5, &mut FlowRng::seed_from(2)).unwrap();
        let [mut by_hand, mut by_graph] = [Gradients::new(model.store()), Gradients::new(model.store())];
        let terms = model.free_energy_backward(&x, &noise, 0.7, &mut by_hand).unwrap();
        let same = model.backward_by_graph(&x, &noise, 0.7, &mut by_graph).unwrap();
        near(&terms.log_q, &same.log_q, 1e-12, "log q");
        near(&terms.log_x, &same.log_x, 1e-12, "log x");
        near(&terms.log_z, &same.log_z, 1e-12, "log z");
        for ((param, hand), (_, graph)) in by_hand.iter().zip(by_graph.iter()) {
            near(hand.unwrap(), graph.unwrap(), 1e-11, &format!("{family:?} {}", param.name()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (bent, x) = (model(Family::Planar, 2, 4), batch(3));
    let noise = |rows: usize| bent.noise(rows, &mut FlowRng::seed_from(2)).unwrap();
    let mut gradients = Gradients::new(bent.store());
    for rows in [2, 6] {
        assert!(bent.free_energy_backward(&x, &noise(rows), 1.0, &mut gradients).is_err(), "{rows}");
    }
    let code = bent.code(&x).unwrap();
    assert!(bent.draw(&code, &noise(6)).is_ok() && bent.draw(&code, &noise(4)).is_err());
    let plain = model(Family::Planar, 0, 4);
    assert!(plain.draw(&code, &noise(3)).is_err() && bent.draw(&plain.code(&x).unwrap(), &noise(3)).is_err());
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    for (family, flows) in FAMILIES {
        let (model, x) = (model(family, flows, 4), batch(3));
        let noise = model.noise(3, &mut FlowRng::seed_from(2)).unwrap();
        let mut gradients = Gradients::new(model.store());
        model.free_energy_backward(&x, &noise, 0.7, &mut gradients).unwrap();
        for (param, found) in gradients.iter() {
            let (entries, found) = (host(param.var()).unwrap(), host(found.unwrap()).unwrap());
            // Some entries of each: the first, one in the middle, the last.
            for i in [0, entries.len() / 2, entries.len() - 1] {
                let at = |by: f64| {
                    let mut moved = entries.clone();
                    moved[i] += by;
                    param.set(&Tensor::from_vec(moved, param.var().dims(), &Device::Cpu).unwrap()).unwrap();
                    let terms = model.terms(&x, &model.code(&x).unwrap(), &noise).unwrap();
                    terms.free_energy(0.7).unwrap().to_scalar::<f64>().unwrap()
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                at(0.0);
                let gap = (slope - found[i]).abs();
                assert!(gap < 1e-6 * (1.0 + slope.abs()), "{family:?} {} {i}: {} {slope}", param.name(), found[i]);
            }
        }
    }
}

#[test]
fn the_likelihood_of_pixels_is_the_formula_and_survives_large_logits() {
    let logits = [-1e4, -30.0, -1.0, 0.0, 1e-9, 2.0, 30.0, 1e4];
    let rows: Vec<f64> = logits.iter().flat_map(|&l| [l, l, 0.5 * l]).collect();
    let logits = Tensor::from_vec(rows, (8, 3), &Device::Cpu).unwrap();
    let x = Tensor::from_vec([0.0, 1.0, 1.0].repeat(8), (8, 3), &Device::Cpu).unwrap();
    for dtype in [DType::F64, DType::F32] {
        let tolerance = if dtype == DType::F64 { 1e-12 } else { 1e-6 };
        let (logits, x) = (logits.to_dtype(dtype).unwrap(), x.to_dtype(dtype).unwrap());
        let expected = composed(&logits, &x).unwrap();
        near(&log_likelihood(&logits, &x).unwrap(), &expected, tolerance, "value");
        let (value, residual) = with_gradient(&logits, &x).unwrap();
        near(&value, &expected, tolerance, "value beside its gradient");
        let sigmoid = (logits.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap();
        near(&residual, &(&x - sigmoid).unwrap(), tolerance, "gradient");
    }
}

/// With one latent the integral over it can be done on a grid: importance sampling finds it, and the bound is above it.
#[test]
fn importance_sampling_finds_the_integral() {
    // Planar maps of the line contract where their parameters are small: they start from a wider Gaussian. Posteriors are
    // wider than the truth, so that weights stay bounded.
    for (family, flows, log_variance) in [(Family::Planar, 3, 3.5), (Family::Iaf, 1, 0.6)] {
        let model = model(family, flows, 1);
        for name in ["gaussian.weight", "gaussian.bias", "context.weight", "context.bias"] {
            let param = model.store().get(name).unwrap();
            let mut entries: Vec<f64> = host(param.var()).unwrap().iter().map(|v| 0.2 * v).collect();
            if name == "gaussian.bias" {
                entries[1] = log_variance;
            }
            param.set(&Tensor::from_vec(entries, param.var().dims(), &Device::Cpu).unwrap()).unwrap();
        }
        let set = images(4, [3, 4]);
        let cells = 6000;
        let grid: Vec<f64> = (0..cells).map(|i| -10.0 + 20.0 * (f64::from(i) + 0.5) / f64::from(cells)).collect();
        let prior: Vec<f64> = grid.iter().map(|z| -0.5 * (z * z + std::f64::consts::TAU.ln())).collect();
        let logits = model.decode(&Tensor::from_vec(grid, (cells as usize, 1), &Device::Cpu).unwrap()).unwrap();
        let mut truth = 0.0;
        for place in 0..4 {
            let x = set.batch(&[place], DType::F64, &Device::Cpu).unwrap();
            let x = x.broadcast_as(logits.dims()).unwrap().contiguous().unwrap();
            let joint = host(&composed(&logits, &x).unwrap()).unwrap();
            let sum: f64 = joint.iter().zip(&prior).map(|(a, b)| (a + b).exp()).sum();
            truth -= (sum * 20.0 / f64::from(cells)).ln() / 4.0;
        }
        let report = score(&model, &set, 4, 40_000, &mut FlowRng::seed_from(5)).unwrap();
        assert!((report.nll.0 - truth).abs() < 0.01, "{family:?}: {report} {truth}");
        assert!(report.bound.0 > truth && report.effective > 0.1, "{family:?}: {report} {truth}");
    }
}

#[test]
fn annealing_ends_at_one_and_bad_numbers_are_refused() {
    let config = DlgmConfig::new([3, 4], Family::Planar, 2);
    let run = DlgmRun::new(config.clone(), "nowhere", 0);
    assert_eq!([0, 5000, 9_900, 1_000_000].map(|step| run.beta(step)), [0.01, 0.51, 1.0, 1.0]);
    assert_eq!(DlgmRun { anneal: 0, ..run }.beta(0), 1.0);
    for (bad, name) in [
        (DlgmConfig { latents: 0, ..config.clone() }, "latents"),
        (DlgmConfig { hidden: 0, ..config.clone() }, "hidden"),
        (DlgmConfig { pieces: 300, ..config.clone() }, "pieces"),
        (DlgmConfig { shape: [0, 4], ..config.clone() }, "pixels"),
        (DlgmConfig { flows: 5000, ..config.clone() }, "flows"),
        (DlgmConfig { family: Family::Nice, latents: 1, ..config }, "latents"),
    ] {
        let message = bad.check().unwrap_err().to_string();
        assert!(message.starts_with(name), "{message}");
    }
    assert!(score(&model(Family::Planar, 1, 2), &images(2, [3, 4]), 0, 1, &mut FlowRng::seed_from(1)).is_err());
}
