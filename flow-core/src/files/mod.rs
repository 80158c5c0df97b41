//! Single files out: under its name a file is complete or not there at all.

pub mod numpy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes a file aside, flushes it to disk and renames it: a reader sees the old content or the new one,
/// never a part. Missing folders are made.
///
/// # Errors
/// A path without a file name, or a failure of the file system; the aside file is removed then.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.is_dir() {
        return Err(Error::config(path.display().to_string(), "is a folder, expected the name of a file to write"));
    }
    let aside = aside(path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let outcome = write_and_sync(&aside, bytes).and_then(|()| std::fs::rename(&aside, path));
    if outcome.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&aside);
    }
    outcome.map_err(Error::io(path))
}

/// A name in the same folder that no other writer uses, of this process or another.
fn aside(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::config(path.display().to_string(), "is not the name of a file"));
    };
    let unique = format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    Ok(path.with_file_name(format!(".{}{unique}", name.to_string_lossy())))
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/x.txt");
        atomic_write(&path, b"first, longer").unwrap();
        atomic_write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_path_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(atomic_write(folder.path(), b"x").unwrap_err().to_string().contains("a folder"));
        assert!(atomic_write(Path::new(".."), b"x").is_err());
        let file = folder.path().join("file");
        atomic_write(&file, b"x").unwrap();
        let error = atomic_write(&file.join("below"), b"x").unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
