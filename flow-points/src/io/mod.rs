//! Point clouds and meshes in files.
//!
//! Readers work on bytes and refuse what they cannot use with the file's name and the place in it: numbers that are not
//! finite, truncation, indices that point nowhere, counts that the file cannot hold.

mod npy;
mod obj;
mod off;
pub mod ply;
mod stl;
mod text;
mod words;

use std::path::Path;

use crate::{Cloud, Error, Mesh, Result};

pub use npy::write_npy;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// Points.
    Cloud(Cloud),
    /// Triangles.
    Mesh(Mesh),
    /// Several clouds, `[S, N, 3]`.
    Set(Vec<Cloud>),
}

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Stanford's PLY, text or binary of either byte order.
    Ply,
    /// Wavefront OBJ.
    Obj,
    /// OFF, COFF, NOFF.
    Off,
    /// One point a line: `x y z [nx ny nz | r g b]`, separated by blanks, commas or semicolons.
    Text,
    /// NumPy array `[N, 3]` or `[S, N, 3]`.
    Npy,
    /// Zip archive of such arrays.
    Npz,
    /// STL, text or binary.
    Stl,
}

impl Format {
    /// The format that a file's extension names.
    pub fn of(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "ply" => Format::Ply,
            "obj" => Format::Obj,
            "off" => Format::Off,
            "xyz" | "pts" | "txt" | "asc" => Format::Text,
            "npy" => Format::Npy,
            "npz" => Format::Npz,
            "stl" => Format::Stl,
            _ => return None,
        })
    }
}

/// Reads a file by its extension.
///
/// # Errors
/// [`Error::File`], [`Error::Line`] or [`Error::Byte`] naming the file, the place and what was expected there.
pub fn read(path: &Path) -> Result<Shape> {
    let Some(format) = Format::of(path) else {
        let reason = "unknown extension; expected ply, obj, off, xyz, pts, txt, npy, npz or stl";
        return Err(Error::File { path: path.to_path_buf(), reason: reason.into() });
    };
    read_bytes(path, &std::fs::read(path).map_err(Error::io(path))?, format)
}

/// Reads bytes of a known format; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(path: &Path, bytes: &[u8], format: Format) -> Result<Shape> {
    if bytes.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "is empty".into() });
    }
    match format {
        Format::Ply => ply::read(path, bytes),
        Format::Obj => obj::read(path, bytes),
        Format::Off => off::read(path, bytes),
        Format::Text => text::read(path, bytes).map(Shape::Cloud),
        Format::Npy => npy::read(path, bytes),
        Format::Npz => npy::read_archive(path, bytes),
        Format::Stl => stl::read(path, bytes).map(Shape::Mesh),
    }
}

/// A mesh if there are faces, else a cloud; refuses what has no points.
fn mesh_or_cloud(
    path: &Path,
    vertices: Vec<crate::Point>,
    faces: Vec<[u32; 3]>,
    cloud: impl FnOnce() -> Cloud,
) -> Result<Shape> {
    if vertices.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no vertices".into() });
    }
    Ok(if faces.is_empty() { Shape::Cloud(cloud()) } else { Shape::Mesh(Mesh { vertices, faces }) })
}

/// Cuts a polygon into a fan of triangles, after its corners were checked; one or two of them have no surface.
fn fan(corners: &[u64], vertices: usize, faces: &mut Vec<[u32; 3]>) -> std::result::Result<(), String> {
    if let Some(bad) = corners.iter().find(|&&c| c >= vertices as u64 || c > u64::from(u32::MAX)) {
        return Err(format!("corner {bad} does not exist, there are {vertices} vertices counted from 0"));
    }
    let [first, rest @ ..] = corners else { return Err("a face has no corners".into()) };
    let first = *first as u32;
    faces.extend(rest.windows(2).map(|w| [first, w[0] as u32, w[1] as u32]));
    Ok(())
}
