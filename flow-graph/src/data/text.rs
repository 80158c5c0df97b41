//! SMILES files: one molecule on a line, then white space and a name.

use std::io::BufRead;

use super::lines::{LONGEST, Line, Lines};
use super::loaded::Entry;
use super::{Components, Loaded};
use crate::Result;

/// Reads all lines; blank ones, `#` comments and a header of the word `smiles` are none.
pub(super) fn read<R: BufRead>(mut lines: Lines<R>, rule: Components, loaded: &mut Loaded) -> Result<()> {
    // The header can only be the first line that is neither blank nor a comment.
    let mut first = true;
    let rows = || {
        while let Some(line) = lines.next_line()? {
            let skipped = is_skipped(&line.bytes) || (first && is_header(&line.bytes));
            first &= is_skipped(&line.bytes);
            if !skipped {
                return Ok(Some(line));
            }
        }
        Ok(None)
    };
    loaded.extend(rows, |line| line.bytes.len(), |line| Some(entry(line, rule)))
}

fn is_skipped(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    line.is_empty() || line.starts_with(b"#")
}

fn is_header(line: &[u8]) -> bool {
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"smiles") || word.eq_ignore_ascii_case(b"canonical_smiles"))
}

fn entry(line: &Line, rule: Components) -> Entry {
    let text = match decode(line) {
        Ok(text) => text,
        Err(bad) => return bad,
    };
    let body = text.trim_start();
    let column = text.chars().count() - body.chars().count() + 1;
    let (smiles, name) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    Entry::of_smiles(smiles, name.trim(), line.number, column, rule)
}

/// The text of a line, or the bad entry that it is instead.
pub(super) fn decode(line: &Line) -> std::result::Result<&str, Entry> {
    let text = match std::str::from_utf8(&line.bytes) {
        Ok(text) => text,
        // The cut may have gone through a character.
        Err(error) if line.cut && error.error_len().is_none() => "",
        Err(error) => {
            let good = String::from_utf8_lossy(&line.bytes[..error.valid_up_to()]);
            let byte = line.bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            let reason = format!("byte 0x{byte:02x} is not UTF-8");
            return Err(Entry::bad(line.number, good.chars().count() + 1, reason));
        }
    };
    if line.cut {
        let reason = format!("the line is longer than {LONGEST} bytes, expected one molecule on it");
        return Err(Entry::bad(line.number, LONGEST + 1, reason));
    }
    Ok(text)
}
