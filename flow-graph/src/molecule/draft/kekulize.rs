//! Aromatic bonds into single and double ones.
//!
//! Every aromatic atom either still needs one double bond or has its valence filled already (the nitrogen
//! of pyrrole, a carbon with an exocyclic double bond). A Kekulé form is a perfect matching of the former
//! along the aromatic bonds.

use crate::molecule::{Atom, Bond, Element, normal_valences};

use super::adjacency::Adjacency;
use super::matching::Matching;
use super::parts::{Draft, DraftAtom, DraftBond, Fault, Hydrogens, exceeded};

/// What an aromatic atom needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// No double bond in its ring.
    Nothing,
    /// One double bond.
    Double,
    /// One double bond or one hydrogen, the text leaves it open.
    Either,
}

/// Replaces every bond of the draft by a plain one.
///
/// # Errors
/// An atom whose need cannot be met.
pub(super) fn kekulize(draft: &mut Draft) -> Result<(), Fault> {
    settle_unwritten(draft);
    if !draft.atoms.iter().any(|a| a.aromatic) {
        return Ok(());
    }
    let needs = needs(draft)?;
    let mates = matched(draft, &needs)?;
    for (a, b, bond) in &mut draft.bonds {
        if *bond == DraftBond::Aromatic {
            let order = if mates[*a] == Some(*b) { Bond::Double } else { Bond::Single };
            *bond = DraftBond::Plain(order);
        }
    }
    Ok(())
}

/// A bond without a symbol between aromatic atoms is aromatic in a ring and single outside (biphenyl).
fn settle_unwritten(draft: &mut Draft) {
    if !draft.bonds.iter().any(|b| b.2 == DraftBond::Unwritten) {
        return;
    }
    let graph = Adjacency::new(draft.atoms.len(), draft.bonds.iter().map(|&(a, b, _)| (a, b)));
    let in_ring = graph.edges_in_rings(draft.bonds.len());
    for (bond, in_ring) in draft.bonds.iter_mut().zip(in_ring) {
        if bond.2 == DraftBond::Unwritten {
            bond.2 = if in_ring { DraftBond::Aromatic } else { DraftBond::Plain(Bond::Single) };
        }
    }
}

/// What each atom needs, given its bonds with every aromatic one counted as single.
fn needs(draft: &Draft) -> Result<Vec<Need>, Fault> {
    let mut used: Vec<u8> = draft.atoms.iter().map(|a| a.merged).collect();
    let mut multiple = vec![false; draft.atoms.len()];
    for &(a, b, bond) in &draft.bonds {
        let order = if let DraftBond::Plain(bond) = bond { bond.order() } else { 1 };
        for end in [a, b] {
            used[end] = used[end].saturating_add(order);
            multiple[end] |= order > 1;
        }
    }
    let atoms = draft.atoms.iter().zip(used).zip(multiple).enumerate();
    let need = |(index, ((atom, used), multiple))| {
        need_of(atom, used, multiple).map_err(|reason| Fault { atom: index, reason })
    };
    atoms.map(need).collect()
}

fn need_of(draft: &DraftAtom, used: u8, multiple: bool) -> Result<Need, String> {
    if !draft.aromatic {
        return Ok(Need::Nothing);
    }
    let used = match draft.hydrogens {
        Hydrogens::Written(count) => used.saturating_add(count),
        _ => used,
    };
    let valences = normal_valences(draft.atom);
    let Some(valence) = valences.iter().copied().find(|&v| v >= used) else {
        return Err(exceeded(draft.atom, used));
    };
    let like_carbon = valences == [4];
    Ok(match (draft.hydrogens, valence - used) {
        (_, 0) => Need::Nothing,
        // Beside a double bond that was written carbon takes a hydrogen, not a second one.
        (Hydrogens::Filled | Hydrogens::Unsaid, _) if like_carbon && multiple => Need::Nothing,
        (Hydrogens::Unsaid, 1) if !like_carbon => Need::Either,
        // Boron has a hydrogen in borazine and a double bond in borabenzene, and is written alike.
        (Hydrogens::Filled, 1) if draft.atom == Atom::neutral(Element::BORON) => Need::Either,
        // Hydrogens that remain wrong are found when the valences are checked.
        (Hydrogens::Written(_), 2..) => Need::Nothing,
        _ => Need::Double,
    })
}

/// For every atom the one its aromatic double bond leads to.
fn matched(draft: &Draft, needs: &[Need]) -> Result<Vec<Option<usize>>, Fault> {
    let count = needs.len();
    let open = |atom: usize| needs[atom] != Need::Nothing;
    let bonds = draft.bonds.iter().filter(|&&(a, b, bond)| bond == DraftBond::Aromatic && open(a) && open(b));
    let bonds = bonds.map(|&(a, b, _)| (a, b));
    // With atoms that may stay single, two copies of the system joined at those atoms have a perfect
    // matching exactly when one copy has a matching that leaves out none but them.
    let either: Vec<usize> = (0..count).filter(|&i| needs[i] == Need::Either).collect();
    let copies = if either.is_empty() { 1 } else { 2 };
    let shifted = (0..copies).flat_map(|copy| bonds.clone().map(move |(a, b)| (a + copy * count, b + copy * count)));
    let graph = Adjacency::new(copies * count, shifted.chain(either.iter().map(|&i| (i, i + count))));
    let blocked = (0..copies * count).map(|i| !open(i % count)).collect();
    let mut matching = Matching::new(&graph, blocked);
    matching.complete().map_err(|vertex| no_form(draft, needs, vertex % count))?;
    let mate = |atom: usize| matching.mate(atom).filter(|&mate| mate < count);
    if either.is_empty() {
        return Ok((0..count).map(mate).collect());
    }
    // Of the forms that are left, one with the fewest hydrogens that nobody wrote: N=N, not NH-NH.
    let graph = Adjacency::new(count, bonds);
    let mut fullest = Matching::new(&graph, (0..count).map(|i| !open(i)).collect());
    for (a, b) in (0..count).filter_map(|a| Some((a, mate(a)?))) {
        fullest.join(a, b);
    }
    fullest.extend();
    Ok((0..count).map(|i| fullest.mate(i)).collect())
}

fn no_form(draft: &Draft, needs: &[Need], atom: usize) -> Fault {
    let nitrogen = |(a, &need): (&DraftAtom, &Need)| a.atom.element == Element::NITROGEN && need == Need::Double;
    let hint = match draft.atoms.iter().zip(needs).any(nitrogen) {
        true => "; an aromatic nitrogen that carries a hydrogen is written [nH]",
        false => "",
    };
    let symbol = draft.atoms[atom].atom;
    Fault { atom, reason: format!("the aromatic system of this {symbol} has no Kekulé form{hint}") }
}
