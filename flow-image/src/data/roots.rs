//! What a folder is: which format its files have by their names, and where its parts are.

use std::path::{Path, PathBuf};

use super::{cifar, cifar_python, foreign, idx};
use crate::{Error, Result};

/// Where torchvision puts data sets below the folder that it is given.
const ROOTS: [&str; 10] = [
    "MNIST/raw",
    "FashionMNIST/raw",
    "KMNIST/raw",
    "QMNIST/raw",
    "EMNIST/raw",
    "raw",
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    "cifar-100-python",
    "cifar-100-binary",
];

const TRAIN: [&str; 2] = ["train", "training"];
const VALIDATION: [&str; 4] = ["validation", "val", "valid", "dev"];
const TEST: [&str; 2] = ["test", "testing"];

/// The formats that a folder can have.
pub(super) enum Format {
    Idx,
    Cifar,
    CifarPython,
    /// `train` and perhaps others, as arrays or folders of pictures.
    Parts(Entries),
    /// One of the above, further below.
    Root(PathBuf),
    /// Whatever pictures there are.
    Pictures,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An array.
    Npy(PathBuf),
    /// An archive of arrays.
    Npz(PathBuf),
    /// A folder of whatever is read from folders.
    Folder(PathBuf),
}

impl Entry {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Entry::Npy(path) | Entry::Npz(path) | Entry::Folder(path) => path,
        }
    }
}

/// The parts of a folder, and what else is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// `train` or `training`.
    pub train: Entry,
    /// `validation`, `val`, `valid` or `dev`.
    pub validation: Option<Entry>,
    /// `test` or `testing`.
    pub test: Option<Entry>,
    /// Names of what belongs to no part.
    pub beside: Vec<String>,
}

/// The format of a folder.
///
/// # Errors
/// A folder that cannot be listed, or several of torchvision's data sets in it.
pub(super) fn format_of(folder: &Path) -> Result<Format> {
    if idx::is_folder(folder) {
        return Ok(Format::Idx);
    }
    if cifar::is_folder(folder) {
        return Ok(Format::Cifar);
    }
    if cifar_python::is_folder(folder) {
        return Ok(Format::CifarPython);
    }
    if let Some(parts) = parts(folder)? {
        return Ok(Format::Parts(parts));
    }
    let is_root = |path: &PathBuf| {
        path.is_dir() && (idx::is_folder(path) || cifar::is_folder(path) || cifar_python::is_folder(path))
    };
    let mut roots: Vec<PathBuf> = ROOTS.iter().map(|root| folder.join(root)).filter(is_root).collect();
    match (roots.pop(), roots.is_empty()) {
        (Some(root), true) => Ok(Format::Root(root)),
        (Some(last), false) => {
            roots.push(last);
            let names: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
            let reason = format!("holds several data sets; name one of {}", names.join(", "));
            Err(Error::config(folder.display().to_string(), reason))
        }
        (None, _) => Ok(Format::Pictures),
    }
}

/// Whether a folder holds idx files, itself or where torchvision puts them below it.
pub fn holds_idx(folder: &Path) -> bool {
    match format_of(folder) {
        Ok(Format::Idx) => true,
        Ok(Format::Root(inner)) => idx::is_folder(&inner),
        _ => false,
    }
}

/// Entries of a folder by name, hidden ones left out.
///
/// # Errors
/// A folder that cannot be listed.
pub fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with('.') {
            entries.push((name, path));
        }
    }
    entries.sort();
    Ok(entries)
}

/// The parts of a folder that has a training part, by names in any case; `None` where it has none.
///
/// # Errors
/// A folder that cannot be listed.
pub fn parts(folder: &Path) -> Result<Option<Entries>> {
    let mut left = entries(folder)?;
    let mut take = |names: &[&str]| -> Option<Entry> {
        // Arrays before folders, and the longer-established names first.
        let endings = [".npy", ".npz", ""];
        let wanted = endings.iter().flat_map(|end| names.iter().map(move |name| format!("{name}{end}")));
        let fits = |wanted: &str, (name, path): &(String, PathBuf)| {
            name.eq_ignore_ascii_case(wanted) && path.is_dir() != wanted.contains('.')
        };
        let place = wanted.into_iter().find_map(|wanted| left.iter().position(|entry| fits(&wanted, entry)))?;
        let (name, path) = left.remove(place);
        Some(match name.to_lowercase() {
            name if name.ends_with(".npy") => Entry::Npy(path),
            name if name.ends_with(".npz") => Entry::Npz(path),
            _ => Entry::Folder(path),
        })
    };
    let Some(train) = take(&TRAIN) else { return Ok(None) };
    let (validation, test) = (take(&VALIDATION), take(&TEST));
    Ok(Some(Entries { train, validation, test, beside: left.into_iter().map(|(name, _)| name).collect() }))
}

/// What in a folder without images would be some if it were unpacked or named itself, for the end of a message.
pub(super) fn nearby(folder: &Path) -> String {
    let Ok(entries) = entries(folder) else { return String::new() };
    let named = |is: &dyn Fn(&str) -> bool| -> Vec<String> {
        entries.iter().map(|(name, _)| name.clone()).filter(|name| is(&name.to_lowercase())).collect()
    };
    let archives = named(&|name| foreign::is_archive_name(name));
    let arrays = named(&|name| name.ends_with(".npy") || name.ends_with(".npz"));
    match (&archives[..], &arrays[..]) {
        ([], []) => String::new(),
        ([], arrays) => format!("; to read an array name the file: {}", super::some_of(arrays)),
        (archives, _) => format!("; unpack {} (tar xf, unzip) first", super::some_of(archives)),
    }
}
