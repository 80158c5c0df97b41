//! SMILES files: one molecule on a line, then white space and a name.

use std::io::BufRead;

use super::csv::is_smiles_header;
use super::lines::{LONGEST, Line, Lines};
use super::loaded::{Entry, Field};
use super::{Components, Loaded};
use crate::Result;

/// Reads all lines; blank ones, `#` comments and a header whose first word names SMILES are none.
pub(super) fn read<R: BufRead>(mut lines: Lines<R>, rule: Components, loaded: &mut Loaded) -> Result<()> {
    // The header can only be the first line that is neither blank nor a comment.
    let mut first = true;
    let rows = || {
        while let Some(line) = lines.next_line()? {
            let skipped = is_skipped(&line.text) || (first && is_header(&line.text));
            first &= is_skipped(&line.text);
            if !skipped {
                return Ok(Some(line));
            }
        }
        Ok(None)
    };
    loaded.extend(rows, |line| line.text.len(), |line| Some(entry(line, rule)))?;
    loaded.latin1 = lines.latin1();
    Ok(())
}

fn is_skipped(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

fn is_header(line: &str) -> bool {
    let word = line.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')).find(|word| !word.is_empty());
    word.is_some_and(is_smiles_header)
}

fn entry(line: &Line, rule: Components) -> Entry {
    if let Some(bad) = too_long(line) {
        return bad;
    }
    let text = line.text.as_str();
    let body = text.trim_start();
    let column = text.chars().count() - body.chars().count() + 1;
    Entry::of_smiles(&Field::of(body), line.number, column, rule)
}

/// The bad entry that a line beyond all measure is.
pub(super) fn too_long(line: &Line) -> Option<Entry> {
    let reason = || format!("the line is longer than {LONGEST} bytes, expected one molecule on it");
    line.cut.then(|| Entry::bad(line.number, LONGEST + 1, reason()))
}
