//! Runs that the `density` program made before this crate was taken out of it.

use std::path::{Path, PathBuf};

use candle_core::Device;
use flow_core::FlowRng;
use flow_core::cnf::ode::Method;
use flow_core::train::{RecordKind, TrainConfig, Trainer, load, read_log};
use flow_density::data::Source;
use flow_density::metrics::evaluate;
use flow_density::model::{Kind, ModelConfig};
use flow_density::trainer::{DensityRun, DensityTask, NLL, train_config};

/// Family, data, layers, hidden layers, and held-out nats after each of three steps. Those of tables are from before; those of
/// toys, whose points are drawn, from when each row of a batch got a stream of its own.
type Trained = (Kind, &'static str, usize, &'static [usize], [f64; 3]);

const RUNS: [Trained; 9] = [
    (Kind::Realnvp, "moons", 2, &[8], [3.375874, 3.368609, 3.368541]),
    (Kind::Maf, "moons", 2, &[8], [3.378882, 3.374769, 3.374733]),
    (Kind::Spline, "moons", 2, &[8], [3.330960, 3.299574, 3.299339]),
    (Kind::Planar, "moons", 4, &[], [3.457066, 3.445735, 3.445629]),
    (Kind::Ffjord, "moons", 1, &[8], [3.390153, 3.385605, 3.385561]),
    (Kind::Matching, "moons", 1, &[8], [3.350754, 3.349337, 3.349324]),
    (Kind::Realnvp, "three.csv", 2, &[8], [4.274310, 4.268592, 4.268519]),
    (Kind::Maf, "three.csv", 2, &[8], [4.277875, 4.274560, 4.274538]),
    (Kind::Ffjord, "three.csv", 1, &[8], [4.379378, 4.370789, 4.370692]),
];

/// Folders of `tests/all/fixtures`: checkpoints after three steps, with points that were drawn from them; nats of test rows.
const CHECKPOINTS: [(&str, Option<f64>); 4] = [
    ("realnvp-table", Some(4.309150)),
    ("maf-table", Some(4.315995)),
    ("ffjord-table", Some(4.486670)),
    ("distilled", None),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/fixtures").join(name)
}

/// The data of a run, wherever the program was when it was made.
fn source(data: &str) -> Source {
    if data.ends_with(".csv") { Source::Table(fixture(data)) } else { Source::named(data).unwrap() }
}

/// Gradients that are sums of other roundings, by other instructions of the processor, end a little elsewhere.
fn close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() < 2e-4 * (1.0 + expected.abs()), "{what}: {got}, before {expected}");
}

#[test]
fn checkpoints_load_and_draw_and_score_the_same() {
    for (name, nats) in CHECKPOINTS {
        let (run, model) = load::<DensityRun>(&fixture(name), &Device::Cpu, true).unwrap();
        let mut rng = FlowRng::named(3, "sample");
        let drawn = match run.is_distilled() {
            true => model.in_steps(&model.latents(6, 1.0, &mut rng).unwrap(), None, Method::Euler, 1).unwrap().unwrap(),
            false => model.density().sample(6, None, 1.0, &mut rng).unwrap(),
        };
        let drawn = run.standard.undo(&drawn).unwrap();
        let before = std::fs::read_to_string(fixture(name).join("samples.csv")).unwrap();
        let before: Vec<f64> = before.split([',', '\n']).filter_map(|cell| cell.parse().ok()).collect();
        assert_eq!((drawn.len(), before.len()), (6 * run.features(), 6 * run.features()), "{name}");
        drawn.iter().zip(before).for_each(|(&got, before)| close(got, before, name));
        let Some(nats) = nats else { continue };
        let data = source(&run.data).open(run.seed).unwrap();
        // The scale that is measured now is the one that was written down, but for the rounding to f32 that came before it
        // then, and a run goes on with its own.
        let (now, then) = (data.standard(), &run.standard);
        let pairs = now.mean.iter().zip(&then.mean).chain(now.std.iter().zip(&then.std));
        pairs.for_each(|(now, then)| assert!((now - then).abs() <= 1e-7 * (1.0 + then.abs()), "{now}, {then}"));
        let again = DensityRun::new(&run.data, &data, run.model.clone(), run.batch, run.seed).continuing(&run);
        assert_eq!(DensityRun { straightened: run.straightened.clone(), ..again }, run, "{name}");
        close(evaluate(model.density(), &run.standard, &data, 100, run.seed).unwrap().nll, nats, name);
    }
}

#[test]
fn the_same_seed_trains_the_same_model() {
    for (kind, name, layers, hidden, nats) in RUNS {
        let seed = 7;
        let data = source(name).open(seed).unwrap();
        let model = ModelConfig { layers, hidden: hidden.to_vec(), ..ModelConfig::preset(kind) };
        let run = DensityRun::new(name, &data, model, 32, seed);
        let task = DensityTask::new(run, data, &Device::Cpu).unwrap();
        let config = TrainConfig { ema: None, validate_every: Some(1), ..train_config(kind, 3, seed) };
        let folder = tempfile::tempdir().unwrap();
        Trainer::new(config, folder.path(), task).unwrap().run(&mut ()).unwrap();
        let log = read_log(&folder.path().join("log.jsonl")).unwrap();
        let validated = log.iter().filter(|record| record.kind == RecordKind::Validation);
        let found: Vec<f64> = validated.map(|record| record.get(NLL).unwrap()).collect();
        assert_eq!(found.len(), 3, "{kind} of {name}");
        found.into_iter().zip(nats).for_each(|(found, nats)| close(found, nats, &format!("{kind} of {name}")));
    }
}
