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

/// Of these bridged rings the perception of aromaticity depends on the order of the atoms, unless one takes care.
#[cfg(feature = "chem")]
#[test]
fn bridged_aromatic_rings_are_one_molecule_however_written() {
    let pairs = [
        ("c1cc2sc1CCCCCC2", "C1CCCCCc2ccc1s2", 0.5538, 3.4071),
        ("c1cc2oc1CCCCCC2", "C1CCc2oc(cc2)CCC1", 0.5539, 2.9386),
        ("C1CCCc2nnc(s2)CCC1", "c12nnc(s2)CCCCCCC1", 0.6160, 2.5872),
        ("CC(=C)C1CC(=O)C2OC2C=Cc2oc(cc2C)C=C(C)CC1", "c12oc(C=C(CCC(C(=C)C)CC(C3OC3C=C1)=O)C)cc2C", 0.5565, 4.7172),
    ];
    let parse = |s: &str| smiles::parse(s).unwrap();
    let mut all = Vec::new();
    for (a, b, qed, log_p) in pairs {
        for molecule in [parse(a), parse(b)] {
            let perceived = crate::Perceived::new(&molecule).unwrap();
            assert!((perceived.qed().unwrap() - qed).abs() < 1e-4, "{a}: {:?}", perceived.qed());
            assert!((perceived.log_p().unwrap() - log_p).abs() < 1e-4, "{a}: {:?}", perceived.log_p());
            all.push(Some(molecule));
        }
    }
    let reference: Vec<Molecule> = pairs.iter().map(|pair| parse(pair.0)).collect();
    let report = evaluate(&all, Some(&Reference::new::<&str>(&reference, &[], None)), None);
    assert_eq!(report.uniqueness.unwrap().all, 0.5);
    assert_eq!(report.novelty.unwrap().honest, 0.0);
}

#[test]
fn small_molecules_are_counted_beside_those_of_the_reference() {
    let carbons = |n: usize| chain(&vec!["C"; n]);
    let reference = Reference::new::<&str>(&[carbons(9), carbons(10), carbons(4), carbons(20)], &[], None);
    let report = evaluate(&[Some(carbons(4)), Some(carbons(5)), None], Some(&reference), None);
    assert_eq!(report.small, Small { under_5: 0.5, under_10: 1.0 });
    assert_eq!(report.reference_small, Some(Small { under_5: 0.25, under_10: 0.5 }));
    assert!(report.to_string().contains("50.00 % under 5 atoms, 100.00 % under 10   (reference 25.00 %"), "{report}");
}
