//! One picture per file.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

use super::{Pixels, atomic_write};
use crate::{Error, Result};

/// Every image as `<prefix>-00000.png` and so on in a folder, which is made if need be; grey images stay grey.
///
/// # Errors
/// A failure of the file system; the images before it have been written whole.
pub fn write_images(folder: &Path, prefix: &str, pixels: &Pixels) -> Result<Vec<PathBuf>> {
    let write = |(index, image): (usize, &[u8])| {
        let path = folder.join(format!("{prefix}-{index:05}.png"));
        write_png(&path, &picture(pixels, image)).map(|()| path)
    };
    pixels.images().enumerate().map(write).collect()
}

/// One of the images as a picture of its own size.
fn picture(pixels: &Pixels, image: &[u8]) -> DynamicImage {
    let [channels, height, width] = pixels.shape();
    let at = |x: u32, y: u32| pixels.rgb(image, y as usize, x as usize);
    let (width, height) = (width as u32, height as u32);
    if channels == 1 {
        GrayImage::from_fn(width, height, |x, y| Luma([at(x, y)[0]])).into()
    } else {
        RgbImage::from_fn(width, height, |x, y| Rgb(at(x, y))).into()
    }
}

/// A picture as a PNG file, complete or not at all.
///
/// # Errors
/// A failure of the file system.
pub fn write_png(path: &Path, picture: &DynamicImage) -> Result<()> {
    atomic_write(path, &encode_png(picture).map_err(Error::picture(path))?)
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// A picture without pixels.
pub fn encode_png(picture: &DynamicImage) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, FolderOptions, folder};

    #[test]
    fn written_images_read_back_exactly() {
        for shape in [[1, 2, 3], [3, 2, 3]] {
            let size: usize = shape.iter().product();
            let values: Vec<u8> = (0..2 * size as u8).map(|v| v.wrapping_mul(37)).collect();
            let set = Dataset::new(values, shape, 256, "x").unwrap();
            let out = tempfile::tempdir().unwrap();
            let paths = write_images(out.path(), "sample", &Pixels::from_dataset(&set, &[0, 1]).unwrap()).unwrap();
            assert!(paths[1].ends_with("sample-00001.png"));
            let back = folder::read(out.path(), &FolderOptions::default()).unwrap();
            assert_eq!((back.images(), back.shape()), (set.images(), shape));
        }
    }
}
