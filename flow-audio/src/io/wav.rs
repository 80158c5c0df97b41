//! WAV files.

use std::io::Cursor;
use std::path::Path;

use hound::{SampleFormat, WavSpec, WavWriter};

use crate::{Error, Result};

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// Integers of 16 bits, rounded to the nearest: what every program plays.
    #[default]
    Pcm16,
    /// Floats of 32 bits, as they are.
    Float32,
}

/// What there is to tell about a file that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Samples.
    pub samples: usize,
    /// Samples beyond ±1, which were clipped.
    pub clipped: usize,
}

impl Written {
    /// A sentence about what was clipped, if anything was.
    pub fn note(&self) -> Option<String> {
        (self.clipped > 0)
            .then(|| format!("{} of {} samples lay beyond full scale and were clipped", self.clipped, self.samples))
    }
}

/// Writes one channel, samples as fractions of full scale; under its name the file is complete or not there at all.
///
/// Samples beyond ±1 are clipped and counted. The highest integer of 16 bits is one step below full scale, to which a
/// sample of 1 is rounded.
///
/// # Errors
/// No sample, a rate of zero, a sample that is not finite (named by its number), more than a WAV file can hold, or a
/// failure of the file system.
pub fn write_wav(path: &Path, samples: &[f32], rate: u32, encoding: Encoding) -> Result<Written> {
    let refuse = |reason: String| Error::config(path.display().to_string(), reason);
    if samples.is_empty() || rate == 0 {
        return Err(refuse(format!("a WAV file has samples and a rate; got {} at {rate} Hz", samples.len())));
    }
    if let Some(place) = samples.iter().position(|x| !x.is_finite()) {
        return Err(refuse(format!("sample {place} is not finite")));
    }
    let (bits_per_sample, sample_format) = match encoding {
        Encoding::Pcm16 => (16, SampleFormat::Int),
        Encoding::Float32 => (32, SampleFormat::Float),
    };
    let bytes_of = usize::from(bits_per_sample / 8);
    if samples.len() > (u32::MAX as usize - 1024) / bytes_of {
        return Err(refuse(format!("{} samples are more than a WAV file of 4 GiB holds", samples.len())));
    }
    let mut bytes = Cursor::new(Vec::with_capacity(samples.len() * bytes_of + 128));
    let spec = WavSpec { channels: 1, sample_rate: rate, bits_per_sample, sample_format };
    encode(&mut bytes, spec, samples).map_err(|error| refuse(error.to_string()))?;
    flow_core::files::atomic_write(path, &bytes.into_inner())?;
    let clipped = samples.iter().filter(|x| x.abs() > 1.0).count();
    Ok(Written { samples: samples.len(), clipped })
}

fn encode(bytes: &mut Cursor<Vec<u8>>, spec: WavSpec, samples: &[f32]) -> hound::Result<()> {
    let mut writer = WavWriter::new(bytes, spec)?;
    for &x in samples {
        match spec.sample_format {
            SampleFormat::Int => writer.write_sample((x * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16)?,
            SampleFormat::Float => writer.write_sample(x.clamp(-1.0, 1.0))?,
        }
    }
    writer.finalize()
}
