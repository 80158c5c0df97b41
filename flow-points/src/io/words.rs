//! Text files as lines of words, with their numbers for messages.

use std::borrow::Cow;
use std::path::Path;

use crate::{Error, Result};

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

/// A text without the mark of byte order; one in UTF-16 that has it, as UTF-8.
pub(super) fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let utf16 = |pairs: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = pairs.as_chunks::<2>().0.iter().map(|&pair| unit(pair));
        let text: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => Cow::Borrowed(bytes),
    }
}

/// The first line, without its end, and what follows; lines end in LF, CR LF or, on old machines, CR.
pub(super) fn split_line(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else { return (bytes, None) };
    let length = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
    (&bytes[..end], Some(&bytes[end + length..]))
}

/// All lines with their numbers.
pub(super) fn numbered(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = Some(bytes);
    let next = move || {
        let (line, after) = split_line(rest?);
        rest = after;
        Some(line)
    };
    (1..).zip(std::iter::from_fn(next))
}

/// Refuses a byte that no text holds.
pub(super) fn check_text(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.iter().position(|&b| b == 0) {
        None => Ok(()),
        Some(byte) => {
            let reason = "is zero: no text; if it is text in UTF-16, save it as UTF-8".into();
            Err(Error::Byte { path: path.to_path_buf(), byte: byte as u64, reason })
        }
    }
}

/// The lines of a text as words between blanks, without what follows `#`.
///
/// # Errors
/// [`Error::Byte`] at a byte that no text holds.
pub(super) fn lines<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Vec<Line<'a>>> {
    check_text(path, bytes)?;
    let line = |(number, line): (usize, &'a [u8])| {
        let content = line.split(|&b| b == b'#').next().unwrap_or_default();
        let words = content.split(|b| b.is_ascii_whitespace() || *b == b'\x0b').filter(|w| !w.is_empty());
        let words: Vec<&str> = words.map(|w| std::str::from_utf8(w).unwrap_or(UNREADABLE)).collect();
        (!words.is_empty()).then_some(Line { path, number, words })
    };
    Ok(numbered(bytes).filter_map(line).collect())
}

impl Line<'_> {
    pub fn fault(&self, reason: impl Into<String>) -> Error {
        Error::Line { path: self.path.to_path_buf(), line: self.number, reason: reason.into() }
    }

    /// A number that is finite in single precision too.
    pub fn number(&self, index: usize, what: &str) -> Result<f64> {
        let Some(word) = self.words.get(index) else {
            return Err(self.fault(format!("expected {what}, the line ends after {} words", self.words.len())));
        };
        number(word, what).map_err(|reason| self.fault(reason))
    }

    /// Three numbers from `index` on.
    pub fn point(&self, index: usize, what: &str) -> Result<[f64; 3]> {
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

/// A number that is finite in single precision too, or what is wrong with it.
pub(super) fn number(word: &str, what: &str) -> std::result::Result<f64, String> {
    match word.parse::<f64>() {
        Ok(v) if v.abs() <= f64::from(f32::MAX) => Ok(v),
        Ok(_) => Err(format!("{what} is '{}', not a finite number of single precision", shortened(word))),
        Err(_) if word.contains(',') => {
            Err(format!("{what} is '{}': a decimal comma? write it with a point", shortened(word)))
        }
        Err(_) => Err(format!("expected {what}, a number, found '{}'", shortened(word))),
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
