//! The one error type of this crate.
//!
//! A message about a file names the file, the place in it, what was expected there and what was found.

use std::fmt;
use std::path::PathBuf;

/// What can go wrong in `flow-density`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A table that holds something else than what it should, or holds it in another form.
    #[error("{table}: {place}{found}, expected {expected}")]
    Table {
        /// The file, or "table" for numbers that came from no file.
        table: String,
        /// Where in it.
        place: Place,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The name of data that is neither a toy nor a file.
    #[error("{name}: expected {expected}")]
    UnknownData {
        /// What was asked for.
        name: String,
        /// What there is.
        expected: String,
    },
    /// A log-density, written by somebody else, that returned what cannot be used.
    #[error("the log-density {found}; expected {expected}")]
    LogDensity {
        /// What it returned.
        found: String,
        /// What it should have, and what helps.
        expected: String,
    },
    /// A density without a finite integral.
    #[error(
        "the density does not fall off along coordinate {coordinate} (counted from 0), so it has no finite integral and \
         nothing can be fitted to it: give it a prior or a window; for one that is flat only far out, leave the check out"
    )]
    Improper {
        /// The coordinate.
        coordinate: usize,
    },
    /// A failure of the core: tensors, files, arguments.
    #[error(transparent)]
    Core(flow_core::Error),
}

/// What a task of the training engine returned comes back as it was.
impl From<flow_core::Error> for Error {
    fn from(error: flow_core::Error) -> Self {
        match error {
            flow_core::Error::Task(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => Error::Core(flow_core::Error::Task(other)),
            },
            other => Error::Core(other),
        }
    }
}

/// A place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The table as a whole.
    Whole,
    /// An offset in a file, counted from zero.
    Byte(usize),
    /// A line of text, counted from one.
    Line(usize),
    /// A column in a line, both counted from one.
    Cell {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An entry of the numbers, row and column counted from one.
    Entry {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
    },
    /// A whole column, counted from one.
    Column(usize),
}

/// With a colon and a space behind it, or nothing.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Whole => Ok(()),
            Place::Byte(at) => write!(f, "byte {at}: "),
            Place::Line(line) => write!(f, "line {line}: "),
            Place::Cell { line, column } => write!(f, "line {line}, column {column}: "),
            Place::Entry { row, column } => write!(f, "row {row}, column {column}: "),
            Place::Column(column) => write!(f, "column {column}: "),
        }
    }
}

/// Shorthand used throughout the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::Core(error.into())
    }
}

impl Error {
    /// An argument outside its domain: [`flow_core::Error::Config`] from its two parts.
    pub fn config(what: impl Into<String>, reason: impl Into<String>) -> Self {
        flow_core::Error::config(what, reason).into()
    }

    /// An [`Error::LogDensity`] from its two parts.
    pub(crate) fn log_density(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Error::LogDensity { found: found.into(), expected: expected.into() }
    }

    /// A file system failure that remembers its path: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let wrap = flow_core::Error::io(path);
        move |source| wrap(source).into()
    }
}

/// For the training engine: the message and the cause stay.
impl From<Error> for flow_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            other => flow_core::Error::task(other),
        }
    }
}
