//! What several of these tests need.

use std::path::{Path, PathBuf};

use flow_audio::data::open_all;
use flow_audio::{Clip, Clips, OpenOptions};

/// Options that take clips as they are.
pub(crate) fn plain() -> OpenOptions {
    OpenOptions::default().with_held_out(0.0, 0.0)
}

/// The only clip of a path.
#[track_caller]
pub(crate) fn only(path: &Path) -> Clip {
    let set = all(path);
    assert_eq!(set.len(), 1, "{}", path.display());
    set.get(0).unwrap().clone()
}

#[track_caller]
pub(crate) fn all(path: &Path) -> Clips {
    open_all(path, &plain()).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn refused(path: &Path, options: &OpenOptions, expected: &[&str]) {
    let error = open_all(path, options).err().unwrap_or_else(|| panic!("{} was accepted", path.display())).to_string();
    for part in expected {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.contains(&name), "{error} does not name {name}");
    assert!(!error.contains('\n'), "more than one line: {error}");
}

pub(crate) fn put(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A file system may wait for the disk where a file is overwritten, and not where it is new.
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A file of the folder of data sets: `FLOW_DATA`, or `../shared/data` beside the workspace. `None`, and a word about it,
/// where it is not there.
pub(crate) fn file(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let root = std::env::var_os("FLOW_DATA").map_or_else(|| workspace.join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: no {}; set FLOW_DATA to the folder of data sets", path.display());
    None
}

/// A chunk of a RIFF file, with its pad byte.
pub(crate) fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let pad: &[u8] = if body.len() % 2 == 1 { &[0] } else { &[] };
    [&name[..], &(body.len() as u32).to_le_bytes(), body, pad].concat()
}

/// A RIFF file of these chunks.
pub(crate) fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WAVE", &body].concat()
}

/// The chunk `fmt ` of 16 bytes.
pub(crate) fn format(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
    let align = channels * bits.div_ceil(8);
    let byte_rate = rate * u32::from(align);
    let words = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
    let ends = [align.to_le_bytes(), bits.to_le_bytes()].concat();
    chunk(b"fmt ", &[words, rate.to_le_bytes().to_vec(), byte_rate.to_le_bytes().to_vec(), ends].concat())
}

/// The chunk `fmt ` of 40 bytes: `valid` of `bits` bits count.
pub(crate) fn extensible(tag: u16, channels: u16, rate: u32, bits: u16, valid: u16) -> Vec<u8> {
    let basic = format(0xfffe, channels, rate, bits)[8..].to_vec();
    let guid = [&tag.to_le_bytes()[..], &[0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]].concat();
    chunk(b"fmt ", &[basic, 22u16.to_le_bytes().to_vec(), valid.to_le_bytes().to_vec(), vec![0; 4], guid].concat())
}

/// A WAV file of 16-bit integers of one channel.
pub(crate) fn pcm16(rate: u32, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    riff(&[format(1, 1, rate, 16), chunk(b"data", &data)])
}

/// A tone of 16-bit integers that is no silence.
pub(crate) fn tone(count: usize) -> Vec<i16> {
    (0..count).map(|n| ((n as f64 * 0.3).sin() * 9000.0) as i16).collect()
}
