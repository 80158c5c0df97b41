//! A run that is killed with SIGKILL again and again ends with the bits of one that never was.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::toy::{Bend, Toy, assert_same_checkpoint, config, logged_steps};
use flow_core::FlowRng;
use flow_core::train::{Checkpoints, StopFlag, Trainer};

const STEPS: u64 = 300;
const KILLS: usize = 10;

/// Starts this test binary as a training process that writes into `out`.
fn spawn(out: &Path, nap: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::training_process", "--ignored", "--quiet"])
        .env("FLOW_TEST_OUT", out)
        .env("FLOW_TEST_NAP", nap.to_string())
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the body of the processes that the other tests start and kill"]
fn training_process() {
    let Ok(out) = std::env::var("FLOW_TEST_OUT") else {
        eprintln!("nothing to do: the other tests of this file start it with FLOW_TEST_OUT");
        return;
    };
    let nap = Duration::from_millis(std::env::var("FLOW_TEST_NAP").unwrap().parse().unwrap());
    let toy = Toy::new(8, Bend { nap, ..Bend::default() });
    let mut trainer = Trainer::resume_or_start(config(STEPS), out, toy).unwrap();
    trainer = trainer.with_stop(StopFlag::on_ctrl_c().unwrap());
    trainer.run(&mut ()).unwrap();
}

/// Waits for the end, or for `limit`; returns whether it ended.
fn ends_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn wait_for_checkpoint(out: &Path) {
    let start = Instant::now();
    while Checkpoints::new(out).latest().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ten_kills_do_not_change_a_bit() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Trainer::new(config(STEPS), whole.path(), Toy::plain()).unwrap().run(&mut ()).unwrap();
    let mut delays = FlowRng::seed_from(u64::from(std::process::id()));
    let mut kills = 0;
    while kills < KILLS {
        let mut child = spawn(broken.path(), 4);
        if ends_within(&mut child, Duration::from_millis(40 + delays.below(200) as u64)) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 5, "the run was over after {kills} kills; make it slower");
    let mut last = spawn(broken.path(), 0);
    assert!(ends_within(&mut last, Duration::from_secs(30)) && last.wait().unwrap().success());
    for name in ["step-00000300", "best"] {
        let at = |out: &Path| out.join("checkpoints").join(name);
        assert_same_checkpoint(&at(whole.path()), &at(broken.path()));
    }
    assert_eq!(logged_steps(broken.path()), (1..=STEPS).collect::<Vec<_>>(), "every step is logged once");
}

#[test]
fn ctrl_c_finishes_the_step_and_leaves_a_checkpoint() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Trainer::new(config(STEPS), whole.path(), Toy::plain()).unwrap().run(&mut ()).unwrap();
    let mut child = spawn(broken.path(), 20);
    wait_for_checkpoint(broken.path());
    interrupt(&child);
    assert!(ends_within(&mut child, Duration::from_secs(10)), "did not stop");
    assert!(child.wait().unwrap().success(), "a clean stop is a success");
    let latest = Checkpoints::new(broken.path()).latest().unwrap().unwrap();
    assert!(latest < Checkpoints::new(broken.path()).at(STEPS));
    Trainer::resume(config(STEPS), broken.path(), Toy::plain()).unwrap().run(&mut ()).unwrap();
    let at = |out: &Path| Checkpoints::new(out).at(STEPS);
    assert_same_checkpoint(&at(whole.path()), &at(broken.path()));
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let out = tempfile::tempdir().unwrap();
    let mut child = spawn(out.path(), 8_000);
    // The lock is taken when the run begins, after the handler is installed.
    let start = Instant::now();
    while !out.path().join("log.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the first one waits for the step");
    interrupt(&child);
    assert!(ends_within(&mut child, Duration::from_secs(4)), "the second one does not");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
