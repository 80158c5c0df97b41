//! Arrays in NumPy's format: any numbers, either byte order, either order of axes.

use std::path::Path;

use npyz::{DType, NpyHeader, Order, TypeChar};

use crate::{Error, Result};

/// The first bytes of every NumPy file.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's own limit for the headers it writes without a warning.
const MAX_HEADER: usize = 10_000;

/// What the elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Truth values, a byte each.
    Bool,
    /// Integers without sign.
    Unsigned,
    /// Integers with a sign.
    Signed,
    /// IEEE 754 numbers.
    Float,
}

/// Numbers of some shape, in C order.
#[derive(Debug)]
pub struct Array {
    shape: Vec<usize>,
    kind: Kind,
    /// Bytes of an element.
    size: usize,
    big_endian: bool,
    bytes: Vec<u8>,
}

impl Array {
    /// The array of a whole file; `path` names it in messages.
    ///
    /// # Errors
    /// A malformed header, elements that are no numbers, or a length that contradicts the shape.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let start = check_header(path, bytes)?;
        let header = NpyHeader::from_reader(&bytes[..start])
            .map_err(|e| Error::format(path, 0, "a NumPy header", e.to_string().replace('\n', " ")))?;
        let (kind, size, big_endian) = element(path, &header)?;
        let body = &bytes[start..];
        let shape = check_length(path, header.shape(), size, body.len())?;
        let bytes = match header.order() {
            Order::C => body.to_vec(),
            Order::Fortran => row_major(body, &shape, size),
        };
        Ok(Array { shape, kind, size, big_endian, bytes })
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the elements are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements, never zero.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.size
    }

    /// Whether there are no elements, which no file that was read has.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements as they are where they are bytes without sign.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        (self.kind == Kind::Unsigned && self.size == 1).then_some(&self.bytes)
    }

    /// All elements; integers beyond 2⁵³ lose their last digits, which no caller looks at.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.bytes.chunks_exact(self.size).map(|bytes| self.number(bytes))
    }

    fn number(&self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        for (slot, at) in word.iter_mut().zip(0..self.size) {
            *slot = bytes[if self.big_endian { self.size - 1 - at } else { at }];
        }
        let bits = u64::from_le_bytes(word);
        match (self.kind, self.size) {
            (Kind::Float, 2) => half(bits as u16),
            (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::Signed, size) => {
                let shift = 64 - 8 * size as u32;
                ((bits << shift) as i64 >> shift) as f64
            }
            (Kind::Unsigned | Kind::Bool, _) => bits as f64,
        }
    }

    /// What the elements are, in NumPy's words.
    pub fn type_name(&self) -> String {
        let name = match self.kind {
            Kind::Bool => return "bool".into(),
            Kind::Unsigned => "uint",
            Kind::Signed => "int",
            Kind::Float => "float",
        };
        format!("{name}{}", 8 * self.size)
    }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    let size = match exponent {
        0 => fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + fraction) * 2f64.powi(e - 15),
    };
    if sign == 1 { -size } else { size }
}

/// Kind, size and byte order of the elements.
fn element(path: &Path, header: &NpyHeader) -> Result<(Kind, usize, bool)> {
    let dtype = header.dtype();
    if let DType::Plain(plain) = &dtype {
        let big_endian = plain.to_string().starts_with('>');
        match (plain.type_char(), plain.size_field()) {
            (TypeChar::Bool, 1) => return Ok((Kind::Bool, 1, false)),
            (TypeChar::Uint, size @ (1 | 2 | 4 | 8)) => return Ok((Kind::Unsigned, size as usize, big_endian)),
            (TypeChar::Int, size @ (1 | 2 | 4 | 8)) => return Ok((Kind::Signed, size as usize, big_endian)),
            (TypeChar::Float, size @ (2 | 4 | 8)) => return Ok((Kind::Float, size as usize, big_endian)),
            _ => {}
        }
    }
    let expected = "elements of type bool, integer or float of 2, 4 or 8 bytes (array.astype)";
    Err(Error::format(path, MAGIC.len(), expected, dtype.descr()))
}

/// The shape, if the product of its factors is what is there.
fn check_length(path: &Path, dims: &[u64], element: usize, bytes: usize) -> Result<Vec<usize>> {
    let total = dims.iter().try_fold(element as u64, |product, &d| product.checked_mul(d));
    if total != Some(bytes as u64) || bytes == 0 {
        let expected = format!("an array of shape {dims:?} with {element} bytes an element");
        return Err(Error::format(path, MAGIC.len(), expected, format!("{bytes} bytes of data")));
    }
    // The product is a length in memory, so each factor fits as well.
    Ok(dims.iter().map(|&d| d as usize).collect())
}

/// Elements in Fortran order, first axis fastest, as C order.
fn row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(bytes.len());
    for _ in 0..bytes.len() / size {
        let at = size * index.iter().zip(shape).rev().fold(0, |at, (i, n)| at * n + i);
        out.extend_from_slice(&bytes[at..at + size]);
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

/// Where the data begins, once the header is known to be harmless.
///
/// `npyz` allocates the length that a header declares and multiplies its dimensions unchecked, and its
/// parser recurses on brackets: so the text is limited here, in length, in alphabet and in the product of all
/// its numbers, before it is handed over.
fn check_header(path: &Path, bytes: &[u8]) -> Result<usize> {
    if !bytes.starts_with(MAGIC) {
        let found = format!("{:02x?}", &bytes[..bytes.len().min(MAGIC.len())]);
        return Err(Error::format(path, 0, "the magic bytes of a NumPy file", found));
    }
    let length = match bytes.get(6..) {
        Some([1, 0, a, b, ..]) => Some((10, usize::from(u16::from_le_bytes([*a, *b])))),
        Some([2 | 3, 0, a, b, c, d, ..]) => Some((12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)),
        _ => None,
    };
    let Some((start, length)) = length else {
        return Err(Error::format(path, MAGIC.len(), "format version 1.0, 2.0 or 3.0 and a length", "neither"));
    };
    let end = start + length.min(MAX_HEADER + 1);
    let text = bytes.get(start..end).filter(|_| length <= MAX_HEADER).ok_or_else(|| {
        let expected = format!("a header of at most {MAX_HEADER} bytes, inside the file");
        Error::format(path, 8, expected, format!("a length of {length} in {} bytes", bytes.len()))
    })?;
    if let Some(offset) = text.iter().position(|b| !(b' '..=b'~').contains(b) && *b != b'\n') {
        return Err(Error::format(path, start + offset, "printable ASCII", format!("byte {:#04x}", text[offset])));
    }
    if !is_plain(text) {
        return Err(Error::format(
            path,
            start,
            "a dictionary with `descr`, `fortran_order` and `shape`",
            "another text",
        ));
    }
    Ok(end)
}

/// One dictionary, at most one tuple deep, of strings, truth values and decimal numbers whose product fits 63 bits.
fn is_plain(text: &[u8]) -> bool {
    let (mut product, mut number, mut depth, mut quoted) = (1u64, 0u64, 0u32, false);
    for &byte in text.iter().chain(b" ") {
        quoted ^= byte == b'\'';
        if quoted {
            if byte == b'\\' {
                return false;
            }
            continue;
        }
        number = match byte {
            b'0'..=b'9' => number.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
            _ => {
                product = product.saturating_mul(number.max(1));
                0
            }
        };
        match byte {
            b'{' | b'(' => depth += 1,
            b'}' | b')' if depth == 0 => return false,
            b'}' | b')' => depth -= 1,
            b'0'..=b'9' | b'\'' | b',' | b':' | b' ' | b'\n' => {}
            letter if b"TrueFals".contains(&letter) => {}
            _ => return false,
        }
        if depth > 2 {
            return false;
        }
    }
    !quoted && depth == 0 && product < i64::MAX as u64 / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dtype: &str, fortran: &str, shape: &str, body: &[u8]) -> Array {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
        let file = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat();
        Array::parse(Path::new("x.npy"), &file).unwrap()
    }

    #[test]
    fn every_type_and_byte_order_gives_its_numbers() {
        let cases: [(&str, &[u8], [f64; 2]); 14] = [
            ("|b1", &[0, 1], [0.0, 1.0]),
            ("|u1", &[3, 255], [3.0, 255.0]),
            ("|i1", &[3, 255], [3.0, -1.0]),
            ("<u2", &[1, 2, 255, 0], [513.0, 255.0]),
            (">u2", &[1, 2, 255, 0], [258.0, 65_280.0]),
            ("<i2", &[0, 128, 1, 0], [-32_768.0, 1.0]),
            (">i4", &[255, 255, 255, 254, 0, 0, 0, 7], [-2.0, 7.0]),
            ("<u4", &[254, 255, 255, 255, 7, 0, 0, 0], [4_294_967_294.0, 7.0]),
            ("<i8", &[[255; 8], [9, 0, 0, 0, 0, 0, 0, 0]].concat(), [-1.0, 9.0]),
            (">f2", &[0x3c, 0x00, 0xb8, 0x00], [1.0, -0.5]),
            ("<f2", &[0x01, 0x00, 0xff, 0x7b], [2f64.powi(-24), 65_504.0]),
            ("<f4", &[0.25f32.to_le_bytes(), (-2f32).to_le_bytes()].concat(), [0.25, -2.0]),
            (">f4", &[0.25f32.to_be_bytes(), (-2f32).to_be_bytes()].concat(), [0.25, -2.0]),
            (">f8", &[0.1f64.to_be_bytes(), 7f64.to_be_bytes()].concat(), [0.1, 7.0]),
        ];
        for (dtype, body, expected) in cases {
            assert_eq!(array(dtype, "False", "(2,)", body).values().collect::<Vec<_>>(), expected, "{dtype}");
        }
        assert!(half(0x7c00).is_infinite() && half(0xfc00) < 0.0 && half(0x7c01).is_nan());
    }

    #[test]
    fn fortran_order_is_the_same_array() {
        // numpy.array([[[0, 1, 2], [3, 4, 5]]], order="F").tobytes("A")
        let array = array("|u1", "True", "(1, 2, 3)", &[0, 3, 1, 4, 2, 5]);
        assert_eq!((array.shape(), array.as_bytes().unwrap()), (&[1, 2, 3][..], &[0, 1, 2, 3, 4, 5][..]));
        let wide = self::array("<u2", "True", "(2, 2)", &[0, 0, 2, 0, 1, 0, 3, 0]);
        assert_eq!(wide.values().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0]);
    }
}
