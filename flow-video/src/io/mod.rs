//! Clips out: pictures, animations, raw frames, arrays and sheets.
//!
//! | ending | what | exact |
//! |---|---|---|
//! | none, or `/` | a folder of numbered PNG pictures | yes |
//! | `.gif` | 256 colours a frame; at most 50 frames a second | up to 256 colours |
//! | `.png`, `.apng` | animated PNG | yes |
//! | `.y4m` | grey, or 4:4:4 in full range | grey; colours to within two levels |
//! | `.npy` | bytes `[1, T, C, H, W]`, see [`write_npy`] | yes |
//! | `.mp4`, `.webm`, `.mkv` | H.264, VP9, FFV1; with the feature `ffmpeg` | `.mkv` |
//!
//! Everything but the last line is pure Rust and always there. Whatever is written appears under its name complete or not
//! at all. Small frames are for programs; for eyes, enlarge them first with [`Pixels::enlarged`].

#[cfg(feature = "ffmpeg")]
mod ffmpeg;
mod folder;
mod raw;
mod sheet;
mod write;

pub use flow_image::io::{GridStyle, Pixels, grid, write_grid};
pub use folder::write_frames;
pub use raw::write_y4m;
pub use sheet::{Sheet, side_by_side};
pub use write::{check_name, write_apng, write_clip, write_gif, write_npy};
