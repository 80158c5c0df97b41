//! Clips as files: animations of clips side by side, sheets with names, arrays.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use flow_video::io::{GridStyle, Pixels, Sheet, check_name, grid, side_by_side, write_clip, write_npy};

use crate::plot::{Names, labelled};

/// Columns of grey between clips that stand side by side.
const GAP: usize = 2;
/// Frames are shown at least so high, in whole multiples.
const SHOWN: usize = 128;

/// Refuses a name of another format before the work.
pub(super) fn check(path: &Path, fps: f64) -> Result<()> {
    if is_sheet(path) { Ok(()) } else { Ok(check_name(path, fps)?) }
}

/// A still picture is a sheet; an animated PNG has its own ending here.
fn is_sheet(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

/// The frames of a clip `(T, C, H, W)` of levels.
pub(super) fn pixels(clip: &Tensor, levels: usize) -> Result<Pixels> {
    Ok(Pixels::from_tensor(&clip.to_device(&Device::Cpu)?.to_dtype(DType::F32)?, levels)?)
}

/// A clip with what came of it: the truth and futures that begin after `context` frames.
pub(super) struct Futures {
    /// Given frames, and what happened after them where it is known.
    pub(super) truth: Pixels,
    /// How many are given.
    pub(super) context: usize,
    /// What was drawn.
    pub(super) drawn: Vec<Pixels>,
}

impl Futures {
    /// Writes where `path` says: `.png` is a sheet with time from left to right, `.npy` the drawn frames as they are, anything
    /// else an animation of the truth beside the futures, all beginning with the given frames.
    pub(super) fn write(&self, path: &Path, fps: f64) -> Result<()> {
        if is_sheet(path) {
            return self.write_sheet(path);
        }
        if path.extension().is_some_and(|ending| ending == "npy") {
            return Ok(write_npy(path, &self.drawn)?);
        }
        let size = self.truth.shape().iter().product::<usize>();
        let given = &self.truth.bytes()[..self.context * size];
        let whole = |future: &Pixels| Pixels::from_bytes([given, future.bytes()].concat(), future.shape());
        let mut clips = vec![self.truth.clone()];
        clips.extend(self.drawn.iter().map(whole).collect::<flow_image::Result<Vec<_>>>()?);
        Ok(write_clip(path, &enlarged(&side_by_side(&clips, GAP)?)?, fps)?)
    }

    fn write_sheet(&self, path: &Path) -> Result<()> {
        let sheet = Sheet::new(&self.truth, self.context, &self.drawn)?;
        let style = GridStyle::with_columns(sheet.columns());
        let names = Names { rows: sheet.row_names(), columns: sheet.column_names() };
        let picture = labelled(grid(sheet.frames(), &style)?, style.cell(self.truth.shape()), &names)?;
        Ok(flow_image::io::write_png(path, &picture.into())?)
    }
}

/// Clips without a truth: a sheet with a clip in each row, or an animation of all side by side.
pub(super) fn write_clips(path: &Path, clips: &[Pixels], names: Vec<String>, fps: f64) -> Result<()> {
    if path.extension().is_some_and(|ending| ending == "npy") {
        return Ok(write_npy(path, clips)?);
    }
    if !is_sheet(path) {
        return Ok(write_clip(path, &enlarged(&side_by_side(clips, GAP)?)?, fps)?);
    }
    let columns = clips.iter().map(Pixels::count).max().unwrap_or(1);
    let Some(shape) = clips.first().map(Pixels::shape) else { return Ok(()) };
    let size = shape.iter().product::<usize>();
    let mut values = vec![0; clips.len() * columns * size];
    for (row, clip) in values.chunks_exact_mut(columns * size).zip(clips) {
        row[..clip.bytes().len()].copy_from_slice(clip.bytes());
    }
    let style = GridStyle::with_columns(columns);
    let names = Names { rows: names, columns: (1..=columns).map(|t| t.to_string()).collect() };
    let picture = labelled(grid(&Pixels::from_bytes(values, shape)?, &style)?, style.cell(shape), &names)?;
    Ok(flow_image::io::write_png(path, &picture.into())?)
}

/// Small frames in whole multiples of their size, so that they can be looked at.
fn enlarged(clip: &Pixels) -> Result<Pixels> {
    Ok(clip.enlarged((SHOWN / clip.shape()[1].max(1)).max(1))?)
}
