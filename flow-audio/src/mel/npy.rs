//! Two-dimensional arrays of floats in NumPy's format.
//!
//! Only what a mel spectrogram can be: 32- or 64-bit floats, little-endian, `[rows, columns]` in either order; everything
//! else is refused by what it is.

use std::path::Path;

use crate::{Error, Result};

/// The first bytes of every such file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// `[rows, columns]`, row after row.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// The bytes of a file of 32-bit floats.
pub(super) fn encode(rows: usize, columns: usize, values: &[f32]) -> Vec<u8> {
    let data = values.iter().flat_map(|value| value.to_le_bytes());
    header("<f4", &format!("({rows}, {columns})")).into_iter().chain(data).collect()
}

/// The bytes of a file of bytes.
pub(super) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    [header("|u1", &format!("({},)", bytes.len())), bytes.to_vec()].concat()
}

/// Magic, version 1.0, and the description, padded so that the data begin at a multiple of 64.
fn header(descr: &str, shape: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let line = format!("{text:<width$}\n", width = length - 1);
    [MAGIC, &[1, 0], &(length as u16).to_le_bytes(), line.as_bytes()].concat()
}

/// The matrix of a whole file; `path` names it in messages.
///
/// # Errors
/// Another magic, a malformed header, other elements, another number of axes, or a length that contradicts the shape.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Matrix> {
    let (description, start) = describe(path, bytes)?;
    let data = bytes.get(start..).unwrap_or_default();
    let size = match description.descr {
        "<f4" => 4,
        "<f8" => 8,
        other => {
            let expected = "little-endian floats, '<f4' or '<f8' (array.astype('<f4'))";
            return Err(Error::format(path, 10, expected, format!("elements '{other}'")));
        }
    };
    let [rows, columns] = description.shape[..] else {
        let found = format!("shape {:?}", description.shape);
        return Err(Error::format(path, 10, "two axes, (mels, frames)", found));
    };
    let total = rows.checked_mul(columns).and_then(|n| n.checked_mul(size));
    if total != Some(data.len()) || data.is_empty() {
        let expected = format!("({rows}, {columns}) elements of {size} bytes");
        return Err(Error::format(path, start, expected, format!("{} bytes", data.len())));
    }
    let number = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
        _ => f32::NAN,
    };
    let values: Vec<f32> = data.chunks_exact(size).map(number).collect();
    let values = if description.fortran { transposed(&values, columns, rows) } else { values };
    Ok(Matrix { rows, columns, values })
}

/// The bytes of a file of bytes, one axis.
///
/// # Errors
/// Those of [`decode`].
pub(super) fn decode_bytes<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let (description, start) = describe(path, bytes)?;
    let data = bytes.get(start..).unwrap_or_default();
    if description.descr != "|u1" || description.shape != [data.len()] {
        let Description { descr, shape, .. } = description;
        return Err(Error::format(path, 10, "one axis of bytes, '|u1'", format!("'{descr}' of shape {shape:?}")));
    }
    Ok(data)
}

/// A matrix `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |column: usize| values.iter().skip(column).step_by(columns).take(rows).copied();
    (0..columns).flat_map(column).collect()
}

struct Description<'a> {
    descr: &'a str,
    fortran: bool,
    shape: Vec<usize>,
}

/// The header, and where the data begin.
fn describe<'a>(path: &Path, bytes: &'a [u8]) -> Result<(Description<'a>, usize)> {
    if !bytes.starts_with(MAGIC) {
        let found = format!("{:02x?}", bytes.get(..6).unwrap_or(bytes));
        return Err(Error::format(path, 0, "the first bytes of a NumPy file", found));
    }
    let bounds = match bytes.get(6..) {
        Some([1, 0, a, b, ..]) => Some((10usize, usize::from(u16::from_le_bytes([*a, *b])))),
        Some([2 | 3, 0, a, b, c, d, ..]) => Some((12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)),
        _ => None,
    };
    let text = bounds.and_then(|(start, length)| {
        let end = start.checked_add(length)?;
        Some((std::str::from_utf8(bytes.get(start..end)?).ok()?, end))
    });
    let Some((text, end)) = text else {
        return Err(Error::format(path, 6, "a header of version 1, 2 or 3 inside the file", "none"));
    };
    let description = parse(text).ok_or_else(|| {
        let expected = "{'descr': '<f4', 'fortran_order': False, 'shape': (mels, frames)}";
        let found: String = text.trim_end().chars().filter(|c| !c.is_control()).take(80).collect();
        Error::format(path, 10, expected, found)
    })?;
    Ok((description, end))
}

/// `{'descr': '…', 'fortran_order': …, 'shape': (…), }`, the keys in any order.
fn parse(text: &str) -> Option<Description<'_>> {
    let value = |key: &str| {
        let rest = text.split_once(key)?.1.trim_start();
        Some(rest.strip_prefix(':')?.trim_start())
    };
    let descr = value("'descr'")?.strip_prefix('\'')?.split_once('\'')?.0;
    let fortran = match value("'fortran_order'")? {
        rest if rest.starts_with("True") => true,
        rest if rest.starts_with("False") => false,
        _ => return None,
    };
    let inside = value("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
    let lengths = inside.split(',').map(str::trim).filter(|length| !length.is_empty());
    let shape = lengths.map(|length| length.parse().ok()).collect::<Option<Vec<usize>>>()?;
    let is_plain = descr.chars().all(|c| c.is_ascii_graphic()) && shape.len() <= 8;
    is_plain.then_some(Description { descr, fortran, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes(), text.as_bytes(), data].concat()
    }

    #[test]
    fn matrices_come_back_in_either_order_and_precision() {
        let path = Path::new("x.npy");
        let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let bytes = encode(2, 3, &values);
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(decode(path, &bytes).unwrap(), Matrix { rows: 2, columns: 3, values: values.to_vec() });
        let doubles: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
        let columns = decode(path, &of("<f8", "True", "(3, 2)", &doubles)).unwrap();
        assert_eq!(columns, Matrix { rows: 3, columns: 2, values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0] });
        assert_eq!(decode_bytes(path, &encode_bytes(b"text")).unwrap(), b"text");
    }

    #[test]
    fn everything_else_is_refused_by_what_it_is() {
        let path = Path::new("x.npy");
        let floats = [0u8; 24];
        for (bytes, expected) in [
            (b"nothing".to_vec(), "first bytes of a NumPy file"),
            (b"\x93NUMPY\x01".to_vec(), "inside the file"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "inside the file"),
            (of("<i2", "False", "(2, 3)", &floats), "elements '<i2'"),
            (of(">f4", "False", "(2, 3)", &floats), "elements '>f4'"),
            (of("<f4", "False", "(6,)", &floats), "two axes"),
            (of("<f4", "False", "(1, 2, 3)", &floats), "two axes"),
            (of("<f4", "False", "(2, 4)", &floats), "(2, 4) elements"),
            (of("<f4", "False", "(0, 3)", &[]), "(0, 3) elements"),
            (of("<f4", "False", &format!("({}, {})", u64::MAX, u64::MAX), &floats), "elements of 4 bytes"),
            (of("<f4", "Perhaps", "(2, 3)", &floats), "expected {'descr'"),
            (of("<f4", "False", "(-2, 3)", &floats), "expected {'descr'"),
        ] {
            let error = decode(path, &bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
