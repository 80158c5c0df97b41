//! One door to every format: [`open`] looks at a path and knows what it is.

use std::path::Path;

use super::cache::Slot;
use super::csv::Table;
use super::format::Format;
use super::lines::{self, Lines};
use super::{Loaded, OpenOptions, builtin, sd, text};
use crate::Result;

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
    Format::of(path, options)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_has_a_name() {
        assert_eq!(open("builtin", &OpenOptions::default()).unwrap(), builtin::builtin().unwrap());
    }
}
