//! NumPy arrays.

use std::path::Path;

use flow_core::files::numpy::{self, Fault, Kind};

use super::notes::Notes;
use super::{Shape, Vertices};
use crate::{Cloud, Error, Result};

/// An array of numbers in row-major order.
pub(super) struct Array {
    pub shape: Vec<u64>,
    pub values: Vec<f64>,
    /// Whether they are stored as whole numbers.
    pub whole: bool,
}

/// Reads `[N, 3]` as a cloud and `[S, N, 3]` as a set: whole numbers, or floats of half, single or double precision, of any
/// byte order and order of axes.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Shape> {
    clouds(path, &array(path, bytes)?, notes)
}

/// The points of an array.
pub(super) fn clouds(path: &Path, array: &Array, notes: &mut Notes) -> Result<Shape> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let shape = &array.shape;
    let (sets, points) = match shape[..] {
        [n, 3] => (None, n),
        [s, n, 3] => (Some(s), n),
        [3, _] | [_, 3, _] => {
            return Err(fault(format!(
                "has shape {shape:?}, expected [N, 3] or [S, N, 3]: exchange the last two axes"
            )));
        }
        [.., n] if n > 3 => {
            let remedy = "keep the three columns of positions, array[..., :3]";
            return Err(fault(format!("has shape {shape:?}, expected [N, 3] or [S, N, 3]: {remedy}")));
        }
        _ => return Err(fault(format!("has shape {shape:?}, expected [N, 3] or [S, N, 3]"))),
    };
    if let Some(i) = array.values.iter().position(|v| v.is_nan() || v.abs() > f64::from(f32::MAX)) {
        let (row, axis) = (i / 3, i % 3);
        let place = format!("cloud {}, point {}, axis {axis}", row as u64 / points, row as u64 % points);
        return Err(fault(format!("{place}: {} is not a finite number of single precision", array.values[i])));
    }
    let mut cloud = |some: &[[f64; 3]]| Vertices { positions: some.to_vec(), ..Vertices::default() }.cloud(notes);
    let all = array.values.as_chunks::<3>().0;
    Ok(match sets {
        None => Shape::Cloud(cloud(all)),
        Some(_) => Shape::Set(all.chunks(points as usize).map(cloud).collect()),
    })
}

/// Reads an array of any shape.
pub(super) fn array(path: &Path, bytes: &[u8]) -> Result<Array> {
    let read = numpy::Array::parse(bytes).and_then(|array| match array.scalar().kind() {
        Kind::Bool => Err(Fault::Elements { descr: "truth values".into() }),
        _ => Ok(array),
    });
    let array = read.map_err(|fault| Error::File { path: path.to_path_buf(), reason: reason(&fault) })?;
    let whole = array.scalar().kind() != Kind::Float;
    Ok(Array { shape: array.shape().iter().map(|&n| n as u64).collect(), values: array.values().collect(), whole })
}

/// What is wrong with an array, and what to do.
fn reason(fault: &Fault) -> String {
    match fault {
        Fault::Elements { descr } if descr == "records" => {
            "holds records, expected an array of plain numbers: save its columns x, y and z as one array [N, 3]".into()
        }
        Fault::Elements { descr } => {
            let remedy = match descr.contains('O') {
                true => "save clouds of different sizes with np.savez, an array each",
                false => "convert it to float32",
            };
            format!("holds {}, expected floating-point or whole numbers: {remedy}", descr.escape_debug())
        }
        Fault::Length { shape, size, bytes } => {
            match shape.iter().try_fold(*size, |product, &axis| product.checked_mul(axis)) {
                Some(0) => format!("has shape {shape:?}: no points"),
                Some(needed) if needed < *bytes => {
                    let more = bytes - needed;
                    format!("has shape {shape:?}, which {more} more bytes follow: several arrays in one file?")
                }
                _ => format!("has shape {shape:?}, which needs more than its {bytes} bytes: truncated?"),
            }
        }
        other => format!("is no NPY array: {other}"),
    }
}

/// Writes clouds of one size as an array `[S, N, 3]` of f32, or of f64 where they have an origin.
///
/// # Errors
/// [`Error::File`] when there are none or their sizes differ, or a failure of the file system.
pub fn write_npy(path: &Path, clouds: &[Cloud]) -> Result<()> {
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    let points = clouds.first().map_or(0, Cloud::len);
    if points == 0 || clouds.iter().any(|c| c.len() != points) {
        return Err(fault("an array needs clouds of one size, at least one point each".into()));
    }
    let shape = [clouds.len() as u64, points as u64, 3];
    let encoded = match clouds.iter().all(|c| c.origin == [0.0; 3]) {
        true => {
            numpy::encode(&shape, clouds.iter().flat_map(|c| &c.points).copied().collect::<Vec<_>>().as_flattened())
        }
        false => numpy::encode(&shape, clouds.iter().flat_map(Cloud::positions).collect::<Vec<_>>().as_flattened()),
    };
    let bytes = encoded.map_err(|e| fault(e.to_string()))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}
