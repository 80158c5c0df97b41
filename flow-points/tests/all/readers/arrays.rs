//! Arrays, archives of them, and point clouds with more than positions.

use super::*;

#[test]
fn arrays_of_any_kind_of_number() {
    let ones = |kind: &str, bytes: &[u8]| cloud(Format::Npy, &npy(kind, "(1, 3)", &bytes.repeat(3))).points;
    for (kind, bytes, value) in [
        ("<f2", &0x3555_u16.to_le_bytes()[..], 0.333_251_95),
        (">f2", &0xc000_u16.to_be_bytes(), -2.0),
        ("<f2", &1_u16.to_le_bytes(), 5.960_464_5e-8),
        ("<f2", &0x7bff_u16.to_le_bytes(), 65_504.0),
        ("|i1", &[0x80], -128.0),
        ("|u1", &[0x80], 128.0),
        ("<i2", &(-3_i16).to_le_bytes(), -3.0),
        (">i4", &(-70_000_i32).to_be_bytes(), -70_000.0),
        ("<u4", &u32::MAX.to_le_bytes(), 4_294_967_300.0),
        ("<i8", &(-9_i64).to_le_bytes(), -9.0),
        (">u8", &9_u64.to_be_bytes(), 9.0),
        (">f4", &1.5_f32.to_be_bytes(), 1.5),
    ] {
        assert_eq!(ones(kind, bytes), [[value; 3]], "{kind}");
    }
    let fortran: Vec<u8> = [1_i32, 4, 2, 5, 3, 6].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = npy("<i4", "(2, 3)", &fortran);
    let at = file.windows(5).position(|w| w == b"False").unwrap();
    let mut turned = file;
    turned.splice(at..at + 5, *b"True ");
    assert_eq!(cloud(Format::Npy, &turned).points, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    for (bytes, expected) in [
        (npy("<f4", "(3, 9)", &[0; 108]), "exchange the last two axes"),
        (npy("<f4", "(2, 6)", &[0; 48]), "array[..., :3]"),
        (npy("<f4", "(2, 3)", &[0; 28]), "4 more bytes follow"),
        (npy("<f2", "(1, 3)", &0x7c00_u16.to_le_bytes().repeat(3)), "not a finite number"),
        (npy("<f8", "(1, 3)", &1e300_f64.to_le_bytes().repeat(3)), "not a finite number of single precision"),
        (npy("<c8", "(1, 3)", &[0; 24]), "convert it to float32"),
        (npy("|b1", "(1, 3)", &[0; 3]), "convert it to float32"),
    ] {
        let message = refusal(Format::Npy, &bytes);
        assert!(message.contains(expected), "{message}");
    }
}

/// An archive of arrays.
fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut out);
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
    out.into_inner()
}

/// `count` points, all at one place.
fn same(count: usize, place: [f32; 3]) -> Vec<u8> {
    npy("<f4", &format!("({count}, 3)"), &place.map(f32::to_le_bytes).concat().repeat(count))
}

#[test]
fn an_archive_gives_its_points_or_asks_for_their_name() {
    let ones = || same(4, [0.0, 0.0, 1.0]);
    let points = || same(4, [5.0, 6.0, 7.0]);
    for name in ["points", "pc", "vertices", "Points", "xyz"] {
        let found = told(
            "a.npz",
            &archive(&[("normals", ones()), (name, points()), ("loc", npy("<f4", "(3,)", &[0; 12]))]),
            None,
        );
        let found = found.unwrap();
        let Shape::Cloud(one) = found.shape else { panic!() };
        assert_eq!((one.points[0], one.normals), ([5.0, 6.0, 7.0], Some(vec![[0.0, 0.0, 1.0]; 4])));
        assert_eq!(found.notes, ["arrays that are not read: loc"]);
    }
    // Clouds of one name and many sizes, ten after nine.
    let ragged: Vec<(String, Vec<u8>)> =
        (0..12).map(|i| (format!("shape{i}"), same(50 + i, [i as f32 + 2.0, 0.0, 0.0]))).collect();
    let ragged: Vec<(&str, Vec<u8>)> = ragged.iter().rev().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let Shape::Set(set) = told("a.npz", &archive(&ragged), None).unwrap().shape else { panic!() };
    let sizes: Vec<usize> = set.iter().map(Cloud::len).collect();
    assert_eq!(sizes, (50..62).collect::<Vec<_>>());
    // A mesh in arrays.
    let flat: Vec<u8> = corners().iter().flatten().flat_map(|v| (*v as f32).to_le_bytes()).collect();
    let faces: Vec<u8> = FACES.iter().flatten().flat_map(|&i| (i as i32).to_le_bytes()).collect();
    let whole = archive(&[("faces", npy("<i4", "(6, 4)", &faces)), ("vertices", npy("<f4", "(8, 3)", &flat))]);
    let Shape::Mesh(mesh) = told("a.npz", &whole, None).unwrap().shape else { panic!() };
    is_box(&mesh);
    // What may be either is asked for, and can be said.
    let unnamed = archive(&[("arr_0", points()), ("arr_1", ones())]);
    let parts =
        archive(&[("x_train", npy("<f4", "(2, 2, 3)", &[0; 48])), ("x_test", npy("<f4", "(1, 2, 3)", &[0; 24]))]);
    for (bytes, array) in [(&unnamed, "arr_0"), (&parts, "x_train")] {
        let message = told("a.npz", bytes, None).unwrap_err().to_string();
        assert!(message.contains("--array NAME") && message.contains(array), "{message}");
        told("a.npz", bytes, Some(array)).unwrap();
        let message = told("a.npz", bytes, Some("arr_9")).unwrap_err().to_string();
        assert!(message.contains("has no array 'arr_9', it has"), "{message}");
    }
    let none = archive(&[("labels", npy("<i4", "(4,)", &[0; 16]))]);
    assert!(told("a.npz", &none, None).unwrap_err().to_string().contains("no array of points"));
}

/// A PCD with this storage; points `[0, 1, 2]` and `[3, 4, 5]` and colours 255, 128, 1.
fn pcd(storage: &str) -> Vec<u8> {
    let mut bytes = format!(
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 2\nHEIGHT 1\n\
         VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA {storage}\n"
    )
    .into_bytes();
    const COLOR: u32 = 0x00ff_8001;
    let numbers = [[0.0_f32, 3.0], [1.0, 4.0], [2.0, 5.0]];
    match storage {
        "ascii" => bytes.extend(format!("0 1 2 {COLOR}\n3 4 5 {COLOR}\n").bytes()),
        "binary" => {
            for i in 0..2 {
                bytes.extend(numbers.iter().flat_map(|n| n[i].to_le_bytes()));
                bytes.extend(COLOR.to_le_bytes());
            }
        }
        _ => {
            // Literal runs, then a copy of the first colour as the second.
            let mut packed = vec![27];
            packed.extend(numbers.iter().flatten().flat_map(|v| v.to_le_bytes()));
            packed.extend(COLOR.to_le_bytes());
            packed.extend([2 << 5, 3]);
            bytes.extend((packed.len() as u32).to_le_bytes());
            bytes.extend(32_u32.to_le_bytes());
            bytes.extend(packed);
        }
    }
    bytes
}

#[test]
fn pcd_in_all_its_storages() {
    for storage in ["ascii", "binary", "binary_compressed"] {
        let one = cloud(Format::Pcd, &pcd(storage));
        assert_eq!(one.points, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], "{storage}");
        assert_eq!(one.colors, Some(vec![[255, 128, 1]; 2]), "{storage}");
    }
    let text = String::from_utf8(pcd("ascii")).unwrap();
    // A colour as the float of its bits; an older file without COUNT and POINTS.
    let float = text.replace("F F F U", "F F F F").replace("16744449", &f32::from_bits(0x00ff_8001).to_string());
    assert_eq!(cloud(Format::Pcd, float.as_bytes()).colors, Some(vec![[255, 128, 1]; 2]));
    let older = text.replace("COUNT 1 1 1 1\n", "").replace("POINTS 2\n", "").replace("FIELDS", "COLUMNS");
    assert_eq!(cloud(Format::Pcd, older.as_bytes()).len(), 2);
    let found = told("a.pcd", text.replace("3 4 5", "nan nan nan").as_bytes(), None).unwrap();
    assert!(found.notes[0].contains("1 points are no finite numbers"), "{:?}", found.notes);
    assert!(matches!(found.shape, Shape::Cloud(one) if one.len() == 1));
    let moved = told("a.pcd", text.replace("0 0 0 1 0 0 0", "9 0 0 1 0 0 0").as_bytes(), None).unwrap();
    assert!(moved.notes[0].contains("VIEWPOINT"), "{:?}", moved.notes);
    for (text, expected) in [
        (text.replace("POINTS 2", "POINTS 3"), "WIDTH times HEIGHT is 2"),
        (text.replace("2\n", "3\n"), "3 points are announced, there are 2"),
        (text.replace("DATA ascii", "DATA gzip"), "expected DATA ascii"),
        (text.replace("x y z rgb", "a b c rgb"), "no fields x, y and z"),
        (text.replace("SIZE 4 4 4 4", "SIZE 4 4 4"), "as many fields"),
        (text.replace("SIZE 4", "SIZE 3"), "no type that is read"),
    ] {
        let message = refusal(Format::Pcd, text.as_bytes());
        assert!(message.contains(expected), "{message}");
    }
    let binary = pcd("binary");
    for bytes in [&binary[..binary.len() - 1], &[&binary[..], &[0]].concat()] {
        assert!(refusal(Format::Pcd, bytes).contains("2 points of 16 bytes are announced"));
    }
    let mut packed = pcd("binary_compressed");
    *packed.last_mut().unwrap() = 200;
    assert!(refusal(Format::Pcd, &packed).contains("before their begin"));
}

#[test]
fn colours_and_normals_come_through() {
    let off = "COFF\n2 0 0\n1 2 3 255 0 10 255\n4 5 6 0 1 2 255\n";
    assert_eq!(cloud(Format::Off, off.as_bytes()).colors, Some(vec![[255, 0, 10], [0, 1, 2]]));
    assert_eq!(cloud(Format::Off, off.to_lowercase().as_bytes()).len(), 2);
    let float = "COFF\n1 0 0\n1 2 3 1.0 0.0 0.2 1.0\n";
    assert_eq!(cloud(Format::Off, float.as_bytes()).colors, Some(vec![[255, 0, 51]]));
    let normal = cloud(Format::Off, b"NOFF\n1 0 0\n1 2 3 0 0 -1\n");
    assert_eq!(normal.normals, Some(vec![[0.0, 0.0, -1.0]]));
    let both = cloud(Format::Off, b"CNOFF\n1 0 0\n1 2 3 0 0 -1 9 8 7 255\n");
    assert_eq!((both.normals, both.colors), (Some(vec![[0.0, 0.0, -1.0]]), Some(vec![[9, 8, 7]])));
    let obj = cloud(Format::Obj, b"v 1 2 3 1 0 0.2\nvn 0 1 0\n");
    assert_eq!((obj.colors, obj.normals), (Some(vec![[255, 0, 51]]), Some(vec![[0.0, 1.0, 0.0]])));
    let header = "property float red\nproperty float green\nproperty float blue\nend_header\n";
    assert_eq!(
        cloud(Format::Ply, (ply_header(1, "float", header) + "1 2 3 1 0 0.2\n").as_bytes()).colors,
        Some(vec![[255, 0, 51]])
    );
    let short = header.replace("float", "ushort");
    let text = ply_header(1, "float", &short) + "1 2 3 65535 0 257\n";
    assert_eq!(cloud(Format::Ply, text.as_bytes()).colors, Some(vec![[255, 0, 1]]));
    // Between the colours of the corners, on a mesh.
    let text = "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3\n";
    let sampled = mesh(Format::Obj, text.as_bytes()).sample(9, &mut FlowRng::seed_from(1)).unwrap();
    assert_eq!(sampled.colors, Some(vec![[255, 0, 0]; 9]));
    for (format, bytes, expected) in [
        (Format::Off, &b"OFF BINARY\n1 0 0\n"[..], "save it as text or PLY"),
        (Format::Off, b"OFF\n1 0 0\n1 2 3\n4 5 6\n", "2 lines follow: correct the counts"),
        (Format::Off, b"OFF\n1 0 0\n1 2 3\n3 0 0 0\n", "2 lines follow"),
        (Format::Obj, b"v 1 2 3 4 5\n", "a vertex has 3, 4, 6 or 7 numbers, found 5"),
    ] {
        let message = refusal(format, bytes);
        assert!(message.contains(expected), "{message}");
    }
}
