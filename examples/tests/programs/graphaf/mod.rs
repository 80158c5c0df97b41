//! The `graphaf` program from outside: every verb, bad input, and runs that are killed.
mod bad_input;
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

/// The smallest model of the built-in molecules.
const TINY: [&str; 8] = ["--width", "8", "--layers", "2", "--hidden", "16", "--batch-size", "16"];

/// The program in a folder.
fn graphaf(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphaf"));
    command.current_dir(folder).env_remove("FLOW_SA_SCORES");
    command
}

/// Runs the program, which has to succeed; returns its standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = graphaf(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "graphaf {arguments:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Trains a tiny model on the built-in molecules (or other data) into `out`.
fn train(folder: &Path, out: &str, steps: &str, more: &[&str]) -> String {
    let tail = ["--steps", steps, "--samples", "20"];
    run(folder, &[&["train", "--out", out], &TINY[..], &tail, more].concat())
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    crate::shared::killed_runs_end_in_the_same_bits(400, |folder, out, steps| {
        let mut command = graphaf(folder);
        command.args(["train", "--out", out, "--steps", steps, "--checkpoint-every", "40", "--validate-every", "100"]);
        command.args(TINY).args(["--ema", "0.99", "--samples", "5"]);
        command
    });
}
