//! One picture per file.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use rayon::prelude::*;

use super::{Pixels, atomic_write};
use crate::{Error, Result};

/// Every image as `<prefix>-00000.png` and so on in a folder, which is made if need be; grey images stay grey.
///
/// # Errors
/// A failure of the file system; the images before it have been written whole.
pub fn write_images(folder: &Path, prefix: &str, pixels: &Pixels) -> Result<Vec<PathBuf>> {
    let names: Vec<String> = (0..pixels.count()).map(|index| format!("{prefix}-{index:05}.png")).collect();
    write_named_images(folder, &names, pixels)
}

/// Every image as a PNG file of the given name in a folder, `/` between folders below it, which are made if need be.
///
/// Files appear under their names whole, written on all threads; they are left to the system to bring to the disk, which
/// for a thousand small files is the difference between a second and a minute.
///
/// # Errors
/// Another number of names than of images, or a failure of the file system.
pub fn write_named_images(folder: &Path, names: &[String], pixels: &Pixels) -> Result<Vec<PathBuf>> {
    if names.len() != pixels.count() {
        return Err(Error::config("names", format!("{} for {} images", names.len(), pixels.count())));
    }
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).chain([folder]).collect();
    folders.into_iter().try_for_each(|folder| std::fs::create_dir_all(folder).map_err(Error::io(folder)))?;
    let images: Vec<&[u8]> = pixels.images().collect();
    let write = |(path, image): (&PathBuf, &&[u8])| {
        let bytes = encode_png(&picture(pixels, image)).map_err(Error::picture(path))?;
        write_whole(path, &bytes).map_err(Error::io(path))
    };
    paths.par_iter().zip(&images).try_for_each(write)?;
    Ok(paths)
}

/// Writes aside and renames, without waiting for the disk.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let outcome = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path));
    if outcome.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&aside);
    }
    outcome
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
