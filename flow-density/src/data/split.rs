//! Parts of a table.

use std::fmt;

use super::Table;
use crate::Result;

/// A part of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// What a model is trained on.
    Train,
    /// What decides on the best checkpoint.
    Validation,
    /// What nothing was decided by.
    Test,
    /// Every row, in the order of the file.
    All,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
            Split::All => "all",
        })
    }
}

/// Rows, one after the other, with their numbers in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    values: Vec<f64>,
    numbers: Vec<usize>,
    /// The class of each row; empty without classes.
    classes: Vec<u32>,
    columns: usize,
}

impl Rows {
    pub(super) fn new(columns: usize) -> Self {
        Rows { values: Vec::new(), numbers: Vec::new(), classes: Vec::new(), columns }
    }

    /// Points that come from no file, numbered from one.
    pub(super) fn drawn(columns: usize, values: &[f32]) -> Self {
        let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        Rows { numbers: (1..=values.len() / columns).collect(), values, ..Rows::new(columns) }
    }

    /// Some rows of a table.
    pub(super) fn of(table: &Table, chosen: &[usize]) -> Result<Self> {
        let mut rows = Rows::new(table.columns());
        for &index in chosen {
            rows.values.extend_from_slice(table.row(index)?);
            rows.numbers.push(table.row_number(index)?);
            rows.classes.extend(table.classes().get(index));
        }
        Ok(rows)
    }

    /// Rows with their numbers, as many of those as of rows.
    pub(super) fn numbered(columns: usize, values: Vec<f64>, numbers: Vec<usize>) -> Self {
        Rows { values, numbers, ..Rows::new(columns) }
    }

    /// The same rows in these classes, one for each row.
    pub(super) fn classed(self, classes: Vec<u32>) -> Self {
        Rows { classes, ..self }
    }

    /// The rows of several parts by their numbers.
    pub(super) fn sorted(parts: &[&Rows]) -> Self {
        let columns = parts.first().map_or(1, |part| part.columns);
        let mut all = Vec::new();
        for part in parts {
            let rows = part.numbers.iter().zip(part.values.chunks_exact(columns)).enumerate();
            all.extend(rows.map(|(row, (&number, values))| (number, part.classes.get(row).copied(), values)));
        }
        all.sort_by_key(|(number, ..)| *number);
        Rows {
            values: all.iter().flat_map(|(.., row)| row.iter().copied()).collect(),
            numbers: all.iter().map(|(number, ..)| *number).collect(),
            classes: all.iter().filter_map(|(_, class, _)| *class).collect(),
            columns,
        }
    }

    /// The first rows, all if there are fewer.
    #[must_use]
    pub fn first(&self, most: usize) -> Self {
        let most = most.min(self.len());
        Rows {
            values: self.values[..most * self.columns].to_vec(),
            numbers: self.numbers[..most].to_vec(),
            classes: self.classes.iter().take(most).copied().collect(),
            columns: self.columns,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The numbers, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The number of each row in its file, counted from one; of points that were drawn, their place.
    pub fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// The class of each row, its place in [`Classes::names`](super::Classes::names); nothing without classes.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// Each row with its number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[f64])> {
        self.numbers.iter().copied().zip(self.values.chunks_exact(self.columns))
    }
}
