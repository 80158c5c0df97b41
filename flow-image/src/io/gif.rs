//! Animations.

use std::path::Path;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, DynamicImage, Frame, RgbImage};

use super::atomic_write;
use crate::{Error, Result};

/// Frames of one size as an endlessly repeating GIF, `delay_ms` milliseconds each (GIF counts in tens).
///
/// # Errors
/// No frame, frames of different sizes, or a failure of the file system.
pub fn write_gif(path: &Path, frames: &[RgbImage], delay_ms: u32) -> Result<()> {
    write(path, frames, |_| delay_ms)
}

/// The most frames a second that every program shows as they are meant: a GIF counts in hundredths of a second, and
/// browsers take a single one for ten.
pub const MAX_GIF_FPS: f64 = 50.0;

/// Frames of one size as an endlessly repeating GIF of so many frames a second; delays of whole hundredths alternate so
/// that the rate is right on average.
///
/// # Errors
/// Those of [`write_gif`], or a rate that is not above 0 and at most [`MAX_GIF_FPS`].
pub fn write_gif_at(path: &Path, frames: &[RgbImage], fps: f64) -> Result<()> {
    if !(fps > 0.001 && fps <= MAX_GIF_FPS) {
        let reason = format!("a GIF has at most {MAX_GIF_FPS} frames a second, got {fps}; an APNG may have more");
        return Err(Error::config("fps", reason));
    }
    let hundredths = |frame: usize| (frame as f64 * 100.0 / fps).round();
    write(path, frames, |frame| 10 * (hundredths(frame + 1) - hundredths(frame)) as u32)
}

fn write(path: &Path, frames: &[RgbImage], delay_ms: impl Fn(usize) -> u32) -> Result<()> {
    let Some(first) = frames.first() else {
        return Err(Error::config("animation", "there is no frame to write"));
    };
    if let Some(other) = frames.iter().find(|f| f.dimensions() != first.dimensions()) {
        let reason = format!("frames of {:?} and {:?} pixels", first.dimensions(), other.dimensions());
        return Err(Error::config("animation", reason));
    }
    let mut bytes = Vec::new();
    encode(&mut bytes, frames, delay_ms).map_err(Error::picture(path))?;
    atomic_write(path, &bytes)
}

fn encode(bytes: &mut Vec<u8>, frames: &[RgbImage], delay_ms: impl Fn(usize) -> u32) -> image::ImageResult<()> {
    let mut encoder = GifEncoder::new_with_speed(bytes, 10);
    encoder.set_repeat(Repeat::Infinite)?;
    for (index, frame) in frames.iter().enumerate() {
        let rgba = DynamicImage::ImageRgb8(frame.clone()).into_rgba8();
        encoder.encode_frame(Frame::from_parts(rgba, 0, 0, Delay::from_numer_denom_ms(delay_ms(index), 1)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::gif::GifDecoder;
    use image::{AnimationDecoder, Rgb};

    #[test]
    fn frames_come_back_with_colour_and_delay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gif");
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
        let frames = colours.map(|colour| RgbImage::from_pixel(4, 3, Rgb(colour)));
        write_gif(&path, &frames, 120).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let decoded = GifDecoder::new(std::io::Cursor::new(bytes)).unwrap().into_frames().collect_frames().unwrap();
        assert_eq!(decoded.len(), 3);
        for (frame, colour) in decoded.iter().zip(colours) {
            assert_eq!(frame.delay().numer_denom_ms(), (120, 1));
            assert_eq!(frame.buffer().dimensions(), (4, 3));
            assert!(frame.buffer().pixels().all(|p| p.0[..3] == colour));
        }
    }

    #[test]
    fn no_frame_and_unequal_frames_are_errors() {
        let path = Path::new("never-written.gif");
        assert!(write_gif(path, &[], 100).is_err());
        assert!(write_gif(path, &[RgbImage::new(1, 1), RgbImage::new(2, 1)], 100).is_err());
        assert!(!path.exists());
    }
}
