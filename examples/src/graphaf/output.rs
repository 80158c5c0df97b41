//! Molecules out: SMILES, tables with properties, SD files, pictures.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use flow_core::files::atomic_write;
use flow_graph::chem::{layout, write_grid};
use flow_graph::{Molecule, Perceived, SaScorer, canonical_smiles, sdf};
use rayon::prelude::*;

use super::common::ScorerArg;
use crate::cli::{check_output, refuse};

/// Molecules of a picture, at most.
const PICTURED: usize = 40;
const COLUMNS: usize = 5;

/// What can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Smiles,
    Table,
    Sd,
    Picture,
}

fn format(path: &Path) -> Result<Format> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match extension.as_str() {
        "smi" | "smiles" | "txt" => Format::Smiles,
        "csv" => Format::Table,
        "sdf" | "sd" => Format::Sd,
        "png" | "svg" => Format::Picture,
        _ => bail!("{}: the ending says the format: .smi, .csv, .sdf, .png or .svg", path.display()),
    })
}

/// Refuses outputs that cannot be written, and a table of scores that none of them shows, before the work.
pub(super) fn check(outputs: &[PathBuf], scorer: &ScorerArg) -> Result<()> {
    let mut scored = false;
    for path in outputs.iter().filter(|p| p.as_os_str() != "-") {
        scored |= matches!(format(path)?, Format::Table | Format::Sd);
        check_output(path)?;
    }
    let reason = "only .csv and .sdf files hold properties; add --out FILE.csv, or leave it out";
    refuse(&[("--sa-scores", scorer.given() && !scored)], reason)
}

/// A molecule with named numbers, for tables, SD files and captions.
pub(super) struct Row {
    /// The molecule.
    pub(super) molecule: Molecule,
    /// Columns after those that every table has.
    pub(super) extra: Vec<(&'static str, String)>,
}

impl Row {
    /// A molecule without further columns.
    pub(super) fn plain(molecule: Molecule) -> Self {
        Row { molecule, extra: Vec::new() }
    }
}

/// Writes molecules to every output; `-` is standard output, as SMILES.
pub(super) fn write(outputs: &[PathBuf], rows: &[Row], scorer: Option<&SaScorer>) -> Result<()> {
    for path in outputs {
        if path.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            out.write_all(smiles(rows).as_bytes())?;
            continue;
        }
        match format(path)? {
            Format::Smiles => atomic_write(path, smiles(rows).as_bytes())?,
            Format::Table => atomic_write(path, table(rows, scorer).as_bytes())?,
            Format::Sd => atomic_write(path, records(rows, scorer)?.as_bytes())?,
            Format::Picture => picture(path, rows)?,
        }
    }
    Ok(())
}

/// One line for a person: on standard output, or on stderr where molecules are on standard output.
pub(super) fn say(outputs: &[PathBuf], line: &str) {
    if outputs.iter().any(|path| path.as_os_str() == "-") {
        eprintln!("{line}");
    } else {
        let names: Vec<String> = outputs.iter().map(|path| path.display().to_string()).collect();
        println!("{line}; {}", names.join(", "));
    }
}

fn smiles(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.par_iter().map(|row| canonical_smiles(&row.molecule) + "\n").collect();
    lines.concat()
}

/// Names of the columns of [`properties`].
fn columns(scored: bool) -> Vec<&'static str> {
    let mut names = vec!["smiles", "heavy_atoms", "qed", "logp", "molecular_weight"];
    if scored {
        names.extend(["synthetic_accessibility", "penalized_logp"]);
    }
    names
}

/// What every table says of a molecule; a property that cannot be computed is empty.
fn properties(molecule: &Molecule, scorer: Option<&SaScorer>) -> Vec<String> {
    let perceived = Perceived::new(molecule).ok();
    let of = |f: &dyn Fn(&Perceived) -> flow_graph::Result<f64>| {
        perceived.as_ref().and_then(|p| f(p).ok()).map(|v| format!("{v:.4}")).unwrap_or_default()
    };
    let mut cells = vec![canonical_smiles(molecule), molecule.len().to_string()];
    cells.extend([of(&Perceived::qed), of(&Perceived::log_p), of(&Perceived::molecular_weight)]);
    if let Some(scorer) = scorer {
        cells.extend([of(&|p| scorer.score_perceived(p)), of(&|p| p.penalized_log_p(scorer))]);
    }
    cells
}

/// One line per molecule; what a row adds to the properties stands after them.
fn table(rows: &[Row], scorer: Option<&SaScorer>) -> String {
    let mut names = columns(scorer.is_some());
    let own = names.clone();
    let added = |row: &Row| -> Vec<(&'static str, String)> {
        row.extra.iter().filter(|(name, _)| !own.contains(name)).cloned().collect()
    };
    names.extend(rows.first().map(&added).unwrap_or_default().into_iter().map(|(name, _)| name));
    let line = |row: &Row| {
        let mut cells = properties(&row.molecule, scorer);
        cells.extend(added(row).into_iter().map(|(_, value)| value));
        cells.join(",") + "\n"
    };
    let lines: Vec<String> = rows.par_iter().map(line).collect();
    names.join(",") + "\n" + &lines.concat()
}

/// SD records with coordinates for drawing; what a table has as columns they have as data fields.
fn records(rows: &[Row], scorer: Option<&SaScorer>) -> Result<String> {
    /// What the name line of a MOL block holds.
    const NAME: usize = 80;
    let names = columns(scorer.is_some());
    let record = |row: &Row| {
        let coordinates = layout(&row.molecule).ok();
        let values = properties(&row.molecule, scorer);
        let name: String = values.iter().take(1).flat_map(|smiles| smiles.chars()).take(NAME).collect();
        let added = row.extra.iter().filter(|(name, _)| !names.contains(name)).cloned();
        // A field without a value would end the record early.
        let fields = names.iter().copied().zip(values).chain(added).filter(|(_, value)| !value.is_empty());
        let fields: Vec<(String, String)> = fields.map(|(name, value)| (name.to_string(), value)).collect();
        sdf::write_record(&row.molecule, &name, coordinates.as_deref(), &fields)
    };
    let records: Vec<String> = rows.par_iter().map(record).collect::<flow_graph::Result<_>>()?;
    Ok(records.concat())
}

/// A grid of the first molecules, each over its SMILES, its QED and what else is known of it.
fn picture(path: &Path, rows: &[Row]) -> Result<()> {
    let caption = |row: &Row| {
        let mut facts: Vec<String> = row.extra.iter().map(|(name, value)| format!("{name} {value}")).collect();
        if !row.extra.iter().any(|(name, _)| *name == "qed") {
            facts.extend(flow_graph::chem::qed(&row.molecule).map(|q| format!("QED {q:.2}")));
        }
        format!("{}\n{}", canonical_smiles(&row.molecule), facts.join(", "))
    };
    let cells: Vec<(&Molecule, String)> =
        rows.par_iter().take(PICTURED).map(|row| (&row.molecule, caption(row))).collect();
    Ok(write_grid(path, &cells, COLUMNS)?)
}
