//! Clips: readers, splits, generators and windows of frames.
//!
//! [`open`] recognises the format of a path by itself:
//!
//! | what | how it is read |
//! |---|---|
//! | a folder of numbered pictures (KTH's `image-001.png`, BAIR's `0.png`) | one clip, in the order of the numbers |
//! | a folder of such folders, and of the files below | a clip for each, whatever the depth |
//! | GIF and animated PNG | frames as they are shown, at the rate of their delays |
//! | Y4M | 4:2:0, 4:2:2, 4:4:4 and grey, 8 bits |
//! | `.npy`, `.npz` | `[N, T, H, W]`, `[T, N, H, W]` (Moving-MNIST's own file), with colour, or one clip: see [`Layout`] |
//! | MP4, MKV, WebM, AVI, MOV … | whatever FFmpeg reads, with the feature `ffmpeg` |
//! | MNIST's idx files, or their folder | Moving MNIST made of these digits: see [`generate::MovingDigits`] |
//! | the names `digits` and `shapes` | made without any file: see [`generate`] |
//!
//! Every reader trusts nothing: a length is compared with the file before memory is taken for it, and a malformed file is
//! one line naming file and position. What is left out, dropped, rounded or guessed stands in [`Clips::notes`].

mod actions;
mod animation;
mod arrays;
mod clip;
mod clips;
#[cfg(feature = "ffmpeg")]
pub(crate) mod ffmpeg;
mod frames;
pub mod generate;
mod layout;
mod listing;
mod open;
mod options;
mod pictures;
mod source;
mod splits;
mod y4m;
mod yuv;

pub use clip::{Clip, FrameShape};
pub use clips::Clips;
pub use layout::Layout;
pub use open::{holds_arrays, is_generated, open, open_all};
pub use options::{Crop, OpenOptions};
pub use splits::Splits;

/// What pictures of a clip are and may be, as in `flow-image`.
pub use flow_image::data::{Channels, Range, Resize};
