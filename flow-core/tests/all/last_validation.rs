//! The validation of a run that was stopped between two of its own.

use std::fs;
use std::path::Path;

use crate::toy::{Bend, Toy, assert_same_checkpoint, config};
use flow_core::train::{Checkpoints, StopFlag, TrainConfig, Trainer};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Trains to the end with an objective that is a function of the step.
fn run(config: TrainConfig, out: &Path, objective: fn(u64) -> f64) -> flow_core::train::Summary {
    let toy = Toy::new(8, Bend { objective: Some(objective), ..Bend::default() });
    Trainer::resume_or_start(config, out, toy).unwrap().run(&mut ()).unwrap()
}

/// As [`run`], stopped in the step with index `at`.
fn stopped(config: TrainConfig, out: &Path, at: u64, objective: fn(u64) -> f64) -> Trainer<Toy> {
    let stop = StopFlag::new();
    let bend = Bend { stop_at: Some((at, stop.clone())), objective: Some(objective), ..Bend::default() };
    let mut trainer = Trainer::resume_or_start(config, out, Toy::new(8, bend)).unwrap().with_stop(stop);
    trainer.run(&mut ()).unwrap();
    trainer
}

#[test]
fn it_happens_once_and_counts_for_nothing_else() {
    let objective = |steps: u64| 10.0 - steps as f64;
    let (whole, parts) = (folder(), folder());
    run(config(23), whole.path(), objective);
    let mut trainer = stopped(config(23), parts.path(), 6, objective);
    let before = trainer.state().stale_validations;
    let metrics = trainer.validate_last(&mut ()).unwrap().unwrap();
    assert_eq!(
        (metrics.objective.value, trainer.state().best_step, trainer.state().stale_validations),
        (3.0, 7, before)
    );
    let best: serde_json::Value =
        serde_json::from_slice(&fs::read(parts.path().join("checkpoints/best/state.json")).unwrap()).unwrap();
    assert_eq!(best["step"], 7);
    drop(trainer);
    // Once is enough, and step 10 is validated by the schedule.
    let mut again = Trainer::resume(config(23), parts.path(), Toy::new(8, Bend::default())).unwrap();
    assert!(again.validate_last(&mut ()).unwrap().is_none());
    drop(again);
    assert!(stopped(config(23), parts.path(), 9, objective).validate_last(&mut ()).unwrap().is_none());
    run(config(23), parts.path(), objective);
    let last = |out: &TempDir| Checkpoints::new(out.path()).at(23);
    assert_same_checkpoint(&last(&whole), &last(&parts));
}

/// What is found by the way must not be held against the validations that count.
#[test]
fn patience_does_not_see_it() {
    let objective = |steps: u64| match steps {
        0..=10 => 1.0,
        11..=19 => 0.8,
        _ => 0.9,
    };
    let config = TrainConfig { validate_every: Some(10), early_stop_patience: Some(1), ..config(30) };
    let out = folder();
    assert!(stopped(config.clone(), out.path(), 14, objective).validate_last(&mut ()).unwrap().is_some());
    let summary = run(config, out.path(), objective);
    // 0.9 at step 20 is better than 1.0, so the run goes on to its end; the best is what was found by the way.
    assert_eq!((summary.step, summary.best), (30, Some((0.8, 15))));
}
