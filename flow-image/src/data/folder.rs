//! A folder of pictures.
//!
//! PNG, JPEG and WebP files are found recursively, in the order of their names. The first sub-folder of a
//! picture's path is its class; a `labels.csv` in the folder adds yes/no attributes. Pictures are decoded in
//! parallel, and the result does not depend on the number of threads.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Attributes, Dataset, read_file};
use crate::{Error, Result};

const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
pub(crate) const LABELS: &str = "labels.csv";

/// Deeper folders are a loop or a mistake.
const MAX_DEPTH: usize = 16;

/// Whether pictures become one channel or three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Channels {
    /// One if no picture has a coloured pixel, else three.
    #[default]
    Auto,
    /// One: luma (Rec. 709).
    Gray,
    /// Three: red, green, blue.
    Rgb,
}

/// The size that pictures are brought to: the largest centred crop of that aspect, then resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Resize {
    /// To `height` rows and `width` columns.
    pub fn new(height: u32, width: u32) -> Self {
        Resize { height, width }
    }
}

impl From<u32> for Resize {
    /// A square.
    fn from(side: u32) -> Self {
        Resize { height: side, width: side }
    }
}

/// How a folder of pictures becomes a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Crop and resample; without it all pictures must have one size.
    pub resize: Option<Resize>,
    /// Colour or not.
    pub channels: Channels,
}

impl FolderOptions {
    /// Pictures of this size, as they are if `None`, and colour.
    pub fn new(resize: Option<Resize>, channels: Channels) -> Self {
        FolderOptions { resize, channels }
    }
}

/// All pictures under a folder. Transparency is ignored, an EXIF rotation is applied.
///
/// Links to files are followed, links to folders are not. Pictures with and without a sub-folder side by side
/// leave the set without labels.
///
/// # Errors
/// No picture, one that cannot be decoded (named), two of different sizes without `resize` (both
/// named), or a malformed `labels.csv`.
pub fn read(folder: &Path, options: &FolderOptions) -> Result<Dataset> {
    if let Some(resize) = options.resize {
        check_resize(resize)?;
    }
    let mut files = Vec::new();
    collect(folder, 0, &mut files)?;
    if files.is_empty() {
        return Err(Error::NoData { path: folder.into(), looked_for: "*.png, *.jpg, *.jpeg and *.webp".into() });
    }
    let pictures = files.par_iter().map(|path| decode(path, options)).collect::<Result<Vec<_>>>()?;
    let mut set = assemble(folder, &files, pictures, options)?;
    let names: Vec<String> = files.iter().map(|path| relative_name(folder, path)).collect();
    if let Some((labels, classes)) = classes(&names) {
        set = set.with_labels(labels, classes)?;
    }
    let table = folder.join(LABELS);
    if table.exists() {
        set = set.with_attributes(Attributes::read_csv(&table, &names)?)?;
    }
    Ok(set)
}

fn check_resize(resize: Resize) -> Result<()> {
    if [resize.height, resize.width].iter().all(|side| (1..=4096).contains(side)) {
        return Ok(());
    }
    Err(Error::config("resize", format!("sides must be 1 to 4096, got {}x{}", resize.height, resize.width)))
}

/// Pictures below `folder`, files and sub-folders in the order of their names, hidden ones left out.
fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > MAX_DEPTH {
        let reason = format!("folders are nested deeper than {MAX_DEPTH}");
        return Err(Error::config(folder.display().to_string(), reason));
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if is_picture(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether the name ends like a picture's.
pub(crate) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// The path below the folder with `/` between its parts.
fn relative_name(folder: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    relative.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The first sub-folder of each name as its class; `None` unless every picture has one.
fn classes(names: &[String]) -> Option<(Vec<u32>, Vec<String>)> {
    let of_picture: Vec<&str> =
        names.iter().map(|name| name.split_once('/').map(|(class, _)| class)).collect::<Option<_>>()?;
    let mut classes = of_picture.clone();
    classes.sort_unstable();
    classes.dedup();
    let labels = of_picture.iter().map(|class| classes.partition_point(|c| c < class) as u32).collect();
    Some((labels, classes.into_iter().map(String::from).collect()))
}

/// One decoded picture: bytes `[H, W, C]`.
struct Picture {
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<u8>,
}

fn decode(path: &Path, options: &FolderOptions) -> Result<Picture> {
    let bytes = read_file(path)?;
    let mut picture = decode_bytes(&bytes).map_err(Error::picture(path))?;
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
    Ok(Picture { height, width, channels: if gray { 1 } else { 3 }, values })
}

/// By content, not by name; the decoder's default limits bound the memory that a header may ask for.
fn decode_bytes(bytes: &[u8]) -> image::ImageResult<DynamicImage> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
    image::Limits::default().reserve(decoder.total_bytes())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn is_gray(picture: &DynamicImage) -> bool {
    match picture.as_rgb8() {
        Some(rgb) => rgb.pixels().all(|p| p[0] == p[1] && p[1] == p[2]),
        None => picture.to_rgb8().pixels().all(|p| p[0] == p[1] && p[1] == p[2]),
    }
}

fn crop_and_resize(picture: &DynamicImage, Resize { height, width }: Resize) -> DynamicImage {
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

/// Pictures `[H, W, C]` of one size as a data set `[N, C, H, W]`.
fn assemble(folder: &Path, files: &[PathBuf], pictures: Vec<Picture>, options: &FolderOptions) -> Result<Dataset> {
    let size = |p: &Picture| (p.height, p.width);
    let channels = pictures.iter().map(|p| p.channels).max().unwrap_or(1);
    let (height, width) = pictures.first().map_or((0, 0), size);
    if let Some(other) = pictures.iter().position(|p| size(p) != (height, width)) {
        let found = &pictures[other];
        let reason = format!("{height}x{width} against {}x{}; give a size to resize to", found.height, found.width);
        return Err(Error::Mismatch { first: files[0].clone(), second: files[other].clone(), reason });
    }
    let mut images = Vec::with_capacity(pictures.len() * channels * height * width);
    for picture in pictures {
        for channel in 0..channels {
            images.extend(picture.values.iter().skip(channel.min(picture.channels - 1)).step_by(picture.channels));
        }
    }
    let resized = if options.resize.is_some() { format!(", resized to {height}x{width}") } else { String::new() };
    Dataset::new(images, [channels, height, width], 256, format!("{}{resized}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn rgb(path: &Path, width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(width, height, |x, y| Rgb(pixel(x, y))).save(path).unwrap();
    }

    #[test]
    fn pictures_become_channels_first_with_classes_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        rgb(&root.join("b/0.png"), 3, 2, |x, y| [x as u8, 10 + y as u8, 20]);
        rgb(&root.join("a/deep/1.webp"), 3, 2, |_, _| [1, 2, 3]);
        GrayImage::from_pixel(3, 2, Luma([9])).save(root.join("a/2.png")).unwrap();
        std::fs::write(root.join("a/.hidden.png"), b"junk").unwrap();
        std::fs::write(root.join("notes.txt"), b"junk").unwrap();
        std::fs::write(root.join("labels.csv"), "file,hat\na/2.png,1\nb/0.png,0\na/deep/1.webp,1\n").unwrap();
        let set = read(root, &FolderOptions::default()).unwrap();
        assert_eq!((set.len(), set.shape()), (3, [3, 2, 3]));
        assert_eq!(set.image(0).unwrap(), [9; 18]);
        assert_eq!(set.image(1).unwrap(), [[1; 6], [2; 6], [3; 6]].concat());
        assert_eq!(set.image(2).unwrap(), [0, 1, 2, 0, 1, 2, 10, 10, 10, 11, 11, 11, 20, 20, 20, 20, 20, 20]);
        assert_eq!((set.labels().unwrap(), set.class_names()), (&[0, 0, 1][..], &["a".to_string(), "b".into()][..]));
        assert_eq!(set.attributes().unwrap().column("hat").unwrap(), [true, true, false]);
    }

    #[test]
    fn gray_by_content_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        rgb(&folder.path().join("x.png"), 2, 2, |x, _| [x as u8; 3]);
        let channels =
            |channels| read(folder.path(), &FolderOptions { channels, ..FolderOptions::default() }).unwrap().shape()[0];
        assert_eq!((channels(Channels::Auto), channels(Channels::Rgb), channels(Channels::Gray)), (1, 3, 1));
        assert!(read(folder.path(), &FolderOptions::default()).unwrap().labels().is_none());
    }

    #[test]
    fn resizing_crops_the_centre_first() {
        let folder = tempfile::tempdir().unwrap();
        // Red sides, blue middle: the square crop of a 12x4 picture is its middle.
        rgb(&folder.path().join("wide.png"), 12, 4, |x, _| if (4..8).contains(&x) { [0, 0, 200] } else { [255, 0, 0] });
        rgb(&folder.path().join("tall.png"), 4, 12, |_, y| if (4..8).contains(&y) { [0, 0, 200] } else { [255, 0, 0] });
        let options = FolderOptions { resize: Some(2.into()), ..FolderOptions::default() };
        let set = read(folder.path(), &options).unwrap();
        assert_eq!(set.shape(), [3, 2, 2]);
        for image in 0..2 {
            assert_eq!(set.image(image).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 200, 200, 200, 200]);
        }
        let error = read(folder.path(), &FolderOptions::default()).unwrap_err().to_string();
        assert!(error.contains("tall.png") && error.contains("wide.png") && error.contains("4x12"), "{error}");
        let zero = FolderOptions { resize: Some(0.into()), ..options };
        assert!(read(folder.path(), &zero).unwrap_err().to_string().contains("resize"));
    }

    #[test]
    fn the_order_does_not_depend_on_threads() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..40u8 {
            rgb(&folder.path().join(format!("{i:02}.png")), 1, 1, |_, _| [i; 3]);
        }
        assert_eq!(read(folder.path(), &FolderOptions::default()).unwrap().images(), (0..40).collect::<Vec<u8>>());
    }
}
