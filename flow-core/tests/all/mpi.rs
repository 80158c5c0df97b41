//! Ranks that are processes, started by `mpirun`; skipped, loudly, where there is none.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use candle_core::DType;
use flow_core::Result;
use flow_core::testing::ThreadRanks;
use flow_core::train::mpi::Mpi;
use flow_core::train::{Checkpoints, Communicator, Summands, Task, Trainer};

use crate::toy::{Bend, Toy, config, wide_weights};
use crate::training::folder;

/// This test binary as `ranks` processes, each of which runs the test `body`.
fn mpirun(ranks: usize, body: &str, variables: &[(&str, &str)]) -> Option<Output> {
    if Command::new("mpirun").arg("--version").output().is_err() {
        eprintln!("SKIPPED: mpirun is missing; apt-get install openmpi-bin");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]);
    command.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        body,
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env("RAYON_NUM_THREADS", "1").envs(variables.iter().copied());
    // Sessions of several `mpirun` in one folder get into each other's way when one of them tidies up.
    let session = folder();
    command.env("OMPI_MCA_orte_tmpdir_base", session.path());
    Some(command.output().unwrap())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The contract of a communicator, whatever it is made of.
fn keeps_the_contract(world: &dyn Communicator) -> Result<()> {
    let (rank, ranks) = (world.rank(), world.world_size());
    for length in [0, 1, 7, 1000] {
        let mut narrow: Vec<f32> = (0..length).map(|i| (i * (rank + 1)) as f32).collect();
        let mut wide: Vec<f64> = (0..length).map(|i| (i as f64 + 0.1) * (rank + 1) as f64).collect();
        world.all_reduce_sum(Summands::F32(&mut narrow))?;
        world.all_reduce_sum(Summands::F64(&mut wide))?;
        let factor = ranks * (ranks + 1) / 2;
        assert!(narrow.iter().enumerate().all(|(i, &v)| v == (i * factor) as f32));
        assert!(wide.iter().enumerate().all(|(i, &v)| (v - (i as f64 + 0.1) * factor as f64).abs() < 1e-9));
    }
    let said = world.all_gather("x".repeat(rank * 3).as_bytes())?;
    assert_eq!(said.iter().map(Vec::len).collect::<Vec<_>>(), (0..ranks).map(|r| r * 3).collect::<Vec<_>>());
    for length in [0, 5, 10_000] {
        let heard = world.broadcast(if rank == 0 { vec![7; length] } else { vec![1] })?;
        assert_eq!(heard, vec![7; length]);
    }
    world.barrier()
}

#[test]
#[ignore = "the body of the processes that the other tests start"]
fn rank_checks_the_contract() {
    let world = Mpi::start().unwrap();
    keeps_the_contract(&world).unwrap();
    // Messages of at most three elements.
    keeps_the_contract(&world.clone().cut_at(3)).unwrap();
    assert!(Mpi::start().is_err(), "once in a process");
    world.finish();
    world.finish();
}

#[test]
fn messages_arrive_whole_and_are_cut_where_they_are_too_long() {
    ThreadRanks::run(3, |ranks| keeps_the_contract(&ranks).unwrap());
    let Some(output) = mpirun(3, "mpi::rank_checks_the_contract", &[]) else { return };
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
#[ignore = "the body of the processes that the other tests start"]
fn rank_trains() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name).and_then(|value| value.parse::<u64>().ok());
    let world = Mpi::start().unwrap();
    world.hush().unwrap();
    let bad = world.rank() == 1;
    let bend = Bend {
        nap: Duration::from_millis(number("FLOW_TEST_NAP").unwrap_or(0)),
        panic_at: number("FLOW_TEST_PANIC").filter(|_| bad),
        error_at: number("FLOW_TEST_ERROR").filter(|_| bad),
        sizes: Some((103, 6)),
        ..Bend::default()
    };
    let toy = Toy::of(DType::F64, 8, bend);
    let Some(out) = variable("FLOW_TEST_OUT") else { return };
    let out = Path::new(&out);
    let trainer = match world.rank() {
        0 => Trainer::resume_or_start(config(20), out, toy).unwrap(),
        _ => Trainer::in_memory(config(20), toy).unwrap(),
    };
    let mut trainer = trainer.with_communicator(world.clone());
    if number("FLOW_TEST_PID").is_some() && bad {
        std::fs::write(out.with_extension("pid"), std::process::id().to_string()).unwrap();
    }
    trainer.run(&mut ()).unwrap();
    if world.rank() == 0 {
        let weights: Vec<String> = wide_weights(trainer.task().store()).iter().map(f64::to_string).collect();
        std::fs::write(out.join("weights"), weights.join("\n")).unwrap();
    }
    world.finish();
}

fn weights(out: &Path) -> Vec<f64> {
    std::fs::read_to_string(out.join("weights")).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn processes_train_the_model_of_one() {
    let mut all = Vec::new();
    for ranks in [1, 2, 2, 4] {
        let out = folder();
        let Some(output) = mpirun(ranks, "mpi::rank_trains", &[("FLOW_TEST_OUT", out.path().to_str().unwrap())]) else {
            return;
        };
        assert!(output.status.success(), "{ranks}: {}", text(&output));
        all.push(weights(out.path()));
    }
    assert_eq!(all[1], all[2], "the same ranks again: the same bits");
    for other in &all[1..] {
        let worst = all[0].iter().zip(other).map(|(a, b)| (a - b).abs() / (1e-3 + a.abs())).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{worst}");
    }
}

#[test]
fn a_rank_that_fails_panics_or_is_killed_ends_the_job_at_once() {
    for (variable, reason) in [
        ("FLOW_TEST_ERROR", "error: rank 1 of 3: toy: was told to fail"),
        ("FLOW_TEST_PANIC", "error: rank 1 of 3: panicked: panicked at"),
    ] {
        let out = folder();
        let begun = Instant::now();
        let variables = [("FLOW_TEST_OUT", out.path().to_str().unwrap()), (variable, "7")];
        let Some(output) = mpirun(3, "mpi::rank_trains", &variables) else { return };
        assert!(begun.elapsed() < Duration::from_secs(10) && !output.status.success(), "{}", text(&output));
        assert!(text(&output).lines().any(|line| line.contains(reason)), "{}", text(&output));
        assert_eq!(Checkpoints::new(out.path()).steps().unwrap().last(), Some(&6), "the newest checkpoint is whole");
    }
}

#[test]
fn a_killed_rank_costs_no_more_than_the_steps_since_the_checkpoint() {
    let (whole, broken) = (folder(), folder());
    let run = |out: &Path, more: &[(&str, &str)]| {
        let variables = [&[("FLOW_TEST_OUT", out.to_str().unwrap())], more].concat();
        mpirun(2, "mpi::rank_trains", &variables)
    };
    let Some(output) = run(whole.path(), &[]) else { return };
    assert!(output.status.success(), "{}", text(&output));
    let out = broken.path().join("run");
    let killer = std::thread::spawn({
        let out = out.clone();
        move || {
            let begun = Instant::now();
            while Checkpoints::new(&out).latest().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let pid = std::fs::read_to_string(out.with_extension("pid")).unwrap();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            Instant::now()
        }
    });
    let output = run(&out, &[("FLOW_TEST_NAP", "300"), ("FLOW_TEST_PID", "1")]).unwrap();
    assert!(killer.join().unwrap().elapsed() < Duration::from_secs(10), "the others end soon");
    assert!(!output.status.success());
    assert!(run(&out, &[]).unwrap().status.success());
    assert_eq!(weights(whole.path()), weights(&out), "resumed to the bits of the undisturbed run");
}
