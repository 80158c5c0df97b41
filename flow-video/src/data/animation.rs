//! GIF and animated PNG.

use std::io::Cursor;
use std::path::Path;

use flow_image::data::read_file;
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, Limits};

use super::frames::Frames;
use super::{Clip, OpenOptions};
use crate::{Error, Result};

/// The first bytes of a GIF.
pub(super) const GIF: &[u8] = b"GIF8";
/// The first bytes of a PNG.
pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// No frame has more pixels than this: 8192 by 8192.
const MAX_PIXELS: u64 = 1 << 26;

/// Pixels that an animation of `bytes` bytes may have in all its frames: far more than the compression of GIF and PNG can
/// make of them, and sixteen million besides for frames that change little. A damaged size asks for gigabytes.
fn most_pixels(bytes: usize) -> u64 {
    (1 << 24) + 4096 * bytes as u64
}

/// Programs that show a GIF take shorter delays than `SHORTEST` milliseconds for `INSTEAD`.
const SHORTEST: f64 = 20.0;
const INSTEAD: f64 = 100.0;

/// Whether the first bytes of a PNG announce an animation: its control chunk stands before the data.
pub(super) fn is_animated_png(start: &[u8]) -> bool {
    if !start.starts_with(PNG) {
        return false;
    }
    let mut rest = start.get(PNG.len()..).unwrap_or_default();
    while let Some((length, chunk)) = rest.split_first_chunk::<4>() {
        match chunk.get(..4) {
            Some(b"acTL") => return true,
            Some(b"IDAT") | None => return false,
            Some(_) => {}
        }
        let next = (u32::from_be_bytes(*length) as usize).saturating_add(8);
        rest = chunk.get(next..).unwrap_or_default();
    }
    false
}

/// All frames of a GIF or an animated PNG, as they are shown.
///
/// # Errors
/// Names the file: no such file, a broken or truncated one, a still picture, frames of more than `MAX_PIXELS`, or more
/// pixels than a file of its size can hold.
pub(super) fn read(path: &Path, name: &str, options: &OpenOptions) -> Result<(Clip, Vec<String>)> {
    let bytes = read_file(path)?;
    let broken = |error: ImageError| broken(path, &error);
    let limits = || {
        let mut limits = Limits::default();
        limits.max_image_width = Some(1 << 15);
        limits.max_image_height = Some(1 << 15);
        limits
    };
    if bytes.starts_with(GIF) {
        let mut decoder = GifDecoder::new(Cursor::new(&bytes)).map_err(broken)?;
        check_size(path, decoder.dimensions(), bytes.len())?;
        decoder.set_limits(limits()).map_err(broken)?;
        return collect(path, name, decoder.into_frames(), options, &bytes);
    }
    let mut decoder = PngDecoder::with_limits(Cursor::new(&bytes), limits()).map_err(broken)?;
    check_size(path, decoder.dimensions(), bytes.len())?;
    decoder.set_limits(limits()).map_err(broken)?;
    if !decoder.is_apng().map_err(broken)? {
        let (is, remedy) = ("a still picture", "a clip of pictures is a folder of them, numbered: name the folder");
        return Err(Error::WrongKind { path: path.into(), is: is.into(), remedy: remedy.into() });
    }
    collect(path, name, decoder.apng().map_err(broken)?.into_frames(), options, &bytes)
}

/// A codec's words in one line, with the file.
fn broken(path: &Path, error: &ImageError) -> Error {
    let words = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    Error::Broken { path: path.into(), what: words }
}

fn check_size(path: &Path, (width, height): (u32, u32), bytes: usize) -> Result<()> {
    let (pixels, most) = (u64::from(width) * u64::from(height), MAX_PIXELS.min(most_pixels(bytes)));
    if (1..=most).contains(&pixels) {
        return Ok(());
    }
    let expected = format!("frames of 1 to {most} pixels in a file of {bytes} bytes");
    Err(Error::format(path, 6, expected, format!("{width}x{height}")))
}

fn collect(
    path: &Path,
    name: &str,
    frames: image::Frames<'_>,
    options: &OpenOptions,
    bytes: &[u8],
) -> Result<(Clip, Vec<String>)> {
    let mut clip = Frames::new(path, options);
    let (mut time, mut hurried, mut pixels) = (0.0, 0, 0);
    let (is_gif, most) = (bytes.starts_with(GIF), most_pixels(bytes.len()));
    for frame in frames {
        let frame = frame.map_err(|error| {
            let words = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            Error::Broken { path: path.into(), what: format!("frame {}: {words}", clip.pushed() + 1) }
        })?;
        pixels += frame.buffer().pixels().len() as u64;
        if pixels > most {
            let size = bytes.len();
            let what =
                format!("its first {} frames have more than the {most} pixels of {size} bytes", clip.pushed() + 1);
            return Err(Error::Broken { path: path.into(), what });
        }
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        let mut delay = f64::from(numerator) / f64::from(denominator.max(1));
        if delay < SHORTEST && (is_gif || delay <= 0.0) {
            delay = INSTEAD;
            hurried += 1;
        }
        clip.push_at(&DynamicImage::ImageRgba8(frame.into_buffer()), time)?;
        time += delay / 1000.0;
    }
    let all = clip.pushed();
    let (clip, mut notes) = clip.finish_at(name, time)?;
    if hurried > 0 {
        let at = path.display();
        let words = "frames have a delay below 20 ms, which counts as 100 ms, as in browsers";
        notes.push(format!("{at}: {hurried} of {all} {words}"));
    }
    Ok((clip, notes))
}
