//! The network 3×3 → 1×1 → 3×3 as one kernel: forward and backward on pieces that stay in the cache.
//!
//! Activation normalization after the hidden convolutions and the output gain are linear, so they are
//! folded into the weights before the pixels are touched (see [`Folded`]); the edge-indicator channel
//! becomes a bias that depends only on which sides of the image a pixel touches. What remains per
//! pixel are three matrix products, two activations, a gather and a scatter. The gate of a gated network
//! is a second half of the columns of the middle product.
//!
//! A pixel is a row of every product, and rows do not touch each other until the scatter. So the rows of the whole batch
//! are cut into strips, which may end anywhere, and a single large image keeps every thread busy; strips change no bit.
//! Only the chunks of [`Shape::samples_per_chunk`] do, since each has its own sum of weight gradients, and they depend on
//! shapes alone.

mod backward;
mod folded;
mod forward;
mod gate;

pub(crate) use backward::backward;
pub(crate) use folded::{Folded, Packed};
pub(crate) use forward::{Hidden, forward};
pub use gate::{backward as gate_backward, gate};

use super::Real;
use super::gemm::MR;
use super::patches::{Extent, gather, pad};

/// The sizes of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    pub height: usize,
    pub width: usize,
    /// Whether the second hidden layer is gated rather than rectified.
    pub gated: bool,
}

/// Parameters of a gated network; one that is not has the first nine.
pub(crate) const PARAMETERS: usize = 12;

const TAPS: usize = 9;

/// Hidden activations that fit the second-level cache together, with some of the weights.
const ACTIVATIONS: usize = 72 << 10;

/// Rows that are many enough for a product, whatever their width.
const STRIP: usize = 144;

/// Multiply-adds that are worth a thread's attention.
const WORK: usize = 1 << 22;

impl Shape {
    /// Lengths of the parameters in the order of the packed vector:
    /// `w1 (H, C+1, 3, 3)`, `b1`, `l1`, `w2 (H, H)`, `b2`, `l2`, `w3 (O, H+1, 3, 3)`, `b3`, `l3`, and those of the gate,
    /// like the second three, or nothing.
    pub fn parameter_lengths(&self) -> [usize; PARAMETERS] {
        let (c, h, o) = (self.inputs, self.hidden, self.outputs);
        let gate = usize::from(self.gated);
        [h * (c + 1) * TAPS, h, h, h * h, h, h, o * (h + 1) * TAPS, o, o, gate * h * h, gate * h, gate * h]
    }

    fn input(&self) -> Extent {
        Extent { channels: self.inputs, height: self.height, width: self.width }
    }

    fn output(&self) -> Extent {
        Extent { channels: self.outputs, height: self.height, width: self.width }
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Columns of the middle product.
    fn middle(&self) -> usize {
        if self.gated { 2 * self.hidden } else { self.hidden }
    }

    /// Columns of the patches of the input, and of those of the output.
    fn patches(&self) -> [usize; 2] {
        [TAPS * self.inputs, TAPS * self.outputs]
    }

    /// How many samples share a sum of weight gradients.
    fn samples_per_chunk(&self, batch: usize) -> usize {
        let chunks = (batch * self.pixels() / 128).clamp(1, batch.clamp(1, 16));
        batch.div_ceil(chunks).max(1)
    }

    /// How many of `rows` rows a strip takes: few enough for the cache, and so that a small image still keeps some
    /// threads busy.
    fn strip(&self, rows: usize) -> usize {
        let [input, output] = self.patches();
        let work = rows * self.hidden * (input + output + self.middle());
        let shares = (work / WORK).min(rows / (5 * MR)).clamp(1, 4);
        let most = (ACTIVATIONS / (self.hidden + self.middle())).clamp(4 * MR, STRIP);
        rows.div_ceil(shares.max(rows.div_ceil(most))).next_multiple_of(MR)
    }
}

/// Pads every planar sample of a batch; borders of `padded` are zero.
#[inline(always)]
fn pad_all<T: Real>(e: Extent, planar: &[T], padded: &mut [T]) {
    let samples = planar.chunks_exact(e.pixels() * e.channels);
    samples.zip(padded.chunks_exact_mut(e.padded())).for_each(|(planar, padded)| pad(e, planar, padded));
}

/// The patches of the rows from `first` on, of a batch of padded samples.
#[inline(always)]
fn gather_rows<T: Real>(e: Extent, padded: &[T], first: usize, mut patches: &mut [T]) {
    let (width, mut row) = (TAPS * e.channels, first);
    while !patches.is_empty() {
        let (sample, pixel) = (row / e.pixels(), row % e.pixels());
        let count = (e.pixels() - pixel).min(patches.len() / width);
        let (head, tail) = patches.split_at_mut(count * width);
        gather(e, &padded[sample * e.padded()..], pixel, head);
        (patches, row) = (tail, row + count);
    }
}
