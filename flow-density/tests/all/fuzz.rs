//! Readers of tables on damaged and on random bytes: an answer or an error that names the file, never a panic, and numbers
//! that are finite.
//!
//! `FLOW_FUZZ=1000000 cargo test --release -p flow-density --test all fuzz` tries a million inputs for each format.

use std::io::{Cursor, Write as _};

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_density::data::{Columns, Data, Header, Missing, Reading, Table};

/// What the readers look for, and numbers that they should refuse.
const WORDS: [&[u8]; 22] = [
    b"nan",
    b"-1",
    b"99999999999999999999",
    b"1e400",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\xff",
    b",",
    b";",
    b"\"",
    b"\"\"",
    b"#",
    b"#N/A",
    b"1,234",
    b"0",
    b"'<f8'",
    b"(",
    b"True",
    b"'shape': (9999999999, 9999999999)",
    b"[('a', '<f4')]",
];

fn npy(descr: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), numbers].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in arrays {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Whole files of each format.
fn valid() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let rows: String = (0..12).map(|i| format!("{i},{},{}\n", i * i % 7, 0.5 * f64::from(i))).collect();
    let text = vec![
        format!("a,\"b, c\",d\n{rows}").into_bytes(),
        format!("# a b\n# more\n{}", rows.replace(',', " ")).into_bytes(),
        format!("a;b;c\n{}", rows.replace(',', ";")).into_bytes(),
        format!("a,b,species\n{}", rows.replace(".5\n", ".5,setosa\n")).into_bytes(),
        b"a,b\n1,2\n,3\nNA,4\n\"5\n\",6\n".to_vec(),
    ];
    let arrays = vec![
        npy("'<f4'", "3, 2", &[0; 24]),
        npy("'>i8'", "2, 2", &[1; 32]),
        npy("'|u1'", "5,", &[1, 2, 3, 4, 5]),
        npy("[('a', '<f2'), ('b', '|b1')]", "2,", &[0; 6]),
    ];
    let two = [("x.npy", arrays[0].clone()), ("y.npy", arrays[2].clone())];
    let archives = vec![
        npz(&two[..1], zip::CompressionMethod::Deflated),
        npz(&two[..1], zip::CompressionMethod::Stored),
        npz(&two, zip::CompressionMethod::Stored),
    ];
    vec![("fuzz.csv", text), ("fuzz.npy", arrays), ("fuzz.npz", archives)]
}

fn reading(rng: &mut FlowRng) -> Reading {
    let columns = [&[][..], &["a"], &["1-2"], &["b, c", "1"], &["2", "9"]][rng.below(5)];
    Reading {
        columns: columns.iter().map(ToString::to_string).collect(),
        missing: [Missing::Refuse, Missing::Drop][rng.below(2)],
        header: [Header::Auto, Header::Auto, Header::Yes, Header::No][rng.below(4)],
        class: [None, None, Some("species".into()), Some("1".into())][rng.below(4)].clone(),
        array: None,
    }
}

#[test]
fn fuzzed_tables_are_read_or_refused() {
    let inputs = fuzz::rounds(2000);
    for (name, seeds) in valid() {
        let mut rng = FlowRng::named(inputs.into(), name);
        let (mut read, mut split) = (0, 0);
        for _ in 0..inputs {
            let bytes = fuzz::input(&seeds, &WORDS, &mut rng);
            let reading = if name == "fuzz.csv" { reading(&mut rng) } else { Reading::default() };
            match Table::parse(name.as_ref(), &bytes, &reading) {
                Err(error) => assert!(is_a_line(&error.to_string(), name), "{error}"),
                Ok(table) => {
                    read += 1;
                    let whole = table.rows() * table.columns() == table.values().len();
                    assert!(whole && table.values().iter().all(|v| v.is_finite()), "{bytes:?}");
                    let Columns { names, numbers, .. } = table.chosen();
                    assert!((names.is_empty() || names.len() == numbers.len()) && !numbers.is_empty(), "{bytes:?}");
                    // Whatever was read can be split, or says why not.
                    match Data::from_table(&table, 1) {
                        Ok(data) => split += usize::from(data.warnings().len() <= 2 * data.columns()),
                        Err(error) => assert!(is_a_line(&error.to_string(), name), "{error}"),
                    }
                }
            }
        }
        assert!(
            read > 0 && read < inputs,
            "{name}: {read} of {inputs} read: damage is noticed, and not all of it deadly"
        );
        assert!(name != "fuzz.csv" || split > 0, "{name}");
    }
}

/// Whether a message begins with the file's name and is one line.
fn is_a_line(message: &str, name: &str) -> bool {
    message.starts_with(name) && !message.contains('\n')
}
