//! Many clips on one picture, or side by side in one clip.

use std::path::Path;

use flow_image::io::{GridStyle, Pixels, write_grid};

use crate::{Error, Result};

/// The future of one clip as rows of frames: what was given and what came, and under it what was predicted.
///
/// [`Sheet::frames`] is a grid, row by row, for [`super::grid`] with [`Sheet::columns`] columns; a program that draws text
/// puts [`Sheet::row_names`] beside it and [`Sheet::column_names`] above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    frames: Pixels,
    columns: usize,
    context: usize,
    samples: usize,
}

impl Sheet {
    /// Rows: the true clip, of which the first `context` frames were given, then each sample, behind the same given frames.
    /// A shorter sample or truth leaves its places black.
    ///
    /// # Errors
    /// Samples of other frames than the truth's, or more context than there are true frames.
    pub fn new(truth: &Pixels, context: usize, samples: &[Pixels]) -> Result<Self> {
        if context > truth.count() {
            let reason = format!("{context} frames of {} are no context", truth.count());
            return Err(Error::config("sheet", reason));
        }
        check_shapes(truth, samples)?;
        let size = truth.shape().iter().product::<usize>();
        let longest = samples.iter().map(|sample| context + sample.count()).max().unwrap_or(0);
        let columns = truth.count().max(longest);
        let mut values = vec![0; (1 + samples.len()) * columns * size];
        let mut put = |row: usize, column: usize, frames: &Pixels| {
            let start = (row * columns + column) * size;
            values[start..start + frames.bytes().len()].copy_from_slice(frames.bytes());
        };
        put(0, 0, truth);
        if context > 0 && !samples.is_empty() {
            let given = Pixels::from_bytes(truth.bytes()[..context * size].to_vec(), truth.shape())?;
            (1..=samples.len()).for_each(|row| put(row, 0, &given));
        }
        samples.iter().enumerate().for_each(|(index, sample)| put(index + 1, context, sample));
        let frames = Pixels::from_bytes(values, truth.shape())?;
        Ok(Sheet { frames, columns, context, samples: samples.len() })
    }

    /// All places, row by row.
    pub fn frames(&self) -> &Pixels {
        &self.frames
    }

    /// Frames in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `truth`, `sample 1` and so on.
    pub fn row_names(&self) -> Vec<String> {
        std::iter::once("truth".to_string()).chain((1..=self.samples).map(|n| format!("sample {n}"))).collect()
    }

    /// The numbers of the frames, those of the future with a plus: `1`, `2`, `+1`, `+2` …
    pub fn column_names(&self) -> Vec<String> {
        let name = |column: usize| match column.checked_sub(self.context) {
            Some(future) => format!("+{}", future + 1),
            None => format!("{}", column + 1),
        };
        (0..self.columns).map(name).collect()
    }

    /// The sheet without names as a PNG file, complete or not at all.
    ///
    /// # Errors
    /// A picture that is too large, or a failure of the file system.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_grid(path, &self.frames, &GridStyle::with_columns(self.columns))?)
    }
}

/// Clips beside each other in one, `gap` grey columns between them; shorter ones stay on their last frame.
///
/// # Errors
/// No clip, or clips of frames of different shapes.
pub fn side_by_side(clips: &[Pixels], gap: usize) -> Result<Pixels> {
    let Some((first, rest)) = clips.split_first() else {
        return Err(Error::config("side by side", "there is no clip"));
    };
    check_shapes(first, rest)?;
    let [channels, height, width] = first.shape();
    let longest = clips.iter().map(Pixels::count).max().unwrap_or(0);
    let frame_size = channels * height * width;
    let total = clips.len() * (width + gap) - gap;
    let mut values = Vec::with_capacity(longest * channels * height * total);
    for frame in 0..longest {
        for row in 0..channels * height {
            for (index, clip) in clips.iter().enumerate() {
                if index > 0 {
                    values.extend(std::iter::repeat_n(96, gap));
                }
                let start = frame.min(clip.count() - 1) * frame_size + row * width;
                values.extend_from_slice(&clip.bytes()[start..start + width]);
            }
        }
    }
    Ok(Pixels::from_bytes(values, [channels, height, total])?)
}

fn check_shapes(first: &Pixels, others: &[Pixels]) -> Result<()> {
    match others.iter().find(|other| other.shape() != first.shape()) {
        Some(other) => {
            let reason = format!("frames of {:?} and of {:?}", first.shape(), other.shape());
            Err(Error::config("clips", reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(values: &[u8]) -> Pixels {
        Pixels::from_bytes(values.to_vec(), [1, 1, 2]).unwrap()
    }

    #[test]
    fn rows_are_the_truth_and_samples_after_the_context() {
        let truth = clip(&[1, 2, 3, 4, 5, 6]);
        let sheet = Sheet::new(&truth, 1, &[clip(&[7, 8]), clip(&[9, 10, 11, 12, 13, 14])]).unwrap();
        assert_eq!(sheet.columns(), 4);
        let rows: Vec<&[u8]> = sheet.frames().bytes().chunks(8).collect();
        assert_eq!(rows, [&[1, 2, 3, 4, 5, 6, 0, 0], &[1, 2, 7, 8, 0, 0, 0, 0], &[1, 2, 9, 10, 11, 12, 13, 14]]);
        assert_eq!(sheet.row_names(), ["truth", "sample 1", "sample 2"]);
        assert_eq!(sheet.column_names(), ["1", "+1", "+2", "+3"]);
        assert!(Sheet::new(&truth, 4, &[]).is_err());
        let other = Pixels::from_bytes(vec![0; 3], [1, 1, 3]).unwrap();
        assert!(Sheet::new(&truth, 1, &[other]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        sheet.write(&path).unwrap();
        assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn clips_stand_beside_each_other_and_wait_for_the_longest() {
        let both = side_by_side(&[clip(&[1, 2]), clip(&[5, 6, 7, 8])], 1).unwrap();
        assert_eq!((both.shape(), both.bytes()), ([1, 1, 5], &[1, 2, 96, 5, 6, 1, 2, 96, 7, 8][..]));
        assert!(side_by_side(&[], 1).is_err());
    }
}
