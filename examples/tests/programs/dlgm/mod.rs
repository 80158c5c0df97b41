//! The `dlgm` program from outside: every verb, bad input, and runs that are killed.

use std::path::Path;
use std::process::{Command, Output};

use super::shared::all_refused;

const TINY: [&str; 8] = ["--latents", "3", "--hidden", "8", "--batch-size", "20", "--anneal", "10"];

/// The program in a folder.
fn dlgm(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dlgm"));
    command.current_dir(folder);
    command
}

/// Runs the program, which has to succeed; returns what it says on both streams.
fn says(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = dlgm(folder).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stdout).to_string() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "dlgm {arguments:?}: {status}\n{said}");
    said
}

fn train<'a>(out: &'a str, model: &'a str) -> Vec<&'a str> {
    [&["train", "--model", model, "--out", out, "--steps", "6"], &TINY[..]].concat()
}

/// An idx file of images of 6x5, some of them bright.
fn idx(path: &Path, count: u8) {
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 6, 0, 0, 0, 5];
    bytes.extend((0..u32::from(count) * 30).map(|i| if i * i % 5 == 1 { 250 } else { (i % 9) as u8 }));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn every_verb_works_on_what_train_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = says(folder, &train("m", "planar-2"));
    for part in ["1500 training, 97 validation, 200 test images of 8x8", "2 planar maps", "free energy", "effective"] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    for file in ["samples.png", "reconstructions.png", "loss.png"] {
        assert!(std::fs::read(folder.join("m").join(file)).unwrap().starts_with(b"\x89PNG"), "{file}");
    }
    let at = ["--checkpoint", "m"];
    let verb = |arguments: &[&str]| says(folder, &[arguments, &at].concat());
    let said = verb(&["eval", "--images", "20", "--draws", "10"]);
    assert!(said.contains("20 images, 10 draws") && said.contains("test part, 200 images; digits"), "{said}");
    assert_eq!(said, verb(&["eval", "--images", "20", "--draws", "10"]), "one seed, one answer");
    assert!(verb(&["sample", "--count", "9", "--out", "s.png"]).contains("9 images"));
    verb(&["sample", "--count", "9", "--binary", "--out", "b.png"]);
    assert_ne!(std::fs::read(folder.join("s.png")).unwrap(), std::fs::read(folder.join("b.png")).unwrap());
    let said = verb(&["reconstruct", "--split", "validation", "--count", "13", "--out", "r.png"]);
    assert!(said.contains("13 of 97 images"), "{said}");
    let said = verb(&["info"]);
    assert!(said.contains("2 planar maps") && said.contains("rises to 1 over 10 steps"), "{said}");
    let said = says(folder, &["info", "--presets"]);
    assert!(said.contains("planar-80") && said.contains("4266544"), "{said}");
}

#[test]
fn every_posterior_trains_on_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    idx(&folder.join("set.idx"), 90);
    for model in ["gaussian", "radial-2", "nice-2", "iaf-2"] {
        let said = says(folder, &[&train(model, model)[..], &["--data", "set.idx"]].concat());
        assert!(said.contains("images of 6x5") && said.contains("-ln p(x), importance"), "{said}");
    }
    // The same run on other images says so.
    idx(&folder.join("other.idx"), 80);
    let said = says(folder, &["eval", "--checkpoint", "iaf-2", "--data", "other.idx", "--draws", "5"]);
    assert!(said.contains("not the run's own data"), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    says(folder, &train("m", "gaussian"));
    idx(&folder.join("small.idx"), 90);
    idx(&folder.join("few.idx"), 3);
    std::fs::write(folder.join("page.idx"), b"<!DOCTYPE html>").unwrap();
    let cases: [(&[&str], &str); 15] = [
        (&["train", "--out", "m"], "holds a run already"),
        (&["train", "--model", "planar", "--out", "new"], "--model planar: expected gaussian"),
        (&["train", "--model", "nice-2", "--latents", "1", "--out", "new"], "latents"),
        (&["train", "--hidden", "0", "--out", "new"], "hidden"),
        (&["train", "--batch-size", "2000", "--out", "new"], "batch size"),
        (&["train", "--preview-every", "5", "--out", "new"], "--preview-every"),
        (&["train", "--data", "nowhere", "--out", "new"], "nowhere"),
        (&["train", "--data", "page.idx", "--out", "new"], "page.idx"),
        (&["train", "--data", "few.idx", "--out", "new"], "few.idx"),
        (&["eval", "--checkpoint", "none"], "train"),
        (&["eval", "--checkpoint", "m", "--data", "small.idx"], "the model is for [8, 8]"),
        (&["eval", "--checkpoint", "m", "--draws", "0"], "--draws"),
        (&["sample", "--checkpoint", "m", "--temperature", "inf", "--out", "s.png"], "--temperature"),
        (&["sample", "--checkpoint", "m", "--out", "m"], "found a folder"),
        (&["reconstruct", "--checkpoint", "m", "--count", "0"], "--count"),
    ];
    all_refused(dlgm, folder, &cases);
}

#[test]
fn killed_runs_end_in_the_bits_of_an_undisturbed_one() {
    crate::shared::killed_runs_end_in_the_same_bits(40, |folder, out, steps| {
        let mut command = dlgm(folder);
        command.args(["train", "--model", "planar-3", "--out", out, "--steps", steps]).args(TINY);
        command.args([
            "--checkpoint-every",
            "10",
            "--validate-every",
            "1000",
            "--ema",
            "0.9",
            "--schedule",
            "constant",
        ]);
        command
    });
}
