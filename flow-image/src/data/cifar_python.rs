//! CIFAR-10 and CIFAR-100 in their Python form, as torchvision unpacks them.
//!
//! A file is a pickled dictionary with `data`, a NumPy array of bytes `[N, 3072]`, and `labels` (CIFAR-10) or
//! `fine_labels` (CIFAR-100; its coarse labels are not read); the names of the classes are in another.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::path::{Path, PathBuf};

use serde_pickle::{DeOptions, HashableValue, Value};

use super::cifar::{Kind, PIXELS, fewer_batches};
use super::splits::Parts;
use super::{Dataset, foreign, numbers, read_file};
use crate::{Error, Result};

/// Train and test batches of a folder; `None` where it has neither `data_batch_1` nor CIFAR-100's `train` and `meta`.
///
/// # Errors
/// A file that is no such dictionary, or with other labels than images.
pub(crate) fn read_folder(folder: &Path) -> Result<Option<Parts>> {
    let Some((kind, train)) = files(folder) else { return Ok(None) };
    let (meta, test) = match kind {
        Kind::Ten => ("batches.meta", "test_batch"),
        Kind::Hundred => ("meta", "test"),
    };
    let names = class_names(&folder.join(meta), kind)?;
    let test = folder.join(test);
    let test = if test.exists() { Some(read_kind(&[test], kind, &names)?) } else { None };
    let note = if kind == Kind::Ten { fewer_batches(folder, train.len()) } else { None };
    Ok(Some(Parts { train: read_kind(&train, kind, &names)?, validation: None, test }.with_note(note)))
}

/// Whether [`read_folder`] finds something.
pub(crate) fn is_folder(folder: &Path) -> bool {
    files(folder).is_some()
}

fn files(folder: &Path) -> Option<(Kind, Vec<PathBuf>)> {
    let batches: Vec<PathBuf> =
        (1..=5).map(|n| folder.join(format!("data_batch_{n}"))).filter(|path| path.is_file()).collect();
    if !batches.is_empty() {
        return Some((Kind::Ten, batches));
    }
    let [train, meta] = ["train", "meta"].map(|name| folder.join(name));
    (train.is_file() && meta.is_file()).then(|| (Kind::Hundred, vec![train]))
}

/// One batch of CIFAR-10, with numbers for names.
///
/// # Errors
/// A file that is no such dictionary, or with other labels than images.
pub fn read(path: &Path) -> Result<Dataset> {
    read_kind(&[path.to_path_buf()], Kind::Ten, &numbers(Kind::Ten.classes()))
}

fn read_kind(files: &[PathBuf], kind: Kind, names: &[String]) -> Result<Dataset> {
    let Some(first) = files.first() else { return Err(Error::config("CIFAR", "no file to read")) };
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let batch = Dictionary::read(path)?;
        let pixels = batch.bytes("data")?;
        let size = PIXELS;
        if pixels.is_empty() || !pixels.len().is_multiple_of(size) {
            return Err(batch.fault(format!("rows of {size} bytes as data"), format!("{} bytes", pixels.len())));
        }
        let key = if kind == Kind::Ten { "labels" } else { "fine_labels" };
        let numbers = batch.labels(key, kind.classes())?;
        if numbers.len() * size != pixels.len() {
            let (expected, found) = (format!("{} {key}", pixels.len() / size), numbers.len().to_string());
            return Err(batch.fault(expected, found));
        }
        images.extend(pixels);
        labels.extend(numbers);
    }
    let source = if files.len() == 1 { first.as_path() } else { first.parent().unwrap_or(first) };
    Dataset::new(images, [3, 32, 32], 256, source.display().to_string())?.with_labels(labels, names.to_vec())
}

fn class_names(path: &Path, kind: Kind) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(numbers(kind.classes()));
    }
    let key = if kind == Kind::Ten { "label_names" } else { "fine_label_names" };
    let meta = Dictionary::read(path)?;
    let names: Option<Vec<String>> = match meta.get(key)? {
        Value::List(names) => names.iter().map(text).collect(),
        _ => None,
    };
    let count = names.as_ref().map_or(0, Vec::len);
    names
        .filter(|names| names.len() == kind.classes())
        .ok_or_else(|| meta.fault(format!("{} names under {key}", kind.classes()), format!("{count}")))
}

/// A pickled dictionary with the file that it is from.
struct Dictionary<'a> {
    path: &'a Path,
    entries: Vec<(String, Value)>,
}

impl<'a> Dictionary<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let bytes = read_file(path)?;
        foreign::refuse(path, &bytes)?;
        // The state of an object takes its place: an array becomes (version, shape, type, order, bytes).
        let options = DeOptions::new().keep_restore_state().replace_unresolved_globals();
        let expected = "a pickled dictionary of CIFAR's Python form";
        let value = serde_pickle::value_from_slice(&bytes, options).map_err(|e| {
            // The crate quotes values whole, which may be all images.
            let reason: String = e.to_string().chars().take(120).collect();
            Error::format(path, 0, expected, reason.replace('\n', " "))
        })?;
        let Value::Dict(entries) = value else { return Err(Error::format(path, 0, expected, "another value")) };
        let name = |key: HashableValue| match key {
            HashableValue::String(name) => name,
            HashableValue::Bytes(name) => String::from_utf8_lossy(&name).into_owned(),
            _ => String::new(),
        };
        Ok(Dictionary { path, entries: entries.into_iter().map(|(key, value)| (name(key), value)).collect() })
    }

    fn get(&self, key: &str) -> Result<&Value> {
        let found = self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.entries.iter().map(|(name, _)| name.as_str()).collect();
            self.fault(format!("an entry {key}"), format!("only {}", names.join(", ").escape_debug()))
        })
    }

    /// The bytes of an array of bytes.
    fn bytes(&self, key: &str) -> Result<&[u8]> {
        match self.get(key)? {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Tuple(state) => match &state[..] {
                [_, Value::Tuple(_), _, Value::Bool(false), Value::Bytes(bytes)] => Ok(bytes),
                [_, Value::Tuple(_), _, Value::Bool(true), _] => {
                    Err(self.fault(format!("{key} in C order"), "an array in Fortran order".into()))
                }
                _ => Err(self.fault(format!("{key} as an array of bytes"), "another object".into())),
            },
            _ => Err(self.fault(format!("{key} as an array of bytes"), "another value".into())),
        }
    }

    /// Class numbers of a list, or of an array of 64-bit integers.
    fn labels(&self, key: &str, classes: usize) -> Result<Vec<u32>> {
        let number = |value: &Value| match value {
            Value::I64(number) => Some(*number),
            _ => None,
        };
        let numbers: Option<Vec<i64>> = match self.get(key)? {
            Value::List(labels) | Value::Tuple(labels) if labels.iter().all(|l| number(l).is_some()) => {
                Some(labels.iter().filter_map(number).collect())
            }
            Value::Tuple(_) => {
                let words = self.bytes(key)?.chunks_exact(8);
                Some(words.map(|w| i64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]])).collect())
            }
            _ => None,
        };
        let numbers =
            numbers.ok_or_else(|| self.fault(format!("{key} as a list of numbers"), "other values".into()))?;
        let label = |(index, &number): (usize, &i64)| {
            let label = u32::try_from(number).ok().filter(|&label| (label as usize) < classes);
            let found = || self.fault(format!("{key} 0 to {}", classes - 1), format!("{number} for image {index}"));
            label.ok_or_else(found)
        };
        numbers.iter().enumerate().map(label).collect()
    }

    fn fault(&self, expected: String, found: String) -> Error {
        Error::format(self.path, 0, expected, found)
    }
}

/// A string of either Python.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}
