//! Probabilities as pictures.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use flow_core::FlowRng;
use flow_density::dlgm::{BinaryImages, Dlgm};
use flow_image::io::{GridStyle, Pixels, grid, write_grid, write_png};

use crate::plot::{Names, labelled};

/// Images decoded at once.
const BATCH: usize = 1000;

/// Images in a row of a sheet of reconstructions.
pub(super) const COLUMNS: usize = 10;

/// Brightness of every pixel of probabilities `(B, height · width)`.
fn bytes(probabilities: &Tensor) -> Result<Vec<u8>> {
    let values: Vec<f32> = probabilities.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().map(|p| (255.0 * p.clamp(0.0, 1.0)).round() as u8).collect())
}

/// How images are drawn from the prior.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    /// How many.
    pub(super) count: usize,
    /// Scale of the latents.
    pub(super) temperature: f64,
    /// Draw the pixels instead of showing their probabilities.
    pub(super) binary: bool,
}

/// Writes a sheet of images drawn from the prior.
pub(super) fn write_samples(model: &Dlgm, draw: Draw, columns: usize, path: &Path, rng: &mut FlowRng) -> Result<()> {
    let [height, width] = model.config().shape;
    let mut all = Vec::with_capacity(draw.count * height * width);
    for first in (0..draw.count).step_by(BATCH) {
        let count = BATCH.min(draw.count - first);
        let probabilities = model.sample(count, draw.temperature, rng)?;
        if draw.binary {
            let probabilities: Vec<f32> = probabilities.flatten_all()?.to_vec1()?;
            all.extend(probabilities.iter().map(|&p| if rng.next_uniform() < f64::from(p) { 255 } else { 0 }));
        } else {
            all.extend(bytes(&probabilities)?);
        }
    }
    Ok(write_grid(path, &Pixels::from_bytes(all, [1, height, width])?, &GridStyle::with_columns(columns))?)
}

/// Writes a sheet of the first `count` images, each above what one draw from its posterior decodes to; returns how many
/// there were.
pub(super) fn write_reconstructions(
    model: &Dlgm,
    images: &BinaryImages,
    count: usize,
    path: &Path,
    rng: &mut FlowRng,
) -> Result<usize> {
    let [height, width] = model.config().shape;
    let count = count.min(images.len());
    let columns = COLUMNS.min(count);
    let mut all = Vec::with_capacity(2 * count * height * width);
    for first in (0..count).step_by(columns.max(1)) {
        let places: Vec<usize> = (first..count.min(first + columns)).collect();
        let x = images.batch(&places, model.store().dtype(), model.store().device())?;
        for row in [&x, &model.reconstruct(&x, rng)?] {
            all.extend(bytes(row)?);
            // A last row that is not full stays below its images.
            all.resize(all.len() + (columns - places.len()) * height * width, 0);
        }
    }
    let (pixels, style) = (Pixels::from_bytes(all, [1, height, width])?, GridStyle::with_columns(columns));
    let pairs = count.div_ceil(columns.max(1));
    let names =
        Names { rows: ["image", "decoded"].repeat(pairs).into_iter().map(String::from).collect(), columns: Vec::new() };
    write_png(path, &labelled(grid(&pixels, &style)?, style.cell(pixels.shape()), &names)?.into())?;
    Ok(count)
}
