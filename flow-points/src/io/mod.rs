//! Point clouds and meshes in files.
//!
//! Readers work on bytes and refuse what they cannot use with the file's name and the place in it: numbers that are not
//! finite, truncation, indices that point nowhere, counts that the file cannot hold.

mod archive;
mod columns;
mod notes;
mod npy;
mod obj;
mod off;
mod pcd;
pub mod ply;
mod polygon;
mod stl;
mod text;
mod words;

use std::path::Path;

use crate::cloud::{bounds, origin_of, relative};
use crate::{Cloud, Error, Mesh, Point, Result};
use notes::Notes;

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
    /// One point a line, separated by blanks, commas, semicolons or tabs, with or without names of columns.
    Text,
    /// NumPy array `[N, 3]` or `[S, N, 3]`.
    Npy,
    /// Zip archive of such arrays.
    Npz,
    /// STL, text or binary.
    Stl,
    /// PCD of the Point Cloud Library, text, binary or compressed.
    Pcd,
}

impl Format {
    /// The format that a file's extension names.
    pub fn of(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "ply" => Format::Ply,
            "obj" => Format::Obj,
            "off" => Format::Off,
            "xyz" | "xyzn" | "xyzrgb" | "pts" | "txt" | "asc" | "csv" | "tsv" => Format::Text,
            "npy" => Format::Npy,
            "npz" => Format::Npz,
            "stl" => Format::Stl,
            "pcd" => Format::Pcd,
            _ => return None,
        })
    }
}

/// How to read what can be read in several ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The array of an archive that holds the points, where its name does not say so.
    pub array: Option<String>,
}

/// A shape with what a reader left out, rounded or took for granted, in sentences.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The shape.
    pub shape: Shape,
    /// Sentences; empty where all of the file was read as it stands.
    pub notes: Vec<String>,
}

/// Reads a file by its extension.
///
/// # Errors
/// [`Error::File`], [`Error::Line`] or [`Error::Byte`] naming the file, the place and what was expected there.
pub fn read(path: &Path) -> Result<Shape> {
    Ok(read_with(path, &ReadOptions::default())?.shape)
}

/// Reads a file by its extension and tells what was left out.
///
/// # Errors
/// As [`read`].
pub fn read_with(path: &Path, options: &ReadOptions) -> Result<Found> {
    let Some(format) = Format::of(path) else {
        let reason = "unknown extension; expected ply, obj, off, stl, pcd, xyz, pts, txt, asc, csv, npy or npz: save it as \
                      one of them, as PLY if it may be any";
        return Err(Error::File { path: path.to_path_buf(), reason: reason.into() });
    };
    found(path, &std::fs::read(path).map_err(Error::io(path))?, format, options)
}

/// Reads bytes of a known format; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(path: &Path, bytes: &[u8], format: Format) -> Result<Shape> {
    Ok(found(path, bytes, format, &ReadOptions::default())?.shape)
}

fn found(path: &Path, bytes: &[u8], format: Format, options: &ReadOptions) -> Result<Found> {
    if bytes.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "is empty".into() });
    }
    let mut notes = Notes::default();
    let text = || words::decoded(bytes);
    let shape = match format {
        Format::Ply => ply::read(path, &text(), &mut notes),
        Format::Obj => obj::read(path, &text(), &mut notes),
        Format::Off => off::read(path, &text(), &mut notes),
        Format::Text => text::read(path, &text(), &mut notes)?.shape(path, vec![], &mut notes),
        Format::Npy => npy::read(path, bytes, &mut notes),
        Format::Npz => archive::read(path, bytes, options, &mut notes),
        Format::Stl => stl::read(path, bytes, &mut notes),
        Format::Pcd => pcd::read(path, bytes, &mut notes)?.shape(path, vec![], &mut notes),
    }?;
    Ok(Found { shape, notes: notes.0 })
}

/// Positions as a file has them, with what belongs to each.
#[derive(Debug, Default)]
struct Vertices {
    positions: Vec<[f64; 3]>,
    normals: Option<Vec<Point>>,
    colors: Option<Vec<[u8; 3]>>,
}

impl Vertices {
    /// In single precision about an origin.
    fn cloud(self, notes: &mut Notes) -> Cloud {
        let origin = origin_of(bounds(self.positions.iter().copied()));
        let points = relative(&self.positions, origin);
        notes.rounded(&self.positions, &points, origin);
        Cloud { points, normals: self.normals, colors: self.colors, origin }
    }

    /// A mesh if there are faces, else a cloud; refuses what has no points.
    fn shape(self, path: &Path, faces: Vec<[u32; 3]>, notes: &mut Notes) -> Result<Shape> {
        if self.positions.is_empty() {
            return Err(Error::File { path: path.to_path_buf(), reason: "has no vertices".into() });
        }
        let Cloud { points, normals, colors, origin } = self.cloud(notes);
        Ok(if faces.is_empty() {
            Shape::Cloud(Cloud { points, normals, colors, origin })
        } else {
            Shape::Mesh(Mesh { vertices: points, faces, colors, origin })
        })
    }
}
