//! WAV files.
//!
//! Read here rather than by the crate that writes them: that one takes a chunk of odd length without its pad byte and the
//! low bits of a padded sample, both silently wrong, and knows a declared length only as far as the bytes last.

use std::path::Path;

use super::clip::Decoded;
use crate::{Error, Result};

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;

/// The last 14 bytes of the identifiers whose first two are a format.
const GUID_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];

/// More channels than a recording has.
const MAX_CHANNELS: usize = 256;

/// Floats of which more than one in so many lie beyond full scale are no fractions of it.
const BEYOND: usize = 100;

/// What a number of a format means, for those that are not read.
fn codec(format: u16) -> String {
    let name = match format {
        0x0002 => "Microsoft ADPCM",
        0x0006 => "A-law",
        0x0007 => "mu-law",
        0x0011 => "IMA ADPCM",
        0x0031 => "GSM 6.10",
        0x0040 => "G.721 ADPCM",
        0x0050 => "MPEG audio",
        0x0055 => "MP3",
        0x0064 => "G.726 ADPCM",
        0x0161 | 0x0162 => "Windows Media Audio",
        _ => return format!("format {format:#06x}"),
    };
    name.into()
}

/// The chunk `fmt `.
struct Format {
    is_float: bool,
    channels: usize,
    rate: u32,
    /// Bytes of one sample of one channel.
    bytes: usize,
    /// Bits of it that count.
    bits: u32,
    note: Option<String>,
}

/// The samples of a whole file; `path` names it in messages.
///
/// # Errors
/// A codec that is not read, by its name; chunks that are missing, out of order or reach beyond the file; a length that
/// is no whole number of samples; no sample; or floats that are not finite or no fractions of full scale.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Decoded> {
    let chunks = Chunks::find(path, bytes)?;
    let format = format(path, chunks.format_at, chunks.format)?;
    let data = samples_of(path, &chunks, &format)?;
    let (interleaved, note) = if format.is_float {
        (floats(path, data, format.channels)?, None)
    } else {
        integers(path, chunks.data_at, data, &format)?
    };
    let notes = chunks.notes.into_iter().chain(format.note).chain(note).collect();
    // A float's mantissa has 24 bits, the hidden one among them: no more are kept.
    Ok(Decoded { rate: format.rate, channels: format.channels, bits: format.bits.min(24), interleaved, notes })
}

struct Chunks<'a> {
    format: &'a [u8],
    format_at: usize,
    /// What is there of the data.
    data: &'a [u8],
    data_at: usize,
    /// How much is declared.
    declared: usize,
    notes: Vec<String>,
}

impl<'a> Chunks<'a> {
    fn find(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let (mut at, mut format) = (12, None);
        loop {
            let Some([a, b, c, d, e, f, g, h]) = bytes.get(at..at + 8) else {
                let wanted = if format.is_some() { "data" } else { "fmt " };
                let found = format!("the end of the file, of {} bytes", bytes.len());
                return Err(Error::format(path, at, format!("the chunk '{wanted}'"), found));
            };
            let (kind, length) = ([*a, *b, *c, *d], u32::from_le_bytes([*e, *f, *g, *h]) as usize);
            let start = at + 8;
            let end = start.saturating_add(length);
            match &kind {
                b"fmt " => {
                    let Some(body) = bytes.get(start..end) else {
                        let found = format!("{} bytes to the end of the file", bytes.len() - start);
                        return Err(Error::format(path, start, format!("a chunk 'fmt ' of {length} bytes"), found));
                    };
                    format = Some((body, start));
                }
                b"data" => {
                    let Some((format, format_at)) = format else {
                        return Err(Error::format(path, at, "the chunk 'fmt ' before the data", "the chunk 'data'"));
                    };
                    let data = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
                    let rest = bytes.get(end..).unwrap_or_default();
                    let again = rest.windows(4).take(1 << 16).any(|window| window == b"data");
                    let notes = again.then(|| "only the first of several chunks 'data' is read".to_string());
                    let notes = notes.into_iter().collect();
                    return Ok(Chunks { format, format_at, data, data_at: start, declared: length, notes });
                }
                _ if kind.iter().any(|byte| !(b' '..=b'~').contains(byte)) => {
                    let found = format!("{kind:02x?}");
                    return Err(Error::format(path, at, "the name of a chunk, four printable characters", found));
                }
                _ => {}
            }
            // Chunks begin at even places.
            at = end.saturating_add(length % 2);
        }
    }
}

fn format(path: &Path, at: usize, chunk: &[u8]) -> Result<Format> {
    let word = |place: usize| match chunk.get(place..place + 2) {
        Some([a, b]) => Some(u16::from_le_bytes([*a, *b])),
        _ => None,
    };
    let long = |place: usize| Some(u32::from(word(place)?) | u32::from(word(place + 2)?) << 16);
    let basic = || Some((word(0)?, word(2)?, long(4)?, long(8)?, word(12)?, word(14)?));
    let Some((mut tag, channels, rate, byte_rate, align, mut bits)) = basic() else {
        return Err(Error::format(path, at, "16 bytes of format", format!("{} bytes", chunk.len())));
    };
    let container = bits;
    if tag == EXTENSIBLE {
        let (Some(valid), Some(format), Some(sub)) = (word(18), word(24), chunk.get(24..40)) else {
            return Err(Error::format(path, at, "40 bytes of extensible format", format!("{} bytes", chunk.len())));
        };
        if !sub.ends_with(&GUID_TAIL) {
            return Err(Error::format(path, at + 24, "a format of whole numbers or floats", format!("{sub:02x?}")));
        }
        tag = format;
        bits = if valid == 0 { bits } else { valid };
    }
    if !matches!(tag, PCM | FLOAT) {
        let remedy = "convert it to 16-bit PCM (ffmpeg -i in.wav -c:a pcm_s16le out.wav)".to_string();
        return Err(Error::WrongKind { path: path.into(), is: format!("a WAV file of {}", codec(tag)), remedy });
    }
    let channels = usize::from(channels);
    let refuse = |place: usize, expected: &str, found: String| Err(Error::format(path, at + place, expected, found));
    if !(1..=MAX_CHANNELS).contains(&channels) {
        return refuse(2, "1 to 256 channels", channels.to_string());
    }
    if rate == 0 || rate > 1_000_000 {
        return refuse(4, "1 to 1000000 samples a second", rate.to_string());
    }
    let bytes = usize::from(align) / channels;
    let is_whole = usize::from(align) == bytes * channels && usize::from(container).div_ceil(8) == bytes;
    if !is_whole {
        let found = format!("blocks of {align} bytes for {channels} channels of {container} bits");
        return refuse(12, "blocks that hold a sample of every channel", found);
    }
    match (tag, bytes, bits) {
        (FLOAT, 4, 32) => {}
        (FLOAT, ..) => {
            return refuse(14, "floats of 32 bits (ffmpeg -i in.wav -c:a pcm_f32le out.wav)", format!("{bits} bits"));
        }
        (_, 1..=4, 1..=32) if usize::from(bits) <= 8 * bytes => {}
        _ => return refuse(14, "whole numbers of 8, 16, 24 or 32 bits", format!("{bits} bits in {bytes} bytes")),
    }
    let wanted = u64::from(rate) * u64::from(align);
    let note = (u64::from(byte_rate) != wanted)
        .then(|| format!("the header says {byte_rate} bytes a second, its rate and size give {wanted}"));
    let is_float = tag == FLOAT;
    let bits = u32::from(bits);
    Ok(Format { is_float, channels, rate, bytes, bits, note })
}

/// The data, if all that is declared is there.
fn samples_of<'a>(path: &Path, chunks: &Chunks<'a>, format: &Format) -> Result<&'a [u8]> {
    let block = format.bytes * format.channels;
    let (declared, present) = (chunks.declared, chunks.data.len());
    if declared == 0 {
        return Err(Error::format(path, chunks.data_at - 4, "samples", "a length of 0, no sample"));
    }
    if present < declared {
        let expected = format!("{} samples of {} channels", declared / block, format.channels);
        let open = if declared >= u32::MAX as usize - 1024 {
            "; a program that wrote it to a pipe left the length open: write it to a file"
        } else {
            ""
        };
        let found = format!("{} samples, then the end of the file{open}", present / block);
        return Err(Error::format(path, chunks.data_at, expected, found));
    }
    if !declared.is_multiple_of(block) {
        let expected = format!("a whole number of blocks of {block} bytes");
        return Err(Error::format(path, chunks.data_at - 4, expected, format!("{declared} bytes")));
    }
    Ok(chunks.data)
}

fn floats(path: &Path, data: &[u8], channels: usize) -> Result<Vec<f32>> {
    let number = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    };
    let samples: Vec<f32> = data.chunks_exact(4).map(number).collect();
    if let Some((place, value)) = samples.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        let (sample, channel) = (place / channels, place % channels);
        let what = format!("sample {sample} of channel {channel} is {value}, which is no number that can be played");
        return Err(Error::Broken { path: path.into(), what });
    }
    let beyond = samples.iter().filter(|x| x.abs() > 1.0).count();
    if beyond > samples.len() / BEYOND {
        let peak = samples.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        let what = format!(
            "{beyond} of {} floats lie beyond ±1, up to {peak}: they are no fractions of full scale; divide them by what \
             full scale is",
            samples.len()
        );
        return Err(Error::Broken { path: path.into(), what });
    }
    Ok(samples)
}

/// Whole numbers as fractions of full scale.
///
/// A sample with fewer bits than its bytes hold stands at the upper end of them, as the format says. Some programs put it
/// at the lower end; the bits that should be zero tell the two apart.
fn integers(path: &Path, at: usize, data: &[u8], format: &Format) -> Result<(Vec<f32>, Option<String>)> {
    let Format { bytes, bits, .. } = *format;
    let number = |bytes: &[u8]| match *bytes {
        [a] => i32::from(a) - 128,
        [a, b] => i32::from(i16::from_le_bytes([a, b])),
        [a, b, c] => i32::from_le_bytes([0, a, b, c]) >> 8,
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let held = 8 * bytes as u32;
    let spare = held - bits;
    let numbers = || data.chunks_exact(bytes).map(number);
    let low_bits = (1i64 << spare) - 1;
    let at_upper_end = spare == 0 || numbers().all(|n| i64::from(n) & low_bits == 0);
    if !at_upper_end {
        let limit = 1i64 << (bits - 1);
        if let Some(place) = numbers().position(|n| !(-limit..limit).contains(&i64::from(n))) {
            let expected = format!("samples of {bits} bits in {bytes} bytes, at one end of them");
            return Err(Error::format(path, at + place * bytes, expected, "bits at both ends"));
        }
    }
    let scale = 2f64.powi(1 - if at_upper_end { held } else { bits } as i32);
    let samples = numbers().map(|n| (f64::from(n) * scale) as f32).collect();
    let note = match bits {
        _ if !at_upper_end => Some(format!("its {bits} bits stand at the lower end of {bytes} bytes")),
        25.. => Some(format!("samples of {bits} bits rounded to the 24 of a float")),
        _ => None,
    };
    Ok((samples, note))
}
