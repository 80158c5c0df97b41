//! One door to every format: [`open`] looks at a path and knows what it is.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cache::Slot;
use super::csv::{SMILES_COLUMNS, Table};
use super::lines::{self, Lines};
use super::{Components, Loaded, builtin, sd, text};
use crate::Result;

/// How a file becomes molecules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// The column of SMILES in a table; without it the first that is named `smiles`, `canonical_smiles`,
    /// `mol`, `smi`, `molecule` or `structure`.
    pub column: Option<String>,
    /// What becomes of salts and mixtures.
    pub components: Components,
    /// Where large files are kept in a form that is read faster.
    pub cache: Cache,
}

/// Where the binary copy of a large file goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Beside the file as `<file>.flowcache`, or in `flow-graph` in the user's cache folder where that
    /// cannot be written.
    #[default]
    Beside,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

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

/// Opens a file of molecules of any known format.
///
/// | name | content |
/// |---|---|
/// | `.smi`, `.smiles`, `.ism` | SMILES, then white space and a name; `#` comments |
/// | `.csv`, `.tsv` | a table whose header names a column of SMILES |
/// | `.sdf`, `.sd`, `.mol` | SD records, MOL blocks |
/// | any other, such as `.txt` | one of these, by its first lines |
/// | `builtin` | the built-in list, unless a file has that name |
///
/// Each may be compressed by gzip, whatever its name. A line that cannot be read goes to
/// [`Loaded::bad`] and the rest is read on.
///
/// # Errors
/// A file that cannot be read, data cut off in compression, a table without the column, or not a single
/// molecule; the message names the file, and the line and column where there is one.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Loaded> {
    let path = path.as_ref();
    if path == Path::new(builtin::NAME) && !path.exists() {
        return builtin::builtin();
    }
    let format = format_of(path, options)?;
    let slot = Slot::new(path, options, format);
    if let Some(loaded) = slot.read() {
        return Ok(loaded);
    }
    let loaded = read(path, options, format)?;
    slot.write(&loaded);
    Ok(loaded)
}

/// Whether [`open`] reads this file as a table, the only format to which [`OpenOptions::column`] applies.
///
/// # Errors
/// A file that cannot be read.
pub fn is_table(path: impl AsRef<Path>, options: &OpenOptions) -> Result<bool> {
    let path = path.as_ref();
    let builtin = path == Path::new(builtin::NAME) && !path.exists();
    Ok(!builtin && matches!(format_of(path, options)?, Format::Table(_)))
}

/// The format by the file's name, or by its first lines.
fn format_of(path: &Path, options: &OpenOptions) -> Result<Format> {
    lines::check(path)?;
    match by_name(path) {
        Some(format) => Ok(format),
        None => by_content(path, options),
    }
}

fn read(path: &Path, options: &OpenOptions, format: Format) -> Result<Loaded> {
    let mut loaded = Loaded { source: path.display().to_string(), ..Loaded::default() };
    let lines = Lines::new(lines::open(path)?, path);
    let rule = options.components;
    match format {
        Format::Text => text::read(lines, rule, &mut loaded)?,
        Format::Table(delimiter) => {
            Table { path, delimiter, column: options.column.as_deref(), rule }.read(lines, &mut loaded)?;
        }
        Format::Sd => sd::read(lines, rule, &mut loaded)?,
    }
    loaded.or_refuse(path)
}

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
            assert_eq!(is_table(&path, &options).unwrap(), matches!(expected, Format::Table(_)), "{text}");
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

    #[test]
    fn the_built_in_list_has_a_name() {
        assert_eq!(open("builtin", &OpenOptions::default()).unwrap(), builtin::builtin().unwrap());
    }
}
