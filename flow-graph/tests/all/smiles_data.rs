//! SMILES of the real data sets: all of them with
//! `FLOW_FULL=1 cargo test --release -p flow-graph --no-default-features --test smiles_data`.

// Helper functions of tests are no tests to the lint.

use std::collections::HashMap;

use crate::common::{Numbers, data, is_copy, limit, smiles};
use flow_graph::smiles::{canonical, parse, write_ordered};
use flow_graph::{Bond, Molecule};

/// Reads, writes and reads again; returns how many molecules were refused.
fn round_trips(name: &str, most: usize) -> Option<(usize, Vec<String>)> {
    let path = data(name)?;
    let (mut count, mut refused) = (0, Vec::new());
    for line in smiles(&path).take(most) {
        count += 1;
        let Ok(molecule) = parse(&line) else {
            refused.push(line);
            continue;
        };
        molecule.check_valences().unwrap();
        let (text, order) = write_ordered(&molecule);
        let copy = parse(&text).unwrap();
        assert!(is_copy(&molecule, &copy, &order), "{line} {text}");
    }
    Some((count, refused))
}

#[test]
fn zinc250k_round_trips() {
    let Some((count, refused)) = round_trips("molecules/zinc250k.smi.gz", limit(5_000)) else { return };
    println!("ZINC250k: {count} molecules, refused {refused:?}");
    // Two hydrogens on phosphorus that its bonds do not imply.
    let unusual = "O=[PH2][C@H](Cc1ccccc1)c1ccccc1";
    assert!(refused.iter().all(|line| line == unusual), "{refused:?}");
    assert!(count == 249_456 || count == 5_000);
}

#[test]
fn qm9_smiles_round_trip() {
    let Some((count, refused)) = round_trips("molecules/qm9.smi.gz", usize::MAX) else { return };
    println!("QM9: {count} molecules, refused {refused:?}");
    assert_eq!((count, refused), (130_831, Vec::new()));
}

/// Swaps single and double bonds along one alternating cycle, if a short random walk finds one.
fn other_form(molecule: &Molecule, numbers: &mut Numbers) -> Option<Molecule> {
    let doubles: HashMap<usize, usize> =
        molecule.bonds().filter(|b| b.2 == Bond::Double).flat_map(|(a, b, _)| [(a, b), (b, a)]).collect();
    let only = |atom: usize| molecule.neighbours(atom).iter().filter(|n| n.1 == Bond::Double).count() == 1;
    let starts: Vec<usize> = doubles.keys().copied().filter(|&a| only(a) && only(doubles[&a])).collect();
    for _ in 0..200 {
        let mut path = vec![*starts.get(numbers.below(starts.len().max(1)))?];
        while path.len() < 40 {
            let mate = doubles[path.last()?];
            path.push(mate);
            let singles = molecule.neighbours(mate).into_iter().filter(|n| n.1 == Bond::Single).map(|n| n.0);
            let next: Vec<usize> = singles
                .filter(|&n| {
                    n == path[0]
                        || (!path.contains(&n)
                            && doubles.contains_key(&n)
                            && only(n)
                            && only(doubles[&n])
                            && !path.contains(&doubles[&n]))
                })
                .collect();
            let Some(&next) = next.get(numbers.below(next.len().max(1))) else { break };
            if next == path[0] {
                let mut swapped = HashMap::new();
                for (i, &a) in path.iter().enumerate() {
                    let b = path[(i + 1) % path.len()];
                    swapped.insert((a.min(b), a.max(b)), if i % 2 == 0 { Bond::Single } else { Bond::Double });
                }
                let bonds: Vec<_> = molecule
                    .bonds()
                    .map(|(a, b, bond)| (a, b, *swapped.get(&(a.min(b), a.max(b))).unwrap_or(&bond)))
                    .collect();
                return Some(Molecule::from_parts(&molecule.atoms().collect::<Vec<_>>(), &bonds).unwrap());
            }
            path.push(next);
        }
    }
    None
}

#[test]
fn canonical_smiles_forget_order_and_form() {
    let Some(path) = data("molecules/zinc250k.smi.gz") else { return };
    let mut numbers = Numbers(7);
    let (mut shuffled, mut swapped) = (0, 0);
    for line in smiles(&path).take(limit(1_000)) {
        let Ok(molecule) = parse(&line) else { continue };
        let expected = canonical(&molecule);
        assert_eq!(canonical(&parse(&expected).unwrap()), expected, "{line}");
        let other = other_form(&molecule, &mut numbers);
        swapped += usize::from(other.is_some());
        for form in [Some(molecule), other].into_iter().flatten() {
            form.check_valences().unwrap();
            let order = numbers.permutation(form.len());
            assert_eq!(canonical(&form.induced(&order)), expected, "{line}");
            shuffled += 1;
        }
    }
    println!("{shuffled} shuffled molecules, {swapped} of them in another Kekulé form");
    assert!(shuffled > 1_000 && swapped > 500);
}
