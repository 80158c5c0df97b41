//! Y4M, the uncompressed form in which FFmpeg, mpv and encoders exchange frames.
//!
//! A line `YUV4MPEG2 W64 H48 F25:1 Ip C420jpeg XCOLORRANGE=FULL`, then for every frame a line `FRAME` and its planes Y, U
//! and V. Read are 8 bits of 4:2:0 in all its sitings, 4:2:2, 4:4:4 and grey (`Cmono`); other forms are refused.
//!
//! Colours become red, green and blue by ITU-R BT.601, which the format does not state but its programs use: levels 16 to
//! 235 unless the header says `XCOLORRANGE=FULL`. A chroma sample stands for all pixels of its block. Grey values of
//! `Cmono` are levels as they are, unless the header says `XCOLORRANGE=LIMITED`. Clips are written (`crate::io`) in full
//! range without subsampling, from which red, green and blue come back to within one or two levels, grey exactly.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flow_image::data::file_length;
use image::{DynamicImage, GrayImage};

use super::frames::Frames;
use super::yuv::{Matrix, Planar};
use super::{Clip, OpenOptions};
use crate::{Error, Result};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";

/// No line of a file is longer than this.
const MAX_LINE: u64 = 1024;

/// No side is longer than this.
const MAX_SIDE: usize = 1 << 15;

/// How chroma is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chroma {
    Mono,
    /// Columns and rows of a block that has one sample: (2, 2), (2, 1) or (1, 1).
    Blocks(usize, usize),
}

/// What the first line says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Header {
    width: usize,
    height: usize,
    /// Frames a second, where it is said.
    fps: Option<f64>,
    chroma: Chroma,
    full_range: bool,
    interlaced: bool,
}

impl Header {
    fn chroma_plane(&self) -> usize {
        match self.chroma {
            Chroma::Mono => 0,
            Chroma::Blocks(x, y) => self.width.div_ceil(x) * self.height.div_ceil(y),
        }
    }

    fn frame_size(&self) -> usize {
        self.width * self.height + 2 * self.chroma_plane()
    }
}

/// All frames of a file.
///
/// # Errors
/// Names file and byte: a header that is none, a form that is not read, or a file that ends inside a frame.
pub(super) fn read(path: &Path, name: &str, options: &OpenOptions) -> Result<(Clip, Vec<String>)> {
    let length = file_length(path)?;
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let line = read_line(path, &mut file, 0)?;
    let header = parse(path, &line)?;
    let size = header.frame_size();
    let mut position = line.len() + 1;
    if size as u64 > length {
        let found = format!("{}x{} in a file of {length} bytes", header.width, header.height);
        return Err(Error::format(path, MAGIC.len(), "frames that fit into the file", found));
    }
    let mut frames = Frames::new(path, options);
    let mut planes = vec![0; size];
    while !file.fill_buf().map_err(Error::io(path))?.is_empty() {
        let line = read_line(path, &mut file, position)?;
        if line != b"FRAME" && !line.starts_with(b"FRAME ") {
            let found = format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(20)]));
            return Err(Error::format(path, position, "the line FRAME", found));
        }
        position += line.len() + 1;
        let got = read_up_to(&mut file, &mut planes).map_err(Error::io(path))?;
        if got < size {
            let expected = format!("a frame of {size} bytes");
            return Err(Error::format(path, position, expected, format!("the end of the file after {got}")));
        }
        position += size;
        let picture = picture(&header, &planes);
        match header.fps {
            Some(fps) => frames.push_at(&picture, frames.pushed() as f64 / fps)?,
            None => frames.push(&picture)?,
        }
    }
    if frames.pushed() == 0 {
        return Err(Error::format(path, position, "the line FRAME", "the end of the file"));
    }
    let (clip, mut notes) = match header.fps {
        Some(fps) => {
            let end = frames.pushed() as f64 / fps;
            frames.finish_at(name, end)?
        }
        None => frames.finish(name, None)?,
    };
    if header.interlaced {
        notes.push(format!("{}: frames are interlaced; their two fields are left woven", path.display()));
    }
    Ok((clip, notes))
}

/// A line without its end.
fn read_line(path: &Path, file: &mut impl BufRead, position: usize) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    file.take(MAX_LINE).read_until(b'\n', &mut line).map_err(Error::io(path))?;
    if line.pop() == Some(b'\n') {
        return Ok(line);
    }
    Err(Error::format(path, position, format!("a line of at most {MAX_LINE} bytes"), "no end of the line"))
}

/// Fills as much of `buffer` as there is.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn parse(path: &Path, line: &[u8]) -> Result<Header> {
    let text = std::str::from_utf8(line).ok().filter(|_| line.starts_with(MAGIC));
    let Some(text) = text else {
        return Err(Error::format(path, 0, "the line YUV4MPEG2 with its parameters", "another text"));
    };
    let (mut width, mut height, mut fps, mut interlaced) = (None, None, None, false);
    let (mut chroma, mut range) = (Chroma::Blocks(2, 2), None);
    let mut position = MAGIC.len();
    for token in text[MAGIC.len()..].split(' ') {
        let refused = |expected: &str| Error::format(path, position, expected, format!("{token:?}"));
        let mut letters = token.chars();
        let (kind, value) = (letters.next(), letters.as_str());
        match kind {
            Some('W') => width = Some(side(value).ok_or_else(|| refused("a width, W1 to W32768"))?),
            Some('H') => height = Some(side(value).ok_or_else(|| refused("a height, H1 to H32768"))?),
            Some('F') => fps = rate(value).ok_or_else(|| refused("a rate, as F25:1"))?,
            Some('I') => interlaced = !matches!(value, "p" | "?"),
            Some('C') => {
                chroma = chroma_of(value).ok_or_else(|| {
                    refused("8 bits of 4:2:0, 4:2:2, 4:4:4 or grey (ffmpeg -i in.y4m -pix_fmt yuv444p out.y4m)")
                })?;
            }
            Some('X') => match value.to_ascii_uppercase().as_str() {
                "COLORRANGE=FULL" => range = Some(true),
                "COLORRANGE=LIMITED" => range = Some(false),
                _ => {}
            },
            // Aspect ratios of pixels, and blanks.
            Some('A') | None => {}
            Some(_) => return Err(refused("one of the parameters W, H, F, I, A, C and X")),
        }
        position += token.len() + 1;
    }
    let (Some(width), Some(height)) = (width, height) else {
        return Err(Error::format(path, MAGIC.len(), "a width W and a height H", format!("{text:?}")));
    };
    let full_range = range.unwrap_or(chroma == Chroma::Mono);
    Ok(Header { width, height, fps, chroma, full_range, interlaced })
}

fn side(text: &str) -> Option<usize> {
    text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side))
}

/// Frames a second of `numerator:denominator`; the inner value is `None` for an unknown rate, `0:0`.
fn rate(text: &str) -> Option<Option<f64>> {
    let (numerator, denominator) = text.split_once(':')?;
    let (numerator, denominator) = (numerator.parse::<u32>().ok()?, denominator.parse::<u32>().ok()?);
    match (numerator, denominator) {
        (0, _) => Some(None),
        (_, 0) => None,
        _ => Some(Some(f64::from(numerator) / f64::from(denominator))),
    }
}

fn chroma_of(name: &str) -> Option<Chroma> {
    match name {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Some(Chroma::Blocks(2, 2)),
        "422" => Some(Chroma::Blocks(2, 1)),
        "444" => Some(Chroma::Blocks(1, 1)),
        "mono" => Some(Chroma::Mono),
        _ => None,
    }
}

/// One frame of planes Y, U, V as a picture.
fn picture(header: &Header, planes: &[u8]) -> DynamicImage {
    let (width, height) = (header.width, header.height);
    let (luma, rest) = planes.split_at(width * height);
    let (u, v) = rest.split_at(header.chroma_plane());
    let full_range = header.full_range;
    match header.chroma {
        Chroma::Blocks(across, down) => {
            Planar { width, height, across, down, full_range, matrix: Matrix::Bt601 }.picture(luma, u, v)
        }
        Chroma::Mono => {
            let grey = |&y: &u8| if full_range { y } else { Matrix::Bt601.rgb(y, 128, 128, false)[0] };
            let values = luma.iter().map(grey).collect();
            GrayImage::from_raw(width as u32, height as u32, values).unwrap_or_default().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        let read = |text: &str| parse(Path::new("x.y4m"), text.as_bytes());
        let header = read("YUV4MPEG2 W5 H3 F30000:1001 Ip A1:1 C420jpeg XYSCSS=420JPEG").unwrap();
        assert_eq!((header.width, header.height, header.chroma), (5, 3, Chroma::Blocks(2, 2)));
        assert_eq!((header.frame_size(), header.full_range, header.interlaced), (15 + 2 * 6, false, false));
        assert!((header.fps.unwrap() - 29.97).abs() < 1e-3);
        let header = read("YUV4MPEG2 W4 H4 Cmono It").unwrap();
        assert_eq!((header.frame_size(), header.full_range, header.fps, header.interlaced), (16, true, None, true));
        assert_eq!(read("YUV4MPEG2 W4 H4 F0:0 C422 XCOLORRANGE=FULL").unwrap().frame_size(), 32);
        for bad in [
            "YUV4MPEG2",
            "YUV4MPEG2 W4",
            "YUV4MPEG2 W0 H4",
            "YUV4MPEG2 W4 H99999",
            "YUV4MPEG2 W4 H4 F25",
            "YUV4MPEG2 W4 H4 F25:0",
            "YUV4MPEG2 W4 H4 C420p10",
            "YUV4MPEG2 W4 H4 C411",
            "YUV4MPEG2 W4 H4 Q",
            "YUV4MPEG W4 H4",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with("x.y4m: byte "), "{error}");
        }
    }

    #[test]
    fn a_chroma_sample_stands_for_its_block() {
        let header = parse(Path::new("x"), b"YUV4MPEG2 W3 H3 C420 XCOLORRANGE=FULL").unwrap();
        let planes = [vec![100; 9], vec![128, 128, 128, 255], vec![128; 4]].concat();
        let picture = picture(&header, &planes).to_rgb8();
        assert_eq!(picture.get_pixel(1, 1).0, [100; 3]);
        assert_eq!(picture.get_pixel(2, 2).0, Matrix::Bt601.rgb(100, 255, 128, true));
    }
}
