//! Arrays in NumPy's format: any numbers, either byte order, either order of axes.

use std::path::Path;

pub use flow_core::files::numpy::{Array, Kind, MAGIC};

use crate::{Error, Result};

/// The array of a whole file; `path` names it in messages.
///
/// # Errors
/// A malformed header, elements that are no numbers, or a length that contradicts the shape.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Array> {
    Array::parse(bytes).map_err(|fault| Error::format(path, fault.offset(), fault.expected(), fault.found()))
}
