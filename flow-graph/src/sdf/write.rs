//! One record, written.

use std::fmt::Write;

use crate::molecule::{Bond, Element, Molecule, smallest_rings};
use crate::smiles::classes;
use crate::{Error, Result};

/// What V2000 has columns for.
const MOST: usize = 999;

/// The stereo of a double bond that may be cis or trans. Without it a reader takes the drawing at its word.
const EITHER: u8 = 3;

/// For every bond whether it is a double bond that could be cis or trans, of which a [`Molecule`] says nothing.
///
/// As RDKit decides: not in a ring of fewer than eight atoms, not in an allene, and with one or two other bonds on each end
/// that lead to different things.
fn open_double_bonds(molecule: &Molecule) -> Vec<bool> {
    if !molecule.bonds().any(|(_, _, bond)| bond == Bond::Double) {
        return vec![false; molecule.bond_count()];
    }
    let (classes, rings) = (classes(molecule), smallest_rings(molecule));
    let end_is_open = |end: usize, other: usize| {
        let element = molecule.atom(end).map(|atom| atom.element);
        let beside: Vec<_> = molecule.neighbours(end).into_iter().filter(|&(atom, _)| atom != other).collect();
        let alike = || match beside.as_slice() {
            [(a, _), (b, _)] => classes[*a] == classes[*b],
            _ => false,
        };
        // Allenes are straight; heavier atoms beside two double bonds are not.
        let straight = || {
            matches!(element, Some(Element::CARBON | Element::NITROGEN))
                && beside.iter().any(|&(_, bond)| bond != Bond::Single)
        };
        (1..=2).contains(&beside.len()) && !straight() && !alike()
    };
    let is_open = |((a, b, bond), ring): ((usize, usize, Bond), Option<usize>)| {
        bond == Bond::Double && ring.is_none_or(|size| size >= 8) && end_is_open(a, b) && end_is_open(b, a)
    };
    molecule.bonds().zip(rings).map(is_open).collect()
}

/// An SD record in V2000: the MOL block, the data fields, and `$$$$`.
///
/// Coordinates are in Å, one pair for each atom; without them all atoms lie in the origin. They are for drawing: no wedges
/// are written, and double bonds that could be cis or trans are marked as either, so that a reader infers no stereo.
///
/// # Errors
/// More than 999 atoms or bonds, no atoms, coordinates that are not one finite pair for each atom or do not fit
/// their columns, and text that would end its field early: line feeds in names, blank lines in values.
pub fn write_record(
    molecule: &Molecule,
    name: &str,
    coordinates: Option<&[(f64, f64)]>,
    properties: &[(String, String)],
) -> Result<String> {
    check(molecule, name, coordinates, properties)?;
    let mut text = format!("{name}\n  flowgrph          2D\n\n");
    let (atoms, bonds) = (molecule.len(), molecule.bond_count());
    text += &format!("{atoms:3}{bonds:3}  0  0  0  0  0  0  0  0999 V2000\n");
    for (index, atom) in molecule.atoms().enumerate() {
        let (x, y) = coordinates.and_then(|c| c.get(index)).copied().unwrap_or_default();
        let symbol = atom.element.symbol();
        text += &format!("{x:10.4}{y:10.4}{:10.4} {symbol:<3} 0{}\n", 0.0, "  0".repeat(11));
    }
    for ((a, b, bond), open) in molecule.bonds().zip(open_double_bonds(molecule)) {
        text += &format!("{:3}{:3}{:3}{:3}\n", a + 1, b + 1, bond.order(), if open { EITHER } else { 0 });
    }
    let charged: Vec<_> = molecule.atoms().enumerate().filter(|(_, atom)| atom.charge != 0).collect();
    for line in charged.chunks(8) {
        text += &format!("M  CHG{:3}", line.len());
        for (index, atom) in line {
            text += &format!("{:4}{:4}", index + 1, atom.charge);
        }
        text.push('\n');
    }
    text += "M  END\n";
    for (name, value) in properties {
        // Writing into a string does not fail.
        let _ = write!(text, "> <{name}>\n{value}\n\n");
    }
    text += "$$$$\n";
    Ok(text)
}

fn check(
    molecule: &Molecule,
    name: &str,
    coordinates: Option<&[(f64, f64)]>,
    properties: &[(String, String)],
) -> Result<()> {
    let (atoms, bonds) = (molecule.len(), molecule.bond_count());
    if atoms == 0 || atoms.max(bonds) > MOST {
        let reason = format!("an SD record in V2000 holds 1 to {MOST} atoms and bonds, not {atoms} and {bonds}");
        return Err(Error::Chemistry(reason));
    }
    if let Some(coordinates) = coordinates {
        if coordinates.len() != atoms {
            let reason = format!("expected one pair for each of {atoms} atoms, found {}", coordinates.len());
            return Err(Error::config("coordinates", reason));
        }
        let fits = |c: f64| (-9999.0..=99999.0).contains(&c);
        if let Some((x, y)) = coordinates.iter().find(|&&(x, y)| !fits(x) || !fits(y)) {
            return Err(Error::config(
                "coordinates",
                format!("expected numbers of at most four digits, found ({x}, {y})"),
            ));
        }
    }
    let breaks = |text: &str| text.contains(['\n', '\r']);
    if breaks(name) || name.starts_with("$$$$") {
        return Err(Error::config("the name of a record", format!("expected one line, found {name:?}")));
    }
    for (field, value) in properties {
        if breaks(field) || field.contains(['<', '>']) {
            return Err(Error::config(
                "the name of a data field",
                format!("expected one line without < >, found {field:?}"),
            ));
        }
        let ends = |line: &str| line.trim().is_empty() || line.starts_with("$$$$");
        if value.contains('\r') || value.split('\n').any(ends) {
            let reason = format!("expected lines that are neither blank nor $$$$, found {value:?}");
            return Err(Error::config(format!("data field {field}"), reason));
        }
    }
    Ok(())
}
