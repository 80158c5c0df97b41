//! The table of atoms and bonds of version V3000.
//!
//! Its lines begin with `M  V30`, one that ends with `-` goes on in the next; fields are separated by blanks, and atoms
//! may have any numbers.

use std::collections::{HashMap, HashSet};

use crate::Result;
use crate::molecule::draft::{Draft, DraftAtom, DraftBond, Dropped, Hydrogens};
use crate::molecule::{Atom, Bond};

use super::read::{Block, Table, element, other_bond};

/// What every line of the table begins with.
const PREFIX: &str = "M  V30 ";

/// A line of the table, joined with those that continue it.
struct Row {
    index: usize,
    text: String,
}

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Outside,
    Table,
    Atoms,
    Bonds,
    /// Blocks that say nothing about the graph: groups, collections of stereo.
    Other,
}

pub(super) fn read(block: &Block<'_>) -> Result<Table> {
    let (rows, end) = rows(block)?;
    let empty = Table {
        draft: Draft::default(),
        places: Vec::new(),
        valences: Vec::new(),
        rows: Vec::new(),
        dropped: Dropped::default(),
        end,
    };
    let mut reader = Reader { block, table: empty, numbers: HashMap::new(), pairs: HashSet::new(), counts: None };
    let mut section = Section::Outside;
    for row in &rows {
        let words: Vec<&str> = row.text.split_whitespace().collect();
        section = match (section, words.as_slice()) {
            (_, []) => section,
            (Section::Outside, ["BEGIN", "CTAB", ..]) => Section::Table,
            (Section::Table, ["END", "CTAB"]) => Section::Outside,
            (Section::Table, ["COUNTS", rest @ ..]) => {
                reader.counts(row, rest)?;
                Section::Table
            }
            (Section::Table, ["BEGIN", "ATOM"]) => Section::Atoms,
            (Section::Table, ["BEGIN", "BOND"]) => Section::Bonds,
            (Section::Table, ["BEGIN", ..]) => Section::Other,
            (Section::Atoms | Section::Bonds | Section::Other, ["END", ..]) => Section::Table,
            (Section::Atoms, fields) => {
                reader.atom(row, fields)?;
                Section::Atoms
            }
            (Section::Bonds, fields) => {
                reader.bond(row, fields)?;
                Section::Bonds
            }
            // Links of query structures, templates, and what is inside other blocks.
            (Section::Other | Section::Outside | Section::Table, _) => section,
        };
    }
    let last = rows.last().map_or(4, |row| row.index);
    if section != Section::Outside {
        return block.error(last, 0, "expected M  V30 END CTAB, the record ends here");
    }
    let found = (reader.table.draft.atoms.len(), reader.table.draft.bonds.len());
    match reader.counts {
        Some(stated) if stated == found && found.0 > 0 => Ok(reader.table),
        Some((0, _)) => block.error(last, 0, "expected at least one atom"),
        Some((atoms, bonds)) => {
            let reason = format!("{atoms} atoms and {bonds} bonds are stated, {} and {} are there", found.0, found.1);
            block.error(last, 0, reason)
        }
        None => block.error(last, 0, "expected M  V30 COUNTS with the numbers of atoms and bonds"),
    }
}

/// The lines of the table up to `M  END`, and the line after that.
fn rows(block: &Block<'_>) -> Result<(Vec<Row>, usize)> {
    let (mut rows, mut index) = (Vec::<Row>::new(), 4);
    let mut open = false;
    while index < block.lines.len() {
        let line = block.line(index, "M  V30")?;
        if line.starts_with("M  END") {
            return Ok((rows, index + 1));
        }
        let Some(text) = line.strip_prefix(PREFIX).or_else(|| (line.trim_end() == PREFIX.trim_end()).then_some(""))
        else {
            return block.error(index, 0, "expected a line that begins with M  V30, or M  END");
        };
        let (text, goes_on) = match text.trim_end().strip_suffix('-') {
            Some(text) => (text, true),
            None => (text, false),
        };
        match rows.last_mut().filter(|_| open) {
            Some(row) => row.text.push_str(text),
            None => rows.push(Row { index, text: text.to_string() }),
        }
        open = goes_on;
        index += 1;
    }
    block.error(index, 0, "expected M  END, the record ends here")
}

struct Reader<'a> {
    block: &'a Block<'a>,
    table: Table,
    /// The index of an atom by its number.
    numbers: HashMap<u64, usize>,
    pairs: HashSet<(usize, usize)>,
    counts: Option<(usize, usize)>,
}

impl Reader<'_> {
    fn error<T>(&self, row: &Row, reason: impl Into<String>) -> Result<T> {
        self.block.error(row.index, PREFIX.len(), reason)
    }

    fn number<T: std::str::FromStr>(&self, row: &Row, fields: &[&str], at: usize, what: &str) -> Result<T> {
        let found = fields.get(at).copied().unwrap_or_default();
        match found.parse() {
            Ok(number) => Ok(number),
            Err(_) => self.error(row, format!("expected {what} as field {}, found '{found}'", at + 1)),
        }
    }

    fn counts(&mut self, row: &Row, fields: &[&str]) -> Result<()> {
        let counts =
            (self.number(row, fields, 0, "the number of atoms")?, self.number(row, fields, 1, "the number of bonds")?);
        self.counts = Some(counts);
        Ok(())
    }

    /// `number symbol x y z map [NAME=value …]`.
    fn atom(&mut self, row: &Row, fields: &[&str]) -> Result<()> {
        let number: u64 = self.number(row, fields, 0, "the number of the atom")?;
        let symbol = fields.get(1).copied().unwrap_or_default();
        let Some(found) = element(symbol) else {
            return self.error(row, format!("expected an element as field 2, found '{symbol}'"));
        };
        self.table.dropped.isotopes += usize::from(matches!(symbol, "D" | "T"));
        let mut place = [0.0; 3];
        for (axis, value) in place.iter_mut().enumerate() {
            *value = self.number(row, fields, 2 + axis, "a coordinate")?;
            if !f64::is_finite(*value) {
                return self.error(row, "expected a finite coordinate");
            }
        }
        let map: u32 = self.number(row, fields, 5, "an atom map, 0 for none")?;
        self.table.dropped.atom_maps += usize::from(map != 0);
        let (mut charge, mut valence) = (0, 0);
        for field in fields.iter().skip(6) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let whole = value.parse::<i32>();
            match (name, whole) {
                ("CHG", Ok(number)) if (-15..=15).contains(&number) => charge = number as i8,
                ("CHG", _) => return self.error(row, format!("expected a charge from -15 to +15, found '{value}'")),
                ("RAD", Ok(0)) => {}
                ("RAD", _) => return self.error(row, "radicals are not read"),
                ("MASS", _) => self.table.dropped.isotopes += 1,
                ("CFG", Ok(0 | 3)) => {}
                ("CFG", _) => self.table.dropped.stereo += 1,
                // Here minus one means zero.
                ("VAL", Ok(-1)) => valence = 15,
                ("VAL", Ok(number)) if (0..15).contains(&number) => valence = number as u8,
                ("HCOUNT" | "UNSAT" | "RBCNT" | "SUBST", Ok(0)) => {}
                ("HCOUNT" | "UNSAT" | "RBCNT" | "SUBST", _) => {
                    return self.error(row, format!("{name} makes a query, which is not read"));
                }
                _ => {}
            }
        }
        if self.numbers.insert(number, self.table.draft.atoms.len()).is_some() {
            return self.error(row, format!("a second atom has the number {number}"));
        }
        let atom = Atom { element: found, charge };
        self.table.draft.atoms.push(DraftAtom { atom, aromatic: false, hydrogens: Hydrogens::Unsaid, merged: 0 });
        self.table.places.push(place);
        self.table.valences.push(valence);
        self.table.rows.push(row.index);
        Ok(())
    }

    /// `number type atom atom [NAME=value …]`.
    fn bond(&mut self, row: &Row, fields: &[&str]) -> Result<()> {
        let kind: u8 = self.number(row, fields, 1, "a bond type")?;
        let mut ends = [0; 2];
        for (place, end) in ends.iter_mut().enumerate() {
            let number: u64 = self.number(row, fields, 2 + place, "the number of an atom")?;
            match self.numbers.get(&number) {
                Some(&atom) => *end = atom,
                None => return self.error(row, format!("there is no atom with the number {number}")),
            }
        }
        let [a, b] = ends;
        if a == b {
            return self.error(row, "a bond from an atom to itself");
        }
        if !self.pairs.insert((a.min(b), a.max(b))) {
            return self.error(row, "a second bond between the same atoms");
        }
        let bond = match kind {
            1 => DraftBond::Plain(Bond::Single),
            2 => DraftBond::Plain(Bond::Double),
            3 => DraftBond::Plain(Bond::Triple),
            4 => DraftBond::Aromatic,
            other => return self.error(row, other_bond(other)),
        };
        let atoms = &mut self.table.draft.atoms;
        if bond == DraftBond::Aromatic {
            (atoms[a].aromatic, atoms[b].aromatic) = (true, true);
        }
        // Two says that nothing is known.
        let marked = fields.iter().skip(4).any(|field| matches!(*field, "CFG=1" | "CFG=3"));
        self.table.dropped.stereo += usize::from(marked);
        self.table.draft.bonds.push((a, b, bond));
        Ok(())
    }
}
