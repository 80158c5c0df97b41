//! Every verb, on a model that was trained for seconds.

use std::path::Path;

use flow_points::io::{Shape, read};

use super::{TINY, run};

fn cloud(path: &Path) -> usize {
    match read(path).unwrap() {
        Shape::Cloud(cloud) => cloud.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn from_training_to_completion() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = run(folder, &[&["train", "--steps", "60", "--validate-every", "30"], &TINY[..]].concat());
    assert!(said.contains("reconstructed at") && said.contains("samples.png"), "{said}");
    let out = folder.join("flow-out/pointflow");
    for file in ["samples.png", "reconstructions.png", "loss.png", "log.jsonl", "samples/sample-0003.ply"] {
        assert!(out.join(file).exists(), "{file}");
    }
    drawing(folder);
    using(folder);
}

fn drawing(folder: &Path) {
    let said = run(folder, &["sample", "--count", "3", "--points", "100"]);
    assert!(said.starts_with("3 clouds of 100 points"), "{said}");
    let out = folder.join("flow-out/pointflow-sample");
    assert_eq!(cloud(&out.join("sample-0002.ply")), 100);
    assert!(out.join("sheet.png").exists() && out.join("turntable.gif").exists());
    let drawn = |name: &str, more: &[&str]| {
        run(folder, &[&["sample", "--count", "2", "--points", "50", "--out", name], more].concat());
        std::fs::read(folder.join(name)).unwrap()
    };
    assert_eq!(drawn("a.npy", &[]), drawn("b.npy", &[]), "the same seed gives the same clouds");
    assert_ne!(drawn("a.npy", &[]), drawn("b.npy", &["--seed", "1"]));
    assert_ne!(drawn("a.npy", &[]), drawn("b.npy", &["--solver", "euler", "--solver-steps", "4"]));
    run(folder, &["sample", "--count", "1", "--points", "30", "--out", "one.ply", "--ascii", "--tolerance", "1e-3"]);
    assert!(std::fs::read(folder.join("one.ply")).unwrap().starts_with(b"ply\nformat ascii 1.0"));
}

fn using(folder: &Path) {
    let small = ["--shapes", "24", "--points-per-shape", "256"];
    let said = run(folder, &[&["reconstruct", "--seen", "64", "--points", "90"], &small[..]].concat());
    assert!(said.contains("two samplings of a shape"), "{said}");
    assert!(folder.join("flow-out/pointflow-reconstruct/sheet.png").exists());
    let said = run(folder, &[&["interpolate", "--steps", "3", "--points", "64"], &small[..]].concat());
    assert!(said.starts_with("3 clouds"), "{said}");
    assert!(folder.join("flow-out/pointflow-interpolate/walk.gif").exists());
    // From a file of another program's making.
    std::fs::write(folder.join("half.xyz"), "0 0 0\n0.1 0 0\n0 0.2 0\n0.1 0.2 0.1\n").unwrap();
    let said = run(folder, &["complete", "--data", "half.xyz", "--points", "70", "--steps", "5", "--starts", "2"]);
    assert!(said.starts_with("1 shapes completed"), "{said}");
    assert_eq!(cloud(&folder.join("flow-out/pointflow-complete/half.ply")), 70);
    let table = run(folder, &[&["eval", "--points", "32", "--json", "t.json"], &small[..]].concat());
    assert!(table.contains("MMD-CD") && table.contains("train set"), "{table}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("t.json")).unwrap()).unwrap();
    assert!(json["model"]["chamfer"]["one_nna"].as_f64().unwrap() <= 1.0);
    let said = run(folder, &[&["likelihood", "--points", "40", "--csv", "l.csv"], &small[..]].concat());
    assert!(said.contains("nats/point"), "{said}");
    assert_eq!(std::fs::read_to_string(folder.join("l.csv")).unwrap().lines().count(), 3);
    let said = run(folder, &[&["render", "--points", "100", "--limit", "2"], &small[..]].concat());
    assert!(said.starts_with("2 shapes"), "{said}");
    let said = run(folder, &["info"]);
    assert!(said.contains("built-in shapes") && said.contains("matching loss in validation"), "{said}");
    assert_eq!(run(folder, &["info", "--presets"]).lines().count(), 4);
}

#[test]
fn the_papers_objective_trains_too() {
    let folder = tempfile::tempdir().unwrap();
    let narrow = r#"{"point": {"hidden": [12]}, "prior": {"hidden": [12]}, "encoder": {"point": [16], "head": [8]}}"#;
    std::fs::write(folder.path().join("narrow.json"), narrow).unwrap();
    let base =
        ["--config", "narrow.json", "--steps", "3", "--latent", "4", "--shapes", "8", "--points-per-shape", "64"];
    let rest = ["--points", "16", "--batch-size", "4", "--samples", "2", "--validate-every", "3"];
    for (model, picture) in [("paper", "samples.png"), ("paper-auto-encoder", "reconstructions.png")] {
        let said = run(folder.path(), &[&["train", "--model", model, "--out", model], &base[..], &rest[..]].concat());
        assert!(said.contains("nats/cloud") && said.contains(picture), "{said}");
    }
}
