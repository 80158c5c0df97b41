//! The numbers of a PLY, from text or bytes.

use std::path::Path;

use super::header::{Element, Header, Property, Scalar, Storage};
use crate::io::words::shortened;
use crate::{Cloud, Error, Point, Result};

/// Reads one number after the other.
pub(super) struct Source<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    storage: Storage,
    /// Offset of the next number, and for text its line.
    at: usize,
    line: usize,
}

impl<'a> Source<'a> {
    pub fn new(path: &'a Path, bytes: &'a [u8], header: &Header) -> Result<Self> {
        let source = Source { path, bytes, storage: header.storage, at: header.bytes, line: header.lines + 1 };
        // Every element takes at least so many bytes; a count beyond that is refused before memory is reserved.
        let mut needed = 0_u64;
        for element in &header.elements {
            let size = |p: &Property| match (header.storage, p.length) {
                (Storage::Text, _) => 2,
                (_, Some(length)) => length.size() as u64,
                (_, None) => p.kind.size() as u64,
            };
            let each: u64 = element.properties.iter().map(size).sum();
            let each = if header.storage == Storage::Text { each.saturating_sub(1) } else { each };
            needed = needed.saturating_add(element.count.saturating_mul(each));
        }
        let left = (bytes.len() - header.bytes) as u64;
        // The last line of a text may lack its break.
        if needed > left + 1 {
            return Err(source.fault(format!("the header announces at least {needed} bytes of data, {left} follow")));
        }
        Ok(source)
    }

    pub fn fault(&self, reason: impl Into<String>) -> Error {
        let (path, reason) = (self.path.to_path_buf(), reason.into());
        match self.storage {
            Storage::Text => Error::Line { path, line: self.line, reason },
            _ => Error::Byte { path, byte: self.at as u64, reason },
        }
    }

    /// All vertices with positions, and normals and colours where they are complete.
    pub fn vertices(&mut self, element: &Element) -> Result<Cloud> {
        let find = |names: [&str; 3]| -> Option<[usize; 3]> {
            let place = |n: &str| element.properties.iter().position(|p| p.name == n && p.length.is_none());
            Some([place(names[0])?, place(names[1])?, place(names[2])?])
        };
        let Some(position) = find(["x", "y", "z"]) else {
            return Err(self.fault("the vertices have no x, y and z"));
        };
        let normal = find(["nx", "ny", "nz"]);
        let bytes = |at: &[usize; 3]| at.iter().all(|&i| element.properties[i].kind == Scalar::U8);
        let color = find(["red", "green", "blue"]).filter(bytes);
        let count = element.count as usize;
        let mut cloud = Cloud {
            points: Vec::with_capacity(count),
            normals: normal.map(|_| Vec::with_capacity(count)),
            colors: color.map(|_| Vec::with_capacity(count)),
        };
        let mut row = vec![0.0_f64; element.properties.len()];
        for index in 0..count {
            for (slot, property) in row.iter_mut().zip(&element.properties) {
                *slot = self.property(property)?;
            }
            let three = |at: [usize; 3]| -> Point { at.map(|i| row[i] as f32) };
            let point = three(position);
            if !point.iter().all(|v| v.is_finite()) {
                return Err(self.fault(format!("vertex {index}: {point:?} is not finite")));
            }
            cloud.points.push(point);
            if let (Some(at), Some(normals)) = (normal, &mut cloud.normals) {
                normals.push(three(at));
            }
            if let (Some(at), Some(colors)) = (color, &mut cloud.colors) {
                colors.push(at.map(|i| row[i] as u8));
            }
        }
        // Normals that are no numbers are worth nothing; the points still are.
        cloud.normals = cloud.normals.filter(|n| n.iter().flatten().all(|v| v.is_finite()));
        Ok(cloud)
    }

    /// A single number; of a list, which is passed over, its length.
    fn property(&mut self, property: &Property) -> Result<f64> {
        let Some(length) = property.length else { return self.number(property.kind) };
        let length = self.length(length)?;
        for _ in 0..length {
            self.number(property.kind)?;
        }
        Ok(length as f64)
    }

    fn length(&mut self, kind: Scalar) -> Result<u64> {
        let length = self.number(kind)?;
        let left = (self.bytes.len() - self.at) as f64;
        if !(0.0..=left).contains(&length) || length.fract() != 0.0 {
            return Err(self.fault(format!("a list cannot have {length} entries here")));
        }
        Ok(length as u64)
    }

    /// The list of corners of every face.
    pub fn lists(
        &mut self,
        element: &Element,
        mut take: impl FnMut(&[u64]) -> std::result::Result<(), String>,
    ) -> Result<()> {
        let corners = element.corners();
        let mut list = Vec::new();
        for _ in 0..element.count {
            for (i, property) in element.properties.iter().enumerate() {
                let Some(length) = property.length.filter(|_| Some(i) == corners) else {
                    self.property(property)?;
                    continue;
                };
                list.clear();
                for _ in 0..self.length(length)? {
                    let corner = self.number(property.kind)?;
                    if !(corner >= 0.0 && corner.fract() == 0.0) {
                        return Err(self.fault(format!("{corner} is no corner of a face")));
                    }
                    list.push(corner as u64);
                }
                take(&list).map_err(|reason| self.fault(reason))?;
            }
        }
        Ok(())
    }

    pub fn skip(&mut self, element: &Element) -> Result<()> {
        if element.properties.is_empty() {
            return Ok(());
        }
        for _ in 0..element.count {
            for property in &element.properties {
                self.property(property)?;
            }
        }
        Ok(())
    }

    /// Refuses what follows the last element, blanks aside.
    pub fn finish(&mut self) -> Result<()> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        match rest.iter().all(u8::is_ascii_whitespace) {
            true => Ok(()),
            false => Err(self.fault(format!("{} bytes follow the last element", rest.len()))),
        }
    }

    fn number(&mut self, kind: Scalar) -> Result<f64> {
        match self.storage {
            Storage::Text => self.word(kind),
            Storage::Little => self.binary(kind, false),
            Storage::Big => self.binary(kind, true),
        }
    }

    fn binary(&mut self, kind: Scalar, big: bool) -> Result<f64> {
        let mut raw = [0_u8; 8];
        let size = kind.size();
        let Some(bytes) = self.bytes.get(self.at..self.at + size) else {
            return Err(self.fault("the file ends in the middle of its data"));
        };
        raw[..size].copy_from_slice(bytes);
        if big {
            raw[..size].reverse();
        }
        self.at += size;
        let [a, b, c, d, ..] = raw;
        Ok(match kind {
            Scalar::I8 => f64::from(a as i8),
            Scalar::U8 => f64::from(a),
            Scalar::I16 => f64::from(i16::from_le_bytes([a, b])),
            Scalar::U16 => f64::from(u16::from_le_bytes([a, b])),
            Scalar::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
            Scalar::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
            Scalar::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
            Scalar::F64 => f64::from_le_bytes(raw),
        })
    }

    fn word(&mut self, kind: Scalar) -> Result<f64> {
        while let Some(b) = self.bytes.get(self.at).filter(|b| b.is_ascii_whitespace()) {
            self.line += usize::from(*b == b'\n');
            self.at += 1;
        }
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.fault("the file ends in the middle of its data"));
        }
        let word = String::from_utf8_lossy(&rest[..end]);
        let value: f64 = match word.parse() {
            Ok(value) => value,
            Err(_) => return Err(self.fault(format!("expected a number, found '{}'", shortened(&word)))),
        };
        let whole = !matches!(kind, Scalar::F32 | Scalar::F64);
        if whole && value.fract() != 0.0 {
            return Err(self.fault(format!("expected a whole number, found '{}'", shortened(&word))));
        }
        self.at += end;
        Ok(value)
    }
}
