//! Which format a file has, by its name or its first lines.

use std::io::Read;
use std::path::Path;

use super::OpenOptions;
use super::csv::SMILES_COLUMNS;
use super::lines;
use crate::Result;

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// SMILES and name on a line.
    Text,
    /// A table with this delimiter.
    Table(u8),
    /// SD file or MOL block.
    Sd,
}

impl Format {
    /// The format of a file, by its name or, where that says nothing, by its content.
    pub(super) fn of(path: &Path, options: &OpenOptions) -> Result<Format> {
        by_name(path).map_or_else(|| by_content(path, options), Ok)
    }
}

/// By the extension, before a `.gz`.
fn by_name(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "smi" | "smiles" | "ism" => Some(Format::Text),
        "csv" => Some(Format::Table(b',')),
        "tsv" | "tab" => Some(Format::Table(b'\t')),
        "sdf" | "sd" | "mol" => Some(Format::Sd),
        _ => None,
    }
}

/// Looks at the first kilobytes.
fn by_content(path: &Path, options: &OpenOptions) -> Result<Format> {
    const LOOKED_AT: u64 = 1 << 16;
    let mut start = Vec::new();
    // Damage in the compressed data is for the reader to report, with its line.
    lines::open(path)?.take(LOOKED_AT).read_to_end(&mut start).ok();
    let text = String::from_utf8_lossy(&start);
    if text.lines().any(|line| line.starts_with("$$$$") || line.starts_with("M  END")) {
        return Ok(Format::Sd);
    }
    let first = text.trim_start_matches('\u{feff}').lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let is_column = |name: &str| {
        let name = name.trim().trim_matches('"');
        let wanted = options.column.as_deref();
        wanted.into_iter().chain(SMILES_COLUMNS).any(|column| column.eq_ignore_ascii_case(name))
    };
    let delimiter = [b',', b'\t'].into_iter().find(|&d| {
        let delimiter = char::from(d);
        first.contains(delimiter) && first.split(delimiter).any(is_column)
    });
    Ok(delimiter.map_or(Format::Text, Format::Table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_name_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.txt");
        for (text, column, expected) in [
            ("CCO ethanol\n", None, Format::Text),
            ("smiles,logp\nCCO,1\n", None, Format::Table(b',')),
            ("id\tSMILES\n1\tCCO\n", None, Format::Table(b'\t')),
            ("a,b\nCCO,1\n", Some("a"), Format::Table(b',')),
            ("x\n\n\n  1  0\nM  END\n", None, Format::Sd),
        ] {
            std::fs::write(&path, text).unwrap();
            let options = OpenOptions { column: column.map(String::from), ..OpenOptions::default() };
            assert_eq!(by_content(&path, &options).unwrap(), expected, "{text}");
        }
        for (name, expected) in [
            ("a.SMI.gz", Some(Format::Text)),
            ("a.b.tsv", Some(Format::Table(b'\t'))),
            ("smi", None),
            ("a.gz", None),
            ("a.mol", Some(Format::Sd)),
        ] {
            assert_eq!(by_name(Path::new(name)), expected, "{name}");
        }
    }
}
