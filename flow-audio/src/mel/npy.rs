//! Two-dimensional arrays of floats in NumPy's format: what a mel spectrogram can be, `[rows, columns]`; everything else
//! is refused by what it is.

use std::path::Path;

use flow_core::files::numpy::{Array, Kind};
pub(super) use flow_core::files::numpy::{MAGIC, encode};

use crate::{Error, Result};

/// `[rows, columns]`, row after row.
#[derive(Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// The matrix of a whole file; `path` names it in messages.
///
/// # Errors
/// Another magic, a malformed header, elements that are no floats, another number of axes, or a length that contradicts
/// the shape.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Matrix> {
    let array = parse(path, bytes)?;
    if array.scalar().kind() != Kind::Float {
        let found = format!("elements of type {}", array.scalar().name());
        return Err(Error::format(path, 10, "floats (array.astype('<f4'))", found));
    }
    let &[rows, columns] = array.shape() else {
        return Err(Error::format(path, 10, "two axes, (mels, frames)", format!("shape {:?}", array.shape())));
    };
    Ok(Matrix { rows, columns, values: array.values().map(|value| value as f32).collect() })
}

/// The bytes of a file of bytes, one axis.
///
/// # Errors
/// Those of [`decode`].
pub(super) fn decode_bytes(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let array = parse(path, bytes)?;
    match (array.as_bytes(), array.shape()) {
        (Some(bytes), [_]) => Ok(bytes.to_vec()),
        (_, shape) => {
            let found = format!("{} of shape {shape:?}", array.scalar().name());
            Err(Error::format(path, 10, "one axis of bytes, uint8", found))
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Array> {
    Array::parse(bytes).map_err(|fault| Error::format(path, fault.offset(), fault.expected(), fault.found()))
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
        let bytes = encode(&[2, 3], &values).unwrap();
        assert_eq!(bytes.len(), 128 + 24);
        assert_eq!(decode(path, &bytes).unwrap(), Matrix { rows: 2, columns: 3, values: values.to_vec() });
        let doubles: Vec<u8> = values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
        let columns = decode(path, &of("<f8", "True", "(3, 2)", &doubles)).unwrap();
        assert_eq!(columns, Matrix { rows: 3, columns: 2, values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0] });
        let big: Vec<u8> = values.iter().flat_map(|v| v.to_be_bytes()).collect();
        assert_eq!(decode(path, &of(">f4", "False", "(2, 3)", &big)).unwrap().values, values);
        assert_eq!(decode_bytes(path, &encode(&[4], b"text").unwrap()).unwrap(), b"text");
    }

    #[test]
    fn everything_else_is_refused_by_what_it_is() {
        let path = Path::new("x.npy");
        let floats = [0u8; 24];
        for (bytes, expected) in [
            (b"nothing".to_vec(), "magic bytes of a NumPy file"),
            (b"\x93NUMPY\x01".to_vec(), "a version"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "inside the file"),
            (of("<i2", "False", "(2, 3)", &floats), "(2, 3) of 2 bytes"),
            (of("<i4", "False", "(2, 3)", &floats), "elements of type int32"),
            (of("<f4", "False", "(6,)", &floats), "two axes"),
            (of("<f4", "False", "(1, 2, 3)", &floats), "two axes"),
            (of("<f4", "False", "(2, 4)", &floats), "(2, 4) of 4 bytes"),
            (of("<f4", "False", "(0, 3)", &[]), "(0, 3) of 4 bytes"),
            (of("<f4", "False", &format!("({}, {})", u64::MAX, u64::MAX), &floats), "of 4 bytes an element"),
            (of("<f4", "Perhaps", "(2, 3)", &floats), "expected a dictionary"),
            (of("<f4", "False", "(-2, 3)", &floats), "expected a dictionary"),
        ] {
            let error = decode(path, &bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
