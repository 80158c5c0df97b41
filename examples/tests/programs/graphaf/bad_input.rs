//! Bad arguments and bad files: exit code 2, one line that says what was expected, and nothing left behind.

use super::{TINY, graphaf, train};
use crate::shared::{all_refused, refused};

#[test]
fn data_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let files: [(&str, &[u8]); 12] = [
        ("table.csv", b"name,structure_of\na,CCO\n"),
        ("empty.smi", b""),
        ("bad.smi", b"C1CC\nxyz\n"),
        ("ring.csv", b"id,smiles\n7,CC(C\n"),
        ("cut.smi.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 75, 118]),
        ("cut.sdf", b"x\n\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n    0.0000"),
        ("noise.txt", &[0xff, 0xfe, 0, 1, 2, 3]),
        ("three.smi", b"CCO\nCCN\nCCC\n"),
        ("one.json", b"{\"vocabulary\": 3}"),
        ("field.json", b"{\"depth\": 3}"),
        ("cut.json", b"{\n\"width\": "),
        ("indices.json", b"[1, 99999]"),
    ];
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
    std::fs::create_dir(folder.join("folder")).unwrap();
    all_refused(
        graphaf,
        folder,
        &[
            (&["train", "--data", "nowhere.smi"], "nowhere.smi"),
            (&["train", "--data", "folder"], "folder"),
            (&["train", "--data", "empty.smi"], "empty.smi"),
            (&["train", "--data", "bad.smi"], "line 1, column 2"),
            (&["train", "--data", "ring.csv"], "line 2, column 5"),
            (&["train", "--data", "cut.smi.gz"], "cut.smi.gz"),
            (&["train", "--data", "cut.sdf"], "cut.sdf"),
            (&["train", "--data", "noise.txt"], "noise.txt"),
            (&["train", "--data", "table.csv"], "structure_of"),
            (&["train", "--data", "table.csv", "--column", "smiles"], "structure_of"),
            (&["train", "--data", "three.smi", "--max-atoms", "2"], "no molecule that the model can express"),
            (&["train", "--config", "one.json", "--out", "new"], "one.json"),
            (&["train", "--config", "field.json", "--out", "new"], "unknown field `depth`"),
            (&["train", "--config", "cut.json", "--out", "new"], "cut.json: EOF while parsing a value at line 2"),
            (&["train", "--config", "nowhere.json", "--out", "new"], "nowhere.json"),
            (&["train", "--test-indices", "indices.json", "--out", "new"], "indices.json"),
            (&["eval", "--samples", "empty.smi"], "empty.smi"),
            (&["eval", "--samples", "three.smi", "--sa-scores", "one.json"], "one.json"),
        ],
    );
}

#[test]
fn arguments_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(folder, "run", "5", &[]);
    std::fs::create_dir(folder.join("folder")).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    all_refused(
        graphaf,
        folder,
        &[
            (&["train", "--out", "run"], "holds a run already"),
            (&["train", "--out", "file"], "file"),
            (&["train", "--out", "new", "--resume"], "holds no checkpoint"),
            (&[&["train", "--out", "run", "--resume"], &TINY[2..], &["--width", "9"]].concat(), "width"),
            (&["train", "--out", "new", "--batch-size", "0"], "--batch-size"),
            (&["train", "--out", "new", "--batch-size", "100000"], "batch size"),
            (&["train", "--out", "new", "--epochs", "0"], "--epochs"),
            (&["train", "--out", "new", "--minutes", "0"], "--minutes"),
            (&["train", "--out", "new", "--steps", "0"], "steps"),
            (&["train", "--out", "new", "--hidden", "16,0"], "hidden"),
            (&["train", "--out", "new", "--hidden", "16", "--model", "paper"], "--hidden is for the spline"),
            (&["train", "--out", "new", "--max-atoms", "0"], "max_atoms"),
            (&["sample", "--checkpoint", "nowhere"], "nowhere"),
            (&["sample", "--checkpoint", "folder"], "holds no checkpoint"),
            (&["sample", "--checkpoint", "run", "--device", "abacus"], "expected cpu"),
            (&["sample", "--checkpoint", "run", "--count", "0"], "--count"),
            (&["sample", "--checkpoint", "run", "--temperature", "-1"], "--temperature"),
            (&["sample", "--checkpoint", "run", "--temperature", "NaN"], "--temperature"),
            (&["sample", "--checkpoint", "run", "--min-atoms", "9", "--max-atoms", "8"], "--min-atoms 9"),
            (&["sample", "--checkpoint", "run", "--out", "a.pdf"], ".png"),
            (&["sample", "--checkpoint", "run", "--out", "folder"], "folder"),
            (&["eval", "--checkpoint", "run", "--json", "folder"], "expected the name of a file"),
            (&["eval", "--checkpoint", "run", "--count", "1", "--reference", "nowhere.smi"], "nowhere.smi"),
            (&["complete", "--checkpoint", "run", "--scaffold", "C1CC"], "--scaffold: SMILES 'C1CC', column 2"),
            (&["complete", "--checkpoint", "run", "--scaffold", "C[Si](C)(C)C"], "atom type Si"),
            (&["complete", "--checkpoint", "run", "--scaffold", "CCCO", "--max-atoms", "4"], "has 4 atoms"),
            (&["optimize", "--checkpoint", "run", "--property", "plogp"], "--sa-scores"),
            (&["optimize", "--checkpoint", "run", "--constrained", "nowhere.csv"], "nowhere.csv"),
            (&["optimize", "--checkpoint", "run", "--out", "new", "--discount", "2"], "discount"),
            (&["optimize", "--checkpoint", "run", "--out", "new", "--resume"], "holds no checkpoint"),
            (&["score", "--checkpoint", "run"], "expected SMILES"),
            (&["score", "--checkpoint", "run", "CC(C"], "column 3"),
            (&["score", "--checkpoint", "run", "C[Si](C)(C)C"], "no molecule that the model can express"),
            (&["reconstruct", "--checkpoint", "run", "--count", "0"], "--count"),
        ],
    );
}

/// A flag that nothing would read is named, with the reason and what to do instead.
#[test]
fn flags_that_do_not_apply() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("three.smi"), "CCO\nCCN\nCCC\n").unwrap();
    let constrained = ["optimize", "--constrained", "three.smi"];
    let with = |more: &[&'static str]| [&constrained[..], more].concat();
    all_refused(
        graphaf,
        folder,
        &[
            (&["train", "--column", "smiles"], "--column: for tables (.csv, .tsv), builtin is none"),
            (&["train", "--data", "three.smi", "--column", "smiles"], "three.smi is none; leave it out"),
            (&["score", "CCO", "--column", "smiles"], "--column: for the table of --data FILE"),
            (&["eval", "--samples", "three.smi", "--column", "smiles"], "--column: for tables"),
            (&["eval", "--samples", "three.smi", "--count", "9", "--unchecked"], "--count, --unchecked: for the draws"),
            (&["eval", "--samples", "three.smi", "--split", "test"], "--split: for the draws"),
            (
                &["sample", "--out", "a.smi", "--sa-scores", "x"],
                "--sa-scores: only .csv and .sdf files hold properties",
            ),
            (&["complete", "--scaffold", "CC", "--sa-scores", "x"], "--sa-scores: only .csv and .sdf"),
            (&["optimize", "--attempts", "9", "--count", "9"], "--attempts, --count: for improving given molecules"),
            (&["optimize", "--preview-every", "9"], "--preview-every: fine-tuning draws no previews"),
            (&with(&["--steps", "9", "--resume"]), "--resume, --steps: for fine-tuning"),
            (&with(&["--min-atoms", "9"]), "--min-atoms: for fine-tuning"),
            (&with(&["--sa-scores", "x"]), "--sa-scores: for --property plogp"),
            (&["info", "--presets", "--raw-weights"], "--raw-weights: --presets lists"),
        ],
    );
}

#[test]
fn what_the_parser_refuses() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["train", "--tempreature", "1"][..], "--tempreature"),
        (&["train", "--model", "transformer"], "spline"),
        (&["train", "--vocabulary", "mine"], "paper"),
        (&["train", "--steps", "many"], "many"),
        (&["train", "--steps", "5", "--epochs", "1"], "--epochs"),
        (&["sample", "--count", "-1"], "-1"),
        (&["optimize", "--property", "colour"], "plogp"),
        (&["dance"], "dance"),
    ] {
        let mut command = graphaf(folder.path());
        command.args(arguments);
        let message = refused(command, folder.path());
        assert!(message.starts_with("error: ") && message.contains(expected), "{arguments:?}: {message}");
    }
}

/// Two runs into one folder would spoil each other's checkpoints.
#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let long = ["train", "--out", "run", "--steps", "1000000", "--checkpoint-every", "1000000"];
    let mut first = graphaf(folder.path());
    let quiet = std::process::Stdio::null;
    let mut first = first.args(long).args(TINY).stdout(quiet()).stderr(quiet()).spawn().unwrap();
    let log = folder.path().join("run/log.jsonl");
    let begun = std::time::Instant::now();
    while !log.exists() && begun.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = graphaf(folder.path()).args(long).args(TINY).output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let message = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{message}");
    assert!(message.contains("another process is training into this folder"), "{message}");
}
