//! Readers on damaged and on random bytes: an answer or an error, never a panic.
//!
//! `FLOW_FUZZ=1000000 cargo test --release -p flow-points --test all fuzz` tries a million inputs for each format.

use std::path::Path;

use flow_core::FlowRng;
use flow_core::testing::fuzz;
use flow_points::io::{Format, read_bytes};

/// What the readers look for, and numbers that they should refuse.
const WORDS: [&[u8]; 18] = [
    b"nan",
    b"-1",
    b"99999999999999999999",
    b"1e400",
    b"\n",
    b" ",
    b"\xff",
    b"element vertex 4000000000",
    b"OFF",
    b"f 1 2 3",
    b"property list uchar int vertex_indices",
    b"element tristrips 1\nproperty list int int vertex_indices\n",
    b"x,y,z,nx,ny,nz\n",
    b"\"1;2,3\"",
    b"\r",
    b"\xff\xfe",
    b"solid facet endsolid",
    b"0",
];

#[test]
fn no_input_makes_a_reader_panic() {
    let inputs = fuzz::rounds(2000);
    let formats =
        [Format::Ply, Format::Obj, Format::Off, Format::Text, Format::Npy, Format::Npz, Format::Stl, Format::Pcd];
    for format in formats {
        let seeds: Vec<Vec<u8>> = match format {
            Format::Npz => {
                vec![archive(&["points"]), archive(&["a1", "a2"]), archive(&["normals", "vertices", "faces"])]
            }
            _ => crate::common::valid().into_iter().filter(|v| v.1 == format).map(|v| v.2).collect(),
        };
        let mut rng = FlowRng::named(inputs.into(), &format!("{format:?}"));
        let mut read = 0;
        for _ in 0..inputs {
            let bytes = fuzz::input(&seeds, &WORDS, &mut rng);
            match read_bytes(Path::new("fuzz"), &bytes, format) {
                Ok(_) => read += 1,
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains("fuzz") && !error.contains('\n'), "{error}");
                }
            }
        }
        assert!(read < inputs, "{format:?}: damage is noticed");
    }
}

/// An NPZ with stored arrays of these names.
fn archive(names: &[&str]) -> Vec<u8> {
    let array = crate::common::npy("<i4", "(2, 3)", &[0; 24]);
    let mut out = std::io::Cursor::new(Vec::new());
    let mut zip = zip::ZipWriter::new(&mut out);
    for name in names {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, &array).unwrap();
    }
    zip.finish().unwrap();
    assert!(read_bytes(Path::new("whole"), out.get_ref(), Format::Npz).is_ok());
    out.into_inner()
}
