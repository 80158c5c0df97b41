//! The size of waveforms as FLAC: what a lossless code without a model costs.

use flacenc::component::BitRepr;
use flacenc::config::Encoder;
use flacenc::error::Verify;
use flacenc::source::MemSource;

use crate::{Error, Result};

/// Bits per sample of `samples` as a FLAC stream of 16-bit integers, headers included; samples beyond full scale are
/// clipped, as in a WAV file of 16 bits.
///
/// A likelihood in bits per 16-bit sample ([`bits_per_sample`](super::bits_per_sample)) of the same samples is a code length on the same
/// scale, but given the spectrogram, which FLAC has to encode too.
///
/// # Errors
/// No sample, one that is not finite, a rate that the format does not know (1 to 655,350 Hz), or a failure of the encoder.
pub fn flac_bits_per_sample(samples: &[f32], rate: u32) -> Result<f64> {
    let refuse = |reason: String| Error::config("FLAC", reason);
    if samples.is_empty() || !(1..=655_350).contains(&rate) {
        return Err(refuse(format!("{} samples at {rate} Hz", samples.len())));
    }
    if let Some(place) = samples.iter().position(|x| !x.is_finite()) {
        return Err(refuse(format!("sample {place} is not finite")));
    }
    let integers: Vec<i32> = samples.iter().map(|x| (x * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i32).collect();
    let config = Encoder::default().into_verified().map_err(|(_, error)| refuse(error.to_string()))?;
    let source = MemSource::from_samples(&integers, 1, 16, rate as usize);
    let stream = flacenc::encode_with_fixed_block_size(&config, source, config.block_size)
        .map_err(|error| refuse(format!("{error:?}")))?;
    Ok(stream.count_bits() as f64 / samples.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_core::FlowRng;

    /// Uniform integers of 8 bits cannot be stored in fewer, and Rice codes, made for peaked numbers, take half a bit more; silence costs next to nothing, and a sine less than noise.
    #[test]
    fn sizes_are_those_of_the_format() -> Result<()> {
        let mut rng = FlowRng::seed_from(3);
        let noise: Vec<f32> = (0..20_000).map(|_| (rng.below(256) as f32 - 128.0) / 32_768.0).collect();
        let sine: Vec<f32> = (0..20_000).map(|i| (0.05 * i as f32).sin() * 0.5).collect();
        let bits = [&vec![0.0; 20_000], &sine, &noise].map(|samples| flac_bits_per_sample(samples, 8000));
        let [silence, sine, noise] = bits;
        let (silence, sine, noise) = (silence?, sine?, noise?);
        assert!(silence < 0.1, "{silence}");
        assert!((8.0..8.7).contains(&noise), "{noise}");
        assert!(silence < sine && sine < noise, "{silence} {sine} {noise}");
        Ok(())
    }

    #[test]
    fn what_is_no_sound_is_refused() {
        assert!(flac_bits_per_sample(&[], 8000).is_err());
        assert!(flac_bits_per_sample(&[0.0, f32::NAN], 8000).is_err());
        assert!(flac_bits_per_sample(&[0.0; 64], 0).is_err());
        assert!(flac_bits_per_sample(&[0.0; 64], 700_000).is_err());
    }
}
