//! Every verb, on models that were trained for seconds.

use std::path::Path;

use super::{TINY, run};

/// The number that follows `word`.
fn number_after(text: &str, word: &str) -> f64 {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no '{word}' in {text}")).1;
    rest.split_whitespace().next().unwrap().trim_matches([',', ';']).parse().unwrap()
}

#[test]
fn from_training_to_samples_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sizes = ["--hidden", "32", "--layers", "4", "--batch-size", "128", "--pixels", "60"];
    let said = run(folder, &[&["train", "--steps", "150"], &sizes[..]].concat());
    // One Gaussian with the mean and deviation of the data scores 4.27.
    let nats = number_after(&said, "test ");
    assert!(nats < 3.8 && said.contains("from the entropy 2.8319"), "{said}");
    for file in ["density.png", "samples.png", "path.png", "path.gif", "loss.png", "log.jsonl", "report.json"] {
        assert!(folder.join("flow-out/density").join(file).exists(), "{file}");
    }
    let frames = std::fs::read(folder.join("flow-out/density/path.gif")).unwrap();
    assert!(frames.starts_with(b"GIF89a"));
    sampling(folder);
    let said =
        run(folder, &["eval", "--points", "3000", "--json", "report.json", "--pictures", "pictures", "--pixels", "60"]);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert!((report["nll"].as_f64().unwrap() - nats).abs() < 0.2 && report["points"] == 3000, "{said}");
    // The two estimates of the distance agree within the error of the looser one.
    let gap = report["nll"].as_f64().unwrap() - report["entropy"].as_f64().unwrap();
    let divergence = report["divergence"][0].as_f64().unwrap();
    assert!((gap - divergence).abs() < 5.0 * report["error"].as_f64().unwrap(), "{report}");
    assert!(folder.join("pictures/density.png").exists());
    assert!(run(folder, &["info"]).contains("best"));
}

fn sampling(folder: &Path) {
    let drawn = run(folder, &["sample", "--count", "400"]);
    assert_eq!(drawn, run(folder, &["sample", "--count", "400"]), "the same seed gives the same points");
    assert_ne!(drawn, run(folder, &["sample", "--count", "400", "--seed", "1"]));
    let points: Vec<f64> = drawn.lines().flat_map(|l| l.split(',').map(|v| v.parse().unwrap())).collect();
    assert_eq!(points.len(), 800);
    // Eight Gaussians at a distance of 2.83 from the middle.
    let mean = points.chunks(2).map(|p| p[0].hypot(p[1])).sum::<f64>() / 400.0;
    assert!((mean - 2.85).abs() < 0.4, "{mean}");
    assert_eq!(run(folder, &["sample", "--count", "7", "--out", "p.csv"]).trim(), "7 points; p.csv");
    assert_eq!(std::fs::read_to_string(folder.join("p.csv")).unwrap().lines().count(), 7);
}

/// Every family takes a step, leaves pictures and is read again.
#[test]
fn all_models_train_and_load() {
    let bumps = ["planar", "radial", "sylvester"];
    let conditioned = ["realnvp", "maf", "spline", "spline-autoregressive"];
    for model in bumps.into_iter().chain(conditioned).chain(["ffjord", "matching"]) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let sizes = match model {
            "planar" | "radial" | "sylvester" => &["--layers", "4", "--pixels", "40"][..],
            "ffjord" | "matching" => &TINY[2..],
            _ => &TINY[..],
        };
        let base = ["train", "--model", model, "--data", "rings", "--steps", "3", "--test-points", "100"];
        let said = run(folder, &[&base, sizes].concat());
        assert!(said.contains("nats over 100 points") && folder.join("flow-out/density/path.gif").exists(), "{said}");
        let drawn = run(folder, &["sample", "--count", "5"]);
        assert_eq!(drawn.lines().count(), 5);
        if sizes.len() == TINY.len() - 2 {
            // Many steps end where the adaptive solver does.
            let fixed = run(folder, &["sample", "--count", "5", "--steps", "40"]);
            let numbers =
                |text: &str| -> Vec<f64> { text.split([',', '\n']).filter_map(|v| v.trim().parse().ok()).collect() };
            let pairs = numbers(&drawn).into_iter().zip(numbers(&fixed));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-2), "{model}: {drawn}\n{fixed}");
        }
    }
}

/// What was held out from the teacher stays held out, whatever the seed of the copy.
#[test]
fn a_straightened_table_keeps_its_split() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = flow_core::FlowRng::seed_from(3);
    let rows: String = (0..300).map(|_| format!("{},{}\n", rng.next_normal(), rng.next_normal())).collect();
    std::fs::write(folder.join("t.csv"), rows).unwrap();
    let base = ["--batch-size", "64", "--pixels", "40", "--steps", "2"];
    let train = ["train", "--data", "t.csv", "--model", "matching", "--hidden", "8", "--seed", "5", "--out", "run"];
    run(folder, &[&train[..], &base].concat());
    let straighten = ["straighten", "--checkpoint", "run", "--pairs", "100", "--seed", "9", "--out", "straight"];
    run(folder, &[&straighten[..], &base].concat());
    let config = std::fs::read_to_string(folder.join("straight/checkpoints/best/config.json"));
    let config =
        config.or_else(|_| std::fs::read_to_string(folder.join("straight/checkpoints/step-00000002/config.json")));
    let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
    assert_eq!(config["task"]["seed"], 5, "{config}");
}

/// A matched flow is straightened, and the straight one distilled; each is closer to its teacher in one step than before.
#[test]
fn paths_are_straightened_and_distilled() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let sizes = ["--batch-size", "256", "--pixels", "40"];
    let base = ["train", "--model", "matching", "--hidden", "32,32", "--block", "0", "--data", "8gaussians"];
    run(folder, &[&base[..], &sizes, &["--steps", "250", "--test-points", "100", "--out", "run"]].concat());
    let report = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join(out).join("report.json")).unwrap()).unwrap()
    };
    let straighten = |from: &str, out: &str, more: &[&str]| {
        let base = ["straighten", "--checkpoint", from, "--out", out, "--pairs", "4000", "--steps", "250"];
        run(folder, &[&base[..], &sizes, more].concat())
    };
    let said = straighten("run", "straight", &[]);
    assert!(said.contains("from the entropy") && folder.join("straight/path.gif").exists(), "{said}");
    let numbers = report("straight");
    let of = |when: &str| (numbers[when]["bend"].as_f64().unwrap(), numbers[when]["few_steps"][0].as_f64().unwrap());
    let ((bend, far), (straight, near)) = (of("before"), of("after"));
    assert!(straight < 0.6 * bend && near < 0.8 * far, "{numbers}");
    assert_eq!(number_after(&run(folder, &["eval", "--checkpoint", "straight"]), "over "), 20_000.0);
    // One step of the distilled flow is what its plain samples are.
    straighten("straight", "one", &["--distill"]);
    let numbers = report("one");
    let (before, after) = (&numbers["before"]["few_steps"], &numbers["after"]["few_steps"]);
    assert!(after[0].as_f64().unwrap() < before[0].as_f64().unwrap(), "{numbers}");
    let sample = |more: &[&str]| run(folder, &[&["sample", "--checkpoint", "one", "--count", "9"], more].concat());
    assert_eq!(sample(&[]), sample(&["--steps", "1", "--solver", "euler"]));
    assert_ne!(sample(&[]), sample(&["--steps", "1", "--solver", "heun"]));
    assert!(run(folder, &["info", "--checkpoint", "one"]).contains("distilled"));
    // It goes on where it was stopped, or says that there is nothing to do, but not as something else.
    straighten("straight", "one", &["--distill", "--resume"]);
    run(folder, &["straighten", "--out", "one", "--resume"]);
    for (arguments, expected) in [
        (&["eval", "--checkpoint", "one"][..], "has no density"),
        (&["straighten", "--checkpoint", "one", "--out", "two"], "distilled already"),
        (&["straighten", "--checkpoint", "run", "--out", "straight", "--pairs", "10"], "holds a run already"),
        (&["straighten", "--checkpoint", "run", "--out", "two", "--pairs", "0"], "--pairs"),
    ] {
        let mut command = super::density(folder);
        command.args(arguments);
        let message = crate::shared::refused(command, folder);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_table_is_split_and_scored_in_both_units() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Three columns of normals of deviation 1, 10 and 0.1: entropy 3·1.4189.
    let mut rng = flow_core::FlowRng::seed_from(3);
    let rows: String = (0..3000)
        .map(|_| format!("{},{},{}\n", rng.next_normal(), 10.0 * rng.next_normal(), 5.0 + 0.1 * rng.next_normal()))
        .collect();
    std::fs::write(folder.join("table.csv"), format!("a,b,c\n{rows}")).unwrap();
    let said =
        run(folder, &[&["train", "--data", "table.csv", "--model", "maf", "--steps", "60"], &TINY[..6]].concat());
    assert!((number_after(&said, "test ") - 3.0 * 1.4189).abs() < 0.25, "{said}");
    assert!(said.contains("over 300 points") && said.contains("of standardised data"), "{said}");
    assert!(!folder.join("flow-out/density/density.png").exists());
    let drawn = run(folder, &["sample", "--count", "200"]);
    assert_eq!((drawn.lines().count(), drawn.lines().next()), (201, Some("a,b,c")));
    assert_eq!(drawn.split_once('\n').unwrap().1, run(folder, &["sample", "--count", "200", "--no-header"]));
    let third: Vec<f64> = drawn.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse().unwrap()).collect();
    let mean = third.iter().sum::<f64>() / 200.0;
    assert!((mean - 5.0).abs() < 0.05, "{mean}");
}

/// A column with two modes, of which splines without anything to couple make more than a Gaussian, whose nats are 2.5.
#[test]
fn a_single_column_has_a_density() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = flow_core::FlowRng::seed_from(3);
    let mut one = || 3.0 * (2.0 * rng.below(2) as f64 - 1.0) + 0.3 * rng.next_normal();
    let rows: String = (0..1000).map(|_| format!("{}\n", one())).collect();
    std::fs::write(folder.join("one.csv"), rows).unwrap();
    let train = ["train", "--data", "one.csv", "--steps", "150", "--learning-rate", "0.05"];
    let said = run(folder, &[&train, &TINY[..6]].concat());
    let nats = number_after(&said, "test ");
    assert!(nats < 1.8 && nats > 0.8, "{said}");
}

/// Fewer rows than a step of the recipe has, names, text in a column: what most tables of the world are.
#[test]
fn a_small_table_trains_by_default_and_scores_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = flow_core::FlowRng::seed_from(3);
    let mut row = || (rng.next_normal(), 2.0 + 0.5 * rng.next_normal());
    let rows: String = (0..150).map(|_| row()).map(|(a, b)| format!("{a},setosa,{b}\n")).collect();
    std::fs::write(folder.join("iris.csv"), format!("length,species,width\n{rows}")).unwrap();
    let train = ["train", "--data", "iris.csv", "--columns", "length,width", "--steps", "20", "--hidden", "8"];
    let (said, notes) = super::run_with_notes(folder, &[&train[..], &["--pixels", "40"]].concat());
    assert!(
        notes.contains("iris.csv: 150 rows of 2 columns of 3 (length, width); 120 for training, 15 for validation"),
        "{notes}"
    );
    assert!(notes.contains("steps of 120 points") && !notes.contains("warning"), "{notes}");
    assert!(said.contains("over 15 points (the whole test split of iris.csv"), "{said}");
    // Evaluation draws what training drew: the two numbers are one.
    let nats = number_after(&said, "test ");
    assert_eq!(nats, number_after(&run(folder, &["eval"]), "test "));
    let (said, notes) = super::run_with_notes(folder, &["eval", "--split", "all"]);
    assert!(said.contains("over 150 points (every row of iris.csv") && notes.contains("eight tenths were trained on"));
    assert!(
        run(folder, &["eval", "--split", "train", "--points", "7"]).contains("the first of the 120 rows in the train")
    );
    // Another file: in another order, with a row that lacks a value, scored whole.
    std::fs::write(folder.join("new.csv"), "width,note,length\n2,x,0\n,x,0\n2.5,y,1\n2,z,5\n").unwrap();
    let score = ["eval", "--data", "new.csv", "--per-row", "scores.csv"];
    let mut command = super::density(folder);
    command.args(score);
    assert!(crate::shared::refused(command, folder).contains("1 of 4 rows lacks a value (column 1 ('width')"));
    let (said, notes) = super::run_with_notes(folder, &[&score[..], &["--missing", "drop"]].concat());
    assert!(said.contains("all ") && said.contains("over 3 points (every row of new.csv"), "{said}");
    assert!(said.contains("ln p of 3 rows") && said.contains("1 more without a value"), "{said}");
    assert!(notes.contains("columns that the run does not know are left out: column 2 ('note')"), "{notes}");
    let scores = std::fs::read_to_string(folder.join("scores.csv")).unwrap();
    let scores: Vec<&str> = scores.lines().collect();
    assert_eq!((scores.len(), scores[0], scores[2]), (5, "row,log_p", "2,"));
    let log = |row: usize| scores[row].split_once(',').unwrap().1.parse::<f64>().unwrap();
    assert!(log(1) > log(3) && log(3) > log(4), "{scores:?}");
    let mean = -(log(1) + log(3) + log(4)) / 3.0;
    assert!((mean - number_after(&said, "all ")).abs() < 1e-3, "{said}");
    for (text, says) in [
        ("width,size\n1,2\n", "no column 'length', expected the run's columns"),
        ("1,2,3,4\n5,6,7,8\n", "4 columns, expected the 2 of the run"),
    ] {
        std::fs::write(folder.join("other.csv"), text).unwrap();
        let mut command = super::density(folder);
        command.args(["eval", "--data", "other.csv"]);
        assert!(crate::shared::refused(command, folder).contains(says), "{text}");
    }
    assert!(run(folder, &["info"]).contains("iris.csv, 2 columns of 3 (length, width)"));
}

/// A column about five million scores as one about zero; on a grid the density adds up to one.
#[test]
fn a_far_column_keeps_its_density() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = flow_core::FlowRng::seed_from(3);
    let rows: String =
        (0..3000).map(|_| format!("{:.4},{:.4}\n", 5155487.512 + 0.5 * rng.next_normal(), rng.next_normal())).collect();
    std::fs::write(folder.join("utm.csv"), format!("north,v\n{rows}")).unwrap();
    let said = run(folder, &[&["train", "--data", "utm.csv", "--steps", "100"], &TINY[..]].concat());
    // The entropy is 2.1447.
    let nats = number_after(&said, "test ");
    assert!(nats > 2.1447 - 3.0 * number_after(&said, "± ") && nats < 2.35, "{said}");
    let drawn = run(folder, &["sample", "--count", "300"]);
    let north: Vec<f64> = drawn.lines().skip(1).map(|l| l.split_once(',').unwrap().0.parse().unwrap()).collect();
    let mean = north.iter().sum::<f64>() / 300.0 - 5155487.512;
    let deviation = (north.iter().map(|v| (v - 5155487.512 - mean).powi(2)).sum::<f64>() / 300.0).sqrt();
    assert!(mean.abs() < 0.15 && (deviation - 0.5).abs() < 0.1, "{mean} {deviation}");
    let mut distinct: Vec<u64> = north.iter().map(|v| v.to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 290, "{} of 300", distinct.len());
    let said = run(folder, &["eval", "--grid", "grid.csv", "--grid-side", "60"]);
    assert!((number_after(&said, "integrates to ") - 1.0).abs() < 0.02, "{said}");
    let grid = std::fs::read_to_string(folder.join("grid.csv")).unwrap();
    assert_eq!((grid.lines().count(), grid.lines().next()), (3601, Some("north,v,log_p")));
}

/// Grades from one to five: spikes for a flow, unless they are spread over their steps.
#[test]
fn a_discrete_column_is_warned_of_and_dequantized() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut rng = flow_core::FlowRng::seed_from(3);
    let rows: String = (0..1000).map(|_| format!("{},{:.6}\n", 1 + rng.below(5), rng.next_normal())).collect();
    std::fs::write(folder.join("grades.csv"), format!("grade,x\n{rows}")).unwrap();
    let train = ["train", "--data", "grades.csv", "--model", "maf", "--steps", "40", "--out"];
    let (_, notes) = super::run_with_notes(folder, &[&train[..], &["plain"], &TINY[..]].concat());
    assert!(
        notes.contains("warning: column 1 ('grade') repeats its numbers: 5 distinct values in 1000 rows"),
        "{notes}"
    );
    let (said, notes) = super::run_with_notes(folder, &[&train[..], &["spread", "--dequantize"], &TINY[..]].concat());
    assert!(!notes.contains("warning"), "{notes}");
    // Steps of one: the bound of the probabilities is the number itself, and no model beats ln 5 + 1.4189.
    let (nats, bound) = (number_after(&said, "test "), number_after(&said, "is at most "));
    assert!(nats == bound && bound > 5.0_f64.ln() + 1.4189 - 0.15 && bound < 3.6, "{said}");
    // Evaluation knows of it, and repeats the number.
    let (said, notes) = super::run_with_notes(folder, &["eval", "--checkpoint", "spread", "--per-row", "rows.csv"]);
    assert!(number_after(&said, "test ") == nats && said.contains("mean density over the cells of 100 rows"), "{said}");
    assert!(!notes.contains("warning"), "{notes}");
    let drawn = run(folder, &["sample", "--checkpoint", "spread", "--count", "50"]);
    assert!(drawn.lines().skip(1).all(|line| line.split_once(',').unwrap().0.parse::<i64>().is_ok()), "{drawn}");
    assert!(run(folder, &["info", "--checkpoint", "spread"]).contains("spread over steps of 1"));
}

#[test]
fn presets_are_a_table_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), &["info", "--presets"]);
    assert!(said.contains("checkerboard  3.4657 nats") && !said.contains('{'), "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("spline ") && line.contains("64,64") && line.contains(" 16 ")),
        "{said}"
    );
    let said = run(folder.path(), &["info", "--presets", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!((json["entropies_in_nats"]["checkerboard"].as_f64().unwrap() - 32.0_f64.ln()).abs() < 1e-9);
    assert!(json["models"].as_array().unwrap().iter().any(|model| model["kind"] == "maf"), "{said}");
}
