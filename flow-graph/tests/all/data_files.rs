//! Hostile files: an answer that names file, line and column, never a panic, nothing lost in silence.
//!
//! More cases of noise: `FLOW_FUZZ=1000000 cargo test --release -p flow-graph --no-default-features --test all data_files`.

// Helper functions of tests are no tests to the lint.

use std::io::Write;
use std::path::{Path, PathBuf};

use flow_graph::data::{Cache, Components, Loaded, OpenOptions, open};
use flow_graph::{Result, sdf, smiles};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{FileFailurePersistence, TestRunner};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.cache = Cache::Off;
    options
}

/// Opens a file of this name and content.
fn load(name: &str, bytes: &[u8], options: &OpenOptions) -> (Result<Loaded>, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (open(&path, options), path, folder)
}

/// Lines of SMILES that deflate cannot shrink to nothing, so that a cut goes through the middle.
fn many_lines() -> Vec<u8> {
    let mut rng = flow_core::FlowRng::seed_from(1);
    let line = |rng: &mut flow_core::FlowRng| {
        let atoms: String = (0..20).map(|_| ["C", "N", "O"][rng.below(3)]).collect();
        format!("{atoms}\n")
    };
    (0..20_000).flat_map(|_| line(&mut rng).into_bytes()).collect()
}

#[test]
fn files_without_use_are_errors_that_name_them() {
    let cut = {
        let whole = gzip(&many_lines());
        whole[..whole.len() / 2].to_vec()
    };
    let flipped = {
        let mut whole = gzip(&many_lines());
        let middle = whole.len() / 2;
        whole[middle..middle + 40].fill(0xff);
        whole
    };
    let huge = "C".repeat(10 << 20).into_bytes();
    let block = sdf::write_record(&smiles::parse("CCO").unwrap(), "x", None, &[]).unwrap();
    let (mol, broken) = (block.as_bytes(), block.replace("V2000", "V4000"));
    let polymer = format!("{} p\n", "C".repeat(50_000)).into_bytes();
    let utf16: Vec<u8> = "\u{feff}CCO\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let table: Vec<(&str, &[u8], &[&str])> = vec![
        ("a.smi", b"", &["is empty"]),
        ("a.csv", b"", &["is empty"]),
        ("a.sdf", b"", &["is empty"]),
        ("a.smi", b"\n# nothing\n\n", &["holds no molecules"]),
        ("a.smi", b"smiles\n", &["holds no molecules"]),
        ("a.csv", b"smiles,y\n", &["holds no molecules"]),
        ("a.csv", b"\n\n", &["holds no molecules"]),
        ("a.smi", b"C(\n", &["none of its 1 line is", "line 1, column 2: "]),
        ("a.smi", b"\n  CQ x\n", &["line 2, column 4: "]),
        ("a.smi", b"X\nX\nX\nX\n", &["none of its 4 lines", "line 3, column 1: ", "…"]),
        ("a.smi", b"C\xff\n", &["line 1, column 2: ", "found 'ÿ'"]),
        ("a.smi", &polymer, &["line 1, column 1: a molecule of 50000 atoms, at most 1000 are read"]),
        ("a.smi", &utf16, &["is text in UTF-16, expected UTF-8; save it as such"]),
        ("a.smi", b"C~C\n", &["line 1, column 2: '~' stands for any bond, or one of order zero"]),
        ("a.smi", b"N->C\n", &["line 1, column 2: dative bonds are not read"]),
        ("a.smi", b"C\0C\n", &["line 1, column 2: "]),
        ("a.smi", &huge, &["line 1, column 1048577: ", "longer than 1048576 bytes"]),
        ("a.csv", &huge, &["line 1, column 1: ", "longer than"]),
        ("a.sdf", &huge, &["line 1, column 1: ", "too long"]),
        ("a.smi.gz", &cut, &["line ", "column 1: the compressed data are damaged or cut off here"]),
        ("a.csv.gz", &cut[..cut.len().min(14)], &["line 1, column 1: the compressed data"]),
        ("a.sdf.gz", &cut, &["the compressed data are damaged"]),
        ("a.smi.gz", &flipped, &["line ", "the compressed data are damaged"]),
        ("a.bin.gz", &cut[..5], &["line 1, column 1: the compressed data"]),
        (
            "a.csv",
            b"name,logp\nx,1\n",
            &["line 1, column 1: ", "'name', 'logp'", "smiles, canonical_smiles", "--column"],
        ),
        ("a.csv", b"CCO,1\nCCN,2\n", &["line 1, column 1: ", "'CCO', '1'", "from a file that ends in .smi"]),
        ("a.csv", b"\nsmi\xffles,logp\nC,1\n", &["line 2, column 1: ", "'smiÿles'"]),
        ("a.csv", b"\"smiles,logp\nC,1\n", &["line 1, column 1: this quote is not closed"]),
        ("a.csv", b"smiles,y\nC\n", &["line 2, column 1: expected 2 fields as in the header, found 1"]),
        ("a.csv", b"y,smiles\n\"a\nb\",C(\n", &["line 3, column 5: "]),
        ("a.csv", b"y,smiles\n1,\"C(\"\n", &["line 2, column 5: "]),
        ("a.csv", b"y,smiles\n1,  \n", &["line 2, column 3: the field of the SMILES is empty"]),
        ("a.csv", b"y,smiles\n\"1\"x,C\n", &["line 2, column 4: expected a delimiter"]),
        ("a.tsv", b"y\tsmiles\n1\tC\0\n", &["line 2, column 4: "]),
        ("a.csv", b"PK\x03\x04\x00\x00\x00", &["line 1, column 1: "]),
        ("a.sdf", broken.as_bytes(), &["line 4, column 34: expected V2000 or V3000"]),
        ("a.mol", &mol[..mol.len() / 2], &["line "]),
        ("a.sdf", b"x\n$$$$\n", &["none of its 1 line", "line 1"]),
    ];
    for (name, bytes, expected) in table {
        let (outcome, path, _folder) = load(name, bytes, &options());
        let error = outcome.unwrap_err().to_string();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(expected.iter().all(|part| error.contains(part)), "{name} {shown:?}: {error}");
        assert!(error.len() < 1_000 && !error.contains('\n'), "{name} {shown:?}: {error}");
    }
}

#[test]
fn paths_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path(), &options()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
    let missing = folder.path().join("missing.smi");
    let error = open(&missing, &options()).unwrap_err().to_string();
    assert!(error.contains("missing.smi"), "{error}");
    #[cfg(unix)]
    assert!(open("/dev/zero", &options()).unwrap_err().to_string().contains("device"));
}

#[test]
fn a_wrong_column_lists_those_there_are() {
    let wanted = |column: &str| {
        let mut options = options();
        options.column = Some(column.into());
        options
    };
    let bytes = b"id,\"a, b\",SMILES\n7,N,CCO\n";
    let error = load("a.csv", bytes, &wanted("smile")).0.unwrap_err().to_string();
    assert!(
        error.contains("line 1, column 1: there is no column 'smile'; the header has 'id', 'a, b', 'SMILES'"),
        "{error}"
    );
    let loaded = load("a.csv", bytes, &wanted("a, b")).0.unwrap();
    assert_eq!((loaded.source_strings.get(0), loaded.name(0)), (Some("N"), Some("7")));
    assert_eq!(load("a.csv", bytes, &options()).0.unwrap().source_strings.get(0), Some("CCO"));
}

#[test]
fn good_lines_survive_bad_ones() {
    let text = b"\xef\xbb\xbfsmiles name\r\n# comment\r\nCCO ethanol\r\nC(\r\n\r\n C\tmethane gas \nC\xff\n[Na+].[O-]C(C)=O\nC[C@H](N)[13CH3]";
    for (name, bytes) in [("a.smi", text.to_vec()), ("a.txt", text.to_vec()), ("a.smi.gz", gzip(text))] {
        let loaded = load(name, &bytes, &options()).0.unwrap();
        assert_eq!(
            loaded.source_strings.iter().collect::<Vec<_>>(),
            ["CCO", "C", "[Na+].[O-]C(C)=O", "C[C@H](N)[13CH3]"]
        );
        assert_eq!(
            (0..4).map(|i| loaded.name(i)).collect::<Vec<_>>(),
            [Some("ethanol"), Some("methane gas"), None, None]
        );
        assert_eq!((&loaded.lines[..], &loaded.entries[..]), (&[3, 6, 8, 9][..], &[0, 2, 4, 5][..]));
        assert_eq!((loaded.bad_count, loaded.entry_count, loaded.multi_component), (2, 6, 1));
        assert_eq!((loaded.bad[0].line, loaded.bad[1].line, loaded.bad[1].column), (4, 7, 2));
        assert_eq!((loaded.dropped.stereo, loaded.dropped.isotopes), (1, 1));
        assert_eq!(loaded.molecules.get(2).unwrap().len(), 4);
        let mut strict = options();
        strict.components = Components::Refuse;
        let refused = load(name, &bytes, &strict).0.unwrap();
        assert!(refused.len() == 3 && refused.bad[2].reason.contains("2 components"), "{:?}", refused.bad);
        let summary = loaded.summary();
        assert!(
            summary.contains("4 molecules") && summary.contains("2 bad lines") && summary.contains("line 4"),
            "{summary}"
        );
    }
}

#[test]
fn members_of_gzip_are_one_text() {
    let bytes = [gzip(b"CC\nC"), gzip(b"N\nO\n")].concat();
    let loaded = load("a.smi.gz", &bytes, &options()).0.unwrap();
    assert_eq!(loaded.source_strings.iter().collect::<Vec<_>>(), ["CC", "CN", "O"]);
}

#[test]
fn a_quote_left_open_costs_one_line() {
    let rows: String = (0..200).map(|i| format!("CC,n{i}\n")).collect();
    let loaded = load("a.csv", format!("smiles,name\nC,\"oops\n{rows}").as_bytes(), &options()).0.unwrap();
    assert_eq!((loaded.len(), loaded.bad_count), (200, 1));
    assert_eq!(loaded.bad[0].to_string(), "line 2, column 3: this quote is not closed");
    assert_eq!(loaded.lines[0], 3);
    let loaded = load("a.csv", b"smiles,name\nC,\"two\nlines\"\nCC,x\n", &options()).0.unwrap();
    assert_eq!((loaded.name(0), &loaded.lines[..]), (Some("two\nlines"), &[2, 4][..]));
}

#[test]
fn records_of_sd_files_go_on_after_a_bad_one() {
    let record = |smiles: &str, name: &str| {
        let text = sdf::write_record(&smiles::parse(smiles).unwrap(), name, None, &[]).unwrap();
        if text.trim_end().ends_with("$$$$") { text } else { format!("{text}$$$$\n") }
    };
    let (first, last) = (record("CCO", "ethanol"), record("C#N", "cyanide"));
    let bad = first.replace("V2000", "V4000");
    let loaded = load("a.sdf", format!("{first}{bad}{last}").as_bytes(), &options()).0.unwrap();
    assert_eq!((loaded.name(0), loaded.name(1), loaded.bad_count), (Some("ethanol"), Some("cyanide"), 1));
    let lines = first.lines().count();
    assert_eq!((loaded.lines[1], loaded.bad[0].line), (2 * lines + 1, lines + 4));
    assert_eq!(loaded.source_strings.get(0), Some("CCO"));
}

const SEEDS: &[(&str, &[u8])] = &[
    ("a.smi", b"smiles name\n# c\nCCO ethanol\nc1ccccc1\tbenzene\n[Na+].[Cl-]\n\nC[N+](C)(C)CC(=O)[O-]\n"),
    ("a.csv", b"smiles,name,y\nCCO,ethanol,1\n\"C=C\",\"a, \"\"b\"\"\",2\nc1ccccc1,\"two\nlines\",3\n"),
    ("a.tsv", b"id\tsmiles\n1\tCCO\n2\tN#N\n3\t\"C\"\n"),
    ("a.dat", b"id,smiles\r\n1,CCO\r\n2,O=C=O\r\n"),
    (
        "b.csv",
        b"sep=;\n\"ChEMBL ID\";\"Smiles\"\n\"1\";\"CCO |$;;x$|\"\n\"2\";\"CCN.[Na]OC\"\n\"\xb5\";\"OCl(=O)(=O)=O\"\n",
    ),
    ("b.smi", b"CanonicalSMILES\rCCO;a\rCC[N]C\r[siH]1ccccc1 |c:1| \xe4\rC~C"),
    ("b.sdf", V3000),
];

/// Tetramethylammonium with a continued line, in the extended format.
const V3000: &[u8] = b"m\n  p\n\n  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB\nM  V30 COUNTS 5 4 0 0 1\nM  V30 BEGIN ATOM\nM  V30 7 C 0 0 0 0 CFG=2\nM  V30 2 N 1.2 0 0 0 CHG=1
M  V30 3 C 2 1 0 0\nM  V30 4 C 2 -1 0 -\nM  V30 0\nM  V30 5 C 1 2 0 0\nM  V30 END ATOM\nM  V30 BEGIN BOND\nM  V30 1 1 7 2
M  V30 2 1 2 3 CFG=3\nM  V30 3 1 2 4\nM  V30 4 1 2 5\nM  V30 END BOND\nM  V30 END CTAB\nM  END\n$$$$\n";

const PIECES: &[&[u8]] = &[
    b"\"",
    b",",
    b"\t",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xc3",
    b"#",
    b" ",
    b"smiles",
    b"C(",
    b"\"\"",
    b"\xef\xbb\xbf",
    b"\r",
    b";",
    b"|",
    b"M  V30 ",
    b"-\nM  V30 ",
    b"99",
];

fn check(name: &str, bytes: &[u8], folder: &Path) {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let lines = bytes.iter().filter(|&&b| matches!(b, b'\n' | b'\r')).count() + 1;
    match open(&path, &options()) {
        Ok(loaded) => {
            assert_eq!(loaded.len() + loaded.bad_count, loaded.entry_count);
            assert!(loaded.lines.iter().chain(loaded.bad.iter().map(|b| &b.line)).all(|&l| (1..=lines).contains(&l)));
            assert!(loaded.molecules.iter().all(|m| m.is_connected() && m.check_valences().is_ok()));
            assert_eq!(loaded.molecules.iter().count(), loaded.len());
        }
        Err(error) => assert!(error.to_string().contains(name), "{error}"),
    }
}

#[test]
fn mutated_files_never_panic() {
    let cases = flow_core::testing::fuzz::rounds(5_000);
    let edit = (any::<Index>(), 0usize..4, select(PIECES), any::<bool>());
    let strategy = (select(SEEDS), vec(edit, 0..6), any::<bool>());
    let config = ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let outcome = TestRunner::new(config).run(&strategy, |((name, seed), edits, compress)| {
        let mut bytes = if compress { gzip(seed) } else { seed.to_vec() };
        for (at, removed, piece, insert) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, if insert { piece.to_vec() } else { Vec::new() });
        }
        if compress && bytes.starts_with(&[0x1f, 0x8b]) {
            // The number of lines is unknown; that it ends well is what counts.
            std::fs::write(folder.path().join(name), &bytes).unwrap();
            open(folder.path().join(name), &options()).ok();
        } else {
            check(name, &bytes, folder.path());
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
