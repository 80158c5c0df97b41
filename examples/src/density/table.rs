//! Tables of numbers: CSV text and NPY arrays.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Columns of a table, at most.
const MOST_COLUMNS: usize = 63;

/// Rows of finite numbers, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

impl Table {
    /// Reads `.npy` (two axes of f4 or f8, C order) or text with one row per line, parted by one of tabs, semicolons,
    /// commas or spaces; a first line of names is passed over.
    ///
    /// # Errors
    /// Names the file and the line or the row and column of the first number that is none.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let read = match extension.as_str() {
            "npy" => array,
            "csv" | "tsv" | "txt" => text,
            _ => bail!("{}: the ending says the format: .npy, .csv, .tsv or .txt", path.display()),
        };
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        read(&bytes).and_then(Table::checked).with_context(|| path.display().to_string())
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    fn checked(self) -> Result<Self> {
        let columns = self.columns;
        ensure!((1..=MOST_COLUMNS).contains(&columns), "{columns} columns, expected 1 to {MOST_COLUMNS}");
        if let Some(at) = self.values.iter().position(|v| !v.is_finite()) {
            bail!("row {}, column {}: {} is not a finite number", at / columns, at % columns, self.values[at]);
        }
        ensure!(self.rows() >= 10, "{} rows, expected at least 10 to split", self.rows());
        Ok(self)
    }
}

fn text(bytes: &[u8]) -> Result<Table> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| anyhow::anyhow!("byte {}: not text", e.valid_up_to()))?;
    let mut table = Table { columns: 0, values: Vec::new() };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    // One separator for the whole file: a comma may be the mark of decimals where semicolons part the cells.
    let separator = ['\t', ';', ','].into_iter().find(|&c| text.lines().any(|line| line.contains(c)));
    for (place, (index, line)) in lines.enumerate() {
        let cells: Vec<&str> = match separator {
            Some(separator) => line.split(separator).map(|cell| cell.trim().trim_matches('"')).collect(),
            None => line.split_whitespace().map(|cell| cell.trim_matches('"')).collect(),
        };
        if let Some(column) = cells.iter().position(|cell| cell.is_empty()).filter(|_| place > 0) {
            bail!("line {}, column {column}: the cell is empty", index + 1);
        }
        let numbers: Vec<Option<f32>> = cells.iter().map(|cell| cell.parse().ok()).collect();
        if let Some(bad) = numbers.iter().position(Option::is_none) {
            // The first line may be one of names.
            ensure!(place == 0, "line {}: '{}' is not a number", index + 1, cells[bad]);
            continue;
        }
        if table.columns == 0 {
            table.columns = numbers.len();
        }
        let found = numbers.len();
        ensure!(found == table.columns, "line {}: {found} numbers, expected {}", index + 1, table.columns);
        table.values.extend(numbers.into_iter().flatten());
    }
    ensure!(table.columns > 0, "no row of numbers");
    Ok(table)
}

/// The header is a line of text that is matched word by word; what it declares is compared with what is there before
/// anything is reserved.
fn array(bytes: &[u8]) -> Result<Table> {
    let (header, rest) = split_header(bytes).context("not an NPY file: expected its magic bytes and a header")?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start());
    let kind = field("'descr':").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next()).unwrap_or_default();
    ensure!(matches!(kind, "<f4" | "<f8"), "numbers of type '{kind}', expected '<f4' or '<f8'");
    ensure!(field("'fortran_order':").is_some_and(|rest| rest.starts_with("False")), "expected an array in C order");
    let shape = field("'shape':").and_then(|rest| rest.strip_prefix('(')?.split(')').next()).unwrap_or_default();
    let axes: Vec<usize> = shape.split(',').filter_map(|axis| axis.trim().parse().ok()).collect();
    let &[rows, columns] = axes.as_slice() else { bail!("an array of shape ({shape}), expected rows and columns") };
    let size = if kind == "<f4" { 4 } else { 8 };
    let expected = rows.checked_mul(columns).and_then(|n| n.checked_mul(size));
    ensure!(expected == Some(rest.len()), "{} bytes of numbers for a shape of ({rows}, {columns})", rest.len());
    let values = match size {
        4 => rest.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        _ => rest.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
    };
    Ok(Table { columns, values })
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

    #[test]
    fn text_with_and_without_names_and_with_any_separator() {
        let plain = text(numbers(12).as_bytes()).unwrap();
        assert_eq!((plain.columns, plain.rows()), (2, 12));
        assert_eq!(plain.values[2..4], [1.0, 0.5]);
        assert_eq!(text(format!("x,y\n{}\n", numbers(12)).as_bytes()).unwrap(), plain);
        assert_eq!(text(numbers(12).replace(',', " ; ").as_bytes()).unwrap(), plain);
        assert_eq!(text(numbers(12).replace(',', "\t").as_bytes()).unwrap(), plain);
        assert_eq!(text(numbers(12).replace(',', "  ").as_bytes()).unwrap(), plain);
        assert_eq!(text(format!("\u{feff}{}", numbers(12)).as_bytes()).unwrap(), plain);
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
        let expected = Table { columns: 2, values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
        assert_eq!(array(&npy("<f4", "3, 2", &singles)).unwrap(), expected);
        assert_eq!(array(&npy("<f8", "3, 2", &doubles)).unwrap(), expected);
        for (bytes, expected) in [
            (npy("<f4", "4, 2", &singles), "24 bytes of numbers for a shape of (4, 2)"),
            (npy("<f4", "9999999999999999, 9999999999999999", &singles), "24 bytes"),
            (npy("<f4", "6,", &singles), "shape (6,)"),
            (npy("<i4", "3, 2", &singles), "'<i4'"),
            (npy("<f4", "3, 2", &singles)[..30].to_vec(), "not an NPY file"),
            (b"PK\x03\x04".to_vec(), "not an NPY file"),
            (Vec::new(), "not an NPY file"),
        ] {
            let error = array(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (content, expected) in [
            ("1,2\n3\n", "line 2: 1 numbers, expected 2"),
            ("1,2\n3,x\n", "line 2: 'x' is not a number"),
            ("a,b\nc,d\n", "line 2: 'c' is not a number"),
            ("1,2\n3,\n", "line 2, column 1: the cell is empty"),
            ("a,b,c\n1,,3\n", "line 2, column 1: the cell is empty"),
            ("1,5;2,5\n1,5;2,5\n", "line 2: '1,5' is not a number"),
            ("", "no row of numbers"),
        ] {
            let error = text(content.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{content:?}: {error}");
        }
        let error = text(b"1,2\n\xff").unwrap_err().to_string();
        assert!(error.contains("byte 4"), "{error}");
        let error = text(format!("{}nan,1\n", numbers(12)).as_bytes()).unwrap().checked().unwrap_err().to_string();
        assert!(error.contains("row 12, column 0: NaN"), "{error}");
        assert!(text(numbers(3).as_bytes()).unwrap().checked().unwrap_err().to_string().contains("3 rows"));
    }
}
