//! Constrained optimisation of the molecules of a file, for `graphaf optimize --constrained`.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use flow_core::FlowRng;
use flow_core::files::atomic_write;
use flow_graph::model::GraphAf;
use flow_graph::optimize::{ConstrainedOptions, Improvement, Reward, THRESHOLDS, improve};
use flow_graph::{Fingerprint, Molecule};
use indicatif::{ProgressBar, ProgressStyle};

use super::common::{TableArg, read};

/// What is to be improved, and how.
pub(super) struct Plan<'a> {
    pub(super) path: &'a Path,
    pub(super) table: &'a TableArg,
    pub(super) count: Option<usize>,
    pub(super) out: &'a Path,
    pub(super) seed: u64,
    pub(super) options: ConstrainedOptions,
}

/// Results at one threshold.
#[derive(Default)]
struct Column {
    gains: Vec<f64>,
    similarities: Vec<f64>,
}

/// Improves every molecule, writes the pairs and prints the table.
pub(super) fn run<R: Reward>(plan: &Plan<'_>, model: &GraphAf, reward: &R) -> Result<()> {
    plan.table.check(&[plan.path])?;
    let loaded = read(plan.path, plan.table)?;
    let molecules: Vec<Molecule> = loaded.molecules.iter().take(plan.count.unwrap_or(usize::MAX)).collect();
    let bar = ProgressBar::new(molecules.len() as u64);
    let style = ProgressStyle::with_template("improving {bar:40} {pos}/{len} molecules, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut rng = FlowRng::named(plan.seed, "improve");
    let mut columns: [Column; THRESHOLDS.len()] = Default::default();
    let (mut pairs, mut refused) = (String::from("source,optimised,threshold,gain,similarity\n"), 0);
    for (index, source) in molecules.iter().enumerate() {
        bar.inc(1);
        let found = Fingerprint::of(source).and_then(|fingerprint| {
            let similarity = |m: &Molecule| Ok(Fingerprint::of(m)?.tanimoto(&fingerprint));
            improve(model, source, reward, similarity, &plan.options, &mut rng)
        });
        match found {
            Ok(found) => {
                let name = loaded.source_strings.get(index).unwrap_or_default();
                record(&mut columns, &mut pairs, name, &found);
            }
            Err(reason) => {
                refused += 1;
                eprintln!("line {}: {reason}", loaded.lines.get(index).copied().unwrap_or_default());
            }
        }
    }
    bar.finish_and_clear();
    let path = plan.out.join("improved.csv");
    atomic_write(&path, pairs.as_bytes())?;
    println!("similarity  improvement      similarity     success");
    for (threshold, column) in THRESHOLDS.into_iter().zip(&columns) {
        let ((gain, spread), (similar, around)) = (moments(&column.gains), moments(&column.similarities));
        let success = 100.0 * column.gains.len() as f64 / molecules.len().max(1) as f64;
        println!("    >= {threshold:.1}  {gain:5.2} ± {spread:5.2}    {similar:.2} ± {around:.2}    {success:5.1} %");
    }
    let attempts = plan.options.attempts;
    println!("{} molecules, {attempts} attempts each, {refused} not expressible; {}", molecules.len(), path.display());
    Ok(())
}

fn record(
    columns: &mut [Column; THRESHOLDS.len()],
    pairs: &mut String,
    source: &str,
    found: &[Option<Improvement>; THRESHOLDS.len()],
) {
    for (column, better) in columns.iter_mut().zip(found) {
        let Some(better) = better else { continue };
        column.gains.push(better.gain);
        column.similarities.push(better.similarity);
        // Writing to a string does not fail.
        let Improvement { threshold, smiles, gain, similarity } = better;
        let _ = writeln!(pairs, "{source},{smiles},{threshold},{gain:.4},{similarity:.4}");
    }
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}
