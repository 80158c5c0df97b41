//! Files as other programs write them, with the molecules that RDKit reads from them.

use flow_graph::data::{Cache, Components, Loaded, OpenOptions, open};
use flow_graph::smiles::{canonical, parse};

fn load_with(name: &str, bytes: &[u8], change: impl FnOnce(&mut OpenOptions)) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let mut options = OpenOptions::default();
    options.cache = Cache::Off;
    change(&mut options);
    open(&path, &options).unwrap_or_else(|e| panic!("{e}"))
}

fn load(name: &str, bytes: &[u8]) -> Loaded {
    load_with(name, bytes, |_| ())
}

/// Holds a file against the SMILES of its molecules and their names.
fn expect(name: &str, bytes: &[u8], molecules: &[(&str, &str)]) -> Loaded {
    let loaded = load(name, bytes);
    let found: Vec<_> =
        loaded.molecules.iter().zip(loaded.names.iter()).map(|(m, n)| (canonical(&m), n.to_string())).collect();
    let expected: Vec<_> = molecules.iter().map(|(s, n)| (canonical(&parse(s).unwrap()), n.to_string())).collect();
    assert_eq!(found, expected, "{name}: {}", loaded.summary());
    loaded
}

#[test]
fn lines_end_as_every_system_ends_them() {
    let three = [("CCO", ""), ("c1ccccc1", ""), ("CC(=O)O", "")];
    for end in ["\r", "\n", "\r\n"] {
        let text = ["CCO", "c1ccccc1", "CC(=O)O"].map(|s| s.to_string() + end).concat();
        expect("a.smi", text.as_bytes(), &three);
        expect(
            "a.csv",
            format!("id,smiles{end}1,CCO{end}2,c1ccccc1{end}3,CC(=O)O{end}").as_bytes(),
            &[("CCO", "1"), ("c1ccccc1", "2"), ("CC(=O)O", "3")],
        );
    }
    let block = flow_graph::sdf::write_record(&parse("CC=O").unwrap(), "m", None, &[]).unwrap();
    expect("a.sdf", [block.as_str(), &block].concat().replace('\n', "\r").as_bytes(), &[("CC=O", "m"), ("CC=O", "m")]);
}

#[test]
fn tables_are_cut_where_their_header_is_cut() {
    let two = [("CCO", "CHEMBL1"), ("c1ccccc1", "CHEMBL2")];
    for (name, text) in [
        (
            "a.csv",
            "\"ChEMBL ID\";\"Name\";\"Smiles\"\n\"CHEMBL1\";\"ETHANOL\";\"CCO\"\n\"CHEMBL2\";\"BENZENE\";\"c1ccccc1\"\n",
        ),
        ("a.csv", "chembl_id\tcanonical_smiles\nCHEMBL1\tCCO\nCHEMBL2\tc1ccccc1\n"),
        ("a.tsv", "chembl_id,canonical_smiles\nCHEMBL1,CCO\nCHEMBL2,c1ccccc1\n"),
        ("a.txt", "id|SMILES\nCHEMBL1|CCO\nCHEMBL2|c1ccccc1\n"),
        ("a.csv", "sep=;\nid;isosmiles\nCHEMBL1;CCO\nCHEMBL2;c1ccccc1\n"),
    ] {
        let loaded = load(name, text.as_bytes());
        let name_column = if text.contains("Name") { ["ETHANOL", "BENZENE"] } else { ["CHEMBL1", "CHEMBL2"] };
        let found: Vec<_> = loaded.molecules.iter().map(|m| canonical(&m)).collect();
        assert_eq!(found, two.map(|(s, _)| canonical(&parse(s).unwrap())), "{text}");
        assert_eq!(loaded.names.iter().collect::<Vec<_>>(), name_column, "{text}");
    }
    let odd = load_with("a.csv", b"id!smiles\n1!CCO\n", |options| options.separator = Some(b'!'));
    assert_eq!(odd.source_strings.get(0), Some("CCO"));
}

#[test]
fn headers_that_name_smiles() {
    for header in [
        "CanonicalSMILES",
        "isosmiles",
        "IsomericSMILES",
        "Canonical SMILES",
        "SMILES String",
        "rdkit_smiles",
        "SMILES (iso)",
        "PUBCHEM_OPENEYE_CAN_SMILES",
        "Smiles",
    ] {
        let loaded = load("a.csv", format!("key,{header}\nx,CCO\n").as_bytes());
        assert_eq!((loaded.source_strings.get(0), loaded.column.as_deref()), (Some("CCO"), Some(header)));
        if !header.contains(' ') {
            assert_eq!(load("a.smi", format!("{header} name\nCCO x\n").as_bytes()).entry_count, 1, "{header}");
        }
    }
    // The plainest name wins, wherever it stands.
    let loaded = load("a.csv", b"ligand_smiles,smiles,mol\nC,CC,CCC\n");
    assert_eq!(loaded.source_strings.get(0), Some("CC"));
    assert!(load("a.csv", b"id,isosmiles\n1,CC\n").summary().contains("SMILES in column 'isosmiles'"));
}

#[test]
fn extensions_and_names_in_fields() {
    let loaded = expect(
        "a.csv",
        b"key,SMILES,note\n1,\"CCO |$;;x$|\",a\n2,CCN name,b\n3,CCC,c\n",
        &[("CCO", ""), ("CCN", "name"), ("CCC", "")],
    );
    assert_eq!(loaded.extensions, 1);
    assert!(loaded.summary().contains("1 CXSMILES extension"), "{}", loaded.summary());
    expect(
        "a.smi",
        b"CCO |$;;x$| spirit of wine\nCCN,amine\nCCC;gas\nCC |c:1|\n",
        &[("CCO", "spirit of wine"), ("CCN", "amine"), ("CCC", "gas"), ("CC", "")],
    );
}

#[test]
fn names_in_latin_1() {
    let loaded =
        expect("a.smi", b"CCO \xb5-ol\nCCN gr\xfcn\nCC plain\n", &[("CCO", "µ-ol"), ("CCN", "grün"), ("CC", "plain")]);
    assert_eq!(loaded.latin1, 2);
    assert!(loaded.summary().contains("2 lines read as Latin-1"), "{}", loaded.summary());
    expect("a.csv", b"smiles,name\nCCO,\"gr\xfcn, hell\"\n", &[("CCO", "grün, hell")]);
}

/// What is no molecule of its own neither throws the drug away nor takes its place.
#[test]
fn counter_ions_that_cannot_be_read() {
    let loaded = expect(
        "a.smi",
        b"CCCCCCN.O[Cl](=O)(=O)=O salt\nCCCCCCN.[Na]OC alk\nCCCCO ok\n[Pt](Cl)Cl.NCCCCCN pt\nCC[CH2].CCCCC rad\n",
        &[("CCCCCCN", "salt"), ("CCCCCCN", "alk"), ("CCCCO", "ok"), ("NCCCCCN", "pt"), ("CCCCC", "rad")],
    );
    assert_eq!((loaded.multi_component, loaded.unreadable_components), (4, 3));
    assert!(loaded.summary().contains("3 unreadable components"), "{}", loaded.summary());
    let loaded = load("a.smi", b"C[Pt](Cl)(Cl)CCCCC.CCN\nCCO\n");
    assert_eq!((loaded.len(), loaded.bad_count), (1, 1), "the ion is not the drug");
    assert!(loaded.bad[0].reason.contains("Pt") && loaded.bad[0].column == 2, "{:?}", loaded.bad);
    let strict = load_with("a.smi", b"CCN.[Na]OC\nC\n", |options| options.components = Components::Refuse);
    assert_eq!(strict.bad_count, 1);
    let arguments = Loaded::from_strings(&["CCCCCCN.[Na]OC salt", "CCQ", "CCO"], "the arguments", Components::Largest);
    assert_eq!((arguments.len(), arguments.name(0), arguments.lines.as_slice()), (2, Some("salt"), [1, 3].as_slice()));
    assert_eq!((arguments.bad[0].line, arguments.bad[0].source.as_str()), (2, "CCQ"));
}

/// RDKit's canonical SMILES of hypervalent halogens, and what it refuses.
#[test]
fn hypervalent_halogens() {
    for (written, rdkit) in [
        ("OCl(=O)(=O)=O", "[O-][Cl+3]([O-])([O-])O"),
        ("O=Cl(=O)O", "[O-][Cl+2]([O-])O"),
        ("OI(=O)(=O)=O", "[O-][I+3]([O-])([O-])O"),
        ("c1ccccc1I(=O)=O", "O=I(=O)c1ccccc1"),
        ("COCl(=O)(=O)=O", "CO[Cl+3]([O-])([O-])[O-]"),
        ("[O-]Cl(=O)(=O)=O", "[O-][Cl+3]([O-])([O-])[O-]"),
        ("OBr(=O)=O", "[O-][Br+2]([O-])O"),
        ("OCl=O", "[O-][Cl+]O"),
        ("OI(O)(O)(O)(O)=O", "[O-][I+](O)(O)(O)(O)O"),
        ("OI=O", "[O-][I+]O"),
        ("OI(=O)=O", "[O-][I+2]([O-])O"),
        ("O=Cl(=O)(=O)OCl(=O)(=O)=O", "[O-][Cl+3]([O-])([O-])O[Cl+3]([O-])([O-])[O-]"),
        ("ClI(Cl)Cl", "ClI(Cl)Cl"),
        ("FI(F)(F)(F)F", "FI(F)(F)(F)F"),
        ("c1ccccc1[I+]c1ccccc1", "c1ccc([I+]c2ccccc2)cc1"),
    ] {
        let molecule = parse(written).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(canonical(&molecule), canonical(&parse(rdkit).unwrap()), "{written}");
        #[cfg(feature = "chem")]
        assert_eq!(flow_graph::chem::canonical_smiles(&molecule).unwrap(), rdkit, "{written}");
    }
    for refused in ["CCl(=O)=O", "FBr(F)F", "FCl(F)F", "FI(F)(F)(F)(F)(F)F", "CI(O)(=O)=O"] {
        assert!(parse(refused).is_err(), "{refused}");
    }
}

#[test]
fn aromatic_tellurium_and_silicon() {
    for (smiles, atoms) in [("c1cc[te]c1", 5), ("[siH]1ccccc1", 6), ("C[si]1ccccc1", 7), ("c1ccc2[te]ccc2c1", 9)] {
        let molecule = parse(smiles).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(molecule.len(), atoms);
        #[cfg(feature = "chem")]
        assert!(flow_graph::chem::canonical_smiles(&molecule).unwrap().contains("c1"), "{smiles}");
    }
}

fn sd(symbols: &[&str], bonds: &[(usize, usize, u8)]) -> String {
    let mut text = format!("m\n  prog\n\n{:3}{:3}  0  0  0  0            999 V2000\n", symbols.len(), bonds.len());
    symbols.iter().for_each(|s| text += &format!("    0.0000    0.0000    0.0000 {s:<3} 0  0  0  0  0\n"));
    bonds.iter().for_each(|(a, b, kind)| text += &format!("{a:3}{b:3}{kind:3}  0\n"));
    text + "M  END\n$$$$\n"
}

#[test]
fn symbols_in_capitals() {
    let one = |symbol: &str| sd(&["C", symbol], &[(1, 2, 1)]);
    let text =
        [one("CL"), one("BR"), one("SI"), one("cl"), one("O"), sd(&["C", "SE", "C"], &[(1, 2, 1), (2, 3, 1)])].concat();
    expect(
        "a.sdf",
        text.as_bytes(),
        &[("CCl", "m"), ("CBr", "m"), ("C[SiH3]", "m"), ("CCl", "m"), ("CO", "m"), ("C[Se]C", "m")],
    );
}

#[test]
fn bonds_of_order_zero_are_refused() {
    for (text, reason) in [
        (sd(&["C", "O"], &[(1, 2, 0)]), "order zero"),
        (sd(&["C", "O"], &[(1, 2, 8)]), "expected a bond type"),
        (sd(&["C", "O"], &[(1, 2, 1)]).replace("M  END", "M  ZBO  1   1   0\nM  END"), "order zero"),
        (sd(&["C", "O"], &[(1, 2, 1)]).replace("M  END", "M  ZCH  1   1   1\nM  END"), "order zero"),
    ] {
        let loaded = load("a.sdf", [text.as_str(), &sd(&["C"], &[])].concat().as_bytes());
        assert_eq!((loaded.len(), loaded.bad_count), (1, 1));
        assert!(loaded.bad[0].reason.contains(reason), "{:?}", loaded.bad);
    }
}

/// A table of the extended format from shorthand.
fn v3000(atoms: &[&str], bonds: &[&str]) -> String {
    let line = |text: &str| format!("M  V30 {text}\n");
    let mut text = "m\n  prog\n\n  0  0  0     0  0            999 V3000\n".to_string() + &line("BEGIN CTAB");
    text += &line(&format!("COUNTS {} {} 0 0 0", atoms.len(), bonds.len()));
    text += &line("BEGIN ATOM");
    atoms.iter().for_each(|atom| text += &line(atom));
    text += &(line("END ATOM") + &line("BEGIN BOND"));
    bonds.iter().for_each(|bond| text += &line(bond));
    text + &line("END BOND")
        + &line("BEGIN COLLECTION")
        + &line("MDLV30/STEABS ATOMS=(1 1)")
        + &line("END COLLECTION")
        + &line("END CTAB")
        + "M  END\n> <id>\n7\n\n$$$$\n"
}

#[test]
fn the_extended_format() {
    let text = [
        v3000(
            &["1 C 0 0 0 0 CFG=2", "2 N 1.2 0 0 0 CHG=1", "3 C 2 1 0 0", "4 C 2 -1 0 -\nM  V30 0", "5 C 1 2 0 0"],
            &["1 1 1 2", "2 1 2 3 CFG=3", "3 1 2 4", "4 1 2 5"],
        ),
        v3000(&["10 C 0 0 0 0", "30 CL 1 0 0 0", "20 O 1 1 0 0"], &["1 1 10 30", "2 1 10 20"]),
        v3000(
            &["1 C 0 0 0 0", "2 C 0 0 0 0", "3 N 0 0 0 0", "4 C 0 0 0 0", "5 C 0 0 0 0"],
            &["1 4 1 2", "2 4 2 3", "3 4 3 4", "4 4 4 5", "5 4 5 1"],
        ),
        v3000(&["1 C 0 0 0 0", "2 O 0 0 0 0 CHG=-1", "3 Na 0 0 0 0 CHG=1"], &["1 1 1 2"]),
    ]
    .concat();
    let loaded =
        expect("a.sdf", text.as_bytes(), &[("C[N+](C)(C)C", "m"), ("OCCl", "m"), ("c1cc[nH]c1", "m"), ("C[O-]", "m")]);
    assert_eq!((loaded.multi_component, loaded.dropped.stereo), (1, 2));
    for (record, reason) in [
        (v3000(&["1 C 0 0 0 0", "2 O 0 0 0 0"], &["1 9 1 2"]), "found 9"),
        (v3000(&["1 C 0 0 0 0", "2 O 0 0 0 0"], &["1 0 1 2"]), "order zero"),
        (v3000(&["1 C 0 0 0 0", "2 O 0 0 0 0"], &["1 1 1 3"]), "no atom with the number 3"),
        (v3000(&["1 C 0 0 0 0 RAD=2"], &[]), "radicals"),
        (v3000(&["1 R# 0 0 0 0"], &[]), "found 'R#'"),
        (v3000(&["1 C 0 0 0 0", "1 O 0 0 0 0"], &[]), "a second atom has the number 1"),
        (v3000(&["1 C 0 0 0 0"], &[]).replace("COUNTS 1 0", "COUNTS 2 0"), "2 atoms and 0 bonds are stated"),
        (v3000(&["1 C 0 0 0 0 CHG=99"], &[]), "-15 to +15"),
        (v3000(&["1 C 0 0 nan 0"], &[]), "finite"),
        (v3000(&["1 C 0 0 0 0"], &[]).replace("M  V30 END CTAB\n", ""), "END CTAB"),
    ] {
        let error = flow_graph::sdf::parse_molblock(&record).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
