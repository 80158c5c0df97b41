use super::*;
use crate::molecule::{Atom, Bond, Element};

fn chain(symbols: &[&str]) -> Molecule {
    let atoms: Vec<_> = symbols.iter().map(|s| Atom::neutral(Element::from_symbol(s).unwrap())).collect();
    let bonds: Vec<_> = (1..atoms.len()).map(|i| (i - 1, i, Bond::Single)).collect();
    Molecule::from_parts(&atoms, &bonds).unwrap()
}

#[test]
fn failed_and_impossible_molecules_are_invalid() {
    let report =
        evaluate(&[None, Some(chain(&["C", "O"])), Some(chain(&["C", "F", "C"])), Some(Molecule::new())], None, None);
    assert_eq!((report.generated, report.valid, report.validity, report.connected), (4, 1, 0.25, 1.0));
    assert_eq!(report.structure.sizes.mean(), Some(2.0));
    assert!(report.novelty.is_none() && report.distances.is_none());
    let empty = evaluate(&[], Some(&Reference::default()), None);
    assert_eq!((empty.validity, empty.uniqueness, empty.means), (0.0, None, None));
    assert!(!empty.to_string().contains("NaN"));
}

#[cfg(feature = "chem")]
#[test]
fn both_novelties_and_uniqueness() {
    let training = [chain(&["C", "O"]), chain(&["C", "N"])];
    // The file writes ethanol's little brother the other way round, so that as a string it is new.
    let reference = Reference::new(&training, &["OC", "CN"], None);
    let generated: Vec<_> = [["O", "C"], ["C", "O"], ["N", "C"], ["C", "S"]].iter().map(|s| Some(chain(s))).collect();
    let report = evaluate(&generated, Some(&reference), None);
    assert_eq!(report.uniqueness, Some(Uniqueness { first_1k: None, first_10k: None, all: 0.75 }));
    assert_eq!(report.novelty, Some(Novelty { honest: 1.0 / 3.0, as_printed: Some(2.0 / 3.0) }));
    assert_eq!(report.distances.unwrap().sizes, Some(0.0));
    let table = report.to_string();
    assert!(table.contains("66.67 %") && table.contains("single 1.000"), "{table}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["structure"]["sizes"]["2"], 4);
}
