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

/// The lines of a text, without what follows `#`.
///
/// # Errors
/// [`Error::Byte`] where the bytes are not UTF-8.
pub(super) fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>> {
    let text = std::str::from_utf8(bytes).map_err(|e| Error::Byte {
        path: path.to_path_buf(),
        byte: e.valid_up_to() as u64,
        reason: "is no text (not UTF-8)".into(),
    })?;
    let separator = |c: char| c.is_whitespace() || c == ',' || c == ';';
    let line = |(i, line): (usize, &'a str)| {
        let content = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = content.split(separator).filter(|w| !w.is_empty()).collect();
        (!words.is_empty()).then_some(Line { path, number: i + 1, words })
    };
    Ok(text.lines().enumerate().filter_map(line).collect())
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
