//! The binary form of CIFAR-10 and CIFAR-100.
//!
//! A file is any number of records of 3,073 bytes: a label 0 to 9, then 1,024 red, 1,024 green and 1,024
//! blue bytes of a 32×32 image in row-major order, which is `[C, H, W]` as it stands. Records of CIFAR-100 have 3,074
//! bytes: a coarse label 0 to 19, which is not read, and a fine one 0 to 99 before the image.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::path::{Path, PathBuf};

use super::splits::Parts;
use super::{Dataset, foreign, numbers, read_file};
use crate::{Error, Result};

/// Bytes of one image.
pub(crate) const PIXELS: usize = 3 * 32 * 32;

/// One of the two sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ten,
    Hundred,
}

impl Kind {
    /// Bytes of one labelled image.
    pub(crate) const fn record(self) -> usize {
        self.labels() + PIXELS
    }

    /// Labels before an image, of which the last counts.
    const fn labels(self) -> usize {
        match self {
            Kind::Ten => 1,
            Kind::Hundred => 2,
        }
    }

    pub(crate) const fn classes(self) -> usize {
        match self {
            Kind::Ten => 10,
            Kind::Hundred => 100,
        }
    }

    /// The file of class names beside the batches.
    const fn names(self) -> &'static str {
        match self {
            Kind::Ten => "batches.meta.txt",
            Kind::Hundred => "fine_label_names.txt",
        }
    }

    /// The set of a single file, by its length; where both are possible, by its name.
    pub(crate) fn of_file(path: &Path, length: u64) -> Self {
        let whole = |kind: Kind| length.is_multiple_of(kind.record() as u64);
        let is_named = path.file_name().is_some_and(|name| name == "train.bin" || name == "test.bin");
        if whole(Kind::Hundred) && (is_named || !whole(Kind::Ten)) { Kind::Hundred } else { Kind::Ten }
    }
}

/// All records of CIFAR-10's files, one file after the other, with the class names of a `batches.meta.txt`
/// beside the first file (or numbers).
///
/// # Errors
/// A length that is no multiple of 3,073, a label above 9, or other than ten class names.
pub fn read(files: &[PathBuf]) -> Result<Dataset> {
    read_kind(files, Kind::Ten)
}

/// As [`read`] for files of CIFAR-100: records of 3,074 bytes, of which the fine label 0 to 99 is read.
///
/// # Errors
/// As [`read`], with a hundred names in a `fine_label_names.txt`.
pub fn read_100(files: &[PathBuf]) -> Result<Dataset> {
    read_kind(files, Kind::Hundred)
}

pub(crate) fn read_kind(files: &[PathBuf], kind: Kind) -> Result<Dataset> {
    let Some(first) = files.first() else {
        return Err(Error::config("CIFAR", "no file to read"));
    };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        append(path, kind, &mut images, &mut labels)?;
    }
    let source = if files.len() == 1 { first.as_path() } else { first.parent().unwrap_or(first) };
    let names = class_names(&first.with_file_name(kind.names()), kind)?;
    Dataset::new(images, [3, 32, 32], 256, source.display().to_string())?.with_labels(labels, names)
}

/// Train and test batches of a folder; `None` where it has neither `data_batch_*.bin` nor the `train.bin` of CIFAR-100.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_folder(folder: &Path) -> Result<Option<Parts>> {
    let train = training_batches(folder)?;
    if !train.is_empty() {
        let test = folder.join("test_batch.bin");
        let test = if test.exists() { Some(read(&[test])?) } else { None };
        let note = fewer_batches(folder, train.len());
        return Ok(Some(Parts { train: read(&train)?, validation: None, test }.with_note(note)));
    }
    if !is_hundred(folder) {
        return Ok(None);
    }
    let test = folder.join("test.bin");
    let test = if test.exists() { Some(read_100(&[test])?) } else { None };
    let train = read_100(&[folder.join("train.bin")])?;
    Ok(Some(Parts { train, validation: None, test }))
}

/// A word about a CIFAR-10 of other than five batches.
pub(crate) fn fewer_batches(folder: &Path, count: usize) -> Option<String> {
    (count != 5).then(|| format!("{}: {count} training batches, CIFAR-10 has 5", folder.display()))
}

/// Whether [`read_folder`] finds something.
pub(crate) fn is_folder(folder: &Path) -> bool {
    training_batches(folder).is_ok_and(|files| !files.is_empty()) || is_hundred(folder)
}

/// Whether there is a `train.bin` as CIFAR-100 has it.
fn is_hundred(folder: &Path) -> bool {
    let length = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |m| m.len());
    let bytes = length("train.bin");
    bytes > 0 && (bytes.is_multiple_of(Kind::Hundred.record() as u64) || folder.join(Kind::Hundred.names()).exists())
}

/// The files `data_batch_*.bin`, in order.
fn training_batches(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("data_batch") && name.ends_with(".bin") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn append(path: &Path, kind: Kind, images: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let bytes = read_file(path)?;
    foreign::refuse(path, &bytes)?;
    let (size, classes) = (kind.record(), kind.classes());
    let records = bytes.chunks_exact(size);
    if !records.remainder().is_empty() {
        let whole = bytes.len() - records.remainder().len();
        let expected = format!("whole records of {size} bytes");
        return Err(Error::format(path, whole, expected, format!("{} bytes", records.remainder().len())));
    }
    for (index, record) in records.enumerate() {
        let (before, pixels) = record.split_at(kind.labels());
        let label = before.last().copied().unwrap_or_default();
        if usize::from(label) >= classes {
            let (at, found) = (index * size + kind.labels() - 1, format!("{label} in record {index}"));
            return Err(Error::format(path, at, format!("a label 0 to {}", classes - 1), found));
        }
        labels.push(u32::from(label));
        images.extend_from_slice(pixels);
    }
    Ok(())
}

/// A name for each class, one a line.
fn class_names(meta: &Path, kind: Kind) -> Result<Vec<String>> {
    let classes = kind.classes();
    if !meta.exists() {
        return Ok(numbers(classes));
    }
    let text = String::from_utf8_lossy(&read_file(meta)?).into_owned();
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != classes {
        let line = text.lines().count();
        let (expected, found) = (format!("{classes} class names"), names.len().to_string());
        return Err(Error::Line { path: meta.into(), line, expected, found });
    }
    Ok(names)
}
