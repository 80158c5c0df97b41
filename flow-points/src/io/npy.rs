//! NumPy arrays, alone or in a zip archive.

use std::io::{Cursor, Read};
use std::path::Path;

use npyz::{DType, NpyFile, TypeChar, WriterBuilder};

use super::Shape;
use crate::{Cloud, Error, Point, Result};

/// The most bytes that an archive's member may unfold to.
const LARGEST: u64 = 8 << 30;

/// Reads `[N, 3]` as a cloud and `[S, N, 3]` as a set, in single or double precision and any order.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Shape> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    if overflows(bytes) {
        return Err(fault("has a shape of more entries than can be counted: truncated?".into()));
    }
    let file = NpyFile::new(bytes).map_err(|e| fault(format!("is no NPY array: {e}")))?;
    let shape = file.shape().to_vec();
    let (sets, points) = match shape[..] {
        [n, 3] => (None, n),
        [s, n, 3] => (Some(s), n),
        _ => return Err(fault(format!("has shape {shape:?}, expected [N, 3] or [S, N, 3]"))),
    };
    let count = shape.iter().try_fold(1_u64, |a, &b| a.checked_mul(b));
    let size = match file.dtype() {
        DType::Plain(t) if t.type_char() == TypeChar::Float => t.size_field(),
        other => return Err(fault(format!("holds {other:?}, expected floating-point numbers"))),
    };
    // The header's promise is held against the file before anything of that size is allocated.
    match count.and_then(|c| c.checked_mul(size)) {
        Some(0) => return Err(fault(format!("has shape {shape:?}: no points"))),
        Some(needed) if needed <= bytes.len() as u64 => {}
        _ => {
            return Err(fault(format!(
                "has shape {shape:?}, which needs more than its {} bytes: truncated?",
                bytes.len()
            )));
        }
    }
    let order = file.order();
    let values = match size {
        4 => file.into_vec::<f32>(),
        8 => file.into_vec::<f64>().map(|v| v.into_iter().map(|x| x as f32).collect()),
        other => return Err(fault(format!("holds floats of {other} bytes, expected 4 or 8"))),
    };
    let values = values.map_err(|e| fault(format!("cannot be read: {e}")))?;
    let values = row_major(values, &shape, order);
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        let (row, axis) = (i / 3, i % 3);
        let place = format!("cloud {}, point {}, axis {axis}", row as u64 / points, row as u64 % points);
        return Err(fault(format!("{place}: {} is not a finite number", values[i])));
    }
    let all: Vec<Point> = values.as_chunks::<3>().0.to_vec();
    Ok(match sets {
        None => Shape::Cloud(Cloud::new(all)),
        Some(_) => Shape::Set(all.chunks(points as usize).map(|c| Cloud::new(c.to_vec())).collect()),
    })
}

/// Whether the sizes in the header multiply beyond what fits: `npyz` would overflow.
fn overflows(bytes: &[u8]) -> bool {
    const LONGEST_HEADER: usize = 65_546;
    let header = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_HEADER)]);
    let Some((_, shape)) = header.split_once("'shape'").or_else(|| header.split_once("\"shape\"")) else {
        return false;
    };
    let inside = shape.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
    let sizes = inside.split(',').map(|w| w.trim().trim_end_matches('L')).filter(|w| !w.is_empty());
    // The factor covers the bytes of one entry.
    let product = sizes.map(str::parse::<u64>).try_fold(64_u64, |product, size| product.checked_mul(size.ok()?.max(1)));
    product.is_none_or(|p| p > u64::MAX / 64)
}

/// Fortran order as C order.
fn row_major(values: Vec<f32>, shape: &[u64], order: npyz::Order) -> Vec<f32> {
    if order == npyz::Order::C {
        return values;
    }
    let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let at = index.iter().zip(&shape).rev().fold(0, |at, (i, n)| at * n + i);
        out.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// Reads the first member of an archive that is an array of points.
pub(super) fn read_archive(path: &Path, bytes: &[u8]) -> Result<Shape> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| fault(format!("is no NPZ archive: {e}")))?;
    let mut reason = "holds no array".to_string();
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| fault(format!("member {i}: {e}")))?;
        let name = member.name().to_string();
        let mut content = Vec::new();
        (&mut member).take(LARGEST).read_to_end(&mut content).map_err(|e| fault(format!("member '{name}': {e}")))?;
        match read(path, &content) {
            Ok(shape) => return Ok(shape),
            Err(Error::File { reason: why, .. }) => reason = format!("member '{name}' {why}"),
            Err(other) => return Err(other),
        }
    }
    Err(fault(reason))
}

/// Writes clouds of one size as an array `[S, N, 3]` of f32.
///
/// # Errors
/// [`Error::File`] when there are none or their sizes differ, or a failure of the file system.
pub fn write_npy(path: &Path, clouds: &[Cloud]) -> Result<()> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let points = clouds.first().map_or(0, Cloud::len);
    if points == 0 || clouds.iter().any(|c| c.len() != points) {
        return Err(fault("an array needs clouds of one size, at least one point each".into()));
    }
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(&[clouds.len() as u64, points as u64, 3]);
    let written = options.writer(&mut bytes).begin_nd().and_then(|mut writer| {
        writer.extend(clouds.iter().flat_map(|c| &c.points).flatten().copied())?;
        writer.finish()
    });
    written.map_err(|e| fault(e.to_string()))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}
