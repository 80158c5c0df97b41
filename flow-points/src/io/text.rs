//! Plain text and tables: one point a line.

use std::path::Path;

use super::Vertices;
use super::columns::{Columns, Content};
use super::notes::{Notes, colors_of};
use super::words::{Line, check_text, numbered, shortened};
use crate::{Error, Point, Result};

/// What is said of a cell without content.
const EMPTY_CELL: &str = "a cell is empty: leave out the point, or fill it";

/// Reads a point a line, separated by blanks, commas, semicolons or tabs.
///
/// A first line may name the columns (`x,y,z,nx,ny,nz`, `//X Y Z R G B` of CloudCompare); without one, lines of three
/// numbers are positions, of four positions and an intensity, of six positions with normals or colours, of seven
/// positions with an intensity and colours. One whole number by itself before the points is their count, which is checked.
pub(super) fn read(path: &Path, bytes: &[u8], notes: &mut Notes) -> Result<Vertices> {
    check_text(path, bytes)?;
    let Head { announced, columns, data } = head(path, bytes)?;
    let Some(first) = data.first() else {
        return Err(Error::File { path: path.to_path_buf(), reason: "has no points".into() });
    };
    if let Some((count, line)) = announced
        && count != data.len() as u64
    {
        let reason = format!("announces {count} points, there are {}", data.len());
        return Err(Error::Line { path: path.to_path_buf(), line, reason });
    }
    let width = first.words.len();
    let columns = match columns {
        Some(columns) if columns.width == width => columns,
        Some(columns) => return Err(first.fault(format!("the header names {} columns, found {width}", columns.width))),
        None => Columns::of_width(width, path).ok_or_else(|| {
            let remedy = "name the columns in a first line, as x y z nx ny nz";
            first.fault(format!("expected 3, 4, 6 or 7 numbers, found {width}; {remedy}"))
        })?,
    };
    columns.tell(notes);
    let mut vertices = Vertices::default();
    vertices.positions.reserve(data.len());
    let mut more = Vec::new();
    for line in &data {
        if line.words.len() != width {
            return Err(
                line.fault(format!("expected {width} numbers as on the first line, found {}", line.words.len()))
            );
        }
        vertices.positions.push(three(line, columns.position, "a coordinate")?);
        if let Some((at, _)) = columns.more {
            more.push(three(line, at, "a normal or a colour")?);
        }
        if let Some(at) = columns.normal {
            let normal = three(line, at, "a normal")?.map(|v| v as f32);
            vertices.normals.get_or_insert_default().push(normal);
        }
    }
    if let Some((at, content)) = columns.more {
        attach(&mut vertices, &more, content, &data, at, notes);
    }
    Ok(vertices)
}

fn three(line: &Line<'_>, at: [usize; 3], what: &str) -> Result<[f64; 3]> {
    Ok([line.number(at[0], what)?, line.number(at[1], what)?, line.number(at[2], what)?])
}

/// Three numbers beside the position: what they are if nothing says it follows from how they are written.
fn attach(
    vertices: &mut Vertices,
    numbers: &[[f64; 3]],
    content: Content,
    data: &[Line<'_>],
    at: [usize; 3],
    notes: &mut Notes,
) {
    let normals = || Some(numbers.iter().map(|n| n.map(|v| v as f32)).collect::<Vec<Point>>());
    let bytes = || data.iter().all(|line| at.iter().all(|&i| line.words[i].parse::<u8>().is_ok()));
    let unit = || numbers.iter().all(|n| (n.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 0.02);
    match content {
        Content::Colors => vertices.colors = colors_of(numbers, !bytes(), notes),
        Content::Normals => vertices.normals = normals(),
        // The directions of axes are whole numbers, and normals.
        Content::Unknown if unit() => vertices.normals = normals(),
        Content::Unknown if bytes() => vertices.colors = colors_of(numbers, false, notes),
        Content::Unknown if numbers.iter().flatten().all(|v| (0.0..=1.0).contains(v)) => {
            notes.say("three numbers from 0 to 1 beside the positions were read as colours");
            vertices.colors = colors_of(numbers, true, notes);
        }
        Content::Unknown => {
            notes.say("three numbers beside the positions were read as normals");
            vertices.normals = normals();
        }
    }
}

/// What stands before the points, and the points.
struct Head<'a> {
    announced: Option<(u64, usize)>,
    columns: Option<Columns>,
    data: Vec<Line<'a>>,
}

fn head<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Head<'a>> {
    let mut head = Head { announced: None, columns: None, data: Vec::new() };
    for (number, raw) in numbered(bytes) {
        let fault = |reason: String| Error::Line { path: path.to_path_buf(), line: number, reason };
        let whole = raw.trim_ascii();
        let comment = whole.strip_prefix(b"//").or_else(|| whole.strip_prefix(b"#"));
        if let Some(names) = comment {
            // A comment is a header if it names columns; only before the points.
            if let Ok(names) = std::str::from_utf8(names)
                && head.data.is_empty()
                && let Ok(columns) = Columns::named(&fields(names).unwrap_or_default())
            {
                head.columns = Some(columns);
            }
            continue;
        }
        let content = raw.split(|&b| b == b'#').next().unwrap_or_default().trim_ascii();
        if content.is_empty() {
            continue;
        }
        let Ok(text) = std::str::from_utf8(content) else {
            return Err(fault(format!("expected numbers, found '{}'", shortened(&String::from_utf8_lossy(content)))));
        };
        let words = fields(text).map_err(fault)?;
        if words.is_empty() {
            // Blanks beyond ASCII's: a vertical tab, a space that does not break.
            continue;
        }
        if head.data.is_empty() {
            if words.len() == 1 && head.announced.is_none() {
                let count = words[0].parse();
                let count = count
                    .map_err(|_| fault(format!("expected points, or their number, found '{}'", shortened(text))))?;
                head.announced = Some((count, number));
                continue;
            }
            if words[0].parse::<f64>().is_err() && head.columns.is_none() {
                match Columns::named(&words) {
                    Ok(columns) => head.columns = Some(columns),
                    Err(_) if words.iter().any(|w| w.is_empty()) => return Err(fault(EMPTY_CELL.into())),
                    Err(reason) => return Err(fault(reason)),
                }
                continue;
            }
        }
        if words.iter().any(|w| w.is_empty()) {
            return Err(fault(EMPTY_CELL.into()));
        }
        head.data.push(Line { path, number, words });
    }
    Ok(head)
}

/// The cells of a line. Semicolons separate before commas, and commas before blanks; a comma inside a number is refused,
/// since a decimal comma would pass for two numbers. An empty last cell is no cell.
fn fields(line: &str) -> std::result::Result<Vec<&str>, String> {
    let has = |separator: char| outside_quotes(line, separator).next().is_some();
    let separator = [';', ','].into_iter().find(|&s| has(s));
    let mut cells: Vec<&str> = match separator {
        None if line.contains('\t') && !line.contains(' ') => line.split('\t').map(str::trim).collect(),
        None => line.split_whitespace().collect(),
        Some(separator) => {
            let ends: Vec<usize> = outside_quotes(line, separator).collect();
            let starts = std::iter::once(0).chain(ends.iter().map(|e| e + 1));
            starts.zip(ends.iter().copied().chain([line.len()])).map(|(a, b)| line[a..b].trim()).collect()
        }
    };
    if cells.len() > 1 && cells.last().is_some_and(|cell| cell.is_empty()) {
        cells.pop();
    }
    for cell in &mut cells {
        *cell = cell.strip_prefix('"').and_then(|c| c.strip_suffix('"')).unwrap_or(cell).trim();
    }
    let is_number = |part: &str| part.parse::<f64>().is_ok();
    for cell in &cells {
        let inner = cell.contains(',') || (separator == Some(',') && cell.split_whitespace().count() > 1);
        let numbers = cell.split([',', ' ', '\t']).filter(|p| !p.is_empty()).all(is_number);
        let leading = separator == Some(',')
            && cell.len() > 1
            && cell.starts_with('0')
            && cell.bytes().all(|b| b.is_ascii_digit());
        if (inner && numbers) || leading {
            let reason = "decimal commas, or commas and blanks both as separators? write numbers with points";
            return Err(format!("'{}': {reason}", shortened(line)));
        }
    }
    Ok(cells)
}

/// The places of a separator that is not between quotes.
fn outside_quotes(line: &str, separator: char) -> impl Iterator<Item = usize> {
    let mut quoted = false;
    line.char_indices().filter_map(move |(i, c)| {
        quoted ^= c == '"';
        (c == separator && !quoted).then_some(i)
    })
}
