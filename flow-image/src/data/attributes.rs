//! Yes/no attributes of images, the columns of a `labels.csv`.
//!
//! An attribute gives a direction in latent space: the mean latent of the images that have it minus the
//! mean of those that do not (Kingma & Dhariwal 2018, section 5.1).

use std::collections::HashMap;
use std::path::Path;

use crate::{Error, Result};

/// A table of `N` rows and `A` named yes/no columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    names: Vec<String>,
    rows: Vec<Vec<bool>>,
}

impl Attributes {
    /// A table from its column names and rows.
    ///
    /// # Errors
    /// No column, or a row of another length than the names.
    pub fn new(names: Vec<String>, rows: Vec<Vec<bool>>) -> Result<Self> {
        if names.is_empty() || rows.iter().any(|row| row.len() != names.len()) {
            return Err(Error::config("attributes", format!("every row needs {} (at least one) values", names.len())));
        }
        Ok(Attributes { names, rows })
    }

    /// Number of rows `N`.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// One column, a value per image.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn column(&self, name: &str) -> Result<Vec<bool>> {
        let unknown = || Error::config(format!("attribute {name}"), format!("known are {}", self.names.join(", ")));
        let column = self.names.iter().position(|n| n == name).ok_or_else(unknown)?;
        Ok(self.rows.iter().map(|row| row[column]).collect())
    }

    /// The rows at `indices`, all of which exist.
    pub(crate) fn subset(&self, indices: &[usize]) -> Self {
        Attributes { names: self.names.clone(), rows: indices.iter().map(|&i| self.rows[i].clone()).collect() }
    }

    /// Reads a `labels.csv`: a header with the column `file` and attribute columns, then a row per image
    /// with `1` for yes and `0` or `-1` for no. Names hold no comma and need no quotes; `file` is relative to the
    /// folder, with `/` between its parts. `files` is the order the rows are wanted in.
    pub(crate) fn read_csv(path: &Path, files: &[String]) -> Result<Self> {
        let text = String::from_utf8(super::read_file(path)?).map_err(|error| {
            let position = error.utf8_error().valid_up_to();
            Error::format(path, position, "UTF-8 text", "another encoding")
        })?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let header: Vec<&str> = lines.next().map(|(_, line)| split(line)).unwrap_or_default();
        let file_column = header.iter().position(|&name| name == "file");
        let Some(file_column) = file_column.filter(|_| header.len() > 1) else {
            return Err(csv_error(path, 0, "a header with `file` and attribute columns", &header.join(",")));
        };
        let mut by_file = HashMap::new();
        for (line, row) in lines {
            let cells = split(row);
            if cells.len() != header.len() {
                return Err(csv_error(path, line, &format!("{} cells", header.len()), &format!("{}", cells.len())));
            }
            let values = parse_row(path, line, &cells, file_column)?;
            if by_file.insert(cells[file_column].to_string(), values).is_some() {
                return Err(csv_error(path, line, "one row for each file", &format!("{} twice", cells[file_column])));
            }
        }
        let row_of = |file: &String| {
            let missing =
                || csv_error(path, text.lines().count(), &format!("a row for {file}"), "the end of the table");
            by_file.get(file).cloned().ok_or_else(missing)
        };
        let names = header.iter().enumerate().filter(|&(i, _)| i != file_column).map(|(_, n)| n.to_string()).collect();
        Attributes::new(names, files.iter().map(row_of).collect::<Result<_>>()?)
    }
}

/// The attribute cells of one row.
fn parse_row(path: &Path, line: usize, cells: &[&str], file_column: usize) -> Result<Vec<bool>> {
    let cell = |(_, &cell): (usize, &&str)| match cell {
        "1" => Ok(true),
        "0" | "-1" => Ok(false),
        other => Err(csv_error(path, line, "0 or 1", &format!("`{other}`"))),
    };
    cells.iter().enumerate().filter(|&(i, _)| i != file_column).map(cell).collect()
}

fn split(line: &str) -> Vec<&str> {
    line.trim_start_matches('\u{feff}').split(',').map(str::trim).collect()
}

/// `line` counts from zero, as iterators do; the message counts from one.
fn csv_error(path: &Path, line: usize, expected: &str, found: &str) -> Error {
    Error::Line { path: path.into(), line: line + 1, expected: expected.into(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], files: &[&str]) -> Result<Attributes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, text).unwrap();
        Attributes::read_csv(&path, &files.iter().map(|f| f.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn rows_follow_the_order_of_the_files() {
        let table = read(b"smile,file,hat\r\n1,b.png,0\n\n-1, a.png ,1\n", &["a.png", "b.png"]).unwrap();
        assert_eq!(table.names(), ["smile", "hat"]);
        assert_eq!(table.column("smile").unwrap(), [false, true]);
        assert_eq!(table.column("hat").unwrap(), [true, false]);
        assert!(table.column("nose").unwrap_err().to_string().contains("smile, hat"));
    }

    #[test]
    fn malformed_tables_name_the_line() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty file"),
            (b"name,smile\na,1\n", "line 1"),
            (b"file\na\n", "line 1"),
            (b"file,smile\na,1,0\n", "line 2"),
            (b"file,smile\na,yes\n", "line 2: expected 0 or 1, found `yes`"),
            (b"file,smile\na,1\na,0\n", "line 3: expected one row for each file"),
            (b"file,smile\nb,1\n", "a row for a"),
            (b"file,smile\na,\xff\n", "byte 13: expected UTF-8"),
        ];
        for (text, expected) in cases {
            let error = read(text, &["a"]).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("labels.csv"), "{error}");
        }
    }
}
