//! Valid files of every format, in memory.

use flow_points::io::Format;

/// A name and the bytes of a small valid file, with how many points or triangles it holds.
pub fn valid() -> Vec<(&'static str, Format, Vec<u8>)> {
    let ply_text =
        b"ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 3\nproperty float x\nproperty double y\n\
        property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n\
        property list uchar int vertex_indices\nend_header\n0 0 0 255 0 0\n1 0 0 0 255 0\n0 1 0 0 0 255\n3 0 1 2\n";
    let head = |format: &str| {
        format!(
            "ply\nformat {format} 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n\
             property float nx\nproperty float ny\nproperty float nz\nelement other 1\nproperty list uchar short stuff\nend_header\n"
        )
    };
    let numbers: Vec<f32> = (0..18).map(|i| i as f32 * 0.5).collect();
    let mut little = head("binary_little_endian").into_bytes();
    little.extend(numbers.iter().flat_map(|v| v.to_le_bytes()));
    little.extend([2, 1, 0, 2, 0]);
    let mut big = head("binary_big_endian").into_bytes();
    big.extend(numbers.iter().flat_map(|v| v.to_be_bytes()));
    big.extend([2, 0, 1, 0, 2]);
    let mut stl = vec![b' '; 80];
    stl.extend(1_u32.to_le_bytes());
    stl.extend([0.0_f32, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0].iter().flat_map(|v| v.to_le_bytes()));
    stl.extend([0, 0]);
    let stl_text = b"solid one\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid one\n";
    let floats: Vec<u8> = (1..=6).flat_map(|v| (v as f32).to_le_bytes()).collect();
    vec![
        ("a.ply", Format::Ply, ply_text.to_vec()),
        ("b.ply", Format::Ply, little),
        ("c.ply", Format::Ply, big),
        ("a.obj", Format::Obj, b"# cube\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1/1/1 2//2 3\nf -1 -2 -3\n".to_vec()),
        ("a.off", Format::Off, b"OFF\n# c\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n4 0 1 2 3\n".to_vec()),
        ("b.off", Format::Off, b"OFF3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n".to_vec()),
        ("a.xyz", Format::Text, b"0 0 0 0 0 1\n1,2,3,0,1,0\n4;5;6;1;0;0.5\n".to_vec()),
        ("a.pts", Format::Text, b"2\n1 2 3 0.5\n4 5 6 0.25\n".to_vec()),
        ("a.stl", Format::Stl, stl),
        ("b.stl", Format::Stl, stl_text.to_vec()),
        ("e.csv", Format::Text, b"x,y,z,label\n1,2,3,a\n4,5,6,b\n".to_vec()),
        ("a.pcd", Format::Pcd, pcd("ascii", b"1 2 3\n4 5 6\n")),
        ("b.pcd", Format::Pcd, pcd("binary", &floats)),
        ("d.pcd", Format::Pcd, pcd("binary_compressed", &[&[25, 0, 0, 0, 24, 0, 0, 0, 23][..], &floats].concat())),
        ("a.npy", Format::Npy, npy("<f4", "(2, 3)", &[0.0_f32; 6].map(|v| v.to_le_bytes()).concat())),
        ("b.npy", Format::Npy, npy(">f8", "(2, 1, 3)", &[1.0_f64; 6].map(|v| v.to_be_bytes()).concat())),
    ]
}

/// Two points of three floats, stored so.
fn pcd(storage: &str, data: &[u8]) -> Vec<u8> {
    let header = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA";
    [format!("{header} {storage}\n").as_bytes(), data].concat()
}

/// An array with this header.
pub fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}
