//! Random flips and shifts of training images.
//!
//! Both are maps of whole pixels, so that an augmented image still consists of integer levels and its
//! likelihood stays exact.

use flow_core::FlowRng;
use serde::{Deserialize, Serialize};

use super::ImageShape;
use crate::{Error, Result};

/// What appears where a shifted image has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Edge {
    /// Level zero: right for digits on black.
    Zero,
    /// The nearest pixel of the image: right for photographs.
    #[default]
    Replicate,
}

/// Random changes of a training image, drawn anew each time it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Augment {
    /// Mirror left and right with probability one half. Not for digits or text.
    pub flip: bool,
    /// Shift each axis by a whole number of pixels, uniform up to this fraction of its length.
    pub shift: f64,
    /// What fills the gap of a shift.
    pub edge: Edge,
}

impl Default for Augment {
    /// No flip, shifts up to ten per cent (the reference implementation of Glow does so for CIFAR-10 and MNIST).
    fn default() -> Self {
        Augment { flip: false, shift: 0.1, edge: Edge::default() }
    }
}

impl Augment {
    /// Mirrors if `flip`, and shifts up to this fraction of each axis; `edge` fills the gap.
    pub fn new(flip: bool, shift: f64, edge: Edge) -> Self {
        Augment { flip, shift, edge }
    }

    /// Checks the range of the shift.
    ///
    /// # Errors
    /// A fraction outside `[0, 0.5]`.
    pub fn check(&self) -> Result<()> {
        if (0.0..=0.5).contains(&self.shift) {
            return Ok(());
        }
        Err(Error::config("augment.shift", format!("must be 0 to 0.5, got {}", self.shift)))
    }

    /// Changes one image `[C, H, W]` in place; all its channels move together.
    ///
    /// # Errors
    /// A shift out of range, or a buffer that is not one image of this shape.
    pub fn apply(&self, image: &mut [u8], shape: ImageShape, rng: &mut FlowRng) -> Result<()> {
        self.check()?;
        let [channels, height, width] = shape;
        if image.len() != channels * height * width {
            return Err(Error::config("augment", format!("{} values are no image of shape {shape:?}", image.len())));
        }
        let flip = rng.below(2) == 1 && self.flip;
        let (down, right) = (self.draw(height, rng), self.draw(width, rng));
        if !flip && down == 0 && right == 0 {
            return Ok(());
        }
        for plane in image.chunks_exact_mut(height * width) {
            let before = plane.to_vec();
            for (index, pixel) in plane.iter_mut().enumerate() {
                let row = self.source(index / width, down, height);
                let column = self.source(index % width, right, width);
                *pixel = match (row, column) {
                    (Some(row), Some(column)) => before[row * width + if flip { width - 1 - column } else { column }],
                    _ => 0,
                };
            }
        }
        Ok(())
    }

    /// A shift of `-reach..=reach` pixels along an axis of `length`.
    fn draw(&self, length: usize, rng: &mut FlowRng) -> isize {
        let reach = (self.shift * length as f64).floor() as usize;
        rng.below(2 * reach + 1) as isize - reach as isize
    }

    /// Where along an axis the pixel now at `index` comes from; `None` for the zero edge.
    fn source(&self, index: usize, shift: isize, length: usize) -> Option<usize> {
        let from = index as isize - shift;
        match self.edge {
            Edge::Replicate => Some(from.clamp(0, length as isize - 1) as usize),
            Edge::Zero => usize::try_from(from).ok().filter(|&from| from < length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = [2, 3, 4];

    fn image() -> Vec<u8> {
        (1..=24).collect()
    }

    /// Every distinct outcome of 400 draws.
    fn outcomes(augment: Augment) -> Vec<Vec<u8>> {
        let mut rng = FlowRng::seed_from(1);
        let mut all: Vec<_> = (0..400)
            .map(|_| {
                let mut changed = image();
                augment.apply(&mut changed, SHAPE, &mut rng).unwrap();
                changed
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn a_flip_mirrors_every_row_of_every_channel() {
        let mirrored: Vec<u8> =
            image().chunks(4).flat_map(|row| row.iter().rev().copied().collect::<Vec<_>>()).collect();
        assert_eq!(outcomes(Augment { flip: true, shift: 0.0, edge: Edge::Zero }), [image(), mirrored]);
    }

    #[test]
    fn shifts_cover_their_range_and_no_more() {
        // A quarter of 3 rows is none, a quarter of 4 columns one: three outcomes.
        let zero = outcomes(Augment { flip: false, shift: 0.25, edge: Edge::Zero });
        assert_eq!(zero.len(), 3);
        assert!(zero.iter().any(|o| o[..8] == [0, 1, 2, 3, 0, 5, 6, 7]));
        assert!(zero.iter().any(|o| o[..8] == [2, 3, 4, 0, 6, 7, 8, 0]));
        let replicate = outcomes(Augment { flip: false, shift: 0.25, edge: Edge::Replicate });
        assert!(replicate.iter().any(|o| o[..8] == [1, 1, 2, 3, 5, 5, 6, 7]));
        // Half of both axes: 1 row and 2 columns either way.
        assert_eq!(outcomes(Augment { flip: false, shift: 0.5, edge: Edge::Replicate }).len(), 3 * 5);
    }

    #[test]
    fn bad_arguments_are_errors() {
        let mut rng = FlowRng::seed_from(0);
        for shift in [-0.1, 0.6, f64::NAN] {
            assert!(Augment { shift, ..Augment::default() }.apply(&mut image(), SHAPE, &mut rng).is_err());
        }
        assert!(Augment::default().apply(&mut [0; 5], SHAPE, &mut rng).is_err());
    }
}
