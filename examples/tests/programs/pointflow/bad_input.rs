//! Bad input: exit code 2, one line that says what and where, nothing left behind.

use super::pointflow;
use crate::shared::{all_refused, refused};

#[test]
fn bad_arguments_and_files_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("bad.ply"), "ply\nformat ascii 1.0\nelement vertex 5\nend_header\n").unwrap();
    std::fs::write(folder.join("bad.off"), "OFF\n3 1 0\n0 0 0\n").unwrap();
    std::fs::write(folder.join("bad.json"), r#"{"latnet": 3}"#).unwrap();
    std::fs::write(folder.join("norm.json"), r#"{"encoder": {"norm": "hub"}}"#).unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["train", "--data", "missing.npy"], "missing.npy"),
        (&["train", "--data", "bad.ply"], "bad.ply"),
        (&["train", "--data", "bad.off"], "line 2"),
        (&["train", "--data", "empty"], "no shapes to train on"),
        (&["train", "--data", "bad.ply", "--families", "chair"], "--families"),
        (&["train", "--config", "bad.json"], "latnet"),
        (&["train", "--config", "norm.json"], "norm.json: encoder.norm: unknown variant `hub`"),
        (&["train", "--minutes=-1"], "--minutes"),
        (&["train", "--shapes", "20", "--points-per-shape", "64", "--points", "100"], "a step takes 100 points"),
        (&["train", "--shapes", "20", "--batch-size", "1"], "at least 2"),
        (&["train", "--batch-size", "0"], "--batch-size must be at least 1"),
        (&["train", "--model", "paper", "--kl-weight", "1"], "flow matching"),
        (&["train", "--splits", "s.json"], "--splits s.json"),
        (&["train", "--device", "tpu"], "expected cpu"),
        (&["train", "--samples", "0"], "--samples"),
        (&["sample", "--checkpoint", "nowhere"], "nowhere"),
        (&["sample", "--out", "cloud.las"], "expected a folder, .npy or .ply"),
        (&["sample", "--out", "a.npy", "--temperature", "0"], "--temperature"),
        (&["sample", "--out", "a.npy", "--solver", "rk4"], "--solver-steps"),
        (&["interpolate", "--steps", "1"], "--steps"),
        (&["complete", "--keep", "inside"], "--keep inside"),
        (&["eval", "--points", "0"], "--points"),
    ];
    all_refused(pointflow, folder, cases);
}

/// A flag that nothing would read is named, with the reason and what to do instead.
#[test]
fn flags_that_do_not_apply() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("cloud.xyz"), "0 0 0\n0.1 0 0\n0 0.2 0\n0.1 0.2 0.1\n").unwrap();
    let encoder: &[&str] = &["train", "--model", "paper-auto-encoder", "--shapes", "20", "--points-per-shape", "64"];
    let encoder = |more: &[&'static str]| [encoder, &["--points", "32", "--batch-size", "4"], more].concat();
    let cases: &[(&[&str], &str)] = &[
        (&["train", "--data", "cloud.xyz", "--shapes", "9"], "--shapes: for the built-in shapes, --data is cloud.xyz"),
        (
            &["train", "--data", "cloud.xyz", "--points-per-shape", "9"],
            "--points-per-shape: for meshes and the built-in",
        ),
        (&encoder(&["--samples", "3"]), "--samples: for models that draw samples, an auto-encoder draws none"),
        (&encoder(&["--preview-every", "3"]), "--preview-every: for models that draw samples"),
        (
            &["straighten", "--distill", "--solver-steps", "3"],
            "--solver-steps: with --distill the model draws in one step",
        ),
        (&["straighten", "--preview-every", "3"], "--preview-every: straightening draws no previews"),
        (&["sample", "--out", "a.npy", "--ascii"], "--ascii: for PLY files, an array is binary"),
        (
            &["eval", "--samples", "a.npy", "--checkpoint", "run", "--solver", "rk4"],
            "--checkpoint, --solver: for the draws",
        ),
        (&["info", "--presets", "--checkpoint", "run"], "--checkpoint: --presets lists what comes with the program"),
    ];
    all_refused(pointflow, folder, cases);
}

#[test]
fn what_the_parser_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = pointflow(folder.path());
    command.args(["eval", "--samples", "cloud.xyz", "--device", "cpu"]);
    let message = refused(command, folder.path());
    assert!(message.contains("cannot be used with '--device"), "{message}");
}
