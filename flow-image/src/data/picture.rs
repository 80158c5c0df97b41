//! One picture file: decoded by its content, turned, cropped and reduced to bytes.

use std::io::Cursor;
use std::path::Path;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::DecodingError;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::{Channels, FolderOptions, Resize, foreign, read_file};
use crate::{Error, Result};

const EXTENSIONS: [&str; 14] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "pnm"];

/// The endings of pictures, for messages.
pub const LOOKED_FOR: &str = "*.png, *.jpg, *.jpeg, *.webp, *.bmp, *.tif, *.gif and *.ppm";

/// Whether the name ends like a picture's.
pub fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Pixels that a byte of a JPEG file may stand for. An empty block of 8×8 takes a bit at the least, 512 pixels a byte; a
/// reserve of eight times that.
const JPEG_PIXELS: u64 = 4096;

/// One decoded picture: bytes `[H, W, C]`, and what was lost of the file.
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) values: Vec<u8>,
    pub(super) lost: Lost,
}

/// What a picture had and its bytes have not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Pixels that are not opaque.
    pub transparency: bool,
    /// Values of 16 bits.
    pub depth: bool,
    /// Further frames or pages.
    pub frames: bool,
}

/// A picture of any known format, turned as its EXIF data say, and what bytes of its colours will not have.
///
/// # Errors
/// Names the file: one that is no picture or something else than its name promises, a broken picture, more memory than
/// the limits of the `image` crate allow, or floating-point colours.
pub fn load(path: &Path) -> Result<(DynamicImage, Lost)> {
    let bytes = read_file(path)?;
    foreign::refuse(path, &bytes)?;
    let (picture, frames) = decode_bytes(&bytes).map_err(Error::broken(path))?;
    if matches!(picture, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)) {
        let (is, remedy) = ("a picture of floating-point numbers", "save it with 8 or 16 bits a channel, or as .npy");
        return Err(Error::WrongKind { path: path.into(), is: is.into(), remedy: remedy.into() });
    }
    let depth = picture.color().bytes_per_pixel() > picture.color().channel_count();
    let lost = Lost { transparency: is_transparent(&picture), depth, frames };
    Ok((picture, lost))
}

pub(super) fn decode(path: &Path, options: &FolderOptions) -> Result<Picture> {
    let (mut picture, lost) = load(path)?;
    if let Some(resize) = options.resize {
        picture = crop_and_resize(&picture, resize);
    }
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let gray = match options.channels {
        Channels::Gray => true,
        Channels::Rgb => false,
        Channels::Auto => !picture.color().has_color() || is_gray(&picture),
    };
    let values = if gray { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
    Ok(Picture { height, width, channels: if gray { 1 } else { 3 }, values, lost })
}

/// By content, not by name, and whether there are more frames than the one; the decoder's default limits bound the memory
/// that a header may ask for.
fn decode_bytes(bytes: &[u8]) -> image::ImageResult<(DynamicImage, bool)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = reader.format();
    let mut decoder = reader.into_decoder()?;
    image::Limits::default().reserve(decoder.total_bytes())?;
    if format == Some(ImageFormat::Jpeg) {
        check_jpeg(decoder.dimensions(), bytes.len())?;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok((picture, has_frames(bytes, format)))
}

/// Refuses a JPEG file that promises more pixels than its bytes can hold: its decoder fills up what is missing.
fn check_jpeg((width, height): (u32, u32), bytes: usize) -> image::ImageResult<()> {
    if u64::from(width) * u64::from(height) <= JPEG_PIXELS * bytes as u64 {
        return Ok(());
    }
    let found = format!("{width}x{height} pixels in {bytes} bytes: damaged or cut off");
    Err(ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), found)))
}

/// Whether an animation has a second frame, or a TIFF file a second page.
fn has_frames(bytes: &[u8], format: Option<ImageFormat>) -> bool {
    match format {
        Some(ImageFormat::Gif) => GifDecoder::new(Cursor::new(bytes))
            .is_ok_and(|decoder| decoder.into_frames().nth(1).is_some_and(|frame| frame.is_ok())),
        Some(ImageFormat::WebP) => WebPDecoder::new(Cursor::new(bytes)).is_ok_and(|decoder| decoder.has_animation()),
        Some(ImageFormat::Png) => image::codecs::png::PngDecoder::new(Cursor::new(bytes))
            .is_ok_and(|decoder| decoder.is_apng().unwrap_or(false)),
        Some(ImageFormat::Tiff) => second_page(bytes).is_some_and(|offset| offset != 0),
        _ => false,
    }
}

/// Where a TIFF file says that its second page is: after the entries of the first.
fn second_page(bytes: &[u8]) -> Option<u32> {
    let little = bytes.starts_with(b"II");
    let short = |at: usize| -> Option<u16> {
        let word: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(word) } else { u16::from_be_bytes(word) })
    };
    let long = |at: usize| -> Option<u32> {
        let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    let first = long(4)? as usize;
    long(first.checked_add(2 + 12 * usize::from(short(first)?))?)
}

/// Whether a pixel is not opaque.
pub fn is_transparent(picture: &DynamicImage) -> bool {
    match picture {
        DynamicImage::ImageLumaA8(p) => p.pixels().any(|p| p[1] < u8::MAX),
        DynamicImage::ImageRgba8(p) => p.pixels().any(|p| p[3] < u8::MAX),
        DynamicImage::ImageLumaA16(p) => p.pixels().any(|p| p[1] < u16::MAX),
        DynamicImage::ImageRgba16(p) => p.pixels().any(|p| p[3] < u16::MAX),
        _ => false,
    }
}

/// Whether every pixel is grey.
pub fn is_gray(picture: &DynamicImage) -> bool {
    match picture.as_rgb8() {
        Some(rgb) => rgb.pixels().all(|p| p[0] == p[1] && p[1] == p[2]),
        None => picture.to_rgb8().pixels().all(|p| p[0] == p[1] && p[1] == p[2]),
    }
}

/// The largest centred crop of this aspect, resampled with Lanczos's kernel.
pub fn crop_and_resize(picture: &DynamicImage, Resize { height, width }: Resize) -> DynamicImage {
    let (w, h) = (picture.width(), picture.height());
    let scale = |a: u32, b: u32, c: u32| (u64::from(a) * u64::from(b) / u64::from(c)).max(1) as u32;
    let (crop_w, crop_h) = if u64::from(w) * u64::from(height) > u64::from(h) * u64::from(width) {
        (scale(h, width, height), h)
    } else {
        (w, scale(w, height, width))
    };
    let centred = picture.crop_imm((w - crop_w) / 2, (h - crop_h) / 2, crop_w, crop_h);
    if (crop_w, crop_h) == (width, height) {
        centred
    } else {
        centred.resize_exact(width, height, FilterType::Lanczos3)
    }
}
