//! Files that are something else than their name promises: known by their first bytes, and refused with what to do.

use std::path::Path;

use crate::{Error, Result};

/// As many first bytes as are needed to know every kind: a tar archive has its mark at byte 257.
pub const START: usize = 512;

/// What a file that no reader takes is, and what helps.
struct Kind {
    is: &'static str,
    remedy: &'static str,
}

static PAGE: Kind =
    Kind { is: "an HTML page", remedy: "the download went wrong and saved an error page: fetch the file again" };
static TAR: Kind = Kind { is: "a tar archive", remedy: "unpack it (tar xf) and name the folder that comes out" };

/// First bytes, and what they are the mark of.
static MARKS: [(&[u8], Kind); 13] = [
    (b"%PDF", Kind { is: "a PDF document", remedy: "extract its pictures into a folder" }),
    (b"\x89HDF", Kind { is: "an HDF5 file", remedy: "save its array with numpy.savez(name, x=images, y=labels)" }),
    (b"MATLAB 5.0", Kind { is: "a MATLAB file", remedy: "convert it with scipy.io.loadmat and numpy.savez" }),
    (b"PAR1", Kind { is: "a Parquet file", remedy: "write its pictures into a folder, or as .npz" }),
    (b"version https://git-lfs", Kind { is: "a Git LFS pointer", remedy: "fetch its content with git lfs pull" }),
    (b"7z\xbc\xaf\x27\x1c", Kind { is: "a 7z archive", remedy: "unpack it and name the folder that comes out" }),
    (b"Rar!", Kind { is: "a RAR archive", remedy: "unpack it and name the folder that comes out" }),
    (b"BZh", Kind { is: "a bzip2 file", remedy: "unpack it (bunzip2, or tar xf for a .tar.bz2)" }),
    (b"\xfd7zXZ", Kind { is: "an xz file", remedy: "unpack it (unxz, or tar xf for a .tar.xz)" }),
    (b"\x28\xb5\x2f\xfd", Kind { is: "a Zstandard file", remedy: "unpack it (unzstd)" }),
    (b"SQLite format 3", Kind { is: "an SQLite data base", remedy: "write its pictures into a folder, or as .npz" }),
    (b"ARROW1", Kind { is: "an Arrow file", remedy: "write its pictures into a folder, or as .npz" }),
    (b"PK\x03\x04", Kind { is: "a zip archive", remedy: "unpack it (unzip) and name the folder that comes out" }),
];

fn recognise(start: &[u8]) -> Option<&'static Kind> {
    if is_page(start) {
        return Some(&PAGE);
    }
    if is_tar(start) {
        return Some(&TAR);
    }
    MARKS.iter().find(|(mark, _)| start.starts_with(mark)).map(|(_, kind)| kind)
}

/// HTML or XML, after a byte order mark and blanks.
fn is_page(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = start.trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag));
    [&b"<!doc"[..], b"<html", b"<head", b"<body", b"<?xml", b"<!--"].iter().any(|tag| begins(tag))
}

/// Whether these are the first bytes of an (unpacked) tar archive.
pub(crate) fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// Refuses a file whose first bytes are the mark of something that no reader takes.
///
/// # Errors
/// [`Error::WrongKind`] with what it is and what to do.
pub fn refuse(path: &Path, start: &[u8]) -> Result<()> {
    match recognise(start) {
        Some(kind) => Err(wrong(path, kind)),
        None => Ok(()),
    }
}

/// As [`refuse`], for a file that may be a zip archive of arrays.
///
/// # Errors
/// Those of [`refuse`].
pub fn refuse_but_zip(path: &Path, start: &[u8]) -> Result<()> {
    if start.starts_with(b"PK\x03\x04") { Ok(()) } else { refuse(path, start) }
}

/// A compressed tar archive, known by its name or by what is in it.
pub(crate) fn compressed_tar(path: &Path) -> Error {
    wrong(path, &TAR)
}

/// Whether the name is that of an archive that has to be unpacked first.
pub fn is_archive_name(name: &str) -> bool {
    let name = name.to_lowercase();
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".rar"].iter().any(|end| name.ends_with(end))
}

fn wrong(path: &Path, kind: &Kind) -> Error {
    Error::WrongKind { path: path.into(), is: kind.is.into(), remedy: kind.remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_archives_are_named_with_their_remedies() {
        let mut tar = vec![0; START];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str); 9] = [
            (b"<!DOCTYPE html><html>", "an HTML page; the download went wrong"),
            (b"\xef\xbb\xbf \r\n<HTML lang=en>", "an HTML page"),
            (b"<?xml version='1.0'?><Error>AccessDenied", "an HTML page"),
            (&tar, "a tar archive; unpack it"),
            (b"PK\x03\x04rest", "a zip archive; unpack it"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
            (b"MATLAB 5.0 MAT-file, Platform", "loadmat"),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
            (b"BZh91AY", "bunzip2"),
        ];
        for (start, expected) in cases {
            let error = refuse(Path::new("x.png"), start).unwrap_err().to_string();
            assert!(error.starts_with("x.png: this is ") && error.contains(expected), "{error}");
        }
        for fine in [&b""[..], b"<", b"\x89PNG\r\n", b"\x93NUMPY", &[0, 0, 8, 3], b"BM"] {
            refuse(Path::new("x"), fine).unwrap();
        }
        refuse_but_zip(Path::new("x.npz"), b"PK\x03\x04").unwrap();
        assert!(is_archive_name("Cifar-10-Binary.TAR.gz") && !is_archive_name("train-images-idx3-ubyte.gz"));
    }
}
