//! Sheets of images: a grid with the names of its rows and columns, on as many pages as it takes; or an array.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Tensor;
use flow_image::data::{Dataset, npy, npz};
use flow_image::io::{GridStyle, MAX_SIDE, Pixels, grid, write_png};

use crate::cli::numbered;
pub(super) use crate::plot::Names;
use crate::plot::labelled;

/// Images on their way to a file.
pub(super) struct Sheet<'a> {
    /// Integer levels `(B, C, H, W)`.
    pub(super) images: &'a Tensor,
    /// Grey levels of the model.
    pub(super) levels: usize,
    /// Images in a row; 0 makes the sheet as square as it can be.
    pub(super) columns: usize,
    pub(super) names: Names,
    /// Classes of the images, for arrays.
    pub(super) labels: Option<(Vec<u32>, Vec<String>)>,
}

/// Whether a file of this name holds an array rather than a picture.
pub(super) fn is_array(path: &Path) -> bool {
    ending(path).is_some_and(|ending| ending == "npy" || ending == "npz")
}

fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Refuses, before the work, a picture of images that no picture can show.
pub(super) fn check_drawable(channels: usize, path: &Path) -> Result<()> {
    if matches!(channels, 1 | 3) || is_array(path) {
        return Ok(());
    }
    let array = path.with_extension("npy");
    bail!(
        "{}: pictures have 1 or 3 channels, the model's images have {channels}; give an array, --out {}",
        path.display(),
        array.display()
    )
}

impl Sheet<'_> {
    /// Writes the sheet where `path` says: `.npy` and `.npz` as integer levels, anything else as PNG. Returns where the
    /// images are, in words.
    pub(super) fn write(self, path: &Path) -> Result<String> {
        if is_array(path) {
            let shape = self.images.dims4()?;
            let values = self.images.flatten_all()?.to_vec1()?;
            let mut set = Dataset::new(values, [shape.1, shape.2, shape.3], self.levels, "images")?;
            if let Some((labels, classes)) = self.labels {
                set = set.with_labels(labels, classes)?;
            }
            if ending(path).is_some_and(|ending| ending == "npz") {
                npz::write(path, &set)?
            } else {
                npy::write(path, &set)?
            }
            return Ok(format!("{} (levels 0 to {})", path.display(), self.levels - 1));
        }
        let pages = self.pages(path)?;
        Ok(match &pages[..] {
            [one] => one.display().to_string(),
            [first, .., last] => format!("{} pages, {} to {}", pages.len(), first.display(), last.display()),
            [] => String::new(),
        })
    }

    /// The sheet as PNG files of whole rows, each as high as a picture may be.
    fn pages(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let pixels = Pixels::from_tensor(self.images, self.levels)?;
        let count = pixels.count();
        let columns = GridStyle::with_columns(self.columns).columns_for(count);
        let style = GridStyle::with_columns(columns);
        let [cell, _] = style.cell(pixels.shape());
        let rows = (MAX_SIDE.saturating_sub(1024) / cell.max(1)).max(1);
        let pages = count.div_ceil(columns).div_ceil(rows);
        let mut written = Vec::with_capacity(pages);
        for page in 0..pages {
            let range = page * rows * columns..count.min((page + 1) * rows * columns);
            let names = Names {
                rows: self.names.rows.iter().skip(page * rows).take(rows).cloned().collect(),
                columns: self.names.columns.clone(),
            };
            let picture = labelled(grid(&pixels.range(range)?, &style)?, style.cell(pixels.shape()), &names)?;
            let path = if page == 0 { path.to_path_buf() } else { numbered(path, page + 1) };
            write_png(&path, &picture.into())?;
            written.push(path);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn long_sheets_have_pages_and_arrays_have_everything() {
        let folder = tempfile::tempdir().unwrap();
        let images = Tensor::zeros((1200, 1, 2, 2), DType::U8, &Device::Cpu).unwrap();
        let sheet = |columns| Sheet { images: &images, levels: 17, columns, names: Names::default(), labels: None };
        let words = sheet(2).write(&folder.path().join("s.png")).unwrap();
        assert!(words.starts_with("2 pages, ") && words.ends_with("s-2.png"), "{words}");
        let height = |name: &str| image::image_dimensions(folder.path().join(name)).unwrap().1;
        // 600 rows of 66 pixels, and two pixels below the last of each page.
        assert_eq!(height("s.png") + height("s-2.png"), 600 * 66 + 4);
        assert!(height("s.png") <= MAX_SIDE as u32);
        let error = sheet(600).write(&folder.path().join("w.png")).unwrap_err().to_string();
        assert!(error.contains("600 images in a line") && error.contains(".npy"), "{error}");
        let words = sheet(600).write(&folder.path().join("a.npy")).unwrap();
        assert!(words.ends_with("a.npy (levels 0 to 16)"), "{words}");
        assert_eq!(npy::read(&folder.path().join("a.npy")).unwrap().len(), 1200);
        assert!(check_drawable(4, Path::new("x.png")).unwrap_err().to_string().contains("--out x.npy"));
        check_drawable(4, Path::new("x.npz")).unwrap();
    }
}
