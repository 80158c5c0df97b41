//! Densities, variational fits and latent models compute in Candle's operations what their kernels compute on the CPU.

use candle_core::{DType, Tensor};
use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise};
use flow_core::train::{FitOptions, TrainConfig};
use flow_core::{FlowRng, Gradients, ParamStore};
use flow_density::Result;
use flow_density::data::{Data, Toy};
use flow_density::dlgm::{BinaryImages, Dlgm, DlgmConfig, DlgmRun, DlgmTask, Family, Parts, Stream, score};
use flow_density::model::{Kind, ModelConfig, Purpose};
use flow_density::posterior::{Pairs, fit_posterior};
use flow_density::trainer::{DensityRun, DensityTask, train_config};
use flow_density::variational::{Divergence, Energy, Estimator, Problem, VariationalOptions, fit_reverse_kl};

const ALL: [Comparison; 5] = [
    ("models", models),
    ("training", training),
    ("variational fits", variational),
    ("posteriors", posteriors),
    ("latent models", latent_models),
];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("densities", &ALL);
}

fn config(kind: Kind) -> ModelConfig {
    let mut config = ModelConfig::preset(kind);
    config.layers = if kind.is_continuous() { 1 } else { 2 };
    config.hidden = if kind.has_hidden_layers() { vec![10, 8] } else { Vec::new() };
    config.bins = 5;
    config
}

fn models(elsewhere: &Elsewhere) {
    for kind in Kind::ALL {
        for given in [0, 2] {
            elsewhere.hold(&format!("{kind} given {given}"), 1e-4, |device| -> Result<Found> {
                let store = ParamStore::new(1, DType::F32, device);
                // Continuous flows are solved tightly, so that what rounding does to steps is not seen.
                let model = config(kind).build_given(3, given, &store, Purpose::Use)?;
                randomise(&store, 0.1, &mut FlowRng::seed_from(2))?;
                let mut rng = FlowRng::seed_from(3);
                let x = rng.normal((5, 3), DType::F32, device)?;
                let context = (given > 0).then(|| rng.normal((5, given), DType::F32, device)).transpose()?;
                model.density().set_training(false);
                let found = Found::default().density(model.density(), &x, context.as_ref())?;
                let rng = &mut FlowRng::seed_from(4);
                let drawn = model.reparameterized().rsample_and_log_prob(5, context.as_ref(), rng);
                // Not every density has samples that can be differentiated, and it says so everywhere.
                match drawn {
                    Ok((x, log_prob)) => Ok(found.tensor("drawn", &x)?.tensor("log_prob of drawn", &log_prob)?),
                    Err(error) => Ok(found.numbers(&error.to_string(), [])),
                }
            });
        }
    }
}

/// The engine of twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding
/// grows from step to step: hence a thousandth.
fn engine(config: TrainConfig) -> TrainConfig {
    TrainConfig { steps: 20, validate_every: Some(20), ..config }
}

fn training(elsewhere: &Elsewhere) {
    for kind in Kind::ALL {
        elsewhere.hold(&format!("training of {kind}"), 1e-3, |device| -> Result<Found> {
            let data = Data::from_toy(Toy::Moons)?;
            let run = DensityRun::new("moons", &data, config(kind), 16, 1);
            let engine = engine(train_config(kind, 20, 1));
            // Two thousand rows are held out, which takes a continuous flow long.
            let engine =
                TrainConfig { validate_every: engine.validate_every.filter(|_| !kind.is_continuous()), ..engine };
            Ok(Found::default().training(engine, DensityTask::new(run, data, device)?)?)
        });
    }
}

/// The widest type there. Data-dependent initialisation leaves gradients that are zero but for rounding, which Adam divides by
/// 1e-8: in f32 that is a whole step in one direction or the other, and losses differ by some thousandths after a few; in f64
/// it is nothing.
fn widest(elsewhere: &Elsewhere) -> DType {
    elsewhere.dtypes().iter().copied().find(|&dtype| dtype == DType::F64).unwrap_or(DType::F32)
}

type Change = fn(VariationalOptions<'static>) -> VariationalOptions<'static>;

/// Noisy gradients of steep densities multiply rounding by ten or more from step to step: three steps show that nothing but rounding
/// differs, twenty that the fit is the same.
fn variational(elsewhere: &Elsewhere) {
    let dtype = widest(elsewhere);
    let lengths = if dtype == DType::F64 { [(3, 1e-9), (20, 1e-3)] } else { [(3, 1e-3), (20, 1e-2)] };
    let options = |steps| VariationalOptions::new(steps).samples(32).diagnostic_draws(200).learning_rate(0.01);
    let fits: [(&str, Change); 3] = [
        ("reverse", |o| o.annealing(0.5, 10)),
        ("total", |o| o.estimator(Estimator::Total).divergence(Divergence::Renyi { alpha: 0.5 })),
        ("forward", |o| o.divergence(Divergence::Forward)),
    ];
    let problems = [Problem::EightSchools, Problem::Bioassay, Problem::Banana, Problem::Funnel];
    for (problem, (what, change)) in problems.into_iter().zip(fits.into_iter().cycle()) {
        for (steps, tolerance) in lengths {
            elsewhere.hold(
                &format!("{}, {what}, {steps} steps", problem.name()),
                tolerance,
                |device| -> Result<Found> {
                    let q = problem.flow(&ParamStore::new(1, dtype, device))?;
                    let options = change(options(steps)).engine(|engine| engine.log_every = 1);
                    let fit = fit_reverse_kl(&q, |x: &Tensor| problem.log_density(x), options)?;
                    let losses = fit.curve.iter().map(|point| point.loss);
                    Ok(Found::default().numbers("losses", losses).numbers("elbo", [fit.diagnostics.elbo]))
                },
            );
        }
    }
    for (steps, tolerance) in lengths {
        elsewhere.hold(&format!("an energy by planar flows, {steps} steps"), tolerance, |device| -> Result<Found> {
            let q = flow_density::planar(2).transforms(4).build(&ParamStore::new(1, dtype, device))?;
            let options = options(steps).engine(|engine| engine.log_every = 1);
            let fit = fit_reverse_kl(&q, |x: &Tensor| Energy::U1.log_density(x), options)?;
            Ok(Found::default().numbers("losses", fit.curve.iter().map(|point| point.loss)))
        });
    }
}

fn posteriors(elsewhere: &Elsewhere) {
    let dtype = widest(elsewhere);
    let tolerance = if dtype == DType::F64 { 1e-6 } else { 1e-2 };
    elsewhere.hold("posterior", tolerance, |device| -> Result<Found> {
        let run = |rng: &mut FlowRng| {
            let theta = rng.next_normal();
            (vec![theta], vec![theta + 0.5 * rng.next_normal()])
        };
        let pairs = Pairs::simulate(60, run, &mut FlowRng::seed_from(1))?;
        let q = flow_density::nsf_coupling(1).transforms(2).hidden(&[8]).context(1);
        let q = q.build(&ParamStore::new(1, dtype, device))?;
        let options = FitOptions::new(20).learning_rate(0.01).engine(|engine| engine.log_every = 1);
        let (posterior, fit) = fit_posterior(&q, &pairs, options)?;
        let draws = posterior.sample(&[0.3], 10, &mut FlowRng::seed_from(2))?;
        let scores = posterior.log_prob(&pairs)?;
        let found = Found::default().numbers("losses", fit.curve.iter().map(|point| point.loss));
        Ok(found.numbers("draws", draws).numbers("scores", scores))
    });
}

fn images(seed: u64) -> Result<BinaryImages> {
    let mut rng = FlowRng::seed_from(seed);
    let grey: Vec<u8> = (0..24 * 16).map(|_| rng.below(256) as u8).collect();
    BinaryImages::binarize(&grey, 256, [4, 4], 0, Stream::Train)
}

fn latent_models(elsewhere: &Elsewhere) {
    for family in [Family::Planar, Family::Radial, Family::Sylvester, Family::Nice, Family::Iaf] {
        let mut config = DlgmConfig::new([4, 4], family, 2);
        (config.latents, config.hidden, config.pieces, config.network, config.units) = (3, 6, 2, 5, 2);
        elsewhere.hold(family.name(), 1e-4, |device| -> Result<Found> {
            let store = ParamStore::new(1, DType::F32, device);
            let model = Dlgm::new(&store, &config)?;
            randomise(&store, 0.1, &mut FlowRng::seed_from(2))?;
            let x = images(1)?.batch(&[0, 1, 2, 3, 4], DType::F32, device)?;
            let noise = model.noise(5, &mut FlowRng::seed_from(3))?;
            let mut gradients = Gradients::new(&store);
            let terms = model.free_energy_backward(&x, &noise, 0.7, &mut gradients)?;
            let mut found = Found::default().gradients(&gradients)?;
            for (what, t) in [("log q", &terms.log_q), ("log p(x)", &terms.log_x), ("log p(z)", &terms.log_z)] {
                found = found.tensor(what, t)?;
            }
            let drawn = model.sample(4, 1.0, &mut FlowRng::seed_from(4))?;
            let again = model.reconstruct(&x, &mut FlowRng::seed_from(5))?;
            let report = score(&model, &images(1)?, 4, 6, &mut FlowRng::seed_from(6))?;
            let found = found.tensor("drawn", &drawn)?.tensor("reconstructed", &again)?;
            Ok(found.numbers("report", [report.bound.0, report.kl.0, report.nll.0, report.effective]))
        });
        elsewhere.hold(&format!("training of {}", family.name()), 1e-3, |device| -> Result<Found> {
            let parts = Parts { train: images(1)?, validation: images(2)?, test: images(3)? };
            let mut run = DlgmRun::new(config.clone(), "noise", 1);
            (run.batch, run.validation_images) = (8, 8);
            let engine = engine(flow_density::dlgm::train_config(20, 1));
            Ok(Found::default().training(engine, DlgmTask::new(run, parts, device)?)?)
        });
    }
}
