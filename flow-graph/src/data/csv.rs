//! Tables with a named column of SMILES: CSV and TSV with quotes as RFC 4180 has them.
//!
//! The table is split here rather than by the `csv` crate because a quote that is never closed must not
//! swallow the rest of the file unnoticed, and every fault needs its column.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use super::lines::{LONGEST, Line, Lines};
use super::loaded::{Entry, Field};
use super::text::too_long;
use super::{Components, Loaded};
use crate::{Error, Result};

/// Columns that hold SMILES by their name, by falling preference; see [`key`].
const SMILES_COLUMNS: [&str; 6] =
    ["smiles", "canonicalsmiles", "isomericsmiles", "isosmiles", "cansmiles", "smilesstring"];

/// Further columns that may hold SMILES, when none is called so.
const OTHER_COLUMNS: [&str; 4] = ["mol", "smi", "molecule", "structure"];

/// Columns that hold names.
const NAME_COLUMNS: [&str; 8] =
    ["name", "title", "id", "compoundname", "moleculename", "chemblid", "moleculechemblid", "zincid"];

/// A header without case, blanks and punctuation: `Canonical SMILES` and `canonical_smiles` are one.
fn key(header: &str) -> String {
    header.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a word names SMILES, as `smiles`, `CanonicalSMILES` and `smiles_string` do.
pub(super) fn is_smiles_header(word: &str) -> bool {
    let key = key(word);
    key.starts_with("smiles") || key.ends_with("smiles")
}

/// The column of SMILES by the headers.
pub(super) fn smiles_column(headers: &[String]) -> Option<usize> {
    let keys: Vec<String> = headers.iter().map(|header| key(header)).collect();
    let is = |wanted: &str| keys.iter().position(|key| key == wanted);
    let named = || headers.iter().position(|header| key(header).ends_with("smiles"));
    let begins = || keys.iter().position(|key| key.starts_with("smiles"));
    let first = |wanted: &[&str]| wanted.iter().find_map(|wanted| is(wanted));
    first(&SMILES_COLUMNS).or_else(named).or_else(begins).or_else(|| first(&OTHER_COLUMNS))
}

/// The delimiter of a table by its first line: the first that gives a column of SMILES, else the most frequent one.
pub(super) fn delimiter_of(first: &str, column: Option<&str>, usual: u8) -> Option<u8> {
    if let Some(stated) = stated_separator(first) {
        return Some(stated);
    }
    let headers = |delimiter: u8| -> Vec<String> {
        first.split(char::from(delimiter)).map(|name| name.trim().trim_matches('"').to_string()).collect()
    };
    let wanted = |headers: &[String]| match column {
        Some(column) => headers.iter().any(|header| header.eq_ignore_ascii_case(column)),
        None => smiles_column(headers).is_some(),
    };
    let candidates = [usual, b',', b';', b'\t', b'|'];
    candidates.into_iter().find(|&delimiter| {
        let headers = headers(delimiter);
        headers.len() > 1 && wanted(&headers)
    })
}

/// The separator of a line `sep=;`, by which spreadsheets begin their tables.
pub(super) fn stated_separator(line: &str) -> Option<u8> {
    match line.trim().trim_matches('"').strip_prefix("sep=")?.as_bytes() {
        [separator] => Some(*separator),
        [] => Some(b'\t'),
        _ => None,
    }
}

/// Most lines that a quoted field may run on over.
const MOST_CONTINUED: usize = 64;

/// What a table is read for.
pub(super) struct Table<'a> {
    pub path: &'a Path,
    pub delimiter: u8,
    /// The column of SMILES, or the one that [`smiles_column`] finds.
    pub column: Option<&'a str>,
    pub rule: Components,
}

/// The place of what is wanted in a row.
struct Columns {
    smiles: usize,
    name: Option<usize>,
    count: usize,
}

impl Table<'_> {
    /// Reads the header and all rows.
    pub(super) fn read<R: BufRead>(&self, lines: Lines<R>, loaded: &mut Loaded) -> Result<()> {
        let mut records = Records { lines, waiting: VecDeque::new(), delimiter: self.delimiter };
        let Some(mut header) = records.next_record()? else { return Ok(()) };
        if stated_separator(&header.text).is_some() {
            let Some(next) = records.next_record()? else { return Ok(()) };
            header = next;
        }
        let (columns, name) = self.columns(&header)?;
        loaded.column = Some(name);
        let rows = || records.next_record();
        loaded.extend(rows, |line| line.text.len(), |line| Some(self.entry(line, &columns)))?;
        loaded.latin1 = records.lines.latin1();
        Ok(())
    }

    fn columns(&self, header: &Line) -> Result<(Columns, String)> {
        let fail = |reason: String| Error::Line { path: self.path.into(), line: header.number, column: 1, reason };
        if let Some(Entry::Bad(bad)) = too_long(header) {
            return Err(fail(format!("the header: {}", bad.reason)));
        }
        let text = header.text.as_str();
        let spans = split(text.as_bytes(), self.delimiter).map_err(|fault| fail(fault.reason().into()))?;
        let names: Vec<String> = spans.iter().map(|span| span.text(text).trim().to_string()).collect();
        let find = |wanted: &str| names.iter().position(|name| name.eq_ignore_ascii_case(wanted));
        let listed = || {
            const SHOWN: usize = 30;
            let mut shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("'{}'", short(name))).collect();
            if names.len() > SHOWN {
                shown.push(format!("… ({} in all)", names.len()));
            }
            shown.join(", ")
        };
        let smiles = match self.column {
            Some(wanted) => names
                .iter()
                .position(|name| name == wanted)
                .or_else(|| find(wanted))
                .ok_or_else(|| fail(format!("there is no column '{wanted}'; the header has {}", listed())))?,
            None => smiles_column(&names).ok_or_else(|| {
                // A list of SMILES under the name of a table has one where the header should be.
                let headless = names.iter().any(|name| name.len() > 1 && crate::smiles::parse(name).is_ok());
                let remedy = match headless {
                    true => "; a list of SMILES without a header is read from a file that ends in .smi",
                    false => "; name one of them with --column",
                };
                let known = "no column is named smiles, canonical_smiles, mol, smi, molecule, structure or the like";
                fail(format!("{known}; the header has {}{remedy}", listed()))
            })?,
        };
        let named = |wanted: &&str| names.iter().position(|name| key(name) == **wanted);
        let name = NAME_COLUMNS.iter().find_map(named).filter(|&name| name != smiles);
        let header = names.get(smiles).cloned().unwrap_or_default();
        Ok((Columns { smiles, name, count: names.len() }, header))
    }

    fn entry(&self, line: &Line, columns: &Columns) -> Entry {
        if let Some(bad) = too_long(line) {
            return bad;
        }
        let text = line.text.as_str();
        let bad = |at: usize, reason: String| {
            let (down, column) = place(text, at);
            Entry::bad(line.number + down, column, reason)
        };
        let spans = match split(text.as_bytes(), self.delimiter) {
            Ok(spans) => spans,
            Err(fault) => return bad(fault.at(), fault.reason().into()),
        };
        if spans.len() != columns.count {
            return bad(0, format!("expected {} fields as in the header, found {}", columns.count, spans.len()));
        }
        let field = &spans[columns.smiles];
        let smiles = field.text(text);
        let trimmed = smiles.trim();
        let start = field.inner.start + smiles.len() - smiles.trim_start().len();
        if trimmed.is_empty() {
            return bad(field.inner.start, "the field of the SMILES is empty".into());
        }
        let inside = Field::of(trimmed);
        let named = columns.name.map(|at| spans[at].text(text).trim().to_string()).filter(|name| !name.is_empty());
        let name = named.as_deref().unwrap_or(inside.name);
        let (down, column) = place(text, start);
        Entry::of_smiles(&Field { name, ..inside }, line.number + down, column, self.rule)
    }
}

fn short(name: &str) -> String {
    name.chars().take(40).collect()
}

/// Lines below the first and column from one of an offset in a text.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count(), before[start..].chars().count() + 1)
}

/// Whole records: lines joined where a quoted field runs on.
struct Records<R> {
    lines: Lines<R>,
    /// Lines that were looked at in vain for a closing quote.
    waiting: VecDeque<Line>,
    delimiter: u8,
}

impl<R: BufRead> Records<R> {
    fn next_line(&mut self) -> Result<Option<Line>> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(Some(line));
        }
        self.lines.next_line()
    }

    /// The next record, `None` at the end. One whose quote does not close is its first line alone.
    fn next_record(&mut self) -> Result<Option<Line>> {
        let line = loop {
            match self.next_line()? {
                Some(line) if line.text.trim_ascii().is_empty() => {}
                Some(line) => break line,
                None => return Ok(None),
            }
        };
        if line.cut || !self.is_open(line.text.as_bytes()) {
            return Ok(Some(line));
        }
        let mut joined = line.text.clone();
        let mut taken = Vec::new();
        while taken.len() < MOST_CONTINUED && joined.len() < LONGEST {
            let Some(next) = self.next_line()? else { break };
            joined.push('\n');
            joined.push_str(&next.text);
            let closed = !next.cut && !self.is_open(joined.as_bytes());
            taken.push(next);
            if closed {
                return Ok(Some(Line { text: joined, ..line }));
            }
        }
        taken.into_iter().rev().for_each(|line| self.waiting.push_front(line));
        Ok(Some(line))
    }

    fn is_open(&self, record: &[u8]) -> bool {
        record.contains(&b'"') && matches!(split(record, self.delimiter), Err(Fault::Open(_)))
    }
}

/// Where a field is, and whether it is quoted.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    /// The content, without the quotes around it.
    inner: Range<usize>,
    /// Whether doubled quotes in it stand for one.
    quoted: bool,
}

impl Span {
    fn text<'a>(&self, record: &'a str) -> Cow<'a, str> {
        // Both ends lie beside ASCII characters or at the ends of the record.
        let inner = record.get(self.inner.clone()).unwrap_or_default();
        if self.quoted && inner.contains('"') { Cow::Owned(inner.replace("\"\"", "\"")) } else { Cow::Borrowed(inner) }
    }
}

/// Why a record has no fields.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The quote at this offset is not closed.
    Open(usize),
    /// Something other than a delimiter follows a closing quote.
    AfterQuote(usize),
}

impl Fault {
    fn at(&self) -> usize {
        match *self {
            Fault::Open(at) | Fault::AfterQuote(at) => at,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Fault::Open(_) => "this quote is not closed",
            Fault::AfterQuote(_) => "expected a delimiter or the end of the line after a closing quote",
        }
    }
}

/// The fields of a record. A quote counts at the start of a field only; elsewhere it is a character.
fn split(record: &[u8], delimiter: u8) -> std::result::Result<Vec<Span>, Fault> {
    let mut spans = Vec::new();
    let mut at = 0;
    loop {
        let quoted = record.get(at) == Some(&b'"');
        let inner = if quoted { quoted_field(record, at)? } else { at..field_end(record, at, delimiter) };
        let end = inner.end + usize::from(quoted);
        spans.push(Span { inner, quoted });
        match record.get(end) {
            None => return Ok(spans),
            Some(&byte) if byte == delimiter => at = end + 1,
            Some(_) => return Err(Fault::AfterQuote(end)),
        }
    }
}

fn field_end(record: &[u8], start: usize, delimiter: u8) -> usize {
    record[start..].iter().position(|&byte| byte == delimiter).map_or(record.len(), |length| start + length)
}

/// The content of the field whose quote opens at an offset.
fn quoted_field(record: &[u8], open: usize) -> std::result::Result<Range<usize>, Fault> {
    let mut at = open + 1;
    loop {
        match record[at..].iter().position(|&byte| byte == b'"') {
            None => return Err(Fault::Open(open)),
            Some(skip) if record.get(at + skip + 1) == Some(&b'"') => at += skip + 2,
            Some(skip) => return Ok(open + 1..at + skip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(record: &str) -> Vec<String> {
        split(record.as_bytes(), b',').unwrap().iter().map(|span| span.text(record).into_owned()).collect()
    }

    #[test]
    fn fields_follow_rfc_4180() {
        for (record, expected) in [
            ("a,b", vec!["a", "b"]),
            ("", vec![""]),
            (",", vec!["", ""]),
            ("\"a,b\",c", vec!["a,b", "c"]),
            ("\"say \"\"x\"\"\",\"\"", vec!["say \"x\"", ""]),
            ("5\" pipe,b", vec!["5\" pipe", "b"]),
            ("\"two\nlines\",ö", vec!["two\nlines", "ö"]),
        ] {
            assert_eq!(fields(record), expected, "{record}");
        }
        assert_eq!(split(b"a,\"b", b','), Err(Fault::Open(2)));
        assert_eq!(split(b"\"a\"b", b','), Err(Fault::AfterQuote(3)));
        assert_eq!(split(b"\"\"\"", b','), Err(Fault::Open(0)));
    }

    #[test]
    fn places_count_lines_and_characters() {
        assert_eq!((place("öl,x", 4), place("a\nbö\nc", 6)), ((0, 4), (2, 1)));
    }
}
