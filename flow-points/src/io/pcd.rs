//! PCD, the format of the Point Cloud Library, version 0.7 and before: text, binary, and binary compressed by LZF.

use std::path::Path;

use super::Vertices;
use super::notes::{Notes, colors_of};
use super::words::{number, shortened, split_line};
use crate::{Error, Result};

/// One field of a point.
#[derive(Debug, Clone)]
struct Field {
    name: String,
    size: usize,
    kind: u8,
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Text,
    Binary,
    Compressed,
}

/// What a file announces.
struct Header {
    fields: Vec<Field>,
    points: u64,
    storage: Storage,
    /// Bytes and lines of the header.
    bytes: usize,
    lines: usize,
    moved: bool,
}

/// Reads positions, with normals and colours where there are any. Points that are not numbers, which stand for what a
/// sensor did not see, are left out and counted.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Vertices> {
    let header = Header::parse(path, bytes)?;
    let at = |names: [&str; 3]| -> Option<[usize; 3]> {
        let find = |name: &str| header.fields.iter().position(|f| f.name.eq_ignore_ascii_case(name) && f.count == 1);
        Some([find(names[0])?, find(names[1])?, find(names[2])?])
    };
    let Some(position) = at(["x", "y", "z"]) else {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no fields x, y and z".into() });
    };
    let normal = at(["normal_x", "normal_y", "normal_z"]);
    let packed = header.fields.iter().position(|f| matches!(f.name.as_str(), "rgb" | "rgba") && f.size == 4);
    let rows = header.rows(path, bytes)?;
    let (mut vertices, mut normals, mut colors, mut unseen) = (Vertices::default(), Vec::new(), Vec::new(), 0);
    for row in &rows {
        let three = |at: [usize; 3]| at.map(|i| row[i].value);
        let point = three(position);
        if !point.iter().all(|v| v.abs() <= f64::from(f32::MAX)) {
            unseen += 1;
            continue;
        }
        vertices.positions.push(point);
        normals.extend(normal.map(three));
        colors.extend(packed.map(|i| {
            let bits = row[i].bits;
            [f64::from(bits >> 16 & 255), f64::from(bits >> 8 & 255), f64::from(bits & 255)]
        }));
    }
    notes.count(unseen, "points are no finite numbers and are left out");
    if header.moved {
        notes.say("the VIEWPOINT of the sensor is not applied");
    }
    let read: Vec<usize> = [Some(position), normal].into_iter().flatten().flatten().chain(packed).collect();
    let rest: Vec<String> = (0..header.fields.len())
        .filter(|i| !read.contains(i) && header.fields[*i].name != "_")
        .map(|i| shortened(&header.fields[i].name))
        .collect();
    if !rest.is_empty() {
        notes.say(format!("fields that are not read: {}", rest.join(", ")));
    }
    vertices.colors = colors_of(&colors, false, notes);
    vertices.normals = match normals.iter().flatten().all(|v| v.is_finite()) {
        true => normal.map(|_| normals.iter().map(|n| n.map(|v| v as f32)).collect()),
        false => {
            notes.say("normals that are not all numbers are not read");
            None
        }
    };
    Ok(vertices)
}

/// One entry of a point: as a number, and the bits that a packed colour has.
#[derive(Debug, Clone, Copy)]
struct Entry {
    value: f64,
    bits: u32,
}

impl Header {
    fn parse(path: &Path, bytes: &[u8]) -> Result<Header> {
        let (mut names, mut sizes, mut kinds, mut counts) = (vec![], vec![], vec![], vec![]);
        let (mut points, mut width, mut height, mut moved) = (None, None, None, false);
        let (mut rest, mut lines) = (bytes, 0);
        let storage = loop {
            let (line, after) = split_line(rest);
            lines += 1;
            let fault = |reason: String| Error::Line { path: path.to_path_buf(), line: lines, reason };
            let Some(after) = after else { return Err(fault("the header has no DATA line".into())) };
            rest = after;
            let text = String::from_utf8_lossy(line);
            let words: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
            let [key, values @ ..] = &words[..] else { continue };
            let whole = |word: &str| -> Result<u64> {
                word.parse().map_err(|_| fault(format!("expected a whole number, found '{}'", shortened(word))))
            };
            let one = || match values {
                [value] => whole(value).map(Some),
                _ => Err(fault(format!("expected one number after {key}"))),
            };
            match *key {
                "VERSION" => {}
                "FIELDS" | "COLUMNS" => names = values.iter().map(|v| (*v).to_string()).collect(),
                "SIZE" => sizes = values.iter().map(|v| whole(v)).collect::<Result<_>>()?,
                "TYPE" => kinds = values.iter().map(|v| v.bytes().next().unwrap_or_default()).collect(),
                "COUNT" => counts = values.iter().map(|v| whole(v)).collect::<Result<_>>()?,
                "WIDTH" => width = one()?,
                "HEIGHT" => height = one()?,
                "POINTS" => points = one()?,
                "VIEWPOINT" => moved = values.iter().zip([0., 0., 0., 1., 0., 0., 0.]).any(|(v, w)| v.parse() != Ok(w)),
                "DATA" => match values {
                    ["ascii"] => break Storage::Text,
                    ["binary"] => break Storage::Binary,
                    ["binary_compressed"] => break Storage::Compressed,
                    _ => return Err(fault("expected DATA ascii, binary or binary_compressed".into())),
                },
                other => return Err(fault(format!("cannot be understood: '{}'", shortened(other)))),
            }
        };
        let fault = |reason: String| Error::File { path: path.to_path_buf(), reason };
        if counts.is_empty() {
            counts = vec![1; names.len()];
        }
        if names.is_empty() || [sizes.len(), kinds.len(), counts.len()].iter().any(|&n| n != names.len()) {
            return Err(fault("FIELDS, SIZE, TYPE and COUNT do not name as many fields".into()));
        }
        let area = width.zip(height.or(Some(1))).and_then(|(w, h): (u64, u64)| w.checked_mul(h));
        let points = match (points, area) {
            (Some(points), Some(area)) if points != area => {
                return Err(fault(format!("announces {points} POINTS, WIDTH times HEIGHT is {area}")));
            }
            (Some(points), _) | (None, Some(points)) => points,
            (None, None) => return Err(fault("announces neither POINTS nor WIDTH".into())),
        };
        let mut fields = Vec::new();
        for (((name, size), kind), count) in names.into_iter().zip(sizes).zip(kinds).zip(counts) {
            let known = matches!((kind, size), (b'F', 4 | 8) | (b'I' | b'U', 1 | 2 | 4 | 8));
            if (!known && name != "_") || !(1..=8).contains(&size) || !(1..=65_536).contains(&count) {
                return Err(fault(format!("field '{}' has no type that is read", shortened(&name))));
            }
            fields.push(Field { name, size: size as usize, kind, count: count as usize });
        }
        Ok(Header { fields, points, storage, bytes: bytes.len() - rest.len(), lines, moved })
    }

    /// The first entry of every field of every point.
    fn rows(&self, path: &Path, bytes: &[u8]) -> Result<Vec<Vec<Entry>>> {
        let data = &bytes[self.bytes..];
        let fault = |reason: String| Error::Byte { path: path.to_path_buf(), byte: self.bytes as u64, reason };
        let stride: usize = self.fields.iter().map(|f| f.size * f.count).sum();
        let needed = self.points.checked_mul(stride as u64);
        let fits = |found: usize| match needed {
            Some(needed) if needed == found as u64 => Ok(self.points as usize),
            _ => Err(fault(format!("{} points of {stride} bytes are announced, {found} bytes are there", self.points))),
        };
        let place = |field: usize| self.fields[..field].iter().map(|f| f.size * f.count).sum::<usize>();
        let entries = |start: &dyn Fn(usize, usize) -> usize, data: &[u8], points: usize| {
            let row = |i: usize| (0..self.fields.len()).map(|k| self.fields[k].entry(&data[start(i, k)..])).collect();
            (0..points).map(row).collect::<Vec<Vec<Entry>>>()
        };
        match self.storage {
            Storage::Text => self.text_rows(path, data),
            Storage::Binary => {
                let points = fits(data.len())?;
                Ok(entries(&|i, k| i * stride + place(k), data, points))
            }
            Storage::Compressed => {
                let size = |at: usize| data.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
                let (Some(packed), Some(unpacked)) = (size(0), size(4)) else {
                    return Err(fault("the file ends before its compressed data".into()));
                };
                let points = fits(unpacked as usize)?;
                if data.len() - 8 != packed as usize {
                    return Err(fault(format!("announces {packed} compressed bytes, there are {}", data.len() - 8)));
                }
                let plain = lzf(&data[8..], unpacked as usize).map_err(|reason| fault(reason.into()))?;
                // Field after field.
                Ok(entries(&|i, k| points * place(k) + i * self.fields[k].size * self.fields[k].count, &plain, points))
            }
        }
    }

    fn text_rows(&self, path: &Path, data: &[u8]) -> Result<Vec<Vec<Entry>>> {
        let width: usize = self.fields.iter().map(|f| f.count).sum();
        let mut rows = Vec::new();
        let mut last = self.lines;
        for (i, line) in super::words::numbered(data) {
            let text = String::from_utf8_lossy(line);
            let words: Vec<&str> = text.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            last = self.lines + i;
            let fault = |reason: String| Error::Line { path: path.to_path_buf(), line: last, reason };
            if words.len() != width {
                return Err(fault(format!("expected {width} numbers, found {}", words.len())));
            }
            let mut at = 0;
            let mut row = Vec::with_capacity(self.fields.len());
            for field in &self.fields {
                row.push(field.word(words[at]).map_err(fault)?);
                at += field.count;
            }
            rows.push(row);
        }
        if rows.len() as u64 != self.points {
            let reason = format!("{} points are announced, there are {}", self.points, rows.len());
            return Err(Error::Line { path: path.to_path_buf(), line: last, reason });
        }
        Ok(rows)
    }
}

impl Field {
    /// From bytes, of which there are at least `size`.
    fn entry(&self, bytes: &[u8]) -> Entry {
        let mut raw = [0_u8; 8];
        raw[..self.size].copy_from_slice(&bytes[..self.size]);
        let unsigned = u64::from_le_bytes(raw);
        let shift = 64 - 8 * self.size as u32;
        let value = match (self.kind, self.size) {
            (b'F', 4) => f64::from(f32::from_bits(unsigned as u32)),
            (b'F', _) => f64::from_bits(unsigned),
            (b'I', _) => (((unsigned << shift) as i64) >> shift) as f64,
            _ => unsigned as f64,
        };
        Entry { value, bits: unsigned as u32 }
    }

    /// From text; a packed colour is written as the float that has its bits, or as a whole number.
    fn word(&self, word: &str) -> std::result::Result<Entry, String> {
        if word.eq_ignore_ascii_case("nan") || word.eq_ignore_ascii_case("-nan") {
            return Ok(Entry { value: f64::NAN, bits: 0 });
        }
        let whole = word.parse::<i64>().ok().map(|v| v as u32);
        let bits = match (self.kind, whole) {
            (b'F', _) | (_, None) => word.parse::<f32>().map_or(0, f32::to_bits),
            (_, Some(whole)) => whole,
        };
        match self.name.as_str() {
            // A whole number beyond what a float's bits would be written as.
            "rgb" | "rgba" => Ok(Entry { value: 0.0, bits: whole.filter(|&v| v > 255).unwrap_or(bits) }),
            _ => Ok(Entry { value: number(word, "a field")?, bits }),
        }
    }
}

/// Undoes LZF: runs of bytes as they are, and copies of what came before.
fn lzf(packed: &[u8], size: usize) -> std::result::Result<Vec<u8>, &'static str> {
    const SHORT: &str = "the compressed data end in the middle";
    let mut out = Vec::with_capacity(size.min(264 * packed.len()));
    let mut bytes = packed.iter().copied();
    while let Some(control) = bytes.next() {
        let control = usize::from(control);
        if control < 32 {
            let before = out.len();
            out.extend(bytes.by_ref().take(control + 1));
            if out.len() != before + control + 1 {
                return Err(SHORT);
            }
        } else {
            let mut length = control >> 5;
            if length == 7 {
                length += usize::from(bytes.next().ok_or(SHORT)?);
            }
            let back = ((control & 31) << 8) + usize::from(bytes.next().ok_or(SHORT)?) + 1;
            let from = out.len().checked_sub(back).ok_or("the compressed data point before their begin")?;
            for i in 0..length + 2 {
                out.push(out[from + i]);
            }
        }
        if out.len() > size {
            return Err("the compressed data are longer than announced");
        }
    }
    if out.len() == size { Ok(out) } else { Err("the compressed data are shorter than announced") }
}
