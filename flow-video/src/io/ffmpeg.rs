//! Videos through FFmpeg (feature `ffmpeg`).
//!
//! | ending | codec | what is kept |
//! |---|---|---|
//! | `.mp4` | H.264, 4:4:4, nearly lossless (constant rate factor 4) | to within a few levels |
//! | `.webm` | VP9, 4:4:4, quality 10 | what the eye sees |
//! | `.mkv` | FFV1 | every value |
//!
//! 4:4:4 takes frames of any size: none is padded. A stream states its average rate and every packet its duration, without
//! which players and `ffprobe` drop the last frame of an MP4.

use std::path::{Path, PathBuf};

use flow_image::io::Pixels;
use video_rs::ffmpeg::format::{self, Pixel};
use video_rs::ffmpeg::software::scaling;
use video_rs::ffmpeg::util::color;
use video_rs::ffmpeg::{self, Dictionary, Packet, Rational, codec, encoder, frame};

use super::write::{fraction, interleaved};
use crate::data::ffmpeg::{file_name, start};
use crate::{Error, Result};

/// The most that a side of a frame has.
const MAX_SIDE: usize = 8192;

/// How a format is encoded.
struct Recipe {
    /// FFmpeg's name of the encoder.
    encoder: &'static str,
    /// Pixels of grey and of coloured frames.
    pixels: [Pixel; 2],
    options: &'static [(&'static str, &'static str)],
}

fn recipe(ending: &str) -> Recipe {
    match ending {
        "webm" => Recipe {
            encoder: "libvpx-vp9",
            pixels: [Pixel::YUV444P; 2],
            options: &[("crf", "10"), ("b", "0"), ("deadline", "good"), ("cpu-used", "4")],
        },
        "mkv" => Recipe { encoder: "ffv1", pixels: [Pixel::GRAY8, Pixel::BGRZ], options: &[("level", "3")] },
        _ => Recipe {
            encoder: "libx264",
            pixels: [Pixel::YUV444P; 2],
            options: &[("crf", "4"), ("preset", "medium"), ("movflags", "+faststart")],
        },
    }
}

/// Writes a clip into the container that the ending says.
///
/// # Errors
/// Sides above 8192, an encoder that this FFmpeg lacks, or a failure of it or of the file system; no file is left then.
pub(super) fn write(path: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    let [_, height, width] = frames.shape();
    if height > MAX_SIDE || width > MAX_SIDE {
        let reason = format!("frames of {height}x{width}, expected sides of at most {MAX_SIDE}");
        return Err(Error::config(path.display().to_string(), reason));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    let aside = aside(path)?;
    let outcome =
        encode(path, &aside, frames, fps).and_then(|()| std::fs::rename(&aside, path).map_err(Error::io(path)));
    if outcome.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&aside);
    }
    outcome
}

/// A name in the same folder with the same ending, by which FFmpeg knows the container.
fn aside(path: &Path) -> Result<PathBuf> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(path.with_file_name(format!(".{}.{name}", std::process::id()))),
        None => Err(Error::config(path.display().to_string(), "is not the name of a file in UTF-8")),
    }
}

/// `path` is named in errors, `file` is written.
fn encode(path: &Path, file: &Path, frames: &Pixels, fps: f64) -> Result<()> {
    let name = file_name(file)?;
    let failed = |what: &'static str| {
        move |error: ffmpeg::Error| Error::Encode { path: path.into(), what: format!("FFmpeg cannot {what}: {error}") }
    };
    start().map_err(failed("start"))?;
    let recipe = recipe(&path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default());
    let Some(found) = encoder::find_by_name(recipe.encoder) else {
        let what = format!("this FFmpeg has no encoder {}; take .mkv, .gif, .apng or .y4m", recipe.encoder);
        return Err(Error::Encode { path: path.into(), what });
    };
    let [channels, height, width] = frames.shape();
    let (numerator, denominator) = fraction(fps);
    let rate = Rational(numerator as i32, denominator as i32);
    let pixels = recipe.pixels[usize::from(channels == 3)];
    let mut output = format::output(&name).map_err(failed("create the file"))?;
    let global_header = output.format().flags().contains(format::Flags::GLOBAL_HEADER);
    let context = codec::context::Context::new_with_codec(found);
    let mut video = context.encoder().video().map_err(failed("make an encoder"))?;
    video.set_width(width as u32);
    video.set_height(height as u32);
    video.set_format(pixels);
    video.set_time_base(rate.invert());
    video.set_frame_rate(Some(rate));
    if pixels == Pixel::YUV444P {
        // What the conversion below makes.
        video.set_colorspace(color::Space::SMPTE170M);
        video.set_color_range(color::Range::MPEG);
    }
    if global_header {
        video.set_flags(codec::Flags::GLOBAL_HEADER);
    }
    let options: Dictionary<'_> = recipe.options.iter().copied().collect();
    let mut encoder = video.open_with(options).map_err(failed("open the encoder"))?;
    {
        let mut stream = output.add_stream(found).map_err(failed("add a stream"))?;
        stream.set_parameters(&encoder);
        stream.set_time_base(rate.invert());
        stream.set_rate(rate);
        stream.set_avg_frame_rate(rate);
    }
    output.write_header().map_err(failed("write the header"))?;
    let source = if channels == 1 { Pixel::GRAY8 } else { Pixel::RGB24 };
    let mut scaler = match pixels == source {
        true => None,
        false => {
            let (w, h) = (width as u32, height as u32);
            let flags = scaling::Flags::BILINEAR | scaling::Flags::ACCURATE_RND | scaling::Flags::FULL_CHR_H_INT;
            Some(scaling::Context::get(source, w, h, pixels, w, h, flags).map_err(failed("convert colours"))?)
        }
    };
    let mut sink = Sink { output, rate, written: 0 };
    for (index, values) in frames.images().enumerate() {
        let mut picture = filled(values, source, [height, width]);
        if let Some(scaler) = &mut scaler {
            let mut converted = frame::Video::empty();
            scaler.run(&picture, &mut converted).map_err(failed("convert colours"))?;
            picture = converted;
        }
        picture.set_pts(Some(index as i64));
        encoder.send_frame(&picture).map_err(failed("encode a frame"))?;
        sink.drain(&mut encoder).map_err(failed("write a frame"))?;
    }
    encoder.send_eof().map_err(failed("end the video"))?;
    sink.drain(&mut encoder).map_err(failed("write the last frames"))?;
    sink.output.write_trailer().map_err(failed("write the trailer"))?;
    if sink.written != frames.count() {
        let what = format!("FFmpeg wrote {} of {} frames", sink.written, frames.count());
        return Err(Error::Encode { path: path.into(), what });
    }
    Ok(())
}

/// Where packets go.
struct Sink {
    output: format::context::Output,
    rate: Rational,
    written: usize,
}

impl Sink {
    /// Writes all packets that the encoder has ready.
    fn drain(&mut self, encoder: &mut encoder::Video) -> std::result::Result<(), ffmpeg::Error> {
        loop {
            let mut packet = Packet::empty();
            match encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) => return Ok(()),
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::util::error::EAGAIN => return Ok(()),
                Err(error) => return Err(error),
            }
            // The muxer may have chosen another unit of time when it wrote the header.
            let unit = self.output.stream(0).map_or(self.rate.invert(), |stream| stream.time_base());
            packet.set_stream(0);
            packet.set_duration(1);
            packet.rescale_ts(self.rate.invert(), unit);
            packet.write_interleaved(&mut self.output)?;
            self.written += 1;
        }
    }
}

/// A new frame with these values.
fn filled(values: &[u8], format: Pixel, [height, width]: [usize; 2]) -> frame::Video {
    let mut picture = frame::Video::new(format, width as u32, height as u32);
    let colours = if format == Pixel::GRAY8 { None } else { Some(interleaved(values)) };
    let values = colours.as_deref().unwrap_or(values);
    let (row, stride) = (values.len() / height, picture.stride(0));
    for (place, line) in picture.data_mut(0).chunks_mut(stride).zip(values.chunks(row)) {
        if let Some(place) = place.get_mut(..line.len()) {
            place.copy_from_slice(line);
        }
    }
    picture
}
