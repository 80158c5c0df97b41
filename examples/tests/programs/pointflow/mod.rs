//! The `pointflow` program from outside: every verb, bad input, and runs that are killed.
mod bad_input;
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

/// A tiny model of the built-in shapes.
const TINY: [&str; 14] = [
    "--shapes",
    "24",
    "--points-per-shape",
    "256",
    "--points",
    "64",
    "--batch-size",
    "8",
    "--width",
    "16",
    "--latent",
    "8",
    "--samples",
    "4",
];

/// The program in a folder.
fn pointflow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointflow"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns its standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = pointflow(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "pointflow {arguments:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    crate::shared::killed_runs_end_in_the_same_bits(50, |folder, out, steps| {
        let mut command = pointflow(folder);
        command.args(["train", "--out", out, "--steps", steps, "--checkpoint-every", "5", "--validate-every", "15"]);
        command.args(TINY).args(["--ema", "0.99"]);
        command
    });
}
