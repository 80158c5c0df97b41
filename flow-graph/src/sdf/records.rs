//! The records of a file, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::read::{Record, parse_lines};
use crate::{Error, Result};

/// Opens an SD file (`.sdf`, `.mol`), compressed or not.
///
/// # Errors
/// Names the file when it cannot be opened.
pub fn open(path: &Path) -> Result<Records<Box<dyn BufRead>>> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let compressed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
    let plain: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(Records::new(Box::new(BufReader::new(plain)), path))
}

/// Iterates over the records of an SD file, which `$$$$` separates.
///
/// A record that cannot be read is an error with its line, and the next one follows; a failure of the file
/// itself is the last item.
pub struct Records<R> {
    reader: R,
    path: PathBuf,
    /// Lines read so far.
    line: usize,
    finished: bool,
}

impl<R: BufRead> Records<R> {
    /// The records of a text; `path` is named in errors.
    pub fn new(reader: R, path: impl Into<PathBuf>) -> Self {
        Records { reader, path: path.into(), line: 0, finished: false }
    }

    /// The next line without its end, `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        if self.reader.read_until(b'\n', &mut bytes).map_err(Error::io(&self.path))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Names and properties come in any encoding; where a letter matters, a replacement is refused.
        Ok(Some(String::from_utf8_lossy(line).into_owned()))
    }

    /// The lines up to the next separator, `None` when only blank ones are left.
    fn next_lines(&mut self) -> Result<Option<Vec<String>>> {
        let mut lines = Vec::new();
        while let Some(line) = self.next_line()? {
            if line.starts_with("$$$$") {
                return Ok(Some(lines));
            }
            lines.push(line);
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
        let first = self.line + 1;
        match self.next_lines() {
            Ok(lines) => lines.map(|lines| parse_lines(&lines, first, &self.path)),
            Err(error) => {
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}
