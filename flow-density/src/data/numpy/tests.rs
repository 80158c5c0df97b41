use std::io::Write as _;

use super::*;
use crate::data::{Reading, Table};

/// An array as `numpy.save` writes it.
fn npy(descr: &str, fortran: bool, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let descr = if descr.starts_with('[') { descr.to_string() } else { format!("'{descr}'") };
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': ({shape}), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), numbers].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn read(name: &str, bytes: &[u8], reading: &Reading) -> Result<Table, String> {
    Table::parse(name.as_ref(), bytes, reading).map_err(|error| error.to_string())
}

fn singles(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[test]
fn arrays_of_every_type_and_order() {
    let values = |bytes: &[u8]| read("a.npy", bytes, &Reading::default()).map(|t| (t.columns(), t.values().to_vec()));
    let expected = Ok((2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let doubles: Vec<u8> = (0..6).flat_map(|i| f64::from(i).to_le_bytes()).collect();
    let shorts: Vec<u8> = (0..6_i16).flat_map(i16::to_be_bytes).collect();
    assert_eq!(values(&npy("<f4", false, "3, 2", &singles(6))), expected);
    assert_eq!(values(&npy("<f8", false, "3, 2", &doubles)), expected);
    assert_eq!(values(&npy(">i2", false, "3, 2", &shorts)), expected);
    assert_eq!(values(&npy("|u1", false, "3, 2", &[0, 1, 2, 3, 4, 5])), expected);
    assert_eq!(values(&npy("|b1", false, "2, 2", &[0, 1, 1, 0])), Ok((2, vec![0.0, 1.0, 1.0, 0.0])));
    assert_eq!(values(&npy("|i1", true, "3, 2", &[0, 2, 4, 1, 3, 5])), expected);
    assert_eq!(values(&npy("<f4", false, "6,", &singles(6))), Ok((1, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
    // Version 2.0, of Python 2.
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L)}";
    let second =
        [b"\x93NUMPY\x02\x00".as_slice(), &(header.len() as u32).to_le_bytes(), header.as_bytes(), &singles(6)];
    assert_eq!(values(&second.concat()), expected);
    // A far column keeps its digits.
    let far: Vec<u8> = [5155487.5291, 1.0].iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
    assert_eq!(values(&npy("<f8", false, "1, 2", &far)), Ok((2, vec![5155487.5291, 1.0])));
}

#[test]
fn records_have_names() {
    let row = |a: f32, b: i64| [a.to_le_bytes().as_slice(), &b.to_le_bytes()].concat();
    let bytes = npy("[('a', '<f4'), ('b', '<i8')]", false, "2,", &[row(1.5, 7), row(2.5, (1 << 53) + 1)].concat());
    let table = read("a.npy", &bytes, &Reading::default()).unwrap();
    assert_eq!((table.names().join("/"), table.values()), ("a/b".into(), &[1.5, 7.0, 2.5, 9007199254740992.0][..]));
    assert!(table.notes()[0].contains("column 2 ('b'): 1 numbers have more digits"), "{:?}", table.notes());
    let words = npy("[('a', '<f4'), ('s', '<U2')]", false, "1,", &[0; 12]);
    let error = read("a.npy", &words, &Reading::default()).unwrap_err();
    assert!(error.contains("field 's': numbers of type '<U2'") && error.contains("words"), "{error}");
}

#[test]
fn other_types_are_named_with_what_to_do() {
    for (descr, remedy) in [
        ("<U10", "these are words"),
        ("|O", "astype('float64')"),
        ("<c16", "real and imaginary"),
        ("<M8[ns]", "times"),
        ("<f16", "2, 4 or 8 bytes"),
        ("<i3", "integers"),
        ("f", "2, 4 or 8 bytes"),
        ("", "integers"),
        ("|V8", "integers"),
    ] {
        let error = read("a.npy", &npy(descr, false, "2, 2", &[0; 16]), &Reading::default()).unwrap_err();
        assert!(error.contains(&format!("type '{descr}'")) && error.contains(remedy), "{error}");
    }
}

#[test]
fn arrays_that_lie_are_refused() {
    let table = |bytes: &[u8]| read("a.npy", bytes, &Reading::default());
    for (bytes, expected) in [
        (npy("<f4", false, "4, 2", &singles(6)), "24 bytes of numbers, expected as many as a shape of (4, 2)"),
        (npy("<f4", false, "2, 2", &singles(6)), "24 bytes of numbers"),
        (npy("<f4", false, "9999999999999999, 9999999", &singles(6)), "shape (9999999999999999, 9999999)"),
        (npy("<f4", false, "99999999999999999999, 2", &singles(6)), "not an NPY file"),
        (npy("<f4", false, "3, 2, 1", &singles(6)), "shape (3, 2, 1), expected rows and columns: save it with reshape"),
        (npy("<f4", false, "", &singles(1)), "shape ()"),
        (npy("<f4", false, "0, 2", &[]), "shape (0, 2)"),
        (npy("<f4", false, "2, 0", &[]), "shape (2, 0)"),
        (npy("|O", false, "3, 2", &singles(6)), "type '|O'"),
        (npy("<f4", false, "3, 2", &singles(6))[..30].to_vec(), "not an NPY file"),
        (npy("<f4", false, "3, 2", &singles(6))[..80].to_vec(), "bytes of numbers"),
        (b"PK\x03\x04".to_vec(), "not an NPY file"),
        (Vec::new(), "not an NPY file"),
        (npy("<f4", false, "1, 2", &[0, 0, 0x80, 0x7f, 0, 0, 0, 0]), "row 1, column 1: inf"),
        (
            npy("<f4", false, "1, 2", &[0, 0, 0xc0, 0x7f, 0, 0, 0, 0]),
            "1 of 1 rows lacks a value (column 1: 1, first in row 1, 'NaN')",
        ),
        ([b"\x93NUMPY\x01\x00\x40\x00".as_slice(), &[b'['; 64]].concat(), "not an NPY file"),
    ] {
        let error = table(&bytes).unwrap_err();
        assert!(error.starts_with("a.npy: ") && error.contains(expected), "{error}");
    }
    let header = Reading { header: crate::data::Header::Yes, ..Reading::default() };
    assert!(read("a.npy", &npy("<f4", false, "3, 2", &singles(6)), &header).unwrap_err().contains("--header"));
}

#[test]
fn archives_give_their_table_or_ask() {
    let plain = Reading::default();
    let named = |name: &str| Reading { array: Some(name.into()), ..Reading::default() };
    let (square, vector) = (npy("<f4", false, "3, 2", &singles(6)), npy("<f4", false, "3,", &singles(3)));
    let alone = npz(&[("x.npy", square.clone())]);
    assert_eq!(read("a.npz", &alone, &plain).unwrap().columns(), 2);
    // What is no table stands back, and is named.
    let object = npy("|O", false, "1,", &[]);
    let table = read("a.npz", &npz(&[("meta.npy", object), ("x.npy", square.clone())]), &plain).unwrap();
    assert!(table.notes()[0].starts_with("array 'x' is read, and left out: 'meta'"), "{:?}", table.notes());
    let two = npz(&[("x.npy", square.clone()), ("y.npy", vector.clone())]);
    let error = read("a.npz", &two, &plain).unwrap_err();
    assert!(error.contains("2 arrays, expected one: choose with --array among 'x' (3, 2), 'y' (3,)"), "{error}");
    assert_eq!(read("a.npz", &two, &named("y")).unwrap().columns(), 1);
    assert!(read("a.npz", &two, &named("z")).unwrap_err().contains("no array 'z', expected one of 'x' (3, 2)"));
    // Columns that were saved one by one.
    let columns = npz(&[("length.npy", vector.clone()), ("width.npy", vector)]);
    let table = read("a.npz", &columns, &plain).unwrap();
    assert_eq!((table.names().join("/"), table.values()), ("length/width".into(), &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0][..]));
    for (bytes, expected) in [
        (b"PK\x03\x04".to_vec(), "not an NPZ archive"),
        (npz(&[]), "an archive without arrays"),
        (npz(&[("readme.txt", vec![1])]), "an archive without arrays"),
        (npz(&[("x.npy", vec![1, 2, 3])]), "array 'x': not an NPY file"),
        (npz(&[("x.npy", npy("<f4", false, "3, 2", &singles(5)))]), "array 'x': 20 bytes of numbers"),
    ] {
        let error = read("a.npz", &bytes, &plain).unwrap_err();
        assert!(error.starts_with("a.npz: ") && error.contains(expected), "{error}");
    }
    assert!(read("a.npy", &square, &named("x")).unwrap_err().contains("--array x; leave it out"));
}
