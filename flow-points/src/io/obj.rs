//! Wavefront OBJ: positions, their colours and polygons, and the normals of clouds; materials and textures are not read.

use std::path::Path;

use super::notes::{Notes, colors_of};
use super::polygon::Polygons;
use super::words::{Line, lines, shortened};
use super::{Shape, Vertices};
use crate::Result;

/// Reads the lines that begin with `v`, `vn` and `f`. Corners may be `v`, `v/t`, `v//n` or `v/t/n`, counted from one or,
/// with a minus, from the end. A `v` has three numbers, or six with a colour as many programs write it; a fourth, the
/// weight of a rational curve, says nothing about polygons.
///
/// Our own, although `tobj` exists: that crate drops what it does not understand and does not say where.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Shape> {
    let mut vertices = Vertices::default();
    let (mut normals, mut colors, mut polygons) = (Vec::new(), Vec::new(), Vec::new());
    let (mut others, mut weights) = (0, 0);
    for line in joined(lines(path, bytes)?) {
        match line.words[0] {
            "v" => {
                vertices.positions.push(line.point(1, "a coordinate")?);
                match line.words.len() {
                    4 => {}
                    5 => weights += usize::from(line.number(4, "a weight")? != 1.0),
                    7 | 8 => colors.push(line.point(4, "a colour")?),
                    n => return Err(line.fault(format!("a vertex has 3, 4, 6 or 7 numbers, found {}", n - 1))),
                }
            }
            "vn" => normals.push(line.point(1, "a normal").ok()),
            "f" => {
                let corners = line.words[1..].iter().map(|w| corner(&line, w, vertices.positions.len()));
                polygons.push((corners.collect::<Result<Vec<_>>>()?, line));
            }
            "l" | "p" | "curv" | "curv2" | "surf" => others += 1,
            _ => {}
        }
    }
    notes.count(others, "lines, points or free forms (l, p, curv, surf) are not read, only vertices and faces");
    notes.count(weights, "vertices have a weight other than 1, which is not applied");
    if colors.len() == vertices.positions.len() {
        vertices.colors = colors_of(&colors, true, notes);
    } else {
        notes.count(colors.len(), "vertices have colours and others none: colours are not read");
    }
    let mut all = Polygons::new(&vertices.positions);
    // Faces may come before their vertices.
    for (corners, line) in &polygons {
        if let Some(bad) = corners.iter().find(|&&c| c >= vertices.positions.len() as u64) {
            let reason = format!("corner {} does not exist, there are {} vertices", bad + 1, vertices.positions.len());
            return Err(line.fault(reason));
        }
        all.add(corners).map_err(|reason| line.fault(reason))?;
    }
    let faces = all.finish(notes);
    if faces.is_empty() && normals.len() == vertices.positions.len() {
        vertices.normals = normals.into_iter().map(|n| n.map(|n| n.map(|v| v as f32))).collect();
    }
    vertices.shape(path, faces, notes)
}

/// Lines that end with a backslash go on in the next one.
fn joined(lines: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let mut all: Vec<Line<'_>> = Vec::with_capacity(lines.len());
    let mut open = false;
    for mut line in lines {
        let goes_on = line.words.last().is_some_and(|w| w.ends_with('\\'));
        if let Some(last) = line.words.last_mut().filter(|_| goes_on) {
            *last = last.trim_end_matches('\\');
        }
        line.words.retain(|w| !w.is_empty());
        match all.last_mut().filter(|_| open) {
            Some(before) => before.words.extend(line.words),
            None => all.push(line),
        }
        open = goes_on;
    }
    all.retain(|line| !line.words.is_empty());
    all
}

/// A corner's vertex, counted from zero; a minus counts from the last vertex so far.
fn corner(line: &Line<'_>, word: &str, vertices: usize) -> Result<u64> {
    let index = word.split('/').next().unwrap_or_default();
    let found = match index.parse::<i64>() {
        Ok(i) if i > 0 => Some(i as u64 - 1),
        Ok(i) if i < 0 => (vertices as u64).checked_sub(i.unsigned_abs()),
        _ => None,
    };
    found.ok_or_else(|| {
        let expected = format!("a vertex counted from 1, or from -1 back to -{vertices}");
        line.fault(format!("'{}' is no corner: expected {expected}", shortened(word)))
    })
}
