//! The `videoflow` program from outside: every verb, bad input, and runs that are killed.
mod bad_input;
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

/// The smallest model, in a file of the folder, and few clips.
const TINY: [&str; 8] = ["--config", "tiny.json", "--clips", "8", "--batch-size", "2", "--targets", "1"];

/// What the file holds.
const CONFIG: &str = r#"{"levels": 2, "steps": 1, "width": 4, "prior": {"blocks": 1, "width": 4, "dilations": false}}"#;

/// The program in a folder.
fn videoflow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_videoflow"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns its standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = videoflow(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).to_string();
    assert!(status.success(), "videoflow {arguments:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

/// A folder with a run of three steps in `run`.
fn trained(more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.json"), CONFIG).unwrap();
    let train = ["train", "--steps", "3", "--horizon", "3", "--out", "run"];
    let said = run(folder.path(), &[&train[..], &TINY, more].concat());
    assert!(said.contains("bits/dim over 16 clips") && said.contains("3 steps"), "{said}");
    folder
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    crate::shared::killed_runs_end_in_the_same_bits(40, |folder, out, steps| {
        std::fs::write(folder.join("tiny.json"), CONFIG).unwrap();
        let mut command = videoflow(folder);
        command.args(["train", "--out", out, "--steps", steps, "--horizon", "2", "--ema", "0.9"]);
        command.args(["--checkpoint-every", "5", "--validate-every", "20"]).args(TINY);
        command
    });
}
