//! Archives of NumPy arrays: which of them holds the points.

use std::io::Cursor;
use std::path::Path;

use flow_core::files::numpy::{member_name, unfold};

use super::notes::{Notes, colors_of};
use super::npy::{self, Array};
use super::polygon::Polygons;
use super::words::shortened;
use super::{ReadOptions, Shape, Vertices};
use crate::{Cloud, Error, Result};

/// What points are called, the surest name first, and what belongs to them.
const POINTS: [&str; 12] = [
    "points",
    "pc",
    "vertices",
    "verts",
    "pointcloud",
    "point_cloud",
    "xyz",
    "pts",
    "positions",
    "coords",
    "coordinates",
    "pos",
];
const NORMALS: [&str; 4] = ["normals", "normal", "vertex_normals", "nrm"];
const COLORS: [&str; 6] = ["colors", "color", "colours", "rgb", "vertex_colors", "col"];
const FACES: [&str; 4] = ["faces", "triangles", "face", "tri"];

/// An array with its name.
struct Member {
    name: String,
    array: std::result::Result<Array, String>,
}

impl Member {
    fn is(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.name.eq_ignore_ascii_case(name))
    }

    /// The array, if its shape is that of one cloud or of several.
    fn points(&self) -> Option<&Array> {
        self.array.as_ref().ok().filter(|a| matches!(a.shape[..], [_, 3] | [_, _, 3]))
    }

    /// As an error lists it.
    fn label(&self) -> String {
        match &self.array {
            Ok(array) => format!("{} {:?}", shortened(&self.name), array.shape),
            Err(reason) => format!("{} ({reason})", shortened(&self.name)),
        }
    }
}

/// Reads the array that [`ReadOptions::array`] names, or the one whose name says that it holds points, with the normals,
/// colours or faces beside it; or clouds whose names differ in a number only, as a set. Other archives are refused.
pub(super) fn read(path: &Path, bytes: &[u8], options: &ReadOptions, notes: &mut Notes) -> Result<Shape> {
    let members = members(path, bytes)?;
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let labels = || members.iter().map(Member::label).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = &options.array {
        let chosen = members.iter().find(|m| m.name == *wanted);
        let Some(chosen) = chosen else { return Err(fault(format!("has no array '{wanted}', it has {}", labels()))) };
        return with_companions(path, chosen, &members, notes);
    }
    if let Some(chosen) = POINTS.iter().find_map(|name| members.iter().find(|m| m.is(&[name]) && m.points().is_some()))
    {
        return with_companions(path, chosen, &members, notes);
    }
    let other = |m: &&Member| m.points().is_some() && ![&NORMALS[..], &COLORS, &FACES].iter().any(|names| m.is(names));
    let candidates: Vec<&Member> = members.iter().filter(other).collect();
    match &candidates[..] {
        [one] => with_companions(path, one, &members, notes),
        [first, ..] if alike(&candidates) => {
            let mut set = Vec::new();
            for member in &candidates {
                set.extend(member_clouds(path, member, notes)?);
            }
            let last = candidates.last().map_or("", |m| &m.name);
            notes.say(format!("{} clouds, from '{}' to '{last}'", set.len(), first.name));
            unread(&members, &candidates, notes);
            Ok(Shape::Set(set))
        }
        [] => Err(fault(format!("holds no array of points, [N, 3] or [S, N, 3]; it has {}", labels()))),
        _ => {
            let remedy = "say which by --array NAME (ReadOptions::array), or call it 'points'";
            Err(fault(format!("holds several arrays that may be the points: {}; {remedy}", labels())))
        }
    }
}

fn members(path: &Path, bytes: &[u8]) -> Result<Vec<Member>> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| fault(format!("is no NPZ archive: {e}")))?;
    let mut members = Vec::new();
    for i in 0..archive.len() {
        let member = archive.by_index(i).map_err(|e| fault(format!("member {i}: {e}")))?;
        let name = member_name(member.name()).map_err(|odd| fault(format!("holds {odd}")))?.to_string();
        let content = unfold(member, bytes.len()).map_err(|e| fault(format!("member '{name}': {e}")))?;
        let array = npy::array(path, &content).map_err(|error| match error {
            Error::File { reason, .. } => reason,
            other => other.to_string(),
        });
        members.push(Member { name, array });
    }
    // Ten after nine.
    members.sort_by_key(|m| (stem(&m.name), m.name.len(), m.name.clone()));
    Ok(members)
}

/// A name without its digits.
fn stem(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Whether arrays are clouds of one kind: their names differ in a number, and none looks like the normals, the colours or
/// the faces of another.
fn alike(candidates: &[&Member]) -> bool {
    let one_stem = candidates.iter().all(|m| stem(&m.name) == stem(&candidates[0].name));
    let unit = |array: &Array| {
        array.values.as_chunks::<3>().0.iter().all(|n| (n.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-3)
    };
    let kind = |m: &&Member| m.points().map(|a| (a.shape.len(), a.whole, unit(a)));
    let mut kinds = candidates.iter().map(kind);
    let first = kinds.next();
    one_stem && kinds.all(|kind| Some(kind) == first)
}

fn member_clouds(path: &Path, member: &Member, notes: &mut Notes) -> Result<Vec<Cloud>> {
    match member_shape(path, member, notes)? {
        Shape::Cloud(cloud) => Ok(vec![cloud]),
        Shape::Set(clouds) => Ok(clouds),
        Shape::Mesh(_) => Ok(vec![]),
    }
}

fn member_shape(path: &Path, member: &Member, notes: &mut Notes) -> Result<Shape> {
    let fault =
        |reason: String| Error::File { path: path.to_path_buf(), reason: format!("array '{}' {reason}", member.name) };
    let array = member.array.as_ref().map_err(|reason| fault(reason.clone()))?;
    npy::clouds(path, array, notes).map_err(|error| match error {
        Error::File { reason, .. } => fault(reason),
        other => other,
    })
}

/// The chosen array with its normals, colours or faces.
fn with_companions(path: &Path, chosen: &Member, members: &[Member], notes: &mut Notes) -> Result<Shape> {
    let shape = member_shape(path, chosen, notes)?;
    let Some((array, Shape::Cloud(_))) = chosen.points().map(|array| (array, &shape)) else {
        unread(members, &[chosen], notes);
        return Ok(shape);
    };
    let mut read = vec![chosen];
    let mut beside = |names: &[&str]| -> Option<Vec<[f64; 3]>> {
        let fits = |a: &Array| a.shape == array.shape && a.values.iter().all(|v| v.is_finite());
        let member = members.iter().find(|m| m.is(names) && m.name != chosen.name && m.points().is_some_and(fits))?;
        read.push(member);
        member.points().map(|a| a.values.as_chunks::<3>().0.to_vec())
    };
    let normals = beside(&NORMALS).map(|n| n.iter().map(|n| n.map(|v| v as f32)).collect());
    let colors = beside(&COLORS);
    let positions = array.values.as_chunks::<3>().0.to_vec();
    let mut polygons = Polygons::new(&positions);
    let faces = members.iter().find(|m| m.is(&FACES));
    if let Some((member, Ok(faces))) = faces.map(|m| (m, &m.array))
        && let [_, corners] = faces.shape[..]
        && corners >= 3
        && faces.whole
    {
        for (i, face) in faces.values.chunks(corners as usize).enumerate() {
            let whole: Vec<u64> = face.iter().map(|&c| if c < 0.0 { u64::MAX } else { c as u64 }).collect();
            polygons.add(&whole).map_err(|reason| {
                let reason = format!("array '{}': face {i}: {reason}", member.name);
                Error::File { path: path.to_path_buf(), reason }
            })?;
        }
        read.push(member);
    }
    let faces = polygons.finish(notes);
    unread(members, &read, notes);
    let colors = colors.and_then(|c| {
        let whole = members.iter().any(|m| m.is(&COLORS) && m.array.as_ref().is_ok_and(|a| a.whole));
        colors_of(&c, !whole, notes)
    });
    Vertices { positions, normals, colors }.shape(path, faces, &mut Notes::default())
}

/// Says what else there is.
fn unread(members: &[Member], read: &[&Member], notes: &mut Notes) {
    let rest: Vec<String> =
        members.iter().filter(|m| !read.iter().any(|r| r.name == m.name)).map(|m| shortened(&m.name)).collect();
    if !rest.is_empty() {
        notes.say(format!("arrays that are not read: {}", rest.join(", ")));
    }
}
