//! The names of the images in an archive: relative paths, so that decompressing restores a tree of files.
//!
//! | bytes | section of names, between header and blocks |
//! |---|---|
//! | 4 | number of bytes that follow the section's own header |
//! | 4 | CRC-32C of them |
//! | … | the names in UTF-8, each ended by a zero byte, deflated |
//!
//! A name is trusted no more than any other input: it must lead to a place below the folder that is restored into.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flow_core::files::numpy::unfold;

use crate::{Error, Result};

/// The section of names.
///
/// # Errors
/// A name that would not be read back.
pub(super) fn encode(names: &[String]) -> Result<Vec<u8>> {
    let mut seen = BTreeSet::new();
    for name in names {
        check(name).map_err(|why| Error::config(format!("name {name:?}"), why))?;
        if !seen.insert(name) {
            return Err(Error::config(format!("name {name:?}"), "stands for two images"));
        }
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let text: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let deflated = encoder.write_all(&text).and_then(|()| encoder.finish());
    let deflated = deflated.map_err(|e| Error::config("names", e.to_string()))?;
    let length = u32::try_from(deflated.len()).map_err(|_| Error::config("names", "exceed 4 GiB"))?;
    Ok([&length.to_le_bytes()[..], &crc32c::crc32c(&deflated).to_le_bytes(), &deflated].concat())
}

/// The names of a section's bytes, which begin at `position` of `source`.
///
/// # Errors
/// [`Error::Format`]: bytes that cannot be inflated, other than `count` names, or a name that leads elsewhere.
pub(super) fn decode(source: &Path, position: usize, deflated: &[u8], count: usize) -> Result<Vec<String>> {
    let fault = |expected: &str, found: String| Error::format(source, position, expected, found);
    let inflated = unfold(DeflateDecoder::new(deflated), deflated.len());
    let text = inflated.map_err(|e| fault("readable names", e.to_string()))?;
    let text = String::from_utf8(text).map_err(|e| fault("names in UTF-8", e.to_string()))?;
    let names: Vec<String> = text.split_terminator('\0').map(String::from).collect();
    if names.len() != count {
        return Err(fault(&format!("{count} names"), names.len().to_string()));
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        check(name).map_err(|why| fault("names of files below a folder", format!("{name:?}, which {why}")))?;
        if !seen.insert(name) {
            return Err(fault("a name for each image", format!("{name:?} twice")));
        }
    }
    Ok(names)
}

/// Why a name is no path below the folder that it is restored into.
fn check(name: &str) -> std::result::Result<(), &'static str> {
    // Windows takes both for more than letters of a name.
    let special: &[char] = if cfg!(windows) { &['\0', '\\', ':'] } else { &['\0'] };
    if name.is_empty() || name.contains(special) {
        return Err("is empty or has a character that no name has");
    }
    match name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        true => Err("has an empty part, `.` or `..`"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn names_come_back_and_those_that_lead_elsewhere_are_refused() {
        let good = names(&["cat/1.png", "éléphant/naïve 2.png", "日本/3.png", "a"]);
        let section = encode(&good).unwrap();
        assert_eq!(decode(Path::new("x"), 52, &section[8..], 4).unwrap(), good);
        assert!(decode(Path::new("x"), 52, &section[8..], 3).unwrap_err().to_string().contains("byte 52: expected 3"));
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "..", "a/", "a\0b"] {
            assert!(encode(&names(&[bad])).is_err(), "{bad:?}");
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(format!("{bad}\0").as_bytes()).unwrap();
            assert!(decode(Path::new("x"), 52, &encoder.finish().unwrap(), 1).is_err(), "{bad:?}");
        }
        assert!(encode(&names(&["a", "a"])).unwrap_err().to_string().contains("two images"));
        assert!(decode(Path::new("x"), 52, b"\xff\xff\xff", 1).is_err());
    }
}
