//! Flags about tables, and tables by the description of a run.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use flow_density::data::{Columns, Data, Header, Missing, Reading, Source, Table};
use flow_density::trainer::DensityRun;

use crate::cli::refuse;

/// What is done with rows that lack a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MissingName {
    /// The table is refused, and what is missing counted.
    Refuse,
    /// They are left out, and counted.
    Drop,
}

/// Whether the first line holds names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HeaderName {
    /// Words above numbers are names.
    Auto,
    /// It does.
    Yes,
    /// It is a row.
    No,
}

/// How a table is read.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Tables")]
pub(super) struct ReadingArg {
    /// Columns to read: names, numbers counted from one, ranges such as 2-4, comma-separated [default: all]
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    columns: Vec<String>,
    /// The column that puts rows into classes, by name or number: the model is a density of the others given the class
    #[arg(long, value_name = "COLUMN")]
    class_column: Option<String>,
    /// What is done with rows that lack a value (an empty cell, NA, NaN, ?) [default: refuse]
    #[arg(long, value_enum)]
    missing: Option<MissingName>,
    /// Whether the first line of text holds names [default: auto]
    #[arg(long, value_enum)]
    header: Option<HeaderName>,
    /// The array of an .npz that holds several
    #[arg(long, value_name = "NAME")]
    array: Option<String>,
}

impl ReadingArg {
    /// The reading; missing values are treated as in `base` where nothing is said.
    pub(super) fn reading(&self, base: Missing) -> Reading {
        Reading {
            columns: self.columns.clone(),
            class: self.class_column.clone(),
            missing: match self.missing {
                None => base,
                Some(MissingName::Refuse) => Missing::Refuse,
                Some(MissingName::Drop) => Missing::Drop,
            },
            header: match self.header {
                None | Some(HeaderName::Auto) => Header::Auto,
                Some(HeaderName::Yes) => Header::Yes,
                Some(HeaderName::No) => Header::No,
            },
            array: self.array.clone(),
        }
    }

    /// Refuses every flag that was given, with a reason.
    pub(super) fn refuse(&self, reason: &str) -> Result<()> {
        let flags = [
            ("--columns", !self.columns.is_empty()),
            ("--class-column", self.class_column.is_some()),
            ("--missing", self.missing.is_some()),
            ("--header", self.header.is_some()),
            ("--array", self.array.is_some()),
        ];
        refuse(&flags, reason)
    }

    /// Refuses a choice of columns, with a reason.
    pub(super) fn refuse_columns(&self, reason: &str) -> Result<()> {
        let flags = [("--columns", !self.columns.is_empty()), ("--class-column", self.class_column.is_some())];
        refuse(&flags, reason)
    }

    /// Data to train on, with what there is to know of them on standard error.
    pub(super) fn open(&self, source: &Source, seed: u64) -> Result<(Data, Reading)> {
        if matches!(source, Source::Toy(_)) {
            self.refuse("for tables, a toy has no columns; leave it out")?;
        }
        let reading = self.reading(Missing::Refuse);
        Ok((source.open_with(&reading, seed)?, reading))
    }
}

/// Prints what was read and what is to know of it.
pub(super) fn print(data: &Data) {
    eprintln!("{}", data.describe());
    print_notes(data.notes());
    data.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
}

pub(super) fn print_notes(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// The data that a run was trained on.
pub(super) fn data_of(run: &DensityRun) -> Result<Data> {
    match Source::named(&run.data)? {
        Source::Table(path) => Ok(Data::from_table(&table_of(run, &path)?, run.seed)?.scaled_as(&run.standard)),
        toy => Ok(toy.open(run.seed)?),
    }
}

/// The table that a run was trained on, which must have the columns that it had.
pub(super) fn table_of(run: &DensityRun, path: &Path) -> Result<Table> {
    let table = Table::open_with(path, &run.reading)?;
    check_columns(run, table.name(), table.chosen())?;
    ensure!(
        run.columns.as_ref().is_none_or(|columns| columns.names == table.names()),
        "{}: {}, the run was trained on {}",
        table.name(),
        table.chosen(),
        run.columns.as_ref().unwrap_or(table.chosen())
    );
    Ok(table.classed_as(run.classes())?)
}

/// Another table with the columns of a run: those that are chosen, else those of the same names or places.
pub(super) fn other_table(run: &DensityRun, path: &Path, reading: &Reading) -> Result<Table> {
    let reason = "for a model that is given the class, this one was trained without --class-column; leave it out";
    refuse(&[("--class-column", reading.class.is_some() && run.classes().is_none())], reason)?;
    let table = match &run.columns {
        Some(columns) if reading.columns.is_empty() => Table::open_as(path, columns, reading)?,
        _ => {
            let class = reading.class.clone().or_else(|| run.reading.class.clone());
            Table::open_with(path, &Reading { class, ..reading.clone() })?.classed_as(run.classes())?
        }
    };
    check_columns(run, table.name(), table.chosen())?;
    let pairs = run.names().iter().zip(table.names()).filter(|(of_run, here)| of_run != here);
    pairs.for_each(|(of_run, here)| eprintln!("note: column '{here}' is taken as the run's '{of_run}'"));
    Ok(table)
}

/// As many columns as the run's.
pub(super) fn check_columns(run: &DensityRun, name: &str, found: &Columns) -> Result<()> {
    let expected = run.columns.as_ref().map_or_else(|| run.features().to_string(), |columns| columns.to_string());
    ensure!(
        found.len() == run.features(),
        "{name}: {found}, the model was trained on {expected}; choose with --columns"
    );
    Ok(())
}
