//! Data by the names that users give.

use std::path::PathBuf;

use super::table::ENDINGS;
use super::{Data, Reading, Table, Toy};
use crate::{Error, Result};

/// Where data come from, as a user named it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// Points are drawn as they are needed.
    Toy(Toy),
    /// Rows of a file.
    Table(PathBuf),
}

impl Source {
    /// The source that a name means: a toy, or a path.
    ///
    /// # Errors
    /// [`Error::UnknownData`] for a name that is neither that of a toy nor has an ending, and is no file.
    pub fn named(name: &str) -> Result<Self> {
        if let Some(toy) = Toy::named(name) {
            return Ok(Source::Toy(toy));
        }
        let path = PathBuf::from(name);
        if path.extension().is_none() && !path.exists() {
            let expected = format!("a file ({ENDINGS}) or one of {}", Toy::ALL.map(Toy::name).join(", "));
            return Err(Error::UnknownData { name: name.into(), expected });
        }
        Ok(Source::Table(path))
    }

    /// Samples of a toy, or all columns of a file, split by `seed` as [`Data::from_table`] does.
    ///
    /// # Errors
    /// As [`Table::open`] and [`Data::from_table`].
    pub fn open(&self, seed: u64) -> Result<Data> {
        self.open_with(&Reading::default(), seed)
    }

    /// As [`Source::open`], with a choice of columns and of what is done with missing values.
    ///
    /// # Errors
    /// As [`Table::open_with`] and [`Data::from_table`]; [`flow_core::Error::Config`] for choices about a toy.
    pub fn open_with(&self, reading: &Reading, seed: u64) -> Result<Data> {
        match self {
            Source::Toy(_) if !reading.is_plain() => {
                let reason = "columns, classes, missing values, headers and arrays are chosen of files, a toy has none";
                Err(Error::config("data", reason))
            }
            Source::Toy(toy) => Data::from_toy(*toy),
            Source::Table(path) => Data::from_table(&Table::open_with(path, reading)?, seed),
        }
    }
}
