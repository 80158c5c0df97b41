//! STL, text or binary, through the `stl_io` crate; equal vertices are merged by it.

use std::io::Cursor;
use std::path::Path;

use crate::{Error, Mesh, Result};

/// Length of a binary file's header and of one of its triangles.
const HEADER: usize = 84;
const TRIANGLE: usize = 50;

/// Reads a mesh.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Mesh> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    check_length(path, bytes)?;
    let mesh = stl_io::read_stl(&mut Cursor::new(bytes)).map_err(|e| fault(format!("is no readable STL: {e}")))?;
    if mesh.faces.is_empty() {
        return Err(fault("has no triangles".into()));
    }
    let mut out = Mesh::default();
    for (i, vertex) in mesh.vertices.iter().enumerate() {
        let point = vertex.0;
        if !point.iter().all(|v| v.is_finite()) {
            return Err(fault(format!("vertex {i}: {point:?} is not finite")));
        }
        out.vertices.push(point);
    }
    for (i, face) in mesh.faces.iter().enumerate() {
        if face.vertices.iter().any(|&v| v >= out.vertices.len() || v > u32::MAX as usize) {
            return Err(fault(format!("triangle {i} names a vertex that does not exist")));
        }
        out.faces.push(face.vertices.map(|v| v as u32));
    }
    Ok(out)
}

/// The number of triangles that a binary file announces must be there, before anything is allocated for them.
fn check_length(path: &Path, bytes: &[u8]) -> Result<()> {
    if bytes.trim_ascii_start().starts_with(b"solid") && bytes.windows(5).any(|w| w == b"facet") {
        return Ok(());
    }
    let Some(count) = bytes.get(80..84).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes) else {
        let reason = format!("a binary STL has a header of {HEADER} bytes, there are {}", bytes.len());
        return Err(Error::File { path: path.to_path_buf(), reason });
    };
    let expected = HEADER as u64 + u64::from(count) * TRIANGLE as u64;
    if (bytes.len() as u64) < expected {
        let reason = format!("announces {count} triangles, which end at byte {expected}; the file has {}", bytes.len());
        return Err(Error::Byte { path: path.to_path_buf(), byte: 80, reason });
    }
    Ok(())
}
