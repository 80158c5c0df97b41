//! NumPy arrays.

use std::path::Path;

use npyz::{DType, Endianness, NpyFile, TypeChar, TypeStr, WriterBuilder};

use super::notes::Notes;
use super::{Shape, Vertices};
use crate::{Cloud, Error, Result};

/// The first bytes of every NPY file.
const MAGIC: &[u8] = b"\x93NUMPY";
/// Letters of a message about a header.
const LONGEST_MESSAGE: usize = 200;

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
    let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
    // `npyz` allocates the length that a header declares.
    let header = header_length(bytes).and_then(|length| bytes.get(..length));
    if bytes.starts_with(MAGIC) && header.is_none() {
        return Err(fault("is no NPY array: its header is cut off".into()));
    }
    if overflows(bytes) {
        return Err(fault("has a shape of more entries than can be counted: truncated?".into()));
    }
    let file = NpyFile::new(bytes).map_err(|e| {
        // Its messages repeat the header, of any length.
        fault(format!("is no NPY array: {}", e.to_string().chars().take(LONGEST_MESSAGE).collect::<String>()))
    })?;
    let shape = file.shape().to_vec();
    let kind = match file.dtype() {
        DType::Plain(kind) => kind,
        DType::Record(_) | DType::Array(..) => {
            let remedy = "save its columns x, y and z as one array [N, 3]";
            return Err(fault(format!("holds records, expected an array of plain numbers: {remedy}")));
        }
    };
    let size = kind.size_field();
    let Some(decode) = decoder(&kind) else {
        let remedy = match format!("{kind}").contains('O') {
            true => "save clouds of different sizes with np.savez, an array each",
            false => "convert it to float32",
        };
        return Err(fault(format!("holds {kind}, expected floating-point or whole numbers: {remedy}")));
    };
    // The header's promise is held against the file before anything of that size is allocated.
    let count = shape.iter().try_fold(1_u64, |a, &b| a.checked_mul(b));
    let needed = count.and_then(|c| c.checked_mul(size));
    let data = header_length(bytes).and_then(|length| bytes.get(length..)).unwrap_or_default();
    match needed {
        Some(0) => return Err(fault(format!("has shape {shape:?}: no points"))),
        Some(needed) if needed == data.len() as u64 => {}
        Some(needed) if needed < data.len() as u64 => {
            let more = data.len() as u64 - needed;
            return Err(fault(format!(
                "has shape {shape:?}, which {more} more bytes follow: several arrays in one file?"
            )));
        }
        _ => {
            let found = data.len();
            return Err(fault(format!("has shape {shape:?}, which needs more than its {found} bytes: truncated?")));
        }
    }
    let order = file.order();
    let values = data.chunks_exact(size as usize).map(decode).collect();
    let whole = matches!(kind.type_char(), TypeChar::Int | TypeChar::Uint);
    Ok(Array { values: row_major(values, &shape, order), shape, whole })
}

/// Where the numbers begin.
fn header_length(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [_, _, _, _, _, _, 1, _, a, b, ..] => Some(10 + usize::from(u16::from_le_bytes([a, b]))),
        [_, _, _, _, _, _, _, _, a, b, c, d, ..] => 12_usize.checked_add(u32::from_le_bytes([a, b, c, d]) as usize),
        _ => None,
    }
}

/// How one number is read, `None` for what is none.
fn decoder(kind: &TypeStr) -> Option<fn(&[u8]) -> f64> {
    /// The bytes of one number in little-endian order; the slice has as many.
    fn fixed<const N: usize, const BIG: bool>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|i| bytes[if BIG { N - 1 - i } else { i }])
    }
    macro_rules! of {
        ($kind:ty, $size:literal) => {
            match kind.endianness() {
                Endianness::Big => Some(|b| <$kind>::from_le_bytes(fixed::<$size, true>(b)) as f64),
                _ => Some(|b| <$kind>::from_le_bytes(fixed::<$size, false>(b)) as f64),
            }
        };
    }
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 2) => match kind.endianness() {
            Endianness::Big => Some(|b| half(u16::from_le_bytes(fixed::<2, true>(b)))),
            _ => Some(|b| half(u16::from_le_bytes(fixed::<2, false>(b)))),
        },
        (TypeChar::Float, 4) => of!(f32, 4),
        (TypeChar::Float, 8) => of!(f64, 8),
        (TypeChar::Int, 1) => of!(i8, 1),
        (TypeChar::Int, 2) => of!(i16, 2),
        (TypeChar::Int, 4) => of!(i32, 4),
        (TypeChar::Int, 8) => of!(i64, 8),
        (TypeChar::Uint, 1) => of!(u8, 1),
        (TypeChar::Uint, 2) => of!(u16, 2),
        (TypeChar::Uint, 4) => of!(u32, 4),
        (TypeChar::Uint, 8) => of!(u64, 8),
        _ => None,
    }
}

/// A number of half precision (IEEE 754 binary16).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * (-24_f64).exp2(),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * f64::from(exponent - 25).exp2(),
    };
    if bits >> 15 == 1 { -size } else { size }
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
fn row_major(values: Vec<f64>, shape: &[u64], order: npyz::Order) -> Vec<f64> {
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
    let mut bytes = Vec::new();
    let shape = [clouds.len() as u64, points as u64, 3];
    let written = match clouds.iter().all(|c| c.origin == [0.0; 3]) {
        true => put(&mut bytes, &shape, clouds.iter().flat_map(|c| &c.points).flatten().copied()),
        false => put(&mut bytes, &shape, clouds.iter().flat_map(Cloud::positions).flatten()),
    };
    written.map_err(|e| fault(e.to_string()))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}

fn put<T: npyz::AutoSerialize>(
    bytes: &mut Vec<u8>,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> std::io::Result<()> {
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(bytes).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}
