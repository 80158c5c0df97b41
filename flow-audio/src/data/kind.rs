//! What a file is, by its first bytes: names lie.

use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// As many first bytes as are needed to know every kind: a tar archive has its mark at byte 257.
const START: u64 = 512;

/// What is read, for messages.
pub(super) const LOOKED_FOR: &str = "WAV, and with the feature codecs FLAC, Ogg Vorbis and MP3; a folder of these, \
     however deep; or a folder with metadata.csv and wavs/, as LJSpeech is";

/// Endings of files that are taken for sound when a folder is looked through.
const ENDINGS: [&str; 7] = ["wav", "wave", "flac", "ogg", "oga", "mp3", "rf64"];

/// A format of sound that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Wav,
    Flac,
    OggVorbis,
    Mp3,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Wav => "WAV",
            Kind::Flac => "FLAC",
            Kind::OggVorbis => "Ogg Vorbis",
            Kind::Mp3 => "MP3",
        }
    }
}

const CONVERT: &str = "convert it to WAV (ffmpeg -i in out.wav)";
const UNPACK: &str = "unpack it and name the folder that comes out";

/// First bytes at an offset, what they are the mark of, and what helps.
static MARKS: [(usize, &[u8], &str, &str); 30] = [
    (0, b"RIFX", "a big-endian WAV file (RIFX)", CONVERT),
    (0, b"RF64", "a WAV file with 64-bit lengths (RF64)", "split it into files below 4 GiB, or convert it to FLAC"),
    (0, b"BW64", "a WAV file with 64-bit lengths (BW64)", "split it into files below 4 GiB, or convert it to FLAC"),
    (0, b"riff\x2e\x91\xcf\x11", "a Sony Wave64 file", CONVERT),
    (8, b"AVI ", "an AVI video", "extract its sound (ffmpeg -i in.avi out.wav)"),
    (8, b"WEBP", "a WebP picture", "name a sound file"),
    (8, b"AIFF", "an AIFF file", CONVERT),
    (8, b"AIFC", "an AIFF-C file", CONVERT),
    (4, b"ftyp", "an MP4 or M4A file", CONVERT),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM file", CONVERT),
    (0, b".snd", "a Sun AU file", CONVERT),
    (0, b"caff", "a Core Audio file", CONVERT),
    (0, b"#!AMR", "an AMR file", CONVERT),
    (0, b"wvpk", "a WavPack file", CONVERT),
    (0, b"MAC ", "a Monkey's Audio file", CONVERT),
    (0, b"MThd", "a MIDI file, notes without sound", "render it with a synthesizer first"),
    (0, b"NIST_1A", "a NIST SPHERE file", "convert it to WAV (sph2pipe -f wav in.sph out.wav)"),
    (0, b"\x93NUMPY", "a NumPy array", "write its samples as WAV; mel spectrograms are read elsewhere"),
    (0, b"\x89PNG", "a PNG picture", "name a sound file"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "name a sound file"),
    (0, b"%PDF", "a PDF document", "name a sound file"),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"\x1f\x8b", "a gzip file", "unpack it (gunzip, or tar xf for a .tar.gz)"),
    (0, b"BZh", "a bzip2 file", "unpack it (bunzip2, or tar xf for a .tar.bz2)"),
    (0, b"\xfd7zXZ", "an xz file", "unpack it (unxz, or tar xf for a .tar.xz)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"PAR1", "a Parquet file", "write its clips into a folder"),
    (257, b"ustar", "a tar archive", "unpack it (tar xf) and name the folder that comes out"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "fetch its content with git lfs pull"),
];

/// HTML or XML, after a byte order mark and blanks.
fn is_page(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag));
    [&b"<!doc"[..], b"<html", b"<head", b"<body", b"<?xml", b"<!--"].iter().any(|tag| begins(tag))
}

/// Refuses what is known to be no sound that is read here.
///
/// # Errors
/// [`Error::WrongKind`] with what it is and what to do.
pub(crate) fn refuse_foreign(path: &Path, start: &[u8]) -> Result<()> {
    let wrong = |is: &str, remedy: &str| Error::WrongKind { path: path.into(), is: is.into(), remedy: remedy.into() };
    if is_page(start) {
        return Err(wrong("an HTML page", "the download went wrong and saved an error page: fetch the file again"));
    }
    let marked = |(at, mark, ..): &&(usize, &[u8], &str, &str)| start.get(*at..at + mark.len()) == Some(*mark);
    match MARKS.iter().find(marked) {
        Some((_, _, is, remedy)) => Err(wrong(is, remedy)),
        None => Ok(()),
    }
}

/// The format of a file that begins with these bytes.
///
/// # Errors
/// Something else that is known by its mark, which is named, or nothing known.
pub(super) fn recognise(path: &Path, start: &[u8]) -> Result<Kind> {
    if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WAVE") {
        return Ok(Kind::Wav);
    }
    if start.starts_with(b"fLaC") {
        return Ok(Kind::Flac);
    }
    if start.starts_with(b"OggS") {
        return ogg(path, start);
    }
    refuse_foreign(path, start)?;
    if start.starts_with(b"ID3") || is_mpeg_frame(start) {
        return Ok(Kind::Mp3);
    }
    let found = format!("{:02x?}", start.get(..8).unwrap_or(start));
    let what = match ending(path).as_str() {
        "wav" | "wave" => "RIFF and WAVE, as a WAV file begins",
        "flac" => "fLaC, as a FLAC file begins",
        "ogg" | "oga" => "OggS, as an Ogg file begins",
        "mp3" => "ID3 or a frame of MPEG audio",
        _ => return Err(Error::NoData { path: path.into(), looked_for: LOOKED_FOR.into() }),
    };
    Err(Error::format(path, 0, what, found))
}

/// Which codec an Ogg file holds: its first packet begins behind 27 bytes and a table of lengths.
fn ogg(path: &Path, start: &[u8]) -> Result<Kind> {
    let table = start.get(26).copied().map_or(0, usize::from);
    let packet = start.get(27 + table..).unwrap_or_default();
    let named = [
        (&b"OpusHead"[..], "an Opus file"),
        (b"Speex   ", "a Speex file"),
        (b"\x80theora", "a Theora video"),
        (b"\x7fFLAC", "a FLAC stream in an Ogg file"),
    ];
    match named.iter().find(|(mark, _)| packet.starts_with(mark)) {
        Some((_, is)) => Err(Error::WrongKind { path: path.into(), is: (*is).into(), remedy: CONVERT.into() }),
        None if packet.starts_with(b"\x01vorbis") => Ok(Kind::OggVorbis),
        None => {
            let found = format!("{:02x?}", packet.get(..7).unwrap_or(packet));
            Err(Error::format(path, 27 + table, "the first packet of Vorbis", found))
        }
    }
}

/// The header of a frame of MPEG audio, layer III, of a legal bit rate and sampling rate.
fn is_mpeg_frame(start: &[u8]) -> bool {
    match *start {
        [0xff, b, c, ..] => {
            let (version, layer, bit_rate, rate) = (b >> 3 & 3, b >> 1 & 3, c >> 4, c >> 2 & 3);
            b & 0xe0 == 0xe0 && version != 1 && layer == 1 && !matches!(bit_rate, 0 | 15) && rate != 3
        }
        _ => false,
    }
}

pub(super) fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether the name is that of a sound file.
pub(super) fn is_sound_name(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

/// The bytes of one regular, non-empty file; a device or a pipe is refused, whose length is unknown.
///
/// # Errors
/// No such file, a folder, a device, no bytes, or a failure to read.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    check_regular(path)?;
    std::fs::read(path).map_err(Error::io(path))
}

/// The first bytes of a regular, non-empty file.
///
/// # Errors
/// Those of [`read_file`].
pub(super) fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    check_regular(path)?;
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut start = Vec::new();
    file.take(START).read_to_end(&mut start).map_err(Error::io(path))?;
    Ok(start)
}

fn check_regular(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    match () {
        () if metadata.is_dir() => Err(Error::format(path, 0, "a file", "a folder")),
        () if !metadata.is_file() => Err(Error::format(path, 0, "a regular file", "a device or a pipe")),
        () if metadata.len() == 0 => Err(Error::format(path, 0, "data", "an empty file")),
        () => Ok(()),
    }
}

/// A few names for a message: the first three, and how many more.
pub(super) fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let first: Vec<&str> = names.iter().take(3).map(AsRef::as_ref).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_and_what_is_not_read_is_named() {
        let at = |offset: usize, mark: &[u8]| [vec![0; offset], mark.to_vec()].concat();
        let of = |start: &[u8]| recognise(Path::new("x.wav"), start);
        assert_eq!(of(b"RIFF\0\0\0\0WAVEfmt ").unwrap(), Kind::Wav);
        assert_eq!(of(b"fLaC\0").unwrap(), Kind::Flac);
        assert_eq!(of(b"ID3\x04").unwrap(), Kind::Mp3);
        assert_eq!(of(&[0xff, 0xfb, 0x90, 0x00]).unwrap(), Kind::Mp3);
        let ogg = |packet: &[u8]| [&b"OggS"[..], &[0; 22], &[1, 30], packet].concat();
        assert_eq!(of(&ogg(b"\x01vorbis")).unwrap(), Kind::OggVorbis);
        for (start, expected) in [
            (ogg(b"OpusHead"), "an Opus file; convert it"),
            (ogg(b"nothing"), "first packet of Vorbis"),
            (b"RIFX\0\0\0\0WAVE".to_vec(), "big-endian WAV file (RIFX)"),
            (b"RF64\xff\xff\xff\xffWAVE".to_vec(), "RF64"),
            (b"RIFF\0\0\0\0AVI LIST".to_vec(), "an AVI video"),
            (b"FORM\0\0\0\0AIFF".to_vec(), "an AIFF file"),
            (b"  <!DOCTYPE html><html>".to_vec(), "an HTML page; the download went wrong"),
            (at(4, b"ftypM4A "), "M4A"),
            (at(257, b"ustar"), "a tar archive"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
            (b"text".to_vec(), "RIFF and WAVE, as a WAV file begins, found [74, 65, 78, 74]"),
            (vec![0xff, 0xff, 0xff, 0xff], "RIFF and WAVE"),
            (Vec::new(), "RIFF and WAVE"),
        ] {
            let error = of(&start).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let error = recognise(Path::new("x.bin"), b"text").unwrap_err().to_string();
        assert!(error.contains("looked for WAV"), "{error}");
    }
}
