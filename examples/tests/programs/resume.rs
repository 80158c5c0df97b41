//! Going on with a run: with its own settings, on its own data, in the program that made it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::shared::refused;

fn program(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let path = match name {
        "glow" => env!("CARGO_BIN_EXE_glow"),
        "graphaf" => env!("CARGO_BIN_EXE_graphaf"),
        _ => env!("CARGO_BIN_EXE_density"),
    };
    let mut command = Command::new(path);
    command.current_dir(folder).args(arguments);
    command
}

/// What a command that succeeds says on both streams.
fn says(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = program(name, folder, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

const TABLE: [&str; 12] = [
    "--model",
    "maf",
    "--layers",
    "2",
    "--hidden",
    "8",
    "--schedule",
    "constant",
    "--warmup",
    "1",
    "--batch-size",
    "16",
];

/// A table with a row for every number.
fn write_table(path: &Path, rows: std::ops::Range<u32>) {
    let row = |i: u32| format!("{},{}\n", f64::from(i * i % 97) / 10.0, f64::from(i * 7 % 89) / 5.0);
    std::fs::write(path, rows.map(row).collect::<String>()).unwrap();
}

#[test]
fn a_resume_needs_no_flags_and_ends_in_the_bits_of_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_table(&folder.join("a.csv"), 0..80);
    let train = |out, steps| [&["train", "--data", "a.csv", "--out", out, "--steps", steps], &TABLE[..]].concat();
    let said = says("density", folder, &train("whole", "12"));
    assert!(said.contains("80 rows of 2 columns; 64 for training, 8 for validation, 8 as test set"), "{said}");
    says("density", folder, &train("parts", "5"));
    let said = says("density", folder, &["train", "--out", "parts", "--resume", "--steps", "9"]);
    assert!(said.contains("with the settings of the run: --data a.csv --model maf --layers 2"), "{said}");
    // The file has another name now, and the last resume has to remember what the one before was given.
    std::fs::rename(folder.join("a.csv"), folder.join("b.csv")).unwrap();
    says("density", folder, &["train", "--resume", "--out", "parts", "--data", "./b.csv", "--steps", "12"]);
    let weights = |out: &str| {
        let checkpoint = folder.join(out).join("checkpoints/step-00000012");
        std::fs::read(checkpoint.join("model.safetensors")).unwrap()
    };
    assert!(weights("whole") == weights("parts"));
    let kept = std::fs::read_to_string(folder.join("parts/command.json")).unwrap();
    assert!(kept.contains("./b.csv") && !kept.contains("a.csv") && !kept.contains("--resume"), "{kept}");
}

/// The recipe's warm-up is half of so short a run; a run that goes on keeps that of its beginning.
#[test]
fn a_resume_may_change_the_steps_of_a_short_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_table(&folder.join("a.csv"), 0..80);
    let flags = [&["train", "--data", "a.csv", "--out", "m", "--steps", "6"], &TABLE[..6]].concat();
    says("density", folder, &flags);
    says("density", folder, &["train", "--out", "m", "--resume", "--steps", "10"]);
    let text = std::fs::read_to_string(folder.join("m/checkpoints/step-00000010/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&config["train"]["steps"], &config["train"]["schedule"]["warmup_steps"]), (&10.into(), &3.into()));
    // One that is asked for is another run's.
    let message = refused(program("density", folder, &["train", "--out", "m", "--resume", "--warmup", "4"]), folder);
    assert!(message.contains("schedule.warmup_steps: checkpoint 3, asked 4"), "{message}");
    let message =
        refused(program("density", folder, &["train", "--out", "m", "--resume", "--schedule", "constant"]), folder);
    assert!(message.contains("schedule.decay"), "{message}");
}

#[test]
fn a_resume_refuses_other_data_other_settings_and_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_table(&folder.join("a.csv"), 0..80);
    write_table(&folder.join("more.csv"), 0..90);
    write_table(&folder.join("other.csv"), 3..83);
    says("density", folder, &[&["train", "--data", "a.csv", "--out", "m", "--steps", "5"], &TABLE[..]].concat());
    let cases: [(&str, &[&str], &str); 4] = [
        (
            "density",
            &["--data", "more.csv"],
            "other data (train: 72 rows now, 64 then; validation: 9 rows now, 8 then; test: 9",
        ),
        ("density", &["--data", "other.csv"], "train: as many rows, but not the same"),
        ("density", &["--batch-size", "8"], "other settings: batch: checkpoint 16, asked 8"),
        ("graphaf", &[], "a run on rows, this one is on molecules; resume it with the program that made it"),
    ];
    for (name, flags, expected) in cases {
        let arguments = [&["train", "--out", "m", "--resume"], flags].concat();
        let message = refused(program(name, folder, &arguments), folder);
        assert!(message.contains(expected), "{name} {flags:?}: {message}");
        let last = message.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.len() < 400, "{last}");
    }
    assert!(says("density", folder, &["eval", "--checkpoint", "m"]).contains("over 8 points"));
    // A file whose rows were exchanged under its own name.
    std::fs::rename(folder.join("other.csv"), folder.join("a.csv")).unwrap();
    let message = refused(program("density", folder, &["eval", "--checkpoint", "m"]), folder);
    assert!(message.contains("a.csv: has changed since the training (train: as many rows, but not"), "{message}");
    assert!(says("density", folder, &["eval", "--checkpoint", "m", "--data", "a.csv"]).contains("over 80 points"));
    let message = refused(program("density", folder, &["train", "--out", "m", "--resume"]), folder);
    assert!(message.contains("not the same"), "{message}");
}

/// Nothing has been logged, nothing validated: there is a checkpoint, and nothing to draw.
#[test]
#[cfg(unix)]
fn a_run_that_is_interrupted_at_once_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let flags = ["train", "--out", "m", "--steps", "100000", "--log-every", "1000000", "--validate-every", "1000000"];
    let mut command = program("glow", folder, &flags);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !folder.join("m/log.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out} {err}");
    assert!(out.contains("stopped at step") && out.contains("go on with --out m --resume"), "{out}");
    assert!(err.contains("not drawn, no step has been logged yet"), "{err}");
}
