use super::*;

fn carbons(n: usize) -> Molecule {
    Molecule::from_parts(&vec![Atom::neutral(Element::CARBON); n], &[]).unwrap()
}

#[test]
fn valences_are_those_of_the_isoelectronic_element() {
    let atom = |symbol: &str, charge| Atom { element: Element::from_symbol(symbol).unwrap(), charge };
    for (symbol, charge, expected) in [
        ("C", 0, vec![4]),
        ("N", 1, vec![4]),
        ("N", -1, vec![2]),
        ("O", -1, vec![1]),
        ("O", 1, vec![3]),
        ("S", -1, vec![1]),
        ("S", 1, vec![3, 5]),
        ("P", 1, vec![4]),
        ("C", -1, vec![3]),
        ("B", -1, vec![4]),
        ("Cl", -1, vec![]),
        ("Na", 1, vec![]),
        ("Fe", 0, vec![]),
    ] {
        assert_eq!(normal_valences(atom(symbol, charge)), expected, "{symbol}{charge:+}");
    }
    assert_eq!(implied_hydrogens(atom("S", 0), 3), Some(1));
    assert_eq!(implied_hydrogens(atom("N", 0), 4), None);
}

#[test]
fn impossible_bonds_are_refused() {
    let mut molecule = carbons(2);
    molecule.add_bond(0, 1, Bond::Double).unwrap();
    for (a, b) in [(1, 0), (1, 1), (0, 2)] {
        assert!(molecule.add_bond(a, b, Bond::Single).is_err());
    }
    assert_eq!(molecule.bond_count(), 1);
}

#[test]
fn components_and_rings() {
    let mut molecule = carbons(7);
    for (a, b) in [(1, 2), (2, 3), (3, 1), (4, 5)] {
        molecule.add_bond(a, b, Bond::Single).unwrap();
    }
    assert_eq!(molecule.components(), [0, 1, 1, 1, 2, 2, 3]);
    assert_eq!(molecule.ring_count(), 1);
    assert_eq!(molecule.largest_component().len(), 3);
    assert!(molecule.largest_component().is_connected());
    assert_eq!(molecule.induced(&[5, 4, 4, 99]).bonds().collect::<Vec<_>>(), [(1, 0, Bond::Single)]);
}

#[test]
fn elements_by_symbol() {
    assert_eq!(serde_json::from_str::<Element>("\"Cl\"").unwrap(), Element::CHLORINE);
    assert!(serde_json::from_str::<Element>("\"Xx\"").is_err());
    assert_eq!(Element::from_number(118).unwrap().symbol(), "Og");
}
