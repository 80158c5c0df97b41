//! What the axes of an array of images mean.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ImageShape;
use super::array::MAGIC;
use crate::{Error, Result};

/// The order of the axes: `N` images, `C` channels, `H` rows, `W` columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// `[N, H, W]`, or `[N, C, H, W]` or `[N, H, W, C]` with one or three channels where only one of them fits; what
    /// can be read in two ways is refused.
    #[default]
    Auto,
    /// `[N, H, W]`
    Nhw,
    /// `[N, C, H, W]`, as PyTorch has it; any number of channels.
    Nchw,
    /// `[N, H, W, C]`, as TensorFlow has it; any number of channels.
    Nhwc,
    /// `[H, W, C, N]`, as MATLAB has it; any number of channels.
    Hwcn,
}

/// The places of the axes `N`, `H`, `W` and, if there is one, `C` in an array's shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes {
    count: usize,
    rows: usize,
    columns: usize,
    channels: Option<usize>,
}

const NHW: Axes = Axes { count: 0, rows: 1, columns: 2, channels: None };
const NCHW: Axes = Axes { count: 0, rows: 2, columns: 3, channels: Some(1) };
const NHWC: Axes = Axes { count: 0, rows: 1, columns: 2, channels: Some(3) };
const HWCN: Axes = Axes { count: 3, rows: 0, columns: 1, channels: Some(2) };

impl Axes {
    /// The axes of an array of this shape.
    ///
    /// # Errors
    /// Another number of axes, or a shape that can be read in two ways, with what to say.
    pub(super) fn of(path: &Path, dims: &[usize], layout: Layout) -> Result<Self> {
        let (axes, rank) = match layout {
            Layout::Auto => return guess(path, dims),
            Layout::Nhw => (NHW, 3),
            Layout::Nchw => (NCHW, 4),
            Layout::Nhwc => (NHWC, 4),
            Layout::Hwcn => (HWCN, 4),
        };
        if dims.len() == rank {
            return Ok(axes);
        }
        Err(refused(path, format!("{rank} axes, as --layout {} says", name(layout)), dims))
    }

    /// `(C, H, W)` of an array of shape `dims`.
    pub(super) fn shape(&self, dims: &[usize]) -> ImageShape {
        [self.channels.map_or(1, |axis| dims[axis]), dims[self.rows], dims[self.columns]]
    }

    /// Values of an array of shape `dims` as `[N, C, H, W]`.
    pub(super) fn channels_first(&self, values: Vec<u8>, dims: &[usize]) -> Vec<u8> {
        let [channels, height, width] = self.shape(dims);
        if self.count == 0 && (channels == 1 || self.channels == Some(1)) {
            return values;
        }
        let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
        let (by_row, by_column) = (stride(self.rows), stride(self.columns));
        let by_channel = self.channels.map_or(0, stride);
        let mut out = Vec::with_capacity(values.len());
        for image in 0..dims[self.count] {
            for channel in 0..channels {
                for row in 0..height {
                    let start = image * stride(self.count) + channel * by_channel + row * by_row;
                    out.extend((0..width).map(|column| values[start + column * by_column]));
                }
            }
        }
        out
    }
}

/// [`Layout::Auto`].
fn guess(path: &Path, dims: &[usize]) -> Result<Axes> {
    let ambiguous = |what: &str| Err(refused(path, format!("axes with one meaning, or --layout: {what}"), dims));
    let few = |n: usize| n == 1 || n == 3;
    match *dims {
        [h, w, 3 | 4] if h > 4 && w > 4 => {
            ambiguous("nhw for many images without colour; one picture [H, W, C] needs an axis more, x[None]")
        }
        [3 | 4, h, w] if h > 4 && w > 4 => {
            ambiguous("nhw for three or four images without colour; one picture [C, H, W] needs an axis more, x[None]")
        }
        [_, _, _] => Ok(NHW),
        [_, a, _, c] if few(a) && few(c) => ambiguous("nchw and nhwc are both possible"),
        [_, a, _, _] if few(a) => Ok(NCHW),
        [_, _, _, c] if few(c) => Ok(NHWC),
        [_, _, _, 4] => ambiguous("nhwc for colour with transparency (x[..., :3] drops it), nchw for many channels"),
        [_, _, 1 | 3, _] => ambiguous("hwcn for MATLAB's order [H, W, C, N], nchw for many channels"),
        [_, _, _, _] => ambiguous("nchw or nhwc, which take any number of channels"),
        [_, _] => {
            let expected = "shape [N, H, W]; flattened images need their sides back, x.reshape(-1, H, W)";
            Err(refused(path, expected.into(), dims))
        }
        _ => {
            let expected = "shape [N, H, W], [N, C, H, W] or, with 1 or 3 channels, [N, H, W, C]";
            Err(refused(path, expected.into(), dims))
        }
    }
}

fn name(layout: Layout) -> &'static str {
    match layout {
        Layout::Auto => "auto",
        Layout::Nhw => "nhw",
        Layout::Nchw => "nchw",
        Layout::Nhwc => "nhwc",
        Layout::Hwcn => "hwcn",
    }
}

fn refused(path: &Path, expected: String, dims: &[usize]) -> Error {
    Error::format(path, MAGIC.len(), expected, format!("{dims:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(dims: &[usize], layout: Layout) -> Result<[usize; 3]> {
        Axes::of(Path::new("x.npy"), dims, layout).map(|axes| axes.shape(dims))
    }

    #[test]
    fn one_meaning_is_taken_and_two_are_refused_with_the_remedy() {
        for (dims, shape) in [
            (&[7, 5, 6][..], [1, 5, 6]),
            (&[1, 64, 64], [1, 64, 64]),
            (&[7, 3, 5, 6], [3, 5, 6]),
            (&[7, 1, 28, 28], [1, 28, 28]),
            (&[7, 5, 6, 3], [3, 5, 6]),
            (&[7, 28, 28, 1], [1, 28, 28]),
        ] {
            assert_eq!(axes(dims, Layout::Auto).unwrap(), shape, "{dims:?}");
        }
        for (dims, remedy) in [
            (&[7, 5, 6, 4][..], "nhwc for colour with transparency"),
            (&[7, 4, 5, 6], "any number of channels"),
            (&[7, 2, 5, 6], "any number of channels"),
            (&[7, 3, 5, 3], "both possible"),
            (&[7, 1, 5, 3], "both possible"),
            (&[32, 32, 3, 7], "hwcn for MATLAB"),
            (&[64, 64, 3], "x[None]"),
            (&[64, 64, 4], "x[None]"),
            (&[3, 64, 64], "x[None]"),
            (&[60, 784], "reshape"),
            (&[60], "[N, H, W]"),
        ] {
            let error = axes(dims, Layout::Auto).unwrap_err().to_string();
            assert!(error.contains(remedy), "{dims:?}: {error}");
        }
        assert_eq!(axes(&[7, 4, 5, 6], Layout::Nchw).unwrap(), [4, 5, 6]);
        assert_eq!(axes(&[7, 5, 6, 4], Layout::Nhwc).unwrap(), [4, 5, 6]);
        assert_eq!(axes(&[64, 64, 3], Layout::Nhw).unwrap(), [1, 64, 3]);
        assert!(axes(&[7, 5, 6], Layout::Nchw).unwrap_err().to_string().contains("--layout nchw"));
    }

    #[test]
    fn any_order_of_axes_becomes_channels_first() {
        // Value n·100 + c·36 + h·6 + w·1 at every place, in each order.
        let (n, c, h, w) = (2, 3, 4, 5);
        let value = |n: usize, c: usize, h: usize, w: usize| (n * 100 + c * 30 + h * 6 + w) as u8;
        let all = |sizes: [usize; 4], at: &dyn Fn([usize; 4]) -> u8| -> Vec<u8> {
            let mut out = Vec::new();
            for i in 0..sizes.iter().product() {
                let mut rest = i;
                let mut index = [0; 4];
                for axis in (0..4).rev() {
                    index[axis] = rest % sizes[axis];
                    rest /= sizes[axis];
                }
                out.push(at(index));
            }
            out
        };
        let wanted = all([n, c, h, w], &|[n, c, h, w]| value(n, c, h, w));
        for (layout, sizes, array) in [
            (Layout::Nchw, [n, c, h, w], wanted.clone()),
            (Layout::Nhwc, [n, h, w, c], all([n, h, w, c], &|[n, h, w, c]| value(n, c, h, w))),
            (Layout::Hwcn, [h, w, c, n], all([h, w, c, n], &|[h, w, c, n]| value(n, c, h, w))),
        ] {
            let axes = Axes::of(Path::new("x"), &sizes, layout).unwrap();
            assert_eq!(axes.shape(&sizes), [c, h, w]);
            assert_eq!(axes.channels_first(array, &sizes), wanted, "{layout:?}");
        }
    }
}
