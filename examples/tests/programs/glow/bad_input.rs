//! Bad input: exit code 2, one line that names file and expectation, nothing half-written.

use std::path::Path;
use std::process::Output;
use std::sync::OnceLock;

use super::{TINY, glow, npy, run, train};

/// One folder with a model and every kind of bad file, shared by the tests of this module.
fn rubbish() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        train(folder.path(), "m", "20", &[]);
        run(folder.path(), &["encode", "--checkpoint", "m", "--count", "8", "--out", "z.safetensors"]);
        let zeros = vec![0; 8 * 64];
        let whole = npy("|u1", "(8, 8, 8)", &zeros);
        let nan: Vec<u8> = std::iter::repeat_n(f32::NAN.to_le_bytes(), 8 * 64).flatten().collect();
        let files: [(&str, &[u8]); 7] = [
            ("empty.npy", b""),
            ("empty", b""),
            ("truncated.npy", &whole[..whole.len() - 5]),
            ("magic.npy", b"PK\x03\x04 this is no array of images at all"),
            ("size.npy", &npy("|u1", "(8, 12, 12)", &vec![0; 8 * 144])),
            ("levels.npy", &whole),
            ("nan.npy", &npy("<f4", "(8, 8, 8)", &nan)),
        ];
        files.iter().for_each(|(name, bytes)| std::fs::write(at(name), bytes).unwrap());
        std::fs::create_dir(at("folder")).unwrap();
        let latents = std::fs::read(at("z.safetensors")).unwrap();
        std::fs::write(at("z-truncated.safetensors"), &latents[..latents.len() / 2]).unwrap();
        spoil(&at("m/checkpoints/best"), &at("c-weights"), "model.safetensors", |b| b[..b.len() / 2].to_vec());
        spoil(&at("m/checkpoints/best"), &at("c-json"), "config.json", |_| b"{ not json".to_vec());
        spoil(&at("m/checkpoints/best"), &at("c-empty"), "config.json", |_| Vec::new());
        spoil(&at("m/checkpoints/best"), &at("c-width"), "config.json", |b| {
            String::from_utf8(b.to_vec()).unwrap().replacen("\"width\": 8", "\"width\": 9", 1).into_bytes()
        });
        folder
    });
    FOLDER.get().map(|f| f.path()).unwrap()
}

/// A copy of a checkpoint with one file changed, which has to make a difference.
fn spoil(from: &Path, to: &Path, name: &str, change: impl Fn(&[u8]) -> Vec<u8>) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    let old = std::fs::read(from.join(name)).unwrap();
    let new = change(&old);
    assert!(old != new, "{name} was not spoiled");
    std::fs::write(to.join(name), new).unwrap();
}

/// Runs the program, which has to refuse with one line that holds all of `expected`, and to leave nothing. Before it may
/// stand what was read.
fn refused(arguments: &[&str], expected: &[&str]) {
    let folder = rubbish();
    let mut command = glow(folder);
    command.args(arguments);
    let stderr = crate::shared::refused(command, folder);
    let lines: Vec<&str> = stderr.lines().collect();
    let (error, before) = lines.split_last().unwrap();
    assert!(error.starts_with("error: "), "{arguments:?}: {stderr}");
    assert!(before.iter().all(|line| line.starts_with("data: ") || line.starts_with("note: ")), "{stderr}");
    for part in expected {
        assert!(error.contains(part), "{arguments:?}: no '{part}' in {stderr}");
    }
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    // Data: what, and what the line has to say.
    let data: [(&str, &[&str]); 8] = [
        ("empty.npy", &["empty.npy", "empty file"]),
        ("empty", &["empty", "empty file"]),
        ("truncated.npy", &["truncated.npy", "expected"]),
        ("magic.npy", &["magic.npy", "expected a zip archive of arrays"]),
        ("nan.npy", &["nan.npy", "NaN"]),
        ("folder", &["folder", "found no images"]),
        ("missing", &["missing"]),
        ("m/log.jsonl", &["log.jsonl", "looked for"]),
    ];
    for (path, expected) in data {
        refused(&["train", "--data", path, "--out", "new"], expected);
        refused(&["eval", "--checkpoint", "m", "--data", path, "--csv", "new.csv"], expected);
        refused(&["ood", "--checkpoint", "m", "--other", path, "--out", "new.png"], expected);
    }
    refused(
        &["eval", "--checkpoint", "m", "--data", "size.npy"],
        &["size.npy", "[1, 12, 12]", "model is for [1, 8, 8]"],
    );
    refused(
        &["encode", "--checkpoint", "m", "--data", "levels.npy", "--out", "new"],
        &["levels.npy", "256 levels", "17"],
    );

    // Checkpoints and latents.
    let checkpoints: [(&str, &[&str]); 6] = [
        ("missing", &["missing", "holds no checkpoint"]),
        ("folder", &["folder", "holds no checkpoint"]),
        ("c-weights", &["c-weights/model.safetensors", "truncated"]),
        ("c-json", &["c-json/config.json", "line 1"]),
        ("c-empty", &["c-empty/config.json", "empty"]),
        ("c-width", &["c-width/model.safetensors", "shape"]),
    ];
    for (path, expected) in checkpoints {
        refused(&["sample", "--checkpoint", path, "--raw-weights", "--out", "new.png"], expected);
        refused(&["info", "--checkpoint", path, "--raw-weights"], expected);
    }
    let latents: [(&str, &[&str]); 4] = [
        ("z-truncated.safetensors", &["z-truncated.safetensors", "expected a latents file"]),
        ("folder", &["folder", "expected a latents file"]),
        ("empty", &["empty", "expected a latents file"]),
        ("m/checkpoints/best/model.safetensors", &["model.safetensors", "expected the format"]),
    ];
    for (path, expected) in latents {
        refused(&["decode", "--checkpoint", "m", "--latents", path, "--out", "new.png"], expected);
        refused(&["edit", "--checkpoint", "m", "--vector", path, "--out", "new.png"], expected);
    }
    refused(&["edit", "--checkpoint", "m", "--vector", "z.safetensors", "--out", "new.png"], &["one direction", "8"]);
}

#[test]
fn bad_arguments_are_one_line_and_exit_code_2() {
    refused(&["train", "--model", "glow-cifar11", "--out", "new"], &["glow-cifar11", "glow-cifar10"]);
    refused(&["train", "--batch-size", "0", "--out", "new"], &["batch"]);
    refused(&["train", "--out", "empty"], &["empty"]);
    refused(&["train", "--config", "empty", "--out", "new"], &["empty"]);
    refused(&[&["train", "--out", "m"], &TINY[..]].concat(), &["holds a run already"]);
    let resume = ["train", "--out", "m", "--resume", "--steps", "30", "--levels", "1", "--steps-per-level", "1"];
    refused(&[&resume[..], &["--width", "16", "--batch-size", "32"]].concat(), &["width", "8", "16"]);
    refused(&["train", "--out", "missing", "--resume"], &["missing", "holds no checkpoint"]);
    refused(&["sample", "--checkpoint", "m", "--temperature", "-1", "--out", "new.png"], &["temperature", "-1"]);
    refused(&["sample", "--checkpoint", "m", "--temperature", "NaN", "--out", "new.png"], &["temperature", "NaN"]);
    refused(&["sample", "--checkpoint", "m", "--class", "ten", "--out", "new.png"], &["--class ten", "neither"]);
    refused(&["sample", "--checkpoint", "m", "--device", "abacus", "--out", "new.png"], &["abacus", "expected cpu"]);
    for zero in [
        &["eval", "--count", "0"][..],
        &["eval", "--draws", "0"],
        &["encode", "--count", "0"],
        &["ood", "--other", "digits", "--count", "0"],
    ] {
        refused(&[zero, &["--checkpoint", "m"]].concat(), &["at least 1"]);
    }
    refused(&["interpolate", "--checkpoint", "m", "--pairs", "500", "--out", "new.png"], &["1000 images", "200"]);
    refused(&["interpolate", "--checkpoint", "m", "--indices", "1,200", "--out", "new.png"], &["200 of 200"]);
    refused(&["interpolate", "--checkpoint", "m", "--steps", "1", "--out", "new.png"], &["--steps", "at least 2"]);
    refused(&["edit", "--checkpoint", "m", "--out", "new.png"], &["--attribute"]);
    refused(&["edit", "--checkpoint", "m", "--attribute", "smile", "--out", "new.png"], &["labels.csv"]);
    refused(
        &["edit", "--checkpoint", "m", "--class-a", "ten", "--class-b", "3", "--out", "new.png"],
        &["--class-a ten"],
    );
}

/// A flag that nothing would read is named, with the reason and what to do instead.
#[test]
fn flags_that_do_not_apply() {
    let train = |more: &[&str], expected: &[&str]| refused(&[&["train", "--out", "new"], more].concat(), expected);
    train(&["--data", "levels.npy", "--resize", "8"], &["--resize: for folders of pictures, levels.npy is none"]);
    train(&["--colour", "gray", "--resize", "8"], &["--resize, --colour: ", "digits is none; leave it out, --pad"]);
    train(&["--config", "empty", "--model", "glow-digits"], &["--config: describes the whole model", "--model"]);
    train(&["--model", "realnvp-small", "--width", "8"], &["--width: for Glow, the model is a realnvp", "--config"]);
    train(&["--batch-size", "0"], &["--batch-size must be at least 1, got 0"]);
    train(&["--test-images", "0"], &["--test-images must be at least 1"]);
    train(&["--minutes", "0"], &["--minutes must be a positive number"]);
    train(&["--cosine", "--schedule", "constant"], &["--schedule: a run has one, got Constant and Cosine"]);

    let codec = |more: &[&str], expected: &[&str]| train(&[&["--model", "idf-digits"], more].concat(), expected);
    codec(&["--levels", "2", "--class-conditional"], &["--levels, --class-conditional: for Glow, idf-digits is a"]);
    codec(&["--plain-backprop"], &["--plain-backprop: idf-digits is a lossless codec"]);
    codec(&["--preview-every", "5"], &["--preview-every: idf-digits is a lossless codec, which draws no images"]);
    codec(&["--batch-size", "0"], &["--batch-size"]);
    codec(&["--batch-size", "100000"], &["batch"]);
    codec(&["--device", "abacus"], &["abacus", "expected cpu"]);
    train(&["--model", "idf-mars"], &["idf-mars", "idf-fashion"]);

    refused(&["sample", "--sweep", "0.5,1", "--count", "5"], &["--count: --sweep draws a row of --columns images"]);
    refused(&["interpolate", "--delay", "5"], &["--delay: for the animation of --gif FILE"]);
    refused(&["edit", "--vector", "z.safetensors", "--examples", "5"], &["--examples: --vector is a direction"]);
    refused(&["decompress", "--split", "train"], &["--split: the part of the data to compare with", "--verify"]);
    refused(&["info", "--presets", "--checkpoint", "m"], &["--checkpoint: --presets lists"]);
}

#[test]
fn a_folder_where_a_file_goes_is_refused_before_the_work() {
    let out: [&[&str]; 8] = [
        &["sample", "--out"],
        &["eval", "--csv"],
        &["encode", "--out"],
        &["decode", "--latents", "z.safetensors", "--out"],
        &["interpolate", "--gif"],
        &["edit", "--class-a", "8", "--class-b", "3", "--save-vector"],
        &["edit", "--class-a", "8", "--class-b", "3", "--out"],
        &["ood", "--other", "digits", "--out"],
    ];
    for arguments in out {
        refused(&[arguments, &["folder", "--checkpoint", "m"]].concat(), &["folder", "expected the name of a file"]);
    }
    refused(&["sample", "--checkpoint", "m", "--out", "empty/new.png"], &["empty"]);
}

#[test]
fn unknown_flags_are_the_parsers_and_exit_code_2() {
    let cases: [(&[&str], &str); 3] = [
        (&["eval", "--tempreature", "1"], "--tempreature"),
        (&["interpolate", "--indices", "1,2", "--seed", "5"], "cannot be used with '--seed"),
        (&["info", "--device", "cpu"], "'--device'"),
    ];
    for (arguments, expected) in cases {
        let Output { status, stderr, .. } = glow(rubbish()).args(arguments).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(2) && stderr.starts_with("error: ") && stderr.contains(expected), "{stderr}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_must_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    // In a folder of its own: the others compare what is in theirs.
    let own = tempfile::tempdir().unwrap();
    let path = own.path().join("secret.npy");
    std::fs::write(&path, npy("|u1", "(8, 8, 8)", &[0; 512])).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        eprintln!("SKIPPED: this user (root?) may read every file, so that none can be made unreadable");
        return;
    }
    let data = path.to_string_lossy();
    refused(&["eval", "--checkpoint", "m", "--data", &data], &["secret.npy", "ermission denied"]);
}
