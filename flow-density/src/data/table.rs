//! Tables of numbers: CSV text and NPY arrays.

use std::path::Path;

use crate::error::Place;
use crate::{Error, Result};

/// Columns of a table, at most.
const MOST_COLUMNS: usize = 63;

/// Rows of finite numbers, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    name: String,
    columns: usize,
    values: Vec<f32>,
}

/// What is wrong with a table whose name the one who looks at it does not know.
struct Fault {
    place: Place,
    found: String,
    expected: String,
}

impl Fault {
    fn new(place: Place, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Fault { place, found: found.into(), expected: expected.into() }
    }

    fn of(self, name: &str) -> Error {
        Error::Table { table: name.into(), place: self.place, found: self.found, expected: self.expected }
    }
}

/// Numbers as they were read, and how many lie in a row.
type Numbers = (usize, Vec<f32>);

impl Table {
    /// A table of rows that lie one after the other in `values`.
    ///
    /// # Errors
    /// [`Error::Table`] for a number of values that makes no whole rows, for other than 1 to 63 columns, and naming the
    /// row and column of the first number that is not finite.
    pub fn new(columns: usize, values: Vec<f32>) -> Result<Self> {
        Table::checked((columns, values), "table").map_err(|fault| fault.of("table"))
    }

    /// Reads `.npy` (two axes of f4 or f8, C order) or text with one row per line, parted by one of tabs, semicolons,
    /// commas or spaces; a first line of names is passed over.
    ///
    /// # Errors
    /// [`Error::Table`] naming the file and the line, or the row and column, of the first thing that is not a finite
    /// number; [`flow_core::Error::Io`] for a file that cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let read = match extension.as_str() {
            "npy" => array,
            "csv" | "tsv" | "txt" => text,
            _ => {
                let found = format!("the ending '{extension}'");
                return Err(Fault::new(Place::Whole, found, "one of .npy, .csv, .tsv or .txt").of(&name));
            }
        };
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        read(&bytes).and_then(|numbers| Table::checked(numbers, &name)).map_err(|fault| fault.of(&name))
    }

    /// The file that it came from, or "table".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// The numbers, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A row; empty beyond the last one.
    pub fn row(&self, index: usize) -> &[f32] {
        self.values.chunks_exact(self.columns).nth(index).unwrap_or_default()
    }

    fn checked((columns, values): Numbers, name: &str) -> std::result::Result<Self, Fault> {
        if !(1..=MOST_COLUMNS).contains(&columns) {
            return Err(Fault::new(Place::Whole, format!("{columns} columns"), format!("1 to {MOST_COLUMNS}")));
        }
        if values.len() % columns != 0 {
            let found = format!("{} numbers", values.len());
            return Err(Fault::new(Place::Whole, found, format!("whole rows of {columns}")));
        }
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(Table { name: name.into(), columns, values }),
            Some(at) => {
                let place = Place::Entry { row: at / columns, column: at % columns };
                Err(Fault::new(place, values[at].to_string(), "a finite number"))
            }
        }
    }
}

fn text(bytes: &[u8]) -> std::result::Result<Numbers, Fault> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| Fault::new(Place::Byte(e.valid_up_to()), "not text", "UTF-8"))?;
    // One separator for the whole file: a comma may be the mark of decimals where semicolons part the cells.
    let separator = ['\t', ';', ','].into_iter().find(|&c| text.lines().any(|line| line.contains(c)));
    let (mut columns, mut values) = (0, Vec::new());
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (place, (index, line)) in lines.enumerate() {
        let Some(row) = numbers(&cells(line, separator), index + 1, place == 0)? else { continue };
        if columns == 0 {
            columns = row.len();
        }
        if row.len() != columns {
            let found = format!("{} numbers", row.len());
            return Err(Fault::new(Place::Line(index + 1), found, columns.to_string()));
        }
        values.extend(row);
    }
    match columns {
        0 => Err(Fault::new(Place::Whole, "no row of numbers", "at least one")),
        _ => Ok((columns, values)),
    }
}

fn cells(line: &str, separator: Option<char>) -> Vec<&str> {
    match separator {
        Some(separator) => line.split(separator).map(|cell| cell.trim().trim_matches('"')).collect(),
        None => line.split_whitespace().map(|cell| cell.trim_matches('"')).collect(),
    }
}

/// The numbers of a line; `None` for a first line, which may be one of names.
fn numbers(cells: &[&str], line: usize, first: bool) -> std::result::Result<Option<Vec<f32>>, Fault> {
    if let Some(column) = cells.iter().position(|cell| cell.is_empty()).filter(|_| !first) {
        return Err(Fault::new(Place::Cell { line, column }, "an empty cell", "a number"));
    }
    let read: std::result::Result<Vec<f32>, &str> = cells.iter().map(|cell| cell.parse().map_err(|_| *cell)).collect();
    match read {
        Ok(numbers) => Ok(Some(numbers)),
        Err(_) if first => Ok(None),
        Err(cell) => Err(Fault::new(Place::Line(line), format!("'{cell}'"), "a number")),
    }
}

/// The header is a line of text that is matched word by word; what it declares is compared with what is there before
/// anything is reserved.
fn array(bytes: &[u8]) -> std::result::Result<Numbers, Fault> {
    let whole = |found: String, expected: &str| Fault::new(Place::Whole, found, expected);
    let (header, rest) =
        split_header(bytes).ok_or_else(|| whole("not an NPY file".into(), "its magic bytes and a header"))?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start());
    let kind = field("'descr':").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next()).unwrap_or_default();
    let size = match kind {
        "<f4" => 4,
        "<f8" => 8,
        _ => return Err(whole(format!("numbers of type '{kind}'"), "'<f4' or '<f8'")),
    };
    if !field("'fortran_order':").is_some_and(|rest| rest.starts_with("False")) {
        return Err(whole("an array in Fortran order".into(), "C order"));
    }
    let shape = field("'shape':").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).unwrap_or_default();
    let axes: Vec<usize> = shape.split(',').filter_map(|axis| axis.trim().parse().ok()).collect();
    let &[rows, columns] = axes.as_slice() else {
        return Err(whole(format!("an array of shape ({shape})"), "rows and columns"));
    };
    let expected = rows.checked_mul(columns).and_then(|n| n.checked_mul(size));
    if expected != Some(rest.len()) {
        let found = format!("{} bytes of numbers", rest.len());
        return Err(whole(found, &format!("{size} for each number of a shape of ({rows}, {columns})")));
    }
    let values = match size {
        4 => rest.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        _ => rest.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
    };
    Ok((columns, values))
}

/// The text of an NPY header and the bytes after it.
fn split_header(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (start, length) = match *rest {
        [1, _, a, b, ..] => (4, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (6, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return None,
    };
    let (header, numbers) = rest.get(start..)?.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rows: usize) -> String {
        (0..rows).map(|i| format!("{i},{}\n", 0.5 * i as f64)).collect()
    }

    fn read(content: &[u8]) -> Result<Table> {
        text(content).and_then(|read| Table::checked(read, "t.csv")).map_err(|fault| fault.of("t.csv"))
    }

    #[test]
    fn text_with_and_without_names_and_with_any_separator() {
        let plain = read(numbers(12).as_bytes()).unwrap();
        assert_eq!((plain.columns, plain.rows()), (2, 12));
        assert_eq!((plain.row(1), plain.row(12)), (&[1.0, 0.5][..], &[][..]));
        assert_eq!(read(format!("x,y\n{}\n", numbers(12)).as_bytes()).unwrap(), plain);
        assert_eq!(read(numbers(12).replace(',', " ; ").as_bytes()).unwrap(), plain);
        assert_eq!(read(numbers(12).replace(',', "\t").as_bytes()).unwrap(), plain);
        assert_eq!(read(numbers(12).replace(',', "  ").as_bytes()).unwrap(), plain);
        assert_eq!(read(format!("\u{feff}{}", numbers(12)).as_bytes()).unwrap(), plain);
    }

    fn npy(kind: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), numbers].concat()
    }

    #[test]
    fn arrays_of_both_precisions_and_none_that_lies() {
        let singles: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let doubles: Vec<u8> = (0..6).flat_map(|i| f64::from(i).to_le_bytes()).collect();
        let array = |bytes: &[u8]| array(bytes).map_err(|fault| fault.of("a.npy").to_string());
        let expected = (2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(array(&npy("<f4", "3, 2", &singles)).unwrap(), expected);
        assert_eq!(array(&npy("<f8", "3, 2", &doubles)).unwrap(), expected);
        let fortran = String::from_utf8(npy("<f4", "3, 2", b"")[10..].to_vec()).unwrap().replace("False", "True");
        let fortran = [b"\x93NUMPY\x01\x00".as_slice(), &[fortran.len() as u8, 0], fortran.as_bytes()].concat();
        for (bytes, expected) in [
            (npy("<f4", "4, 2", &singles), "24 bytes of numbers, expected 4 for each number of a shape of (4, 2)"),
            (npy("<f4", "9999999999999999, 9999999999999999", &singles), "24 bytes"),
            (npy("<f4", "6,", &singles), "shape (6,)"),
            (npy("<i4", "3, 2", &singles), "'<i4'"),
            (fortran, "C order"),
            (npy("<f4", "3, 2", &singles)[..30].to_vec(), "not an NPY file"),
            (b"PK\x03\x04".to_vec(), "not an NPY file"),
            (Vec::new(), "not an NPY file"),
        ] {
            let error = array(&bytes).unwrap_err();
            assert!(error.starts_with("a.npy: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (content, expected) in [
            ("1,2\n3\n", "t.csv: line 2: 1 numbers, expected 2"),
            ("1,2\n3,x\n", "t.csv: line 2: 'x', expected a number"),
            ("a,b\nc,d\n", "t.csv: line 2: 'c', expected a number"),
            ("1,2\n3,\n", "t.csv: line 2, column 1: an empty cell"),
            ("a,b,c\n1,,3\n", "t.csv: line 2, column 1: an empty cell"),
            ("1,5;2,5\n1,5;2,5\n", "t.csv: line 2: '1,5', expected a number"),
            ("", "t.csv: no row of numbers"),
        ] {
            let error = read(content.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
        let error = read(b"1,2\n\xff").unwrap_err().to_string();
        assert!(error.contains("byte 4"), "{error}");
        let error = read(format!("{}nan,1\n", numbers(12)).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("row 12, column 0: NaN"), "{error}");
        assert!(Table::new(2, vec![1.0; 5]).unwrap_err().to_string().contains("5 numbers, expected whole rows of 2"));
    }
}
