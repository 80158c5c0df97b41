//! SD files and MOL blocks, through [`sdf`](crate::sdf).

use std::io::BufRead;

use super::lines::Lines;
use super::loaded::{About, Entry};
use super::{Components, Loaded};
use crate::molecule::draft::Keep;
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
    loaded.extend(rows, |block| block.text.len(), |block| Some(entry(block, rule)))?;
    loaded.latin1 = lines.latin1();
    Ok(())
}

/// The record that starts on line `next`, which becomes the line after it; `None` when only blank lines are left.
fn next_block<R: BufRead>(lines: &mut Lines<R>, next: &mut usize) -> Result<Option<Block>> {
    let mut block = Block { line: *next, text: String::new(), fault: None };
    while let Some(line) = lines.next_line()? {
        *next = line.number + 1;
        if line.text.starts_with("$$$$") {
            return Ok(Some(block));
        }
        if block.fault.is_some() {
            continue;
        }
        if line.cut {
            block.fault = Some((line.number, "the line is too long for a record"));
        } else if block.text.len() + line.text.len() > LONGEST {
            block.fault = Some((line.number, "the record is too long, expected $$$$ at the end of each"));
        } else {
            block.text.push_str(&line.text);
            block.text.push('\n');
        }
    }
    Ok(Some(block).filter(|block| block.fault.is_some() || !block.text.trim().is_empty()))
}

fn entry(block: &Block, rule: Components) -> Entry {
    if let Some((line, reason)) = block.fault {
        return Entry::bad(line, 1, reason);
    }
    let whole = sdf::parse_text(&block.text, Keep::All);
    // A counter-ion that cannot be read does not throw the drug away.
    let record = match whole {
        Err(error) if rule == Components::Largest => match sdf::parse_text(&block.text, Keep::Largest) {
            Ok(record) if record.pieces > 1 => Ok(record),
            _ => Err(error),
        },
        other => other,
    };
    match record {
        Ok(record) => {
            let source = smiles::write(&record.molecule);
            let (name, dropped, unreadable) = (record.name, record.dropped, record.unreadable);
            let about = About { source, name, dropped, unreadable, extended: false };
            Entry::of_molecule(record.molecule, about, (block.line, 1), rule)
        }
        Err(Error::Line { line, column, reason, .. }) => Entry::bad(block.line + line - 1, column, reason),
        Err(other) => Entry::bad(block.line, 1, other.to_string()),
    }
}
