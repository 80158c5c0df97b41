//! Our molecules as those of chematic, and back.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chematic::core::{self, BondOrder, MoleculeBuilder};
use chematic::smiles;

#[cfg(test)]
use crate::molecule::Element;
use crate::molecule::{Atom, Bond, Molecule, smallest_rings};
use crate::{Error, Result};

/// chematic's molecule.
pub(crate) type Graph = core::Molecule;

/// RDKit's canonical aromatic SMILES of a molecule, without stereo: equal molecules have equal strings.
///
/// # Errors
/// [`Error::Chemistry`] for a molecule without atoms, an exceeded valence, or one that RDKit would not accept.
///
/// The perception of aromaticity looks at rings in an order that follows the numbers of the atoms, and in some bridged
/// rings that decides; so the atoms get numbers first that the molecule alone decides.
pub fn canonical_smiles(molecule: &Molecule) -> Result<String> {
    let (graph, _) = settled(molecule)?;
    guarded("canonical SMILES", || smiles::rdkit_canonical_smiles(&graph))?.map_err(chemistry)
}

/// The graph on which aromaticity is perceived: a function of the molecule, whatever the order of its atoms and its Kekulé
/// form. Returns also whether it has a ring of nine or more atoms.
///
/// Atoms come in the order of the canonical SMILES of this crate. Beside such large rings those of small rings come first:
/// the oxygen or sulfur of a bridged furan or thiophene belongs to its ring of five, as RDKit has it, and not to the bridge.
pub(crate) fn settled(molecule: &Molecule) -> Result<(Graph, bool)> {
    if molecule.is_empty() {
        return Err(Error::Chemistry("a molecule without atoms".into()));
    }
    molecule.check_valences()?;
    let standard = crate::smiles::parse(&crate::smiles::canonical(molecule))?;
    let rings = smallest_rings(&standard);
    if !rings.iter().flatten().any(|&size| size >= LARGE_RING) {
        return Ok((to_chematic(&standard)?, false));
    }
    let mut smallest = vec![usize::MAX; standard.len()];
    for ((a, b, _), ring) in standard.bonds().zip(rings) {
        for end in [a, b] {
            smallest[end] = smallest[end].min(ring.unwrap_or(usize::MAX));
        }
    }
    let mut order: Vec<usize> = (0..standard.len()).collect();
    // Rings of the sizes of aromatic ones first, and in them the atoms that are in no other ring.
    let aside = |size: usize| if (5..LARGE_RING).contains(&size) { size } else { size.saturating_add(LARGE_RING) };
    order.sort_by_key(|&atom| (aside(smallest[atom]), standard.neighbours(atom).len() > 2));
    Ok((to_chematic(&standard.induced(&order))?, true))
}

/// From this size on RDKit takes an oxygen or sulfur in a ring for a bridge.
const LARGE_RING: usize = 9;

/// Runs a function of chematic; a panic in it becomes an error.
///
/// chematic is written for molecules that chemists draw, and a sampler draws others: among millions of
/// strange graphs one broken invariant in there must cost one molecule, not the run. The functions
/// called are pure, so nothing half-changed survives the unwinding. (In a program built with
/// `panic = "abort"` the guard has no effect.)
pub(crate) fn guarded<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Error::Chemistry(format!("{what}: chematic panicked on this molecule")))
}

pub(crate) fn chemistry(error: impl std::fmt::Display) -> Error {
    Error::Chemistry(error.to_string())
}

/// The same Kekulé graph, atom by atom and bond by bond; aromaticity is perceived where it is asked for.
pub(crate) fn to_chematic(molecule: &Molecule) -> Result<Graph> {
    if molecule.is_empty() {
        return Err(Error::Chemistry("a molecule without atoms".into()));
    }
    molecule.check_valences()?;
    let mut builder = MoleculeBuilder::with_capacity(molecule.len(), molecule.bond_count());
    for (index, atom) in molecule.atoms().enumerate() {
        builder.add_atom(atom_to_chematic(atom, molecule.hydrogens(index).unwrap_or(0))?);
    }
    for (a, b, bond) in molecule.bonds() {
        let order = match bond {
            Bond::Single => BondOrder::Single,
            Bond::Double => BondOrder::Double,
            Bond::Triple => BondOrder::Triple,
        };
        let (a, b) = (core::AtomIdx(a as u32), core::AtomIdx(b as u32));
        builder.add_bond(a, b, order).map_err(|e| Error::Chemistry(format!("{e:?}")))?;
    }
    Ok(builder.build())
}

fn atom_to_chematic(atom: Atom, hydrogens: u8) -> Result<core::Atom> {
    let element = core::Element::from_atomic_number(atom.element.number())
        .ok_or_else(|| Error::Chemistry(format!("chematic does not know the element {:?}", atom.element)))?;
    // As SMILES writes it: an atom outside the organic subset stands in brackets with its hydrogens counted.
    let bracket = atom.charge != 0 || !element.is_organic_subset();
    Ok(core::Atom { charge: atom.charge, hydrogen_count: bracket.then_some(hydrogens), ..core::Atom::new(element) })
}

/// The Kekulé graph of a molecule of chematic; stereo, isotopes and atom maps are dropped.
///
/// # Errors
/// [`Error::Chemistry`] for wildcards, bonds other than single, double, triple and aromatic ones, an
/// aromatic system without a Kekulé form, and hydrogens other than those that the bonds imply (radicals).
#[cfg(test)]
pub(crate) fn from_chematic(graph: &Graph) -> Result<Molecule> {
    let kekule = core::kekulize(graph).map_err(|e| Error::Chemistry(format!("no Kekulé form: {e:?}")))?;
    let graph = core::apply_kekule(graph, &kekule);
    let mut molecule = Molecule::new();
    for (_, atom) in graph.atoms() {
        let element = Element::from_number(atom.element.atomic_number()).filter(|_| !atom.wildcard);
        let element = element.ok_or_else(|| Error::Chemistry("a wildcard is no element".into()))?;
        molecule.add_atom(Atom { element, charge: atom.charge });
    }
    for (_, bond) in graph.bonds() {
        let order = match bond.order {
            BondOrder::Single | BondOrder::Up | BondOrder::Down => Bond::Single,
            BondOrder::Double => Bond::Double,
            BondOrder::Triple => Bond::Triple,
            other => return Err(Error::Chemistry(format!("a bond that is neither 1, 2 nor 3: {other:?}"))),
        };
        molecule.add_bond(bond.atom1.0 as usize, bond.atom2.0 as usize, order)?;
    }
    for (index, atom) in molecule.atoms().enumerate() {
        let there = core::implicit_hcount(&graph, core::AtomIdx(index as u32));
        let implied = molecule.hydrogens(index);
        if implied != Some(there) {
            return Err(Error::Chemistry(format!(
                "atom {} ({atom}) has {there} hydrogens, its bonds imply {implied:?}",
                index + 1
            )));
        }
    }
    Ok(molecule)
}

/// Reads a SMILES through chematic.
#[cfg(test)]
pub(crate) fn read(text: &str) -> Result<Molecule> {
    from_chematic(&smiles::parse(text).map_err(|e| Error::Chemistry(format!("{text}: {e:?}")))?)
}
