//! Log-mel spectrograms, the short-time Fourier transform under them, and the ways back.
//!
//! A mel spectrogram is what a vocoder is told about the sound that it makes. Three families of vocoders compute it
//! differently, and a model that is given another family's makes noise: a [`Mel`] therefore carries its [`MelConfig`] with
//! its [`Convention`], into files as well, and whoever takes one refuses another by the name of what differs.
//!
//! | what | where |
//! |---|---|
//! | rate, sizes, band limits, convention | [`MelConfig`] |
//! | the spectrogram of a clip | [`MelConfig::spectrogram`], [`MelConfig::aligned`] |
//! | files | [`Mel::save`], [`Mel::load`], [`Mel::load_as`] |
//! | the transform and its inverse | [`Stft`] |
//! | a waveform without a model | [`griffin_lim`] |
//! | the constant hum of a vocoder taken out | [`Denoiser`] |

mod basis;
mod config;
mod denoise;
mod files;
mod griffin_lim;
mod npy;
mod spectrogram;
mod stft;

pub use basis::{MelBasis, hz_to_mel, mel_to_hz};
pub use config::{Convention, MelConfig};
pub use denoise::Denoiser;
pub use griffin_lim::{griffin_lim, linear_magnitudes};
pub use spectrogram::{Aligned, LOG_FLOOR, Mel};
pub use stft::{Complex, Spectrum, Stft};
