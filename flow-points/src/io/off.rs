//! OFF: the format of ModelNet.

use std::path::Path;

use super::words::{Line, lines};
use super::{Shape, fan, mesh_or_cloud};
use crate::{Cloud, Error, Result};

/// Reads OFF, COFF (colours are dropped) and NOFF. Counts may follow the keyword on its own line without a blank, a
/// defect of several hundred files of ModelNet40.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Shape> {
    let all = lines(path, bytes)?;
    let mut lines = all.iter();
    let (counts, keyword_line) = header(path, &mut lines)?;
    let vertices_wanted = counts.count(0, "the number of vertices")?;
    let faces_wanted = counts.count(1, "the number of faces")?;
    let left = lines.len() as u64;
    if vertices_wanted.saturating_add(faces_wanted) > left {
        let reason = format!("announces {vertices_wanted} vertices and {faces_wanted} faces, only {left} lines follow");
        return Err(Error::Line { path: path.to_path_buf(), line: keyword_line, reason });
    }
    let mut vertices = Vec::with_capacity(vertices_wanted as usize);
    for line in lines.by_ref().take(vertices_wanted as usize) {
        vertices.push(line.point(0, "a coordinate")?);
    }
    let mut faces = Vec::new();
    for line in lines.take(faces_wanted as usize) {
        let corners = line.count(0, "the number of corners")?;
        if corners > line.words.len() as u64 - 1 {
            return Err(line.fault(format!("announces {corners} corners, the line has {}", line.words.len() - 1)));
        }
        let corners = (1..=corners as usize).map(|i| line.count(i, "a corner")).collect::<Result<Vec<_>>>()?;
        fan(&corners, vertices.len(), &mut faces).map_err(|reason| line.fault(reason))?;
    }
    let cloud = Cloud::new(vertices.clone());
    mesh_or_cloud(path, vertices, faces, || cloud)
}

/// The line of counts, without the keyword.
fn header<'a>(path: &Path, lines: &mut std::slice::Iter<'_, Line<'a>>) -> Result<(Line<'a>, usize)> {
    let none = || Error::File { path: path.to_path_buf(), reason: "has no line with content".into() };
    let first = lines.next().ok_or_else(none)?;
    let word = first.words[0];
    let Some(position) = word.find("OFF").filter(|&p| p <= 2 && word[..p].chars().all(|c| "CNST4n".contains(c))) else {
        return Err(first.fault(format!("expected OFF, found '{}'", super::words::shortened(word))));
    };
    if word[..position].contains(['4', 'n']) {
        return Err(first.fault(format!("{}: only vertices in three dimensions are read", &word[..position + 3])));
    }
    let rest = &word[position + 3..];
    let mut counts = first.clone();
    counts.words[0] = rest;
    if rest.is_empty() {
        counts.words.remove(0);
    }
    if counts.words.is_empty() {
        let next = lines.next().ok_or_else(|| first.fault("expected the numbers of vertices and faces after it"))?;
        return Ok((next.clone(), next.number));
    }
    Ok((counts, first.number))
}
