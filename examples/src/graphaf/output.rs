//! Molecules out: SMILES, tables with properties, SD files, pictures.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use flow_core::files::atomic_write;
use flow_graph::chem::{layout, write_grid};
use flow_graph::{Molecule, Perceived, SaScorer, canonical_smiles, sdf};
use rayon::prelude::*;

use crate::cli::check_output;

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

/// Refuses outputs that cannot be written, before the work.
pub(super) fn check(outputs: &[PathBuf]) -> Result<()> {
    outputs.iter().filter(|p| p.as_os_str() != "-").try_for_each(|path| {
        format(path)?;
        check_output(path)
    })
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
            Format::Sd => atomic_write(path, records(rows)?.as_bytes())?,
            Format::Picture => picture(path, rows)?,
        }
    }
    Ok(())
}

fn smiles(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.par_iter().map(|row| canonical_smiles(&row.molecule) + "\n").collect();
    lines.concat()
}

/// One line per molecule; a property that cannot be computed is empty.
fn table(rows: &[Row], scorer: Option<&SaScorer>) -> String {
    let extra = rows.first().map_or(&[][..], |row| &row.extra);
    let mut text = String::from("smiles,heavy_atoms,qed,logp,molecular_weight");
    if scorer.is_some() {
        text += ",synthetic_accessibility,penalized_logp";
    }
    extra.iter().for_each(|(name, _)| text = format!("{text},{name}"));
    let line = |row: &Row| {
        let perceived = Perceived::new(&row.molecule).ok();
        let number = |value: Option<f64>| value.map(|v| format!("{v:.4}")).unwrap_or_default();
        let of = |f: &dyn Fn(&Perceived) -> flow_graph::Result<f64>| number(perceived.as_ref().and_then(|p| f(p).ok()));
        let mut cells = vec![canonical_smiles(&row.molecule), row.molecule.len().to_string()];
        cells.extend([of(&Perceived::qed), of(&Perceived::log_p), of(&Perceived::molecular_weight)]);
        if let Some(scorer) = scorer {
            cells.extend([of(&|p| scorer.score_perceived(p)), of(&|p| p.penalized_log_p(scorer))]);
        }
        cells.extend(row.extra.iter().map(|(_, value)| value.clone()));
        format!("\n{}", cells.join(","))
    };
    let lines: Vec<String> = rows.par_iter().map(line).collect();
    text + &lines.concat() + "\n"
}

fn records(rows: &[Row]) -> Result<String> {
    let record = |row: &Row| {
        let coordinates = layout(&row.molecule).ok();
        let name = canonical_smiles(&row.molecule);
        let fields: Vec<(String, String)> = row.extra.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        // The name line of a MOL block holds 80 characters.
        let name: String = name.chars().take(80).collect();
        sdf::write_record(&row.molecule, &name, coordinates.as_deref(), &fields)
    };
    let records: Vec<String> = rows.par_iter().map(record).collect::<flow_graph::Result<_>>()?;
    Ok(records.concat())
}

/// A grid of the first molecules with their QED and what else is known of them.
pub(super) fn picture(path: &Path, rows: &[Row]) -> Result<()> {
    let caption = |row: &Row| {
        let qed = flow_graph::chem::qed(&row.molecule).map(|q| format!("QED {q:.2}")).unwrap_or_default();
        row.extra.first().map_or_else(|| qed.clone(), |(name, value)| format!("{name} {value}"))
    };
    let cells: Vec<(&Molecule, String)> = rows.iter().take(PICTURED).map(|row| (&row.molecule, caption(row))).collect();
    Ok(write_grid(path, &cells, COLUMNS)?)
}
