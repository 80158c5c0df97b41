//! Densities on a grid, as numbers.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use flow_core::files::atomic_write;
use flow_density::io::header;
use flow_density::metrics::log_prob;
use flow_density::model::Model;
use flow_density::trainer::DensityRun;

/// Points along the axis of one column and along each of two, unless told.
const SIDES: [usize; 2] = [2000, 200];
/// Points, at most.
const MOST: usize = 10_000_000;

/// One axis of a grid: the lower end and the width of its cells.
#[derive(Debug, Clone, Copy)]
struct Axis {
    low: f64,
    cell: f64,
}

impl Axis {
    /// Over the values of a column, with a deviation more at both ends.
    fn over(values: impl Iterator<Item = f64>, std: f64, side: usize) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (v.min(l), v.max(h)));
        Axis { low: low - std, cell: (high - low + 2.0 * std) / side as f64 }
    }

    fn middle(self, index: usize) -> f64 {
        self.low + (index as f64 + 0.5) * self.cell
    }
}

/// Writes `ln p` at the middles of the cells of a grid over the box of these rows, and prints the integral of the density
/// over it.
pub(super) fn write(model: &Model, run: &DensityRun, rows: &[f64], side: Option<usize>, path: &Path) -> Result<()> {
    let columns = run.features();
    ensure!(columns <= 2, "--grid is for one or two columns, the model is of {columns}");
    let side = side.unwrap_or(SIDES[columns - 1]);
    ensure!(
        (2..=MOST).contains(&side.saturating_pow(columns as u32)),
        "--grid-side: at most {MOST} points, at least 2"
    );
    let values = |column: usize| rows.iter().skip(column).step_by(columns).copied();
    let axes: Vec<Axis> =
        run.standard.std.iter().enumerate().map(|(column, &std)| Axis::over(values(column), std, side)).collect();
    let points: Vec<f64> = match axes[..] {
        [x] => (0..side).map(|i| x.middle(i)).collect(),
        [x, y] => (0..side * side).flat_map(|k| [x.middle(k % side), y.middle(k / side)]).collect(),
        _ => Vec::new(),
    };
    let seen = run.standard.apply(&points, model.store().device())?;
    let logs: Vec<f64> = log_prob(model.density(), &seen)?.iter().map(|log| log - run.standard.log_scale()).collect();
    let mut text = header(&names(run));
    for (point, log) in points.chunks(columns).zip(&logs) {
        let cells: Vec<String> = point.iter().enumerate().map(|(c, &v)| run.standard.text(c, v)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{},{log:.6}", cells.join(","));
    }
    atomic_write(path, text.as_bytes())?;
    let total = logs.iter().map(|log| log.exp()).sum::<f64>() * axes.iter().map(|axis| axis.cell).product::<f64>();
    let range = |(column, axis): (usize, &Axis)| {
        let end = |v: f64| run.standard.text(column, v);
        format!("[{}, {}]", end(axis.low), end(axis.low + axis.cell * side as f64))
    };
    let ranges: Vec<String> = axes.iter().enumerate().map(range).collect();
    println!(
        "{}: {} points; the density integrates to {total:.4} over {}",
        path.display(),
        logs.len(),
        ranges.join(" x ")
    );
    Ok(())
}

/// Names of the columns and of the density.
fn names(run: &DensityRun) -> Vec<String> {
    let mut names = match run.names() {
        [] => ["x", "y"].map(String::from).into_iter().take(run.features()).collect(),
        names => names.to_vec(),
    };
    names.push("log_p".into());
    names
}
