use super::*;
use crate::{Error, Molecule};

fn formula(molecule: &Molecule) -> String {
    let mut counts = std::collections::BTreeMap::<&str, u32>::new();
    for (index, atom) in molecule.atoms().enumerate() {
        *counts.entry(atom.element.symbol()).or_default() += 1;
        *counts.entry("H").or_default() += u32::from(molecule.hydrogens(index).unwrap());
    }
    counts.iter().filter(|c| *c.1 > 0).map(|(symbol, count)| format!("{symbol}{count}")).collect()
}

#[test]
fn known_molecules() {
    for (name, smiles, expected, rings) in [
        ("aspirin", "CC(=O)Oc1ccccc1C(=O)O", "C9H8O4", 1),
        ("caffeine", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "C8H10N4O2", 2),
        ("indole", "c1ccc2[nH]ccc2c1", "C8H7N1", 2),
        ("azulene", "c1cccc2cccc2c1", "C10H8", 2),
        ("porphine", "c1cc2cc3ccc([nH]3)cc3ccc(n3)cc3ccc([nH]3)cc1n2", "C20H14N4", 5),
        ("thiophene", "c1ccsc1", "C4H4S1", 1),
        ("pyridine N-oxide", "[O-][n+]1ccccc1", "C5H5N1O1", 1),
        ("pyridine N-oxide without charges", "O=n1ccccc1", "C5H5N1O1", 1),
        ("nitrobenzene", "c1ccccc1[N+](=O)[O-]", "C6H5N1O2", 1),
        ("nitrobenzene without charges", "c1ccccc1N(=O)=O", "C6H5N1O2", 1),
        ("phenyl azide without charges", "c1ccccc1N=N#N", "C6H5N3", 1),
        ("tetrazole", "c1nnn[nH]1", "C1H2N4", 1),
        ("tetrazolide", "c1nnn[n-]1", "C1H1N4", 1),
        ("imidazole", "c1c[nH]cn1", "C3H4N2", 1),
        ("imidazole, other tautomer", "c1cnc[nH]1", "C3H4N2", 1),
        ("imidazolium", "c1c[nH]c[nH+]1", "C3H5N2", 1),
        ("purine", "c1ncc2[nH]cnc2n1", "C5H4N4", 2),
        ("biphenyl", "c1ccccc1c1ccccc1", "C12H10", 2),
        ("pyridone", "O=c1cccc[nH]1", "C5H5N1O1", 1),
        ("anthraquinone", "O=c1c2ccccc2c(=O)c2ccccc12", "C14H8O2", 3),
        ("furan", "c1cc[o]c1", "C4H4O1", 1),
        ("pyrylium", "c1cc[o+]cc1", "C5H5O1", 1),
        ("selenophene", "c1cc[se]c1", "C4H4Se1", 1),
        ("borazine", "[nH]1b[nH]b[nH]b1", "B3H6N3", 1),
        ("borabenzene", "b1ccccc1", "B1C5H5", 1),
        ("cyclopentadienide", "[cH-]1cccc1", "C5H5", 1),
        ("sulfoxide in a ring", "O=s1cccc1", "C4H4O1S1", 1),
        ("coronene", "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61", "C24H12", 7),
        ("corannulene", "c1cc2ccc3ccc4ccc5ccc1c1c2c3c4c51", "C20H10", 6),
        ("sulfuric acid", "OS(=O)(=O)O", "H2O4S1", 0),
        ("salt", "[Na+].[Cl-]", "Cl1Na1", 0),
        ("hydrogen", "[H][H]", "H2", 0),
        ("rings by every notation", "C%12CC%12C%(103)CC%(103)C0CC0", "C9H14", 3),
    ] {
        let molecule = parse(smiles).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((formula(&molecule).as_str(), molecule.ring_count()), (expected, rings), "{name}");
        molecule.check_valences().unwrap();
        let again = parse(&write(&molecule)).unwrap();
        assert_eq!(canonical(&again), canonical(&molecule), "{name}");
    }
}

#[test]
fn malformed_smiles_name_the_column() {
    for (smiles, column, reason) in [
        ("", 1, "empty"),
        ("C C", 2, "expected an atom"),
        ("Cé", 2, "'é'"),
        ("éC", 1, "'é'"),
        ("(C)", 1, "branch follows the atom"),
        ("C(C", 2, "never closed"),
        ("C(C(C)", 2, "never closed"),
        ("C)C", 2, "no branch is open"),
        ("C()C", 2, "expected an atom"),
        ("C((C)C)C", 3, "branch follows the atom"),
        ("C=(O)C", 2, "inside the branch"),
        ("C(=)C", 3, "after the bond"),
        ("C=", 2, "after the bond"),
        ("=C", 1, "follows the atom"),
        ("C==C", 3, "after the bond symbol"),
        ("C$C", 2, "quadruple"),
        ("C.", 2, "expected an atom"),
        (".C", 1, "before the dot"),
        ("C..C", 3, "before the dot"),
        ("C-.C", 2, "after the bond"),
        ("C.=C", 3, "follows the atom"),
        ("1CC1", 1, "ring number follows"),
        ("C1CC", 2, "ring 1 is never closed"),
        ("C11", 3, "to itself"),
        ("C1C1", 4, "second bond"),
        ("C12CCC12", 8, "second bond"),
        ("C=1CCC#1", 7, "another bond"),
        ("C%1CC", 2, "two digits"),
        ("C%(1", 2, "one to five digits"),
        ("C%(123456)", 2, "one to five digits"),
        ("C(1CC1)", 3, "ring number follows"),
        ("CX", 2, "expected B C N O"),
        ("C*", 2, "'*'"),
        ("CH4", 2, "brackets"),
        ("[C", 1, "never closed"),
        ("C[]", 3, "symbol of an element"),
        ("[C[C]", 3, "']'"),
        ("[Xx]", 2, "symbol of an element"),
        ("[*]", 2, "'*'"),
        ("[1234C]", 5, "3 digits"),
        ("[C@TH3]", 4, "from 1 to 2"),
        ("[C@OH31]", 4, "from 1 to 30"),
        ("[C++2]", 3, "not both"),
        ("[C+99]", 3, "-15 to +15"),
        ("[CH4:]", 6, "atom map"),
        ("[C+H]", 4, "expected ']'"),
        ("C]", 2, "expected an atom"),
        ("C:C", 2, "lower case"),
        ("C[CH2]", 2, "imply 3"),
        ("[N]", 1, "radicals"),
        ("[SH6]", 1, "imply 2"),
        ("[H]", 1, "radicals"),
        ("C[Na]", 2, "without bonds"),
        ("[FeH2]", 1, "without bonds"),
        ("CC(C)(C)(C)C", 2, "at most 4"),
        ("FCl(F)", 2, "at most 1"),
        ("CN(C)(C)C", 2, "at most 3"),
        ("Cc1cccc1", 7, "no Kekulé form"),
        ("c1cncc1", 6, "[nH]"),
        ("cc1ccccc1", 1, "no Kekulé form"),
        ("c1(C)(C)ccccc1", 13, "no Kekulé form"),
        ("c1(C)(C)(C)ccccc1", 1, "at most 4"),
        ("S([H])([H])([H])[H]", 1, "imply 2"),
    ] {
        match parse(smiles) {
            Err(Error::Smiles { smiles: named, column: found, reason: why }) => {
                assert_eq!(named, smiles);
                assert!(found == column && why.contains(reason), "{smiles}: column {found}, {why}");
            }
            other => panic!("{smiles}: {other:?}"),
        }
    }
}

#[test]
fn what_a_molecule_does_not_carry_is_counted() {
    let reading = read("[13CH3:1][C@@H](F)/C=C\\[C@TH1H](Cl)[2H].[H]O[H]").unwrap();
    assert_eq!(reading.dropped, Dropped { stereo: 4, isotopes: 2, atom_maps: 1, hydrogens: 3 });
    assert_eq!(formula(&reading.molecule), "C5Cl1F1H10O1");
}

#[test]
fn charges_in_every_notation() {
    for (smiles, charge) in [("[Fe++]", 2), ("[Fe+2]", 2), ("[Fe+++]", 3), ("[O--]", -2), ("[Na+1]", 1), ("[H+]", 1)] {
        assert_eq!(parse(smiles).unwrap().atom(0).unwrap().charge, charge, "{smiles}");
    }
}

#[test]
fn written_smiles_are_kekule_with_the_longest_branch_last() {
    for (smiles, expected) in [
        ("c1ccccc1O", "C1=CC=CC=C1O"),
        ("CCCCC(C)CCCCC", "CCCCC(C)CCCCC"),
        ("C(CCC)(O)C", "C(O)(C)CCC"),
        ("[NH3+]C([O-])C#N.[Cl-]", "[NH3+]C([O-])C#N.[Cl-]"),
        ("C1CC1C1CC1", "C1CC1C1CC1"),
        ("CI(C)C", "CI(C)C"),
        ("C[IH]C", "C[IH]C"),
        ("C[Si](C)(C)C.[Fe+2].[O-2]", "C[Si](C)(C)C.[Fe+2].[O-2]"),
    ] {
        assert_eq!(write(&parse(smiles).unwrap()), expected);
    }
}

#[test]
fn depth_is_no_danger() {
    let count = 100_000;
    let chain = parse(&"C".repeat(count)).unwrap();
    assert_eq!(write(&chain).len(), count);
    let nested = format!("{}C{}", "C(".repeat(count), ")".repeat(count));
    assert_eq!(write(&parse(&nested).unwrap()).len(), count + 1);
    assert!(parse(&"(".repeat(1_000_000)).is_err());
    assert!(parse(&"C(".repeat(1_000_000)).is_err());
    let rings = parse(&"c1ccccc1".repeat(count / 10)).unwrap();
    assert_eq!(rings.ring_count(), count / 10);
}

#[test]
fn symmetric_molecules_have_one_canonical_form() {
    const C60: &str = "c12c3c4c5c1c1c6c7c2c2c8c3c3c9c4c4c%10c5c5c1c1c6c6c%11c7c2c2c7c8c3c3c8c9c4c4c9c%10c5c5c1c1c6c6c%11c2c2c7c3c3c8c4c4c9c5c1c1c6c2c3c41";
    for (name, smiles) in [
        ("fullerene", C60),
        ("cubane", "C12C3C4C1C5C2C3C45"),
        ("dodecahedrane", "C12C3C4C5C1C1C6C2C2C3C3C4C4C5C1C1C6C2C3C41"),
        ("many methyls", "CC(C)(C)C(C(C)(C)C)(C(C)(C)C)C(C)(C)C"),
        ("[4.4.4] arms", "C(c1ccc(C(F)(F)F)cc1)(c1ccc(C(F)(F)F)cc1)(c1ccc(C(F)(F)F)cc1)c1ccc(C(F)(F)F)cc1"),
        ("porphine", "c1cc2cc3ccc([nH]3)cc3ccc(n3)cc3ccc([nH]3)cc1n2"),
    ] {
        let molecule = parse(smiles).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = canonical(&molecule);
        // Steps that share no factor with the length visit every atom once.
        let n = molecule.len();
        let gcd = |mut a: usize, mut b: usize| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        for step in (1..n).filter(|&step| gcd(step, n) == 1).take(12) {
            let order: Vec<usize> = (0..n).map(|i| (i * step + 3) % n).collect();
            assert_eq!(canonical(&molecule.induced(&order)), expected, "{name}, step {step}");
        }
    }
}

#[test]
fn canonical_forms_tell_molecules_apart() {
    for (a, b) in [
        ("c1ccccc1", "C1=CC=CCC1"),
        ("CC1=CC=CC=C1", "C=C1C=CC=CC1"),
        ("c1ccc2c(c1)cccc2", "c1cccc2cccc2c1"),
        ("C1CCCCC1.C1CCCCC1", "C1CCCCCCCCCCC1"),
        ("C1CC2CCC1CC2", "C1CCC2CCCC2C1"),
        ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ] {
        assert_ne!(canonical(&parse(a).unwrap()), canonical(&parse(b).unwrap()), "{a} {b}");
    }
    let o_xylene = ["CC1=CC=CC=C1C", "CC1=C(C)C=CC=C1"].map(|s| canonical(&parse(s).unwrap()));
    assert_eq!(o_xylene[0], o_xylene[1]);
}
