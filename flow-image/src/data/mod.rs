//! Data sets of images: readers, splits, augmentation and the order of batches.
//!
//! [`open`] recognises the format of a path by itself; each format also has its own module:
//!
//! | module | what it reads |
//! |---|---|
//! | [`idx`] | MNIST and its relatives, EMNIST among them, `…-images-idx3-ubyte`, plain or gzipped |
//! | [`cifar`] | CIFAR-10 and CIFAR-100 in their binary form |
//! | [`cifar_python`] | the same in their Python form |
//! | [`folder`] | PNG, JPEG, WebP, BMP, TIFF, GIF, PPM pictures, labels from sub-folders, attributes from `labels.csv` |
//! | [`npy`], [`npz`] | NumPy arrays of integers, truth values or floats, with labels |
//! | `builtin` | 1,797 handwritten digits, no file needed (feature `digits`) |
//!
//! Every reader trusts nothing: a length is compared with the file before memory is taken for it, and
//! a malformed file is one line naming file and position.

pub mod array;
mod attributes;
pub mod augment;
pub mod batches;
#[cfg(feature = "digits")]
pub mod builtin;
pub mod cifar;
pub mod cifar_python;
mod dataset;
mod duplicates;
pub mod folder;
pub mod foreign;
pub mod idx;
mod layout;
pub mod levels;
pub mod npy;
pub mod npz;
mod open;
pub mod picture;
pub mod roots;
mod splits;

pub use attributes::Attributes;
pub use augment::{Augment, Edge};
pub use batches::{Batch, BatchCursor, BatchState, sequential};
pub use dataset::{Dataset, ImageShape};
pub use duplicates::Duplicates;
pub use folder::{Channels, FolderOptions, Resize};
pub use layout::Layout;
pub use levels::Range;
pub use npy::ArrayOptions;
pub use open::{OpenOptions, holds_arrays, holds_pictures, open, open_all};
pub(crate) use splits::fingerprint;
pub use splits::{Splits, share};

use std::io::Read;
use std::path::Path;

use crate::{Error, Result};

/// The bytes of one regular, non-empty file.
///
/// A device or a pipe is refused: its length is unknown, and with it the bound on the memory it takes.
///
/// # Errors
/// Those of [`file_length`], or a failure to read.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    file_length(path)?;
    std::fs::read(path).map_err(Error::io(path))
}

/// The first bytes of a regular, non-empty file: as many as [`foreign`] needs to know every kind of file, or all.
///
/// # Errors
/// Those of [`file_length`], or a failure to read.
pub fn first_bytes(path: &Path) -> Result<Vec<u8>> {
    file_length(path)?;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(foreign::START as u64).read_to_end(&mut start).map_err(Error::io(path))?;
    Ok(start)
}

/// The length of a regular file that is not empty.
///
/// # Errors
/// No such file, a folder, a device or a pipe, or no bytes.
pub fn file_length(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if metadata.is_dir() {
        return Err(Error::format(path, 0, "a file", "a folder"));
    }
    if !metadata.is_file() {
        return Err(Error::format(path, 0, "a regular file", "a device or a pipe"));
    }
    if metadata.len() == 0 {
        return Err(Error::format(path, 0, "data", "an empty file"));
    }
    Ok(metadata.len())
}

/// Whether a field of a description is what it is where nobody sets it: then it is left out, as it was before there was
/// such a field.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A few names for a message: the first three, and how many more.
pub fn some_of<S: AsRef<str>>(names: &[S]) -> String {
    let first: Vec<&str> = names.iter().take(3).map(AsRef::as_ref).collect();
    let more =
        if names.len() > first.len() { format!(" and {} more", names.len() - first.len()) } else { String::new() };
    first.join(", ") + &more
}

/// Classes that have no names but their numbers.
pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}
