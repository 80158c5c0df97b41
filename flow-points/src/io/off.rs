//! OFF: the format of ModelNet.

use std::path::Path;

use super::notes::{Notes, colors_of};
use super::polygon::Polygons;
use super::words::{Line, lines, shortened};
use super::{Shape, Vertices};
use crate::{Error, Result};

/// Reads OFF with its prefixes for colours, normals and textures (C, N, ST), in capitals or not. Counts may follow the
/// keyword on its own line without a blank, a defect of several hundred files of ModelNet40.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Shape> {
    if bytes.get(..200).unwrap_or(bytes).windows(6).any(|w| w.eq_ignore_ascii_case(b"BINARY")) {
        let reason = "is a binary OFF, which is not read: save it as text or PLY".into();
        return Err(Error::File { path: path.to_path_buf(), reason });
    }
    let all = lines(path, bytes)?;
    let mut lines = all.iter();
    let Header { prefix, counts, line } = header(path, &mut lines)?;
    let vertices_wanted = counts.count(0, "the number of vertices")?;
    let faces_wanted = counts.count(1, "the number of faces")?;
    let left = lines.len() as u64;
    let announced = format!("announces {vertices_wanted} vertices and {faces_wanted} faces");
    let fault = |reason: String| Error::Line { path: path.to_path_buf(), line, reason };
    if vertices_wanted.saturating_add(faces_wanted) > left {
        return Err(fault(format!("{announced}, only {left} lines follow")));
    }
    if left > vertices_wanted + faces_wanted {
        return Err(fault(format!("{announced}, {left} lines follow: correct the counts, or remove the rest")));
    }
    let mut vertices = Vertices::default();
    let (mut colors, mut normals) = (Vec::new(), Vec::new());
    let normal = prefix.contains('N');
    let color_at = if normal { 6 } else { 3 };
    for line in lines.by_ref().take(vertices_wanted as usize) {
        vertices.positions.push(line.point(0, "a coordinate")?);
        if normal {
            normals.push(line.point(3, "a normal")?.map(|v| v as f32));
        }
        if prefix.contains('C') && line.words.len() >= color_at + 3 {
            colors.push(line.point(color_at, "a colour")?);
        }
    }
    if colors.len() == vertices.positions.len() {
        // Whole numbers are of 255, as in Geomview.
        let fractions = all.iter().any(|l| l.words.get(color_at..).is_some_and(|w| w.iter().any(|w| w.contains('.'))));
        vertices.colors = colors_of(&colors, fractions, notes);
    }
    vertices.normals = normal.then_some(normals);
    let mut polygons = Polygons::new(&vertices.positions);
    for line in lines.take(faces_wanted as usize) {
        let corners = line.count(0, "the number of corners")?;
        if corners > line.words.len() as u64 - 1 {
            return Err(line.fault(format!("announces {corners} corners, the line has {}", line.words.len() - 1)));
        }
        let corners = (1..=corners as usize).map(|i| line.count(i, "a corner")).collect::<Result<Vec<_>>>()?;
        polygons.add(&corners).map_err(|reason| line.fault(reason))?;
    }
    let faces = polygons.finish(notes);
    vertices.shape(path, faces, notes)
}

/// The keyword's prefix, and the line of counts without it.
struct Header<'a> {
    prefix: String,
    counts: Line<'a>,
    line: usize,
}

fn header<'a>(path: &Path, lines: &mut std::slice::Iter<'_, Line<'a>>) -> Result<Header<'a>> {
    let none = || Error::File { path: path.to_path_buf(), reason: "has no line with content".into() };
    let first = lines.next().ok_or_else(none)?;
    let word = first.words[0];
    let keyword =
        |w: &str| w.to_ascii_uppercase().find("OFF").filter(|&p| w[..p].chars().all(|c| "CNSTcnst4".contains(c)));
    let Some(position) = keyword(word).filter(|&p| p <= 4) else {
        return Err(first.fault(format!("expected OFF, found '{}'", shortened(word))));
    };
    let prefix = &word[..position];
    // A small n stands for any dimension, N for normals; a keyword all in small letters says nothing about it.
    if prefix.contains('4') || (prefix.contains('n') && word[position..].starts_with("OFF")) {
        return Err(first.fault(format!("{}: only vertices in three dimensions are read", &word[..position + 3])));
    }
    let rest = &word[position + 3..];
    let mut counts = first.clone();
    counts.words[0] = rest;
    if rest.is_empty() {
        counts.words.remove(0);
    }
    let prefix = prefix.to_ascii_uppercase();
    if counts.words.is_empty() {
        let next = lines.next().ok_or_else(|| first.fault("expected the numbers of vertices and faces after it"))?;
        return Ok(Header { prefix, counts: next.clone(), line: next.number });
    }
    Ok(Header { prefix, counts, line: first.number })
}
