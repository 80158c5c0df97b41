//! Rows of numbers as text.

use std::fmt::Write as _;

use crate::data::Standard;

/// Rows that lie one after the other in `values`, one per line, their entries parted by commas, with the digits that the
/// scale of the data asks for ([`Standard::text`]).
///
/// ```
/// use flow_density::data::Standard;
///
/// let standard = Standard { mean: vec![0.0, 5e6], std: vec![1.0, 0.5], ..Standard::default() };
/// let text = flow_density::io::csv(&[1.0, 5_000_000.25, 0.1, 5_000_001.0], &standard);
/// assert_eq!(text, "1,5000000.25\n0.1,5000001\n");
/// ```
pub fn csv(values: &[f64], standard: &Standard) -> String {
    csv_with(values, standard, &[])
}

/// As [`csv`], with a last cell of text in every row, such as its class; without one where there are none.
///
/// ```
/// use flow_density::data::Standard;
///
/// let standard = Standard { mean: vec![0.0], std: vec![1.0], ..Standard::default() };
/// assert_eq!(flow_density::io::csv_with(&[1.0, 0.5], &standard, &["setosa", "a, b"]), "1,setosa\n0.5,\"a, b\"\n");
/// ```
pub fn csv_with(values: &[f64], standard: &Standard, last: &[&str]) -> String {
    let mut text = String::new();
    for (index, row) in values.chunks(standard.columns().max(1)).enumerate() {
        for (place, &value) in row.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = write!(text, "{}{}", if place == 0 { "" } else { "," }, standard.text(place, value));
        }
        if let Some(last) = last.get(index) {
            let _ = write!(text, ",{}", quoted(last));
        }
        text.push('\n');
    }
    text
}

/// The line of names above such rows, quoted by RFC 4180 where that is needed; nothing without names.
///
/// ```
/// let names = ["length", "width, cm"].map(String::from);
/// assert_eq!(flow_density::io::header(&names), "length,\"width, cm\"\n");
/// assert_eq!(flow_density::io::header(&[]), "");
/// ```
pub fn header(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",") + "\n"
}

/// A cell of text that reads back as the same text, and as no comment and no empty line, quoted by RFC 4180 where needed.
pub fn quoted(cell: &str) -> String {
    let plain =
        !cell.is_empty() && !cell.contains(['"', ',', ';', '\t', '|', '\n', '\r', '#', '%']) && cell.trim() == cell;
    if plain { cell.into() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}
