//! Bad arguments and bad files: exit code 2, one line that says what was expected, and nothing left behind.

use std::path::Path;

use super::shared::listing;
use super::{graphaf, train};

/// Runs the program, which has to refuse; answers its one line.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let before = listing(folder);
    let output = graphaf(folder).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(2), "graphaf {arguments:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(before, listing(folder), "graphaf {arguments:?} left something behind");
    stderr
}

#[test]
fn refusals_name_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(folder, "run", "5", &[]);
    std::fs::write(folder.join("table.csv"), "name,structure_of\na,CCO\n").unwrap();
    std::fs::write(folder.join("empty.smi"), "").unwrap();
    std::fs::write(folder.join("bad.smi"), "C1CC\nxyz\n").unwrap();
    std::fs::write(folder.join("cut.smi.gz"), [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 75, 118]).unwrap();
    std::fs::write(folder.join("one.json"), "{\"vocabulary\": 3}").unwrap();
    std::fs::write(folder.join("indices.json"), "[1, 99999]").unwrap();
    let cases: [(&[&str], &str); 22] = [
        (&["train", "--data", "nowhere.smi"], "nowhere.smi"),
        (&["train", "--data", "empty.smi"], "empty.smi"),
        (&["train", "--data", "bad.smi"], "line 1"),
        (&["train", "--data", "cut.smi.gz"], "cut.smi.gz"),
        (&["train", "--data", "table.csv"], "structure_of"),
        (&["train", "--data", "table.csv", "--column", "smiles"], "structure_of"),
        (&["train", "--config", "one.json", "--out", "new"], "one.json"),
        (&["train", "--test-indices", "indices.json", "--out", "new"], "indices.json"),
        (&["train", "--out", "run"], "holds a run already"),
        (&["train", "--out", "new", "--resume"], "no complete checkpoint"),
        (&["train", "--out", "new", "--batch-size", "0"], "batch size"),
        (&["train", "--out", "new", "--batch-size", "100000"], "batch size"),
        (&["train", "--out", "new", "--model", "transformer"], "spline"),
        (&["train", "--out", "new", "--epochs", "-1"], "epochs"),
        (&["sample", "--checkpoint", "nowhere"], "nowhere"),
        (&["sample", "--checkpoint", "run", "--count", "0"], "--count"),
        (&["sample", "--checkpoint", "run", "--temperature", "-1"], "--temperature"),
        (&["sample", "--checkpoint", "run", "--out", "a.pdf"], ".png"),
        (&["complete", "--checkpoint", "run", "--scaffold", "C1CC"], "column"),
        (&["optimize", "--checkpoint", "run", "--property", "plogp"], "--sa-scores"),
        (&["score", "--checkpoint", "run"], "expected SMILES"),
        (&["eval", "--samples", "empty.smi"], "empty.smi"),
    ];
    for (arguments, expected) in cases {
        let message = refused(folder, arguments);
        assert!(message.contains(expected), "graphaf {arguments:?}: {message}");
    }
}
