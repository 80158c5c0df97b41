//! Bad input: exit code 2, one line that says what and where, nothing left behind.

use super::{pointflow, shared::all_refused};

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
        (&["train", "--model", "paper", "--kl-weight", "1"], "flow matching"),
        (&["train", "--model", "paper-auto-encoder", "--preview-every", "1"], "--preview-every"),
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
