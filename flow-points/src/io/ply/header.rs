//! The header of a PLY.

use std::path::Path;

use crate::io::words::{shortened, split_line};
use crate::{Error, Result};

/// The type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "char" | "int8" => Scalar::I8,
            "uchar" | "uint8" => Scalar::U8,
            "short" | "int16" => Scalar::I16,
            "ushort" | "uint16" => Scalar::U16,
            "int" | "int32" => Scalar::I32,
            "uint" | "uint32" => Scalar::U32,
            "float" | "float32" => Scalar::F32,
            "double" | "float64" => Scalar::F64,
            _ => return None,
        })
    }

    /// The least and the largest whole number that it holds, `None` for floats.
    pub fn range(self) -> Option<(f64, f64)> {
        Some(match self {
            Scalar::I8 => (i8::MIN.into(), i8::MAX.into()),
            Scalar::U8 => (0.0, u8::MAX.into()),
            Scalar::I16 => (i16::MIN.into(), i16::MAX.into()),
            Scalar::U16 => (0.0, u16::MAX.into()),
            Scalar::I32 => (i32::MIN.into(), i32::MAX.into()),
            Scalar::U32 => (0.0, u32::MAX.into()),
            Scalar::F32 | Scalar::F64 => return None,
        })
    }

    pub fn size(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 4,
            Scalar::F64 => 8,
        }
    }
}

/// One property of an element.
#[derive(Debug, Clone)]
pub(super) struct Property {
    pub name: String,
    pub kind: Scalar,
    /// The type of a list's length; `None` for a single number.
    pub length: Option<Scalar>,
}

/// One element of the file.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub name: String,
    pub count: u64,
    pub properties: Vec<Property>,
}

impl Element {
    /// The place of the list of a face's or a strip's corners: by its name, or the only list there is.
    pub fn corners(&self) -> Option<usize> {
        let named = |p: &Property| p.length.is_some() && (p.name == "vertex_indices" || p.name == "vertex_index");
        let list = |p: &Property| p.length.is_some();
        let only = || {
            self.properties.iter().position(list).filter(|_| self.properties.iter().filter(|p| list(p)).count() == 1)
        };
        self.properties.iter().position(named).or_else(only)
    }

    /// The places of three single numbers, by the first of these names that there are.
    pub fn three(&self, names: &[[&str; 3]]) -> Option<[usize; 3]> {
        let place =
            |name: &str| self.properties.iter().position(|p| p.length.is_none() && p.name.eq_ignore_ascii_case(name));
        names.iter().find_map(|three| Some([place(three[0])?, place(three[1])?, place(three[2])?]))
    }
}

/// How the numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    Text,
    Little,
    Big,
}

/// What a file announces.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub storage: Storage,
    pub elements: Vec<Element>,
    /// Bytes and lines of the header.
    pub bytes: usize,
    pub lines: usize,
}

impl Header {
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut header = Header { storage: Storage::Text, elements: Vec::new(), bytes: 0, lines: 0 };
        let (mut format, mut carriage) = (false, false);
        loop {
            let (line, after) = split_line(&bytes[header.bytes..]);
            let Some(after) = after else {
                let reason = "the header has no end_header".to_string();
                return Err(Error::Line { path: path.to_path_buf(), line: header.lines + 1, reason });
            };
            header.bytes = bytes.len() - after.len();
            header.lines += 1;
            // The first line tells how lines end; after the last one a byte of the data may look like a line feed.
            if header.lines == 1 {
                carriage = bytes[..header.bytes].ends_with(b"\r");
            }
            // Comments may be in any encoding; everything else is plain text.
            let line = String::from_utf8_lossy(line);
            let words: Vec<&str> = line.split_whitespace().collect();
            let fault = |reason: String| Error::Line { path: path.to_path_buf(), line: header.lines, reason };
            match (header.lines, &words[..]) {
                (1, ["ply"]) => {}
                (1, _) => return Err(fault(format!("expected 'ply', found '{}'", shortened(&line)))),
                (_, ["format", storage, "1.0"]) => {
                    header.storage = match *storage {
                        "ascii" => Storage::Text,
                        "binary_little_endian" => Storage::Little,
                        "binary_big_endian" => Storage::Big,
                        other => return Err(fault(format!("unknown format '{}'", shortened(other)))),
                    };
                    format = true;
                }
                (_, ["comment" | "obj_info", ..] | []) => {}
                (_, ["end_header"]) => {
                    header.bytes -= usize::from(carriage && bytes[..header.bytes].ends_with(b"\r\n"));
                    break;
                }
                (_, ["element", name, count]) => {
                    let count = count.parse().map_err(|_| fault(format!("'{}' is no count", shortened(count))))?;
                    header.elements.push(Element { name: (*name).into(), count, properties: Vec::new() });
                }
                (_, ["property", rest @ ..]) => {
                    let property = property(rest).map_err(fault)?;
                    match header.elements.last_mut() {
                        Some(element) => element.properties.push(property),
                        None => return Err(fault("a property comes before the first element".into())),
                    }
                }
                _ => return Err(fault(format!("cannot be understood: '{}'", shortened(&line)))),
            }
        }
        if !format {
            return Err(Error::File { path: path.to_path_buf(), reason: "the header has no format line".into() });
        }
        Ok(header)
    }
}

fn property(words: &[&str]) -> std::result::Result<Property, String> {
    let kind = |name: &str| Scalar::of(name).ok_or_else(|| format!("unknown type '{}'", shortened(name)));
    match words {
        ["list", length, of, name] => {
            let length = kind(length)?;
            if matches!(length, Scalar::F32 | Scalar::F64) {
                return Err("the length of a list cannot be a float".into());
            }
            Ok(Property { name: (*name).into(), kind: kind(of)?, length: Some(length) })
        }
        [of, name] => Ok(Property { name: (*name).into(), kind: kind(of)?, length: None }),
        _ => Err("expected 'property TYPE NAME' or 'property list TYPE TYPE NAME'".into()),
    }
}
