//! Lines of a file, compressed or not, each with its number and none longer than memory allows.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// Longest line in bytes. A SMILES of this length has more atoms than a [`MoleculeSet`](super::MoleculeSet) holds.
pub(super) const LONGEST: usize = 1 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The bytes of a regular, non-empty file, decompressed where they start like gzip.
///
/// Several gzip members in a row are one text, as `cat a.gz b.gz` makes them.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    check(path)?;
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
    let compressed = file.fill_buf().map_err(Error::io(path))?.starts_with(&GZIP);
    Ok(if compressed { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// A device or a pipe is refused: it cannot be read twice, and need not end.
pub(super) fn check(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    let reason = if metadata.is_dir() {
        "is a folder, expected a file of molecules"
    } else if !metadata.is_file() {
        "is a device or a pipe, expected a regular file"
    } else if metadata.len() == 0 {
        "is empty, expected molecules"
    } else {
        return Ok(());
    };
    Err(Error::File { path: path.into(), reason: reason.into() })
}

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from one.
    pub number: usize,
    /// The bytes, at most [`LONGEST`] of them.
    pub bytes: Vec<u8>,
    /// Whether the line went on; the rest was passed over.
    pub cut: bool,
}

/// Reads line by line.
pub(super) struct Lines<R> {
    reader: R,
    path: PathBuf,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// The lines of a reader; `path` is named in errors.
    pub(super) fn new(reader: R, path: &Path) -> Self {
        Lines { reader, path: path.into(), number: 0 }
    }

    /// The next line, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Line`] where compressed data are damaged, [`Error::Core`] for a failure of the file system.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        // Two more than a line may have, for its end.
        let limit = LONGEST as u64 + 2;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes);
        if read.map_err(|e| failure(&self.path, self.number + 1, e))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        } else if bytes.len() > LONGEST {
            self.reader.skip_until(b'\n').map_err(|e| failure(&self.path, self.number, e))?;
        }
        if self.number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let cut = bytes.len() > LONGEST;
        bytes.truncate(LONGEST);
        Ok(Some(Line { number: self.number, bytes, cut }))
    }
}

/// What a failed read on a line means: the decompressor reports its troubles as errors of the file.
pub(super) fn failure(path: &Path, line: usize, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            let reason = format!("the compressed data are damaged or cut off here ({error})");
            Error::Line { path: path.into(), line, column: 1, reason }
        }
        _ => Error::io(path)(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(bytes, Path::new("x"));
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn line_ends_and_byte_order_marks_are_no_content() {
        let found: Vec<_> = all(b"\xef\xbb\xbfa\r\n\nb\rc\n\rd").into_iter().map(|l| (l.number, l.bytes)).collect();
        let expected: [(usize, &[u8]); 4] = [(1, b"a"), (2, b""), (3, b"b\rc"), (4, b"\rd")];
        assert_eq!(found, expected.map(|(n, b)| (n, b.to_vec())));
    }

    #[test]
    fn a_line_too_long_is_cut_and_the_next_one_is_whole() {
        let mut bytes = vec![b'C'; 3 * LONGEST];
        bytes.extend(b"\nCC\n");
        let lines = all(&bytes);
        assert_eq!((lines[0].cut, lines[0].bytes.len()), (true, LONGEST));
        assert_eq!(lines[1], Line { number: 2, bytes: b"CC".to_vec(), cut: false });
        for extra in 0..3 {
            let lines = all(&[vec![b'C'; LONGEST + extra], b"\nN".to_vec()].concat());
            assert_eq!((lines.len(), lines[0].cut, lines[0].bytes.len()), (2, extra > 0, LONGEST), "{extra}");
        }
    }
}
