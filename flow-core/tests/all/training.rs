//! The training engine from outside: resume, recovery, guards, early stop, messages.

use std::fs;
use std::path::{Path, PathBuf};

use crate::toy::{Bend, Toy, assert_same_checkpoint, config, logged_steps};
use flow_core::Error;
use flow_core::train::{
    Checkpoints, EmaConfig, OptimizerConfig, RecordKind, ScheduleConfig, StopFlag, Summary, Task, TrainConfig, Trainer,
    find_checkpoint, load_config, load_train_config, load_weights, read_log, read_tensorboard, save_model,
};
use tempfile::TempDir;

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn run(config: TrainConfig, out: &Path, toy: Toy) -> (Summary, Toy) {
    let mut trainer = Trainer::resume_or_start(config, out, toy).unwrap();
    let summary = trainer.run(&mut ()).unwrap();
    (summary, trainer.into_task())
}

/// Trains until the flag is raised in the step with index `at`.
fn run_until(config: TrainConfig, out: &Path, at: u64) -> Summary {
    let stop = StopFlag::new();
    let toy = Toy::new(8, Bend { stop_at: Some((at, stop.clone())), ..Bend::default() });
    Trainer::resume_or_start(config, out, toy).unwrap().with_stop(stop).run(&mut ()).unwrap()
}

pub(crate) fn final_checkpoint(out: &Path, step: u64) -> PathBuf {
    Checkpoints::new(out).at(step)
}

#[test]
fn training_lowers_the_loss() {
    let out = folder();
    let (summary, toy) = run(config(60), out.path(), Toy::plain());
    assert_eq!((summary.step, summary.interrupted, summary.skipped), (60, false, 0));
    let records = read_log(&out.path().join("log.jsonl")).unwrap();
    let validations: Vec<f64> =
        records.iter().filter(|r| r.kind == RecordKind::Validation).map(|r| r.values[0].1).collect();
    assert_eq!(validations.len(), 12);
    assert!(validations[11] < validations[0] - 0.1, "{validations:?}");
    let (best, step) = summary.best.unwrap();
    assert_eq!(best, validations.iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(validations[step as usize / 5 - 1], best);
    assert_eq!(toy.weights().len(), 2 + 2 + 1 + 2 * (8 + 8 + 16));
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let whole = folder();
    run(config(23), whole.path(), Toy::plain());
    for stops in [vec![0], vec![3], vec![4], vec![10, 13], vec![5, 6, 21]] {
        let parts = folder();
        for &at in &stops {
            let summary = run_until(config(23), parts.path(), at);
            assert_eq!((summary.step, summary.interrupted), (at + 1, true));
        }
        let (summary, _) = run(config(23), parts.path(), Toy::plain());
        assert!(!summary.interrupted);
        assert_same_checkpoint(&final_checkpoint(whole.path(), 23), &final_checkpoint(parts.path(), 23));
        let best = |out: &TempDir| Checkpoints::new(out.path()).best().unwrap().unwrap();
        assert_same_checkpoint(&best(&whole), &best(&parts));
        assert_eq!(logged_steps(parts.path()), (1..=23).collect::<Vec<_>>(), "stops {stops:?}");
    }
}

#[test]
fn every_rule_and_schedule_resumes_to_the_same_bits() {
    let cosine = ScheduleConfig::cosine(3, 0.1);
    for optimizer in [OptimizerConfig::adam(0.01), OptimizerConfig::adamax(0.02)] {
        let config =
            TrainConfig { optimizer, schedule: cosine.clone(), ema: Some(EmaConfig { decay: 0.5 }), ..config(12) };
        let (whole, parts) = (folder(), folder());
        run(config.clone(), whole.path(), Toy::plain());
        run_until(config.clone(), parts.path(), 7);
        run(config, parts.path(), Toy::plain());
        assert_same_checkpoint(&final_checkpoint(whole.path(), 12), &final_checkpoint(parts.path(), 12));
    }
}

#[test]
fn looking_does_not_change_the_run() {
    let (busy, quiet) = (folder(), folder());
    let (_, a) = run(TrainConfig { schedule: ScheduleConfig::constant(2), ..config(12) }, busy.path(), Toy::plain());
    let blind = TrainConfig {
        schedule: ScheduleConfig::constant(2),
        validate_every: None,
        checkpoint_every: None,
        log_every: 100,
        ..config(12)
    };
    let (_, b) = run(blind, quiet.path(), Toy::plain());
    assert_eq!(a.weights(), b.weights());
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn leftovers_of_killed_writes_are_ignored_and_removed() {
    let (whole, broken) = (folder(), folder());
    run(config(23), whole.path(), Toy::plain());
    run_until(config(23), broken.path(), 9);
    let checkpoints = Checkpoints::new(broken.path());
    let good = checkpoints.at(10);
    let beside = |name: &str| good.parent().unwrap().join(name);
    // Killed while writing aside; a newer folder that lost half of a file; one that lost a whole file.
    for (name, file) in [(".new-step-00000012", "model.safetensors"), ("step-00000011", "optimizer.safetensors")] {
        copy_folder(&good, &beside(name));
        truncate(&beside(name).join(file));
    }
    copy_folder(&good, &beside("step-00000012"));
    fs::remove_file(beside("step-00000012").join("state.json")).unwrap();
    // Killed between the two renames that replace the best.
    fs::rename(beside("best"), beside(".old-best")).unwrap();
    assert_eq!(checkpoints.latest().unwrap(), Some(good.clone()));
    run(config(23), broken.path(), Toy::plain());
    assert_same_checkpoint(&final_checkpoint(whole.path(), 23), &final_checkpoint(broken.path(), 23));
    let best = |checkpoints: &Checkpoints| checkpoints.best().unwrap().unwrap();
    assert_same_checkpoint(&best(&Checkpoints::new(whole.path())), &best(&checkpoints));
    let names: Vec<_> = fs::read_dir(good.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().starts_with('.')), "{names:?}");
}

#[test]
fn keeps_the_last_and_the_best() {
    let out = folder();
    run(config(23), out.path(), Toy::plain());
    let checkpoints = Checkpoints::new(out.path());
    assert_eq!(checkpoints.steps().unwrap(), [21, 23]);
    assert_eq!(find_checkpoint(out.path()).unwrap(), checkpoints.best().unwrap().unwrap());
    assert_eq!(find_checkpoint(&checkpoints.at(21)).unwrap(), checkpoints.at(21));
    assert_eq!(find_checkpoint(checkpoints.at(21).parent().unwrap()).unwrap(), checkpoints.best().unwrap().unwrap());
    let message = find_checkpoint(&out.path().join("elsewhere")).unwrap_err().to_string();
    assert!(message.contains("elsewhere: holds no checkpoint; train a model first"), "{message}");
    assert!(matches!(Trainer::new(config(23), out.path(), Toy::plain()), Err(Error::Checkpoint { .. })));
    assert!(matches!(Trainer::resume(config(23), folder().path(), Toy::plain()), Err(Error::Checkpoint { .. })));
}

#[test]
fn weights_and_their_average_load_into_a_fresh_model() {
    let out = folder();
    let mut trainer = Trainer::new(config(23), out.path(), Toy::plain()).unwrap();
    trainer.run(&mut ()).unwrap();
    let at = final_checkpoint(out.path(), 23);
    let fresh = Toy::plain();
    load_weights(&at, fresh.store(), false).unwrap();
    assert_eq!(fresh.weights(), trainer.task().weights());
    load_weights(&at, fresh.store(), true).unwrap();
    assert_ne!(fresh.weights(), trainer.task().weights());
    trainer.ema().unwrap().swap().unwrap();
    assert_eq!(fresh.weights(), trainer.task().weights());
    assert_eq!(load_config(&at).unwrap(), serde_json::json!({"model": {"width": 8, "clamp": 0.1 + 0.2}}));
    assert_eq!(load_train_config(&at).unwrap(), Some(config(23)));

    let saved = out.path().join("model");
    for width in [3, 8] {
        let toy = Toy::new(width, Bend::default());
        save_model(&saved, toy.store(), toy.run()).unwrap();
    }
    load_weights(&saved, fresh.store(), false).unwrap();
    assert_eq!(fresh.weights(), Toy::plain().weights());
    assert_eq!(load_train_config(&saved).unwrap(), None);
    let message = load_weights(&saved, fresh.store(), true).unwrap_err().to_string();
    assert!(message.contains("ema.safetensors") && message.contains("no average"), "{message}");
}

#[test]
fn a_resume_with_other_settings_lists_what_differs() {
    let out = folder();
    run_until(config(23), out.path(), 9);
    let other = TrainConfig { optimizer: OptimizerConfig::adamw(0.5, 0.01), clip_norm: None, ..config(23) };
    let toy = Toy::new(9, Bend::default());
    let message = Trainer::resume(other, out.path(), toy).err().unwrap().to_string();
    for part in [
        "config.json",
        "model.width: checkpoint 8, asked 9",
        "optimizer.learning_rate: checkpoint 0.02, asked 0.5",
        "clip_norm: checkpoint 1.5, asked nothing",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("clamp"), "{message}");
    let longer = TrainConfig { keep_last: 5, checkpoint_every: Some(2), ..config(25) };
    let (summary, _) = run(longer, out.path(), Toy::plain());
    assert_eq!(summary.step, 25, "length and intervals may change");
    let message = load_weights(&final_checkpoint(out.path(), 25), Toy::new(9, Bend::default()).store(), false)
        .unwrap_err()
        .to_string();
    assert!(message.contains("model.safetensors") && message.contains("coupling0.b1"), "{message}");
}

#[test]
fn damaged_files_are_named_with_the_reason() {
    let out = folder();
    run_until(config(23), out.path(), 9);
    let good = final_checkpoint(out.path(), 10);
    type Damage = fn(&Path);
    let faults: [(&str, Damage); 5] = [
        ("empty", |p| fs::write(p, "").unwrap()),
        ("truncated", truncate),
        ("wrong magic", |p| fs::write(p, [0xff; 100]).unwrap()),
        ("folder", |p| {
            fs::remove_file(p).unwrap();
            fs::create_dir(p).unwrap();
        }),
        ("missing", |p| fs::remove_file(p).unwrap()),
    ];
    for (fault, damage) in faults {
        for name in ["config.json", "model.safetensors", "ema.safetensors"] {
            let copy = out.path().join("copy").join(fault).join(name);
            copy_folder(&good, &copy);
            damage(&copy.join(name));
            let toy = Toy::plain();
            let before = toy.weights();
            let error = load_weights(&copy, toy.store(), name == "ema.safetensors").unwrap_err();
            let Error::Checkpoint { path, reason } = &error else { panic!("{fault} {name}: {error:?}") };
            assert_eq!(path, &copy.join(name), "{fault}");
            assert!(!reason.is_empty() && !reason.contains('\n'), "{fault} {name}: {reason}");
            assert_eq!(toy.weights(), before, "an error changes nothing");
            println!("{fault} {name}: {reason}");
        }
        for name in ["config.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"] {
            let copy = out.path().join("run").join(fault).join(name);
            copy_folder(&good, &copy.join("checkpoints/step-00000010"));
            damage(&copy.join("checkpoints/step-00000010").join(name));
            assert_eq!(Checkpoints::new(&copy).latest().unwrap(), None, "{fault} {name} is not complete");
        }
    }
    let json = out.path().join("json");
    copy_folder(&good, &json);
    fs::write(json.join("config.json"), "{\n  \"version\": 1,\n  \"task\": }").unwrap();
    let message = load_config(&json).unwrap_err().to_string();
    assert!(message.contains("line 3 column"), "{message}");
    fs::write(json.join("config.json"), r#"{"version": 7, "task": {}}"#).unwrap();
    let message = load_config(&json).unwrap_err().to_string();
    assert!(message.contains("format version 7") && message.contains("reads version 1"), "{message}");
}

#[test]
fn non_finite_steps_are_skipped_and_counted() {
    let out = folder();
    let bend = || Bend { nan_at: [3, 6].into(), fail_at: [4].into(), ..Bend::default() };
    let constant = TrainConfig { schedule: ScheduleConfig::default(), ..config(9) };
    let (summary, toy) = run(constant.clone(), out.path(), Toy::new(8, bend()));
    assert_eq!((summary.step, summary.skipped), (9, 3));
    assert!(toy.weights().iter().all(|w| w.is_finite()));
    // A skipped step leaves the weights alone.
    let skipped = folder();
    let stop = |at: u64| {
        let out = folder();
        let flag = StopFlag::new();
        let toy = Toy::new(8, Bend { stop_at: Some((at, flag.clone())), ..bend() });
        let mut trainer = Trainer::new(constant.clone(), out.path(), toy).unwrap().with_stop(flag);
        trainer.run(&mut ()).unwrap();
        trainer.into_task().weights()
    };
    assert_eq!(stop(2), stop(3));
    assert_eq!(stop(2), stop(4));
    assert_ne!(stop(2), stop(5));
    // So does a solver that gave up, and too many of either in a row end the run.
    let stuck = Bend { stuck_at: [3, 4].into(), ..Bend::default() };
    let (summary, _) = run(constant.clone(), folder().path(), Toy::new(8, stuck));
    assert_eq!((summary.step, summary.skipped), (9, 2));
    let strict = TrainConfig { max_non_finite: 2, ..constant };
    let mut trainer = Trainer::new(strict.clone(), skipped.path(), Toy::new(8, bend())).unwrap();
    let message = trainer.run(&mut ()).unwrap_err().to_string();
    assert_eq!(message, "toy: non-finite log-determinant, 2 non-finite steps in a row at step 4");
    let stuck = Bend { stuck_at: [3, 4].into(), ..Bend::default() };
    let mut trainer = Trainer::new(strict.clone(), folder().path(), Toy::new(8, stuck)).unwrap();
    let message = trainer.run(&mut ()).unwrap_err().to_string();
    assert!(
        message.contains("the toy gave up") && message.contains("2 non-finite steps in a row at step"),
        "{message}"
    );
    let other = folder();
    let nan = Bend { nan_at: [5, 6].into(), ..Bend::default() };
    let error = Trainer::new(strict, other.path(), Toy::new(8, nan)).unwrap().run(&mut ()).unwrap_err();
    let Error::NonFinite { layer, step: Some(6), .. } = &error else { panic!("{error:?}") };
    assert_eq!(layer, "actnorm.bias", "the first parameter in name order");
}

#[test]
fn stops_early_and_cuts_the_rate_on_a_plateau() {
    // Better until the third validation, after six steps.
    let objective = |steps: u64| if steps <= 6 { 10.0 - steps as f64 } else { 5.0 };
    let bend = || Bend { objective: Some(objective), ..Bend::default() };
    let config = TrainConfig {
        validate_every: Some(2),
        early_stop_patience: Some(3),
        optimizer: OptimizerConfig::adam(0.08),
        schedule: ScheduleConfig::plateau(0, 0.5, 1),
        ..config(100)
    };
    let out = folder();
    let (summary, _) = run(config.clone(), out.path(), Toy::new(8, bend()));
    assert_eq!((summary.step, summary.stopped_early, summary.interrupted), (12, true, false));
    assert_eq!(summary.best, Some((4.0, 6)));
    let records = read_log(&out.path().join("log.jsonl")).unwrap();
    let rate = |step: u64| {
        records.iter().find(|r| r.step == step && r.kind == RecordKind::Train).unwrap().get("learning_rate").unwrap()
    };
    assert_eq!([7, 8, 9, 11, 12].map(rate), [0.08, 0.08, 0.04, 0.02, 0.02]);
    let (again, _) = run(config, out.path(), Toy::new(8, bend()));
    assert_eq!(again.step, 12, "a run that stopped early has stopped");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let out = folder();
    let held = fs::File::create(out.path().join(".lock")).unwrap();
    held.lock().unwrap();
    let error = Trainer::new(config(3), out.path(), Toy::plain()).unwrap().run(&mut ()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn tensorboard_holds_the_same_curve_as_the_log() {
    let out = folder();
    run_until(config(12), out.path(), 6);
    run(config(12), out.path(), Toy::plain());
    let mut files: Vec<PathBuf> =
        fs::read_dir(out.path().join("tensorboard")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let scalars: Vec<_> = files.iter().flat_map(|f| read_tensorboard(f).unwrap()).collect();
    let board: Vec<(u64, f32)> =
        scalars.iter().filter(|s| s.tag == "train/nats").map(|s| (s.step as u64, s.value)).collect();
    let records = read_log(&out.path().join("log.jsonl")).unwrap();
    let log: Vec<(u64, f32)> = records
        .iter()
        .filter(|r| r.kind == RecordKind::Train)
        .map(|r| (r.step, r.get("nats").unwrap() as f32))
        .collect();
    assert_eq!(board, log);
    assert_eq!(log.len(), 12);
}
