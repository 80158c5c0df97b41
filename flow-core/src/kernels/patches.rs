//! Layout changes around the matrix products of 3×3 convolutions.
//!
//! A sample `(C, H, W)` becomes a padded, channel-last block `(H+2, W+2, C)`; in it the three taps of
//! one kernel row at one pixel are `3·C` consecutive numbers, so that gathering patches and its
//! adjoint are runs of copies and additions.

use super::Real;

/// Height, width and channels of a sample.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Extent {
    /// `H·W`.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Elements of the padded block.
    pub fn padded(self) -> usize {
        (self.height + 2) * (self.width + 2) * self.channels
    }
}

/// `(C, H, W)` → padded channel-last; the border is left as it is (zero it once).
#[inline(always)]
pub(crate) fn pad<T: Real>(e: Extent, planar: &[T], padded: &mut [T]) {
    let stride = (e.width + 2) * e.channels;
    for (c, plane) in planar.chunks_exact(e.pixels()).enumerate() {
        for (i, row) in plane.chunks_exact(e.width).enumerate() {
            let line = &mut padded[(i + 1) * stride + e.channels..];
            for (slot, &value) in line.iter_mut().skip(c).step_by(e.channels).zip(row) {
                *slot = value;
            }
        }
    }
}

/// The adjoint of [`pad`]: the inside of the padded block, planar; what lies on the border is dropped.
#[inline(always)]
pub(crate) fn crop<T: Real>(e: Extent, padded: &[T], planar: &mut [T]) {
    let stride = (e.width + 2) * e.channels;
    for (c, plane) in planar.chunks_exact_mut(e.pixels()).enumerate() {
        for (i, row) in plane.chunks_exact_mut(e.width).enumerate() {
            let line = &padded[(i + 1) * stride + e.channels..];
            for (slot, &value) in row.iter_mut().zip(line.iter().skip(c).step_by(e.channels)) {
                *slot = value;
            }
        }
    }
}

/// Gathers the 3×3 neighbourhoods of the pixels from `first` on: each row holds `9·C` numbers, tap-major.
#[inline(always)]
pub(crate) fn gather<T: Real>(e: Extent, padded: &[T], first: usize, rows: &mut [T]) {
    let (run, stride) = (3 * e.channels, (e.width + 2) * e.channels);
    for (p, row) in (first..).zip(rows.chunks_exact_mut(3 * run)) {
        let corner = p / e.width * stride + p % e.width * e.channels;
        for (u, part) in row.chunks_exact_mut(run).enumerate() {
            let from = corner + u * stride;
            part.copy_from_slice(&padded[from..from + run]);
        }
    }
}

/// The adjoint of [`gather`]: adds every row back to where it was gathered from.
#[inline(always)]
pub(crate) fn scatter_add<T: Real>(e: Extent, rows: &[T], padded: &mut [T]) {
    let (run, stride) = (3 * e.channels, (e.width + 2) * e.channels);
    for (p, row) in rows.chunks_exact(3 * run).enumerate() {
        let corner = p / e.width * stride + p % e.width * e.channels;
        for (u, part) in row.chunks_exact(run).enumerate() {
            let from = corner + u * stride;
            for (slot, &value) in padded[from..from + run].iter_mut().zip(part) {
                *slot += value;
            }
        }
    }
}

/// Number of border classes of a pixel.
pub(crate) const CLASSES: usize = 16;

/// Which sides of the image each pixel touches: bit 0 top, 1 bottom, 2 left, 3 right.
pub(crate) fn border_classes(e: Extent) -> Vec<u8> {
    let bit = |on: bool, shift: u8| u8::from(on) << shift;
    (0..e.pixels())
        .map(|p| {
            let (i, j) = (p / e.width, p % e.width);
            bit(i == 0, 0) | bit(i + 1 == e.height, 1) | bit(j == 0, 2) | bit(j + 1 == e.width, 3)
        })
        .collect()
}

/// Whether tap `(u, v)` of a 3×3 kernel at a pixel of this class falls outside the image.
pub(crate) fn tap_outside(class: usize, tap: usize) -> bool {
    let (u, v) = (tap / 3, tap % 3);
    (u == 0 && class & 1 != 0) || (u == 2 && class & 2 != 0) || (v == 0 && class & 4 != 0) || (v == 2 && class & 8 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gather_and_scatter_are_adjoint() {
        let e = Extent { channels: 2, height: 3, width: 4 };
        let x: Vec<f64> = (0..24).map(|i| f64::from(i) * 0.3 - 2.0).collect();
        let w: Vec<f64> = (0..12 * 18).map(|i| f64::from(i * 31 % 17) - 8.0).collect();
        let (mut padded, mut rows) = (vec![0.0; e.padded()], vec![0.0; 12 * 18]);
        pad(e, &x, &mut padded);
        gather(e, &padded, 0, &mut rows[..5 * 18]);
        gather(e, &padded, 5, &mut rows[5 * 18..]);
        let (mut back, mut planar) = (vec![0.0; e.padded()], vec![0.0; 24]);
        scatter_add(e, &w, &mut back);
        crop(e, &back, &mut planar);
        let left: f64 = rows.iter().zip(&w).map(|(a, b)| a * b).sum();
        let right: f64 = x.iter().zip(&planar).map(|(a, b)| a * b).sum();
        assert!((left - right).abs() < 1e-9);
    }

    #[test]
    fn a_gathered_row_is_the_neighbourhood() {
        let e = Extent { channels: 1, height: 2, width: 2 };
        let (mut padded, mut rows) = (vec![0.0; e.padded()], vec![0.0; 4 * 9]);
        pad(e, &[1.0, 2.0, 3.0, 4.0], &mut padded);
        gather(e, &padded, 0, &mut rows);
        assert_eq!(&rows[..9], &[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 4.0]);
        assert_eq!(&rows[27..], &[1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_single_pixel_touches_every_side() {
        assert_eq!(border_classes(Extent { channels: 1, height: 1, width: 1 }), [15]);
        assert!((0..9).all(|tap| tap_outside(15, tap) == (tap != 4)));
    }
}
