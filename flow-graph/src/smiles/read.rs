//! The parser.
//!
//! One pass over the characters with its own stack of branches: a million parentheses are no deeper for it
//! than one. Follows the OpenSMILES specification; more lenient in one point: a ring number may follow a
//! branch.

use std::collections::{BTreeMap, HashSet};

use crate::molecule::draft::{Draft, DraftAtom, DraftBond, Dropped, Hydrogens, Keep};
use crate::molecule::{Atom, Bond, Element, Molecule};
use crate::{Error, Result};

use super::bracket;

/// A molecule and what its SMILES said beyond it.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The molecule; its atoms stand in the order of the string.
    pub molecule: Molecule,
    /// What was passed over.
    pub dropped: Dropped,
    /// Pieces of the string, of which a salt has several.
    pub pieces: usize,
    /// How many of the pieces that [`read_largest`] set aside are no molecules of their own.
    pub unreadable: usize,
}

/// The molecule of a SMILES.
///
/// The hydrogens of a [`Molecule`] follow from its bonds. A bracket atom that states another number (`[CH2]`,
/// `[N]`, `[SH6]`) is refused, and so is a bonded atom of an element without normal valences (metals);
/// `[Na+]` and `[Cl-]` on their own are read. Nitrogen of valence five, `N(=O)=O` and `N=N#N`, becomes
/// `[N+](=O)[O-]` and `N=[N+]=[N-]`; chlorine, bromine and iodine of valence three, five and seven among oxygens alone get
/// charges too, `OCl(=O)(=O)=O` becomes `O[Cl+3]([O-])([O-])[O-]`, as RDKit has it.
///
/// # Errors
/// [`Error::Smiles`] with the column of what is wrong: the syntax, a ring or branch left open, a valence
/// exceeded, hydrogens that do not follow from the bonds, or an aromatic system without a Kekulé form.
pub fn parse(smiles: &str) -> Result<Molecule> {
    read(smiles).map(|reading| reading.molecule)
}

/// Like [`parse`], with a count of what was dropped.
///
/// # Errors
/// Those of [`parse`].
pub fn read(smiles: &str) -> Result<Reading> {
    read_pieces(smiles, Keep::All)
}

/// Like [`read`], but of a string of several pieces only the one with most heavy atoms as written, the first of several:
/// the drug of a salt. The other pieces have to be well-formed, not to be molecules: `CCN.[Na]OC` is ethylamine.
///
/// # Errors
/// Those of [`parse`].
pub fn read_largest(smiles: &str) -> Result<Reading> {
    read_pieces(smiles, Keep::Largest)
}

fn read_pieces(smiles: &str, keep: Keep) -> Result<Reading> {
    let fail = |(at, reason): Refusal| Error::Smiles { smiles: smiles.to_string(), column: at + 1, reason };
    let mut reader = Reader::new(smiles);
    reader.run().map_err(fail)?;
    let Reader { draft, columns, mut dropped, .. } = reader;
    let finished = draft.finish(keep).map_err(|fault| fail((columns[fault.atom], fault.reason)))?;
    dropped.hydrogens = finished.hydrogens;
    let pieces = finished.pieces;
    Ok(Reading { molecule: finished.molecule, dropped, pieces: pieces.count, unreadable: pieces.unreadable })
}

/// An offset from zero and what is wrong there. Offsets in bytes are offsets in characters: the first
/// character outside ASCII is refused.
type Refusal = (usize, String);

type Checked<T> = std::result::Result<T, Refusal>;

fn refuse<T>(at: usize, reason: impl Into<String>) -> Checked<T> {
    Err((at, reason.into()))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    draft: Draft,
    /// Offset of every atom.
    columns: Vec<usize>,
    /// For every atom the one its bond was written from.
    parents: Vec<Option<usize>>,
    /// The atom that the next one is bonded to.
    previous: Option<usize>,
    /// A bond symbol that waits for its second atom.
    bond: Option<Symbol>,
    /// A `(` or `.` that waits for an atom.
    waiting: Option<usize>,
    /// For every open branch the atom it hangs on and where it opened.
    branches: Vec<(usize, usize)>,
    rings: BTreeMap<u32, OpenRing>,
    ring_pairs: HashSet<(usize, usize)>,
    dropped: Dropped,
}

#[derive(Clone, Copy)]
struct Symbol {
    bond: DraftBond,
    at: usize,
}

struct OpenRing {
    atom: usize,
    bond: Option<Symbol>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader {
            text,
            at: 0,
            draft: Draft::default(),
            columns: Vec::new(),
            parents: Vec::new(),
            previous: None,
            bond: None,
            waiting: None,
            branches: Vec::new(),
            rings: BTreeMap::new(),
            ring_pairs: HashSet::new(),
            dropped: Dropped::default(),
        }
    }

    fn run(&mut self) -> Checked<()> {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'[' => self.bracket_atom()?,
                b'A'..=b'Z' | b'a'..=b'z' | b'*' => self.bare_atom()?,
                b'-' | b'=' | b'#' | b':' | b'/' | b'\\' | b'$' => self.bond_symbol(byte)?,
                b'0'..=b'9' | b'%' => self.ring_number()?,
                b'(' => self.open_branch()?,
                b')' => self.close_branch()?,
                b'.' => self.dot()?,
                b'~' => return refuse(self.at, "'~' stands for any bond, or one of order zero, and is not read"),
                _ => return refuse(self.at, self.unknown()),
            }
        }
        self.end()
    }

    fn unknown(&self) -> String {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
        format!("expected an atom, a bond, a ring number or a branch, found {found:?}")
    }

    /// An atom outside brackets.
    fn bare_atom(&mut self) -> Checked<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let (element, aromatic, length) = match rest {
            [b'C', b'l', ..] => (Element::CHLORINE, false, 2),
            [b'B', b'r', ..] => (Element::BROMINE, false, 2),
            [b'B' | b'b', ..] => (Element::BORON, rest[0] == b'b', 1),
            [b'C' | b'c', ..] => (Element::CARBON, rest[0] == b'c', 1),
            [b'N' | b'n', ..] => (Element::NITROGEN, rest[0] == b'n', 1),
            [b'O' | b'o', ..] => (Element::OXYGEN, rest[0] == b'o', 1),
            [b'P' | b'p', ..] => (Element::PHOSPHORUS, rest[0] == b'p', 1),
            [b'S' | b's', ..] => (Element::SULFUR, rest[0] == b's', 1),
            [b'F', ..] => (Element::FLUORINE, false, 1),
            [b'I', ..] => (Element::IODINE, false, 1),
            [b'*', ..] => return refuse(self.at, "expected an element, '*' stands for any and is not read"),
            _ => {
                let bare = "B C N O P S F Cl Br I or aromatic b c n o p s";
                return refuse(self.at, format!("expected {bare}; other elements stand in brackets, as in [Si]"));
            }
        };
        self.add(DraftAtom { atom: Atom::neutral(element), aromatic, hydrogens: Hydrogens::Filled, merged: 0 })?;
        self.at += length;
        Ok(())
    }

    fn bracket_atom(&mut self) -> Checked<()> {
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let Some(length) = rest.iter().position(|&b| matches!(b, b']' | b'[') || !b.is_ascii()) else {
            return refuse(self.at, "this bracket is never closed, expected ']'");
        };
        if rest[length] != b']' {
            return refuse(start + length, "expected ']' before this");
        }
        let atom = bracket::read(&rest[..length], &mut self.dropped).map_err(|(at, why)| (start + at, why))?;
        self.add(atom)?;
        self.at = start + length + 1;
        Ok(())
    }

    /// Appends an atom, bonded to the one before it.
    fn add(&mut self, atom: DraftAtom) -> Checked<()> {
        let index = self.draft.atoms.len();
        self.draft.atoms.push(atom);
        self.columns.push(self.at);
        self.parents.push(self.previous);
        if let Some(previous) = self.previous {
            let symbol = self.bond.take();
            let bond = self.bond_of(previous, index, symbol)?;
            self.draft.bonds.push((previous, index, bond));
        }
        self.previous = Some(index);
        self.waiting = None;
        Ok(())
    }

    /// The bond that a symbol, or none, means between two atoms.
    fn bond_of(&self, a: usize, b: usize, symbol: Option<Symbol>) -> Checked<DraftBond> {
        let aromatic = self.draft.atoms[a].aromatic && self.draft.atoms[b].aromatic;
        match symbol {
            Some(Symbol { bond: DraftBond::Aromatic, at }) if !aromatic => {
                refuse(at, "an aromatic bond joins aromatic atoms, which are written in lower case")
            }
            Some(Symbol { bond, .. }) => Ok(bond),
            None if aromatic => Ok(DraftBond::Unwritten),
            None => Ok(DraftBond::Plain(Bond::Single)),
        }
    }

    fn bond_symbol(&mut self, byte: u8) -> Checked<()> {
        if self.previous.is_none() || self.waiting.is_some_and(|at| self.text.as_bytes()[at] == b'.') {
            return refuse(self.at, "expected an atom, a bond follows the atom it starts from");
        }
        if self.bond.is_some() {
            return refuse(self.at, "expected an atom or a ring number after the bond symbol");
        }
        let bond = match byte {
            b'=' => DraftBond::Plain(Bond::Double),
            b'#' => DraftBond::Plain(Bond::Triple),
            b':' => DraftBond::Aromatic,
            b'$' => return refuse(self.at, "quadruple bonds are not read, expected - = # : / or \\"),
            _ => DraftBond::Plain(Bond::Single),
        };
        if byte == b'-' && self.text.as_bytes().get(self.at + 1) == Some(&b'>') {
            return refuse(self.at, "dative bonds are not read, expected - = # : / or \\");
        }
        self.dropped.stereo += usize::from(matches!(byte, b'/' | b'\\'));
        self.bond = Some(Symbol { bond, at: self.at });
        self.at += 1;
        Ok(())
    }

    fn open_branch(&mut self) -> Checked<()> {
        if let Some(symbol) = self.bond {
            return refuse(symbol.at, "expected an atom after the bond symbol, it belongs inside the branch");
        }
        match self.previous {
            Some(previous) if self.waiting.is_none() => {
                self.branches.push((previous, self.at));
                self.waiting = Some(self.at);
                self.at += 1;
                Ok(())
            }
            _ => refuse(self.at, "expected an atom, a branch follows the atom it hangs on"),
        }
    }

    fn close_branch(&mut self) -> Checked<()> {
        self.nothing_pending()?;
        let Some((atom, _)) = self.branches.pop() else {
            return refuse(self.at, "no branch is open here, expected '(' before");
        };
        self.previous = Some(atom);
        self.at += 1;
        Ok(())
    }

    fn dot(&mut self) -> Checked<()> {
        if let Some(symbol) = self.bond {
            return refuse(symbol.at, "expected an atom after the bond symbol");
        }
        if self.previous.is_none() {
            return refuse(self.at, "expected an atom before the dot");
        }
        self.previous = None;
        self.waiting = Some(self.at);
        self.at += 1;
        Ok(())
    }

    /// No symbol may wait for an atom where a branch or the string ends.
    fn nothing_pending(&self) -> Checked<()> {
        match (self.bond, self.waiting) {
            (Some(symbol), _) => refuse(symbol.at, "expected an atom after the bond symbol"),
            (None, Some(at)) => refuse(at, "expected an atom after this"),
            (None, None) => Ok(()),
        }
    }

    fn ring_number(&mut self) -> Checked<()> {
        let start = self.at;
        let (Some(atom), None) = (self.previous, self.waiting) else {
            return refuse(start, "expected an atom, a ring number follows the atom it belongs to");
        };
        let number = self.number()?;
        let symbol = self.bond.take();
        match self.rings.remove(&number) {
            None => {
                self.rings.insert(number, OpenRing { atom, bond: symbol, at: start });
                Ok(())
            }
            Some(open) => self.close_ring(&open, atom, symbol, start),
        }
    }

    /// `7`, `%42` or `%(12345)`.
    fn number(&mut self) -> Checked<u32> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let (digits, length) = match rest {
            [b'%', b'(', inside @ ..] => {
                let count = inside.iter().take_while(|b| b.is_ascii_digit()).count();
                if !(1..=5).contains(&count) || inside.get(count) != Some(&b')') {
                    return refuse(start, "expected one to five digits and ')' after '%('");
                }
                (&inside[..count], count + 3)
            }
            [b'%', tens, ones, ..] if tens.is_ascii_digit() && ones.is_ascii_digit() => (&rest[1..3], 3),
            [b'%', ..] => return refuse(start, "expected two digits after '%'"),
            _ => (&rest[..1], 1),
        };
        self.at += length;
        Ok(digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
    }

    fn close_ring(&mut self, open: &OpenRing, atom: usize, symbol: Option<Symbol>, at: usize) -> Checked<()> {
        let other = open.atom;
        if other == atom {
            return refuse(at, "a ring bond from an atom to itself, expected another atom between");
        }
        let pair = (other.min(atom), other.max(atom));
        let chained = self.parents[pair.1] == Some(pair.0);
        if chained || !self.ring_pairs.insert(pair) {
            return refuse(at, format!("a second bond to the atom in column {}", self.columns[other] + 1));
        }
        if let (Some(first), Some(second)) = (open.bond, symbol)
            && first.bond != second.bond
        {
            let column = open.at + 1;
            return refuse(second.at, format!("another bond than where the ring was opened in column {column}"));
        }
        let bond = self.bond_of(other, atom, symbol.or(open.bond))?;
        self.draft.bonds.push((other, atom, bond));
        Ok(())
    }

    fn end(&self) -> Checked<()> {
        self.nothing_pending()?;
        if let Some(&(_, at)) = self.branches.last() {
            return refuse(at, "this branch is never closed, expected ')'");
        }
        if let Some((number, open)) = self.rings.iter().min_by_key(|(_, open)| open.at) {
            return refuse(open.at, format!("ring {number} is never closed, expected its number again"));
        }
        if self.draft.atoms.is_empty() {
            return refuse(0, "expected an atom, the string is empty");
        }
        Ok(())
    }
}
