//! NumPy arrays of images.
//!
//! Any numbers in either byte order and either order of axes: `[N, H, W]`, `[N, C, H, W]`, `[N, H, W, C]` or
//! `[H, W, C, N]` (see [`Layout`]); integers are levels, floats are scaled by a stated rule (see [`Range`]).

use std::path::Path;

pub use flow_core::files::numpy::encode;
use serde::{Deserialize, Serialize};

pub use super::array::MAGIC;
use super::array::{self, Array};
use super::layout::Axes;
use super::levels::levels;
use super::{Dataset, Layout, Range, foreign, is_default, read_file};
use crate::{Error, Result};

/// How an array becomes a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ArrayOptions {
    /// What the axes mean.
    #[serde(skip_serializing_if = "is_default")]
    pub layout: Layout,
    /// Between which values floats lie.
    #[serde(skip_serializing_if = "is_default")]
    pub range: Range,
}

impl ArrayOptions {
    /// Axes and range.
    pub fn new(layout: Layout, range: Range) -> Self {
        ArrayOptions { layout, range }
    }
}

/// All images of one array, by [`Layout::Auto`] and [`Range::Auto`].
///
/// # Errors
/// Those of [`read_with`].
pub fn read(path: &Path) -> Result<Dataset> {
    read_with(path, &ArrayOptions::default())
}

/// All images of one array.
///
/// # Errors
/// A malformed header, elements that are no numbers, axes that can be read in two ways, a length that contradicts the
/// shape, or a number that is no level under the rule, named with its index.
pub fn read_with(path: &Path, options: &ArrayOptions) -> Result<Dataset> {
    let bytes = read_file(path)?;
    foreign::refuse(path, &bytes)?;
    images(path, &array::parse(path, &bytes)?, options)
}

/// The images of an array; `path` names it in messages.
pub(super) fn images(path: &Path, array: &Array, options: &ArrayOptions) -> Result<Dataset> {
    let dims = array.shape();
    let axes = Axes::of(path, dims, options.layout)?;
    let levels = levels(path, array, options.range)?;
    let values = axes.channels_first(levels.values, dims);
    let source = path.display().to_string();
    let notes = levels.note.map(|note| format!("{source}: {note}"));
    Ok(Dataset::new(values, axes.shape(dims), 256, source)?.with_range(levels.range).with_notes(notes))
}

/// Writes a data set's levels as bytes, `[N, C, H, W]`; [`read_with`] and [`Layout::Nchw`] give them back.
///
/// # Errors
/// Names the file when it cannot be written; nothing half-written is left.
pub fn write(path: &Path, set: &Dataset) -> Result<()> {
    let shape: Vec<u64> = std::iter::once(set.len()).chain(set.shape()).map(|n| n as u64).collect();
    let bytes = encode(&shape, set.images()).map_err(Error::io(path))?;
    Ok(flow_core::files::atomic_write(path, &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_sets_of_any_channel_count_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        for channels in [1, 2, 3, 5] {
            let path = folder.path().join(format!("{channels}.npy"));
            let images: Vec<u8> = (0..2 * channels * 4 * 6).map(|i| (i * 7 % 256) as u8).collect();
            let set = Dataset::new(images, [channels, 4, 6], 256, "made").unwrap();
            write(&path, &set).unwrap();
            let again = read_with(&path, &ArrayOptions::new(Layout::Nchw, Range::Auto)).unwrap();
            assert_eq!((again.shape(), again.images()), (set.shape(), set.images()));
            assert_eq!(read(&path).is_ok(), [1, 3].contains(&channels), "two or five may be rows as well");
        }
    }

    /// Levels, range and notes of a float or integer array of 1x1xn.
    fn one(dtype: &str, body: Vec<u8>, size: usize, range: Range) -> Result<Dataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let n = body.len() / size;
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1, 1, {n}), }}\n");
        let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(&path, [start, body].concat()).unwrap();
        read_with(&path, &ArrayOptions::new(Layout::Auto, range))
    }

    fn floats(values: &[f32], range: Range) -> Result<Dataset> {
        one("<f4", values.iter().flat_map(|v| v.to_le_bytes()).collect(), 4, range)
    }

    #[test]
    fn floats_are_read_by_the_stated_rule() {
        let cases: [(&[f32], Range, &[u8], Range); 9] = [
            (&[0.0, 0.5, 100.0 / 255.0, 1.0], Range::Auto, &[0, 128, 100, 255], Range::Unit),
            (&[-1.0, 0.0, 1.0, 0.2], Range::Auto, &[0, 128, 255, 153], Range::Signed),
            (&[0.0, 2.0, 255.0], Range::Auto, &[0, 2, 255], Range::Bytes),
            (&[0.0, 7.0], Range::Auto, &[0, 7], Range::Bytes),
            (&[0.4, 200.6], Range::Auto, &[0, 201], Range::Bytes),
            (&[0.0, 1.0], Range::Auto, &[0, 255], Range::Unit),
            (&[0.0, 1.0], Range::Bytes, &[0, 1], Range::Bytes),
            (&[0.5, 1.0], Range::Signed, &[191, 255], Range::Signed),
            (&[0.5, 20.5], Range::Bytes, &[1, 21], Range::Bytes),
        ];
        for (values, given, levels, used) in cases {
            let set = floats(values, given).unwrap();
            assert_eq!((set.images(), set.range()), (levels, Some(used)), "{values:?}");
            assert!(set.notes()[0].contains("float32 read as ["), "{:?}", set.notes());
        }
        assert!(floats(&[0.3, 1.0], Range::Auto).unwrap().notes()[0].contains("1 of 2 values lay between"));
        assert!(!floats(&[100.0 / 255.0], Range::Auto).unwrap().notes()[0].contains("between"));
        for (values, range, expected) in [
            (&[-2.1, 2.6][..], Range::Auto, "floats from -2.1"),
            (&[0.0, 1.5], Range::Auto, "--range bytes"),
            (&[0.0, 256.0], Range::Auto, "neither in 0 to 1"),
            (&[0.0, f32::NAN], Range::Auto, "element 1 is NaN"),
            (&[0.0, f32::INFINITY], Range::Bytes, "element 1 is inf"),
            (&[0.0, 1.5], Range::Unit, "element 1 is 1.5, expected 0 to 1"),
            (&[0.0, -0.5], Range::Unit, "element 1 is -0.5"),
        ] {
            let error = floats(values, range).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn integers_are_levels_and_truth_values_black_and_white() {
        let set = one("|b1", vec![0, 1, 1], 1, Range::Auto).unwrap();
        assert_eq!((set.images(), set.range()), (&[0, 255, 255][..], None));
        assert!(set.notes()[0].contains("True level 255"));
        let wide = |values: &[i64]| one("<i8", values.iter().flat_map(|v| v.to_le_bytes()).collect(), 8, Range::Auto);
        let set = wide(&[0, 200, 255]).unwrap();
        assert_eq!((set.images(), set.notes().len()), (&[0, 200, 255][..], 0));
        assert!(wide(&[0, 1]).unwrap().notes()[0].contains("reach only 1 of 255"));
        assert!(wide(&[0, 256]).unwrap_err().to_string().contains("element 1 is 256, int64 are levels 0 to 255"));
        assert!(wide(&[-1, 0]).unwrap_err().to_string().contains("shift the values"));
        let deep = one(">u2", vec![255, 255, 0, 0], 2, Range::Auto).unwrap_err().to_string();
        assert!(deep.contains("element 0 is 65535") && deep.contains("// 257"), "{deep}");
    }
}
