//! STL, text or binary, through the `stl_io` crate; equal vertices are merged by it.

use std::io::Cursor;
use std::path::Path;

use crate::{Error, Mesh, Result};

/// Length of a binary file's header and of one of its triangles.
const HEADER: usize = 84;
const TRIANGLE: usize = 50;

/// Reads a mesh; the solids of a text file become one.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Mesh> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let mut out = Mesh::default();
    if is_text(bytes) {
        let text = bytes.to_ascii_lowercase();
        for solid in solids(&text) {
            append(path, solid, &mut out)?;
        }
    } else {
        check_length(path, bytes)?;
        append(path, bytes, &mut out)?;
    }
    if out.faces.is_empty() { Err(fault("has no triangles".into())) } else { Ok(out) }
}

fn is_text(bytes: &[u8]) -> bool {
    let is = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    bytes.trim_ascii_start().get(..5).is_some_and(|w| is(w, b"solid")) && bytes.windows(5).any(|w| is(w, b"facet"))
}

/// A text in lower case cut after every `endsolid` line.
fn solids(text: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive(|&b| b == b'\n') {
        at += line.len();
        if line.trim_ascii_start().starts_with(b"endsolid") {
            parts.push(&text[start..at]);
            start = at;
        }
    }
    if !text[start..].trim_ascii().is_empty() || parts.is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

fn append(path: &Path, solid: &[u8], out: &mut Mesh) -> Result<()> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let mesh = stl_io::read_stl(&mut Cursor::new(solid)).map_err(|e| fault(format!("is no readable STL: {e}")))?;
    let before = out.vertices.len();
    for (i, vertex) in mesh.vertices.iter().enumerate() {
        let point = vertex.0;
        if !point.iter().all(|v| v.is_finite()) {
            return Err(fault(format!("vertex {}: {point:?} is not finite", before + i)));
        }
        out.vertices.push(point);
    }
    for (i, face) in mesh.faces.iter().enumerate() {
        let corners = face.vertices.map(|v| before + v);
        if corners.iter().any(|&v| v >= out.vertices.len() || v > u32::MAX as usize) {
            return Err(fault(format!("triangle {i} names a vertex that does not exist")));
        }
        out.faces.push(corners.map(|v| v as u32));
    }
    Ok(())
}

/// The number of triangles that a binary file announces must be there, before anything is allocated for them.
fn check_length(path: &Path, bytes: &[u8]) -> Result<()> {
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
