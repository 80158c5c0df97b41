//! Lines of cells by RFC 4180: quoted cells may hold separators, line ends and doubled quotation marks.
//!
//! Stricter than the usual readers, which take `"10"5` for 105 and let a mark that is never closed swallow the rest of the
//! file: both are errors here, as they would be wrong numbers in silence.

use std::borrow::Cow;

use super::super::fault::{Fault, Read};
use super::cell::is_missing;
use crate::error::Place;

/// Records that the choice of a separator looks at.
const LOOKED_AT: usize = 200;

/// What parts cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    /// One of this character.
    One(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    const CHARACTERS: [u8; 4] = [b'\t', b';', b'|', b','];

    /// The separator that is found in every line equally often, else the one that is found in most lines. Tabs,
    /// semicolons and bars go before commas, which may be the marks of decimals, and blanks come last.
    pub(super) fn of(text: &str) -> Self {
        let counts = counts(text);
        let even = |of: &dyn Fn(&[usize; 5]) -> usize| {
            let first = counts.first().map_or(0, of);
            first > 0 && counts.iter().all(|count| of(count) == first)
        };
        if let Some(k) = (0..4).find(|&k| even(&|count| count[k])) {
            return Separator::One(Separator::CHARACTERS[k]);
        }
        if even(&|count| count[4]) {
            return Separator::Blanks;
        }
        let lines = |k: usize| counts.iter().filter(|count| count[k] > 0).count();
        let most = (0..4).rev().max_by_key(|&k| lines(k)).unwrap_or(3);
        match lines(most) > 0 && 2 * lines(most) >= counts.len() {
            true => Separator::One(Separator::CHARACTERS[most]),
            false => Separator::Blanks,
        }
    }

    fn is_blank(self, byte: u8) -> bool {
        match byte {
            b' ' => true,
            b'\t' => self != Separator::One(b'\t'),
            _ => false,
        }
    }
}

/// How often each separator, and last a gap of blanks, stands outside of quotation marks, for each of the first records.
fn counts(text: &str) -> Vec<[usize; 5]> {
    let mut all = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && all.len() < LOOKED_AT {
        let line = &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())];
        let mut end = line.len();
        if !line.trim().is_empty() && comment(line).is_none() {
            let (count, length) = counts_of_record(rest.as_bytes());
            all.push(count);
            end = length;
        }
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    all
}

/// The counts of a record and its length.
fn counts_of_record(bytes: &[u8]) -> ([usize; 5], usize) {
    let (mut count, mut quoted, mut word, mut gap) = ([0; 5], false, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        if !quoted && matches!(byte, b'\n' | b'\r') {
            return (count, at);
        }
        // A mark opens a cell at its beginning alone; in the middle it is a letter.
        let opens = at == 0 || matches!(bytes[at - 1], b' ' | b'"') || Separator::CHARACTERS.contains(&bytes[at - 1]);
        quoted ^= byte == b'"' && (quoted || opens);
        if quoted {
            continue;
        }
        if let Some(k) = Separator::CHARACTERS.iter().position(|&c| c == byte) {
            count[k] += 1;
        }
        let blank = matches!(byte, b' ' | b'\t');
        count[4] += usize::from(word && gap && !blank);
        (word, gap) = (word || !blank, blank);
    }
    (count, bytes.len())
}

/// What follows the mark of a line that is a comment, `#` or `%`; the errors of spreadsheets begin with the same mark.
pub(super) fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix(['#', '%'])?;
    let first = line.split([',', ';', '\t', '|', ' ']).next().unwrap_or_default();
    (first.len() == 1 || !is_missing(first.trim())).then(|| rest.trim_start_matches(['#', '%']).trim())
}

/// The records of a text, one after the other.
pub(super) struct Records<'a> {
    text: &'a str,
    separator: Separator,
    at: usize,
    line: usize,
    /// Where the line ends that is being read.
    end: usize,
    /// The comments so far.
    pub(super) comments: Vec<&'a str>,
}

impl<'a> Records<'a> {
    /// Of a text that begins in this line of a file, counted from one.
    pub(super) fn new(text: &'a str, separator: Separator, line: usize) -> Self {
        let mut records = Records { text, separator, at: 0, line, end: 0, comments: Vec::new() };
        records.find_end();
        records
    }

    /// Reads the cells of the next record, without the blanks around them, and returns its line; `None` at the end.
    pub(super) fn next(&mut self, cells: &mut Vec<Cow<'a, str>>) -> Read<Option<usize>> {
        cells.clear();
        while self.at < self.text.len() {
            let line = self.rest_of_line();
            // In a text that is parted by tabs a line of them is a row without any value.
            if line.bytes().all(|byte| self.separator.is_blank(byte)) {
                self.at += line.len();
            } else if let Some(comment) = comment(line) {
                self.comments.push(comment);
                self.at += line.len();
            } else {
                let first = self.line;
                while self.cell(cells)? {}
                self.end_line();
                return Ok(Some(first));
            }
            self.end_line();
        }
        Ok(None)
    }

    fn find_end(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        self.end = self.at + end.unwrap_or(rest.len());
    }

    fn rest_of_line(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over a line end, `\n`, `\r\n` or `\r`.
    fn end_line(&mut self) {
        match (self.byte(), self.text.as_bytes().get(self.at + 1)) {
            (Some(b'\r'), Some(b'\n')) => self.at += 2,
            (Some(_), _) => self.at += 1,
            (None, _) => return,
        }
        self.line += 1;
        self.find_end();
    }

    fn skip_blanks(&mut self) {
        while self.byte().is_some_and(|byte| self.separator.is_blank(byte)) {
            self.at += 1;
        }
    }

    /// Reads a cell and the separator after it; returns whether there was one.
    fn cell(&mut self, cells: &mut Vec<Cow<'a, str>>) -> Read<bool> {
        self.skip_blanks();
        if self.byte() == Some(b'"') {
            let cell = self.quoted()?;
            cells.push(cell);
            let after = self.at;
            self.skip_blanks();
            let ends = matches!(self.byte(), None | Some(b'\n' | b'\r'));
            return match self.separator {
                Separator::One(separator) if self.byte() == Some(separator) => {
                    self.at += 1;
                    Ok(true)
                }
                Separator::Blanks if self.at > after => Ok(!ends),
                _ if ends => Ok(false),
                _ => {
                    let found = format!("'{}' after a closing quotation mark", shown(self.rest_of_line()));
                    Err(Fault::new(Place::Line(self.line), found, "a separator or the end of the line"))
                }
            };
        }
        let line = self.rest_of_line();
        let end = match self.separator {
            Separator::One(separator) => line.bytes().position(|byte| byte == separator),
            Separator::Blanks => line.bytes().position(|byte| matches!(byte, b' ' | b'\t')),
        };
        let cell = &line[..end.unwrap_or(line.len())];
        self.at += cell.len();
        // Blanks before the end of a line part nothing.
        if self.separator == Separator::Blanks {
            self.skip_blanks();
            cells.push(Cow::Borrowed(cell));
            return Ok(!matches!(self.byte(), None | Some(b'\n' | b'\r')));
        }
        cells.push(Cow::Borrowed(cell.trim()));
        self.at += usize::from(end.is_some());
        Ok(end.is_some())
    }

    /// A cell in quotation marks, of which two in a row stand for one.
    fn quoted(&mut self) -> Read<Cow<'a, str>> {
        let opened = self.line;
        self.at += 1;
        let mut parts: Vec<&str> = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find('"') else {
                let expected = "another one that closes the cell";
                return Err(Fault::new(Place::Line(opened), "a quotation mark", expected));
            };
            let part = &rest[..end];
            let bytes = part.as_bytes();
            let is_end = |i: usize| bytes[i] == b'\n' || (bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
            self.line += (0..bytes.len()).filter(|&i| is_end(i)).count();
            self.at += end + 1;
            parts.push(part);
            if self.byte() != Some(b'"') {
                break;
            }
            self.at += 1;
        }
        self.find_end();
        Ok(match parts[..] {
            [whole] => Cow::Borrowed(whole.trim()),
            _ => Cow::Owned(parts.join("\"").trim().to_string()),
        })
    }
}

/// The beginning of a text, for messages.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Read<Vec<(usize, Vec<String>)>> {
        let mut records = Records::new(text, Separator::of(text), 1);
        let (mut all, mut cells) = (Vec::new(), Vec::new());
        while let Some(line) = records.next(&mut cells)? {
            all.push((line, cells.iter().map(ToString::to_string).collect()));
        }
        Ok(all)
    }

    fn cells(text: &str) -> Vec<Vec<String>> {
        read(text).unwrap().into_iter().map(|(_, cells)| cells).collect()
    }

    #[test]
    fn quoted_cells_hold_separators_line_ends_and_marks() {
        let text = "\"a, b\",\"c \"\"d\"\"\",e\r\n\"1\n2\", 3 ,\"\"\r\n4,,\"5,5\"\n";
        let expected = [(1, ["a, b", "c \"d\"", "e"]), (2, ["1\n2", "3", ""]), (4, ["4", "", "5,5"])];
        let read = read(text).unwrap();
        assert_eq!(read.len(), 3);
        for ((line, cells), (expected_line, expected)) in read.iter().zip(expected) {
            assert_eq!((*line, &cells[..]), (expected_line, &expected.map(String::from)[..]));
        }
    }

    #[test]
    fn every_line_end_ends_a_line() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["1,2", "3,4", "", "5,6"].join(end);
            let lines: Vec<usize> = read(&text).unwrap().iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [1, 2, 4], "{end:?}");
        }
    }

    #[test]
    fn separators_are_found() {
        for (text, separator) in [
            ("1,2\n3,4\n", Separator::One(b',')),
            ("1;2\n3;4\n", Separator::One(b';')),
            ("1,5;2,5\n3,5;4,5\n", Separator::One(b';')),
            ("1\t2\n", Separator::One(b'\t')),
            ("1|2\n", Separator::One(b'|')),
            ("1 2\n 3   4 \n", Separator::Blanks),
            ("x y\n1,5 2,5\n3,5 4,5\n", Separator::Blanks),
            ("1, 2\n3\n5, 6\n", Separator::One(b',')),
            ("1\n2\n", Separator::Blanks),
            ("# a;b\n\"x;y\",z\n1,2\n", Separator::One(b',')),
            ("length,cm width\n1 2\n3 4\n5 6\n", Separator::Blanks),
            ("", Separator::Blanks),
        ] {
            assert_eq!(Separator::of(text), separator, "{text:?}");
        }
        assert_eq!(cells(" 1   2 \n\"a b\"  3\n"), [["1", "2"], ["a b", "3"]]);
        assert_eq!(cells("1\t\t3\n\t\t\n"), [["1", "", "3"], ["", "", ""]]);
    }

    #[test]
    fn comments_are_kept_apart_and_errors_of_spreadsheets_are_none() {
        let text = "# x y\n  % by hand\n1 2\n\n#N/A 4\n#DIV/0! 5\n#\n";
        let mut records = Records::new(text, Separator::Blanks, 1);
        let mut cells = Vec::new();
        let mut lines = Vec::new();
        while let Some(line) = records.next(&mut cells).unwrap() {
            lines.push(line);
        }
        assert_eq!((lines, records.comments), (vec![3, 5, 6], vec!["x y", "by hand", ""]));
    }

    #[test]
    fn loose_marks_are_errors() {
        for (text, place, found) in [
            ("1,2\n\"3,4\n5,6\n", "line 2: ", "a quotation mark, expected another one"),
            ("1,2\n\"10\"5,4\n", "line 2: ", "'5,4' after a closing"),
            ("1,\"2\" x\n", "line 1: ", "'x' after a closing"),
        ] {
            let error = read(text).unwrap_err().of("t.csv").to_string();
            assert!(error.starts_with(&format!("t.csv: {place}")) && error.contains(found), "{error}");
        }
        // In the middle of a cell a mark is a letter like any other.
        assert_eq!(cells("5\" pipe,2\n"), [["5\" pipe", "2"]]);
    }
}
