//! Names beside the rows and above the columns of a sheet of pictures.

use anyhow::{Context, Result};
use image::{RgbImage, imageops};
use plotters::prelude::*;
use plotters::style::FontTransform;

use super::chart::{FONT, INK, register_font};

/// Space around a name.
const GAP: u32 = 8;
/// Of names on a dark and on a bright ground.
const PALE: RGBColor = RGBColor(235, 235, 235);
const SIZE: u32 = 16;

/// What stands beside the rows and above the columns of a sheet; nothing where empty.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Beside the rows, from the first.
    pub rows: Vec<String>,
    /// Above the columns, from the first.
    pub columns: Vec<String>,
}

/// A grid with margins at the left and above, as wide as the names need: none is cut. `cell` is the height and width of
/// an image with the space before it.
///
/// # Errors
/// A font that cannot be read.
pub fn labelled(grid: RgbImage, [height, width]: [usize; 2], names: &Names) -> Result<RgbImage> {
    if names.rows.is_empty() && names.columns.is_empty() {
        return Ok(grid);
    }
    register_font()?;
    let background = *grid.get_pixel(0, 0);
    let ink = if background.0.iter().all(|&v| v > 127) { INK } else { PALE };
    let style = || (FONT, SIZE).into_font().color(&ink);
    let extent = |name: &String| -> Result<(u32, u32)> {
        let ((left, top), (right, bottom)) = style().font.layout_box(name).context("the built-in font")?;
        Ok(((right - left).unsigned_abs(), (bottom - top).unsigned_abs()))
    };
    let widest = |names: &[String]| -> Result<u32> {
        names.iter().map(|name| extent(name).map(|(width, _)| width)).try_fold(0, |most, width| Ok(most.max(width?)))
    };
    // Names that are wider than their column stand upright.
    let upright = widest(&names.columns)? + GAP > width as u32;
    let left = if names.rows.is_empty() { 0 } else { widest(&names.rows)? + 2 * GAP };
    let top = match (names.columns.is_empty(), upright) {
        (true, _) => 0,
        (false, true) => widest(&names.columns)? + 2 * GAP,
        (false, false) => SIZE + 2 * GAP,
    };
    let (total_width, total_height) = (grid.width() + left, grid.height() + top);
    let mut sheet = RgbImage::from_pixel(total_width, total_height, background);
    {
        let canvas = BitMapBackend::with_buffer(&mut sheet, (total_width, total_height)).into_drawing_area();
        for (row, name) in names.rows.iter().enumerate() {
            let (text_width, _) = extent(name)?;
            let middle = top as usize + row * height + height / 2;
            let at = (left.saturating_sub(GAP + text_width) as i32, middle as i32 - SIZE as i32 / 2);
            canvas.draw_text(name, &style(), at)?;
        }
        for (column, name) in names.columns.iter().enumerate() {
            let (text_width, _) = extent(name)?;
            let middle = left as usize + column * width + width / 2;
            if upright {
                let turned = (FONT, SIZE).into_font().transform(FontTransform::Rotate270).color(&ink);
                canvas.draw_text(name, &turned, (middle as i32 - SIZE as i32 / 2, top as i32 - GAP as i32))?;
            } else {
                canvas.draw_text(name, &style(), (middle as i32 - text_width as i32 / 2, GAP as i32))?;
            }
        }
        canvas.present()?;
    }
    imageops::replace(&mut sheet, &grid, i64::from(left), i64::from(top));
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// Pixels of the ink in a part of a picture.
    fn ink(picture: &RgbImage, x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> usize {
        let pairs = x.flat_map(|x| y.clone().map(move |y| (x, y)));
        pairs.filter(|&(x, y)| picture.get_pixel(x, y).0.iter().all(|&v| v > 150)).count()
    }

    #[test]
    fn names_stand_beside_their_rows_and_columns_and_are_not_cut() {
        let black = RgbImage::from_pixel(3 * 66 + 2, 2 * 66 + 2, Rgb([40; 3]));
        let long = "a class with a rather long name";
        let names = Names { rows: vec!["3".into(), long.into()], columns: vec!["-1".into(), "0".into(), "1".into()] };
        let sheet = labelled(black.clone(), [66, 66], &names).unwrap();
        let (left, top) = (sheet.width() - black.width(), sheet.height() - black.height());
        assert!(left > 150 && top > 16, "{left} {top}");
        for row in 0..2 {
            let y = top + row * 66;
            assert!(ink(&sheet, 0..left, y..y + 66) > 5, "row {row}");
        }
        for column in 0..3 {
            let x = left + column * 66;
            assert!(ink(&sheet, x..x + 66, 0..top) > 1, "column {column}");
        }
        assert_eq!(ink(&sheet, 0..GAP / 2, 0..sheet.height()), 0, "the longest name begins inside");
        // Upright where the column is too narrow.
        let names = Names { rows: vec![], columns: vec![long.into(); 3] };
        let sheet = labelled(black.clone(), [66, 66], &names).unwrap();
        assert!(sheet.width() == black.width() && sheet.height() > black.height() + 150);
        assert!(ink(&sheet, 0..66, 0..sheet.height() - black.height()) > 50);
        assert_eq!(labelled(black.clone(), [66, 66], &Names::default()).unwrap(), black);
    }
}
