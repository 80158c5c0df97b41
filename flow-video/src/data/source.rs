//! One file or folder of pictures as clips, whatever its format.

use std::path::{Path, PathBuf};

use flow_image::data::{array, first_bytes, foreign, npz, picture};

use super::{Clip, OpenOptions, animation, arrays, pictures, y4m};
use crate::{Error, Result};

/// Where clips are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A folder whose pictures are the frames of one clip.
    Pictures { folder: PathBuf, name: String, files: Vec<PathBuf> },
    /// A file of one or several clips.
    File { path: PathBuf, name: String },
}

impl Source {
    /// Where it is, as the user knows it.
    pub(super) fn name(&self) -> &str {
        match self {
            Source::Pictures { name, .. } | Source::File { name, .. } => name,
        }
    }

    /// Its clips, and what there is to tell about them.
    ///
    /// # Errors
    /// Those of the format's reader.
    pub(super) fn read(&self, options: &OpenOptions) -> Result<(Vec<Clip>, Vec<String>)> {
        match self {
            Source::Pictures { folder, name, files } => {
                pictures::read(folder, name, files.clone(), options).map(|(clip, notes)| (vec![clip], notes))
            }
            Source::File { path, name } => read_file(path, name, options),
        }
    }
}

/// Endings of files that are clips.
const CLIPS: [&str; 5] = ["gif", "apng", "y4m", "npy", "npz"];

/// Endings of files that FFmpeg reads, with the names that messages use.
const VIDEOS: [&str; 20] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "wmv", "flv", "ogv", "3gp", "mts", "vob",
    "asf", "mxf", "divx", "f4v",
];

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether the name is that of a file of clips, FFmpeg's among them.
pub(super) fn is_clip_name(path: &Path) -> bool {
    let ending = ending(path);
    CLIPS.contains(&ending.as_str()) || VIDEOS.contains(&ending.as_str())
}

/// Whether a file of this name and beginning is a video for FFmpeg.
fn is_video(path: &Path, start: &[u8]) -> bool {
    let riff = start.starts_with(b"RIFF") && start.get(8..12) == Some(b"AVI ");
    let iso = matches!(start.get(4..8), Some(b"ftyp" | b"moov" | b"mdat" | b"wide"));
    let matroska = start.starts_with(b"\x1a\x45\xdf\xa3");
    let others = [&b"FLV\x01"[..], b"OggS", b"\x00\x00\x01\xba", b"\x30\x26\xb2\x75"];
    riff || iso
        || matroska
        || others.iter().any(|mark| start.starts_with(mark))
        || VIDEOS.contains(&ending(path).as_str())
}

/// The clips of one file, whose format its first bytes tell.
fn read_file(path: &Path, name: &str, options: &OpenOptions) -> Result<(Vec<Clip>, Vec<String>)> {
    let start = first_bytes(path)?;
    let one = |read: Result<(Clip, Vec<String>)>| read.map(|(clip, notes)| (vec![clip], notes));
    if start.starts_with(animation::GIF) || start.starts_with(animation::PNG) {
        return one(animation::read(path, name, options));
    }
    if start.starts_with(y4m::MAGIC) {
        return one(y4m::read(path, name, options));
    }
    if start.starts_with(array::MAGIC) {
        return arrays::read_npy(path, name, options).map(|(clips, notes, _)| (clips, notes));
    }
    if npz::looks_like(&start) && ending(path) == "npz" {
        return arrays::read_npz(path, name, options).map(|(clips, notes, _)| (clips, notes));
    }
    foreign::refuse(path, &start)?;
    if is_video(path, &start) {
        return video(path, name, options);
    }
    // A name that promises a format, and bytes that are none.
    match ending(path).as_str() {
        "gif" => Err(Error::format(path, 0, "the first bytes of a GIF, GIF87a or GIF89a", found(&start))),
        "apng" => Err(Error::format(path, 0, "the first bytes of a PNG", found(&start))),
        "y4m" => Err(Error::format(path, 0, "the word YUV4MPEG2", found(&start))),
        "npy" => Err(Error::format(path, 0, "the magic bytes of a NumPy file", found(&start))),
        "npz" => Err(Error::format(path, 0, "the first bytes of a zip archive", found(&start))),
        _ if picture::is_picture(path) => {
            let (is, remedy) = ("a picture", "a clip of pictures is a folder of them, numbered: name the folder");
            Err(Error::WrongKind { path: path.into(), is: is.into(), remedy: remedy.into() })
        }
        _ => Err(Error::NoData { path: path.into(), looked_for: LOOKED_FOR.into() }),
    }
}

/// What is read, for messages.
pub(super) const LOOKED_FOR: &str = "GIF, animated PNG, Y4M, .npy, .npz, a video (MP4, MKV, WebM, AVI, MOV; feature \
     ffmpeg), MNIST's idx files, a folder of numbered pictures, or a folder of these";

fn found(start: &[u8]) -> String {
    format!("{:02x?}", &start[..start.len().min(8)])
}

#[cfg(feature = "ffmpeg")]
fn video(path: &Path, name: &str, options: &OpenOptions) -> Result<(Vec<Clip>, Vec<String>)> {
    super::ffmpeg::read(path, name, options).map(|(clip, notes)| (vec![clip], notes))
}

#[cfg(not(feature = "ffmpeg"))]
fn video(path: &Path, _name: &str, _options: &OpenOptions) -> Result<(Vec<Clip>, Vec<String>)> {
    Err(Error::FeatureDisabled { path: path.into(), doing: "reading" })
}
