//! Every verb, on a model that was trained for seconds.

use std::path::Path;

use flow_graph::smiles;

use super::{graphaf, run, train};

fn lines(folder: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(folder.join(file)).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn from_training_to_completion() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = train(folder, "flow-out/graphaf", "300", &["--validate-every", "100"]);
    assert!(said.contains("bits/atom") && said.contains("100.0 % valid"), "{said}");
    for file in ["samples.smi", "samples.png", "loss.png", "log.jsonl"] {
        assert!(folder.join("flow-out/graphaf").join(file).exists(), "{file}");
    }
    sampling(folder);
    judging(folder);
    optimizing(folder);
}

fn sampling(folder: &Path) {
    let drawn = run(folder, &["sample", "--count", "30"]);
    assert_eq!(drawn, run(folder, &["sample", "--count", "30"]), "the same seed gives the same molecules");
    assert_ne!(drawn, run(folder, &["sample", "--count", "30", "--seed", "1"]));
    let molecules: Vec<_> = drawn.lines().map(|line| smiles::parse(line).unwrap()).collect();
    assert_eq!(molecules.len(), 30);
    let out = ["--out", "a.smi", "--out", "a.csv", "--out", "a.sdf", "--out", "a.png", "--out", "a.svg"];
    let said = run(folder, &[&["sample", "--count", "25", "--min-atoms", "4", "--max-atoms", "9"], &out[..]].concat());
    assert_eq!(said.trim(), "25 valid of 25 molecules; a.smi, a.csv, a.sdf, a.png, a.svg");
    assert!(lines(folder, "a.svg").concat().contains("QED 0."));
    let small: Vec<_> = lines(folder, "a.smi").iter().map(|line| smiles::parse(line).unwrap().len()).collect();
    assert!(small.len() == 25 && small.iter().all(|n| (4..=9).contains(n)), "{small:?}");
    let table = lines(folder, "a.csv");
    assert_eq!(table[0], "smiles,heavy_atoms,qed,logp,molecular_weight");
    assert_eq!((table.len(), table[1].split(',').count()), (26, 5));
    let records = flow_graph::sdf::open(&folder.join("a.sdf")).unwrap().map(|r| r.unwrap().molecule.len());
    assert_eq!(records.collect::<Vec<_>>(), small);
    let raw = run(folder, &["sample", "--count", "200", "--unchecked", "--unique"]);
    let mut seen = raw.lines().collect::<Vec<_>>();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), raw.lines().count());
    let grown = run(folder, &["complete", "--scaffold", "c1ccoc1", "--count", "20"]);
    for line in grown.lines() {
        let molecule = smiles::parse(line).unwrap();
        assert!(molecule.len() >= 5 && molecule.ring_count() >= 1, "{line}");
    }
}

fn judging(folder: &Path) {
    // Against the molecules that it was trained on, which nobody had to name.
    let said = run(folder, &["eval", "--count", "100", "--json", "report.json"]);
    assert!(said.contains("without the rule of valence") && said.contains("novel"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&lines(folder, "report.json").concat()).unwrap();
    assert_eq!(report["validity"], 1.0, "{said}");
    assert!(report["model"]["validity_unchecked"].as_f64().unwrap() < 1.0, "{said}");
    assert_eq!((&report["model"]["reconstruction"]["same"], &report["novelty"]["honest"]), (&659.into(), &1.0.into()));
    std::fs::write(folder.join("some.smi"), "CCO\nnonsense\nCCO\nC1CC1 named\nC.CC\n").unwrap();
    run(folder, &["eval", "--samples", "some.smi", "--reference", "some.smi", "--json", "report.json"]);
    let report: serde_json::Value = serde_json::from_str(&lines(folder, "report.json").concat()).unwrap();
    assert_eq!((&report["generated"], &report["valid"], &report["connected"]), (&5.into(), &4.into(), &0.75.into()));
    // The piece that the reference keeps of the last line is not what the samples have there.
    let third = 1.0 / 3.0;
    assert_eq!((&report["uniqueness"]["all"], report["novelty"]["honest"].as_f64()), (&0.75.into(), Some(third)));
    assert!(report["model"].is_null());
    let said = run(folder, &["reconstruct"]);
    assert!(said.starts_with("78 of 78 molecules") && said.contains("100.00 %"), "{said}");
    let said = run(folder, &["score", "CCO", "CCN", "--orders", "4"]);
    assert_eq!(said.lines().count(), 3);
    assert!(said.lines().next().unwrap().contains("bits_per_atom"));
    // An element that it has never seen is refused by name, the rest is scored.
    let output = graphaf(folder).args(["score", "CCO", "C[Si](C)(C)C"]).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("atom type Si"));
    scoring(folder);
    assert!(run(folder, &["info"]).contains("bits/atom in validation"));
    assert!(run(folder, &["info", "--presets"]).contains("affine maps"));
}

/// The numbers belong to the molecule: neither its spelling nor its line decides, and every line of the input has its row.
fn scoring(folder: &Path) {
    let file = "CC(=O)OC1=CC=CC=C1C(=O)O one\nC1CC open\nCC(=O)OC1=C(C(=O)O)C=CC=C1 two\nC[Si](C)(C)C si\nCCO spirit, wine\n\
                CC(=O)Oc1ccccc1C(=O)O.[Na]OC salt\n";
    std::fs::write(folder.join("mixed.smi"), file).unwrap();
    run(folder, &["score", "--data", "mixed.smi", "--bound", "--out", "mixed.csv"]);
    let rows = lines(folder, "mixed.csv");
    assert_eq!(rows.len(), 7, "{rows:?}");
    let numbers = |row: &str| -> String { row.split(',').skip(3).collect::<Vec<_>>().join(",") };
    assert_eq!((numbers(&rows[1]), numbers(&rows[1])), (numbers(&rows[3]), numbers(&rows[6])), "{rows:?}");
    assert!(rows[1].starts_with("1,one,CC(=O)OC1=CC=CC=C1C(=O)O,CC(=O)Oc1ccccc1C(=O)O,13,-"), "{rows:?}");
    assert!(rows[2].starts_with("2,open,C1CC,,,,,") && rows[2].contains("never closed"), "{rows:?}");
    assert!(rows[4].starts_with("4,si,") && rows[4].contains("atom type Si"), "{rows:?}");
    assert!(rows[5].starts_with("5,\"spirit, wine\",CCO,CCO,3,-"), "{rows:?}");
    let alone = run(folder, &["score", "--bound", "C(C)O", "CCO"]);
    let alone: Vec<&str> = alone.lines().collect();
    assert_eq!(numbers(alone[1]), numbers(alone[2]));
    assert_eq!(
        numbers(alone[1]),
        rows[5].split_once("wine\",").unwrap().1.split(',').skip(1).collect::<Vec<_>>().join(",")
    );
}

fn optimizing(folder: &Path) {
    let flags = ["optimize", "--steps", "12", "--batch-size", "16", "--out", "qed", "--max-atoms", "15"];
    let said = run(folder, &flags);
    assert!(said.starts_with("1. qed 0.") && folder.join("qed/best.png").exists(), "{said}");
    // The result is a checkpoint like any other, and goes on.
    run(folder, &["sample", "--checkpoint", "qed", "--count", "5"]);
    run(folder, &["optimize", "--steps", "16", "--batch-size", "16", "--out", "qed", "--max-atoms", "15", "--resume"]);
    let other = ["--property", "qed", "--max-atoms", "16", "--resume", "--out", "qed", "--batch-size", "16"];
    let output = graphaf(folder).arg("optimize").args(other).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && message.contains("max_atoms"), "{message}");
    let table = lines(folder, "qed/best.csv");
    assert_eq!(table[0], "smiles,heavy_atoms,qed,logp,molecular_weight");
    let qed: Vec<f64> = table[1..].iter().map(|line| line.split(',').nth(2).unwrap().parse().unwrap()).collect();
    assert!(qed.is_sorted_by(|a, b| a >= b) && folder.join("qed/property.png").exists());
    std::fs::write(folder.join("few.csv"), "id,smiles\n1,CC(=O)Oc1ccccc1C(=O)O\n2,CCCCCCO\n").unwrap();
    let said = run(folder, &["optimize", "--constrained", "few.csv", "--attempts", "20", "--out", "better"]);
    assert!(said.contains("success") && said.contains("2 molecules"), "{said}");
    assert!(lines(folder, "better/improved.csv")[0].starts_with("source,optimised"));
}

#[test]
fn molecules_of_both_parts_are_counted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines: String = (0..60).map(|i| format!("{}O\n", "C".repeat(1 + i % 20))).collect();
    std::fs::write(folder.join("twice.smi"), lines).unwrap();
    let train = |out: &str, more: &[&str]| {
        let flags = ["train", "--data", "twice.smi", "--width", "8", "--layers", "1", "--hidden", "8", "--steps", "10"];
        let tail = ["--samples", "5", "--out", out];
        let output = super::graphaf(folder).args(flags).args(tail).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = train("a", &[]);
    assert!(said.contains("51 training, 3 validation, 6 test molecules"), "{said}");
    assert!(said.contains("40 of 60 molecules are there already") && said.contains("--dedup removes them"), "{said}");
    let said = train("b", &["--dedup"]);
    assert!(said.contains("17 training, 1 validation, 2 test molecules"), "{said}");
    assert!(said.contains("40 molecules removed"), "{said}");
}

/// The parts are those that the run cut, or none: another file has none, and the same file without its flags neither.
#[test]
fn the_parts_of_a_run_are_known_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let lines: String = (0..60).map(|i| format!("{}O\n", "C".repeat(1 + i % 20))).collect();
    std::fs::write(folder.join("twice.smi"), &lines).unwrap();
    std::fs::write(folder.join("other.smi"), lines.replace('O', "N")).unwrap();
    std::fs::write(folder.join("two.smi"), "CO\nCCO\n").unwrap();
    std::fs::write(folder.join("held.json"), "[0, 1, 2, 3]").unwrap();
    let flags = ["--width", "8", "--layers", "1", "--hidden", "8", "--steps", "2", "--samples", "5", "--seed", "3"];
    let train = |out: &str, more: &[&str]| {
        run(folder, &[&["train", "--data", "twice.smi", "--out", out], &flags[..], more].concat());
    };
    train("plain", &[]);
    train("once", &["--dedup"]);
    train("listed", &["--test-indices", "held.json"]);
    let says = |checkpoint: &str, data: &str, more: &[&str]| {
        let arguments = [&["reconstruct", "--checkpoint", checkpoint, "--data", data], more].concat();
        let output = graphaf(folder).args(&arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let cases: [(&str, &str, &[&str], &str); 9] = [
        ("plain", "twice.smi", &[], "split: test, 6 of 60 molecules of twice.smi"),
        ("plain", "./twice.smi", &["--split", "train"], "split: train, 51 of 60"),
        ("plain", "twice.smi", &["--split", "validation"], "split: validation, 3 of 60"),
        ("plain", "twice.smi", &["--split", "all"], "split: all, 60 of 60"),
        ("once", "twice.smi", &["--split", "train"], "split: train, 17 of 60"),
        ("listed", "twice.smi", &["--test-indices", "held.json"], "split: test, 4 of 60"),
        (
            "listed",
            "twice.smi",
            &[],
            "split: all, 60 of 60 molecules of twice.smi: not the molecules of the run (train: ",
        ),
        ("plain", "other.smi", &[], "other.smi: not the molecules of the run (train: 0 molecules now, 51 then;"),
        ("plain", "two.smi", &[], "split: all, 2 of 2 molecules of two.smi: not the molecules of the run"),
    ];
    for (checkpoint, data, more, expected) in cases {
        let (code, said) = says(checkpoint, data, more);
        assert!(said.contains(expected), "{checkpoint} {data} {more:?}: {said}");
        // Amines are not in the vocabulary of alcohols.
        assert_eq!(code, Some(if data == "other.smi" { 2 } else { 0 }), "{said}");
    }
    for (checkpoint, data, more, expected) in [
        ("plain", "other.smi", &["--split", "test"][..], "--split test: other.smi: not the molecules of the run"),
        ("listed", "twice.smi", &["--split", "test"], "with its --test-indices if it had them, or --split all"),
        ("plain", "twice.smi", &["--test-indices", "held.json"], "not the molecules of the run"),
        ("plain", "twice.smi", &["--split", "all", "--test-indices", "held.json"], "--test-indices: says nothing of"),
    ] {
        let (code, said) = says(checkpoint, data, more);
        assert!(code == Some(2) && said.contains(expected), "{checkpoint} {data} {more:?}: {said}");
    }
    // What is new is new to the molecules of training, unless told.
    let judge = |more: &[&str]| {
        let arguments = [&["eval", "--checkpoint", "plain", "--count", "5"], more].concat();
        let output = graphaf(folder).args(&arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(judge(&[]).contains("split: train, 51 of 60 molecules of twice.smi"));
    assert!(judge(&["--split", "test"]).contains("split: test, 6 of 60"));
    assert!(judge(&["--reference", "other.smi"]).contains("split: all, 60 of 60 molecules of other.smi: not"));
}

#[test]
fn the_papers_model_and_a_file_with_bad_lines() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut text = String::new();
    for i in 0..60 {
        text += &format!("{}O\tnumber {i}\n", "C".repeat(1 + i % 9));
    }
    text += "C1CC\n[NH4+].[Cl-]CC\nCC[Si](C)C\nCC([O-])=O\n";
    std::fs::write(folder.join("mine.smi"), text).unwrap();
    let flags =
        ["train", "--data", "mine.smi", "--model", "paper", "--width", "16", "--steps", "20", "--samples", "10"];
    let output = super::graphaf(folder).args(flags).args(["--out", "run", "--batch-size", "8"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("mine.smi: line 61"), "{stderr}");
    assert!(lines(folder, "run/bad_lines.txt")[0].contains("line 61"));
    let info = run(folder, &["info", "--checkpoint", "run"]);
    assert!(info.contains("C N O F P S Cl Br I"), "{info}");
    let said = run(folder, &["reconstruct", "--checkpoint", "run", "--data", "mine.smi", "--split", "all"]);
    assert!(said.starts_with("61 of 61") && said.contains("100.00 %"), "{said}");
}

#[test]
fn a_run_of_minutes_with_previews_and_a_configuration_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("small.json"), r#"{"width": 8, "layers": 1, "residual": false, "max_atoms": 20}"#)
        .unwrap();
    let flags = ["train", "--config", "small.json", "--hidden", "16", "--batch-size", "16", "--vocabulary", "paper"];
    let more = ["--steps", "1000000", "--minutes", "0.05", "--preview-every", "5", "--samples", "10", "--out", "run"];
    let said = run(folder, &[&flags[..], &more].concat());
    assert!(said.starts_with("time is up at step") && said.contains("bits/atom"), "{said}");
    let preview = lines(folder, "run/previews/samples-00000005.smi");
    assert!(preview.len() == 40 && preview.iter().all(|line| smiles::parse(line).unwrap().len() <= 20));
    assert!(folder.join("run/previews/samples-00000005.png").exists());
    let info = run(folder, &["info", "--checkpoint", "run"]);
    assert!(info.contains("\"residual\":false") && info.contains("20 atoms") && info.contains("C N O F P S"), "{info}");
}
