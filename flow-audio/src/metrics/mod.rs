//! How near one waveform is to another, and what a likelihood means in bits.
//!
//! | number | unit | where |
//! |---|---|---|
//! | log-likelihood as bits per sample | bits | [`bits_per_sample`] |
//! | size as FLAC (feature `codecs`) | bits per sample | `flac_bits_per_sample` |
//! | multi-resolution STFT distance | none | [`multi_resolution_stft`] |
//! | mel-cepstral distortion | dB | [`mel_cepstral_distortion`] |
//! | log-spectral distance | dB | [`log_spectral_distance`] |
//! | PESQ as MOS-LQO | 1 to 4.6 | [`pesq()`] |
//! | signal-to-noise ratio | dB | [`signal_to_noise`] |
//!
//! None of them is an opinion of listeners; PESQ predicts one.

mod cepstrum;
#[cfg(feature = "codecs")]
mod flac;
mod likelihood;
mod pesq;
mod spectral;

pub use self::pesq::{PesqBand, pesq};
pub use cepstrum::{mel_cepstral_distortion, mel_cepstrum};
#[cfg(feature = "codecs")]
pub use flac::flac_bits_per_sample;
pub use likelihood::{bits_per_sample, nats_per_sample, signal_to_noise};
pub use spectral::{RESOLUTIONS, StftDistance, log_spectral_distance, multi_resolution_stft};

use crate::{Error, Result};

/// Refuses waveforms of different lengths, or of none.
fn same_length(a: &[f32], b: &[f32]) -> Result<()> {
    if a.is_empty() || a.len() != b.len() {
        let reason = format!("need two waveforms of one length, got {} and {} samples", a.len(), b.len());
        return Err(Error::config("comparison", reason));
    }
    Ok(())
}
