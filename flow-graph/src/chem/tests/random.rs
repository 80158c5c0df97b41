//! Strange molecules, as an untrained sampler makes them: nothing may panic or contradict itself.

use proptest::prelude::*;

use super::*;
use crate::molecule::{Atom, Bond, Element, implied_hydrogens};

/// The kinds of atoms in ZINC250k, the charged ones more frequent than there.
const KINDS: [(&str, i8); 18] = [
    ("C", 0),
    ("C", 0),
    ("C", 0),
    ("N", 0),
    ("O", 0),
    ("F", 0),
    ("P", 0),
    ("S", 0),
    ("Cl", 0),
    ("Br", 0),
    ("I", 0),
    ("N", 1),
    ("O", -1),
    ("N", -1),
    ("S", -1),
    ("O", 1),
    ("S", 1),
    ("P", 1),
];

/// A connected molecule from choices: each a kind, how far back and how many bonds an atom closes.
pub(super) fn grow(choices: &[(u8, u8, u8, u8)]) -> Molecule {
    let mut molecule = Molecule::new();
    for &(kind, back, order, closures) in choices {
        let (symbol, charge) = KINDS[usize::from(kind) % KINDS.len()];
        let atom = Atom { element: Element::from_symbol(symbol).unwrap(), charge };
        let index = molecule.add_atom(atom);
        for attempt in 0..1 + closures % 3 {
            let Some(span) = index.checked_sub(1) else { break };
            let other = span - usize::from(back.wrapping_mul(attempt * 7 + 1) % 8).min(span);
            let bond = Bond::ALL[usize::from(order.rotate_left(attempt.into()) % 5).saturating_sub(2)];
            bond_if_it_fits(&mut molecule, index, other, bond);
        }
        if index > 0 && molecule.neighbours(index).is_empty() {
            molecule.pop_atom();
        }
    }
    molecule
}

fn bond_if_it_fits(molecule: &mut Molecule, a: usize, b: usize, bond: Bond) {
    let fits = |i: usize| {
        molecule
            .atom(i)
            .is_some_and(|atom| implied_hydrogens(atom, molecule.bond_order_sum(i) + bond.order()).is_some())
    };
    if fits(a) && fits(b) && molecule.bond_between(a, b).is_none() {
        molecule.add_bond(a, b, bond).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn strange_molecules_do_not_panic(choices in proptest::collection::vec(any::<(u8, u8, u8, u8)>(), 1..40)) {
        let molecule = grow(&choices);
        prop_assert!(molecule.check_valences().is_ok() && molecule.is_connected());
        match Perceived::new(&molecule) {
            Ok(perceived) => {
                Properties::of_perceived(&perceived).unwrap();
                Fingerprint::of_perceived(&perceived).unwrap();
            }
            Err(error) => prop_assert!(!error.to_string().contains("panicked"), "{}", error),
        }
        prop_assert_eq!(layout(&molecule).unwrap().len(), molecule.len());
        let sizes = crate::metrics::ring_sizes(&molecule);
        prop_assert_eq!(sizes.len(), molecule.ring_count());
    }
}
