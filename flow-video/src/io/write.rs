//! One door for every file of a clip, and the formats that need little code.

use std::path::Path;

use flow_image::data::npy;
use flow_image::io::{MAX_GIF_FPS, Pixels, atomic_write, write_gif_at};
use image::RgbImage;

use super::{write_frames, write_y4m};
use crate::{Error, Result};

/// What [`write_clip`] takes, for messages.
const ENDINGS: &str =
    ".gif, .png or .apng (animated PNG), .y4m, .npy, .mp4, .webm, .mkv, or no ending for a folder of PNG";

/// Endings that need FFmpeg.
const VIDEOS: [&str; 3] = ["mp4", "webm", "mkv"];

/// The most that a side of an animated PNG or a video has.
const MAX_SIDE: usize = 1 << 15;

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether [`write_clip`] writes a file of this name at this rate: to be asked before the work.
///
/// # Errors
/// Another ending, with the list of those that there are; one that needs the feature `ffmpeg` where that is off; a rate
/// that the format cannot have.
pub fn check_name(path: &Path, fps: f64) -> Result<()> {
    check_fps(fps)?;
    let ending = ending(path);
    match ending.as_str() {
        "" | "png" | "apng" | "y4m" | "npy" => Ok(()),
        "gif" if fps > MAX_GIF_FPS => {
            let reason = format!("a GIF has at most {MAX_GIF_FPS} frames a second, got {fps}; take .apng");
            Err(Error::config(path.display().to_string(), reason))
        }
        "gif" => Ok(()),
        video if VIDEOS.contains(&video) && cfg!(feature = "ffmpeg") => Ok(()),
        video if VIDEOS.contains(&video) => Err(Error::FeatureDisabled { path: path.into(), doing: "writing" }),
        other => Err(Error::config(path.display().to_string(), format!("cannot write .{other}; take {ENDINGS}"))),
    }
}

/// Writes a clip in the format that the ending of its name says, `fps` frames a second; [`super`] lists them.
///
/// # Errors
/// Those of [`check_name`] and of the format's writer; nothing half-written is left.
pub fn write_clip(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    check_name(path, fps)?;
    match ending(path).as_str() {
        "" => write_frames(path, frames),
        "gif" => write_gif(path, frames, fps),
        "y4m" => write_y4m(path, frames, fps),
        "npy" => write_npy(path, std::slice::from_ref(frames)),
        "png" | "apng" => write_apng(path, frames, fps),
        _ => video(path, frames, fps),
    }
}

#[cfg(feature = "ffmpeg")]
fn video(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    super::ffmpeg::write(path, frames, fps)
}

#[cfg(not(feature = "ffmpeg"))]
fn video(path: &Path, _frames: &Pixels, _fps: f64) -> Result<()> {
    Err(Error::FeatureDisabled { path: path.into(), doing: "writing" })
}

/// An endlessly repeating GIF. Its delays are hundredths of a second, of which neighbouring ones alternate so that the rate
/// is right on average; frames of more than 256 colours lose some.
///
/// # Errors
/// A rate above 50 or not above 0, or a failure of the file system.
pub fn write_gif(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    check_fps(fps)?;
    let [_, height, width] = frames.shape();
    let side = |side: usize| u32::try_from(side).ok().filter(|&side| side <= u32::from(u16::MAX));
    let (Some(width), Some(height)) = (side(width), side(height)) else {
        return Err(Error::config(path.display().to_string(), "a GIF has sides of at most 65535 pixels"));
    };
    let picture =
        |frame: &[u8]| RgbImage::from_fn(width, height, |x, y| image::Rgb(frames.rgb(frame, y as usize, x as usize)));
    let pictures: Vec<RgbImage> = frames.images().map(picture).collect();
    Ok(write_gif_at(path, &pictures, fps)?)
}

/// An endlessly repeating animated PNG: every value exactly, grey frames as grey.
///
/// # Errors
/// A rate outside 0.001 to 1000, sides above 32768, or a failure of the file system.
pub fn write_apng(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    check_fps(fps)?;
    let [_, height, width] = frames.shape();
    if height > MAX_SIDE || width > MAX_SIDE {
        let reason = format!("frames of {height}x{width}, expected sides of at most {MAX_SIDE}");
        return Err(Error::config(path.display().to_string(), reason));
    }
    let bytes =
        encode_apng(frames, fps).map_err(|error| Error::Encode { path: path.into(), what: error.to_string() })?;
    Ok(atomic_write(path, &bytes)?)
}

fn encode_apng(frames: &Pixels, fps: f64) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let [channels, height, width] = frames.shape();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(frames.count() as u32, 0)?;
    let (seconds, per) = delay(fps);
    encoder.set_frame_delay(seconds, per)?;
    let mut writer = encoder.write_header()?;
    for frame in frames.images() {
        if channels == 1 {
            writer.write_image_data(frame)?;
        } else {
            writer.write_image_data(&interleaved(frame))?;
        }
    }
    writer.finish()?;
    Ok(bytes)
}

/// `[3, H, W]` as `[H, W, 3]`.
pub(super) fn interleaved(frame: &[u8]) -> Vec<u8> {
    let plane = frame.len() / 3;
    (0..plane).flat_map(|at| [frame[at], frame[plane + at], frame[2 * plane + at]]).collect()
}

/// Clips of equal length and shape as bytes `[N, T, C, H, W]`; `open` reads them again with the layout `ntchw`.
///
/// # Errors
/// No clip, clips that differ in length or shape, or a failure of the file system.
pub fn write_npy(path: &Path, clips: &[Pixels]) -> Result<()> {
    let Some(first) = clips.first() else {
        return Err(Error::config(path.display().to_string(), "there is no clip to write"));
    };
    let shape = |clip: &Pixels| (clip.count(), clip.shape());
    if let Some(other) = clips.iter().find(|clip| shape(clip) != shape(first)) {
        let reason = format!("clips of {:?} and {:?} frames make no array", shape(first), shape(other));
        return Err(Error::config(path.display().to_string(), reason));
    }
    let [c, h, w] = first.shape();
    let axes = [clips.len(), first.count(), c, h, w].map(|n| n as u64);
    let values: Vec<u8> = clips.iter().flat_map(Pixels::bytes).copied().collect();
    let bytes = npy::encode(&axes, &values).map_err(Error::io(path))?;
    Ok(atomic_write(path, &bytes)?)
}

pub(super) fn check_fps(fps: f64) -> Result<()> {
    if (0.001..=1000.0).contains(&fps) {
        return Ok(());
    }
    Err(Error::config("fps", format!("must be 0.001 to 1000 frames a second, got {fps}")))
}

/// A rate as a fraction: whole numbers, the 24000/1001 of television, or thousandths.
pub(super) fn fraction(fps: f64) -> (u32, u32) {
    let television = (fps * 1.001).round();
    if (fps - fps.round()).abs() < 1e-9 && fps >= 1.0 {
        (fps.round() as u32, 1)
    } else if (fps * 1.001 - television).abs() < 1e-3 && television >= 1.0 {
        (television as u32 * 1000, 1001)
    } else {
        let (mut numerator, mut denominator) = ((fps * 1000.0).round().max(1.0) as u32, 1000);
        let mut divisor = (numerator, denominator);
        while divisor.1 > 0 {
            divisor = (divisor.1, divisor.0 % divisor.1);
        }
        numerator /= divisor.0;
        denominator /= divisor.0;
        (numerator, denominator)
    }
}

/// Seconds of a frame as a fraction of two small numbers.
fn delay(fps: f64) -> (u16, u16) {
    let (numerator, denominator) = fraction(fps);
    match (u16::try_from(denominator), u16::try_from(numerator)) {
        (Ok(seconds), Ok(per)) => (seconds, per),
        _ => ((1000.0 / fps).round().clamp(1.0, 65_535.0) as u16, 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_fractions() {
        assert_eq!([fraction(25.0), fraction(12.5), fraction(0.5)], [(25, 1), (25, 2), (1, 2)]);
        assert_eq!([fraction(30000.0 / 1001.0), fraction(23.976)], [(30000, 1001), (24000, 1001)]);
        assert_eq!([delay(10.0), delay(30000.0 / 1001.0)], [(1, 10), (1001, 30000)]);
        assert_eq!(delay(999.999), (1, 1000));
    }

    #[test]
    fn names_are_checked_before_the_work() {
        for good in ["a.gif", "a.png", "A.APNG", "a.y4m", "a.npy", "folder"] {
            check_name(Path::new(good), 25.0).unwrap();
        }
        let error = |name: &str, fps: f64| check_name(Path::new(name), fps).unwrap_err().to_string();
        assert!(error("a.jpg", 25.0).contains("a.jpg") && error("a.jpg", 25.0).contains(".y4m"));
        assert!(error("a.gif", 60.0).contains("at most 50"));
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(error("a.gif", fps).contains("fps"));
        }
        if cfg!(not(feature = "ffmpeg")) {
            let error = error("a.mp4", 25.0);
            assert!(error.contains("--features ffmpeg") && error.contains("libavcodec-dev") && error.contains("brew"));
        }
    }
}
