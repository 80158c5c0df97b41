//! SD files and MOL blocks, through [`sdf`](crate::sdf).

use std::io::BufRead;

use super::lines::Lines;
use super::loaded::Entry;
use super::{Components, Loaded};
use crate::sdf;
use crate::{Error, Result, smiles};

/// Most bytes of a record; a longer one is a bad entry.
const LONGEST: usize = 16 << 20;

/// The text between two separators.
struct Block {
    /// The line it starts on.
    line: usize,
    text: String,
    /// What keeps it from being read at all, and on which line.
    fault: Option<(usize, &'static str)>,
}

/// Reads all records.
pub(super) fn read<R: BufRead>(mut lines: Lines<R>, rule: Components, loaded: &mut Loaded) -> Result<()> {
    let mut next = 1;
    let rows = || next_block(&mut lines, &mut next);
    loaded.extend(rows, |block| block.text.len(), |block| Some(entry(block, rule)))
}

/// The record that starts on line `next`, which becomes the line after it; `None` when only blank lines are left.
fn next_block<R: BufRead>(lines: &mut Lines<R>, next: &mut usize) -> Result<Option<Block>> {
    let mut block = Block { line: *next, text: String::new(), fault: None };
    while let Some(line) = lines.next_line()? {
        *next = line.number + 1;
        if line.bytes.starts_with(b"$$$$") {
            return Ok(Some(block));
        }
        if block.fault.is_some() {
            continue;
        }
        if line.cut {
            block.fault = Some((line.number, "the line is too long for a record"));
        } else if block.text.len() + line.bytes.len() > LONGEST {
            block.fault = Some((line.number, "the record is too long, expected $$$$ at the end of each"));
        } else {
            // Names and properties come in any encoding; where a letter matters, a replacement is refused.
            block.text.push_str(&String::from_utf8_lossy(&line.bytes));
            block.text.push('\n');
        }
    }
    Ok(Some(block).filter(|block| block.fault.is_some() || !block.text.trim().is_empty()))
}

fn entry(block: &Block, rule: Components) -> Entry {
    if let Some((line, reason)) = block.fault {
        return Entry::bad(line, 1, reason);
    }
    match sdf::parse_molblock(&block.text) {
        Ok(record) => {
            let source = smiles::write(&record.molecule);
            Entry::of_molecule(record.molecule, record.dropped, source, &record.name, (block.line, 1), rule)
        }
        Err(Error::Line { line, column, reason, .. }) => Entry::bad(block.line + line - 1, column, reason),
        Err(other) => Entry::bad(block.line, 1, other.to_string()),
    }
}
