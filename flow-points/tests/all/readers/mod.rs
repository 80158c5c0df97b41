//! Files as other programs write them: the right shape, or a refusal that says what to do.
//!
//! The box has sides 1, 2 and 3, area 22 and eight corners; areas of polygons are by the shoelace formula.

mod arrays;

use std::path::Path;

use flow_core::FlowRng;
use flow_points::io::{Format, Found, ReadOptions, Shape, ply, read, read_bytes, read_with, write_npy};
use flow_points::{Cloud, Mesh};

use crate::common::npy;

fn shape(format: Format, bytes: &[u8]) -> Shape {
    read_bytes(Path::new("file"), bytes, format)
        .unwrap_or_else(|e| panic!("{e}\n{}", String::from_utf8_lossy(&bytes[..bytes.len().min(400)])))
}

fn mesh(format: Format, bytes: &[u8]) -> Mesh {
    match shape(format, bytes) {
        Shape::Mesh(mesh) => mesh,
        other => panic!("{other:?}"),
    }
}

fn cloud(format: Format, bytes: &[u8]) -> Cloud {
    match shape(format, bytes) {
        Shape::Cloud(cloud) => cloud,
        other => panic!("{other:?}"),
    }
}

fn refusal(format: Format, bytes: &[u8]) -> String {
    match read_bytes(Path::new("file"), bytes, format) {
        Err(error) => error.to_string(),
        Ok(shape) => panic!("was read as {shape:?}:\n{}", String::from_utf8_lossy(bytes)),
    }
}

/// Reads a file of a folder with what is said about it.
fn told(name: &str, bytes: &[u8], array: Option<&str>) -> flow_points::Result<Found> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let mut options = ReadOptions::default();
    options.array = array.map(String::from);
    read_with(&path, &options)
}

/// The corners of the box, and its faces, counted from zero and seen from outside.
fn corners() -> Vec<[f64; 3]> {
    (0..8).map(|i| [f64::from(i >> 2 & 1), 2.0 * f64::from(i >> 1 & 1), 3.0 * f64::from(i & 1)]).collect()
}
const FACES: [[usize; 4]; 6] = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]];

fn lines<const N: usize>(rows: impl IntoIterator<Item = [f64; N]>, between: &str) -> String {
    rows.into_iter().map(|row| row.map(|v| v.to_string()).join(between) + "\n").collect()
}

fn is_box(mesh: &Mesh) {
    assert!((mesh.area() - 22.0).abs() < 1e-5, "area {}", mesh.area());
    let bound =
        |k: usize| mesh.vertices.iter().map(|v| v[k]).fold((9.0_f32, -9.0_f32), |(a, b), v| (a.min(v), b.max(v)));
    assert_eq!([bound(0), bound(1), bound(2)], [(0.0, 1.0), (0.0, 2.0), (0.0, 3.0)]);
}

fn is_corners(cloud: &Cloud) {
    let expected: Vec<[f32; 3]> = corners().iter().map(|p| p.map(|v| v as f32)).collect();
    assert_eq!((&cloud.points, cloud.origin), (&expected, [0.0; 3]));
}

/// A plus of five unit squares, and other polygons that are not convex, with their areas.
fn concave() -> Vec<(Vec<[f64; 2]>, f64)> {
    let plus = [[1, 0], [2, 0], [2, 1], [3, 1], [3, 2], [2, 2], [2, 3], [1, 3], [1, 2], [0, 2], [0, 1], [1, 1]];
    let plus: Vec<[f64; 2]> = plus.iter().map(|p| p.map(f64::from)).collect();
    let ell = vec![[0.0, 0.0], [3.0, 0.0], [3.0, 1.0], [1.0, 1.0], [1.0, 3.0], [0.0, 3.0]];
    // The first corner is the one that a fan may not start from.
    let dart = vec![[0.0, 2.0], [-2.0, 0.0], [0.0, 1.0], [2.0, 0.0]];
    let reversed = ell.iter().rev().copied().collect();
    let comb = vec![[0.0, 0.0], [5.0, 0.0], [5.0, 4.0], [4.0, 1.0], [3.0, 4.0], [2.0, 1.0], [1.0, 4.0], [0.0, 1.0]];
    let shoelace = |p: &[[f64; 2]]| {
        let next = |i: usize| p[(i + 1) % p.len()];
        (0..p.len()).map(|i| p[i][0] * next(i)[1] - next(i)[0] * p[i][1]).sum::<f64>().abs() / 2.0
    };
    assert_eq!(shoelace(&plus), 5.0);
    assert_eq!((shoelace(&ell), shoelace(&dart)), (5.0, 2.0));
    [plus, ell, dart, reversed, comb].into_iter().map(|p| (p.clone(), shoelace(&p))).collect()
}

#[test]
fn polygons_that_are_not_convex_keep_their_area_in_every_format_and_plane() {
    for (polygon, area) in concave() {
        // In the plane of x and y, upright, and slanted far from zero.
        let planes: [fn([f64; 2]) -> [f64; 3]; 3] =
            [|[x, y]| [x, y, 0.0], |[x, y]| [7.0, y, x], |[x, y]| [0.6 * x - 2e6, y, 0.8 * x + 5e6]];
        for plane in planes {
            let n = polygon.len();
            let corners: Vec<[f64; 3]> = polygon.iter().map(|&p| plane(p)).collect();
            let list = |from: usize| (0..n).map(|i| (i + from).to_string()).collect::<Vec<_>>().join(" ");
            let rows = lines(corners.clone(), " ");
            let obj = format!("{}f {}\n", rows.lines().map(|l| format!("v {l}\n")).collect::<String>(), list(1));
            let off = format!("OFF\n{n} 1 0\n{rows}{n} {}\n", list(0));
            let ply = format!(
                "ply\nformat ascii 1.0\nelement vertex {n}\nproperty double x\nproperty double y\nproperty double z\n\
                 element face 1\nproperty list uchar int vertex_indices\nend_header\n{rows}{n} {}\n",
                list(0)
            );
            for (format, text) in [(Format::Obj, obj), (Format::Off, off), (Format::Ply, ply)] {
                let mesh = mesh(format, text.as_bytes());
                assert_eq!(mesh.faces.len(), n - 2);
                assert!((mesh.area() - area).abs() < 1e-5 * area, "{format:?}: {} for {area}\n{text}", mesh.area());
            }
        }
    }
    // The plus: nothing in its empty corners.
    let (plus, _) = &concave()[0];
    let text =
        plus.iter().map(|[x, y]| format!("v {x} {y} 0\n")).collect::<String>() + "f 1 2 3 4 5 6 7 8 9 10 11 12\n";
    let sampled = mesh(Format::Obj, text.as_bytes()).sample(4096, &mut FlowRng::seed_from(1)).unwrap();
    let between = |v: f32| (1.0..=2.0).contains(&v);
    assert!(sampled.points.iter().all(|p| between(p[0]) || between(p[1])));
    assert!(sampled.normals.unwrap().iter().all(|n| *n == [0.0, 0.0, 1.0]), "triangles run as the polygon does");
    // A convex one is the fan that it always was; one that crosses itself is told.
    let square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n";
    assert_eq!(mesh(Format::Obj, square.as_bytes()).faces, [[0, 1, 2], [0, 2, 3]]);
    let star = |k: usize| (0.8 * std::f64::consts::PI * k as f64).sin_cos();
    let text = (0..5).map(|k| format!("v {} {} 0\n", star(k).0, star(k).1)).collect::<String>() + "f 1 2 3 4 5\n";
    for crossed in [text, square.replace("1 2 3 4", "1 3 2 4")] {
        let notes = told("a.obj", crossed.as_bytes(), None).unwrap().notes;
        assert!(notes[0].contains("cross themselves"), "{notes:?}");
    }
}

#[test]
fn decimal_commas_are_refused_wherever_they_stand() {
    let comma = |text: &str| text.replace("0.5", "0,5").into_bytes();
    for (format, text) in [
        (Format::Obj, "v 0.5 0.5 0.5\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"),
        (Format::Off, "OFF\n3 1 0\n0.5 0.5 0.5\n1 0 0\n0 1 0\n3 0 1 2\n"),
        (
            Format::Stl,
            "solid\nfacet normal 0 0 1\nouter loop\nvertex 0.5 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n",
        ),
        (
            Format::Ply,
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n0.5 0.5 0.5\n",
        ),
        (Format::Text, "0.5 0.5 1.0\n1 2 3\n"),
        (Format::Text, "0.5\t0.5\t1.0\n"),
        (Format::Text, "0.5;0.5;1\n"),
        (Format::Text, "x;y;z\n0.5;0.5;1\n"),
        (Format::Text, "x,y,z\n\"0.5\",\"0.5\",\"1.5\"\n"),
        (Format::Text, "1\n0.5 0.5 1\n"),
        (Format::Pcd, "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 1\nHEIGHT 1\nDATA ascii\n0.5 0.5 1\n"),
    ] {
        read_bytes(Path::new("file"), text.as_bytes(), format).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let message = refusal(format, &comma(text));
        assert!(message.contains("comma") && message.contains("line"), "{message}");
    }
    // Without blanks they pass for six numbers, unless digits give them away.
    assert!(refusal(Format::Text, b"1,05,2,50,3,25\n").contains("comma"));
    for missing in ["1,,2,3\n", "1;;2\n", ",1,2,3\n", "1\t\t3\t4\n"] {
        assert!(refusal(Format::Text, missing.as_bytes()).contains("a cell is empty"), "{missing}");
    }
}

/// The box as an STL text.
fn solid() -> String {
    let triangles = FACES.iter().flat_map(|f| [[f[0], f[1], f[2]], [f[0], f[2], f[3]]]);
    let facet = |t: [usize; 3]| {
        let vertex = |i: usize| format!("vertex {}", lines([corners()[i]], " "));
        format!("facet normal 0 0 0\nouter loop\n{}endloop\nendfacet\n", t.map(vertex).concat())
    };
    format!("solid a\n{}endsolid a\n", triangles.map(facet).collect::<String>())
}

/// The same in binary, announcing so many triangles.
fn binary_solid(announced: u32, header: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.resize(80, b' ');
    bytes.extend(announced.to_le_bytes());
    for f in FACES {
        for t in [[f[0], f[1], f[2]], [f[0], f[2], f[3]]] {
            bytes.extend([0; 12]);
            bytes.extend(t.iter().flat_map(|&i| corners()[i]).flat_map(|v| (v as f32).to_le_bytes()));
            bytes.extend([0; 2]);
        }
    }
    bytes
}

#[test]
fn stl_as_other_programs_write_it() {
    let text = solid();
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let latin = [&b"solid St\xfchle #2\n"[..], text.strip_prefix("solid a\n").unwrap().as_bytes()].concat();
    for bytes in [
        text.clone().into_bytes(),
        text.replace("solid a", "solid").into_bytes(),
        text.replace("solid a", "solid ").into_bytes(),
        text.lines().map(|l| format!("  \t{l}\r\n")).collect::<String>().into_bytes(),
        text.replace("normal 0 0 0", "normal nan NaN -nan(ind)").into_bytes(),
        text.replace("endsolid", "end solid")
            .replace("endfacet", "end facet")
            .replace("endloop", "end loop")
            .into_bytes(),
        text.replace('\n', "\r").into_bytes(),
        text.to_uppercase().into_bytes(),
        text.replace("outer loop\n", "outer loop ").replace("\nendloop\n", " endloop ").into_bytes(),
        [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat(),
        [&b"\n\n"[..], text.as_bytes()].concat(),
        utf16,
        latin,
        binary_solid(12, b"made by hand"),
        binary_solid(12, b"solid in name only, facet"),
    ] {
        is_box(&mesh(Format::Stl, &bytes));
    }
    for (bytes, expected) in [
        (binary_solid(4, b""), "announces 4 triangles, which end at byte 284; the file has 684, room for 12"),
        (binary_solid(13, b""), "truncated"),
        (binary_solid(0, b"solid in name only"), "announces 0 triangles"),
        (binary_solid(12, b"")[..680].to_vec(), "truncated"),
        (text.replace("endsolid a\n", "").into_bytes(), "ends without 'endsolid'"),
        (text.replacen("vertex 0 0 0\n", "", 1).into_bytes(), "has 2 corners, expected 3"),
        (text.replacen("vertex 0 0 0", "vertex nan 0 0", 1).into_bytes(), "line 4: a coordinate is 'nan'"),
        (b"solid a\nendsolid a\n".to_vec(), "no triangles"),
    ] {
        let message = refusal(Format::Stl, &bytes);
        assert!(message.contains(expected), "{message}");
    }
}

fn ply_header(vertices: usize, kind: &str, more: &str) -> String {
    format!(
        "ply\nformat ascii 1.0\nelement vertex {vertices}\nproperty {kind} x\nproperty {kind} y\nproperty {kind} z\n{more}"
    )
}

#[test]
fn ply_in_any_order_of_elements_and_with_strips() {
    let vertices = lines(corners(), " ");
    let faces: String = FACES.iter().map(|f| format!("4 {} {} {} {}\n", f[0], f[1], f[2], f[3])).collect();
    let element = "element face 6\nproperty list uchar int vertex_indices\n";
    let whole = format!("{}{element}end_header\n{vertices}{faces}", ply_header(8, "float", ""));
    let faces_first = format!(
        "ply\nformat ascii 1.0\n{element}element vertex 8\nproperty float x\nproperty float y\nproperty float z\nend_header\n{faces}{vertices}"
    );
    // Three strips about the box, in one list and in three.
    let strips = |elements: &str, rows: &str| {
        let strips = format!("element tristrips {elements}\nproperty list int int vertex_indices\nend_header\n");
        format!("{}{strips}{vertices}{rows}\n", ply_header(8, "float", ""))
    };
    let one = strips("1", "20 0 2 1 3 5 7 4 6 0 2 -1 0 1 4 5 -1 2 6 3 7");
    let two = strips("3", "10 0 2 1 3 5 7 4 6 0 2\n4 0 1 4 5\n4 2 6 3 7");
    let bom = [&b"\xef\xbb\xbf"[..], whole.as_bytes()].concat();
    for bytes in [
        whole.clone().into_bytes(),
        faces_first.into_bytes(),
        bom,
        whole.replace('\n', "\r\n").into_bytes(),
        whole.replace('\n', "\r").into_bytes(),
        whole.replace("vertex_indices", "corners").into_bytes(),
        whole.replace("property float", "property float64").into_bytes(),
        one.into_bytes(),
        two.into_bytes(),
    ] {
        is_box(&mesh(Format::Ply, &bytes));
    }
    for (text, expected) in [
        (whole.replace("4 0 1 3 2", "4 0 1 3 9"), "line 18: corner 9 does not exist"),
        (whole.replace("element vertex 8", "element point 8"), "no vertices"),
        (
            whole.replace("property list uchar int vertex_indices", "property int a\nproperty int b"),
            "no list of corners",
        ),
        (whole.replace("4 0 1 3 2", "300 0 1 3 2"), "expected a whole number from 0 to 255, found '300'"),
    ] {
        let message = refusal(Format::Ply, text.as_bytes());
        assert!(message.contains(expected), "{message}");
    }
    // Binary after a header whose lines end in carriage returns: the first number looks like a line feed.
    let mut old = ply_header(1, "float", "end_header\n")
        .replace("ascii", "binary_little_endian")
        .replace('\n', "\r")
        .into_bytes();
    old.extend([b'\n', 0, 0x80, 0x3f].repeat(3));
    let expected = f32::from_le_bytes([b'\n', 0, 0x80, 0x3f]);
    assert_eq!(cloud(Format::Ply, &old).points, [[expected; 3]]);
}

#[test]
fn coordinates_of_maps_keep_their_shape_in_every_format() {
    let far = |p: [f64; 3]| [694_386.212 + 1e-3 * p[0], 5_155_487.512 + 1e-3 * p[1], 381.036 + 1e-3 * p[2]];
    let places: Vec<[f64; 3]> = corners().into_iter().map(far).collect();
    let rows = lines(places.clone(), " ");
    let doubles: Vec<u8> = places.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let mut binary = ply_header(8, "double", "end_header\n").replace("ascii", "binary_little_endian").into_bytes();
    binary.extend(&doubles);
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("a.ply", (ply_header(8, "double", "end_header\n") + &rows).into_bytes()),
        ("b.ply", binary),
        ("a.xyz", rows.clone().into_bytes()),
        ("b.xyz", format!("\u{b}\n\u{a0}\n{rows}\u{2003}\n").into_bytes()),
        ("a.csv", (String::from("x,y,z\n") + &rows.replace(' ', ",")).into_bytes()),
        ("a.obj", rows.lines().map(|l| format!("v {l}\n")).collect::<String>().into_bytes()),
        ("a.off", format!("OFF\n8 0 0\n{rows}").into_bytes()),
        ("a.npy", npy("<f8", "(8, 3)", &doubles)),
        ("a.pcd", format!("FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nWIDTH 8\nHEIGHT 1\nDATA ascii\n{rows}").into_bytes()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let near = |found: &Cloud| {
        for (a, b) in found.positions().zip(&places) {
            assert!((0..3).all(|k| (a[k] - b[k]).abs() < 2e-9), "{a:?} is not {b:?}");
        }
        assert_eq!(found.len(), 8);
    };
    for (name, bytes) in files {
        let found = told(name, &bytes, None).unwrap();
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        let Shape::Cloud(found) = found.shape else { panic!("{name}") };
        near(&found);
        // Written in double precision, and read back.
        ply::write(&folder.path().join("out.ply"), &found, &ply::PlyOptions::default()).unwrap();
        write_npy(&folder.path().join("out.npy"), &[found]).unwrap();
        let text = std::fs::read(folder.path().join("out.ply")).unwrap();
        assert!(String::from_utf8_lossy(&text).contains("property double x"));
        for file in ["out.ply", "out.npy"] {
            match read(&folder.path().join(file)).unwrap() {
                Shape::Cloud(back) => near(&back),
                Shape::Set(back) => near(&back[0]),
                other => panic!("{other:?}"),
            }
        }
    }
    // Parts too far apart for their detail are told.
    let apart = format!("{rows}0 0 0\n");
    let notes = told("a.xyz", apart.as_bytes(), None).unwrap().notes;
    assert!(notes[0].contains("points fall onto others in single precision"), "{notes:?}");
}

#[test]
fn tables_of_points_with_headers_of_many_programs() {
    let rows = |between: &str| lines(corners(), between);
    let with = |more: &str, between: &str| {
        corners().iter().map(|p| lines([*p], between).trim_end().to_string() + more + "\n").collect::<String>()
    };
    for text in [
        rows(" "),
        rows(","),
        rows(", "),
        rows(";"),
        rows("\t"),
        format!("x,y,z\n{}", rows(",")),
        format!("x y z\n{}", rows(" ")),
        format!("X;Y;Z\n{}", rows(";")),
        format!("\"x\",\"y\",\"z\"\n{}", rows(",")),
        format!("# x y z\n{}", rows(" ")),
        format!("# made by hand\n# on a Sunday\n{}", rows(" ")),
        format!("//X;Y;Z;Rf\n8\n{}", with(";0.5", ";")),
        format!("//X Y Z\n{}", rows(" ")),
        format!("8\n{}", rows(" ")),
        format!("x,y,z,\n{}", with(",", ",")),
        format!("\u{feff}x,y,z\r\n{}", rows(",").replace('\n', "\r\n")),
        rows(" ").replace('\n', "\r"),
        format!("Points:0,Points:1,Points:2\n{}", rows(",")),
        format!("X [m],Y [m],Z [m],label\n{}", with(",chair", ",")),
    ] {
        is_corners(&cloud(Format::Text, text.as_bytes()));
    }
    // Columns in another order, with colours and normals and others.
    let text = format!("id,z,y,x,R,G,B\n{}", lines([[0.0, 3.0, 2.0, 1.0, 255.0, 0.0, 7.0]], ","));
    let found = told("a.csv", text.as_bytes(), None).unwrap();
    let Shape::Cloud(one) = found.shape else { panic!() };
    assert_eq!((one.points, one.colors), (vec![[1.0, 2.0, 3.0]], Some(vec![[255, 0, 7]])));
    assert_eq!(found.notes, ["columns that are not read: id"]);
    let both = cloud(Format::Text, b"//X Y Z Rf Gf Bf Nx Ny Nz\n1 2 3 1.0 0.5 0 0 0 -1\n");
    assert_eq!((both.colors, both.normals), (Some(vec![[255, 128, 0]]), Some(vec![[0.0, 0.0, -1.0]])));
    // Six numbers: directions of axes are normals although they are whole, fractions that are no directions are colours.
    assert!(cloud(Format::Text, b"1 2 3 0 0 1\n4 5 6 1 0 0\n").normals.is_some());
    assert_eq!(cloud(Format::Text, b"1 2 3 255 0 1\n").colors, Some(vec![[255, 0, 1]]));
    assert_eq!(cloud(Format::Text, b"1 2 3 0.2 0.4 1.0\n").colors, Some(vec![[51, 102, 255]]));
    assert_eq!(cloud(Format::Text, b"1 2 3 0.0 -3.0 1.0\n").normals, Some(vec![[0.0, -3.0, 1.0]]));
    for (text, expected) in [
        ("lat,lon,alt\n1,2,3\n", "names of columns x, y and z, found 'lat lon alt'"),
        ("x,y,z\n1,2,3,4\n", "the header names 3 columns, found 4"),
        ("8\n1 2 3\n", "announces 8 points, there are 1"),
        ("x,y,z\n", "no points"),
        ("1 2 3 4 5\n", "name the columns"),
        ("1 2 3\nx y z\n", "line 2"),
    ] {
        let message = refusal(Format::Text, text.as_bytes());
        assert!(message.contains(expected), "{message}");
    }
}
