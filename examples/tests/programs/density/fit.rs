//! `density fit`: densities that are known up to a constant.

use super::{density, run};
use crate::shared::all_refused;

const TINY: [&str; 8] = ["--layers", "2", "--batch-size", "64", "--draws", "2000", "--pixels", "40"];

/// The number that follows `word`.
fn number_after(text: &str, word: &str) -> f64 {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no '{word}' in {text}")).1;
    rest.split_whitespace().next().unwrap().trim_matches([',', ';']).parse().unwrap()
}

#[test]
fn from_a_fit_to_its_points() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let model = ["--model", "realnvp", "--hidden", "16", "--waves", "2", "--learning-rate", "0.01"];
    let said = run(folder, &[&["fit", "--steps", "600"], &model[..], &TINY].concat());
    // A Gaussian with the moments of U1 is 0.9 nats away.
    let (divergence, elbo) = (number_after(&said, "KL(q‖p) "), number_after(&said, "ELBO "));
    assert!(said.contains("log evidence 1.8775") && divergence > 0.0 && divergence < 0.9, "{said}");
    assert!((1.8775 - elbo - divergence).abs() < 5.0 * number_after(&said, "± ") + 1e-3, "{said}");
    let out = folder.join("flow-out/density");
    for file in ["density.png", "loss.png", "report.json", "log.jsonl"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert!((report["divergence_nats"].as_f64().unwrap() - divergence).abs() < 1e-3);
    let drawn = run(folder, &["sample", "--count", "500"]);
    assert_eq!((drawn.lines().count(), drawn.lines().next()), (501, Some("z1,z2")));
    let info = run(folder, &["info"]);
    assert!(info.contains("the energy 'u1', 64 samples a step") && info.contains("2 waves of each input"), "{info}");
}

/// A formula with domains: a Beta distribution and an exponential one, and draws that were chosen by their weights.
#[test]
fn a_formula_with_domains_and_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = ["fit", "--expr", "4*ln(p) + 2*ln(1-p) - s", "--interval", "p=0..1", "--positive", "s", "--out", "run"];
    let model = ["--model", "maf", "--hidden", "8", "--learning-rate", "0.02", "--schedule", "constant"];
    let steps = |n| ["--steps", n, "--warmup", "5", "--resample", "3000"];
    run(folder, &[&base[..], &model, &TINY, &steps("60")].concat());
    let said = run(folder, &["fit", "--out", "run", "--resume", "--steps", "200"]);
    // B(5, 3) = 4!·2!/7!.
    let log_evidence = (48.0_f64 / 5040.0).ln();
    assert!((number_after(&said, "log evidence ") - log_evidence).abs() < 0.05, "{said}");
    let draws = std::fs::read_to_string(folder.join("run/draws.csv")).unwrap();
    assert_eq!((draws.lines().count(), draws.lines().next()), (3001, Some("p,s")));
    let column = |k: usize| -> f64 {
        let cells = draws.lines().skip(1).map(|l| l.split(',').nth(k).unwrap().parse::<f64>().unwrap());
        cells.sum::<f64>() / 3000.0
    };
    assert!((column(0) - 5.0 / 8.0).abs() < 0.03 && (column(1) - 1.0).abs() < 0.12, "{} {}", column(0), column(1));
}

#[test]
fn a_table_of_divergences() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = ["fit", "--model", "planar", "--compare", "1,4", "--seeds", "2", "--steps", "30", "--out", "table"];
    let said = run(folder, &[&base[..], &TINY[2..4], &TINY[6..]].concat());
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("u1")).collect();
    assert_eq!(rows.len(), 2, "{said}");
    let best = |row: &str| -> Vec<f64> { row.split_whitespace().skip(2).map(|v| v.parse().unwrap()).collect() };
    assert!(rows.iter().all(|row| best(row).len() == 4 && best(row)[1] <= best(row)[3]), "{said}");
    assert!(folder.join("table/table.json").exists() && folder.join("table/u1-planar-4.png").exists());
}

#[test]
fn what_cannot_be_fitted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["fit", "--expr", "-x^2 - "], "at character 8, found the end"),
        (&["fit", "--expr", "-x^2 + 0*y"], "does not fall off along coordinate 1"),
        (&["fit", "--expr", "x^2"], "does not fall off along coordinate 0"),
        (&["fit", "--expr", "ln(x) - x"], "NaN for"),
        (&["fit", "--expr", "-x^2", "--positive", "y"], "no such variable, there are x"),
        (&["fit", "--expr", "-x^2", "--interval", "x=1"], "expected NAME=LOW..HIGH"),
        (&["fit", "--expr", "-x^2", "--interval", "x=1..0"], "low < high"),
        (&["fit", "--expr", "-x^2", "--positive", "x", "--interval", "x=0..1"], "has a domain already"),
        (&["fit", "--model", "ffjord"], "continuous flows are fitted to data"),
        (&["fit", "--alpha", "0.5"], "--alpha: is the order of --divergence renyi"),
        (&["fit", "--divergence", "renyi"], "add --alpha"),
        (&["fit", "--divergence", "renyi", "--alpha", "1"], "other than 1"),
        (&["fit", "--divergence", "forward", "--estimator", "path"], "--estimator: the forward divergence"),
        (&["fit", "--model", "planar", "--bins", "4"], "--bins is for --model spline"),
        (&["fit", "--model", "planar", "--waves", "4"], "--waves is for couplings"),
        (&["fit", "--expr", "-x^2", "--waves", "4"], "one dimension has no inputs"),
        (&["fit", "--model", "planar", "--hidden", "4"], "has no hidden layers"),
        (&["fit", "--draws", "1"], "--draws must be at least 2"),
        (&["fit", "--seeds", "2"], "--seeds: is for --compare"),
        (&["fit", "--compare", "2", "--layers", "2"], "--layers: for one fit"),
        (&["fit", "--compare", "2", "--resume"], "--resume: for one fit"),
        (&["fit", "--compare", "2", "--problem", "banana"], "--compare is for --energy"),
        (&["fit", "--problem", "eight-schools", "--pixels", "40"], "for two variables, here are 10"),
        (&["fit", "--preview-every", "4"], "--preview-every"),
        (&["fit", "--anneal", "0"], "annealing"),
    ];
    all_refused(density, folder.path(), cases);
}
