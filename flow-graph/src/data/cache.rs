//! A large file is parsed once: parsing ZINC250k takes some twenty times as long as reading its cache.
//!
//! The cache is a file of its own: magic, version, a key of the source's bytes and of the options, length and
//! CRC-32C of the body, body. Whatever does not fit (another source, another version, damage) is passed over
//! and written anew; a cache that cannot be written is no error, for it is only there to save time.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flow_core::hash::Fnv;

use super::format::Format;
use super::{Cache, Loaded, OpenOptions, codec};

const MAGIC: &[u8; 8] = b"FLOWMOLS";

/// Goes up when the format of the body or what the parsers make of a line changes.
const VERSION: u32 = 2;

/// Smaller files are read as fast without.
const WORTHWHILE: usize = 10_000;

/// magic, version, key, length of the source, length of the body, CRC of the body
const HEADER: usize = 8 + 4 + 8 + 8 + 8 + 4;

/// The place of the cache of one file under some options.
pub(super) struct Slot<'a> {
    path: &'a Path,
    /// In the order they are tried.
    places: Vec<PathBuf>,
    /// What beside the bytes of the source decides about the result.
    recipe: String,
}

/// What a cache was made from.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    hash: u64,
    length: u64,
}

impl<'a> Slot<'a> {
    pub(super) fn new(path: &'a Path, options: &OpenOptions, format: Format) -> Self {
        let recipe = format!("{format:?} {:?} {:?} {:?}", options.column, options.components, options.separator);
        Slot { path, places: places(path, &options.cache), recipe }
    }

    /// The molecules, if a cache fits.
    pub(super) fn read(&self) -> Option<Loaded> {
        let present: Vec<_> = self.places.iter().filter(|place| place.is_file()).collect();
        if present.is_empty() {
            return None;
        }
        let key = self.key()?;
        let loaded = present.into_iter().find_map(|place| read(place, key))?;
        Some(Loaded { source: self.path.display().to_string(), from_cache: true, ..loaded })
    }

    /// Writes a cache to the first place that takes it.
    pub(super) fn write(&self, loaded: &Loaded) {
        if loaded.len() < WORTHWHILE || self.places.is_empty() {
            return;
        }
        if let Some(key) = self.key() {
            let bytes = pack(key, &codec::encode(loaded));
            // Where the cache cannot be written, the next reading is slower and nothing else changes.
            let _ = self.places.iter().any(|place| write(place, &bytes).is_ok());
        }
    }

    /// The key of the source as it is now.
    fn key(&self) -> Option<Key> {
        let mut file = File::open(self.path).ok()?;
        let (mut hash, mut length) = (Fnv::new().bytes(self.recipe.as_bytes()), 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => return Some(Key { hash: hash.value(), length }),
                read => {
                    hash = hash.bytes(&buffer[..read]);
                    length += read as u64;
                }
            }
        }
    }
}

fn places(path: &Path, cache: &Cache) -> Vec<PathBuf> {
    let Some(name) = path.file_name() else { return Vec::new() };
    // Files of one name in different folders must not share a place.
    let full = path.canonicalize().unwrap_or_else(|_| path.into());
    let unique = || {
        let hash = Fnv::new().bytes(full.as_os_str().as_encoded_bytes()).value();
        suffixed(name, &format!("-{hash:016x}.flowcache"))
    };
    match cache {
        Cache::Off => Vec::new(),
        Cache::Folder(folder) => vec![folder.join(unique())],
        Cache::Beside => {
            let beside = path.with_file_name(suffixed(name, ".flowcache"));
            std::iter::once(beside).chain(user_folder().map(|folder| folder.join(unique()))).collect()
        }
    }
}

fn suffixed(name: &std::ffi::OsStr, suffix: &str) -> OsString {
    let mut name = name.to_os_string();
    name.push(suffix);
    name
}

/// Where the user's caches are, by the convention of freedesktop.org.
fn user_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).map(|folder| folder.join("flow-graph"))
}

fn pack(key: Key, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(key.hash.to_le_bytes());
    bytes.extend(key.length.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(crc32c::crc32c(body).to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn read(place: &Path, key: Key) -> Option<Loaded> {
    let mut file = File::open(place).ok()?;
    let length = file.metadata().ok()?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header).ok()?;
    let expected = pack(key, &[]);
    // The header up to the length of the body is what it would be for this key.
    let (fixed, sizes) = header.split_at(28);
    let (body_length, crc) = sizes.split_at(8);
    let body_length = u64::from_le_bytes(body_length.try_into().ok()?);
    if fixed != &expected[..28] || Some(length) != body_length.checked_add(HEADER as u64) {
        return None;
    }
    let mut body = Vec::with_capacity(usize::try_from(body_length).ok()?);
    file.read_to_end(&mut body).ok()?;
    let sound = body.len() as u64 == body_length && crc32c::crc32c(&body) == u32::from_le_bytes(crc.try_into().ok()?);
    if sound { codec::decode(&body) } else { None }
}

/// Writes aside and moves into place, so that nobody ever sees a half.
fn write(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let aside = place.with_extension(format!("flowcache-{}", std::process::id()));
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| std::fs::rename(&aside, place));
    if moved.is_err() {
        // The error of the write is the one that counts.
        std::fs::remove_file(&aside).ok();
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;

    /// A file of enough molecules, and its cache.
    fn large() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.smi");
        let lines: String = (0..WORTHWHILE + 5).map(|i| format!("{}N m{i}\nC(\n", "C".repeat(i % 7))).collect();
        std::fs::write(&path, lines).unwrap();
        (folder, path.clone(), path.with_file_name("large.smi.flowcache"))
    }

    fn same(a: &Loaded, b: &Loaded) {
        assert_eq!(Loaded { from_cache: false, ..a.clone() }, Loaded { from_cache: false, ..b.clone() });
    }

    #[test]
    fn the_second_time_comes_from_the_cache_and_is_the_same() {
        let (_folder, path, place) = large();
        let options = OpenOptions::default();
        let first = open(&path, &options).unwrap();
        assert!(!first.from_cache && place.exists());
        assert_eq!((first.bad_count, first.bad.len()), (WORTHWHILE + 5, Loaded::BAD_KEPT));
        let second = open(&path, &options).unwrap();
        assert!(second.from_cache);
        same(&first, &second);
        let other = OpenOptions { components: crate::data::Components::Refuse, ..options.clone() };
        assert!(!open(&path, &other).unwrap().from_cache, "other options are another result");
        let off = OpenOptions { cache: Cache::Off, ..options };
        assert!(!open(&path, &off).unwrap().from_cache);
    }

    #[test]
    fn a_changed_source_or_a_damaged_cache_is_read_anew() {
        let (_folder, path, place) = large();
        let options = OpenOptions::default();
        let first = open(&path, &options).unwrap();
        let good = std::fs::read(&place).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let damaged = [vec![], good[..20].to_vec(), good[..good.len() - 1].to_vec(), [&good[..], b"x"].concat()];
        let flips = [0, 8, 12, 20, 28, 35, 36, HEADER, good.len() / 2, good.len() - 1].map(flipped);
        for bytes in damaged.into_iter().chain(flips) {
            std::fs::write(&place, &bytes).unwrap();
            let again = open(&path, &options).unwrap();
            assert!(!again.from_cache);
            same(&again, &first);
            assert_eq!(std::fs::read(&place).unwrap(), good, "the cache is mended");
        }
        let mut text = std::fs::read(&path).unwrap();
        text[0] = b'O';
        std::fs::write(&path, text).unwrap();
        assert!(!open(&path, &options).unwrap().from_cache);
    }

    #[test]
    fn a_folder_of_its_own_and_no_place_at_all() {
        let (folder, path, place) = large();
        let caches = folder.path().join("a/b");
        let options = OpenOptions { cache: Cache::Folder(caches.clone()), ..OpenOptions::default() };
        assert!(!open(&path, &options).unwrap().from_cache);
        assert!(open(&path, &options).unwrap().from_cache && !place.exists());
        let names: Vec<_> = std::fs::read_dir(&caches).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() == 1 && names[0].to_str().unwrap().starts_with("large.smi-"), "{names:?}");
        // A file where the folder should be.
        let options = OpenOptions { cache: Cache::Folder(path.clone()), ..OpenOptions::default() };
        assert_eq!(open(&path, &options).unwrap().len(), WORTHWHILE + 4 + 1);
    }

    #[test]
    fn small_files_leave_no_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.smi");
        std::fs::write(&path, "CC\n").unwrap();
        open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
