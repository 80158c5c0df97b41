//! What is written: WAV files, and pictures of waveforms, spectrograms and curves.

mod colour;
mod picture;
mod wav;

pub use colour::heat;
pub use picture::{Picture, curve_picture, mel_picture, waveform_picture};
pub use wav::{Encoding, Written, write_wav};
