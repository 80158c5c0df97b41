//! Pictures out: grids, animations and single files.
//!
//! Whatever is written appears under its name complete or not at all.

mod gif;
mod grid;
mod pixels;
mod single;

use std::path::Path;

pub use gif::{MAX_GIF_FPS, write_gif, write_gif_at};
pub use grid::{GridStyle, MAX_SIDE, grid, write_grid};
pub use pixels::Pixels;
pub use single::{encode_png, write_images, write_named_images, write_png};

use crate::Result;

/// [`flow_core::files::atomic_write`] with this crate's error.
///
/// # Errors
/// A path without a file name, or a failure of the file system; nothing is left behind then.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(flow_core::files::atomic_write(path, bytes)?)
}
