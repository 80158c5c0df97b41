//! Luma and chroma as red, green and blue.

use image::{DynamicImage, RgbImage};

/// Which weights red, green and blue have in luma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrix {
    /// ITU-R BT.601, of standard definition.
    Bt601,
    /// ITU-R BT.709, of high definition.
    #[cfg_attr(not(feature = "ffmpeg"), allow(dead_code, reason = "Y4M does not have it"))]
    Bt709,
}

impl Matrix {
    /// Red, green and blue of one sample, whose levels are 0 to 255 in full range, else 16 to 235 (chroma: 240).
    pub(super) fn rgb(self, y: u8, u: u8, v: u8, full: bool) -> [u8; 3] {
        let (y, u, v) = (f32::from(y), f32::from(u) - 128.0, f32::from(v) - 128.0);
        let (luma, chroma) = if full { (y, 1.0) } else { ((y - 16.0) * (255.0 / 219.0), 255.0 / 224.0) };
        let (u, v) = (u * chroma, v * chroma);
        let [r, g_u, g_v, b] = match self {
            Matrix::Bt601 => [1.402, 0.344_136_3, 0.714_136_3, 1.772],
            Matrix::Bt709 => [1.574_8, 0.187_324_3, 0.468_124_3, 1.855_6],
        };
        // A cast to a byte clips.
        [luma + r * v, luma - g_u * u - g_v * v, luma + b * u].map(|value| (value + 0.5) as u8)
    }
}

/// How three planes lie: one chroma sample for `across` by `down` pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planar {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) full_range: bool,
    pub(super) matrix: Matrix,
}

impl Planar {
    /// The picture of planes without padding, `[H, W]` and twice `[H / down, W / across]`, rounded up.
    pub(super) fn picture(&self, y: &[u8], u: &[u8], v: &[u8]) -> DynamicImage {
        let columns = self.width.div_ceil(self.across);
        let mut values = Vec::with_capacity(3 * y.len());
        for (row, line) in y.chunks_exact(self.width).enumerate() {
            let start = row / self.down * columns;
            for (column, &y) in line.iter().enumerate() {
                let at = start + column / self.across;
                values.extend(self.matrix.rgb(y, u[at], v[at], self.full_range));
            }
        }
        RgbImage::from_raw(self.width as u32, self.height as u32, values).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_standards() {
        let rgb = |y, u, v, full| Matrix::Bt601.rgb(y, u, v, full);
        // Black, white, and red of the two ranges, as ffmpeg writes them.
        assert_eq!([rgb(16, 128, 128, false), rgb(235, 128, 128, false)], [[0; 3], [255; 3]]);
        assert_eq!([rgb(0, 128, 128, true), rgb(255, 128, 128, true)], [[0; 3], [255; 3]]);
        let near = |got: [u8; 3], wanted: [i32; 3]| got.iter().zip(wanted).all(|(&g, w)| (i32::from(g) - w).abs() <= 1);
        assert!(near(rgb(81, 90, 240, false), [254, 0, 0]), "{:?}", rgb(81, 90, 240, false));
        assert!(near(rgb(76, 85, 255, true), [254, 0, 0]), "{:?}", rgb(76, 85, 255, true));
        assert!(near(rgb(41, 240, 110, false), [0, 0, 255]), "{:?}", rgb(41, 240, 110, false));
        // Red in BT.709 is Y 63, U 102, V 240.
        let red = Matrix::Bt709.rgb(63, 102, 240, false);
        assert!(near(red, [255, 1, 0]), "{red:?}");
    }
}
