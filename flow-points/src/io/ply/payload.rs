//! The numbers of a PLY, from text or bytes.

use std::path::Path;

use super::header::{Element, Header, Property, Scalar, Storage};
use crate::io::Vertices;
use crate::io::notes::{Notes, colors_of};
use crate::io::words::shortened;
use crate::{Error, Result};

/// A place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    at: usize,
    line: usize,
}

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
    pub fn vertices(&mut self, element: &Element, notes: &mut Notes) -> Result<Vertices> {
        let Some(position) = element.three(&[["x", "y", "z"]]) else {
            return Err(self.fault("the vertices have no x, y and z"));
        };
        let normal = element.three(&[["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"]]);
        let color = element.three(&[
            ["red", "green", "blue"],
            ["r", "g", "b"],
            ["diffuse_red", "diffuse_green", "diffuse_blue"],
        ]);
        let count = element.count as usize;
        let (mut positions, mut normals, mut colors) = (Vec::with_capacity(count), Vec::new(), Vec::new());
        let mut row = vec![0.0_f64; element.properties.len()];
        for index in 0..count {
            for (slot, property) in row.iter_mut().zip(&element.properties) {
                *slot = self.property(property)?;
            }
            let three = |at: [usize; 3]| at.map(|i| row[i]);
            let point = three(position);
            if !point.iter().all(|v| v.abs() <= f64::from(f32::MAX)) {
                return Err(self.fault(format!("vertex {index}: {point:?} is not finite in single precision")));
            }
            positions.push(point);
            normals.extend(normal.map(|at| three(at).map(|v| v as f32)));
            colors.extend(color.map(three));
        }
        let read: Vec<usize> = [Some(position), normal, color].into_iter().flatten().flatten().collect();
        let rest = element.properties.iter().enumerate().filter(|(i, _)| !read.contains(i));
        let rest: Vec<String> = rest.map(|(_, p)| shortened(&p.name)).collect();
        if !rest.is_empty() {
            notes.say(format!("properties of vertices that are not read: {}", rest.join(", ")));
        }
        // Normals that are no numbers are worth nothing; the points still are.
        let numbers = normals.iter().flatten().all(|v| v.is_finite());
        if !numbers {
            notes.say("normals that are not all numbers are not read");
        }
        let kind = color.map(|at| element.properties[at[0]].kind);
        if kind == Some(Scalar::U16) {
            colors.iter_mut().flatten().for_each(|v| *v /= 257.0);
        }
        let fractions = matches!(kind, Some(Scalar::F32 | Scalar::F64));
        Ok(Vertices {
            positions,
            normals: normal.filter(|_| numbers).map(|_| normals),
            colors: colors_of(&colors, fractions, notes),
        })
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

    /// The list of corners of every face, or of every strip, where -1 ends a strip.
    pub fn lists(
        &mut self,
        element: &Element,
        least: i64,
        mut take: impl FnMut(&[i64], Place) -> std::result::Result<(), String>,
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
                    if !(corner >= least as f64 && corner.fract() == 0.0) {
                        return Err(self.fault(format!("{corner} is no corner of a face")));
                    }
                    list.push(corner as i64);
                }
                take(&list, self.place()).map_err(|reason| self.fault(reason))?;
            }
        }
        Ok(())
    }

    /// Where the reading is.
    pub fn place(&self) -> Place {
        Place { at: self.at, line: self.line }
    }

    /// A fault at an earlier place.
    pub fn fault_at(&mut self, place: Place, reason: impl Into<String>) -> Error {
        (self.at, self.line) = (place.at, place.line);
        self.fault(reason)
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
            // A carriage return ends a line unless a line feed follows.
            let ends = *b == b'\n' || (*b == b'\r' && self.bytes.get(self.at + 1) != Some(&b'\n'));
            self.line += usize::from(ends);
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
            Err(_) => {
                let remedy = if word.contains(',') { ": a decimal comma? write it with a point" } else { "" };
                return Err(self.fault(format!("expected a number, found '{}'{remedy}", shortened(&word))));
            }
        };
        if let Some((least, most)) = kind.range()
            && !(value.fract() == 0.0 && (least..=most).contains(&value))
        {
            let expected = format!("expected a whole number from {least} to {most}");
            return Err(self.fault(format!("{expected}, found '{}'", shortened(&word))));
        }
        self.at += end;
        Ok(value)
    }
}
