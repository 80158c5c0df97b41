//! How many bonds an atom may have.
//!
//! A charged atom has the valences of the neutral element with as many electrons: `N+` those of carbon,
//! `O-` those of fluorine. That is RDKit's rule, so that what is valid here is valid there.

use super::{Atom, Element};

/// The valences that an atom fills up with hydrogens, by rising order; empty for an element whose
/// hydrogens are never implied (metals, noble gases).
///
/// | neutral | valences |
/// |---|---|
/// | H, F, Cl, Br, At | 1 |
/// | I | 1, 3, 5 |
/// | B | 3 |
/// | C, Si, Ge, Sn | 4 |
/// | N | 3 |
/// | P, As, Sb | 3, 5 |
/// | O | 2 |
/// | S, Se, Te | 2, 4, 6 |
pub fn normal_valences(atom: Atom) -> &'static [u8] {
    // The isoelectronic neutral element stays in the row of the atom for the charges that occur.
    let number = i16::from(atom.element.number()) - i16::from(atom.charge);
    let same_row = |low: i16, high: i16| (low..=high).contains(&i16::from(atom.element.number()));
    let row = [(1, 2), (3, 10), (11, 18), (19, 36), (37, 54), (55, 86)].into_iter().find(|&(l, h)| same_row(l, h));
    match row {
        Some((low, high)) if (low..=high).contains(&number) => neutral(number),
        _ => &[],
    }
}

fn neutral(number: i16) -> &'static [u8] {
    match number {
        1 | 9 | 17 | 35 | 85 => &[1],
        53 => &[1, 3, 5],
        5 | 13 => &[3],
        6 | 14 | 32 | 50 => &[4],
        7 => &[3],
        15 | 33 | 51 => &[3, 5],
        8 => &[2],
        16 | 34 | 52 => &[2, 4, 6],
        _ => &[],
    }
}

/// The largest sum of bond orders that an atom may have; 0 for elements without [`normal_valences`].
pub fn largest_valence(atom: Atom) -> u8 {
    normal_valences(atom).last().copied().unwrap_or(0)
}

/// Hydrogens that fill an atom with `used` bond orders up to its next valence; `None` when `used`
/// exceeds the largest one.
///
/// An element without normal valences takes no hydrogens and no bonds.
pub fn implied_hydrogens(atom: Atom, used: u8) -> Option<u8> {
    if normal_valences(atom).is_empty() {
        return (used == 0).then_some(0);
    }
    if atom.element == Element::HYDROGEN {
        return (used <= 1).then_some(1 - used.min(1));
    }
    normal_valences(atom).iter().find(|&&v| v >= used).map(|&v| v - used)
}
