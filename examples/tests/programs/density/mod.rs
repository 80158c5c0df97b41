//! The `density` program from outside: every verb, bad input, and runs that are killed.
mod bad_input;
mod fit;
mod posterior;
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

/// The smallest model.
const TINY: [&str; 8] = ["--layers", "2", "--hidden", "8", "--batch-size", "32", "--pixels", "40"];

/// The program in a folder.
fn density(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_density"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns its standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    run_with_notes(folder, arguments).0
}

/// As [`run`], with what is said on standard error.
fn run_with_notes(folder: &Path, arguments: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = density(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr).to_string();
    assert!(status.success(), "density {arguments:?}: {status}\n{stderr}");
    (String::from_utf8(stdout).unwrap(), stderr)
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    crate::shared::killed_runs_end_in_the_same_bits(300, |folder, out, steps| {
        let mut command = density(folder);
        command.args(["train", "--data", "moons", "--model", "realnvp", "--out", out, "--steps", steps]);
        command.args(["--checkpoint-every", "30", "--validate-every", "100", "--test-points", "50"]).args(TINY);
        command
    });
}
