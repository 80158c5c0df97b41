//! A [`Loaded`] as bytes and back.
//!
//! Every number is a LEB128 integer, so that the usual small ones take a byte. Reading trusts nothing: a
//! length is compared with the bytes that are left before memory is taken for it, an index with the number
//! of atoms, and anything amiss is `None`.

use super::loaded::{BadLine, Loaded};
use super::set::{MoleculeSet, PackedBond};
use super::texts::TextList;
use crate::molecule::{Atom, Bond, Element};
use crate::smiles::Dropped;

/// The bytes of everything but the source and where it came from.
pub(super) fn encode(loaded: &Loaded) -> Vec<u8> {
    let mut out = Writer::default();
    let Dropped { stereo, isotopes, atom_maps, hydrogens } = loaded.dropped;
    let counts = [loaded.len(), loaded.entry_count, loaded.bad_count, loaded.multi_component];
    counts.into_iter().chain([stereo, isotopes, atom_maps, hydrogens]).for_each(|n| out.number(n));
    [loaded.unreadable_components, loaded.extensions, loaded.latin1].into_iter().for_each(|n| out.number(n));
    out.text(loaded.column.as_deref().unwrap_or_default());
    out.rising(&loaded.lines);
    out.rising(&loaded.entries);
    out.molecules(&loaded.molecules);
    out.texts(&loaded.source_strings);
    out.texts(&loaded.names);
    out.number(loaded.bad.len());
    for bad in &loaded.bad {
        out.number(bad.line);
        out.number(bad.column);
        [&bad.reason, &bad.source, &bad.name].into_iter().for_each(|text| out.text(text));
    }
    out.bytes
}

/// What [`encode`] wrote, `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Loaded> {
    let mut from = Reader { bytes };
    let count = from.number()?;
    let mut numbers = [0; 10];
    for number in &mut numbers {
        *number = from.number()?;
    }
    let [
        entry_count,
        bad_count,
        multi_component,
        stereo,
        isotopes,
        atom_maps,
        hydrogens,
        unreadable,
        extensions,
        latin1,
    ] = numbers;
    let column = Some(from.text()?.to_string()).filter(|column| !column.is_empty());
    let loaded = Loaded {
        entry_count,
        bad_count,
        multi_component,
        unreadable_components: unreadable,
        extensions,
        latin1,
        column,
        dropped: Dropped { stereo, isotopes, atom_maps, hydrogens },
        lines: from.rising(count)?,
        entries: from.rising(count)?,
        molecules: from.molecules(count)?,
        source_strings: from.texts(count)?,
        names: from.texts(count)?,
        bad: from.bad_lines()?,
        ..Loaded::default()
    };
    from.bytes.is_empty().then_some(loaded)
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn number(&mut self, number: usize) {
        let mut rest = number as u64;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// Numbers of which none is below the one before.
    fn rising(&mut self, numbers: &[usize]) {
        let mut last = 0;
        for &number in numbers {
            self.number(number.wrapping_sub(last));
            last = number;
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn texts(&mut self, list: &TextList) {
        self.rising(&list.ends);
        self.text(&list.text);
    }

    fn molecules(&mut self, set: &MoleculeSet) {
        let (atoms, bonds): (Vec<_>, Vec<_>) = set.ends.iter().copied().unzip();
        self.rising(&atoms);
        self.rising(&bonds);
        for atom in &set.atoms {
            self.bytes.extend([atom.element.number(), atom.charge as u8]);
        }
        for bond in &set.bonds {
            self.number(usize::from(bond.a));
            self.number(usize::from(bond.b) << 2 | usize::from(bond.bond.order()));
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    #[inline]
    fn number(&mut self) -> Option<usize> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(number).ok();
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(taken)
    }

    /// A vector with room for `count` items of at least `least` bytes each, if so many bytes are left.
    fn room<T>(&self, count: usize, least: usize) -> Option<Vec<T>> {
        (count.checked_mul(least)? <= self.bytes.len()).then(|| Vec::with_capacity(count))
    }

    fn rising(&mut self, count: usize) -> Option<Vec<usize>> {
        let mut numbers = self.room(count, 1)?;
        let mut last = 0usize;
        for _ in 0..count {
            last = last.checked_add(self.number()?)?;
            numbers.push(last);
        }
        Some(numbers)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn texts(&mut self, count: usize) -> Option<TextList> {
        let ends = self.rising(count)?;
        let text = self.text()?;
        let whole =
            ends.last().copied().unwrap_or(0) == text.len() && ends.iter().all(|&end| text.is_char_boundary(end));
        whole.then(|| TextList { text: text.into(), ends })
    }

    fn molecules(&mut self, count: usize) -> Option<MoleculeSet> {
        let atom_ends = self.rising(count)?;
        let bond_ends = self.rising(count)?;
        let atoms = self.atoms(atom_ends.last().copied().unwrap_or(0))?;
        let mut bonds = self.room(bond_ends.last().copied().unwrap_or(0), 2)?;
        let mut start = 0;
        for (&atoms, &end) in atom_ends.iter().zip(&bond_ends) {
            let size = atoms - start;
            start = atoms;
            while bonds.len() < end {
                bonds.push(self.bond(size)?);
            }
        }
        Some(MoleculeSet { atoms, bonds, ends: atom_ends.into_iter().zip(bond_ends).collect() })
    }

    fn atoms(&mut self, count: usize) -> Option<Vec<Atom>> {
        let bytes = self.take(count.checked_mul(2)?)?;
        let mut atoms = Vec::with_capacity(count);
        for pair in bytes.chunks_exact(2) {
            atoms.push(Atom { element: Element::from_number(pair[0])?, charge: pair[1] as i8 });
        }
        Some(atoms)
    }

    /// A bond between two different atoms of a molecule of `size` atoms.
    fn bond(&mut self, size: usize) -> Option<PackedBond> {
        let a = self.number()?;
        let rest = self.number()?;
        let b = rest >> 2;
        let bond = *Bond::ALL.get((rest & 3).checked_sub(1)?)?;
        if a >= size || b >= size || a == b {
            return None;
        }
        Some(PackedBond { a: u16::try_from(a).ok()?, b: u16::try_from(b).ok()?, bond })
    }

    fn bad_lines(&mut self) -> Option<Vec<BadLine>> {
        let count = self.number()?;
        let mut lines = self.room(count, 5)?;
        for _ in 0..count {
            let (line, column) = (self.number()?, self.number()?);
            let mut text = || self.text().map(String::from);
            lines.push(BadLine { line, column, reason: text()?, source: text()?, name: text()? });
        }
        Some(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::builtin;

    #[test]
    fn numbers_of_every_size_come_back() {
        let numbers = [0, 1, 127, 128, 300, u32::MAX as usize, usize::MAX];
        let mut out = Writer::default();
        numbers.iter().for_each(|&n| out.number(n));
        let mut from = Reader { bytes: &out.bytes };
        assert_eq!(numbers.map(|_| from.number().unwrap()), numbers);
        assert_eq!(from.number(), None);
        assert_eq!(Reader { bytes: &[0xff; 11] }.number(), None);
    }

    #[test]
    fn no_damage_panics_or_takes_memory() {
        let loaded = builtin::builtin().unwrap();
        let bytes = encode(&loaded);
        let back = Loaded { source: loaded.source.clone(), ..decode(&bytes).unwrap() };
        assert_eq!(back, loaded);
        for length in (0..bytes.len()).step_by(97) {
            assert!(decode(&bytes[..length]).is_none(), "{length}");
        }
        let mut rng = flow_core::FlowRng::seed_from(3);
        for _ in 0..3_000 {
            let mut damaged = bytes.clone();
            damaged[rng.below(bytes.len())] = rng.below(256) as u8;
            if let Some(loaded) = decode(&damaged) {
                loaded.molecules.iter().for_each(drop);
            }
        }
    }
}
