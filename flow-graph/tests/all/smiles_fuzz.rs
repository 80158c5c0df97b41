//! Text that is no molecule, or hardly one: never a panic, and every error inside the text.
//!
//! A million cases of each kind:
//! `FLOW_FUZZ=1000000 cargo test --release -p flow-graph --no-default-features --test all smiles_fuzz`.

// Helper functions of tests are no tests to the lint.

use std::io::Cursor;

use crate::common::is_copy;
use flow_graph::smiles::{Forms, canonical, parse, read_largest, write_ordered};
use flow_graph::{Error, sdf};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{FileFailurePersistence, TestRunner};

const SEEDS: &[&str] = &[
    "CC(C)(C)c1ccc2occ(CC(=O)Nc3ccccc3F)c2c1",
    "C[C@@H]1CC(Nc2cncc(-c3nncn3C)c2)C[C@@H](C)C1",
    "N#Cc1ccc(-c2ccc(O[C@@H](C(=O)N3CCCC3)c3ccccc3)cc2)cc1",
    "N#CC1=C(SCC(=O)Nc2cccc(Cl)c2)N=C([O-])[C@H](C#N)C12CCCCC2",
    "CC1(C)CN(C(=O)Nc2cc3ccccc3nn2)C[C@@]2(CCOC2)O1",
    "O=C(Nc1nnc2ccccn12)[C@H]1CCC[NH2+]C1.[Na+].[Cl-]",
    "c1cc2cc3ccc([nH]3)cc3ccc(n3)cc3ccc([nH]3)cc1n2",
    "OCl(=O)(=O)=O.c1cc2sc1CCCCCC2.C[si]1ccccc1",
    "F/C=C\\[13CH2:12][Si](C)(C)O[S@@](=O)c1ccc[se]1.C%12CC%12",
];

const TOKENS: &[&str] = &[
    "C",
    "N",
    "O",
    "S",
    "P",
    "F",
    "Cl",
    "Br",
    "I",
    "B",
    "c",
    "n",
    "o",
    "s",
    "p",
    "b",
    "[nH]",
    "[NH+]",
    "[O-]",
    "[n+]",
    "[H]",
    "[CH2]",
    "[se]",
    "[Na+]",
    "[2H]",
    "[",
    "]",
    "(",
    ")",
    "(",
    ")",
    "1",
    "2",
    "1",
    "2",
    "3",
    "%10",
    "%(123)",
    "%",
    "=",
    "#",
    "-",
    ":",
    "/",
    "\\",
    "$",
    ".",
    "*",
    "@",
    "+",
    "H",
    "é",
    " ",
    "c1ccccc1",
    "C(=O)",
    "n1cccc1",
    "[si]",
    "[te]",
    "~",
    "->",
    "Cl(=O)(=O)",
    "I(=O)",
    "[Cl+3]",
    "[I+2]",
];

/// Runs a property on as many cases as `FLOW_FUZZ` says.
fn fuzz<S: Strategy>(strategy: S, property: impl Fn(S::Value)) {
    let cases = flow_core::testing::fuzz::rounds(20_000);
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        property(value);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

fn check_smiles(text: &str) {
    let molecule = match parse(text) {
        Ok(molecule) => molecule,
        Err(Error::Smiles { column, reason, .. }) => {
            let length = text.chars().count().max(1);
            assert!((1..=length).contains(&column) && !reason.is_empty(), "{text:?}: column {column}, {reason}");
            return;
        }
        Err(other) => panic!("{text:?}: {other}"),
    };
    let (written, order) = write_ordered(&molecule);
    let copy = parse(&written).unwrap_or_else(|e| panic!("{text:?} written as {written}: {e}"));
    assert!(is_copy(&molecule, &copy, &order), "{text:?} written as {written}");
    assert_eq!(canonical(&copy), canonical(&molecule), "{text:?}");
    if let Ok(reading) = read_largest(text) {
        assert!(reading.molecule.len() <= molecule.len() && reading.unreadable < reading.pieces, "{text:?}");
    }
    if molecule.is_connected() {
        let forms = Forms::of(&molecule);
        assert_eq!(canonical(forms.canonical()), canonical(&molecule), "{text:?}");
        assert!(forms.count() >= 1.0 && forms.symmetries() >= 0.999, "{text:?}");
    }
}

fn check_sdf(text: &str) {
    for record in sdf::Records::new(Cursor::new(text), "fuzz.sdf") {
        match record {
            Ok(record) => record.molecule.check_valences().unwrap(),
            Err(Error::Line { line, column, .. }) => {
                let lines: Vec<&str> =
                    text.split_inclusive('\n').map(|line| line.trim_end_matches(['\n', '\r'])).collect();
                let length = lines[line - 1].chars().count().max(1);
                assert!((1..=length).contains(&column), "{text:?}: line {line}, column {column}");
            }
            Err(other) => panic!("{text:?}: {other}"),
        }
    }
    let _ = sdf::parse_molblock(text);
}

/// Replaces, removes, inserts or doubles characters.
fn mutated(text: &str, edits: &[(u8, Index, String)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (kind, place, new) in edits {
        let at = place.index(characters.len() + 1);
        let end = match kind % 4 {
            0 => at,
            1 => (at + new.chars().count()).min(characters.len()),
            2 => (at + 1).min(characters.len()),
            _ => (at + 10).min(characters.len()),
        };
        let copied: Vec<char> = characters[at..end].to_vec();
        let inserted = if *kind < 128 { new.chars().collect() } else { copied };
        characters.splice(at..end, inserted);
    }
    characters.into_iter().collect()
}

fn edits() -> impl Strategy<Value = Vec<(u8, Index, String)>> {
    vec((any::<u8>(), any::<Index>(), select(TOKENS).prop_map(String::from)), 1..6)
}

#[test]
fn smiles_of_random_bytes() {
    fuzz(vec(any::<u8>(), 0..60), |bytes| check_smiles(&String::from_utf8_lossy(&bytes)));
}

#[test]
fn smiles_of_random_tokens() {
    fuzz(vec(select(TOKENS), 0..24), |tokens| check_smiles(&tokens.concat()));
}

#[test]
fn smiles_with_random_edits() {
    fuzz((select(SEEDS), edits()), |(seed, edits)| check_smiles(&mutated(seed, &edits)));
}

#[test]
fn sdf_of_version_3000_with_random_edits() {
    const TOKENS: &[&str] =
        &["M  V30 ", "-", "\n", "1", "9", "CHG=1", "CFG=2", "RAD=1", "VAL=-1", "BEGIN ATOM", "END", " ", "CL"];
    const TEXT: &str = "m\n\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS 3 2 0 0 0\n\
        M  V30 BEGIN ATOM\nM  V30 1 C 0 0 0 0 CHG=-1\nM  V30 2 N 1.5 0 0 -\nM  V30 0 VAL=3\nM  V30 5 O 1 1 0 0\n\
        M  V30 END ATOM\nM  V30 BEGIN BOND\nM  V30 1 1 1 2\nM  V30 2 4 2 5 CFG=1\nM  V30 END BOND\nM  V30 END CTAB\n\
        M  END\n> <id>\n1\n\n$$$$\n";
    let edits = vec((any::<u8>(), any::<Index>(), select(TOKENS).prop_map(String::from)), 0..5);
    fuzz(edits, |edits| check_sdf(&mutated(TEXT, &edits)));
}

#[test]
fn sdf_with_random_edits_beside_smiles() {
    let record = |smiles: &&str| {
        let fields = [("logP".to_string(), "1.5".to_string()), ("note".to_string(), "two\nlines".to_string())];
        sdf::write_record(&parse(smiles).unwrap(), "seed", None, &fields).unwrap()
    };
    let texts: Vec<String> = SEEDS.windows(2).map(|pair| pair.iter().map(record).collect()).collect();
    fuzz((select(texts), edits()), |(text, edits)| check_sdf(&mutated(&text, &edits)));
}
