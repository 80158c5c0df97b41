//! Which format a file has, by its name or its first lines.

use std::io::Read;
use std::path::Path;

use super::OpenOptions;
use super::csv::delimiter_of;
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
        match (by_name(path), options.separator) {
            (Some(Format::Sd), _) => Ok(Format::Sd),
            (_, Some(separator)) => Ok(Format::Table(separator)),
            // The ending says that it is a table, the header how it is cut.
            (Some(Format::Table(usual)), None) => {
                let start = start(path)?;
                Ok(Format::Table(delimiter_of(first_line(&start), options.column.as_deref(), usual).unwrap_or(usual)))
            }
            (Some(Format::Text), None) => Ok(Format::Text),
            (None, None) => by_content(path, options),
        }
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

/// The first kilobytes.
fn start(path: &Path) -> Result<String> {
    const LOOKED_AT: u64 = 1 << 16;
    let mut start = Vec::new();
    // Damage in the compressed data is for the reader to report, with its line.
    lines::open(path)?.take(LOOKED_AT).read_to_end(&mut start).ok();
    Ok(String::from_utf8_lossy(&start).into_owned())
}

/// The first line with content.
fn first_line(start: &str) -> &str {
    let lines = start.trim_start_matches('\u{feff}').split(['\n', '\r']);
    lines.into_iter().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn by_content(path: &Path, options: &OpenOptions) -> Result<Format> {
    let start = start(path)?;
    if start.split(['\n', '\r']).any(|line| line.starts_with("$$$$") || line.starts_with("M  END")) {
        return Ok(Format::Sd);
    }
    let delimiter = delimiter_of(first_line(&start), options.column.as_deref(), b',');
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
            ("\"ChEMBL ID\";\"Smiles\"\n\"1\";\"C\"\n", None, Format::Table(b';')),
            ("sep=;\nid;smiles\n1;C\n", None, Format::Table(b';')),
            ("id|CanonicalSMILES\r1|C\r", None, Format::Table(b'|')),
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
