//! What in a folder is sound.

use std::path::{Path, PathBuf};

use super::kind::{LOOKED_FOR, is_sound_name, some_of};
use super::source::Source;
use crate::{Error, Result};

/// Deeper folders are a loop or a mistake.
const MAX_DEPTH: usize = 16;

const TRAIN: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 4] = ["validation", "val", "valid", "dev"];
const TEST: [&str; 2] = ["test", "testing"];

/// The folders that are the parts of a set.
pub(super) struct PartFolders {
    pub(super) train: PathBuf,
    pub(super) validation: Option<PathBuf>,
    pub(super) test: Option<PathBuf>,
    /// Names of what belongs to no part.
    pub(super) beside: Vec<String>,
}

/// The parts of a folder that has a training part; `None` where it has none, or nothing but it.
///
/// # Errors
/// A folder that cannot be listed.
pub(super) fn parts(folder: &Path) -> Result<Option<PartFolders>> {
    let mut entries = entries(folder)?;
    let mut take = |names: &[&str]| {
        let fits = |name: &str, path: &Path| path.is_dir() && names.iter().any(|n| n.eq_ignore_ascii_case(name));
        let place = entries.iter().position(|(name, path)| fits(name, path))?;
        Some(entries.remove(place).1)
    };
    let (train, validation, test) = (take(&TRAIN), take(&VALIDATION), take(&TEST));
    let beside = entries.into_iter().map(|(name, _)| name).collect();
    Ok(match train {
        Some(train) if validation.is_some() || test.is_some() => Some(PartFolders { train, validation, test, beside }),
        _ => None,
    })
}

/// The sound files of a folder and of those below it, in the order of the names, and a word about what is not read.
///
/// # Errors
/// No sound, folders that are nested too deep, or one that cannot be listed.
pub(super) fn sounds(folder: &Path) -> Result<(Vec<Source>, Vec<String>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    collect(folder, "", 0, &mut found, &mut others)?;
    if found.is_empty() {
        return Err(Error::NoData { path: folder.into(), looked_for: LOOKED_FOR.into() });
    }
    let note = (!others.is_empty())
        .then(|| format!("{}: {} files are no sound: {}", folder.display(), others.len(), some_of(&others)));
    Ok((found, note.into_iter().collect()))
}

/// What lies in `folder`, whose path below the first one is `below`; hidden files and links to folders are not looked at.
fn collect(folder: &Path, below: &str, depth: usize, found: &mut Vec<Source>, others: &mut Vec<String>) -> Result<()> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested deeper than {MAX_DEPTH}");
        return Err(Error::config(folder.display().to_string(), reason));
    }
    for (name, path) in entries(folder)? {
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        if path.is_dir() {
            if !path.is_symlink() {
                collect(&path, &name, depth + 1, found, others)?;
            }
        } else if is_sound_name(&path) {
            found.push(Source::new(path, name));
        } else {
            others.push(name);
        }
    }
    Ok(())
}

/// Entries of a folder by name, hidden ones left out.
///
/// # Errors
/// A folder that cannot be listed.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with('.') {
            entries.push((name, path));
        }
    }
    entries.sort();
    Ok(entries)
}
