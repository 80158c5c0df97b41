use super::*;

/// An array as `numpy.save` writes it.
fn npy(descr: &str, fortran: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    with(&format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"), body)
}

fn with(header: &str, body: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

#[test]
fn fortran_order_is_the_same_array() {
    // numpy.array([[[0, 1, 2], [3, 4, 5]]], order="F").tobytes("A")
    let array = Array::parse(&npy("'|u1'", "True", "(1, 2, 3)", &[0, 3, 1, 4, 2, 5])).unwrap();
    assert_eq!((array.shape(), array.as_bytes().unwrap()), (&[1, 2, 3][..], &[0, 1, 2, 3, 4, 5][..]));
    let wide = Array::parse(&npy("'<u2'", "True", "(2, 2)", &[0, 0, 2, 0, 1, 0, 3, 0])).unwrap();
    assert_eq!(wide.values().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!((wide.as_bytes(), wide.len(), wide.scalar().name()), (None, 4, "uint16".into()));
}

#[test]
fn headers_of_every_version_and_of_records_are_read() {
    let header = "{\"descr\": '<f4', 'shape': (3L, 2L), 'fortran_order': False}";
    let start = [b"\x93NUMPY\x02\x00", &(header.len() as u32).to_le_bytes()[..]].concat();
    let bytes = [&start, header.as_bytes(), &[0; 24]].concat();
    assert_eq!(Array::parse(&bytes).unwrap().shape(), [3, 2]);
    let records = npy("[('ä', '<f4'), ('b', '|b1')]", "False", "(1,)", &[0; 5]);
    let (header, rest) = Header::parse(&records).unwrap();
    assert_eq!((header.shape, rest.len()), (vec![1], 5));
    assert!(matches!(header.descr, Literal::List(fields) if fields.len() == 2));
    assert_eq!(Array::parse(&records), Err(Fault::Elements { descr: "records".into() }));
}

#[test]
fn what_is_no_array_is_refused_with_its_place() {
    let floats = |shape: &str, bytes: usize| npy("'<f4'", "False", shape, &vec![0; bytes]);
    for (bytes, said) in [
        (vec![], "byte 0: expected the magic bytes of a NumPy file, found []"),
        (b"\x93NUMPX\x01\x00\x00\x00".to_vec(), "byte 0"),
        (b"\x93NUMPY\x01".to_vec(), "byte 6: expected a version from 1 to 3"),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "byte 6"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "byte 8: expected a header inside the file"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "found a length of 4294967295"),
        (with("{'d\u{1}", &[]), "byte 13: expected printable ASCII"),
        (with("{'descr': '<f4'}", &[]), "byte 10: expected a dictionary with 'descr'"),
        (with(&"(".repeat(9000), &[]), "byte 10"),
        (npy("'<f4'", "Perhaps", "(2, 3)", &[0; 24]), "byte 10"),
        (floats("(-2, 3)", 24), "byte 10"),
        (floats("(2, 99999999999999999999999999)", 24), "byte 10"),
        (floats("(2, 4)", 24), "expected an array of shape (2, 4) of 4 bytes an element, found 24 bytes of data"),
        (floats("(4000000000, 4000000000, 4000000000)", 24), "found 24 bytes"),
        (floats("(0, 9999999999999999999, 3)", 0), "found 0 bytes"),
        (floats("(0, 3)", 0), "found 0 bytes"),
        (npy("'<c8'", "False", "(1,)", &[0; 8]), "expected elements of type bool, integer or float"),
        (npy("'\nu1'", "False", "(1,)", &[0; 8]), "found elements '\\nu1'"),
    ] {
        let error = Array::parse(&bytes).unwrap_err().to_string();
        assert!(error.contains(said) && error.len() < 300 && !error.contains('\n'), "{said}: {error}");
    }
}

#[test]
fn names_of_members_fit_a_line() {
    assert_eq!([member_name("x.npy"), member_name("y")], [Ok("x"), Ok("y")]);
    assert_eq!(member_name("a\nb.npy"), Err("a member named 'a\\nb.npy'".into()));
}

#[test]
fn what_is_written_is_read_again() {
    let bytes = encode(&[2, 1, 3], &[1_i64, -2, 3, 4, 5, 1 << 40]).unwrap();
    assert_eq!(bytes.len(), 128 + 48);
    let array = Array::parse(&bytes).unwrap();
    assert_eq!((array.shape(), array.scalar().name()), (&[2, 1, 3][..], "int64".into()));
    assert_eq!(array.values().collect::<Vec<_>>(), [1.0, -2.0, 3.0, 4.0, 5.0, 1_099_511_627_776.0]);
    assert_eq!(Array::parse(&encode(&[2], &[0.5_f64, 1e300]).unwrap()).unwrap().values().sum::<f64>(), 1e300 + 0.5);
    assert!(encode(&[2, 2], &[1_u8; 3]).unwrap_err().to_string().contains("3 values for an array of shape (2, 2)"));
    assert!(encode(&[u64::MAX, 2], &[1_u8; 2]).is_err());
}

#[test]
fn members_unfold_to_what_their_archive_can_hold() {
    assert_eq!(unfold(&[7; 2000][..], 2).unwrap(), [7; 2000]);
    assert!(unfold(io::repeat(0), 2).unwrap_err().to_string().contains("more than 2064 bytes in an archive of 2"));
}
