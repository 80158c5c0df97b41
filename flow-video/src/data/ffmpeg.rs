//! Videos through FFmpeg: every container and codec that it has (feature `ffmpeg`).
//!
//! Frames are counted by decoding, for the numbers in containers are estimates; their times are presentation times, so a
//! fixed rate ([`OpenOptions::fps`]) is right for variable ones as well. The rotation that phones write beside a video is
//! applied. Colours become red, green and blue by the matrix and range that the stream states; where it states none,
//! ITU-R BT.709 from 720 rows on, else BT.601.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, RgbImage};
use video_rs::ffmpeg::codec::packet::side_data::Type as SideData;
use video_rs::ffmpeg::format::Pixel;
use video_rs::ffmpeg::software::scaling;
use video_rs::ffmpeg::util::{color, log};
use video_rs::ffmpeg::{self, Packet, codec, decoder, format, frame, media};

use super::frames::Frames;
use super::yuv::{Matrix, Planar};
use super::{Clip, OpenOptions};
use crate::{Error, Result};

/// No frame has more pixels than this: 8192 by 8192.
const MAX_PIXELS: u64 = 1 << 26;

/// Containers may promise a frame or two more than there are; from this share on something is missing.
const MISSING: f64 = 0.02;

/// The name by which FFmpeg opens a file: it takes what stands before a colon for a protocol.
///
/// # Errors
/// A name that FFmpeg cannot be told: not UTF-8, or with a zero in it.
pub(crate) fn file_name(path: &Path) -> Result<PathBuf> {
    let sayable = path.to_str().is_some_and(|name| !name.contains('\0'));
    if !sayable {
        return Err(Error::config(path.display().to_string(), "FFmpeg takes names in UTF-8 only"));
    }
    let mut name = OsString::from("file:");
    name.push(path);
    Ok(name.into())
}

/// Makes FFmpeg ready, and silent: what goes wrong is in the errors.
///
/// # Errors
/// None that is known.
pub(crate) fn start() -> std::result::Result<(), ffmpeg::Error> {
    ffmpeg::init()?;
    log::set_level(log::Level::Quiet);
    Ok(())
}

/// All frames of the best video stream of a file.
///
/// # Errors
/// Names the file: what FFmpeg cannot open, a file without video, a broken or truncated one, or frames of several sizes.
pub(super) fn read(path: &Path, name: &str, options: &OpenOptions) -> Result<(Clip, Vec<String>)> {
    let file = file_name(path)?;
    let broken =
        |what: &str, error: ffmpeg::Error| Error::Broken { path: path.into(), what: format!("{what}: {error}") };
    start().map_err(|error| broken("FFmpeg does not start", error))?;
    let mut input = format::input(&file).map_err(|error| broken("FFmpeg cannot open it", error))?;
    let Some(stream) = input.streams().best(media::Type::Video) else {
        return Err(no_video(path, &input));
    };
    let index = stream.index();
    let mut reader = Reader {
        path,
        time_base: f64::from(stream.time_base()),
        rate: Some(f64::from(stream.avg_frame_rate())).filter(|rate| rate.is_finite() && *rate > 0.0),
        turn: Turn::of(&stream),
        frames: Frames::new(path, options),
        scaler: None,
        first: None,
        last: 0.0,
        damaged: 0,
    };
    let promised = stream.frames().max(0) as f64;
    let context = codec::context::Context::from_parameters(stream.parameters());
    let opened = context.and_then(|context| context.decoder().video());
    let mut decoder = opened.map_err(|error| broken("FFmpeg has no decoder for it", error))?;
    let mut packet = Packet::empty();
    loop {
        match packet.read(&mut input) {
            Ok(()) if packet.stream() == index => {
                let sent = decoder.send_packet(&packet);
                sent.map_err(|error| broken(&format!("after {} frames", reader.frames.pushed()), error))?;
                reader.receive(&mut decoder)?;
            }
            Ok(()) => {}
            Err(ffmpeg::Error::Eof) => break,
            Err(error) => return Err(broken(&format!("after {} frames", reader.frames.pushed()), error)),
        }
    }
    decoder.send_eof().map_err(|error| broken("at its end", error))?;
    reader.receive(&mut decoder)?;
    reader.finish(name, promised)
}

fn no_video(path: &Path, input: &format::context::Input) -> Error {
    let has = |kind: media::Type| input.streams().any(|stream| stream.parameters().medium() == kind);
    let is = if has(media::Type::Audio) { "a file of sound without video" } else { "a file without video" };
    Error::WrongKind { path: path.into(), is: is.into(), remedy: "name a file with a video stream".into() }
}

/// What is decoded so far.
struct Reader<'a> {
    path: &'a Path,
    /// Seconds of a unit of time.
    time_base: f64,
    /// Frames a second by the container.
    rate: Option<f64>,
    turn: Turn,
    frames: Frames<'a>,
    scaler: Option<scaling::Context>,
    first: Option<f64>,
    last: f64,
    damaged: usize,
}

impl Reader<'_> {
    /// Takes all frames that the decoder has ready.
    fn receive(&mut self, decoder: &mut decoder::Video) -> Result<()> {
        loop {
            // A new frame each time: an old one of another size must not be written into.
            let mut decoded = frame::Video::empty();
            match decoder.receive_frame(&mut decoded) {
                Ok(()) => self.take(&decoded)?,
                Err(ffmpeg::Error::Eof) => return Ok(()),
                Err(ffmpeg::Error::Other { errno }) if errno == ffmpeg::util::error::EAGAIN => return Ok(()),
                Err(error) => {
                    let what = format!("frame {}: {error}", self.frames.pushed() + 1);
                    return Err(Error::Broken { path: self.path.into(), what });
                }
            }
        }
    }

    fn take(&mut self, decoded: &frame::Video) -> Result<()> {
        let pixels = u64::from(decoded.width()) * u64::from(decoded.height());
        if !(1..=MAX_PIXELS).contains(&pixels) {
            let found = format!("{}x{}", decoded.width(), decoded.height());
            return Err(Error::format(self.path, 0, format!("frames of 1 to {MAX_PIXELS} pixels"), found));
        }
        self.damaged += usize::from(decoded.is_corrupt() || decoded.has_decode_errors());
        let next = self.last + self.rate.map_or(0.0, |rate| 1.0 / rate);
        let time = decoded.timestamp().map_or(next, |time| time as f64 * self.time_base);
        self.first.get_or_insert(time);
        let picture = self.turn.apply(self.picture(decoded)?);
        self.last = time;
        self.frames.push_at(&picture, time)
    }

    /// A decoded frame in red, green and blue, or grey.
    fn picture(&mut self, decoded: &frame::Video) -> Result<DynamicImage> {
        let (width, height) = (decoded.width(), decoded.height());
        let (full, across, down) = match decoded.format() {
            Pixel::GRAY8 => return Ok(gray(width, height, plane(decoded, 0, width, height))),
            Pixel::RGB24 => return Ok(rgb(width, height, plane(decoded, 0, 3 * width, height))),
            Pixel::YUV420P => (false, 2, 2),
            Pixel::YUVJ420P => (true, 2, 2),
            Pixel::YUV422P => (false, 2, 1),
            Pixel::YUVJ422P => (true, 2, 1),
            Pixel::YUV444P => (false, 1, 1),
            Pixel::YUVJ444P => (true, 1, 1),
            other => {
                // Luma and chroma of other depths and orders keep their meaning; all else is some form of colours.
                let name = other.descriptor().map_or("", |descriptor| descriptor.name());
                let is_yuv = ["yuv", "nv", "p0", "uyvy", "yvyu", "y2"].iter().any(|start| name.starts_with(start));
                let scaled = self.scaled(decoded, if is_yuv { Pixel::YUV444P } else { Pixel::RGB24 })?;
                if !is_yuv {
                    return Ok(rgb(width, height, plane(&scaled, 0, 3 * width, height)));
                }
                return Ok(self.colours(decoded, &scaled, (false, 1, 1)));
            }
        };
        Ok(self.colours(decoded, decoded, (full, across, down)))
    }

    /// Three planes as red, green and blue, by what the decoded frame says about them.
    fn colours(
        &self,
        said: &frame::Video,
        planes: &frame::Video,
        (full, across, down): (bool, u32, u32),
    ) -> DynamicImage {
        let (width, height) = (planes.width(), planes.height());
        let matrix = match said.color_space() {
            color::Space::BT709 => Matrix::Bt709,
            color::Space::Unspecified if height >= 720 => Matrix::Bt709,
            _ => Matrix::Bt601,
        };
        let planar = Planar {
            width: width as usize,
            height: height as usize,
            across: across as usize,
            down: down as usize,
            full_range: full || said.color_range() == color::Range::JPEG,
            matrix,
        };
        let chroma = |index: usize| plane(planes, index, width.div_ceil(across), height.div_ceil(down));
        planar.picture(&plane(planes, 0, width, height), &chroma(1), &chroma(2))
    }

    /// The same pixels in another format.
    fn scaled(&mut self, decoded: &frame::Video, target: Pixel) -> Result<frame::Video> {
        let (source, width, height) = (decoded.format(), decoded.width(), decoded.height());
        let broken = |error: ffmpeg::Error| {
            let what = format!("pixels of the format {source:?} are not read: {error}");
            Error::Broken { path: self.path.into(), what }
        };
        let definition = |format| scaling::context::Definition { format, width, height };
        let fits =
            |scaler: &scaling::Context| *scaler.input() == definition(source) && *scaler.output() == definition(target);
        let mut scaler = match self.scaler.take().filter(fits) {
            Some(scaler) => scaler,
            None => {
                // Every pixel takes the chroma sample that lies over it, as where nothing is scaled.
                let flags = scaling::Flags::POINT | scaling::Flags::ACCURATE_RND;
                scaling::Context::get(source, width, height, target, width, height, flags).map_err(broken)?
            }
        };
        let mut scaled = frame::Video::empty();
        scaler.run(decoded, &mut scaled).map_err(broken)?;
        self.scaler = Some(scaler);
        Ok(scaled)
    }

    fn finish(self, name: &str, promised: f64) -> Result<(Clip, Vec<String>)> {
        let (path, count) = (self.path, self.frames.pushed());
        if count == 0 {
            return Err(Error::format(path, 0, "frames", "none"));
        }
        let missing = promised - count as f64;
        if missing > 2.0 && missing > MISSING * promised {
            let what = format!("it promises {promised} frames but ends after {count}: it is truncated or damaged");
            return Err(Error::Broken { path: path.into(), what });
        }
        let mut notes = Vec::new();
        if missing > 0.0 {
            notes.push(format!("{}: the container promises {promised} frames, there are {count}", path.display()));
        }
        if self.damaged > 0 {
            let damaged = self.damaged;
            notes.push(format!(
                "{}: {damaged} of {count} frames are damaged and were patched by FFmpeg",
                path.display()
            ));
        }
        if let Some(what) = self.turn.words() {
            notes.push(format!("{}: {what}", path.display()));
        }
        let first = self.first.unwrap_or(0.0);
        let step = match count {
            1 => self.rate.map_or(0.0, |rate| 1.0 / rate),
            _ => (self.last - first) / (count - 1) as f64,
        };
        let (clip, said) = self.frames.finish_at(name, self.last + step)?;
        notes.extend(said);
        Ok((clip, notes))
    }
}

/// A plane without the padding at the ends of its rows.
fn plane(frame: &frame::Video, index: usize, width: u32, height: u32) -> Vec<u8> {
    let (width, height, stride) = (width as usize, height as usize, frame.stride(index));
    let rows = frame.data(index).chunks(stride.max(1)).take(height);
    let mut values = Vec::with_capacity(width * height);
    rows.for_each(|row| values.extend_from_slice(row.get(..width).unwrap_or(row)));
    values.resize(width * height, 0);
    values
}

fn gray(width: u32, height: u32, values: Vec<u8>) -> DynamicImage {
    GrayImage::from_raw(width, height, values).unwrap_or_default().into()
}

fn rgb(width: u32, height: u32, values: Vec<u8>) -> DynamicImage {
    RgbImage::from_raw(width, height, values).unwrap_or_default().into()
}

/// How a frame is to be turned for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Quarter turns clockwise, then a mirror from left to right.
    Quarters(u8, bool),
    /// An angle that is no quarter, which is left alone.
    Odd,
}

impl Turn {
    /// By the display matrix of a stream.
    fn of(stream: &ffmpeg::Stream<'_>) -> Self {
        let mut matrices = stream.side_data().filter(|side| side.kind() == SideData::DisplayMatrix);
        matrices.next().map_or(Turn::Quarters(0, false), |side| Turn::of_matrix(side.data()))
    }

    /// By nine numbers of four bytes, of which the first, second, fourth and fifth turn: `x' = a x + c y`, `y' = b x + d y`.
    fn of_matrix(bytes: &[u8]) -> Self {
        let numbers: Vec<i32> = bytes.as_chunks().0.iter().map(|word| i32::from_ne_bytes(*word)).collect();
        let [a, b, _, c, d, ..] = numbers[..] else { return Turn::Quarters(0, false) };
        match [a, b, c, d].map(i32::signum) {
            [1, 0, 0, 1] => Turn::Quarters(0, false),
            [0, 1, -1, 0] => Turn::Quarters(1, false),
            [-1, 0, 0, -1] => Turn::Quarters(2, false),
            [0, -1, 1, 0] => Turn::Quarters(3, false),
            [-1, 0, 0, 1] => Turn::Quarters(0, true),
            [0, 1, 1, 0] => Turn::Quarters(1, true),
            [1, 0, 0, -1] => Turn::Quarters(2, true),
            [0, -1, -1, 0] => Turn::Quarters(3, true),
            _ => Turn::Odd,
        }
    }

    fn apply(self, picture: DynamicImage) -> DynamicImage {
        let Turn::Quarters(quarters, mirror) = self else { return picture };
        let turned = match quarters {
            1 => picture.rotate90(),
            2 => picture.rotate180(),
            3 => picture.rotate270(),
            _ => picture,
        };
        if mirror { turned.fliph() } else { turned }
    }

    fn words(self) -> Option<String> {
        match self {
            Turn::Quarters(0, false) => None,
            Turn::Quarters(quarters, mirror) => {
                let mirrored = if mirror { " and mirrored" } else { "" };
                Some(format!("frames were turned by {}°{mirrored}, as the file says", 90 * u32::from(quarters)))
            }
            Turn::Odd => Some("the file wants frames turned by an angle that is no quarter; they were left".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Luma;

    /// Where each of the eight matrices puts the pixels of a picture of 3x2, by the definition of the matrix.
    #[test]
    fn every_display_matrix_turns_as_it_says() {
        let picture: DynamicImage = GrayImage::from_fn(3, 2, |x, y| Luma([(10 * y + x) as u8])).into();
        for [a, b, c, d] in [
            [1, 0, 0, 1],
            [0, 1, -1, 0],
            [-1, 0, 0, -1],
            [0, -1, 1, 0],
            [-1, 0, 0, 1],
            [0, 1, 1, 0],
            [1, 0, 0, -1],
            [0, -1, -1, 0],
        ] {
            let one = 1 << 16;
            let numbers: [i32; 9] = [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30];
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
            let turned = Turn::of_matrix(&bytes).apply(picture.clone()).into_luma8();
            let (width, height) = (3 - 1, 2 - 1);
            for y in 0..2i32 {
                for x in 0..3i32 {
                    // The corner that becomes negative is moved back to the edge.
                    let corners = [(0, 0), (width, 0), (0, height), (width, height)];
                    let low = |k: i32, l: i32| corners.iter().map(|&(x, y)| k * x + l * y).min().unwrap();
                    let at = (a * x + c * y - low(a, c), b * x + d * y - low(b, d));
                    let found = turned.get_pixel(at.0 as u32, at.1 as u32).0[0];
                    assert_eq!(found, (10 * y + x) as u8, "{:?}", [a, b, c, d]);
                }
            }
        }
        let odd: Vec<u8> = [46_341, 46_341, 0, -46_341, 46_341].iter().flat_map(|n: &i32| n.to_ne_bytes()).collect();
        assert_eq!(Turn::of_matrix(&odd), Turn::Odd);
        assert_eq!(Turn::of_matrix(&[1, 2]), Turn::Quarters(0, false));
    }
}
