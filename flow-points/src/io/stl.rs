//! STL, text or binary.
//!
//! Our own, although `stl_io` exists: that crate refuses solids without a name, facets whose normals are not numbers and
//! other files that most programs write or read, and does not say where.

use std::path::Path;

use super::notes::Notes;
use super::words::{Line, decoded, lines, shortened};
use super::{Shape, Vertices};
use crate::{Error, Result};

/// Length of a binary file's header and of one of its triangles.
const HEADER: usize = 84;
const TRIANGLE: usize = 50;

/// Reads a mesh; the solids of a text file become one. Normals follow from the corners and are not read, triangles do not
/// share vertices.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Shape> {
    let text = decoded(bytes);
    let positions = match whole_binary(bytes) {
        false if is_text(&text) => text_corners(path, &text)?,
        _ => binary_corners(path, bytes)?,
    };
    if positions.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no triangles".into() });
    }
    let faces = (0..positions.len() as u32 / 3).map(|i| [3 * i, 3 * i + 1, 3 * i + 2]).collect();
    Vertices { positions, ..Vertices::default() }.shape(path, faces, notes)
}

/// How many triangles a binary file announces.
fn announced(bytes: &[u8]) -> Option<u32> {
    bytes.get(80..84).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

/// Where so many triangles end.
fn end_of(count: u32) -> u64 {
    HEADER as u64 + u64::from(count) * TRIANGLE as u64
}

/// Whether the length is that of a binary file: its header may say `solid` too.
fn whole_binary(bytes: &[u8]) -> bool {
    announced(bytes).is_some_and(|count| end_of(count) == bytes.len() as u64)
}

fn is_text(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    bytes.trim_ascii_start().get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"solid"))
        && (has(b"facet") || has(b"endsolid"))
}

/// Three corners for each triangle of a binary file, whose number must fill the file.
fn binary_corners(path: &Path, bytes: &[u8]) -> Result<Vec<[f64; 3]>> {
    let Some(count) = announced(bytes) else {
        let reason = format!(
            "is no STL: text begins with 'solid', binary has a header of {HEADER} bytes, there are {}",
            bytes.len()
        );
        return Err(Error::File { path: path.to_path_buf(), reason });
    };
    let (end, length) = (end_of(count), bytes.len() as u64);
    if end != length {
        let announced = format!("announces {count} triangles, which end at byte {end}; the file has {length}");
        let remedy = match length < end {
            true => "truncated?".to_string(),
            false => {
                format!("room for {}: correct the number or cut the file", (length - HEADER as u64) / TRIANGLE as u64)
            }
        };
        return Err(Error::Byte { path: path.to_path_buf(), byte: 80, reason: format!("{announced}, {remedy}") });
    }
    let mut corners = Vec::with_capacity(3 * count as usize);
    for (i, triangle) in bytes[HEADER..].as_chunks::<TRIANGLE>().0.iter().enumerate() {
        for corner in triangle[12..48].as_chunks::<12>().0 {
            let axis =
                |k: usize| f32::from_le_bytes([corner[4 * k], corner[4 * k + 1], corner[4 * k + 2], corner[4 * k + 3]]);
            let point = [axis(0), axis(1), axis(2)];
            if !point.iter().all(|v| v.is_finite()) {
                let byte = (HEADER + i * TRIANGLE) as u64;
                let reason = format!("triangle {i}: {point:?} is not finite");
                return Err(Error::Byte { path: path.to_path_buf(), byte, reason });
            }
            corners.push(point.map(f64::from));
        }
    }
    Ok(corners)
}

/// Three corners for each triangle of a text.
fn text_corners(path: &Path, text: &[u8]) -> Result<Vec<[f64; 3]>> {
    let lines = lines(path, text)?;
    let (mut corners, mut facet, mut solid) = (Vec::new(), None::<(usize, usize)>, false);
    for line in &lines {
        let word = |at: usize| line.words.get(at).map(|w| w.to_ascii_lowercase()).unwrap_or_default();
        let mut at = 0;
        while at < line.words.len() {
            let (keyword, next) = match word(at) {
                end if end == "end" => (end + &word(at + 1), at + 2),
                other => (other, at + 1),
            };
            at = match (keyword.as_str(), facet) {
                // A name follows, or nothing.
                ("solid", None) if !solid => {
                    solid = true;
                    line.words.len()
                }
                ("endsolid", None) if solid => {
                    solid = false;
                    line.words.len()
                }
                ("facet", None) if solid => {
                    facet = Some((line.number, corners.len()));
                    // The normal need not be a number.
                    if word(next) == "normal" { next + 4 } else { next }
                }
                ("outer", Some(_)) if word(next) == "loop" => next + 1,
                ("vertex", Some(_)) => {
                    corners.push(line.point(next, "a coordinate")?);
                    next + 3
                }
                ("endloop", Some(_)) => next,
                ("endfacet", Some((begun, first))) => {
                    check_facet(line, begun, corners.len() - first)?;
                    facet = None;
                    next
                }
                _ => return Err(line.fault(format!("'{}' has no place here in an STL", shortened(&keyword)))),
            };
        }
    }
    match lines.last().filter(|_| solid) {
        None => Ok(corners),
        Some(last) => Err(last.fault("the text ends without 'endsolid': truncated? add that line if it is whole")),
    }
}

/// A facet has three corners.
fn check_facet(line: &Line<'_>, begun: usize, corners: usize) -> Result<()> {
    match corners {
        3 => Ok(()),
        _ => Err(line.fault(format!("the facet that begins on line {begun} has {corners} corners, expected 3"))),
    }
}
