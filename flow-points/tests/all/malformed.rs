//! Files that are damaged, truncated or lie: an error that names the file and the place, never a panic.

use std::path::Path;

use crate::common::{npy, valid};
use flow_points::io::{Format, Shape, ply, read, read_bytes, write_npy};
use flow_points::{Cloud, Error};

fn refused(name: &str, format: Format, bytes: &[u8]) -> String {
    match read_bytes(Path::new(name), bytes, format) {
        Err(error @ (Error::Line { .. } | Error::Byte { .. } | Error::File { .. })) => {
            let message = error.to_string();
            assert!(message.starts_with(name), "{message}");
            message
        }
        Err(other) => panic!("{name}: {other}"),
        Ok(shape) => panic!("{name} was read as {shape:?}: {:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn valid_files_are_read() {
    for (name, format, bytes) in valid() {
        let shape = read_bytes(Path::new(name), &bytes, format).unwrap_or_else(|e| panic!("{e}"));
        let found = match &shape {
            Shape::Cloud(c) => (c.len(), 0),
            Shape::Mesh(m) => (m.vertices.len(), m.faces.len()),
            Shape::Set(s) => (s.len(), s[0].len()),
            other => panic!("{name} was read as {other:?}"),
        };
        let expected = match name {
            "a.ply" | "b.off" | "a.stl" | "b.stl" => (3, 1),
            "b.ply" | "c.ply" | "a.xyz" => (3, 0),
            "a.obj" => (4, 2),
            "a.off" => (4, 3),
            "b.npy" => (2, 1),
            _ => (2, 0),
        };
        assert_eq!(found, expected, "{name}");
    }
    // Both byte orders hold the same, with normals.
    let all = valid();
    let [little, big] = [1, 2].map(|i| read_bytes(Path::new("x"), &all[i].2, Format::Ply).unwrap());
    assert_eq!(little, big);
    assert!(matches!(little, Shape::Cloud(Cloud { normals: Some(n), .. }) if n[2] == [7.5, 8.0, 8.5]));
}

#[test]
fn truncation_at_any_byte_is_an_error_or_a_shorter_valid_file() {
    for (name, format, bytes) in valid() {
        for end in 0..bytes.len() {
            match read_bytes(Path::new(name), &bytes[..end], format) {
                Err(error) => assert!(error.to_string().starts_with(name)),
                // Text without a count may end anywhere between words; a blank may be missing at the end.
                Ok(_) => assert!(
                    matches!(format, Format::Obj | Format::Text)
                        || bytes[end..].iter().all(u8::is_ascii_whitespace)
                        // The name of the solid is free.
                        || (name == "b.stl" && end + 5 >= bytes.len())
                        || (format == Format::Off && end + 3 >= bytes.len())
                        || (name == "a.ply" && end + 3 >= bytes.len()),
                    "{name} cut at {end} of {} was read",
                    bytes.len()
                ),
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let ply = |body: &str| format!("ply\nformat ascii 1.0\n{body}").into_bytes();
    let vertex = "element vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n";
    let cases: Vec<(&str, Format, Vec<u8>, &str)> = vec![
        ("a.ply", Format::Ply, b"plyy\n".to_vec(), "line 1: expected 'ply'"),
        ("a.ply", Format::Ply, b"ply\nformat ascii 2.0\nend_header\n".to_vec(), "line 2"),
        ("a.ply", Format::Ply, b"ply\nend_header\n".to_vec(), "no format line"),
        ("a.ply", Format::Ply, ply("property float x\nend_header\n"), "line 3: a property comes before"),
        ("a.ply", Format::Ply, ply("element vertex many\nend_header\n"), "line 3: 'many' is no count"),
        ("a.ply", Format::Ply, ply("element vertex 1\nproperty quux x\nend_header\n"), "line 4: unknown type 'quux'"),
        ("a.ply", Format::Ply, ply("element vertex 1\nproperty list float int v\nend_header\n1\n"), "line 4"),
        ("a.ply", Format::Ply, ply("element vertex 1\nproperty float x\nend_header\n1\n"), "no x, y and z"),
        ("a.ply", Format::Ply, ply(&format!("{vertex}0 0 0\n1 nan 0\n")), "vertex 1"),
        ("a.ply", Format::Ply, ply(&format!("{vertex}0 0 0\n1 inf 0\n")), "vertex 1"),
        ("a.ply", Format::Ply, ply(&format!("{vertex}0 0 0\n1 two 0\n")), "line 9: expected a number, found 'two'"),
        ("a.ply", Format::Ply, ply(&format!("{vertex}0 0 0\n1 2\n")), "middle of its data"),
        ("a.ply", Format::Ply, ply(&format!("{vertex}0 0 0\n1 2 3\n4\n")), "follow the last element"),
        ("a.ply", Format::Ply, ply(&vertex.replace("vertex 2", "vertex 18446744073709551615")), "announces at least"),
        ("a.obj", Format::Obj, b"v 0 0 0\nv 1 x 0\n".to_vec(), "line 2: expected a coordinate"),
        ("a.obj", Format::Obj, b"v 0 0 0\nv 0 1 0\nf 1 2 3\n".to_vec(), "line 3"),
        ("a.obj", Format::Obj, b"v 0 0 0\nv 0 1 0\nf 1 2 9\n".to_vec(), "line 3: corner 9 does not exist"),
        ("a.obj", Format::Obj, b"v 0 0 0\nf 1 1 \\\n-2\n".to_vec(), "line 2: '-2' is no corner"),
        ("a.obj", Format::Obj, b"v 0 0 0\nf 0 1 1\n".to_vec(), "'0' is no corner"),
        ("a.obj", Format::Obj, b"# nothing\n".to_vec(), "no vertices"),
        ("a.obj", Format::Obj, b"v 0 0\n".to_vec(), "line 1: expected a coordinate, the line ends"),
        ("a.off", Format::Off, b"PLY\n".to_vec(), "line 1: expected OFF"),
        ("a.off", Format::Off, b"OFF\n99999999999 1 0\n0 0 0\n".to_vec(), "announces 99999999999 vertices"),
        (
            "a.off",
            Format::Off,
            b"OFF\n3 1 0\n0 0 0\n0 0 1\n0 1 0\n3 0 1 7\n".to_vec(),
            "line 6: corner 7 does not exist",
        ),
        ("a.off", Format::Off, b"OFF\n3 1 0\n0 0 0\n0 0 1\n0 1 0\n9 0 1 2\n".to_vec(), "announces 9 corners"),
        ("a.off", Format::Off, b"OFF\n3 1 0\n3 0 1 2\n0 0 0\n0 0 1\n0 1 0\n".to_vec(), "line 6"),
        ("a.xyz", Format::Text, b"1 2 3\n1 2\n".to_vec(), "line 2: expected 3 numbers"),
        ("a.xyz", Format::Text, b"1 2 NaN\n".to_vec(), "not a finite number"),
        ("a.xyz", Format::Text, b"\x0b\n\xc2\xa0\n".to_vec(), "no points"),
        ("a.xyz", Format::Text, b"1 2 3 4 5\n".to_vec(), "expected 3, 4, 6 or 7 numbers"),
        ("a.pts", Format::Text, b"3\n1 2 3\n".to_vec(), "line 1: announces 3 points, there are 1"),
        ("a.xyz", Format::Text, b"1 2 \xff\xfe\n".to_vec(), "line 1: expected"),
        ("a.xyz", Format::Text, b"1 2 3\n\0\0".to_vec(), "byte 6: is zero: no text"),
        ("a.off", Format::Off, b"4OFF\n1 0 0\n1 2 3 4\n".to_vec(), "line 1: 4OFF: only vertices in three"),
        ("a.stl", Format::Stl, [vec![0; 80], vec![255; 4]].concat(), "announces 4294967295 triangles"),
        ("a.stl", Format::Stl, b"short".to_vec(), "header of 84 bytes"),
        ("a.npy", Format::Npy, b"\x93NUMPY\x01\x00\x05\x00{'de\n".to_vec(), "no NPY array"),
        (
            "a.npy",
            Format::Npy,
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'de\n".to_vec(),
            "no NPY array: byte 8: expected a header inside the file",
        ),
        (
            "a.npy",
            Format::Npy,
            npy("<f4", &"[".repeat(60_000), &[0; 24]),
            "no NPY array: byte 10: expected a dictionary",
        ),
        ("a.npy", Format::Npy, npy("<f4", "(2, 4)", &[0; 32]), "expected [N, 3]"),
        ("a.npy", Format::Npy, npy("<c8", "(2, 3)", &[0; 48]), "floating-point"),
        ("a.npy", Format::Npy, npy("<f4", "(0, 3)", &[]), "no points"),
        ("a.npy", Format::Npy, npy("<f4", "(4000000000, 4000000000, 3)", &[0; 24]), "truncated"),
        ("a.npy", Format::Npy, npy("<f4", "(2, 3)", &[255; 24]), "point 0, axis 0"),
        ("a.npz", Format::Npz, b"PK\x03\x04 and no more".to_vec(), "no NPZ archive"),
    ];
    for (name, format, bytes, expected) in cases {
        let message = refused(name, format, &bytes);
        assert!(message.contains(expected), "{message}\n(expected: {expected})");
        assert!(message.len() < 300, "{message}");
    }
    for format in
        [Format::Ply, Format::Obj, Format::Off, Format::Text, Format::Npy, Format::Npz, Format::Stl, Format::Pcd]
    {
        assert!(refused("e", format, b"").contains("empty"));
        refused("g", format, &(0..=255).rev().collect::<Vec<u8>>());
    }
    assert!(read(Path::new("cloud.las")).unwrap_err().to_string().contains("unknown extension"));
    assert!(read(Path::new("missing.ply")).unwrap_err().to_string().contains("missing.ply"));
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let points: Vec<[f32; 3]> = (0..50).map(|i| [i as f32 * 0.1, (i as f32).sin(), 1e-20]).collect();
    let whole = Cloud {
        normals: Some(points.iter().map(|_| [0.0, 0.6, 0.8]).collect()),
        colors: Some((0..50).map(|i| [i, 2 * i, 255 - i]).collect()),
        ..Cloud::new(points.clone())
    };
    for encoding in [ply::Encoding::LittleEndian, ply::Encoding::Ascii] {
        for cloud in [Cloud::new(whole.points.clone()), whole.clone()] {
            let path = folder.path().join("out.ply");
            let mut options = ply::PlyOptions::default();
            options.encoding = encoding;
            options.comments = vec!["drawn by a test\nelement vertex 9".to_string()];
            ply::write(&path, &cloud, &options).unwrap();
            assert_eq!(read(&path).unwrap(), Shape::Cloud(cloud), "{encoding:?}");
        }
    }
    let set = vec![Cloud::new(whole.points.clone()), Cloud::new(whole.points.iter().rev().copied().collect())];
    write_npy(&folder.path().join("out.npy"), &set).unwrap();
    assert_eq!(read(&folder.path().join("out.npy")).unwrap(), Shape::Set(set));
    for bad in [Cloud::default(), Cloud::new(vec![[f32::NAN; 3]]), Cloud { colors: Some(vec![]), ..whole }] {
        let path = folder.path().join("bad.ply");
        assert!(ply::write(&path, &bad, &ply::PlyOptions::default()).is_err());
        assert!(!path.exists());
    }
}

/// What other programs write and a strict reader would trip over.
#[test]
fn odd_but_legal_files_are_read() {
    let mesh = |format: Format, bytes: &[u8]| match read_bytes(Path::new("odd"), bytes, format) {
        Ok(Shape::Mesh(mesh)) => mesh,
        other => panic!("{other:?}"),
    };
    let plain = mesh(Format::Obj, b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n");
    for odd in [
        &b"\xef\xbb\xbfv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"[..],
        b"# St\xfchle\no St\xfchle\nv 0 0 0\r\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        b"f 1 2 3\nv 0 0 0\nv 1 0 0\nv 0 1 0\n",
        b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 \\\n 3\nf 1 2\n",
    ] {
        assert_eq!(mesh(Format::Obj, odd), plain, "{}", String::from_utf8_lossy(odd));
    }
    let off = mesh(Format::Off, b"OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n2 0 1\n");
    assert_eq!(off, plain);
    let solid = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid a\n";
    assert_eq!(mesh(Format::Stl, solid.to_uppercase().as_bytes()), plain);
    let two = mesh(Format::Stl, [solid, &solid.replace("1 0 0", "2e0 0 0")].concat().as_bytes());
    assert_eq!((two.faces, two.vertices[4]), (vec![[0, 1, 2], [3, 4, 5]], [2.0, 0.0, 0.0]));
}
