//! How a batch is cut into strips of pixels: the units of parallel work.

use super::Shape;

/// Rows `from..to` of the frames of sample `first` onwards for `count` samples; more than one sample only if all their
/// rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strip {
    pub first: usize,
    pub count: usize,
    pub from: usize,
    pub to: usize,
}

/// Rows of a strip's products that are aimed at: enough to use each weight often, few enough for the cache.
const ROWS: usize = 128;
/// Strips of a batch, over all branches, that are aimed at …
const STRIPS: usize = 16;
/// … as long as each has this many pixels.
const LEAST_PIXELS: usize = 16;

impl Strip {
    /// Pixels of one time step.
    pub fn pixels(&self, s: &Shape) -> usize {
        self.count * (self.to - self.from) * s.width
    }

    /// The rows of a frame that a kernel of this dilation reaches from the strip.
    pub fn window(&self, s: &Shape, dilation: usize) -> std::ops::Range<usize> {
        self.from.saturating_sub(dilation)..(self.to + dilation).min(s.height)
    }

    /// The frame rows of the strip, each with its place in it: `(sample, row)`.
    pub fn frame_rows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Strip { count, from, to, .. } = *self;
        (0..count).flat_map(move |sample| (from..to).map(move |row| (sample, row)))
    }
}

/// Cuts a batch; the cut depends on shapes alone.
pub(super) fn strips(s: &Shape, batch: usize) -> Vec<Strip> {
    let fair = batch * s.pixels() * s.dilations.len() / STRIPS;
    let pixels = (ROWS / s.hidden_steps()).min(fair).max(LEAST_PIXELS);
    let (samples, rows) = ((pixels / s.pixels()).max(1), (pixels / s.width).max(1));
    let mut cut = Vec::new();
    for first in (0..batch).step_by(samples) {
        if s.pixels() <= pixels {
            cut.push(Strip { first, count: samples.min(batch - first), from: 0, to: s.height });
            continue;
        }
        let strip = |from| Strip { first, count: 1, from, to: (from + rows).min(s.height) };
        cut.extend((0..s.height).step_by(rows).map(strip));
    }
    cut
}
