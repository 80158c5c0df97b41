//! Motions of the things in a frame: what is configured of them.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The most past frames over which layers are followed.
const LONGEST: usize = 9;
/// The most pixels a frame by which layers move: the motions that are tried grow with the square.
const FARTHEST: usize = 16;

/// Motions of layers (Wang & Adelson 1994, "Representing Moving Images with Layers").
///
/// What moves together in the last frames is a layer: pixels that have the same motion, a whole number of pixels along both
/// axes, from each of these frames to the next. Every layer has a motion `m` to the frame after them as well: that which brings
/// it nearest to what is seen there. The layers, moved by these over what they leave behind, are a guess of the frame. The model
/// is one of motions and frame together, `P(m | past) · p(x | guess, past)`: a lower bound of `p(x | past)`, since `m` is a
/// function of the frame and the past. In samples the motions are drawn first. Beyond the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Motion {
    /// The fastest motion along each axis, in pixels a frame.
    pub reach: usize,
    /// The past frames over which layers are followed; the model sees at least as many.
    pub memory: usize,
    /// The side in pixels of the squares that the network of motions sees as one place; both sides of a frame are multiples.
    pub block: usize,
    /// Whether light adds up where layers meet, as in Moving MNIST; else what differs more from the commonest level covers
    /// the other.
    pub adds: bool,
}

impl Default for Motion {
    /// Four pixels a frame, followed over five frames, squares of 4 × 4, covering each other.
    fn default() -> Self {
        Motion { reach: 4, memory: 5, block: 4, adds: false }
    }
}

impl Motion {
    /// Motions of up to `reach` pixels a frame of layers that are followed over `memory` frames.
    pub fn new(reach: usize, memory: usize) -> Self {
        Motion { reach, memory, ..Motion::default() }
    }

    /// Checks the sizes against those of frames.
    ///
    /// # Errors
    /// [`Error::Config`] naming what is wrong.
    pub(super) fn check(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        let reason = if !(2..=LONGEST).contains(&self.memory) {
            format!("layers are followed over 2 to {LONGEST} frames, got a memory of {}", self.memory)
        } else if !(1..=FARTHEST).contains(&self.reach) {
            format!("reach must be 1 to {FARTHEST} pixels a frame, got {}", self.reach)
        } else if self.block == 0 || !height.is_multiple_of(self.block) || !width.is_multiple_of(self.block) {
            format!("frames of {height}x{width} cannot be cut into squares of {} pixels", self.block)
        } else {
            return Ok(());
        };
        Err(Error::config("motion", reason))
    }

    /// How many motions there are along an axis.
    pub(super) fn side(&self) -> usize {
        2 * self.reach + 1
    }

    /// All motions, the slowest first.
    pub(super) fn vectors(&self) -> Vec<[isize; 2]> {
        let reach = self.reach as isize;
        let mut all: Vec<_> = (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| [dy, dx])).collect();
        all.sort_by_key(|[dy, dx]| dy * dy + dx * dx);
        all
    }
}
