//! Tables of numbers, whatever file they come from.

use std::path::Path;

use super::fault::{Fault, Read};
use super::raw::{Chosen, Raw};
use super::reading::{Columns, Header, Reading};
use super::{Classes, Rows, numpy, text};
use crate::error::Place;
use crate::{Error, Result};

/// Columns of a table, at most.
const MOST_COLUMNS: usize = 63;

/// The endings of files that are read.
pub(super) const ENDINGS: &str = if cfg!(feature = "parquet") {
    ".csv, .tsv, .txt, .dat, .data, .npy, .npz, .parquet"
} else {
    ".csv, .tsv, .txt, .dat, .data, .npy, .npz"
};

/// Rows of finite numbers, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    name: String,
    columns: Columns,
    values: Vec<f64>,
    classes: Vec<u32>,
    /// Numbers of the rows in the file, counted from one.
    rows: Vec<usize>,
    /// Rows of the file.
    of: usize,
    notes: Vec<String>,
}

/// What a file is, by its ending.
enum Format {
    Text,
    Array,
    Archive,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Read<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let expected = match extension.as_str() {
            "csv" | "tsv" | "txt" | "dat" | "data" => return Ok(Format::Text),
            "npy" => return Ok(Format::Array),
            "npz" => return Ok(Format::Archive),
            "parquet" | "pq" if cfg!(feature = "parquet") => return Ok(Format::Parquet),
            "parquet" | "pq" => {
                "a build with the feature parquet (cargo build --features parquet), or a CSV or NPY (pandas: to_csv)"
            }
            "xlsx" | "xls" | "ods" => "a CSV that the spreadsheet exports",
            "gz" | "bz2" | "xz" | "zst" | "zip" => "an unpacked file",
            "pkl" | "pickle" | "h5" | "hdf5" | "feather" | "arrow" | "mat" | "rds" | "json" => {
                "a CSV or NPY (pandas: to_csv, NumPy: save)"
            }
            _ => {
                let found = format!("the ending '{extension}'");
                return Err(Fault::whole(found, format!("one of {ENDINGS}")));
            }
        };
        Err(Fault::whole(format!("the ending '{extension}'"), expected))
    }
}

impl Table {
    /// A table of rows that lie one after the other in `values`.
    ///
    /// # Errors
    /// [`Error::Table`] for a number of values that makes no whole rows, for other than 1 to 63 columns, and naming the
    /// row and column of the first number that is not finite.
    pub fn new(columns: usize, values: Vec<f64>) -> Result<Self> {
        let checked = || {
            if columns == 0 || !values.len().is_multiple_of(columns) {
                return Err(Fault::whole(format!("{} numbers", values.len()), format!("whole rows of {columns}")));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let place = Place::Entry { row: at / columns + 1, column: at % columns + 1 };
                return Err(Fault::new(place, values[at].to_string(), "a finite number"));
            }
            Ok(values.len() / columns)
        };
        let rows = checked().map_err(|fault| fault.of("table"))?;
        let columns = Columns::unnamed(columns);
        let rows_of = (1..=rows).collect();
        let chosen = Chosen { columns, values, classes: Vec::new(), rows: rows_of, of: rows, notes: Vec::new() };
        Table::of(chosen, "table").map_err(|fault| fault.of("table"))
    }

    /// Reads all columns of a file: text with one row per line (`.csv`, `.tsv`, `.txt`, `.dat`, `.data`), or arrays of NumPy
    /// (`.npy`, `.npz`), or, with the feature `parquet`, columns of Parquet (`.parquet`).
    ///
    /// Text is parted by commas, semicolons, tabs, bars or blanks, one of them in the whole file, with cells quoted by RFC
    /// 4180; lines that begin with `#` or `%` are comments; a first line of names is recognised. Arrays are
    /// `[N, D]` of any type of real numbers, in any order of bytes and axes, `[N]` as a single column, or records of
    /// numbers. Columns of Parquet are of any type of numbers or of truth values, compressed by Snappy, Zstandard, gzip or not at all.
    ///
    /// # Errors
    /// As [`Table::open_with`].
    pub fn open(path: &Path) -> Result<Self> {
        Table::open_with(path, &Reading::default())
    }

    /// Reads a file as [`Table::open`] does, with a choice of columns and of what is done with missing values.
    ///
    /// # Errors
    /// [`Error::Table`] naming the file, the place, what is there and what to do about it; [`flow_core::Error::Io`] for a
    /// file that cannot be read.
    pub fn open_with(path: &Path, reading: &Reading) -> Result<Self> {
        Table::parse(path, &bytes(path)?, reading)
    }

    /// As [`Table::open_with`], of bytes that are there already; the path names them, and its ending says what they are.
    ///
    /// # Errors
    /// [`Error::Table`] as [`Table::open_with`].
    pub fn parse(path: &Path, bytes: &[u8], reading: &Reading) -> Result<Self> {
        let name = path.display().to_string();
        let read = raw(path, bytes, reading, reading.class.is_some()).and_then(|raw| raw.read(reading));
        read.and_then(|chosen| Table::of(chosen, &name)).map_err(|fault| fault.of(&name))
    }

    /// Reads the columns that a run was made from out of another file: by their names, if both have some, else by their
    /// numbers. Columns that the run does not know are left out, and noted.
    ///
    /// # Errors
    /// As [`Table::open_with`], and [`Error::Table`] for a column that is not there.
    pub fn open_as(path: &Path, columns: &Columns, reading: &Reading) -> Result<Self> {
        let (name, bytes) = (path.display().to_string(), bytes(path)?);
        let words = reading.class.is_some() || columns.class.is_some();
        let read = raw(path, &bytes, reading, words).and_then(|raw| raw.read_as(columns, reading));
        let read = read.and_then(|chosen| Table::of(chosen, &name)?.classed(columns.class.as_ref()));
        read.map_err(|fault| fault.of(&name))
    }

    /// The same rows in the classes of a run, or in none.
    ///
    /// # Errors
    /// [`Error::Table`] naming the classes that the run does not know, with their rows, and for a table without classes
    /// where the run has some.
    pub fn classed_as(self, classes: Option<&Classes>) -> Result<Self> {
        let name = self.name.clone();
        self.classed(classes).map_err(|fault| fault.of(&name))
    }

    fn classed(mut self, classes: Option<&Classes>) -> Read<Self> {
        let Some(classes) = classes else {
            (self.columns.class, self.classes) = (None, Vec::new());
            return Ok(self);
        };
        let Some(own) = self.columns.class.take() else {
            return Err(Fault::whole("no column of classes", format!("{classes}; name it with --class-column")));
        };
        let places: Vec<Option<u32>> = own.names.iter().map(|name| classes.place(name).ok()).collect();
        let first = |class: usize| self.classes.iter().position(|&of_row| of_row as usize == class);
        let unknown = (0..own.len()).filter(|&class| places[class].is_none());
        let said: Vec<String> = unknown
            .map(|class| {
                let row = first(class).and_then(|row| self.rows.get(row)).copied().unwrap_or_default();
                format!("'{}' ({} rows, first row {row})", own.names[class], own.rows[class])
            })
            .collect();
        if !said.is_empty() {
            let found = format!("classes that the run does not know: {}", said.join(", "));
            let expected = format!("{}: leave these rows out, or train with them", classes.listed());
            return Err(Fault::whole(found, expected));
        }
        self.classes = self.classes.iter().filter_map(|&class| places.get(class as usize).copied().flatten()).collect();
        self.columns.class = Some(classes.clone());
        Ok(self)
    }

    fn of(chosen: Chosen, name: &str) -> Read<Self> {
        let Chosen { columns, values, classes, rows, of, notes } = chosen;
        if !(1..=MOST_COLUMNS).contains(&columns.len()) {
            let expected = format!("1 to {MOST_COLUMNS}: choose some with --columns");
            return Err(Fault::whole(format!("{} columns", columns.len()), expected));
        }
        Ok(Table { name: name.into(), columns, values, classes, rows, of, notes })
    }

    /// The file that it came from, or "table".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Which columns of the file these are.
    pub fn chosen(&self) -> &Columns {
        &self.columns
    }

    /// The names of the columns, none if the file has none.
    pub fn names(&self) -> &[String] {
        &self.columns.names
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The rows that the file has, with those that were left out.
    pub fn rows_of_file(&self) -> usize {
        self.of
    }

    /// The numbers, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The class of each row, its place in [`Classes::names`]; nothing without classes.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// A row, counted from zero.
    ///
    /// # Errors
    /// [`Error::Table`] for a row that is not there.
    pub fn row(&self, index: usize) -> Result<&[f64]> {
        self.check(index)?;
        Ok(&self.values[index * self.columns()..(index + 1) * self.columns()])
    }

    /// The number of a row in its file, where rows are counted from one and those that were left out count as well.
    ///
    /// # Errors
    /// [`Error::Table`] for a row that is not there.
    pub fn row_number(&self, index: usize) -> Result<usize> {
        self.check(index)?;
        Ok(self.rows[index])
    }

    fn check(&self, index: usize) -> Result<()> {
        if index < self.rows() {
            return Ok(());
        }
        let found = format!("no row at index {index}");
        Err(Fault::whole(found, format!("an index below the {} rows", self.rows())).of(&self.name))
    }

    /// All rows, with their numbers in the file.
    pub fn to_rows(&self) -> Rows {
        Rows::numbered(self.columns(), self.values.clone(), self.rows.clone()).classed(self.classes.clone())
    }

    /// What was left out or rounded, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    // An ending that is not read is refused before the file is asked for.
    Format::of(path).map_err(|fault| fault.of(&path.display().to_string()))?;
    std::fs::read(path).map_err(Error::io(path))
}

/// All columns; with the words, if told, that may be classes.
fn raw(path: &Path, bytes: &[u8], reading: &Reading, words: bool) -> Read<Raw> {
    let format = Format::of(path)?;
    if let (Some(array), false) = (&reading.array, matches!(format, Format::Archive)) {
        return Err(Fault::whole("no archive of arrays", format!("an NPZ for --array {array}; leave it out")));
    }
    if reading.header != Header::Auto && !matches!(format, Format::Text) {
        return Err(Fault::whole("no text", "a text for --header; leave it out"));
    }
    match format {
        Format::Text => text::read(bytes, reading.header, words),
        Format::Array => numpy::array(bytes),
        Format::Archive => numpy::archive(bytes, reading.array.as_deref()),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::parquet::read(bytes, words),
        // Such an ending is refused without the feature.
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(Fault::whole("a Parquet file", "a build with the feature parquet")),
    }
}
