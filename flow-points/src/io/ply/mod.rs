//! PLY: clouds out, clouds and meshes in.
//!
//! Writing goes through `ply-rs-bw`. Reading is our own, in one pass for text and both byte orders: it bounds every count
//! by the file, names the place of every fault, and takes a million binary points in a fraction of the time.

use std::path::Path;

use ply_rs::ply::{
    Addable, ElementDef, Encoding as PlyEncoding, Ply, Property, PropertyAccess, PropertyAccessResult, PropertyDef,
    PropertyType, ScalarType,
};
use ply_rs::writer::Writer;

use super::notes::Notes;
use super::polygon::Polygons;
use super::words::shortened;
use super::{Shape, Vertices};
use crate::{Cloud, Error, Point, Result};

mod header;
mod payload;

use header::Header;
use payload::Source;

/// How a PLY stores its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// `binary_little_endian`.
    #[default]
    LittleEndian,
    /// `ascii`.
    Ascii,
}

/// What to write besides the points.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct PlyOptions {
    /// How numbers are stored.
    pub encoding: Encoding,
    /// Lines of provenance; line breaks in them become blanks.
    pub comments: Vec<String>,
}

/// A vertex as `ply-rs-bw` asks for it.
struct Vertex {
    position: [f64; 3],
    normal: Point,
    color: [u8; 3],
}

impl PropertyAccess for Vertex {
    fn new() -> Self {
        Vertex { position: [0.0; 3], normal: [0.0; 3], color: [0; 3] }
    }

    fn get_float(&self, name: &str) -> Option<f32> {
        Some(match name {
            "x" => self.position[0] as f32,
            "y" => self.position[1] as f32,
            "z" => self.position[2] as f32,
            "nx" => self.normal[0],
            "ny" => self.normal[1],
            "nz" => self.normal[2],
            _ => return None,
        })
    }

    fn get_double(&self, name: &str) -> Option<f64> {
        let axis = ["x", "y", "z"].iter().position(|axis| *axis == name)?;
        self.position.get(axis).copied()
    }

    fn get_uchar(&self, name: &str) -> Option<u8> {
        Some(match name {
            "red" => self.color[0],
            "green" => self.color[1],
            "blue" => self.color[2],
            _ => return None,
        })
    }

    fn set_property(&mut self, _name: &str, _property: Property) -> PropertyAccessResult {
        // Only written, never read.
        PropertyAccessResult::Ignored
    }
}

/// Writes a cloud: floats `x y z`, doubles where it has an origin, with `nx ny nz` and uchars `red green blue` where it has them.
///
/// # Errors
/// [`Error::File`] for an empty cloud, numbers that are not finite, or normals and colours of another number than points;
/// a failure of the file system, which leaves nothing behind.
pub fn write(path: &Path, cloud: &Cloud, options: &PlyOptions) -> Result<()> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    check(cloud).map_err(fault)?;
    let mut ply = Ply::<Vertex>::new();
    ply.header.encoding = match options.encoding {
        Encoding::LittleEndian => PlyEncoding::BinaryLittleEndian,
        Encoding::Ascii => PlyEncoding::Ascii,
    };
    ply.header.comments.extend(options.comments.iter().map(|c| c.split_whitespace().collect::<Vec<_>>().join(" ")));
    let mut vertex = ElementDef::new("vertex".to_string());
    let mut add = |names: &[&str], kind: ScalarType| {
        for name in names {
            vertex.properties.add(PropertyDef::new((*name).to_string(), PropertyType::Scalar(kind.clone())));
        }
    };
    let double = cloud.origin != [0.0; 3];
    add(&["x", "y", "z"], if double { ScalarType::Double } else { ScalarType::Float });
    if cloud.normals.is_some() {
        add(&["nx", "ny", "nz"], ScalarType::Float);
    }
    if cloud.colors.is_some() {
        add(&["red", "green", "blue"], ScalarType::UChar);
    }
    ply.header.elements.add(vertex);
    let at = |(i, position): (usize, [f64; 3])| Vertex {
        position,
        normal: cloud.normals.as_ref().map_or([0.0; 3], |n| n[i]),
        color: cloud.colors.as_ref().map_or([0; 3], |c| c[i]),
    };
    ply.payload.insert("vertex".to_string(), cloud.positions().enumerate().map(at).collect());
    let mut bytes = Vec::new();
    Writer::new().write_ply(&mut bytes, &mut ply).map_err(|e| fault(e.to_string()))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}

fn check(cloud: &Cloud) -> std::result::Result<(), String> {
    if cloud.is_empty() {
        return Err("a cloud without points is not written".into());
    }
    let lengths = [cloud.normals.as_ref().map(Vec::len), cloud.colors.as_ref().map(Vec::len)];
    if let Some(other) = lengths.into_iter().flatten().find(|&n| n != cloud.len()) {
        return Err(format!("{} points have {other} normals or colours", cloud.len()));
    }
    let numbers = cloud.points.iter().chain(cloud.normals.iter().flatten());
    match numbers.flatten().all(|v| v.is_finite()) && cloud.origin.iter().all(|v| v.is_finite()) {
        true => Ok(()),
        false => Err("a coordinate or normal is not a finite number".into()),
    }
}

/// Reads a cloud, or a mesh where there are faces or triangle strips, in any order of the elements. Other elements and
/// properties are passed over and named.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Shape> {
    let header = Header::parse(path, bytes)?;
    let mut source = Source::new(path, bytes, &header)?;
    let mut vertices = Vertices::default();
    let (mut faces, mut strips) = (Vec::new(), Vec::new());
    for element in &header.elements {
        match element.name.as_str() {
            "vertex" if vertices.positions.is_empty() => vertices = source.vertices(element, notes)?,
            "vertex" => return Err(source.fault("vertices come twice")),
            // Kept until the vertices are known, which may follow.
            "face" if element.corners().is_some() => source.lists(element, 0, |corners, place| {
                faces.push((corners.iter().map(|&c| c as u64).collect::<Vec<_>>(), place));
                Ok(())
            })?,
            "tristrips" if element.corners().is_some() => source.lists(element, -1, |corners, place| {
                strips.extend(strip(corners).map(|triangle| (triangle.to_vec(), place)));
                Ok(())
            })?,
            "face" | "tristrips" if element.count > 0 => return Err(source.fault("the faces have no list of corners")),
            _ => {
                source.skip(element)?;
                notes.count(element.count as usize, &format!("entries of '{}' are not read", shortened(&element.name)));
            }
        }
    }
    source.finish()?;
    if vertices.positions.is_empty() {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no vertices".into() });
    }
    let mut polygons = Polygons::new(&vertices.positions);
    for (corners, place) in faces.iter().chain(&strips) {
        polygons.add(corners).map_err(|reason| source.fault_at(*place, reason))?;
    }
    let faces = polygons.finish(notes);
    vertices.shape(path, faces, notes)
}

/// The triangles of strips, every second one turned round; -1 ends a strip. A corner that is repeated, which joins two
/// strips, leaves triangles without surface, which are dropped.
fn strip(corners: &[i64]) -> impl Iterator<Item = [u64; 3]> {
    corners.split(|&c| c < 0).flat_map(|run| {
        run.windows(3).enumerate().filter_map(|(i, t)| {
            let [a, b, c] = [t[0] as u64, t[1] as u64, t[2] as u64];
            let triangle = if i % 2 == 0 { [a, b, c] } else { [b, a, c] };
            (a != b && b != c && a != c).then_some(triangle)
        })
    })
}
