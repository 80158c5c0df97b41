//! LJSpeech's layout: a list of names and transcripts, and the recordings in `wavs/` or beside it.
//!
//! A line of `metadata.csv` is `name|transcript` or `name|transcript|normalised transcript`, without quotes and without
//! a heading.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::kind::{read_file, some_of};
use super::listing::sounds;
use super::source::Source;
use crate::{Error, Result};

const LIST: &str = "metadata.csv";

/// The recordings that a folder's list names, in its order; `None` where there is no list.
///
/// # Errors
/// A list with lines that cannot be read, unless broken ones are left out, or one of whose recordings none is there.
pub(super) fn recordings(folder: &Path, skip_broken: bool) -> Result<Option<(Vec<Source>, Vec<String>)>> {
    let list = folder.join(LIST);
    if !list.is_file() {
        return Ok(None);
    }
    let bytes = read_file(&list)?;
    let (mut found, mut missing, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let (entries, unread) = lines(&list, &bytes, skip_broken)?;
    if !unread.is_empty() {
        let at = list.display();
        notes.push(format!("{at}: {} lines cannot be read and were left out: {}", unread.len(), some_of(&unread)));
    }
    for (name, transcript) in entries {
        match locate(folder, &name) {
            Some((path, name)) => found.push(Source { path, name, transcript: Some(transcript) }),
            None => missing.push(name),
        }
    }
    if found.is_empty() {
        let expected = "recordings under wavs/ or beside the list";
        let of = if missing.is_empty() { "an empty list".into() } else { format!("none of {}", some_of(&missing)) };
        return Err(Error::format(&list, 0, expected, of));
    }
    if !missing.is_empty() {
        let (at, count) = (list.display(), missing.len());
        notes.push(format!("{at}: {count} recordings are listed and not there: {}", some_of(&missing)));
    }
    let listed: HashSet<&Path> = found.iter().map(|source| source.path.as_path()).collect();
    let (all, _) = sounds(folder)?;
    let unlisted = all.iter().filter(|source| !listed.contains(source.path.as_path()));
    let unlisted: Vec<&str> = unlisted.map(|source| source.name.as_str()).collect();
    if !unlisted.is_empty() {
        let (at, count) = (list.display(), unlisted.len());
        notes.push(format!(
            "{at}: {count} recordings are there and not listed, and were not read: {}",
            some_of(&unlisted)
        ));
    }
    Ok(Some((found, notes)))
}

/// Names with what is said, and the numbers of the lines that cannot be read.
type Lines = (Vec<(String, String)>, Vec<String>);

fn lines(path: &Path, bytes: &[u8], skip_broken: bool) -> Result<Lines> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut entries, mut unread) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let mut at = 0;
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let position = at;
        at += line.len() + 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let number = index + 1;
        let outcome = entry(line).and_then(|(name, text)| match seen.insert(name.clone()) {
            true => Ok((name, text)),
            false => Err(format!("{name} for a second time")),
        });
        match outcome {
            Ok(entry) => entries.push(entry),
            Err(_) if skip_broken => unread.push(format!("line {number}")),
            Err(found) => {
                let expected = "a line name|transcript (move the list away to read the folder without it)";
                return Err(Error::format(path, position, expected, format!("in line {number} {found}")));
            }
        }
    }
    Ok((entries, unread))
}

/// The name and what is said, normalised where the list has that.
fn entry(line: &[u8]) -> std::result::Result<(String, String), String> {
    let line = std::str::from_utf8(line).map_err(|error| format!("{error}"))?.trim_end_matches('\r');
    let mut fields = line.split('|');
    let name = fields.next().unwrap_or_default().trim();
    let Some(said) = fields.next() else {
        return Err(format!("no '|': {}", line.chars().take(40).collect::<String>()));
    };
    let normalised = fields.next().filter(|text| !text.trim().is_empty());
    if fields.next().is_some() {
        return Err("more than three fields".into());
    }
    let is_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !is_inside || name.contains('\0') {
        return Err(format!("the name '{}'", name.escape_debug()));
    }
    Ok((name.to_string(), normalised.unwrap_or(said).trim().to_string()))
}

/// The file of a recording, and its name below the folder.
fn locate(folder: &Path, name: &str) -> Option<(PathBuf, String)> {
    let endings = ["", ".wav", ".flac", ".ogg", ".mp3"];
    let folders = ["wavs/", "wav/", "audio/", ""];
    let names = folders.iter().flat_map(|below| endings.iter().map(move |ending| format!("{below}{name}{ending}")));
    names.into_iter().map(|name| (folder.join(&name), name)).find(|(path, _)| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_what_is_said() {
        let path = Path::new("metadata.csv");
        let text = "\u{feff}A-1|He said \"1\".|He said \"one\".\r\nA-2|plain\n\nA-3|x|\n";
        let (entries, unread) = lines(path, text.as_bytes(), false).unwrap();
        let wanted = [("A-1", "He said \"one\"."), ("A-2", "plain"), ("A-3", "x")];
        assert_eq!(entries, wanted.map(|(name, said)| (name.to_string(), said.to_string())));
        assert!(unread.is_empty());
        for (bad, expected) in [
            (&b"A|x\nfile_name,text\n"[..], "in line 2 no '|': file_name,text"),
            (b"A|x\n|y\n", "in line 2 the name ''"),
            (b"../A|x\n", "in line 1 the name '../A'"),
            (b"/etc/A|x\n", "the name '/etc/A'"),
            (b"A|x\nA|y\n", "in line 2 A for a second time"),
            (b"A|x|y|z\n", "more than three fields"),
            (b"A|\xff\n", "invalid utf-8"),
        ] {
            let error = lines(path, bad, false).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert_eq!(lines(path, bad, true).unwrap().1.len(), 1);
        }
    }
}
