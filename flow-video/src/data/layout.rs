//! What the axes of an array of clips mean.

use std::path::Path;

use flow_image::data::array::MAGIC;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The order of the axes: `N` clips, `T` frames, `C` channels, `H` rows, `W` columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// By the shape, where it has one meaning:
    ///
    /// - three axes are one grey clip `[T, H, W]`;
    /// - four are one clip with channels, `[T, H, W, C]` or `[T, C, H, W]`, if one axis is 1 or 3 and can only be the
    ///   channels; otherwise clips and frames, of which the number that is at least four times the other is the clips:
    ///   `[N, T, H, W]`, or `[T, N, H, W]` as in Moving-MNIST's own `[20, 10000, 64, 64]`;
    /// - five are the same with channels, last or in the middle.
    ///
    /// What can be read in two ways is refused, as is a shape that the values contradict: neighbours in time differ less
    /// than neighbouring clips.
    #[default]
    Auto,
    /// `[T, H, W]`: one grey clip.
    Thw,
    /// `[T, H, W, C]`: one clip.
    Thwc,
    /// `[T, C, H, W]`: one clip.
    Tchw,
    /// `[N, T, H, W]`
    Nthw,
    /// `[T, N, H, W]`, as Moving-MNIST has it.
    Tnhw,
    /// `[N, T, H, W, C]`
    Nthwc,
    /// `[N, T, C, H, W]`
    Ntchw,
    /// `[T, N, H, W, C]`
    Tnhwc,
    /// `[T, N, C, H, W]`
    Tnchw,
}

/// More clips than frames by this factor tell the two apart.
const MANY: usize = 4;

impl Layout {
    /// The axes in their order.
    pub fn letters(self) -> &'static str {
        match self {
            Layout::Auto => "auto",
            Layout::Thw => "thw",
            Layout::Thwc => "thwc",
            Layout::Tchw => "tchw",
            Layout::Nthw => "nthw",
            Layout::Tnhw => "tnhw",
            Layout::Nthwc => "nthwc",
            Layout::Ntchw => "ntchw",
            Layout::Tnhwc => "tnhwc",
            Layout::Tnchw => "tnchw",
        }
    }
}

/// The length of every axis of an array of clips, and how far apart its elements lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axes {
    pub(super) layout: Layout,
    /// Lengths of `N`, `T`, `C`, `H`, `W`; 1 where there is no such axis.
    pub(super) lengths: [usize; 5],
    strides: [usize; 5],
}

impl Axes {
    /// The axes of an array of this shape.
    ///
    /// # Errors
    /// Another number of axes, channels other than 1 or 3, or a shape that can be read in two ways, with what to say.
    pub(super) fn of(path: &Path, dims: &[usize], layout: Layout) -> Result<Self> {
        let layout = if layout == Layout::Auto { guess(path, dims)? } else { layout };
        let letters = layout.letters();
        if letters.len() != dims.len() {
            let expected = format!("{} axes, as --layout {letters} says", letters.len());
            return Err(refused(path, expected, dims));
        }
        let (mut lengths, mut strides) = ([1; 5], [0; 5]);
        for (axis, letter) in letters.chars().enumerate() {
            if let Some(place) = "ntchw".find(letter) {
                lengths[place] = dims[axis];
                strides[place] = dims[axis + 1..].iter().product();
            }
        }
        if !matches!(lengths[2], 1 | 3) {
            return Err(refused(path, format!("1 or 3 channels, as --layout {letters} says"), dims));
        }
        Ok(Axes { layout, lengths, strides })
    }

    /// The values `[H, W, C]` of one frame.
    pub(super) fn frame(&self, values: &[u8], clip: usize, frame: usize) -> Vec<u8> {
        let [_, _, channels, height, width] = self.lengths;
        let [n, t, c, h, w] = self.strides;
        let start = clip * n + frame * t;
        let mut out = Vec::with_capacity(channels * height * width);
        for row in 0..height {
            for column in 0..width {
                let pixel = start + row * h + column * w;
                out.extend((0..channels).map(|channel| values[pixel + channel * c]));
            }
        }
        out
    }

    /// Whether neighbours in time differ clearly more than neighbouring clips do: then the two are the wrong way round.
    pub(super) fn contradicted_by(&self, values: &[u8]) -> bool {
        let [clips, frames, ..] = self.lengths;
        if clips < 2 || frames < 2 {
            return false;
        }
        let (mut in_time, mut between) = (0u64, 0u64);
        let (clip_step, frame_step) = ((clips - 1).div_ceil(16), (frames - 1).div_ceil(4));
        for clip in (0..clips - 1).step_by(clip_step) {
            for frame in (0..frames - 1).step_by(frame_step) {
                let here = self.frame(values, clip, frame);
                in_time += difference(&here, &self.frame(values, clip, frame + 1));
                between += difference(&here, &self.frame(values, clip + 1, frame));
            }
        }
        in_time * 4 > between * 5
    }
}

fn difference(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
}

/// [`Layout::Auto`].
fn guess(path: &Path, dims: &[usize]) -> Result<Layout> {
    let ambiguous = |what: &str| Err(refused(path, format!("axes with one meaning, or --layout: {what}"), dims));
    let few = |n: usize| n == 1 || n == 3;
    match *dims {
        [_, _, 3 | 4] => ambiguous("thw for a grey clip; one picture [H, W, C] is no clip"),
        [_, _, _] => Ok(Layout::Thw),
        [_, a, _, c] if few(a) && few(c) => ambiguous("tchw and thwc are both possible"),
        [_, _, _, c] if few(c) => Ok(Layout::Thwc),
        [_, 3, _, _] => ambiguous("tchw for one clip with colour, nthw for clips of 3 frames, tnhw for 3 clips"),
        [_, 1, _, _] => ambiguous("tchw for one grey clip; pictures [N, 1, H, W] are no clips"),
        [a, b, _, _] => match order(a, b) {
            Some(true) => Ok(Layout::Nthw),
            Some(false) => Ok(Layout::Tnhw),
            None => ambiguous("nthw or tnhw; neither axis is four times the other, as clips are of frames"),
        },
        [_, _, a, _, c] if few(a) && few(c) => ambiguous("ntchw and nthwc are both possible"),
        [n, t, a, _, c] if few(a) || few(c) => match (order(n, t), few(c)) {
            (Some(true), true) => Ok(Layout::Nthwc),
            (Some(true), false) => Ok(Layout::Ntchw),
            (Some(false), true) => Ok(Layout::Tnhwc),
            (Some(false), false) => Ok(Layout::Tnchw),
            (None, last) => ambiguous(if last { "nthwc or tnhwc" } else { "ntchw or tnchw" }),
        },
        _ => {
            let expected = "shape [N, T, H, W], [T, N, H, W] or [T, H, W], or one of them with 1 or 3 channels";
            Err(refused(path, expected.into(), dims))
        }
    }
}

/// Whether the first axis is the clips, the second the frames; `None` where the numbers do not tell.
fn order(first: usize, second: usize) -> Option<bool> {
    match (first, second) {
        (1, _) => Some(true),
        (a, b) if a >= b.saturating_mul(MANY) => Some(true),
        (a, b) if b >= a.saturating_mul(MANY) => Some(false),
        _ => None,
    }
}

pub(super) fn refused(path: &Path, expected: String, dims: &[usize]) -> Error {
    Error::format(path, MAGIC.len(), expected, format!("{dims:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(dims: &[usize], layout: Layout) -> Result<Axes> {
        Axes::of(Path::new("x.npy"), dims, layout)
    }

    #[test]
    fn one_meaning_is_taken_and_two_are_refused_with_the_remedy() {
        for (dims, layout, lengths) in [
            (&[20, 10_000, 64, 64][..], Layout::Tnhw, [10_000, 20, 1, 64, 64]),
            (&[100, 20, 64, 64], Layout::Nthw, [100, 20, 1, 64, 64]),
            (&[1, 20, 64, 64], Layout::Nthw, [1, 20, 1, 64, 64]),
            (&[30, 48, 64], Layout::Thw, [1, 30, 1, 48, 64]),
            (&[30, 48, 64, 3], Layout::Thwc, [1, 30, 3, 48, 64]),
            (&[200, 5, 64, 64, 3], Layout::Nthwc, [200, 5, 3, 64, 64]),
            (&[200, 5, 3, 64, 64], Layout::Ntchw, [200, 5, 3, 64, 64]),
            (&[5, 200, 64, 64, 1], Layout::Tnhwc, [200, 5, 1, 64, 64]),
            (&[5, 200, 1, 64, 64], Layout::Tnchw, [200, 5, 1, 64, 64]),
        ] {
            let found = axes(dims, Layout::Auto).unwrap();
            assert_eq!((found.layout, found.lengths), (layout, lengths), "{dims:?}");
        }
        for (dims, remedy) in [
            (&[20, 30, 64, 64][..], "nthw or tnhw"),
            (&[20, 20, 64, 64], "nthw or tnhw"),
            (&[20, 3, 64, 64], "tchw for one clip"),
            (&[20, 1, 64, 64], "tchw for one grey clip"),
            (&[20, 3, 64, 3], "tchw and thwc"),
            (&[64, 64, 3], "one picture"),
            (&[9, 7, 64, 64, 3], "nthwc or tnhwc"),
            (&[9, 7, 3, 64, 64], "ntchw or tnchw"),
            (&[90, 7, 3, 64, 3], "both possible"),
            (&[90, 7, 64, 64, 4], "1 or 3 channels"),
            (&[90, 7], "[N, T, H, W]"),
            (&[1, 1, 1, 1, 1, 1], "[N, T, H, W]"),
        ] {
            let error = axes(dims, Layout::Auto).unwrap_err().to_string();
            assert!(error.contains(remedy), "{dims:?}: {error}");
        }
        assert_eq!(axes(&[20, 30, 64, 64], Layout::Tnhw).unwrap().lengths, [30, 20, 1, 64, 64]);
        assert!(axes(&[20, 30, 64, 64], Layout::Nthwc).unwrap_err().to_string().contains("5 axes, as --layout nthwc"));
        assert!(axes(&[20, 2, 64, 64], Layout::Tchw).unwrap_err().to_string().contains("1 or 3 channels"));
    }

    #[test]
    fn every_order_of_axes_gives_the_same_frames() {
        let lengths = [2, 3, 3, 2, 4];
        let value = |i: [usize; 5]| (i[0] * 100 + i[1] * 30 + i[2] * 9 + i[3] * 4 + i[4]) as u8;
        for layout in [Layout::Nthwc, Layout::Ntchw, Layout::Tnhwc, Layout::Tnchw] {
            let places: Vec<usize> = layout.letters().chars().map(|l| "ntchw".find(l).unwrap()).collect();
            let dims: Vec<usize> = places.iter().map(|&place| lengths[place]).collect();
            let mut values = Vec::new();
            for flat in 0..dims.iter().product() {
                let (mut rest, mut index) = (flat, [0; 5]);
                for axis in (0..5).rev() {
                    index[places[axis]] = rest % dims[axis];
                    rest /= dims[axis];
                }
                values.push(value(index));
            }
            let axes = axes(&dims, layout).unwrap();
            let wanted: Vec<u8> =
                (0..2).flat_map(|h| (0..4).flat_map(move |w| (0..3).map(move |c| value([1, 2, c, h, w])))).collect();
            assert_eq!(axes.frame(&values, 1, 2), wanted, "{layout:?}");
        }
    }

    #[test]
    fn values_that_move_slowly_along_the_clips_contradict_the_shape() {
        // Five clips of 40 frames whose values change by one a frame and by 50 a clip.
        let values: Vec<u8> = (0..5).flat_map(|clip| (0..40).map(move |frame| clip * 50 + frame)).collect();
        assert!(axes(&[5, 40, 1, 1], Layout::Tnhw).unwrap().contradicted_by(&values));
        assert!(!axes(&[5, 40, 1, 1], Layout::Nthw).unwrap().contradicted_by(&values));
    }
}
