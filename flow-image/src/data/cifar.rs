//! The binary form of CIFAR-10.
//!
//! A file is any number of records of 3,073 bytes: a label 0 to 9, then 1,024 red, 1,024 green and 1,024
//! blue bytes of a 32×32 image in row-major order, which is `[C, H, W]` as it stands.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::path::{Path, PathBuf};

use super::{Dataset, read_file};
use crate::{Error, Result};

/// Bytes of one labelled image.
pub(crate) const RECORD: usize = 1 + 3 * 32 * 32;
const CLASSES: usize = 10;
const META: &str = "batches.meta.txt";

/// All records of the files, one file after the other, with the class names of a `batches.meta.txt`
/// beside the first file (or numbers).
///
/// # Errors
/// A length that is no multiple of 3,073, a label above 9, or other than ten class names.
pub fn read(files: &[PathBuf]) -> Result<Dataset> {
    let Some(first) = files.first() else {
        return Err(Error::config("CIFAR-10", "no file to read"));
    };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        append(path, &mut images, &mut labels)?;
    }
    let source = if files.len() == 1 { first.as_path() } else { first.parent().unwrap_or(first) };
    let names = class_names(&first.with_file_name(META))?;
    Dataset::new(images, [3, 32, 32], 256, source.display().to_string())?.with_labels(labels, names)
}

/// Train and test batches of a folder; `None` where it has no `data_batch_*.bin`.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_folder(folder: &Path) -> Result<Option<(Dataset, Option<Dataset>)>> {
    let train = training_batches(folder)?;
    if train.is_empty() {
        return Ok(None);
    }
    let test = folder.join("test_batch.bin");
    let test = if test.exists() { Some(read(&[test])?) } else { None };
    Ok(Some((read(&train)?, test)))
}

/// Whether [`read_folder`] finds something.
pub(crate) fn is_folder(folder: &Path) -> bool {
    training_batches(folder).is_ok_and(|files| !files.is_empty())
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

fn append(path: &Path, images: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let bytes = read_file(path)?;
    let records = bytes.chunks_exact(RECORD);
    if !records.remainder().is_empty() {
        let whole = bytes.len() - records.remainder().len();
        let expected = format!("whole records of {RECORD} bytes");
        return Err(Error::format(path, whole, expected, format!("{} bytes", records.remainder().len())));
    }
    for (index, record) in records.enumerate() {
        let (label, pixels) = (record[0], &record[1..]);
        if usize::from(label) >= CLASSES {
            let found = format!("{label} in record {index}");
            return Err(Error::format(path, index * RECORD, "a label 0 to 9", found));
        }
        labels.push(u32::from(label));
        images.extend_from_slice(pixels);
    }
    Ok(())
}

/// Ten names, one a line.
fn class_names(meta: &Path) -> Result<Vec<String>> {
    if !meta.exists() {
        return Ok((0..CLASSES).map(|class| class.to_string()).collect());
    }
    let text = String::from_utf8_lossy(&read_file(meta)?).into_owned();
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != CLASSES {
        let line = text.lines().count();
        let (expected, found) = ("ten class names".to_string(), names.len().to_string());
        return Err(Error::Line { path: meta.into(), line, expected, found });
    }
    Ok(names)
}
