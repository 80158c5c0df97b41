//! GraphAF computes in Candle's operations what its fused passes compute on the CPU.

use flow_core::testing::{Comparison, Elsewhere, Found, all_on_second_device, in_composed_operations, randomise};
use flow_core::train::{EmaConfig, OptimizerConfig, TrainConfig};
use flow_core::{FlowRng, Gradients, ParamStore};
use flow_graph::candle_core::{DType, Device};
use flow_graph::model::{GraphAf, GraphAfConfig, Head, SampleOptions, Sequence, Vocabulary, random_order};
use flow_graph::optimize::{PolicyTask, PpoConfig, Reward};
use flow_graph::trainer::{GraphRun, GraphTask};
use flow_graph::{Molecule, Result, smiles};

const ALL: [Comparison; 4] =
    [("likelihoods", likelihoods), ("sampling", sampling), ("training", training), ("fine-tuning", fine_tuning)];

#[test]
fn composed() {
    in_composed_operations(&ALL);
}

#[test]
fn on_a_gpu() {
    all_on_second_device("GraphAF", &ALL);
}

fn molecules() -> Vec<Molecule> {
    ["CC(C)O", "C1CC1N", "CCOC", "OCC=C", "C#CCO", "CNC"].iter().map(|s| smiles::parse(s).unwrap()).collect()
}

/// Both heads, small.
fn configs() -> [(&'static str, GraphAfConfig); 2] {
    let vocabulary = Vocabulary::of(molecules()).unwrap();
    let mut categorical = GraphAfConfig::spline(vocabulary.clone(), 8);
    (categorical.width, categorical.head) = (12, Head::Categorical { hidden: vec![16, 9] });
    let mut gaussian = GraphAfConfig::paper(vocabulary, 8);
    (gaussian.width, gaussian.head) = (12, Head::Gaussian { layers: 3, hidden: 10, noise: 0.9 });
    [("categorical", categorical), ("gaussian", gaussian)]
}

fn sequences(config: &GraphAfConfig) -> Vec<Sequence> {
    molecules().iter().map(|m| Sequence::new(m, &config.vocabulary).unwrap()).collect()
}

fn model(config: &GraphAfConfig, device: &Device) -> Result<GraphAf> {
    let store = ParamStore::new(1, DType::F32, device);
    let model = GraphAf::new(config.clone(), &store)?;
    randomise(&store, 0.1, &mut FlowRng::seed_from(2))?;
    Ok(model)
}

fn likelihoods(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let model = model(&config, device)?;
            let mut rng = FlowRng::seed_from(3);
            let all = sequences(&config);
            let ordered = all.iter().map(|s| random_order(s, &config, &mut rng)).collect::<Result<Vec<_>>>()?;
            model.initialize(&ordered)?;
            let log_probs = model.log_prob(&ordered, &mut FlowRng::seed_from(4))?.log_probs;
            let mut gradients = Gradients::new(model.store());
            let scored = model.backward(&ordered, &mut FlowRng::seed_from(4), &mut gradients)?;
            let found = Found::default().params(model.store())?.numbers("log_prob", log_probs);
            Ok(found.numbers("log_prob with gradients", scored.log_probs).gradients(&gradients)?)
        });
    }
}

/// Molecules are drawn on the CPU from copies of the weights: the same ones.
fn sampling(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-4, |device| -> Result<Found> {
            let model = model(&config, device)?;
            let drawn = model.sample(12, &SampleOptions::default(), &mut FlowRng::seed_from(5))?;
            let atoms = drawn.iter().flat_map(|g| g.sequence.atoms.iter().map(|&code| f64::from(code)));
            let orders = drawn.iter().flat_map(|g| g.sequence.bonds.iter().map(|b| f64::from(b.bond.order())));
            Ok(Found::default().numbers("atoms", atoms).numbers("bonds", orders))
        });
    }
}

/// Twenty steps. A step of Adam turns the sign of a gradient near zero into a whole step, so that rounding grows from step
/// to step: hence a thousandth.
fn train_config() -> TrainConfig {
    TrainConfig {
        steps: 20,
        optimizer: OptimizerConfig::adam(3e-3),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig { decay: 0.9 }),
        validate_every: Some(10),
        ..TrainConfig::default()
    }
}

fn training(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-3, |device| -> Result<Found> {
            let (run, all) = (GraphRun::new(config.clone(), "a few", 4, 1), sequences(&config));
            Ok(Found::default().training(train_config(), GraphTask::new(run, all.clone(), all, device)?)?)
        });
    }
}

/// The share of atoms that are oxygen.
struct Oxygen;

impl Reward for Oxygen {
    fn name(&self) -> &str {
        "oxygen"
    }

    fn property(&self, molecule: &Molecule) -> f64 {
        let oxygen = flow_graph::Element::OXYGEN;
        molecule.atoms().filter(|a| a.element == oxygen).count() as f64 / molecule.len().max(1) as f64
    }
}

fn fine_tuning(elsewhere: &Elsewhere) {
    for (what, config) in configs() {
        elsewhere.hold(what, 1e-3, |device| -> Result<Found> {
            let mut ppo = PpoConfig::default();
            (ppo.batch, ppo.updates, ppo.max_atoms, ppo.min_atoms) = (16, 3, 8, 2);
            let run = GraphRun::new(config.clone(), "a few", 4, 1);
            let task = PolicyTask::new(run, model(&config, device)?, ppo, Oxygen)?;
            Ok(Found::default().training(TrainConfig { validate_every: None, ..train_config() }, task)?)
        });
    }
}
