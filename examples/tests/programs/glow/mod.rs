//! The `glow` program from outside: every verb, bad input, and runs that are killed.
mod bad_input;
mod files;
mod kill;
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

/// The smallest model of the built-in digits.
const TINY: [&str; 8] = ["--levels", "1", "--steps-per-level", "1", "--width", "8", "--batch-size", "32"];

/// The program in a folder.
fn glow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glow"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns its standard output.
fn run(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = glow(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "glow {arguments:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

/// Trains a tiny Glow on the digits (or other data) into `out`.
fn train(folder: &Path, out: &str, steps: &str, more: &[&str]) -> String {
    let tail = ["--steps", steps, "--test-images", "50"];
    run(folder, &[&["train", "--out", out], &TINY[..], &tail, more].concat())
}

/// A `.npy` file of version 1.
fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}
