//! Data parallelism from outside: ranks that are threads, and what one process does instead.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device};
use flow_core::testing::ThreadRanks;
use flow_core::train::{
    Checkpoints, Communicator, Fingerprint, FitOptions, OptimizerConfig, ScheduleConfig, StopFlag, Task, TrainConfig,
    Trainer, fit, read_log,
};
use flow_core::{Backprop, Error, Result};
use tempfile::TempDir;

use crate::toy::{Bend, Toy, assert_same_checkpoint, config, logged_steps, wide_weights};
use crate::training::{final_checkpoint, folder};

/// Trains one toy with as many ranks as `bends` is asked for; rank 0 has the folder. Weights or failure of each.
fn train(
    config: &TrainConfig,
    out: &Path,
    ranks: usize,
    bend: impl Fn(usize) -> (Bend, StopFlag) + Sync,
) -> Vec<Result<Vec<f64>>> {
    ThreadRanks::run(ranks, |rank| train_rank(config, out, rank, &bend))
}

fn train_rank(
    config: &TrainConfig,
    out: &Path,
    channel: ThreadRanks,
    bend: impl Fn(usize) -> (Bend, StopFlag),
) -> Result<Vec<f64>> {
    let (bend, stop) = bend(channel.rank());
    let toy = Toy::of(DType::F64, 8, bend);
    // Only the first rank sees the folder.
    let trainer = match channel.rank() {
        0 => Trainer::resume_or_start(config.clone(), out, toy)?,
        _ => Trainer::in_memory(config.clone(), toy)?,
    };
    let mut trainer = trainer.with_communicator(channel).with_stop(stop);
    trainer.run(&mut ())?;
    Ok(wide_weights(trainer.task().store()))
}

fn plain(_rank: usize) -> (Bend, StopFlag) {
    (Bend::default(), StopFlag::new())
}

fn bent(bend: impl Fn(usize) -> Bend) -> impl Fn(usize) -> (Bend, StopFlag) {
    move |rank| (bend(rank), StopFlag::new())
}

/// No round-off is blown up: epsilon is large.
fn smooth(steps: u64) -> TrainConfig {
    let optimizer = OptimizerConfig { epsilon: 1e-2, ..OptimizerConfig::adamw(0.02, 0.01) };
    TrainConfig { optimizer, schedule: ScheduleConfig::constant(4), ..config(steps) }
}

/// The weights that all ranks end with, which are the same bits.
fn common(outcomes: Vec<Result<Vec<f64>>>) -> Vec<f64> {
    let mut weights: Vec<Vec<f64>> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(weights.iter().all(|w| *w == weights[0]), "ranks stay together to the bit");
    weights.swap_remove(0)
}

/// The largest difference, relative to the size of the numbers.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs() / (1e-3 + x.abs().max(y.abs()))).fold(0.0, f64::max)
}

/// The values of a name in the log, training and validation.
fn logged(out: &Path, name: &str) -> Vec<f64> {
    read_log(&out.join("log.jsonl")).unwrap().iter().filter_map(|record| record.get(name)).collect()
}

#[test]
fn any_number_of_ranks_trains_the_model_of_one() {
    for (count, batch) in [(64, 16), (103, 5), (103, 3)] {
        let sizes = bent(|_| Bend { sizes: Some((count, batch)), ..Bend::default() });
        let run = |ranks: usize| -> (Vec<f64>, TempDir) {
            let out = folder();
            (common(train(&smooth(20), out.path(), ranks, &sizes)), out)
        };
        let (alone, solo) = run(1);
        let losses = logged(solo.path(), "nats");
        assert_eq!(losses.len(), 20 + 4, "steps and validations");
        for ranks in [2, 4] {
            let (together, out) = run(ranks);
            assert!(distance(&alone, &together) < 1e-6, "{ranks} ranks: {}", distance(&alone, &together));
            assert!(distance(&losses, &logged(out.path(), "nats")) < 1e-6, "{ranks} ranks");
            assert_eq!(logged_steps(out.path()), (1..=20).collect::<Vec<_>>(), "one log");
            // The same ranks again: the same bits.
            assert_eq!(run(ranks).0, together);
        }
    }
}

/// Statistics of a batch are those of all of its rows, wherever they are: in flow layers, networks and running averages.
#[test]
fn batch_statistics_are_those_of_all_ranks() {
    for backprop in [Backprop::Reversible, Backprop::Plain] {
        let normed = bent(move |_| Bend { sizes: Some((64, 7)), normed: true, backprop, ..Bend::default() });
        let run = |ranks: usize| -> (Vec<f64>, TempDir) {
            let out = folder();
            (common(train(&smooth(20), out.path(), ranks, &normed)), out)
        };
        let (alone, solo) = run(1);
        for ranks in [2, 3, 7] {
            let (together, out) = run(ranks);
            assert!(distance(&alone, &together) < 1e-6, "{ranks} ranks: {}", distance(&alone, &together));
            assert!(distance(&logged(solo.path(), "nats"), &logged(out.path(), "nats")) < 1e-6, "{ranks} ranks");
            assert_eq!(run(ranks).0, together);
        }
    }
    // A rank without a row would leave the others waiting.
    let normed = bent(|_| Bend { sizes: Some((64, 2)), normed: true, ..Bend::default() });
    let outcomes = train(&smooth(4), folder().path(), 3, &normed);
    assert!(outcomes.iter().any(|o| o.as_ref().is_err_and(|e| e.to_string().contains("every rank needs one"))));
    assert!(outcomes.iter().all(Result::is_err));
}

#[test]
fn ranks_that_initialise_by_themselves_are_found_out() {
    let own = bent(|_| Bend { own_initialization: true, ..Bend::default() });
    for outcome in train(&smooth(8), folder().path(), 2, own) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("the weights of rank 1 are no longer those of rank 0"), "{message}");
    }
}

#[test]
fn a_stop_asked_of_one_rank_stops_all_and_other_ranks_go_on() {
    let whole = folder();
    let expected = common(train(&smooth(16), whole.path(), 2, plain));
    let parts = folder();
    let stopped = train(&smooth(16), parts.path(), 2, |rank| {
        let stop = StopFlag::new();
        let stop_at = (rank == 1).then(|| (6, stop.clone()));
        (Bend { stop_at, ..Bend::default() }, stop)
    });
    common(stopped);
    assert_eq!(Checkpoints::new(parts.path()).steps().unwrap().last(), Some(&7));
    let (same, fewer, more) = (folder(), folder(), folder());
    for out in [&same, &fewer, &more] {
        let status = std::process::Command::new("cp").arg("-r").arg(parts.path().join(".")).arg(out.path()).status();
        assert!(status.unwrap().success());
    }
    assert_eq!(common(train(&smooth(16), same.path(), 2, plain)), expected, "two go on to the same bits");
    assert_same_checkpoint(&final_checkpoint(whole.path(), 16), &final_checkpoint(same.path(), 16));
    for (out, ranks) in [(&fewer, 1), (&more, 4)] {
        let weights = common(train(&smooth(16), out.path(), ranks, plain));
        assert!(distance(&weights, &expected) < 1e-6, "{ranks}: {}", distance(&weights, &expected));
    }
}

/// With batch statistics the others are in the middle of the step when one of them fails.
#[test]
fn one_bad_rank_makes_all_skip() {
    for normed in [false, true] {
        let bad = bent(move |rank| match rank {
            1 => Bend { fail_at: [2].into(), nan_at: [4].into(), stuck_at: [5].into(), normed, ..Bend::default() },
            _ => Bend { normed, ..Bend::default() },
        });
        let out = folder();
        let weights = common(train(&smooth(8), out.path(), 3, bad));
        assert!(weights.iter().all(|w| w.is_finite()));
        let state = fs::read_to_string(final_checkpoint(out.path(), 8).join("state.json")).unwrap();
        assert!(state.contains("\"total\": 3"), "{state}");
    }
    let bad = bent(|rank| Bend { stuck_at: (0..99).filter(|_| rank == 1).collect(), normed: true, ..Bend::default() });
    for outcome in train(&TrainConfig { max_non_finite: 3, ..smooth(8) }, folder().path(), 3, bad) {
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("rank 1") && message.contains("the toy gave up"), "{message}");
    }
}

#[test]
fn an_error_or_a_panic_of_one_rank_ends_all() {
    let panicked = |outcome: std::thread::Result<Result<Vec<f64>>>| outcome.map_or_else(|_| "panic".into(), described);
    for (bend, reason) in [
        (Bend { error_at: Some(3), ..Bend::default() }, "rank 1 of 3: toy: was told to fail"),
        (Bend { panic_at: Some(3), ..Bend::default() }, "rank 1 of 3: panicked"),
    ] {
        let out = folder();
        let bends = Mutex::new(Some(bend));
        let said = ThreadRanks::run(3, |channel| {
            let mine =
                |rank| if rank == 1 { bends.lock().unwrap().take().unwrap_or_default() } else { Bend::default() };
            let work = || train_rank(&smooth(8), out.path(), channel.clone(), bent(mine));
            panicked(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)))
        });
        for rank in [0, 2] {
            assert!(said[rank].contains(reason), "{said:?}");
        }
        assert_eq!(Checkpoints::new(out.path()).steps().unwrap(), [3], "the newest checkpoint is whole");
        assert_eq!(common(train(&smooth(8), out.path(), 1, plain)).len(), wide_weights(Toy::plain().store()).len());
    }
}

fn described(outcome: Result<Vec<f64>>) -> String {
    outcome.err().map_or_else(String::new, |error| error.to_string())
}

#[test]
fn ranks_that_were_started_with_something_else_are_refused_with_the_difference() {
    let prints = ["a", "b"]
        .map(|name| Fingerprint::new("points").part("train", 64, flow_core::hash::Fnv::new().bytes(name.as_bytes())));
    let data = |rank: usize| Bend { data: Some(prints[rank % 2].clone()), ..Bend::default() };
    for outcome in train(&smooth(4), folder().path(), 2, bent(data)) {
        let message = outcome.unwrap_err().to_string();
        assert!(
            message.contains("rank 1 was started with something else") && message.contains("data.parts.train.hash")
        );
    }
    let outcomes = ThreadRanks::run(3, |channel| {
        let mut config = smooth(4);
        if channel.rank() == 2 {
            config.optimizer.learning_rate = 0.5;
        }
        let width = if channel.rank() == 2 { 9 } else { 8 };
        let trainer = Trainer::in_memory(config, Toy::new(width, Bend::default())).unwrap();
        trainer.with_communicator(channel).run(&mut ()).unwrap_err().to_string()
    });
    for message in outcomes {
        assert!(message.contains("rank 2 was started with something else than rank 0"), "{message}");
        assert!(message.contains("engine.optimizer.learning_rate: rank 0 0.02, rank 2 0.5"), "{message}");
        assert!(message.contains("run.model.width: rank 0 8, rank 2 9"), "{message}");
    }
}

#[test]
fn the_size_of_buckets_changes_nothing() {
    let run =
        |bucket_bytes: usize| common(train(&TrainConfig { bucket_bytes, ..smooth(10) }, folder().path(), 3, plain));
    let all = run(usize::MAX);
    for bytes in [1, 1000] {
        assert_eq!(run(bytes), all);
    }
}

/// Gradients that are summed while others are being made are the gradients that are summed at the end, to the bit.
#[test]
fn overlap_changes_nothing() {
    for backprop in [Backprop::Plain, Backprop::Reversible] {
        let same = bent(|_| Bend { backprop, ..Bend::default() });
        let run = |overlap: bool, bucket_bytes: usize| {
            common(train(&TrainConfig { overlap, bucket_bytes, ..smooth(10) }, folder().path(), 3, &same))
        };
        let apart = run(false, usize::MAX);
        for bytes in [1, 1000, usize::MAX] {
            assert_eq!(run(true, bytes), apart, "{backprop:?}, buckets of {bytes} bytes");
        }
    }
}

/// A rank that adds to a gradient which has gone, or has said something else of its weight, is found out, and the step is
/// what it is without overlap.
#[test]
fn a_step_that_goes_otherwise_is_summed_at_its_end() {
    let odd = bent(|rank| match rank {
        1 => Bend { in_parts_at: [0, 2, 5].into(), fail_at: [4].into(), ..Bend::default() },
        2 => Bend { miscounts_at: [3, 5].into(), nan_at: [6].into(), ..Bend::default() },
        _ => Bend::default(),
    });
    let run = |overlap: bool| {
        let config = TrainConfig { overlap, bucket_bytes: 1, ..smooth(10) };
        common(train(&config, folder().path(), 3, &odd))
    };
    assert_eq!(run(true), run(false));
}

/// A task that knows nothing of ranks.
struct Unshared(Toy);

impl Task for Unshared {
    type Run = <Toy as Task>::Run;
    type Position = <Toy as Task>::Position;
    type Error = Error;

    fn store(&self) -> &flow_core::ParamStore {
        self.0.store()
    }
    fn run(&self) -> &Self::Run {
        self.0.run()
    }
    fn step(
        &mut self,
        step: u64,
        rng: &mut flow_core::FlowRng,
        gradients: &mut flow_core::Gradients,
    ) -> Result<flow_core::train::Metrics> {
        self.0.step(step, rng, gradients)
    }
    fn validate(&mut self, rng: &mut flow_core::FlowRng) -> Result<flow_core::train::Metrics> {
        self.0.validate(rng)
    }
    fn position(&self) -> Self::Position {
        self.0.position()
    }
    fn restore(&mut self, position: Self::Position) -> Result<()> {
        self.0.restore(position)
    }
    fn samples_per_step(&self) -> usize {
        self.0.samples_per_step()
    }
}

#[test]
fn a_task_that_knows_nothing_of_ranks_is_refused() {
    let messages = ThreadRanks::run(2, |channel| {
        let trainer = Trainer::in_memory(smooth(4), Unshared(Toy::plain())).unwrap();
        trainer.with_communicator(channel).run(&mut ()).unwrap_err().to_string()
    });
    assert!(messages.iter().all(|m| m.contains("cannot be shared out over 2 ranks: start it as a single process")));
}

#[test]
fn a_fit_by_several_ranks_is_the_fit_of_one() {
    let x =
        flow_core::FlowRng::seed_from(3).normal((53, 2), DType::F64, &Device::Cpu).unwrap().affine(2.0, 1.0).unwrap();
    let held_out = x.narrow(0, 0, 11).unwrap();
    let fitted = |channel: Option<ThreadRanks>| {
        let toy = Toy::of(DType::F64, 8, Bend::default());
        let options = FitOptions::new(20).batch(10).validation(&held_out, None).engine(|config| {
            config.optimizer.epsilon = 1e-2;
        });
        let options = match channel {
            Some(channel) => options.communicator(channel),
            None => options,
        };
        let fitted = fit(toy.flow(), &x, options).unwrap();
        (wide_weights(toy.store()), fitted.summary.best.unwrap())
    };
    let (alone, (best, step)) = fitted(None);
    for (weights, (found, at)) in ThreadRanks::run(3, |channel| fitted(Some(channel))) {
        assert!(distance(&alone, &weights) < 1e-6 && (best - found).abs() < 1e-9 && step == at);
    }
}
