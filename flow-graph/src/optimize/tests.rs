use candle_core::{DType, Device, Tensor};
use flow_core::numerics::host;
use flow_core::testing::ThreadRanks;
use flow_core::train::{OptimizerConfig, ScheduleConfig, TrainConfig, Trainer};
use flow_core::{FlowRng, Gradients, ParamStore};

use super::ppo::{PpoConfig, Rollout, advantages, update};
use super::*;
use crate::model::rules::Rules;
use crate::model::{GraphAf, GraphAfConfig, Head, SampleOptions, Sequence, Vocabulary};
use crate::molecule::{Atom, Element, Molecule};
use crate::trainer::GraphRun;

/// The fraction of oxygen.
struct Oxygen;

impl Reward for Oxygen {
    fn name(&self) -> &str {
        "oxygen"
    }

    fn property(&self, molecule: &Molecule) -> f64 {
        let count = molecule.atoms().filter(|a| a.element == Element::OXYGEN).count();
        count as f64 / molecule.len().max(1) as f64
    }
}

fn config() -> GraphAfConfig {
    let types = [Element::CARBON, Element::NITROGEN, Element::OXYGEN].map(Atom::neutral);
    let config = GraphAfConfig::spline(Vocabulary::new(types.to_vec()).unwrap(), 8);
    GraphAfConfig { width: 12, head: Head::Categorical { hidden: vec![16] }, ..config }
}

fn run(model: GraphAfConfig) -> GraphRun {
    GraphRun { model, source: "none".into(), batch: 1, seed: 1, validation_molecules: 1 }
}

fn rollout(model: &GraphAf, rules: &Rules, advantages: Vec<f64>) -> (Vec<Sequence>, Rollout) {
    let drawn = model.sample(advantages.len(), &SampleOptions::default(), &mut FlowRng::seed_from(5)).unwrap();
    let sequences: Vec<Sequence> = drawn.into_iter().map(|g| g.sequence).collect();
    let rng = FlowRng::seed_from(9);
    let old = model.policy_scores(&sequences, rules, &mut rng.clone()).unwrap();
    let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let rollout = Rollout {
        atoms: sequences.iter().map(|s| s.atoms.to_vec()).collect(),
        bonds: Vec::new(),
        advantages,
        rng,
        old: old.into_iter().map(|v| (narrow(v.atoms), narrow(v.bonds))).collect(),
    };
    (sequences, rollout)
}

#[test]
fn at_the_old_policy_the_gradient_is_that_of_the_weighted_likelihood() {
    for config in [config(), GraphAfConfig::paper(Vocabulary::paper(), 8)] {
        let store = ParamStore::new(2, DType::F32, &Device::Cpu);
        let model = GraphAf::new(config, &store).unwrap();
        for param in store.trainable() {
            let noise = FlowRng::named(3, param.name()).normal(param.var().shape(), DType::F32, &Device::Cpu).unwrap();
            param.set(&(param.tensor() + (noise * 0.05).unwrap()).unwrap()).unwrap();
        }
        let rules = Rules::new(model.config(), true, 1);
        let ppo = PpoConfig { discount: 1.0, ..PpoConfig::default() };
        let (sequences, rollout) = rollout(&model, &rules, (0..20).map(|i| f64::from(i % 3) - 1.0).collect());
        let mut gradients = Gradients::new(&store);
        let report = update(&model, &rules, &ppo, (&sequences, &rollout), 0..sequences.len(), &mut gradients).unwrap();
        assert_eq!(report.clipped, 0.0);
        assert!(report.divergence.abs() < 1e-4);
        // The same by finite differences of Σ_m A_m Σ log p, the most telling entry of each parameter.
        let decisions = rollout.old.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>() as f64;
        let objective = || {
            let scores = model.policy_scores(&sequences, &rules, &mut rollout.rng.clone()).unwrap();
            let mut total = 0.0;
            for (chunk, part) in scores.iter().enumerate() {
                let pack_sequences = &sequences[chunk * 8..sequences.len().min(chunk * 8 + 8)];
                let pack = crate::model::pack::Pack::new(model.config(), pack_sequences, Some(&rules));
                let mut from = (0, 0);
                for (m, &to) in pack.ends.iter().enumerate() {
                    let sum: f64 = part.atoms[from.0..to.0].iter().chain(&part.bonds[from.1..to.1]).sum();
                    total -= rollout.advantages[chunk * 8 + m] * sum;
                    from = to;
                }
            }
            total / decisions
        };
        for param in store.trainable() {
            let Some(gradient) = gradients.get(&param) else { continue };
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let entry = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
            let values = param.var().as_detached_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let at = |shift: f32| {
                let mut moved = values.clone();
                moved[entry] += shift;
                param.set(&Tensor::from_vec(moved, param.var().shape(), &Device::Cpu).unwrap()).unwrap();
                objective()
            };
            let analytic = f64::from(gradient[entry]);
            // Steep directions curve, flat ones drown in the rounding of single precision.
            let step = (1e-2 / gradient[entry].abs()).clamp(1e-4, 2e-3);
            let numeric = (at(step) - at(-step)) / f64::from(2.0 * step);
            at(0.0);
            assert!(
                (numeric - analytic).abs() < 0.03 * analytic.abs() + 2e-4,
                "{}: {numeric} {analytic}",
                param.name()
            );
        }
    }
}

#[test]
fn moved_probabilities_are_cut() {
    let store = ParamStore::new(2, DType::F32, &Device::Cpu);
    let model = GraphAf::new(config(), &store).unwrap();
    let rules = Rules::new(model.config(), true, 1);
    let (sequences, mut rollout) = rollout(&model, &rules, vec![1.0; 10]);
    // As if every decision had become twice as likely since.
    for (atoms, bonds) in &mut rollout.old {
        atoms.iter_mut().chain(bonds).for_each(|x| *x -= 2f32.ln());
    }
    let mut gradients = Gradients::new(&store);
    let report =
        update(&model, &rules, &PpoConfig::default(), (&sequences, &rollout), 0..sequences.len(), &mut gradients)
            .unwrap();
    assert_eq!(report.clipped, 1.0);
    assert!(gradients.global_norm().unwrap() < 1e-12);
    // A negative advantage is not cut there.
    rollout.advantages = vec![-1.0; 10];
    let mut gradients = Gradients::new(&store);
    assert_eq!(
        update(&model, &rules, &PpoConfig::default(), (&sequences, &rollout), 0..sequences.len(), &mut gradients)
            .unwrap()
            .clipped,
        0.0
    );
    assert!(gradients.global_norm().unwrap() > 1e-3);
}

#[test]
fn advantages_survive_what_is_not_finite() {
    let a = advantages(&[1.0, f64::NAN, 3.0, f64::INFINITY]);
    assert!(a.iter().all(|x| x.is_finite()) && a[1] == a[0] && a[2] > 0.0);
    assert_eq!(advantages(&[2.0, 2.0]), [0.0, 0.0]);
    assert_eq!(advantages(&[f64::NAN; 2]), [0.0, 0.0]);
}

#[test]
fn fine_tuning_raises_a_property_and_resumes_to_the_same_bits() {
    let ppo = PpoConfig { batch: 64, updates: 3, max_atoms: 8, min_atoms: 3, ..PpoConfig::default() };
    let task = || {
        let model = GraphAf::new(config(), &ParamStore::new(1, DType::F32, &Device::Cpu)).unwrap();
        PolicyTask::new(run(config()), model, ppo.clone(), Oxygen).unwrap()
    };
    let train = |steps| TrainConfig {
        steps,
        optimizer: OptimizerConfig::adam(3e-3),
        schedule: ScheduleConfig::constant(0),
        validate_every: None,
        checkpoint_every: Some(40),
        ..TrainConfig::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let mut trainer = Trainer::new(train(100), &whole, task()).unwrap();
    trainer.run(&mut ()).unwrap();
    let best = trainer.task().best().to_vec();
    let mean = |t: &PolicyTask<Oxygen>| {
        let drawn =
            t.model().sample(300, &SampleOptions { min_atoms: 3, ..Default::default() }, &mut FlowRng::seed_from(1));
        let vocabulary = &t.model().config().vocabulary;
        drawn.unwrap().iter().map(|g| Oxygen.property(&g.sequence.molecule(vocabulary).unwrap())).sum::<f64>() / 300.0
    };
    let (before, after) = (mean(&task()), mean(trainer.task()));
    assert!(after > before + 0.3, "{before} {after}");
    assert!(best.len() > 3 && best.windows(2).all(|w| w[0].property >= w[1].property));
    // Stopped in the middle of the updates on one batch.
    Trainer::new(train(40), &parts, task()).unwrap().run(&mut ()).unwrap();
    let mut resumed = Trainer::resume(train(100), &parts, task()).unwrap();
    resumed.run(&mut ()).unwrap();
    assert_eq!(resumed.task().best(), best);
    for (a, b) in trainer.task().model().store().all().iter().zip(resumed.task().model().store().all()) {
        let bits = |p: &flow_core::Param| p.var().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(a), bits(&b), "{}", a.name());
    }
}

/// Each rank draws its part; the molecules, the best of them and the model are those of one process.
#[test]
fn ranks_draw_together_what_one_draws_alone() {
    let ppo = PpoConfig { batch: 50, updates: 3, max_atoms: 8, min_atoms: 3, ..PpoConfig::default() };
    let config = TrainConfig {
        steps: 12,
        optimizer: OptimizerConfig { epsilon: 1e-2, ..OptimizerConfig::adam(3e-3) },
        schedule: ScheduleConfig::constant(0),
        validate_every: Some(6),
        checkpoint_every: None,
        ..TrainConfig::default()
    };
    let train = |channel: Option<ThreadRanks>| {
        let model = GraphAf::new(super::tests::config(), &ParamStore::new(1, DType::F32, &Device::Cpu)).unwrap();
        let task = PolicyTask::new(run(super::tests::config()), model, ppo.clone(), Oxygen).unwrap();
        let trainer = Trainer::in_memory(config.clone(), task).unwrap();
        let mut trainer = match channel {
            Some(channel) => trainer.with_communicator(channel),
            None => trainer,
        };
        trainer.run(&mut ()).unwrap();
        let task = trainer.task();
        let weights = task.model().store().all().into_iter().flat_map(|p| host::numbers(p.var()).unwrap());
        (task.best().to_vec(), task.drawn(), weights.collect::<Vec<f64>>())
    };
    let (best, drawn, alone) = train(None);
    assert_eq!(drawn, 200);
    for ranks in [2, 7, 9] {
        for (found, count, weights) in ThreadRanks::run(ranks, |channel| train(Some(channel))) {
            assert_eq!((&found, count), (&best, drawn), "{ranks} ranks");
            let gap = alone.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(gap < 1e-4, "{ranks} ranks: {gap}");
        }
    }
}

#[test]
fn constrained_results_are_better_and_similar_enough() {
    let model = GraphAf::new(config(), &ParamStore::new(1, DType::F32, &Device::Cpu)).unwrap();
    let source = crate::smiles::parse("CCNCC").unwrap();
    let similarity = |m: &Molecule| Ok(if m.len().is_multiple_of(2) { 0.5 } else { 0.1 });
    let options = ConstrainedOptions { attempts: 60, removed: 4, max_atoms: 8, ..ConstrainedOptions::default() };
    let found = improve(&model, &source, &Oxygen, similarity, &options, &mut FlowRng::seed_from(2)).unwrap();
    assert!(found[3].is_none());
    for (improvement, threshold) in found.iter().zip(THRESHOLDS).take(3) {
        let improvement = improvement.as_ref().unwrap();
        let molecule = crate::smiles::parse(&improvement.smiles).unwrap();
        assert!(improvement.similarity >= threshold && improvement.gain > 0.0);
        assert!((Oxygen.property(&molecule) - improvement.gain).abs() < 1e-12);
    }
    assert!(
        improve(
            &model,
            &source,
            &Oxygen,
            similarity,
            &ConstrainedOptions { attempts: 0, ..options },
            &mut FlowRng::seed_from(2)
        )
        .is_err()
    );
    assert!(PpoConfig { clip: 1.5, ..PpoConfig::default() }.check().is_err());
}
