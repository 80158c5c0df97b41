//! Data sets of images: readers, splits, augmentation and the order of batches.
//!
//! [`open`] recognises the format of a path by itself; each format also has its own module:
//!
//! | module | what it reads |
//! |---|---|
//! | [`idx`] | MNIST and its relatives, `…-images-idx3-ubyte`, plain or gzipped |
//! | [`cifar`] | CIFAR-10 binary batches |
//! | [`folder`] | PNG, JPEG and WebP pictures, with labels from sub-folders and attributes from `labels.csv` |
//! | [`npy`] | NumPy arrays of bytes, or of floats in `[0, 1]` |
//! | `builtin` | 1,797 handwritten digits, no file needed (feature `digits`) |
//!
//! Every reader trusts nothing: a length is compared with the file before memory is taken for it, and
//! a malformed file is one line naming file and position.

mod attributes;
pub mod augment;
pub mod batches;
#[cfg(feature = "digits")]
pub mod builtin;
pub mod cifar;
mod dataset;
pub mod folder;
pub mod idx;
pub mod npy;
mod open;
mod splits;

pub use attributes::Attributes;
pub use augment::{Augment, Edge};
pub use batches::{Batch, BatchCursor, BatchState, sequential};
pub use dataset::{Dataset, ImageShape};
pub use folder::{Channels, FolderOptions, Resize};
pub use open::{OpenOptions, holds_pictures, open};
pub use splits::Splits;
pub(crate) use splits::fingerprint;

use std::path::Path;

use crate::{Error, Result};

/// The bytes of one regular, non-empty file.
///
/// A device or a pipe is refused: its length is unknown, and with it the bound on the memory it takes.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    file_length(path)?;
    std::fs::read(path).map_err(Error::io(path))
}

/// The length of a regular file that is not empty.
pub(crate) fn file_length(path: &Path) -> Result<u64> {
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
