//! A clip as a folder of numbered pictures.

use std::path::{Path, PathBuf};

use flow_image::io::{Pixels, write_images};

use crate::{Error, Result};

/// What the names of the pictures begin with.
const PREFIX: &str = "frame";

/// Every frame as `frame-00000.png` and so on; the folder is there with all of them or not at all. One that holds nothing
/// but frames of an earlier time is replaced.
///
/// # Errors
/// A folder with other files in it, which stay, or a failure of the file system.
pub fn write_frames(folder: &Path, frames: &Pixels) -> Result<()> {
    let Some(name) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return Err(Error::config(folder.display().to_string(), "is not the name of a folder"));
    };
    if let Some(other) = stranger(folder)? {
        let reason = format!("holds {other}, which is no frame of a clip; give a folder that is new or empty");
        return Err(Error::config(folder.display().to_string(), reason));
    }
    let beside = |ending: &str| folder.with_file_name(format!(".{name}.{}.{ending}", std::process::id()));
    let (aside, old) = (beside("tmp"), beside("old"));
    let outcome = write_images(&aside, PREFIX, frames).map_err(Error::from).and_then(|_| swap(&aside, folder, &old));
    if outcome.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_dir_all(&aside);
    }
    outcome
}

/// Puts the new folder in the place of the old one.
fn swap(new: &Path, folder: &Path, old: &Path) -> Result<()> {
    let exists = folder.exists();
    if exists {
        std::fs::rename(folder, old).map_err(Error::io(folder))?;
    }
    if let Err(error) = std::fs::rename(new, folder) {
        if exists {
            // What was there comes back; the failure is the one to report.
            let _ = std::fs::rename(old, folder);
        }
        return Err(Error::io(folder)(error));
    }
    if exists {
        std::fs::remove_dir_all(old).map_err(Error::io(old))?;
    }
    Ok(())
}

/// Something in the folder that this module has not written.
fn stranger(folder: &Path) -> Result<Option<String>> {
    if !folder.exists() {
        return Ok(None);
    }
    if !folder.is_dir() {
        return Ok(Some("the bytes of a file".into()));
    }
    let is_frame = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix(PREFIX).and_then(|n| n.strip_prefix('-')).and_then(|n| n.strip_suffix(".png"));
        path.is_file() && number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if !is_frame(&path) {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
