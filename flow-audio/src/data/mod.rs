//! Sound: readers, splits, a built-in source, and segments of waveforms with their mel spectrograms.
//!
//! [`open`] recognises what a path is by its content:
//!
//! | what | how it is read |
//! |---|---|
//! | WAV | 8, 16, 24 and 32 bits, whole numbers or 32-bit floats, any number of channels |
//! | FLAC, Ogg Vorbis, MP3 | with the feature `codecs` |
//! | a folder | every sound file in it, however deep, in the order of the names |
//! | a folder with `metadata.csv` | LJSpeech's layout: what it lists, in `wavs/` or beside it, with transcripts |
//! | a folder with `train`, and `validation` or `test` | these parts |
//! | the name `voices` | synthesised voices, no file needed: see [`Voices`] |
//!
//! Every reader trusts nothing: a length is compared with the file before memory is taken for it, and a malformed file is
//! one line naming file and position. What is left out, mixed down, clipped or resampled stands in [`Clips::notes`].

mod clip;
mod clips;
#[cfg(feature = "codecs")]
mod codecs;
mod corpus;
pub(crate) mod kind;
mod listing;
mod open;
mod options;
mod resample;
mod segments;
mod source;
mod splits;
mod voices;
mod wav;

pub use clip::{Clip, SILENCE_PEAK};
pub use clips::Clips;
pub use open::{is_generated, open, open_all};
pub use options::OpenOptions;
pub use resample::resample;
pub use segments::{Batch, Segments, dequantize};
pub use splits::Splits;
pub use voices::{Sound, SoundKind, Voice, Voices};
