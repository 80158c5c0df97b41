//! What the tests of all programs share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use flow_core::FlowRng;

/// Every file below a folder with its length and content's sum.
pub fn listing(folder: &Path) -> BTreeMap<PathBuf, (usize, u64)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), (0, 0));
                waiting.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap_or_default();
                let sum = bytes.iter().fold(0u64, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(*b)));
                found.insert(path, (bytes.len(), sum));
            }
        }
    }
    found
}

/// Runs a command in a folder, which has to refuse and to leave nothing; returns what it says on stderr.
pub fn refused(mut command: Command, folder: &Path) -> String {
    let before = listing(folder);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(2), "{command:?}\n{stderr}");
    assert!(output.stdout.is_empty() && stderr.contains("error: "), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(before, listing(folder), "{command:?} left something behind");
    stderr
}

/// Runs a command, which has to succeed; returns what it says on stderr.
pub fn notes(mut command: Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success(), "{command:?}\n{stderr}");
    stderr
}

/// How the note begins that data are not those of the run.
pub const OTHER_DATA: &str = "note: these are not the run's own data (";

/// As [`refused`] for each list of arguments, with what the message has to hold; its last line is the only error.
#[allow(dead_code, reason = "some programs have checks of their own")]
pub fn all_refused(program: impl Fn(&Path) -> Command, folder: &Path, cases: &[(&[&str], &str)]) {
    for (arguments, expected) in cases {
        let mut command = program(folder);
        command.args(*arguments);
        let message = refused(command, folder);
        assert!(message.contains(expected), "{arguments:?}: {message}");
        let last = message.lines().last().unwrap();
        assert!(last.starts_with("error: ") && message.matches("error: ").count() == 1, "{arguments:?}: {message}");
    }
}

/// Runs a training without disturbance and one that is killed at random moments, and compares their last checkpoints.
///
/// `start` gives the command that trains into a folder for that many steps; checkpoints should be close together, so
/// that kills hit the writing of them too. More kills than three with `FLOW_KILLS`.
pub fn killed_runs_end_in_the_same_bits(steps_per_kill: u64, start: impl Fn(&Path, &str, &str) -> Command) {
    let kills: u64 = std::env::var("FLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let steps = (steps_per_kill * kills).to_string();
    let folder = tempfile::tempdir().unwrap();
    let run = |out: &str, resume: bool| -> Child {
        let mut command = start(folder.path(), out, &steps);
        if resume {
            command.arg("--resume");
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // Checkpoints sort by their steps, which their names end in.
    let reached = |out: &Path| -> Option<u64> {
        let latest = flow_core::train::Checkpoints::new(out).latest().unwrap()?;
        latest.to_str().unwrap().rsplit('-').next().unwrap().parse().ok()
    };
    let begun = Instant::now();
    assert!(run("whole", false).wait().unwrap().success());
    let whole = begun.elapsed();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut rng = FlowRng::seed_from(seed);
    let out = folder.path().join("killed");
    for kill in 0..kills {
        let mut child = run("killed", reached(&out).is_some());
        // By steps done, not by the clock, and in the first half of them: the machine may be busier or idler than it
        // was for the whole run, and the last kill has to find the program at work.
        // The first one may come before there is any checkpoint.
        let target = (kill as f64 + rng.next_uniform() - 0.5) * steps_per_kill as f64 / 2.0;
        // The time between two checkpoints of this run is its pace; that of the whole run may have been measured on a busier machine.
        let (mut seen, mut written, mut pace) = (reached(&out), None, None);
        while child.try_wait().unwrap().is_none()
            && target > 0.0
            && (pace.is_none() || (reached(&out).unwrap_or(0) as f64) < target)
        {
            std::thread::sleep(Duration::from_millis(2));
            if reached(&out) != seen {
                (seen, pace) = (reached(&out), written.map(|at: Instant| at.elapsed()));
                written = Some(Instant::now());
            }
        }
        // Somewhere between two checkpoints, or in the writing of one.
        let pause = pace.unwrap_or(whole / (8 * kills as u32));
        std::thread::sleep(pause.mul_f64(rng.next_uniform()));
        assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {kill} (seed {seed})");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(run("killed", reached(&out).is_some()).wait().unwrap().success(), "seed {seed}");
    let last = |run: &str| flow_core::train::Checkpoints::new(&folder.path().join(run)).latest().unwrap().unwrap();
    let (whole, killed) = (last("whole"), last("killed"));
    assert_eq!(whole.file_name(), killed.file_name());
    for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let bytes = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(bytes(&whole) == bytes(&killed), "{file} differs after {kills} kills (seed {seed})");
    }
}
