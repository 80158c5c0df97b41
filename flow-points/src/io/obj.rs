//! Wavefront OBJ: positions and polygons; materials, textures and normals are not read.

use std::path::Path;

use super::words::{Line, lines, shortened};
use super::{Shape, fan, mesh_or_cloud};
use crate::{Cloud, Result};

/// Reads the lines that begin with `v` and `f`. Corners may be `v`, `v/t`, `v//n` or `v/t/n`, counted from one or, with a
/// minus, from the end.
///
/// Our own, although `tobj` exists: that crate drops what it does not understand and does not say where.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Shape> {
    let (mut vertices, mut polygons, mut faces) = (Vec::new(), Vec::new(), Vec::new());
    for line in joined(lines(path, bytes)?) {
        match line.words[0] {
            "v" => vertices.push(line.point(1, "a coordinate")?),
            "f" => {
                let corners = line.words[1..].iter().map(|w| corner(&line, w, vertices.len()));
                polygons.push((corners.collect::<Result<Vec<_>>>()?, line));
            }
            _ => {}
        }
    }
    // Faces may come before their vertices.
    for (corners, line) in &polygons {
        if let Some(bad) = corners.iter().find(|&&c| c >= vertices.len() as u64) {
            let reason = format!("corner {} does not exist, there are {} vertices", bad + 1, vertices.len());
            return Err(line.fault(reason));
        }
        fan(corners, vertices.len(), &mut faces).map_err(|reason| line.fault(reason))?;
    }
    let cloud = Cloud::new(vertices.clone());
    mesh_or_cloud(path, vertices, faces, || cloud)
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
