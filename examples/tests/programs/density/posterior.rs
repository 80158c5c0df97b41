//! `density posterior`: parameters and what was simulated with them.

use super::{density, run};
use crate::shared::all_refused;

const TINY: [&str; 6] = ["--hidden", "16", "--layers", "2", "--batch-size", "128"];

/// The number that follows `word`.
fn number_after(text: &str, word: &str) -> f64 {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no '{word}' in {text}")).1;
    rest.split_whitespace().next().unwrap().trim_matches([',', ';']).parse().unwrap()
}

#[test]
fn a_table_of_runs_gives_calibrated_posteriors() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // θ ~ N(5, 1) and x = θ + N(0, ½): the posterior after x has the mean 5 + 0.8·(x - 5) and the variance 0.2.
    let mut rng = flow_core::FlowRng::seed_from(3);
    let mut row = || {
        let theta = 5.0 + rng.next_normal();
        format!("{},0,{theta}\n", theta + 0.5 * rng.next_normal())
    };
    let rows: String = (0..4000).map(|_| row()).collect();
    std::fs::write(folder.join("runs.csv"), format!("x,note,theta\n{rows}")).unwrap();
    let base = ["posterior", "--pairs", "runs.csv", "--parameters", "theta", "--observed", "x", "--model", "maf"];
    let said = run(folder, &[&base[..], &TINY, &["--steps", "250", "--learning-rate", "0.01"]].concat());
    // The entropy of a normal of variance 0.2 is 0.614.
    assert!((number_after(&said, "test ") - 0.614).abs() < 0.12 && said.contains("over 400 pairs"), "{said}");
    assert!((number_after(&said, "of 90 % in ") - 90.0).abs() < 6.0, "{said}");
    for file in ["coverage.png", "ranks.png", "loss.png", "report.json"] {
        assert!(folder.join("flow-out/density").join(file).exists(), "{file}");
    }
    let drawn = run(folder, &["sample", "--given", "6", "--count", "3000"]);
    assert_eq!((drawn.lines().count(), drawn.lines().next()), (3001, Some("theta")));
    let mean = drawn.lines().skip(1).map(|l| l.parse::<f64>().unwrap()).sum::<f64>() / 3000.0;
    assert!((mean - 5.8).abs() < 0.1, "{mean}");
    assert!(run(folder, &["info"]).contains("the last 1 of 2 columns"));
    let cases: &[(&[&str], &str)] = &[
        (&["sample"], "--given: needs the 1 observed numbers (x)"),
        (&["sample", "--given", "1,2"], "got 2"),
        (&["sample", "--given", "nan"], "finite"),
        (&["eval"], "is conditioned on observations"),
        (&["posterior", "--pairs", "runs.csv", "--out", "b"], "name its columns by --parameters and --observed"),
        (&["posterior", "--pairs", "runs.csv", "--parameters", "theta", "--observed", "y", "--out", "b"], "y"),
        (&["posterior", "--pairs", "runs.csv", "--parameters", "x", "--observed", "x", "--out", "b"], "chosen twice"),
        (
            &["posterior", "--pairs", "runs.csv", "--parameters", "x", "--observed", "note", "--out", "b"],
            "one and the same",
        ),
        (&["posterior", "--parameters", "a", "--out", "b"], "a built-in simulator has none"),
        (&["posterior", "--columns", "2", "--out", "b"], "--columns"),
        (&["posterior", "--draws", "100", "--out", "b"], "one less than a multiple of 25"),
        (&["posterior", "--model", "matching", "--out", "b"], "continuous flows take no observation"),
    ];
    all_refused(density, folder, cases);
}

#[test]
fn a_built_in_simulator_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base =
        ["posterior", "--pairs", "gaussian-pairs", "--simulations", "1500", "--model", "realnvp", "--out", "run"];
    let more = ["--schedule", "constant", "--warmup", "3", "--steps"];
    run(folder, &[&base[..], &TINY, &more, &["10"]].concat());
    let said = run(folder, &["posterior", "--out", "run", "--resume", "--steps", "150"]);
    assert!(number_after(&said, "divergence from the exact posterior: ") < 0.5, "{said}");
}
