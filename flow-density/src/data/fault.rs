//! What is wrong with a table, said by code that does not know the table's name.

use crate::Error;
use crate::error::Place;

/// A fault whose table is named by the one who knows it.
#[derive(Debug)]
pub(super) struct Fault {
    place: Place,
    found: String,
    expected: String,
}

/// What code returns that reads bytes.
pub(super) type Read<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn new(place: Place, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Fault { place, found: found.into(), expected: expected.into() }
    }

    /// A fault of the table as a whole.
    pub(super) fn whole(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Fault::new(Place::Whole, found, expected)
    }

    /// The same fault of a part of the table, such as an array of an archive.
    pub(super) fn within(mut self, part: &str) -> Self {
        self.found = format!("{part}: {}", self.found);
        self
    }

    pub(super) fn of(self, name: &str) -> Error {
        Error::Table { table: name.into(), place: self.place, found: self.found, expected: self.expected }
    }
}
