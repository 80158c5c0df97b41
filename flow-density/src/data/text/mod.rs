//! Tables as text: one row per line, parted by commas, semicolons, tabs, bars or blanks.

pub(super) mod cell;
mod records;

use std::borrow::Cow;

use cell::{Cell, NUMBER, remedy};
use records::{Records, Separator, shown};

use super::fault::{Fault, Read};
use super::raw::{Cells, Raw, RawColumn};
use super::reading::Header;
use crate::error::Place;

/// A line and its cells.
type Line = (usize, Vec<String>);

/// Reads all columns; keeps words, if told, for what may be classes.
pub(super) fn read(bytes: &[u8], header: Header, words: bool) -> Read<Raw> {
    let text = decoded(bytes)?;
    let (text, separator, start) = match declared(text) {
        Some((rest, separator)) => (rest, separator, 2),
        None => (text, Separator::of(text), 1),
    };
    let mut records = Records::new(text, separator, start);
    let (first, comments_above, mut raw) = lines(&mut records, words)?;
    let comments = records.comments;
    let has_names = match header {
        Header::Yes => true,
        Header::No => false,
        Header::Auto => are_names(&first, &raw)?,
    };
    match has_names {
        true => name(&mut raw, &first.1),
        false => {
            prepend(&mut raw, &first);
            if let &[above] = &comments[..comments_above] {
                name_by_comment(&mut raw, above, separator);
            }
        }
    }
    if raw.rows() == 0 {
        let found = format!("no row of numbers under the names in line {}", first.0);
        return Err(Fault::whole(found, "at least one"));
    }
    match comments.len() {
        0 => {}
        1 => raw.notes.push("1 line is a comment".into()),
        many => raw.notes.push(format!("{many} lines are comments")),
    }
    drop_empty_last(&mut raw);
    if !has_names {
        refuse_parted_thousands(&raw, text, separator)?;
    }
    Ok(raw)
}

/// The first line, how many comments stand above it, and the columns of all other lines.
fn lines(records: &mut Records<'_>, words: bool) -> Read<(Line, usize, Raw)> {
    let mut cells: Vec<Cow<'_, str>> = Vec::new();
    let Some(line) = records.next(&mut cells)? else {
        return Err(Fault::whole("no row of numbers", "at least one"));
    };
    let first: Line = (line, cells.iter().map(ToString::to_string).collect());
    let comments_above = records.comments.len();
    let column = RawColumn { texts: words.then(Vec::new), ..RawColumn::default() };
    let mut raw = Raw { columns: vec![column; first.1.len()], ..Raw::default() };
    while let Some(line) = records.next(&mut cells)? {
        let row = raw.lines.len();
        if cells.len() != first.1.len() {
            return Err(ragged(&first, line, &cells));
        }
        for (column, cell) in raw.columns.iter_mut().zip(&cells) {
            push(column, row, cell);
        }
        raw.lines.push(line);
    }
    Ok((first, comments_above, raw))
}

/// The text, or what else the file seems to be.
fn decoded(bytes: &[u8]) -> Read<&str> {
    const CSV: &str = "text with a row per line";
    let known: [(&[u8], &str, &str); 7] = [
        (b"\xff\xfe", "text in UTF-16", "UTF-8: save it again (iconv -f utf-16 -t utf-8)"),
        (b"\xfe\xff", "text in UTF-16", "UTF-8: save it again (iconv -f utf-16 -t utf-8)"),
        (b"PK\x03\x04", "a zip archive (a workbook of a spreadsheet?)", "text: export it as CSV"),
        (b"\xd0\xcf\x11\xe0", "a workbook of a spreadsheet", "text: export it as CSV"),
        (b"\x1f\x8b", "a gzip archive", "text: unpack it"),
        (b"\x93NUMPY", "a NumPy array", "text, or the ending .npy"),
        (b"PAR1", "a Parquet file", "text, or the ending .parquet"),
    ];
    if let Some((_, found, expected)) = known.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return Err(Fault::new(Place::Byte(0), *found, *expected));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let expected = "UTF-8: save it again (iconv -f latin1 -t utf-8, or pandas with encoding='latin1')";
        Fault::new(Place::Byte(e.valid_up_to()), "no UTF-8 text", expected)
    })?;
    if let Some(at) = text.bytes().position(|byte| byte == 0) {
        return Err(Fault::new(Place::Byte(at), "a byte of zero", CSV));
    }
    let start = text.trim_start().get(..9).unwrap_or_default().to_ascii_lowercase();
    if start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<?xml") {
        return Err(Fault::whole("a page of the web (HTML), not the data it links to", "text with a row per line"));
    }
    Ok(text)
}

/// The first line of a spreadsheet's CSV may say what parts the cells: `sep=;`.
fn declared(text: &str) -> Option<(&str, Separator)> {
    let (line, rest) = text.split_once('\n')?;
    let [separator] = line.trim_end_matches('\r').trim_matches('"').strip_prefix("sep=")?.as_bytes() else {
        return None;
    };
    matches!(separator, b',' | b';' | b'\t' | b'|').then_some((rest, Separator::One(*separator)))
}

fn push(column: &mut RawColumn, row: usize, cell: &str) {
    let value = match Cell::of(cell) {
        Cell::Number(value) => value,
        Cell::Rounded(value) => {
            column.rounded.add(row, cell);
            value
        }
        Cell::Missing => {
            column.missing.add(row, cell);
            f64::NAN
        }
        Cell::Word => {
            column.words.add(row, &shown(cell));
            if let Some(texts) = &mut column.texts {
                texts.push((row, cell.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
            f64::NAN
        }
    };
    column.values.push(value);
}

fn ragged(first: &Line, line: usize, cells: &[Cow<'_, str>]) -> Fault {
    let found = if cells.len() == 1 { "1 cell".into() } else { format!("{} cells", cells.len()) };
    let (columns, is_word) = (first.1.len(), |cell: &str| Cell::of(cell) == Cell::Word);
    let names = columns > 1 && first.1.iter().all(|cell| is_word(cell));
    let mut expected = format!("{columns} as in line {}", first.0);
    if names && cells.len() == columns + 1 && is_word(&cells[0]) {
        expected += " (names of rows need a name of their own: write.csv writes one)";
    } else if cells.len() > columns {
        let title = if columns == 1 { "; is it a title? remove it" } else { "" };
        expected += &format!(" (are there commas inside numbers? write 1.5 and 10534, or quote the cells{title})");
    }
    Fault::new(Place::Line(line), found, expected)
}

/// Whether the first line holds names: it does if no cell of it is a number, and it does not if its words stand above words
/// alone. Words and numbers of which each could be either are refused.
fn are_names((line, cells): &Line, raw: &Raw) -> Read<bool> {
    // A number with a decimal comma is no name.
    let is_word = |cell: &String| Cell::of(cell) == Cell::Word && remedy(cell) == NUMBER;
    let is_number = |cell: &String| !is_word(cell) && Cell::of(cell) != Cell::Missing;
    let above_numbers = |(cell, column): (&String, &RawColumn)| {
        is_word(cell) && column.words.count == 0 && column.missing.count < column.values.len()
    };
    let Some(number) = cells.iter().find(|cell| is_number(cell)) else { return Ok(cells.iter().any(is_word)) };
    match cells.iter().zip(&raw.columns).position(above_numbers) {
        None => Ok(false),
        Some(word) => {
            let found = format!("'{}' and '{}' in one line", shown(&cells[word]), shown(number));
            Err(Fault::new(Place::Line(*line), found, "names or numbers: say with --header yes or no which they are"))
        }
    }
}

fn name(raw: &mut Raw, names: &[String]) {
    for (column, name) in raw.columns.iter_mut().zip(names) {
        column.name = Some(name.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|name| !name.is_empty());
    }
}

/// A lone comment above the numbers holds their names if it has as many cells.
fn name_by_comment(raw: &mut Raw, comment: &str, separator: Separator) {
    let mut names = Vec::new();
    let read = Records::new(comment, separator, 1).next(&mut names);
    if matches!(read, Ok(Some(_)))
        && names.len() == raw.columns.len()
        && names.iter().all(|n| Cell::of(n) == Cell::Word)
    {
        name(raw, &names.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
}

/// Puts the first line before the other rows.
fn prepend(raw: &mut Raw, (line, cells): &Line) {
    for (column, cell) in raw.columns.iter_mut().zip(cells) {
        let mut first = RawColumn { texts: column.texts.as_ref().map(|_| Vec::new()), ..RawColumn::default() };
        push(&mut first, 0, cell);
        if let (Some(texts), Some(first)) = (&mut column.texts, first.texts) {
            texts.iter_mut().for_each(|(row, _)| *row += 1);
            texts.splice(0..0, first);
        }
        column.values.splice(0..0, first.values);
        let pairs = [
            (&mut column.missing, first.missing),
            (&mut column.words, first.words),
            (&mut column.rounded, first.rounded),
        ];
        for (cells, first) in pairs {
            let later = cells.first.take().map(|(row, cell)| (row + 1, cell));
            *cells = Cells { count: cells.count + first.count, first: first.first.or(later) };
        }
    }
    raw.lines.insert(0, *line);
}

/// A separator at the end of every line makes a last column of nothing.
fn drop_empty_last(raw: &mut Raw) {
    let rows = raw.rows();
    let empty = |column: &RawColumn| {
        column.name.is_none()
            && column.missing.count == rows
            && column.missing.first.as_ref().is_some_and(|f| f.1.is_empty())
    };
    if raw.columns.len() > 1 && raw.columns.last().is_some_and(empty) {
        raw.columns.pop();
        raw.notes.push("the last column is empty, without a name, and left out".into());
    }
}

/// Numbers like 10,534 without quotation marks look like two columns. Where the second one has three digits in every row,
/// some of them zeros in front, and there are no names that say how many columns there are, that is what they are.
fn refuse_parted_thousands(raw: &Raw, text: &str, separator: Separator) -> Read<()> {
    if separator != Separator::One(b',') || raw.columns.len() < 2 || raw.columns.iter().any(|c| c.name.is_some()) {
        return Ok(());
    }
    let mut zeros = vec![false; raw.columns.len()];
    let mut parted = vec![true; raw.columns.len()];
    parted[0] = false;
    let mut records = Records::new(text, separator, 1);
    let mut cells = Vec::new();
    while records.next(&mut cells)?.is_some() {
        for column in (1..cells.len().min(parted.len())).filter(|&c| parted[c]).collect::<Vec<_>>() {
            let digits = |cell: &str| cell.bytes().all(|byte| byte.is_ascii_digit());
            let (before, cell) = (cells[column - 1].trim_start_matches('-'), &cells[column]);
            let leads = (1..=3).contains(&before.len()) && digits(before);
            // Further groups of the same number have three digits themselves.
            parted[column] = leads && cell.len() == 3 && digits(cell);
            zeros[column] |= cell.starts_with('0');
        }
        if !parted.contains(&true) {
            return Ok(());
        }
    }
    match (1..parted.len()).find(|&c| parted[c] && zeros[c]) {
        None => Ok(()),
        Some(column) => {
            let found = "three digits in every row, with zeros in front: the end of numbers like 10,534?";
            let expected = "numbers without marks between thousands, or a line of names above them";
            Err(Fault::new(Place::Column(column + 1), found, expected))
        }
    }
}

#[cfg(test)]
mod tests;
