//! Against RDKit: small tables of facts here, and 5,000 molecules of ZINC250k in `rdkit`.

mod facts;
mod random;
mod rdkit;

use std::path::{Path, PathBuf};

use facts::{DRUGS, Fact, ODD};

use super::convert::read;
use super::*;
use crate::molecule::Molecule;

/// A file of the folder of data sets: `FLOW_DATA`, or `../shared/data` beside the workspace.
fn data(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

fn scorer() -> Option<SaScorer> {
    data("molecules/sa_fpscores.pkl.gz").map(|path| SaScorer::open(path).unwrap())
}

fn facts() -> impl Iterator<Item = (&'static Fact, Molecule)> {
    DRUGS.iter().chain(ODD).map(|fact| (fact, read(fact.0).unwrap_or_else(|e| panic!("{}: {e}", fact.0))))
}

#[test]
fn canonical_smiles_are_those_of_rdkit() {
    for (fact, molecule) in facts() {
        assert_eq!(canonical_smiles(&molecule).unwrap(), fact.1);
    }
}

#[test]
fn canonical_smiles_do_not_depend_on_the_order_of_atoms() {
    for (fact, molecule) in facts() {
        let reversed: Vec<usize> = (0..molecule.len()).rev().collect();
        assert_eq!(canonical_smiles(&molecule.induced(&reversed)).unwrap(), fact.1);
        assert_eq!(canonical_smiles(&read(fact.1).unwrap()).unwrap(), fact.1);
    }
}

#[test]
fn properties_are_those_of_rdkit() {
    for (fact, molecule) in facts() {
        let Properties { qed, log_p, molecular_weight, polar_surface, rings, aromatic_rings, .. } =
            Properties::of(&molecule).unwrap();
        let close = |value: f64, expected: f64, name: &str| {
            assert!((value - expected).abs() < 1e-4, "{}: {name} {value}, {expected} expected", fact.0);
        };
        close(qed, fact.2, "QED");
        close(log_p, fact.3, "logP");
        assert!((molecular_weight - fact.4).abs() < 1e-3, "{}: {molecular_weight}", fact.0);
        assert!((polar_surface - fact.5).abs() < 0.01, "{}: {polar_surface}", fact.0);
        assert_eq!((rings, aromatic_rings), (fact.6, fact.7), "{}", fact.0);
        assert_eq!(longest_cycle(&molecule).unwrap(), fact.8, "{}", fact.0);
    }
}

#[test]
fn accessibility_is_that_of_rdkit() {
    let Some(scorer) = scorer() else { return };
    for (fact, molecule) in facts() {
        let (score, penalized) = (scorer.score(&molecule).unwrap(), penalized_log_p(&molecule, &scorer).unwrap());
        assert!((score - fact.9).abs() < 1e-5, "{}: {score}, {} expected", fact.0, fact.9);
        assert!((penalized - fact.10).abs() < 1e-4, "{}: {penalized}, {} expected", fact.0, fact.10);
    }
}

#[test]
fn similarities_of_known_pairs() {
    let similarity = |a: &str, b: &str| {
        let of = |text| Fingerprint::of(&read(text).unwrap()).unwrap();
        of(a).tanimoto(&of(b))
    };
    // RDKit 2026.09: GetMorganGenerator(radius=2, fpSize=2048) and TanimotoSimilarity.
    assert_eq!(similarity("CCO", "OCC"), 1.0);
    assert!((similarity("CC(=O)Oc1ccccc1C(=O)O", "O=C(O)c1ccccc1O") - 0.448_275_862_068_965_5).abs() < 1e-12);
    assert_eq!(similarity("C", "F"), 0.0);
}

#[test]
fn what_is_no_molecule_is_refused() {
    use crate::molecule::{Atom, Bond, Element};
    let carbons =
        |bonds: &[(usize, usize, Bond)]| Molecule::from_parts(&[Atom::neutral(Element::CARBON); 3], bonds).unwrap();
    assert!(canonical_smiles(&Molecule::new()).is_err());
    let crowded = carbons(&[(0, 1, Bond::Triple), (1, 2, Bond::Double)]);
    assert!(canonical_smiles(&crowded).unwrap_err().to_string().contains("atom 2"));
    assert!(layout(&crowded).is_err() && Properties::of(&crowded).is_err());
    assert_eq!(canonical_smiles(&carbons(&[])).unwrap(), "C.C.C");
}

#[test]
fn a_panic_inside_becomes_an_error() {
    let error = convert::guarded("test", || -> u8 { panic!("deliberate") }).unwrap_err();
    assert!(error.to_string().contains("test"));
}

#[test]
fn grids_are_written_whole_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let molecules: Vec<Molecule> = facts().map(|(_, molecule)| molecule).collect();
    let cells: Vec<_> = molecules.iter().map(|m| (m, "a < b & c\nsecond".to_string())).collect();
    let svg = folder.path().join("grid.svg");
    write_grid(&svg, &cells, 6).unwrap();
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(text.contains("a &lt; b &amp; c") && text.matches("<g ").count() == cells.len());
    let png = folder.path().join("grid.PNG");
    write_grid(&png, &cells[..3], 2).unwrap();
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    assert!(write_grid(folder.path().join("grid.jpg"), &cells, 2).is_err());
    assert!(write_grid(&png, &[], 2).is_err() && write_grid(&png, &cells, 0).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn layouts_keep_the_order_of_atoms_and_the_length_of_bonds() {
    for (fact, molecule) in facts() {
        let places = layout(&molecule).unwrap();
        assert_eq!(places.len(), molecule.len());
        for (a, b, _) in molecule.bonds() {
            let length = (places[a].0 - places[b].0).hypot(places[a].1 - places[b].1);
            assert!((0.3..5.0).contains(&length), "{}: a bond of {length}", fact.0);
        }
    }
}
