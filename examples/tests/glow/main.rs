//! The `glow` program from outside: every verb, bad input, and runs that are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod kill;
mod verbs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The smallest model of the built-in digits.
const TINY: [&str; 8] = ["--levels", "1", "--steps-per-level", "1", "--width", "8", "--batch-size", "32"];

/// The program in a folder.
fn glow(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glow"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; answers its standard output.
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

/// Every file below a folder with its length and content's sum.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (usize, u64)> {
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
