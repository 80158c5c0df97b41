//! Lines of a file, compressed or not, each with its number and none longer than memory allows.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// Longest line in bytes. A SMILES of this length has more atoms than a [`MoleculeSet`](super::MoleculeSet) holds.
pub(crate) const LONGEST: usize = 1 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The bytes of a regular, non-empty file, decompressed where they start like gzip.
///
/// Several gzip members in a row are one text, as `cat a.gz b.gz` makes them.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    check(path)?;
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
    let start = file.fill_buf().map_err(Error::io(path))?;
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        let reason = "is text in UTF-16, expected UTF-8; save it as such, as with iconv -f UTF-16 -t UTF-8";
        return Err(Error::File { path: path.into(), reason: reason.into() });
    }
    let compressed = start.starts_with(&GZIP);
    Ok(if compressed { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// A device or a pipe is refused: it cannot be read twice, and need not end.
pub(crate) fn check(path: &Path) -> Result<()> {
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
pub(crate) struct Line {
    /// Counted from one.
    pub(crate) number: usize,
    /// The text, at most [`LONGEST`] bytes of it. What is not UTF-8 is taken for Latin-1, in which every byte is a letter.
    pub(crate) text: String,
    /// Whether the line went on; the rest was passed over.
    pub(crate) cut: bool,
}

/// Reads line by line. A line ends with a line feed, a carriage return, or both.
pub(crate) struct Lines<R> {
    reader: R,
    path: PathBuf,
    number: usize,
    latin1: usize,
    /// Whether a line feed still belongs to the end of the line before.
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of a reader; `path` is named in errors.
    pub(crate) fn new(reader: R, path: &Path) -> Self {
        Lines { reader, path: path.into(), number: 0, latin1: 0, after_return: false }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines so far that are Latin-1.
    pub(crate) fn latin1(&self) -> usize {
        self.latin1
    }

    /// The next line, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Line`] where compressed data are damaged, [`Error::Core`] for a failure of the file system.
    pub(crate) fn next_line(&mut self) -> Result<Option<Line>> {
        let (mut bytes, mut cut, mut any) = (Vec::new(), false, false);
        loop {
            let buffer = self.reader.fill_buf().map_err(|e| failure(&self.path, self.number + 1, e))?;
            if buffer.is_empty() {
                break;
            }
            if std::mem::take(&mut self.after_return) && buffer[0] == b'\n' {
                self.reader.consume(1);
                continue;
            }
            any = true;
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LONGEST - bytes.len();
            cut |= part.len() > room;
            bytes.extend_from_slice(&part[..part.len().min(room)]);
            self.after_return = end.is_some_and(|end| buffer[end] == b'\r');
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if self.number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // The cut may have gone through a character.
            Err(_) if cut => String::new(),
            Err(error) => {
                self.latin1 += 1;
                error.into_bytes().into_iter().map(char::from).collect()
            }
        };
        Ok(Some(Line { number: self.number, text, cut }))
    }
}

/// What a failed read on a line means: the decompressor reports its troubles as errors of the file.
pub(crate) fn failure(path: &Path, line: usize, error: std::io::Error) -> Error {
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
        let found: Vec<_> = all(b"\xef\xbb\xbfa\r\n\nb\rc\n\rd").into_iter().map(|l| (l.number, l.text)).collect();
        let expected = [(1, "a"), (2, ""), (3, "b"), (4, "c"), (5, ""), (6, "d")];
        assert_eq!(found, expected.map(|(n, text)| (n, text.to_string())));
        // However the bytes come in.
        for size in 1..6 {
            let reader = BufReader::with_capacity(size, &b"a\r\nb\rc\r\n"[..]);
            let mut lines = Lines::new(reader, Path::new("x"));
            let found: Vec<_> = std::iter::from_fn(|| lines.next_line().unwrap()).map(|l| l.text).collect();
            assert_eq!(found, ["a", "b", "c"], "{size}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_latin_1() {
        let mut lines = Lines::new(&b"C \xb5-ol\nC \xc2\xb5-ol\n"[..], Path::new("x"));
        let found: Vec<_> = std::iter::from_fn(|| lines.next_line().unwrap()).map(|l| l.text).collect();
        assert_eq!((found, lines.latin1()), (vec!["C µ-ol".to_string(); 2], 1));
    }

    #[test]
    fn a_line_too_long_is_cut_and_the_next_one_is_whole() {
        let mut bytes = vec![b'C'; 3 * LONGEST];
        bytes.extend(b"\nCC\n");
        let lines = all(&bytes);
        assert_eq!((lines[0].cut, lines[0].text.len()), (true, LONGEST));
        assert_eq!(lines[1], Line { number: 2, text: "CC".into(), cut: false });
        for extra in 0..3 {
            let lines = all(&[vec![b'C'; LONGEST + extra], b"\nN".to_vec()].concat());
            assert_eq!((lines.len(), lines[0].cut, lines[0].text.len()), (2, extra > 0, LONGEST), "{extra}");
        }
    }
}
