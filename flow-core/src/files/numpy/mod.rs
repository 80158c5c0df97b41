//! Arrays in NumPy's format NPY, of any numbers, either order of bytes and either order of axes, and the members of its
//! archives NPZ.
//!
//! What is read is checked against the bytes that are there before anything of that size is reserved. Crates that read
//! arrays say in their own errors what is wrong with them: a [`Fault`] has the facts.
//!
//! ```
//! use flow_core::files::numpy::{Array, encode};
//!
//! let bytes = encode(&[2, 3], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let array = Array::parse(&bytes)?;
//! assert_eq!((array.shape(), array.scalar().name()), (&[2, 3][..], "float32".into()));
//! assert_eq!(array.values().sum::<f64>(), 21.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: NumPy's `numpy.lib.format`, versions 1.0 to 3.0.

mod header;
mod scalar;

use std::io::{self, Read};

pub use header::{Header, Literal};
pub use scalar::{Kind, Scalar, half};

/// The first bytes of every array.
pub const MAGIC: &[u8] = b"\x93NUMPY";

/// No deflate stream expands by more than this: <https://zlib.net/zlib_tech.html>.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Why bytes are no array of numbers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("byte {}: expected {}, found {}", self.offset(), self.expected(), self.found())]
#[non_exhaustive]
pub enum Fault {
    /// The header is none, or one that promises what cannot be.
    Header {
        /// The byte, counted from zero.
        offset: usize,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Elements that are no numbers, or of a type that is not read.
    Elements {
        /// Their type in NumPy's notation: `<c8`.
        descr: String,
    },
    /// Another number of bytes than the header promises, or none.
    Length {
        /// The length of every axis.
        shape: Vec<usize>,
        /// Bytes of an element.
        size: usize,
        /// The bytes that follow the header.
        bytes: usize,
    },
}

impl Fault {
    /// The place, counted in bytes from zero.
    pub fn offset(&self) -> usize {
        match self {
            Fault::Header { offset, .. } => *offset,
            _ => 10,
        }
    }

    /// What should be there.
    pub fn expected(&self) -> String {
        match self {
            Fault::Header { expected, .. } => (*expected).into(),
            Fault::Elements { .. } => {
                "elements of type bool, integer or float of 2, 4 or 8 bytes (array.astype)".into()
            }
            Fault::Length { shape, size, .. } => {
                format!("an array of shape {} of {size} bytes an element", shown(shape))
            }
        }
    }

    /// What is there.
    pub fn found(&self) -> String {
        match self {
            Fault::Header { found, .. } => found.clone(),
            // The file's own text: a line feed in it would end the message.
            Fault::Elements { descr } => format!("elements '{}'", descr.escape_debug()),
            Fault::Length { bytes, .. } => format!("{bytes} bytes of data"),
        }
    }
}

/// The name of an archive's member without `.npy`.
///
/// # Errors
/// A name with control characters, as it would be written in a program: it stands in messages, of one line each.
pub fn member_name(name: &str) -> Result<&str, String> {
    match name.chars().any(char::is_control) {
        true => Err(format!("a member named '{}'", name.escape_debug())),
        false => Ok(name.strip_suffix(".npy").unwrap_or(name)),
    }
}

/// A shape as Python writes it.
pub fn shown(shape: &[usize]) -> String {
    match shape {
        [one] => format!("({one},)"),
        many => format!("({})", many.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// Numbers of some shape, in C order: the last axis is the fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    scalar: Scalar,
    bytes: Vec<u8>,
}

impl Array {
    /// The array of a whole file.
    ///
    /// # Errors
    /// A malformed header, elements that are no numbers (records among them), and a length that contradicts the shape or
    /// is zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (Header { descr, fortran, shape }, body) = Header::parse(bytes)?;
        let Literal::Text(descr) = descr else { return Err(Fault::Elements { descr: "records".into() }) };
        let scalar = Scalar::of(&descr)?;
        let needed = shape.iter().try_fold(scalar.size(), |product, &axis| product.checked_mul(axis));
        if needed != Some(body.len()) || body.is_empty() {
            return Err(Fault::Length { shape, size: scalar.size(), bytes: body.len() });
        }
        let bytes = if fortran { row_major(body, &shape, scalar.size()) } else { body.to_vec() };
        Ok(Array { shape, scalar, bytes })
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What an element is.
    pub fn scalar(&self) -> Scalar {
        self.scalar
    }

    /// The number of elements, never zero.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.scalar.size()
    }

    /// Whether there are no elements, which no array that was read has.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The elements as they are where they are bytes without sign.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        (self.scalar.kind() == Kind::Unsigned && self.scalar.size() == 1).then_some(&self.bytes)
    }

    /// All elements; integers beyond 2⁵³ lose their last digits.
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.bytes.chunks_exact(self.scalar.size()).map(|bytes| self.scalar.read(bytes).0)
    }
}

/// Elements in Fortran order, the first axis fastest, as C order.
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

/// A type of numbers that is written.
pub trait Element: Copy {
    /// Its name in NumPy's notation.
    const DESCR: &'static str;

    /// Appends its bytes, the lowest first.
    fn put(self, bytes: &mut Vec<u8>);
}

macro_rules! element {
    ($($number:ty: $descr:literal),*) => {$(
        impl Element for $number {
            const DESCR: &'static str = $descr;

            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

element!(u8: "|u1", i64: "<i8", f32: "<f4", f64: "<f8");

/// The bytes of the file of an array in C order, whose data begin at a multiple of 64.
///
/// # Errors
/// Another number of values than the shape says.
pub fn encode<T: Element>(shape: &[u64], values: &[T]) -> io::Result<Vec<u8>> {
    let axes: Vec<usize> = shape.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect();
    if axes.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis)) != Some(values.len()) {
        let reason = format!("{} values for an array of shape {}", values.len(), shown(&axes));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", T::DESCR, shown(&axes));
    let length = (MAGIC.len() + 4 + text.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let declared = u16::try_from(length).map_err(|_| io::Error::other("an array of too many axes"))?;
    let line = format!("{text:<width$}\n", width = length - 1);
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + length + size_of_val(values));
    bytes.extend([MAGIC, &[1, 0], &declared.to_le_bytes(), line.as_bytes()].concat());
    values.iter().for_each(|&value| value.put(&mut bytes));
    Ok(bytes)
}

/// The bytes of a member of an archive that has `archive` bytes, which bound what the member can unfold to.
///
/// # Errors
/// A member that cannot be read, or that unfolds to more than the archive can hold.
pub fn unfold(member: impl Read, archive: usize) -> io::Result<Vec<u8>> {
    let most = (archive as u64).saturating_mul(MAX_DEFLATE_RATIO);
    let mut bytes = Vec::new();
    member.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::other(format!("more than {most} bytes in an archive of {archive}"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
