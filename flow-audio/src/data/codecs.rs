//! FLAC, Ogg Vorbis and MP3.

use std::io::{Cursor, ErrorKind};
use std::path::Path;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as CodecError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;

use super::clip::Decoded;
use super::kind::Kind;
use crate::{Error, Result};

/// Four gibibytes of floats: compressed silence may claim any length.
const MAX_VALUES: usize = 1 << 30;

/// The samples of a whole file; `path` names it in messages.
///
/// # Errors
/// Whatever the decoder refuses, samples that are fewer than declared, a checksum that does not fit, or a stream that
/// changes its rate or channels.
pub(super) fn read(path: &Path, bytes: &[u8], kind: Kind) -> Result<Decoded> {
    let broken = |what: String| Error::Broken { path: path.into(), what };
    let failed = |error: CodecError| broken(format!("{} decoder: {error}", kind.name()));
    let mut hint = Hint::new();
    hint.with_extension(match kind {
        Kind::Flac => "flac",
        Kind::OggVorbis => "ogg",
        Kind::Mp3 => "mp3",
        Kind::Wav => "wav",
    });
    let stream = MediaSourceStream::new(Box::new(Cursor::new(bytes)), Default::default());
    let probe = symphonia::default::get_probe();
    let mut format = probe.probe(&hint, stream, Default::default(), Default::default()).map_err(failed)?;
    let missing = || broken("it has no track of sound".into());
    let track = format.default_track(TrackType::Audio).ok_or_else(missing)?;
    let (track_id, frames) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|p| p.audio()).ok_or_else(missing)?;
    let bits = parameters.bits_per_sample.filter(|_| kind == Kind::Flac).unwrap_or(16).clamp(1, 24);
    let mut options = AudioDecoderOptions::default();
    options.verify = true;
    let mut decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(failed)?;
    let Samples { rate, channels, interleaved } = samples(&mut *format, &mut *decoder, track_id, &broken, &failed)?;
    let present = interleaved.len() / channels.max(1);
    if present == 0 || rate == 0 {
        return Err(broken("it holds no sample".into()));
    }
    let declared = frames.unwrap_or(0);
    if declared > present as u64 {
        return Err(broken(format!("it declares {declared} samples and holds {present}")));
    }
    if decoder.finalize().verify_ok == Some(false) {
        return Err(broken("the samples do not have the checksum that the file declares".into()));
    }
    let mut notes = Vec::new();
    if kind == Kind::OggVorbis && !ends(bytes) {
        notes.push("no page ends the stream: it may have been cut off".to_string());
    }
    Ok(Decoded { rate, channels, bits, interleaved, notes })
}

struct Samples {
    rate: u32,
    channels: usize,
    interleaved: Vec<f32>,
}

fn samples(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track: u32,
    broken: &dyn Fn(String) -> Error,
    failed: &dyn Fn(CodecError) -> Error,
) -> Result<Samples> {
    let mut all = Samples { rate: 0, channels: 0, interleaved: Vec::new() };
    let mut packet_samples: Vec<f32> = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(all),
            // The end of the file in the middle of a packet is told by the number of samples, where one is declared.
            Err(CodecError::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => return Ok(all),
            Err(CodecError::ResetRequired) => {
                return Err(broken("several streams follow each other; split them".into()));
            }
            Err(error) => return Err(failed(error)),
        };
        if packet.track_id != track {
            continue;
        }
        let buffer = decoder.decode(&packet).map_err(failed)?;
        let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().count());
        if all.rate == 0 {
            (all.rate, all.channels) = (rate, channels);
        }
        if (all.rate, all.channels) != (rate, channels) {
            let what =
                format!("it changes from {} Hz and {} channels to {rate} Hz and {channels}", all.rate, all.channels);
            return Err(broken(what));
        }
        buffer.copy_to_vec_interleaved(&mut packet_samples);
        if all.interleaved.len() + packet_samples.len() > MAX_VALUES {
            return Err(broken(format!("it is longer than {} samples; split it", MAX_VALUES / channels.max(1))));
        }
        if let Some(place) = packet_samples.iter().position(|x| !x.is_finite()) {
            let sample = (all.interleaved.len() + place) / channels.max(1);
            return Err(broken(format!("sample {sample} is not finite")));
        }
        all.interleaved.append(&mut packet_samples);
    }
}

/// Whether the last page of an Ogg file says that it ends the stream.
fn ends(bytes: &[u8]) -> bool {
    let last = bytes.windows(4).rposition(|window| window == b"OggS");
    last.and_then(|at| bytes.get(at + 5)).is_some_and(|flags| flags & 4 != 0)
}
