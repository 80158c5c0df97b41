//! Text files as lines of words, with their numbers for messages.

use std::path::Path;

use crate::{Error, Point, Result};

/// One line that is neither blank nor a comment.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub path: &'a Path,
    /// Counted from one.
    pub number: usize,
    pub words: Vec<&'a str>,
}

/// What stands for a word that is no UTF-8: names and materials may be in any encoding, numbers are not.
const UNREADABLE: &str = "\u{fffd}";

/// The lines of a text, without what follows `#` and without a mark of byte order.
///
/// # Errors
/// [`Error::Byte`] at a byte that no text holds.
pub(super) fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>> {
    if let Some(byte) = bytes.iter().position(|&b| b == 0) {
        return Err(Error::Byte { path: path.to_path_buf(), byte: byte as u64, reason: "is zero: no text".into() });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line = |(i, line): (usize, &'a [u8])| {
        let content = line.split(|&b| b == b'#').next().unwrap_or_default();
        let words = content.split(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b'\x0b'));
        let words = words.filter(|w| !w.is_empty()).map(|w| std::str::from_utf8(w).unwrap_or(UNREADABLE));
        let words: Vec<&str> = words.collect();
        (!words.is_empty()).then_some(Line { path, number: i + 1, words })
    };
    Ok(bytes.split(|&b| b == b'\n').enumerate().filter_map(line).collect())
}

impl Line<'_> {
    pub fn fault(&self, reason: impl Into<String>) -> Error {
        Error::Line { path: self.path.to_path_buf(), line: self.number, reason: reason.into() }
    }

    /// A finite number.
    pub fn number(&self, index: usize, what: &str) -> Result<f32> {
        let Some(word) = self.words.get(index) else {
            return Err(self.fault(format!("expected {what}, the line ends after {} words", self.words.len())));
        };
        match word.parse::<f32>() {
            Ok(v) if v.is_finite() => Ok(v),
            Ok(_) => Err(self.fault(format!("{what} is '{word}', not a finite number"))),
            Err(_) => Err(self.fault(format!("expected {what}, a number, found '{}'", shortened(word)))),
        }
    }

    /// Three numbers from `index` on.
    pub fn point(&self, index: usize, what: &str) -> Result<Point> {
        Ok([self.number(index, what)?, self.number(index + 1, what)?, self.number(index + 2, what)?])
    }

    /// A whole number, at least zero.
    pub fn count(&self, index: usize, what: &str) -> Result<u64> {
        let Some(word) = self.words.get(index) else {
            return Err(self.fault(format!("expected {what}, the line ends after {} words", self.words.len())));
        };
        word.parse().map_err(|_| self.fault(format!("expected {what}, a whole number, found '{}'", shortened(word))))
    }
}

/// Long words would bury the message.
pub(super) fn shortened(word: &str) -> String {
    const LONGEST: usize = 40;
    match word.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_string(),
    }
}
