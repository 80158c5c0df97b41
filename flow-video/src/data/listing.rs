//! What in a folder is a clip.

use std::path::Path;

use flow_image::data::{first_bytes, picture, roots, some_of};

use super::animation::is_animated_png;
use super::pictures::natural;
use super::source::{LOOKED_FOR, Source, is_clip_name};
use crate::{Error, Result};

/// Deeper folders are a loop or a mistake.
const MAX_DEPTH: usize = 16;

/// The clips of a folder, in natural order, and a word about what is not read.
///
/// # Errors
/// No clip, folders that are nested too deep, or one that cannot be listed.
pub(super) fn clips(folder: &Path) -> Result<(Vec<Source>, Vec<String>)> {
    let mut found = Found::default();
    collect(folder, "", 0, &mut found)?;
    if found.sources.is_empty() {
        return Err(Error::NoData { path: folder.into(), looked_for: LOOKED_FOR.into() });
    }
    let mut notes = Vec::new();
    if !found.others.is_empty() {
        let (at, count) = (folder.display(), found.others.len());
        notes.push(format!("{at}: {count} files are no clips and no pictures: {}", some_of(&found.others)));
    }
    Ok((found.sources, notes))
}

#[derive(Default)]
struct Found {
    sources: Vec<Source>,
    /// Names of files that are nothing.
    others: Vec<String>,
}

/// What lies in `folder`, whose path below the first one is `below`; hidden files and links to folders are not looked at.
fn collect(folder: &Path, below: &str, depth: usize, found: &mut Found) -> Result<()> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested deeper than {MAX_DEPTH}");
        return Err(Error::config(folder.display().to_string(), reason));
    }
    let mut entries = roots::entries(folder)?;
    entries.sort_by(|(a, _), (b, _)| natural(a, b));
    let named = |name: &str| if below.is_empty() { name.to_string() } else { format!("{below}/{name}") };
    let (mut pictures, mut folders) = (Vec::new(), Vec::new());
    let mut animated = None;
    for (name, path) in entries {
        if path.is_dir() {
            if !path.is_symlink() {
                folders.push((named(&name), path));
            }
        } else if is_clip_name(&path) {
            found.sources.push(Source::File { path, name: named(&name) });
        } else if picture::is_picture(&path) {
            let is_png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
            // The first PNG speaks for all of a folder: thousands of frames are not opened twice.
            let is_clip =
                is_png && *animated.get_or_insert_with(|| first_bytes(&path).is_ok_and(|s| is_animated_png(&s)));
            if is_clip {
                found.sources.push(Source::File { path, name: named(&name) });
            } else {
                pictures.push(path);
            }
        } else {
            found.others.push(named(&name));
        }
    }
    if !pictures.is_empty() {
        let own = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if below.is_empty() { own } else { below.to_string() };
        found.sources.push(Source::Pictures { folder: folder.into(), name, files: pictures });
    }
    folders.into_iter().try_for_each(|(name, path)| collect(&path, &name, depth + 1, found))
}
