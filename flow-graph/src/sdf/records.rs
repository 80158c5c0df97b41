//! The records of a file, one at a time.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::read::{Record, parse_lines};
use crate::data::lines::{self, Lines};
use crate::molecule::draft::Keep;
use crate::{Error, Result};

/// Opens an SD file (`.sdf`, `.mol`), compressed or not.
///
/// # Errors
/// Names the file when it cannot be opened.
pub fn open(path: &Path) -> Result<Records<Box<dyn BufRead>>> {
    Ok(Records::new(lines::open(path)?, path))
}

/// Iterates over the records of an SD file, which `$$$$` separates.
///
/// A record that cannot be read is an error with its line, and the next one follows; a failure of the file
/// itself is the last item.
pub struct Records<R> {
    lines: Lines<R>,
    /// The line after the last one read.
    next: usize,
    finished: bool,
}

impl<R: BufRead> Records<R> {
    /// The records of a text; `path` is named in errors.
    pub fn new(reader: R, path: impl Into<PathBuf>) -> Self {
        Records { lines: Lines::new(reader, &path.into()), next: 1, finished: false }
    }

    /// The lines up to the next separator, `None` when only blank ones are left.
    fn next_lines(&mut self) -> Result<Option<Vec<String>>> {
        let mut lines = Vec::new();
        while let Some(line) = self.lines.next_line()? {
            self.next = line.number + 1;
            if line.text.starts_with("$$$$") {
                return Ok(Some(lines));
            }
            if line.cut {
                self.finished = true;
                let (path, reason) = (self.lines.path().into(), "the line is too long for a record".to_string());
                return Err(Error::Line { path, line: line.number, column: 1, reason });
            }
            lines.push(line.text);
        }
        self.finished = true;
        Ok(Some(lines).filter(|lines| lines.iter().any(|line| !line.trim().is_empty())))
    }
}

impl<R: BufRead> Iterator for Records<R> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let first = self.next;
        match self.next_lines() {
            Ok(lines) => lines.map(|lines| parse_lines(&lines, first, self.lines.path(), Keep::All)),
            Err(error) => {
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}
