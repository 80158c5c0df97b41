use std::io::Cursor;

use super::*;
use crate::smiles::{canonical, parse, write};
use crate::{Error, Result};

/// Lines of a block from shorthand: atoms as (symbol, charge code), bonds as (a, b, type).
fn block(atoms: &[(&str, u8)], bonds: &[(usize, usize, u8)], more: &str) -> String {
    let mut text = format!("name\n\n\n{:3}{:3}  0  0  0  0  0  0  0  0999 V2000\n", atoms.len(), bonds.len());
    for (i, (symbol, charge)) in atoms.iter().enumerate() {
        text += &format!(
            "{:10.4}{:10.4}{:10.4} {symbol:<3} 0{charge:3}  0  0  0  0  0  0  0  0  0  0\n",
            i as f64, 0.5, 0.0
        );
    }
    for (a, b, kind) in bonds {
        text += &format!("{a:3}{b:3}{kind:3}  0\n");
    }
    text + more + "M  END\n"
}

fn smiles_of(text: &str) -> Result<String> {
    Ok(canonical(&parse_molblock(text)?.molecule))
}

fn ring(symbols: &[&str]) -> String {
    let n = symbols.len();
    let atoms: Vec<_> = symbols.iter().map(|&s| (s, 0)).collect();
    let bonds: Vec<_> = (1..=n).map(|i| (i, i % n + 1, 4)).collect();
    block(&atoms, &bonds, "")
}

#[test]
fn aromatic_rings_find_their_hydrogens() {
    for (symbols, expected) in [
        (vec!["C"; 6], "c1ccccc1"),
        (vec!["N", "C", "C", "C", "C"], "[nH]1cccc1"),
        (vec!["N", "C", "N", "C", "C"], "c1c[nH]cn1"),
        (vec!["N", "C", "C", "C", "C", "C"], "n1ccccc1"),
        (vec!["S", "C", "N", "C", "C"], "s1cncc1"),
        (vec!["O", "N", "N", "C", "C"], "o1nncc1"),
        (vec!["N", "N", "N", "C", "C", "C"], "n1nnccc1"),
    ] {
        assert_eq!(smiles_of(&ring(&symbols)).unwrap(), canonical(&parse(expected).unwrap()), "{expected}");
    }
    assert!(smiles_of(&ring(&["C"; 5])).unwrap_err().to_string().contains("no Kekulé form"));
}

#[test]
fn charges_come_from_either_place() {
    let bonds = [(1, 2, 1)];
    assert_eq!(smiles_of(&block(&[("C", 0), ("O", 5)], &bonds, "")).unwrap(), "C[O-]");
    assert_eq!(smiles_of(&block(&[("C", 0), ("O", 0)], &bonds, "M  CHG  1   2  -1\n")).unwrap(), "C[O-]");
    // A line of charges replaces all charges of the atom lines.
    assert_eq!(smiles_of(&block(&[("N", 3), ("O", 5)], &bonds, "M  CHG  1   1   1\n")).unwrap(), "[NH3+]O");
}

#[test]
fn hydrogens_are_merged_and_coordinates_kept() {
    let text = block(&[("H", 0), ("C", 0), ("D", 0), ("O", 0)], &[(1, 2, 1), (2, 3, 1), (2, 4, 1)], "");
    let record = parse_molblock(&text.replace('\n', "\r\n")).unwrap();
    assert_eq!((write(&record.molecule).as_str(), record.name.as_str()), ("CO", "name"));
    assert_eq!(record.coordinates, [[1.0, 0.5, 0.0], [3.0, 0.5, 0.0]]);
    assert_eq!((record.dropped.hydrogens, record.dropped.isotopes), (2, 1));
}

#[test]
fn malformed_blocks_name_the_place() {
    let good = || block(&[("C", 0), ("O", 0)], &[(1, 2, 1)], "");
    let carbons = |bonds: &[(usize, usize, u8)]| block(&[("C", 0); 7], bonds, "");
    for (text, line, column, reason) in [
        (String::new(), 1, 1, "the record ends here"),
        ("a\nb\n".into(), 2, 1, "the record ends here"),
        (good().replace("V2000", "V3000"), 5, 1, "begins with M  V30"),
        (good().replace("V2000", "V9"), 4, 34, "expected V2000 or V3000"),
        (good().replacen("  2  1", "  x  1", 1), 4, 1, "the number of atoms"),
        (good().replacen("  2  1  0", "  0  0  0", 1), 4, 1, "at least one atom"),
        (good().replacen("  2  1  0", "  5  1  0", 1), 7, 1, "a coordinate"),
        (good().replace(" O  ", " Xx "), 6, 32, "an element"),
        (good().replace("    1.0000", "    1.0O00"), 6, 1, "'1.0O00'"),
        (good().replace("    1.0000", "       inf"), 6, 1, "finite"),
        (good().replace("    1.0000", "   é1.0000"), 6, 4, "ASCII"),
        (good().replace("  1  2  1  0", "  1  3  1  0"), 7, 4, "an atom from 1 to 2"),
        (good().replace("  1  2  1  0", "  1  2  8  0"), 7, 7, "found 8"),
        (good().replace("  1  2  1  0", "  1  1  1  0"), 7, 4, "to itself"),
        (carbons(&[(1, 2, 1), (2, 1, 1)]), 13, 1, "second bond"),
        (carbons(&[(1, 2, 3), (1, 3, 2)]), 5, 32, "at most 4"),
        (block(&[("C", 4)], &[], ""), 5, 37, "radicals"),
        (block(&[("C", 0)], &[], "M  RAD  1   1   2\n"), 6, 1, "radicals"),
        (block(&[("C", 0)], &[], "M  CHG  1   2   1\n"), 6, 10, "from 1 to 1"),
        (block(&[("C", 0)], &[], "M  CHG  1   1  99\n"), 6, 14, "-15 to +15"),
        (format!("{}junk\n", good()), 9, 1, "a data field"),
    ] {
        match parse_molblock(&text) {
            Err(Error::Line { line: l, column: c, reason: why, .. }) => {
                assert!((l, c) == (line, column) && why.contains(reason), "{text}: {l}:{c} {why}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_file_goes_on_after_a_bad_record() {
    let field = |name: &str| [("id".to_string(), format!("{name} 1\nand more"))];
    let record = |name| write_record(&parse("CC[NH3+].[Cl-]").unwrap(), name, None, &field(name)).unwrap();
    let text = format!("{}bad\n\n\n$$$$\n{}\n\n", record("first"), record("second"));
    let records: Vec<_> = Records::new(Cursor::new(text), "two.sdf").collect();
    assert_eq!(records.len(), 3);
    let first = records[0].as_ref().unwrap();
    assert_eq!((first.name.as_str(), first.line, &first.properties[..]), ("first", 1, &field("first")[..]));
    let lines = first_lines(&record("first"));
    let message = records[1].as_ref().unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("two.sdf: line {}, column 1: expected the counts line", lines + 3)),
        "{message}"
    );
    let last = records[2].as_ref().unwrap();
    assert_eq!((last.name.as_str(), last.line), ("second", lines + 5));
    assert_eq!(write(&last.molecule), "CC[NH3+].[Cl-]");
}

fn first_lines(text: &str) -> usize {
    text.lines().count()
}

#[test]
fn compressed_files_are_read() {
    let path = tempfile::tempdir().unwrap().keep().join("one.sdf.gz");
    let mut encoder = flate2::write::GzEncoder::new(std::fs::File::create(&path).unwrap(), Default::default());
    let text = write_record(&parse("c1ccncc1").unwrap(), "pyridine", None, &[]).unwrap();
    std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
    encoder.finish().unwrap();
    let records: Vec<_> = open(&path).unwrap().collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].as_ref().unwrap().molecule.len(), 6);
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn records_that_would_not_read_back_are_refused() {
    let methane = parse("C").unwrap();
    let long = parse(&"C".repeat(1000)).unwrap();
    let field = |name: &str, value: &str| vec![(name.to_string(), value.to_string())];
    assert!(write_record(&long, "", None, &[]).is_err());
    assert!(write_record(&methane, "a\nb", None, &[]).is_err());
    assert!(write_record(&methane, "", Some(&[]), &[]).is_err());
    assert!(write_record(&methane, "", Some(&[(f64::NAN, 0.0)]), &[]).is_err());
    assert!(write_record(&methane, "", None, &field("a>", "b")).is_err());
    assert!(write_record(&methane, "", None, &field("a", "b\n\nc")).is_err());
    let text = write_record(&methane, "m", Some(&[(-1.5, 2.25)]), &field("a", "b")).unwrap();
    assert_eq!(parse_molblock(&text).unwrap().coordinates, [[-1.5, 2.25, 0.0]]);
}

/// Bonds that RDKit's writer marks as either, and those that it leaves alone.
#[test]
fn double_bonds_say_that_their_stereo_is_not_known() {
    for (smiles, marked) in [
        ("CC=CC", 1),
        ("CC=C(C)C", 0),
        ("C=CC", 0),
        ("CC=NO", 1),
        ("CC=N", 0),
        ("CN=NC", 1),
        ("C1=CCCCCC1", 0),
        ("C1=CCCCCCC1", 1),
        ("CC=C=CC", 0),
        ("FC(Cl)=C(F)Cl", 1),
        ("CC=CC=CC", 2),
        ("CC=C1CCCCC1", 0),
        ("CC=C1CCCCC1C", 1),
        ("C(=Cc1ccccc1)c1ccccc1", 1),
        ("CS(C)=N", 0),
        ("CN=P(C)(C)C", 0),
        ("CN=C=NC", 0),
        ("CC(C)=NN", 0),
        ("NC(N)=NC", 0),
        ("CC(=NC)N", 1),
        ("CC=[N+](C)[O-]", 1),
        ("CC=C(CC)CC", 0),
        ("CC(F)C(Br)I", 0),
    ] {
        let molecule = parse(smiles).unwrap();
        let text = write_record(&molecule, "m", None, &[]).unwrap();
        let bonds = text.lines().skip(4 + molecule.len()).take(molecule.bond_count());
        let stereo: Vec<&str> = bonds.map(|line| line[9..12].trim()).collect();
        assert_eq!(stereo.iter().filter(|s| **s == "3").count(), marked, "{smiles}: {text}");
        assert!(stereo.iter().all(|s| matches!(*s, "0" | "3")), "{smiles}: {text}");
        // A mark that says nothing is nothing dropped.
        assert_eq!(parse_molblock(&text).unwrap().dropped.stereo, 0, "{smiles}");
    }
}
