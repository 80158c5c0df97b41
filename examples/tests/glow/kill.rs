//! A run that is killed, at any moment and more than once, ends in the same bits as one that is not.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use flow_core::FlowRng;

use super::{TINY, glow};

/// Checkpoints are close together, so that kills hit the writing of them too.
const EVERY: &str = "40";

fn start(folder: &Path, out: &str, steps: &str, resume: bool) -> Child {
    let mut command = glow(folder);
    command.args(["train", "--out", out, "--steps", steps, "--checkpoint-every", EVERY, "--validate-every", "100"]);
    command.args(TINY).args(["--ema", "0.99", "--test-images", "20"]);
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Whether there is something to resume.
fn has_checkpoint(out: &Path) -> bool {
    flow_core::train::Checkpoints::new(out).latest().unwrap().is_some()
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    // More with FLOW_KILLS=10.
    let kills: u64 = std::env::var("FLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let steps = (500 * kills).to_string();
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    assert!(start(folder.path(), "whole", &steps, false).wait().unwrap().success());
    let whole = begun.elapsed();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut rng = FlowRng::seed_from(seed);
    let out = folder.path().join("killed");
    let mut hit = 0;
    while hit < kills {
        let mut child = start(folder.path(), "killed", &steps, has_checkpoint(&out));
        // Never far enough in all lives together to reach the end, even on a machine that is idle again.
        let life = whole.as_secs_f64() / (kills as f64 + 1.0) * rng.next_uniform();
        std::thread::sleep(Duration::from_secs_f64(life));
        assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {hit} (seed {seed})");
        child.kill().unwrap();
        child.wait().unwrap();
        hit += 1;
    }
    let resume = has_checkpoint(&out);
    assert!(start(folder.path(), "killed", &steps, resume).wait().unwrap().success(), "seed {seed}");
    let last = |run: &str| flow_core::train::Checkpoints::new(&folder.path().join(run)).latest().unwrap().unwrap();
    let (whole, killed) = (last("whole"), last("killed"));
    assert_eq!(whole.file_name(), killed.file_name());
    for file in ["model.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let bytes = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(bytes(&whole) == bytes(&killed), "{file} differs after {kills} kills (seed {seed})");
    }
}
