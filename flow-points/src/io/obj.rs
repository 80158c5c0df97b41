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
    let (mut vertices, mut faces) = (Vec::new(), Vec::new());
    for line in lines(path, bytes)? {
        match line.words[0] {
            "v" => vertices.push(line.point(1, "a coordinate")?),
            "f" => {
                let corners =
                    line.words[1..].iter().map(|w| corner(&line, w, vertices.len())).collect::<Result<Vec<_>>>()?;
                fan(&corners, vertices.len(), &mut faces).map_err(|reason| line.fault(reason))?;
            }
            _ => {}
        }
    }
    let cloud = Cloud::new(vertices.clone());
    mesh_or_cloud(path, vertices, faces, || cloud)
}

/// A corner's vertex, counted from zero.
fn corner(line: &Line<'_>, word: &str, vertices: usize) -> Result<u64> {
    let index = word.split('/').next().unwrap_or_default();
    let found = match index.parse::<i64>() {
        Ok(i) if i > 0 => Some(i as u64 - 1),
        Ok(i) if i < 0 => (vertices as u64).checked_sub(i.unsigned_abs()),
        _ => None,
    };
    found.ok_or_else(|| {
        line.fault(format!("'{}' is no corner: expected 1 to {vertices}, or -1 to -{vertices}", shortened(word)))
    })
}
