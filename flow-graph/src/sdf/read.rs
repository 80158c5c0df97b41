//! One record: a MOL block and its data fields.

use std::collections::HashSet;
use std::path::Path;
use std::str::FromStr;

use crate::molecule::draft::{Draft, DraftAtom, DraftBond, Dropped, Hydrogens, Keep};
use crate::molecule::{Atom, Bond, Element, Molecule};
use crate::{Error, Result};

use super::v3000;

/// A molecule of an SD file.
#[derive(Debug, Clone)]
pub struct Record {
    /// The first line of the block.
    pub name: String,
    /// The molecule; its atoms stand in the order of the block.
    pub molecule: Molecule,
    /// The coordinates of its atoms in Å.
    pub coordinates: Vec<[f64; 3]>,
    /// The data fields in their order; lines of a value are joined by line feeds.
    pub properties: Vec<(String, String)>,
    /// The line on which the record starts, counted from one.
    pub line: usize,
    /// What was passed over.
    pub dropped: Dropped,
    /// Pieces of the record, of which a salt has several.
    pub pieces: usize,
    /// How many of the pieces that were set aside are no molecules of their own.
    pub unreadable: usize,
}

/// Reads one MOL block, with or without data fields after it; a `$$$$` ends it.
///
/// # Errors
/// [`Error::Line`] with the place of what is wrong; radicals, query bonds and bonds of order zero are refused by name.
pub fn parse_molblock(text: &str) -> Result<Record> {
    parse_text(text, Keep::All)
}

/// Like [`parse_molblock`], of several pieces those to be kept.
pub(crate) fn parse_text(text: &str, keep: Keep) -> Result<Record> {
    let lines: Vec<String> = text.lines().take_while(|line| !line.starts_with("$$$$")).map(String::from).collect();
    parse_lines(&lines, 1, Path::new("MOL block"), keep)
}

/// Reads a record whose first line has the number `first` in the file.
pub(super) fn parse_lines(lines: &[String], first: usize, path: &Path, keep: Keep) -> Result<Record> {
    Block { lines, first, path }.record(keep)
}

/// Lines before the atoms: name, program, comment, counts.
const HEADER: usize = 4;

pub(super) struct Block<'a> {
    pub(super) lines: &'a [String],
    first: usize,
    path: &'a Path,
}

/// What the table of atoms and bonds of either version comes to.
pub(super) struct Table {
    pub(super) draft: Draft,
    /// Coordinates by atom.
    pub(super) places: Vec<[f64; 3]>,
    /// Stated valences by atom: zero for none, fifteen for no bonds.
    pub(super) valences: Vec<u8>,
    /// The line of each atom.
    pub(super) rows: Vec<usize>,
    pub(super) dropped: Dropped,
    /// The line after the table.
    pub(super) end: usize,
}

/// What the properties after the bonds say, and where they end.
#[derive(Default)]
struct Properties {
    /// Charges by atom, once a line states any; they replace those of the atom lines.
    charges: Option<Vec<(usize, i8)>>,
    isotopes: usize,
    end: usize,
}

impl Block<'_> {
    /// An error at an index of a line and an offset in it.
    pub(super) fn error<T>(&self, index: usize, at: usize, reason: impl Into<String>) -> Result<T> {
        // A line that is too short or missing is complained about where it ends.
        let last = self.lines.len().saturating_sub(1);
        let length = self.lines.get(index.min(last)).map_or(0, |line| line.chars().count());
        let column = if index > last { length } else { (at + 1).min(length) }.max(1);
        let line = self.first + index.min(last);
        Err(Error::Line { path: self.path.to_path_buf(), line, column, reason: reason.into() })
    }

    /// A line of fixed columns, which is ASCII.
    pub(super) fn line(&self, index: usize, what: &str) -> Result<&str> {
        let Some(line) = self.lines.get(index) else {
            return self.error(index, 0, format!("expected {what}, the record ends here"));
        };
        match line.chars().position(|c| !c.is_ascii()) {
            Some(at) => self.error(index, at, format!("expected {what}, found a character outside ASCII")),
            None => Ok(line),
        }
    }

    /// The number in some columns of a line; blanks are zero.
    fn number<T: FromStr + Default>(&self, index: usize, at: usize, width: usize, what: &str) -> Result<T> {
        let text = columns(self.line(index, what)?, at, width).trim();
        if text.is_empty() {
            return Ok(T::default());
        }
        match text.parse() {
            Ok(number) => Ok(number),
            Err(_) => {
                let last = at + width;
                self.error(index, at, format!("expected {what} in columns {} to {last}, found '{text}'", at + 1))
            }
        }
    }

    fn record(&self, keep: Keep) -> Result<Record> {
        let table = if self.is_v3000()? { v3000::read(self)? } else { self.v2000()? };
        let Table { draft, places, valences, rows, mut dropped, end } = table;
        let finished = match draft.finish(keep) {
            Ok(finished) => finished,
            Err(fault) => return self.error(rows[fault.atom], 31, fault.reason),
        };
        self.check_valences(&finished.molecule, &finished.kept, &valences, &rows)?;
        dropped.hydrogens = finished.hydrogens;
        Ok(Record {
            name: self.lines.first().map(|name| name.trim().to_string()).unwrap_or_default(),
            coordinates: finished.kept.iter().map(|&i| places[i]).collect(),
            molecule: finished.molecule,
            properties: self.data(end)?,
            line: self.first,
            dropped,
            pieces: finished.pieces.count,
            unreadable: finished.pieces.unreadable,
        })
    }

    fn is_v3000(&self) -> Result<bool> {
        Ok(columns(self.line(HEADER - 1, "the counts line")?, 33, 6).trim() == "V3000")
    }

    fn v2000(&self) -> Result<Table> {
        let (atoms, bonds) = self.counts()?;
        let mut dropped = Dropped::default();
        let mut draft = Draft::default();
        let mut places = Vec::with_capacity(atoms);
        let mut valences = Vec::with_capacity(atoms);
        for index in HEADER..HEADER + atoms {
            let (atom, place) = self.atom(index, &mut dropped)?;
            draft.atoms.push(atom);
            places.push(place);
            valences.push(self.number::<u8>(index, 48, 3, "a valence")?);
        }
        self.bonds(HEADER + atoms, bonds, &mut draft, &mut dropped)?;
        let properties = self.properties(HEADER + atoms + bonds, atoms)?;
        dropped.isotopes += properties.isotopes;
        if let Some(charges) = &properties.charges {
            draft.atoms.iter_mut().for_each(|a| a.atom.charge = 0);
            charges.iter().for_each(|&(atom, charge)| draft.atoms[atom].atom.charge = charge);
        }
        let rows = (HEADER..HEADER + atoms).collect();
        Ok(Table { draft, places, valences, rows, dropped, end: properties.end })
    }

    /// Atoms and bonds of the counts line.
    fn counts(&self) -> Result<(usize, usize)> {
        let index = HEADER - 1;
        let line = self.line(index, "the counts line")?;
        match columns(line, 33, 6).trim() {
            // Writers before 1990 gave no version.
            "V2000" | "" => {}
            other => {
                return self.error(index, 33, format!("expected V2000 or V3000 in columns 34 to 39, found '{other}'"));
            }
        }
        if columns(line, 0, 3).trim().is_empty() {
            return self.error(index, 0, "expected the number of atoms in columns 1 to 3");
        }
        let atoms = self.number(index, 0, 3, "the number of atoms")?;
        let bonds = self.number(index, 3, 3, "the number of bonds")?;
        if atoms == 0 {
            return self.error(index, 0, "expected at least one atom");
        }
        Ok((atoms, bonds))
    }

    fn atom(&self, index: usize, dropped: &mut Dropped) -> Result<(DraftAtom, [f64; 3])> {
        let mut place = [0.0; 3];
        for (axis, value) in place.iter_mut().enumerate() {
            *value = self.number(index, 10 * axis, 10, "a coordinate")?;
            if !f64::is_finite(*value) {
                return self.error(index, 10 * axis, "expected a finite coordinate");
            }
        }
        let symbol = columns(self.line(index, "an atom")?, 31, 3).trim();
        let Some(element) = element(symbol) else {
            return self.error(index, 31, format!("expected an element in columns 32 to 34, found '{symbol}'"));
        };
        let mass = self.number::<i32>(index, 34, 2, "a mass difference")?;
        dropped.isotopes += usize::from(mass != 0 || matches!(symbol, "D" | "T"));
        dropped.stereo += usize::from(self.number::<u8>(index, 39, 3, "a stereo parity")? != 0);
        let charge = match self.number::<u8>(index, 36, 3, "a charge code")? {
            0 => 0,
            4 => return self.error(index, 36, "radicals are not read"),
            code @ 1..=7 => 4 - code as i8,
            code => return self.error(index, 36, format!("expected a charge code from 0 to 7, found {code}")),
        };
        let atom = Atom { element, charge };
        Ok((DraftAtom { atom, aromatic: false, hydrogens: Hydrogens::Unsaid, merged: 0 }, place))
    }

    fn bonds(&self, start: usize, count: usize, draft: &mut Draft, dropped: &mut Dropped) -> Result<()> {
        let mut pairs = HashSet::new();
        for index in start..start + count {
            let mut ends = [0, 0];
            for (end, at) in ends.iter_mut().zip([0, 3]) {
                *end = self.atom_number(index, at, 3, draft.atoms.len())?;
            }
            let [a, b] = ends;
            if a == b {
                return self.error(index, 3, "a bond from an atom to itself");
            }
            if !pairs.insert((a.min(b), a.max(b))) {
                return self.error(index, 0, "a second bond between the same atoms");
            }
            let bond = match self.number::<u8>(index, 6, 3, "a bond type")? {
                1 => DraftBond::Plain(Bond::Single),
                2 => DraftBond::Plain(Bond::Double),
                3 => DraftBond::Plain(Bond::Triple),
                4 => DraftBond::Aromatic,
                other => {
                    return self.error(index, 6, other_bond(other));
                }
            };
            if bond == DraftBond::Aromatic {
                (draft.atoms[a].aromatic, draft.atoms[b].aromatic) = (true, true);
            }
            // Three on a double bond and four on a single one say that nothing is known.
            let stereo = self.number::<u8>(index, 9, 3, "a bond stereo")?;
            dropped.stereo += usize::from(matches!(stereo, 1 | 6));
            draft.bonds.push((a, b, bond));
        }
        Ok(())
    }

    /// The index of an atom by its number in the block.
    fn atom_number(&self, index: usize, at: usize, width: usize, atoms: usize) -> Result<usize> {
        let number: usize = self.number(index, at, width, "the number of an atom")?;
        match number.checked_sub(1).filter(|&atom| atom < atoms) {
            Some(atom) => Ok(atom),
            None => self.error(index, at, format!("expected an atom from 1 to {atoms}, found {number}")),
        }
    }

    /// The lines from the bonds to `M  END`.
    fn properties(&self, start: usize, atoms: usize) -> Result<Properties> {
        let mut properties = Properties { end: self.lines.len(), ..Properties::default() };
        let mut index = start;
        while let Some(line) = self.lines.get(index) {
            match columns(line, 0, 6) {
                "M  END" => {
                    properties.end = index + 1;
                    return Ok(properties);
                }
                "M  CHG" => {
                    let entries = self.entries(index, atoms, "a charge")?;
                    let charges = properties.charges.get_or_insert_default();
                    for (entry, (atom, charge)) in entries.into_iter().enumerate() {
                        match i8::try_from(charge) {
                            Ok(charge) if charge.abs() <= 15 => charges.push((atom, charge)),
                            _ => return self.error(index, 13 + 8 * entry, "expected a charge from -15 to +15"),
                        }
                    }
                }
                "M  RAD" if self.entries(index, atoms, "a radical")?.iter().any(|entry| entry.1 != 0) => {
                    return self.error(index, 0, "radicals are not read");
                }
                "M  RAD" => {}
                "M  ZBO" | "M  ZCH" | "M  HYD" => {
                    return self.error(index, 0, "bonds of order zero are not read");
                }
                "M  ISO" => properties.isotopes += self.entries(index, atoms, "a mass")?.len(),
                // The text of these two stands on a line of its own.
                kind if kind.starts_with("A  ") || kind.starts_with("G  ") => index += 1,
                kind if kind.starts_with("> ") => break,
                _ => {}
            }
            index += 1;
        }
        // Many files of single molecules stop after the bonds.
        properties.end = index.min(self.lines.len());
        Ok(properties)
    }

    /// The pairs of atom and value on a line `M  CHG`, `M  RAD` or `M  ISO`.
    fn entries(&self, index: usize, atoms: usize, what: &str) -> Result<Vec<(usize, i32)>> {
        let count: usize = self.number(index, 6, 3, "the number of entries")?;
        if count > 8 {
            return self.error(index, 6, format!("expected at most 8 entries, found {count}"));
        }
        let entry = |i: usize| -> Result<(usize, i32)> {
            let atom = self.atom_number(index, 9 + 8 * i, 4, atoms)?;
            Ok((atom, self.number(index, 13 + 8 * i, 4, what)?))
        };
        (0..count).map(entry).collect()
    }

    /// Holds the molecule against the valences that the atom lines state.
    fn check_valences(&self, molecule: &Molecule, kept: &[usize], valences: &[u8], rows: &[usize]) -> Result<()> {
        for (atom, &line) in kept.iter().enumerate() {
            // Zero means nothing is stated, fifteen means zero.
            let stated = match valences[line] {
                0 => continue,
                15 => 0,
                valence => valence,
            };
            let found = molecule.bond_order_sum(atom).saturating_add(molecule.hydrogens(atom).unwrap_or(0));
            if stated != found {
                let reason =
                    format!("a valence of {stated} is stated where the bonds imply {found}; radicals are not read");
                return self.error(rows[line], 48, reason);
            }
        }
        Ok(())
    }

    /// The data fields: `> <name>`, lines, a blank line.
    fn data(&self, start: usize) -> Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        let mut index = start;
        while let Some(line) = self.lines.get(index) {
            index += 1;
            if line.trim().is_empty() {
                continue;
            }
            let name = line.strip_prefix('>').and_then(|rest| Some(rest.split_once('<')?.1.rsplit_once('>')?.0));
            let Some(name) = name else {
                return self.error(index - 1, 0, "expected a data field, as in > <name>");
            };
            let value: Vec<&str> =
                self.lines[index..].iter().map(String::as_str).take_while(|line| !line.trim().is_empty()).collect();
            index += value.len();
            fields.push((name.to_string(), value.join("\n")));
        }
        Ok(fields)
    }
}

/// The element of a symbol, in capitals where a program writes so; `D` and `T` are hydrogens.
pub(super) fn element(symbol: &str) -> Option<Element> {
    match symbol {
        "D" | "T" => Some(Element::HYDROGEN),
        _ => Element::from_symbol(symbol).or_else(|| Element::from_any_case(symbol)),
    }
}

/// Why a bond type is not read.
pub(super) fn other_bond(kind: u8) -> String {
    let kinds = "1, 2, 3 or 4 (5 to 8 are queries, 9 and 10 bonds to metals and of hydrogen)";
    match kind {
        0 => "bonds of order zero are not read, expected a bond type 1, 2, 3 or 4".to_string(),
        _ => format!("expected a bond type {kinds}, found {kind}"),
    }
}

/// Some columns of a line, fewer where it is shorter; empty beyond its end.
fn columns(line: &str, at: usize, width: usize) -> &str {
    let end = line.len().min(at + width);
    line.get(at.min(end)..end).unwrap_or_default()
}
