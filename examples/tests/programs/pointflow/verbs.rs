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
    assert!(said.starts_with("point error ") && said.contains("squared velocity error in validation"), "{said}");
    let out = folder.join("flow-out/pointflow");
    for file in ["samples.png", "reconstructions.png", "loss.png", "log.jsonl", "samples/sample-0003.ply"] {
        assert!(out.join(file).exists(), "{file}");
    }
    drawing(folder);
    using(folder);
    straightening(folder);
}

/// Paths become straighter, then one step is all there is.
fn straightening(folder: &Path) {
    let straighten = |from: &str, out: &str, more: &[&str]| {
        let base = ["straighten", "--checkpoint", from, "--out", out, "--clouds", "48", "--points", "64"];
        let rest = ["--steps", "150", "--samples", "2", "--batch-size", "8"];
        run(folder, &[&base[..], &rest, more].concat())
    };
    let report = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(out).join("report.json")).unwrap()).unwrap()
    };
    let said = straighten("flow-out/pointflow", "straight", &[]);
    assert!(said.contains("samples.png") && folder.join("straight/samples/sample-0001.ply").exists(), "{said}");
    let numbers = report("straight");
    let of = |when: &str| (numbers[when]["bend"].as_f64().unwrap(), numbers[when]["few_steps"][0].as_f64().unwrap());
    let ((bend, far), (straight, near)) = (of("before"), of("after"));
    assert!(straight < 0.8 * bend && near < far, "{numbers}");
    // It is a model like any other, with the sampler of its configuration.
    let small = ["--shapes", "24", "--points-per-shape", "256", "--points", "40"];
    assert!(run(folder, &[&["likelihood", "--checkpoint", "straight"], &small[..]].concat()).contains("nats/point"));
    straighten("straight", "one", &["--distill"]);
    let numbers = report("one");
    let (before, after) = (&numbers["before"]["few_steps"], &numbers["after"]["few_steps"]);
    assert!(after[0].as_f64().unwrap() < before[0].as_f64().unwrap(), "{numbers}");
    let drawn = |name: &str, more: &[&str]| {
        let base = ["sample", "--checkpoint", "one", "--count", "1", "--points", "30", "--out", name];
        run(folder, &[&base[..], more].concat());
        std::fs::read(folder.join(name)).unwrap()
    };
    assert_eq!(drawn("a.npy", &[]), drawn("b.npy", &["--solver", "heun", "--solver-steps", "20"]));
    assert!(
        run(folder, &[&["reconstruct", "--checkpoint", "one", "--seen", "64"], &small[..]].concat()).contains("times")
    );
    straighten("straight", "one", &["--distill", "--resume"]);
    for (arguments, expected) in [
        (&["likelihood", "--checkpoint", "one"][..], "no density of points"),
        (&["complete", "--checkpoint", "one", "--data", "half.xyz"], "no density of points"),
        (&["reconstruct", "--checkpoint", "one", "--shapes", "24", "--refine", "2"], "no density of points"),
        (&["straighten", "--checkpoint", "one", "--out", "two"], "no density of points"),
        (&["straighten", "--out", "straight"], "holds a run already"),
        (&["straighten", "--out", "two", "--clouds", "0"], "--clouds"),
    ] {
        let mut command = super::pointflow(folder);
        command.args(arguments);
        let message = crate::shared::refused(command, folder);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
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
    let again = ["reconstruct", "--seen", "64", "--points", "90", "--out", "refined"];
    let refined = run(folder, &[&again[..], &["--refine", "20"], &small[..]].concat());
    let number = |said: &str| said.split("Chamfer distance ").nth(1).unwrap().split(',').next().unwrap().to_string();
    assert_ne!(number(&refined), number(&said), "the search does nothing");
    let said = run(folder, &[&["interpolate", "--steps", "3", "--points", "64"], &small[..]].concat());
    assert!(said.starts_with("3 clouds"), "{said}");
    assert!(folder.join("flow-out/pointflow-interpolate/walk.gif").exists());
    // From a file of another program's making.
    std::fs::write(folder.join("half.xyz"), "0 0 0\n0.1 0 0\n0 0.2 0\n0.1 0.2 0.1\n").unwrap();
    let said = run(folder, &["complete", "--data", "half.xyz", "--points", "70", "--steps", "5", "--starts", "2"]);
    assert!(said.starts_with("1 shape completed"), "{said}");
    assert_eq!(cloud(&folder.join("flow-out/pointflow-complete/half.ply")), 70);
    let table = run(folder, &[&["eval", "--points", "32", "--json", "t.json"], &small[..]].concat());
    assert!(table.contains("MMD-CD") && table.contains("train set"), "{table}");
    let notes = |arguments: &[&str]| {
        let mut command = super::pointflow(folder);
        command.args(arguments);
        crate::shared::notes(command)
    };
    let eval = ["eval", "--points", "16", "--emd", "none"];
    assert!(!notes(&[&eval[..], &small].concat()).contains("the run's own data"));
    let more = ["--shapes", "25", "--points-per-shape", "256"];
    for verb in [&eval[..], &["likelihood", "--points", "16", "--split", "test"]] {
        let said = notes(&[verb, &more].concat());
        assert!(said.contains(crate::shared::OTHER_DATA) && said.contains("now, "), "{said}");
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("t.json")).unwrap()).unwrap();
    assert!(json["model"]["chamfer"]["one_nna"].as_f64().unwrap() <= 1.0);
    let said = run(folder, &[&["likelihood", "--points", "40", "--csv", "l.csv"], &small[..]].concat());
    assert!(said.contains("nats/point"), "{said}");
    assert_eq!(std::fs::read_to_string(folder.join("l.csv")).unwrap().lines().count(), 3);
    let said = run(folder, &[&["render", "--points", "100", "--limit", "2"], &small[..]].concat());
    assert!(said.starts_with("2 shapes"), "{said}");
    let said = run(folder, &["info"]);
    assert!(said.contains("built-in shapes") && said.contains("squared velocity error"), "{said}");
    let table = run(folder, &["info", "--presets"]);
    assert!(table.lines().count() == 7 && table.contains("1608346") && !table.contains('{'), "{table}");
    let json: serde_json::Value = serde_json::from_str(&run(folder, &["info", "--presets", "--json"])).unwrap();
    assert_eq!(json["paper"]["latent"], 128);
}

#[test]
fn the_papers_objective_trains_too() {
    let folder = tempfile::tempdir().unwrap();
    let narrow = r#"{"point": {"hidden": [12]}, "prior": {"hidden": [12]}, "encoder": {"point": [16], "head": [8]}}"#;
    std::fs::write(folder.path().join("narrow.json"), narrow).unwrap();
    let base =
        ["--config", "narrow.json", "--steps", "3", "--latent", "4", "--shapes", "8", "--points-per-shape", "64"];
    let rest = ["--points", "16", "--batch-size", "4", "--validate-every", "3"];
    let (drawn, none): (&[&str], &[&str]) = (&["--samples", "2"], &[]);
    for (model, picture, samples) in
        [("paper", "samples.png", drawn), ("paper-auto-encoder", "reconstructions.png", none)]
    {
        let train = ["train", "--model", model, "--out", model];
        let said = run(folder.path(), &[&train, &base[..], &rest[..], samples].concat());
        assert!(said.contains("nats/cloud") && said.contains(picture), "{said}");
    }
}

/// Scans differ in size; everything works with what the smallest has.
#[test]
fn clouds_of_different_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (part, count) in [("train", 6), ("test", 3)] {
        std::fs::create_dir_all(folder.join("scans").join(part)).unwrap();
        for i in 0..count {
            let point = |k: usize| format!("{} {} {}\n", k % 7, (k * i) % 5, k % 3);
            let text: String = (0..60 + 10 * i).map(point).collect();
            std::fs::write(folder.join(format!("scans/{part}/{i}.xyz")), text).unwrap();
        }
    }
    let base = ["train", "--data", "scans", "--model", "small", "--width", "8", "--latent", "4", "--batch-size", "4"];
    let rest = ["--steps", "4", "--validate-every", "2", "--samples", "5"];
    // More points than the smallest cloud has need replacement, in validation too.
    run(folder, &[&base[..], &rest, &["--points", "70", "--replacement", "--out", "again"]].concat());
    let said = run(folder, &[&base[..], &rest, &["--points", "50", "--out", "run"]].concat());
    assert!(said.contains("held-out shapes reconstructed"), "{said}");
    let ratio = |points: &str| {
        let of = ["reconstruct", "--data", "scans", "--checkpoint", "run", "--points", points];
        let said = run(folder, &of);
        assert!(said.starts_with("3 shapes"), "{said}");
        let times = said.split_once('(').unwrap().1.split_once(" times").unwrap().0.to_string();
        times.parse::<f64>().unwrap()
    };
    // More points do not make a reconstruction look better: the same number of them is compared.
    let (few, many) = (ratio("30"), ratio("3000"));
    assert!(many > 0.7 * few, "{many} against {few}");
    run(folder, &["interpolate", "--data", "scans", "--checkpoint", "run", "--points", "200", "--steps", "2"]);
    // All parts are drawn, and names that fall together are kept apart.
    assert!(run(folder, &["render", "--data", "scans"]).starts_with("9 shapes"));
    // A shorter run into the same folder leaves nothing of the longer one.
    for count in ["5", "2"] {
        run(folder, &["sample", "--checkpoint", "run", "--count", count, "--points", "20", "--out", "drawn.1"]);
        let plys = std::fs::read_dir(folder.join("drawn.1"))
            .unwrap()
            .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "ply"));
        assert_eq!(plys.count().to_string(), count);
    }
    for (arguments, expected) in [
        (&["render", "--data", "scans", "--part", "validation"][..], "no shapes in this part; name another, or all"),
        (&["render", "--data", "scans/test", "--out", "scans/test"], "could be overwritten"),
        (&["render", "--data", "scans/test/0.xyz", "--out", "scans/test"], "could be overwritten"),
        (&["sample", "--checkpoint", "run", "--count", "2", "--out", "x.ply"], "holds one cloud"),
        (
            &["eval", "--checkpoint", "run", "--data", "scans", "--splits", "scans/test/0.xyz"],
            "which shapes of an array",
        ),
    ] {
        let mut command = super::pointflow(folder);
        command.args(arguments);
        let message = crate::shared::refused(command, folder);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

/// The points of a map, of three shapes a kilometre from each other: coordinates in the millions, details of centimetres.
fn map(shape: usize, points: usize) -> String {
    let point = |k: usize| {
        let angle = k as f64 * 2.399_963;
        let (x, y) = (0.04 * angle.cos(), 0.02 * angle.sin());
        format!("{} {} {}\n", 694_386.212 + x, 5_155_487.512 + y, 381.036 + 0.001 * shape as f64)
    };
    (0..points).map(point).collect()
}

/// The spans of the three axes of a PLY.
fn spans(path: &Path) -> [f64; 3] {
    let Shape::Cloud(cloud) = read(path).unwrap() else { panic!("{}", path.display()) };
    std::array::from_fn(|k| {
        let bound = |f: fn(f64, f64) -> f64, from| cloud.positions().map(|p| p[k]).fold(from, f);
        bound(f64::max, f64::MIN) - bound(f64::min, f64::MAX)
    })
}

/// Far from zero nothing is rounded away: what goes in keeps its shape, what is drawn stands where the data stood.
#[test]
fn coordinates_of_maps() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("map")).unwrap();
    for i in 0..12 {
        std::fs::write(folder.join(format!("map/{i:02}.xyz")), map(i, 80)).unwrap();
    }
    let said = run(folder, &["render", "--data", "map", "--split", "all", "--no-pictures", "--out", "same"]);
    assert!(said.starts_with("12 shapes"), "{said}");
    let [x, y, _] = spans(&folder.join("same/03.ply"));
    assert!((x - 0.08).abs() < 1e-3 && (y - 0.04).abs() < 1e-3, "{x} {y}");
    let base = ["train", "--data", "map", "--model", "small", "--width", "8", "--latent", "4", "--batch-size", "4"];
    run(folder, &[&base[..], &["--steps", "4", "--points", "40", "--samples", "2", "--out", "run"]].concat());
    for (arguments, file) in [
        (
            &["sample", "--checkpoint", "run", "--count", "1", "--points", "50", "--out", "drawn"][..],
            "drawn/sample-0000.ply",
        ),
        (
            &["reconstruct", "--checkpoint", "run", "--data", "map", "--seen", "40", "--out", "again", "--limit", "1"],
            "",
        ),
    ] {
        run(folder, arguments);
        let file = match file {
            "" => std::fs::read_dir(folder.join("again"))
                .unwrap()
                .map(|e| e.unwrap().path())
                .find(|p| p.extension().is_some_and(|e| e == "ply"))
                .unwrap(),
            name => folder.join(name),
        };
        let Shape::Cloud(cloud) = read(&file).unwrap() else { panic!() };
        // Near the data, and on more places than single precision has there.
        assert!(cloud.positions().all(|p| (p[1] - 5_155_487.512).abs() < 2.0), "{file:?}");
        let places: std::collections::BTreeSet<u64> = cloud.positions().map(|p| p[1].to_bits()).collect();
        assert!(places.len() > cloud.len() / 2, "{} places of {} points", places.len(), cloud.len());
    }
    let text = run(folder, &["info", "--checkpoint", "run"]);
    assert!(text.contains("694386.2") && text.contains("5155487.5"), "{text}");
}

/// What a verb works on is said, and all of it can be asked for; small clouds are named.
#[test]
fn what_is_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("scans")).unwrap();
    for i in 0..20 {
        let text = format!("x,y,z,nx,ny,nz,label\n{}", "0.5,1,2,0,0,1,a\n0.25,1,3,0,1,0,b\n".repeat(30 + i));
        std::fs::write(folder.join(format!("scans/{i:02}.csv")), text).unwrap();
    }
    let said = |arguments: &[&str]| {
        let output = super::pointflow(folder).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).to_string())
    };
    let (_, stderr) = said(&["render", "--data", "scans", "--split", "test", "--no-pictures", "--out", "a"]);
    assert!(stderr.contains("split: test, 2 shapes"), "{stderr}");
    assert!(stderr.contains("columns that are not read: label") && stderr.contains("15 more notes"), "{stderr}");
    assert!(stderr.contains("have fewer than 2048 points, taken whole"), "{stderr}");
    let (_, stderr) = said(&["render", "--data", "scans", "--no-pictures", "--out", "b"]);
    assert!(stderr.contains("split: all, 20 shapes"), "{stderr}");
    // Normals are carried through.
    let Shape::Cloud(cloud) = read(&folder.join("b/00.ply")).unwrap() else { panic!() };
    assert_eq!(cloud.normals.unwrap().len(), cloud.points.len());
    let (code, stderr) = said(&["train", "--data", "scans", "--points", "64", "--out", "run"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("a step takes 64 points of a cloud, 2 have fewer: ") && stderr.contains("give --points 60"),
        "{stderr}"
    );
}
