//! Many images on one picture.

use std::path::Path;

use image::{Rgb, RgbImage};

use super::{Pixels, write_png};
use crate::data::ImageShape;
use crate::{Error, Result};

/// How a grid looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GridStyle {
    /// Images in a row; 0 makes the grid as square as it can be.
    pub columns: usize,
    /// Pixels of the picture for one pixel of an image, by repetition; 0 makes images at least 64 pixels long.
    pub upscale: usize,
    /// Pixels of background between images and around them.
    pub padding: usize,
    /// Red, green and blue of the background.
    pub background: [u8; 3],
}

impl Default for GridStyle {
    /// Square, upscaled as needed, two pixels of dark grey between images.
    fn default() -> Self {
        GridStyle { columns: 0, upscale: 0, padding: 2, background: [40; 3] }
    }
}

impl GridStyle {
    /// The default style with this many images in a row; 0 makes the grid as square as it can be.
    pub fn with_columns(columns: usize) -> Self {
        GridStyle { columns, ..GridStyle::default() }
    }
}

/// No picture has a longer side than this.
pub const MAX_SIDE: usize = 32_768;

impl GridStyle {
    /// Pixels of the picture for one pixel of an image.
    fn factor(&self, [_, height, width]: ImageShape) -> usize {
        if self.upscale == 0 { 64usize.div_ceil(height.max(width).max(1)) } else { self.upscale }
    }

    /// Height and width of one image on the picture, with the background before it.
    pub fn cell(&self, shape: ImageShape) -> [usize; 2] {
        let [_, height, width] = shape;
        let factor = self.factor(shape);
        [height, width].map(|length| length.saturating_mul(factor).saturating_add(self.padding))
    }

    /// Images in a row of `count`.
    pub fn columns_for(&self, count: usize) -> usize {
        let columns = if self.columns == 0 { (count as f64).sqrt().ceil() as usize } else { self.columns.min(count) };
        columns.max(1)
    }
}

/// All images row by row on one picture.
///
/// # Errors
/// A picture of more than [`MAX_SIDE`] pixels a side.
pub fn grid(pixels: &Pixels, style: &GridStyle) -> Result<RgbImage> {
    let count = pixels.count();
    let (columns, upscale) = (style.columns_for(count), style.factor(pixels.shape()));
    let [cell_height, cell_width] = style.cell(pixels.shape());
    let side = |images: usize, cell: usize| -> Result<usize> {
        let side = images.saturating_mul(cell).saturating_add(style.padding);
        if side <= MAX_SIDE {
            return Ok(side);
        }
        let reason = format!("{images} images in a line make more than {MAX_SIDE} pixels");
        Err(Error::config("grid", format!("{reason}; take fewer images a line, or write an array (.npy)")))
    };
    let (total_width, total_height) = (side(columns, cell_width)?, side(count.div_ceil(columns), cell_height)?);
    let mut picture = RgbImage::from_pixel(total_width as u32, total_height as u32, Rgb(style.background));
    let [_, height, width] = pixels.shape();
    for (index, image) in pixels.images().enumerate() {
        let left = style.padding + index % columns * cell_width;
        let top = style.padding + index / columns * cell_height;
        for row in 0..height {
            // One line of pixels, then its copies.
            let wide = |column: usize| std::iter::repeat_n(pixels.rgb(image, row, column), upscale).flatten();
            let line: Vec<u8> = (0..width).flat_map(wide).collect();
            for copy in 0..upscale {
                let start = 3 * ((top + row * upscale + copy) * total_width + left);
                if let Some(place) = picture.get_mut(start..start + line.len()) {
                    place.copy_from_slice(&line);
                }
            }
        }
    }
    Ok(picture)
}

/// [`grid`] into a PNG file, complete or not at all.
///
/// # Errors
/// Those of [`grid`], or a failure of the file system.
pub fn write_grid(path: &Path, pixels: &Pixels, style: &GridStyle) -> Result<()> {
    write_png(path, &grid(pixels, style)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn counting(count: usize) -> Pixels {
        let set = Dataset::new((0..count as u8 * 6).collect(), [1, 2, 3], 256, "x").unwrap();
        Pixels::from_dataset(&set, &(0..count).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_pixel_lands_in_its_block() {
        let style = GridStyle { columns: 2, upscale: 2, padding: 1, background: [200, 0, 0] };
        let picture = grid(&counting(3), &style).unwrap();
        assert_eq!(picture.dimensions(), (2 * 7 + 1, 2 * 5 + 1));
        assert_eq!(picture.get_pixel(0, 0).0, [200, 0, 0]);
        // Image 1, row 1, column 2: value 6 + 5 in a block of four.
        for (x, y) in [(12, 3), (13, 3), (12, 4), (13, 4)] {
            assert_eq!(picture.get_pixel(x, y).0, [11; 3]);
        }
        assert_eq!(picture.get_pixel(1, 6).0, [12; 3], "the third image starts the second row");
        assert_eq!(picture.get_pixel(9, 7).0, [200, 0, 0], "an empty place stays background");
    }

    #[test]
    fn small_images_are_enlarged_and_monsters_refused() {
        let picture = grid(&counting(4), &GridStyle { padding: 0, ..GridStyle::default() }).unwrap();
        assert_eq!(picture.dimensions(), (2 * 66, 2 * 44));
        let huge = GridStyle { upscale: usize::MAX, ..GridStyle::default() };
        assert!(grid(&counting(4), &huge).is_err());
    }
}
