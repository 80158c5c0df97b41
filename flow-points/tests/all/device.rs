//! PointFlow computes in Candle's operations what its kernels compute on the CPU.

use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise};
use flow_core::train::{EmaConfig, TrainConfig};
use flow_core::{FlowRng, Gradients, ParamStore};
use flow_points::candle_core::{DType, Device};
use flow_points::data::{Normalization, NormalizeMode, built_in};
use flow_points::model::{CompleteOptions, Draw, EncoderConfig, EncoderNorm, Objective, PointFlow, PointFlowConfig};
use flow_points::shapes::Family;
use flow_points::trainer::{PointRun, PointTask, train_config};
use flow_points::{Point, Result};

const ALL: [Comparison; 3] = [("models", models), ("searches", searches), ("training", training)];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("PointFlow", &ALL);
}

/// Both objectives and both norms of the encoder, small; solvers with fixed steps, which rounding does not change.
fn configs() -> [(&'static str, PointFlowConfig); 4] {
    let small = |mut config: PointFlowConfig, norm: EncoderNorm| {
        let fixed = || SolveOptions::new(Method::Rk4, Stepping::fixed(3));
        config.latent = 4;
        config.encoder = EncoderConfig::new(&[8, 16], &[8]);
        config.encoder.norm = norm;
        (config.point.hidden, config.prior.hidden) = (vec![12, 10], vec![9]);
        match &mut config.objective {
            Objective::Likelihood(likelihood) => likelihood.solver = fixed(),
            Objective::Matching(matching) => (matching.solver, matching.sampler) = (fixed(), fixed()),
            _ => {}
        }
        config
    };
    [
        ("likelihood", small(PointFlowConfig::paper(), EncoderNorm::Batch)),
        ("auto-encoder", small(PointFlowConfig::paper_auto_encoder(), EncoderNorm::Layer)),
        ("matching", small(PointFlowConfig::matching(), EncoderNorm::Batch)),
        ("embedded", small(PointFlowConfig::embedded(), EncoderNorm::Layer)),
    ]
}

fn model(config: &PointFlowConfig, device: &Device) -> Result<PointFlow> {
    let store = ParamStore::new(1, DType::F32, device);
    let model = PointFlow::new(config.clone(), &store)?;
    randomise(&store, 0.1, &mut FlowRng::seed_from(2))?;
    Ok(model)
}

fn models(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let model = model(&config, device)?;
            let clouds = FlowRng::seed_from(3).normal((3, 16, 3), DType::F32, device)?;
            let mut gradients = Gradients::new(model.store());
            let terms = model.backward(&clouds, &mut FlowRng::seed_from(4), &mut gradients)?;
            let found = Found::default().numbers("terms", terms.iter().map(|term| term.value));
            // Running statistics have moved.
            let found = found.gradients(&gradients)?.params(model.store())?;
            model.set_training(false);
            let terms = model.evaluate(&clouds, &mut FlowRng::seed_from(4))?;
            let _paused = model.store().no_grad();
            let latents = model.posterior(&clouds)?.mean;
            model.set_noise(&mut FlowRng::seed_from(6));
            let points = model.log_prob_points(&clouds, &latents)?;
            let (drawn, _) = model.decode(&latents, 16, &Draw::default(), &mut FlowRng::seed_from(5))?;
            let of_prior = match model.has_prior() {
                true => model.sample_latents(3, &Draw::default(), &mut FlowRng::seed_from(5))?,
                false => latents.clone(),
            };
            let found = found.numbers("evaluated", terms.iter().map(|term| term.value)).tensor("latents", &latents)?;
            let found = found.tensor("log_prob of points", &points)?.tensor("drawn points", &drawn)?;
            Ok(found.tensor("drawn latents", &of_prior)?)
        });
    }
}

/// Ten steps of Adam, which turn the sign of a gradient near zero into whole steps: a thousandth.
fn searches(elsewhere: &Elsewhere) {
    for (what, config) in configs().into_iter().filter(|(what, _)| *what != "auto-encoder") {
        elsewhere.hold(what, 1e-3, |device| -> Result<Found> {
            let model = model(&config, device)?;
            model.set_training(false);
            let partial = FlowRng::seed_from(3).normal((12, 3), DType::F32, device)?;
            let first = FlowRng::seed_from(4).normal((1, 4), DType::F32, device)?;
            let mut options = CompleteOptions::default();
            options.starts = 2;
            options.search.steps = 10;
            let (latent, value) = model.complete(&partial, &first, &options, &mut FlowRng::seed_from(5))?;
            Ok(Found::default().tensor("latent", &latent)?.numbers("objective", [value]))
        });
    }
}

/// Twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding grows from step
/// to step: hence a thousandth.
fn training(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-3, |device| -> Result<Found> {
            let clouds: Vec<Vec<Point>> = built_in(&[Family::Mug], 8, 32)?.train.clouds;
            let normalization = Normalization::of(&clouds, NormalizeMode::Set)?;
            let engine = TrainConfig {
                ema: Some(EmaConfig { decay: 0.9 }),
                validate_every: Some(10),
                ..train_config(&config.objective, 20, 1)
            };
            let mut run = PointRun::new(config.clone(), "mugs", normalization);
            (run.batch, run.points, run.validation_clouds) = (4, 16, 4);
            Ok(Found::default().training(engine, PointTask::new(run, &clouds, &clouds, device)?)?)
        });
    }
}
