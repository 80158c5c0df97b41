//! NumPy arrays of images.
//!
//! `[N, H, W]`, `[N, C, H, W]` or `[N, H, W, C]` with one or three channels, in C order; bytes, or
//! floats in `[0, 1]` that are rounded to the nearest of 256 levels.

use std::path::Path;

use npyz::{DType, NpyHeader, Order, TypeChar, WriterBuilder};

use super::{Dataset, read_file};
use crate::{Error, Result};

/// The first bytes of every NumPy file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// NumPy's own limit for the headers it writes without a warning.
const MAX_HEADER: usize = 10_000;

/// All images of one array.
///
/// # Errors
/// A malformed header, another type or order of axes, a length that contradicts the shape, or a float
/// that is NaN or outside `[0, 1]`, named with its index.
pub fn read(path: &Path) -> Result<Dataset> {
    let bytes = read_file(path)?;
    let start = check_header(path, &bytes)?;
    let header = NpyHeader::from_reader(&bytes[..start])
        .map_err(|e| Error::format(path, 0, "a NumPy header", e.to_string().replace('\n', " ")))?;
    let kind = Kind::of(path, &header)?;
    let layout = Layout::of(path, header.shape(), kind.size() as u64, (bytes.len() - start) as u64)?;
    let body = &bytes[start..];
    let values = match kind {
        Kind::Byte => body.to_vec(),
        Kind::Float => levels(path, body.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))?,
    };
    Dataset::new(layout.channels_first(values), layout.shape, 256, path.display().to_string())
}

/// Element types that are read.
#[derive(Clone, Copy)]
enum Kind {
    Byte,
    Float,
}

impl Kind {
    fn of(path: &Path, header: &NpyHeader) -> Result<Self> {
        if header.order() == Order::Fortran {
            return Err(Error::format(path, MAGIC.len(), "C order (numpy.ascontiguousarray)", "Fortran order"));
        }
        let dtype = header.dtype();
        if let DType::Plain(plain) = &dtype {
            match (plain.type_char(), plain.size_field(), plain.to_string().starts_with('>')) {
                (TypeChar::Uint, 1, _) => return Ok(Kind::Byte),
                (TypeChar::Float, 4, false) => return Ok(Kind::Float),
                _ => {}
            }
        }
        Err(Error::format(path, MAGIC.len(), "elements of type uint8 or float32", dtype.descr()))
    }

    fn size(self) -> usize {
        match self {
            Kind::Byte => 1,
            Kind::Float => 4,
        }
    }
}

/// Writes a data set's levels as bytes, `[N, C, H, W]`; [`read`] gives them back.
///
/// # Errors
/// Names the file when it cannot be written; nothing half-written is left.
pub fn write(path: &Path, set: &Dataset) -> Result<()> {
    let shape: Vec<u64> = std::iter::once(set.len()).chain(set.shape()).map(|n| n as u64).collect();
    let mut bytes = Vec::with_capacity(set.images().len() + 128);
    let mut writer = npyz::WriteOptions::<u8>::new()
        .default_dtype()
        .shape(&shape)
        .writer(&mut bytes)
        .begin_nd()
        .map_err(Error::io(path))?;
    writer.extend(set.images().iter().copied()).map_err(Error::io(path))?;
    writer.finish().map_err(Error::io(path))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}

/// What the axes of the array mean.
struct Layout {
    shape: [usize; 3],
    channels_last: bool,
}

impl Layout {
    /// From the array's shape, checked against the `bytes` that are there.
    fn of(path: &Path, dims: &[u64], element: u64, bytes: u64) -> Result<Self> {
        let total = dims.iter().try_fold(element, |product, &d| product.checked_mul(d));
        if total != Some(bytes) || bytes == 0 {
            let expected = format!("an array of shape {dims:?} with {element} bytes an element");
            return Err(Error::format(path, MAGIC.len(), expected, format!("{bytes} bytes of data")));
        }
        // The product is a length in memory, so each factor fits as well.
        let dims: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
        match dims[..] {
            [_, h, w] => Ok(Layout { shape: [1, h, w], channels_last: false }),
            [_, c @ (1 | 3), h, w] => Ok(Layout { shape: [c, h, w], channels_last: false }),
            [_, h, w, c @ (1 | 3)] => Ok(Layout { shape: [c, h, w], channels_last: true }),
            [_, c, h, w] => Ok(Layout { shape: [c, h, w], channels_last: false }),
            _ => {
                let expected = "shape [N, H, W], [N, C, H, W] or, with 1 or 3 channels, [N, H, W, C]";
                Err(Error::format(path, MAGIC.len(), expected, format!("{dims:?}")))
            }
        }
    }

    fn channels_first(&self, values: Vec<u8>) -> Vec<u8> {
        let [channels, height, width] = self.shape;
        if !self.channels_last || channels == 1 {
            return values;
        }
        let planes = |image: &[u8]| -> Vec<u8> {
            (0..channels).flat_map(|c| image.iter().copied().skip(c).step_by(channels)).collect()
        };
        values.chunks_exact(channels * height * width).flat_map(planes).collect()
    }
}

fn levels(path: &Path, values: impl Iterator<Item = f32>) -> Result<Vec<u8>> {
    let level = |(index, value): (usize, f32)| {
        if (0.0..=1.0).contains(&value) {
            return Ok((value * 255.0).round() as u8);
        }
        Err(Error::config(path.display().to_string(), format!("element {index} is {value}, expected 0 to 1")))
    };
    values.enumerate().map(level).collect()
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

    #[test]
    fn written_sets_of_any_channel_count_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for channels in [1, 2, 3, 5] {
            let path = folder.path().join(format!("{channels}.npy"));
            let images: Vec<u8> = (0..2 * channels * 4 * 6).map(|i| (i * 7 % 256) as u8).collect();
            let set = Dataset::new(images, [channels, 4, 6], 256, "made").unwrap();
            write(&path, &set).unwrap();
            let again = read(&path).unwrap();
            assert_eq!((again.shape(), again.images()), (set.shape(), set.images()));
        }
    }
}
