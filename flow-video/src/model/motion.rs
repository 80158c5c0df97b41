//! Where the content of a frame comes from: motions of squares, found by block matching.

use flow_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much more a motion must explain than it leaves unexplained to be expected of what comes next: the weight of its error
/// beside that of no motion.
const ERROR_WEIGHT: f64 = 5.0;
/// What a candidate's error may exceed the least one by, in squared ranges. With 1, about as many bits as a new motion costs,
/// moving digits cost a fifth more after 50 steps.
const SLACK: f64 = 1.0 / 256.0;
/// How many motions a square may take over: see [`Fields::candidates`].
pub(super) const CANDIDATES: usize = 5;
/// How many situations there are: see [`Fields::situation`].
pub(super) const SITUATIONS: usize = 8;
/// The classes of [`Motion::carry`]: how far a guess is to be trusted.
pub(super) const TRUSTS: usize = 7;

/// Motions of squares of a frame, as in video codecs (Jain & Jain 1981, "Displacement Measurement and Its Application in
/// Interframe Image Coding").
///
/// Every square of `block × block` pixels of a frame has a motion `m`: the whole number of pixels along both axes, up to
/// `reach`, by which the content of the frame before comes nearest to it. The frame before, moved by these, is a guess of the
/// frame. The model is one of motions and frame together, `P(m | past) · p(x | guess, past)`: a lower bound of `p(x | past)`, since
/// `m` is a function of the frame and the past, and what a codec that sends the motions first would need. In samples the
/// motions are drawn first, square by square. Beyond the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Motion {
    /// The fastest motion along each axis, in pixels a frame.
    pub reach: usize,
    /// The side of a square in pixels; both sides of the frame are multiples of it.
    pub block: usize,
}

impl Default for Motion {
    /// Four pixels a frame, squares of 8 × 8.
    fn default() -> Self {
        Motion { reach: 4, block: 8 }
    }
}

/// What two frames tell of motions.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    /// The motion that is expected of every square: that which explains best how what would come there has moved.
    pub(super) expected: Vec<[isize; 2]>,
    /// Squares in a row.
    wide: usize,
    /// For every motion, how much of the last frame around each pixel it leaves unexplained by the frame before.
    missed: Vec<Vec<f64>>,
}

impl Fields {
    #[cfg(test)]
    pub(super) fn expecting(expected: Vec<[isize; 2]>, wide: usize) -> Self {
        Fields { expected, wide, missed: Vec::new() }
    }

    /// The squares next to one that come before it, if there are any: on the left, above, above on the right.
    fn neighbours(&self, block: usize) -> [Option<usize>; 3] {
        let (row, column) = (block / self.wide, block % self.wide);
        let above = (row > 0).then(|| block - self.wide);
        [(column > 0).then(|| block - 1), above, above.filter(|_| column + 1 < self.wide).map(|above| above + 1)]
    }

    /// The motions that a square may take over, given those of the squares before it: what is expected of it, those of its
    /// neighbours, and none.
    pub(super) fn candidates(&self, block: usize, motions: &[[isize; 2]]) -> [[isize; 2]; CANDIDATES] {
        let [left, above, right] = self.neighbours(block).map(|at| at.map_or([0, 0], |at| motions[at]));
        [self.expected[block], left, above, right, [0, 0]]
    }

    /// Which of the neighbours do not move as was expected of them, as the bits of a number below [`SITUATIONS`].
    pub(super) fn situation(&self, block: usize, motions: &[[isize; 2]]) -> usize {
        let otherwise = self.neighbours(block).map(|at| at.is_some_and(|at| motions[at] != self.expected[at]));
        otherwise.iter().rev().fold(0, |bits, &otherwise| 2 * bits + usize::from(otherwise))
    }
}

impl Motion {
    /// Motions of up to `reach` pixels a frame, of squares of `block × block` pixels.
    pub fn new(reach: usize, block: usize) -> Self {
        Motion { reach, block }
    }

    /// Checks the sizes against those of frames and the number of past frames.
    ///
    /// # Errors
    /// [`Error::Config`] naming what is wrong.
    pub(super) fn check(&self, past: usize, [_, height, width]: [usize; 3]) -> Result<()> {
        let reason = if past < 2 {
            format!("needs two past frames to see a motion, the prior has {past}; set past to 2")
        } else if !(1..=64).contains(&self.reach) {
            format!("reach must be 1 to 64 pixels a frame, got {}", self.reach)
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

    /// What the frame `before` and the one after it, `last`, tell of motions: `(C, H, W)` each.
    ///
    /// A motion is expected of a square if it has the greatest gain `still - 5·missed` at the pixel from which it would bring
    /// content to the square's middle: what moves covers what does not, and of equal gains the slowest wins.
    pub(super) fn fields(&self, [before, last]: [&[f64]; 2], size: [usize; 3]) -> Fields {
        let mut matching = Matching::new(self, before, last, size);
        let vectors = self.vectors();
        let missed: Vec<Vec<f64>> = vectors.iter().map(|&vector| matching.missed(vector)).collect();
        let [_, _, width] = size;
        let still = &missed[0];
        let expected = self.middles(size).map(|middle| {
            let gain = |k: usize| {
                let source = moved(middle, vectors[k], size);
                still[source] - ERROR_WEIGHT * missed[k][source]
            };
            let best = (0..vectors.len()).fold((0, f64::NEG_INFINITY), |best, k| {
                let gain = gain(k);
                if gain > best.1 { (k, gain) } else { best }
            });
            vectors[best.0]
        });
        Fields { expected: expected.collect(), wide: width / self.block, missed }
    }

    /// The motions of the squares of `now` after `last`, `(C, H, W)` each of `levels` levels: of each square the one with the
    /// least error around it, or the first candidate that comes near that.
    pub(super) fn found(
        &self,
        fields: &Fields,
        [last, now]: [&[f64]; 2],
        size: [usize; 3],
        levels: f64,
    ) -> Vec<[isize; 2]> {
        let mut matching = Matching::new(self, last, now, size);
        let vectors = self.vectors();
        let middles: Vec<usize> = self.middles(size).collect();
        let mut errors = vec![f64::INFINITY; vectors.len() * middles.len()];
        for (vector, errors) in vectors.iter().zip(errors.chunks_exact_mut(middles.len())) {
            let missed = matching.missed(*vector);
            errors.iter_mut().zip(&middles).for_each(|(error, &middle)| *error = missed[middle]);
        }
        let slack = SLACK * levels * levels;
        let mut motions: Vec<[isize; 2]> = Vec::with_capacity(middles.len());
        for block in 0..middles.len() {
            let error = |k: usize| errors[k * middles.len() + block];
            let least = (0..vectors.len()).fold(0, |best, k| if error(k) < error(best) { k } else { best });
            let near = |vector: &[isize; 2]| {
                vectors.iter().position(|v| v == vector).is_some_and(|k| error(k) <= error(least) + slack)
            };
            let candidate = fields.candidates(block, &motions).into_iter().find(near);
            motions.push(candidate.unwrap_or(vectors[least]));
        }
        motions
    }

    /// The guess that motions make of `last`, `(C, H, W)`, and how far each pixel of it is to be trusted: 0 where nothing has
    /// moved, else 1 to 3 by how many of the four squares around move otherwise (none, one or two, more), and 3 more where
    /// the motion does not explain all that was seen before.
    pub(super) fn carry(
        &self,
        fields: &Fields,
        motions: &[[isize; 2]],
        last: &[f64],
        size: [usize; 3],
        (out, trust): (&mut [f64], &mut [f64]),
    ) {
        let [_, height, width] = size;
        let (wide, pixels) = (width / self.block, height * width);
        let vectors = self.vectors();
        let squares: Vec<(usize, usize)> = motions
            .iter()
            .enumerate()
            .map(|(block, motion)| {
                let index = vectors.iter().position(|vector| vector == motion).unwrap_or(0);
                let around = [
                    (block >= wide).then(|| block - wide),
                    Some(block + wide),
                    (!block.is_multiple_of(wide)).then(|| block - 1),
                    (!(block + 1).is_multiple_of(wide)).then_some(block + 1),
                ];
                let others = around.into_iter().flatten().filter_map(|other| motions.get(other));
                (index, others.filter(|other| *other != motion).count())
            })
            .collect();
        for p in 0..pixels {
            let (vector, others) = squares[p / width / self.block * wide + p % width / self.block];
            let source = moved(p, vectors[vector], size);
            for (out, last) in out.chunks_exact_mut(pixels).zip(last.chunks_exact(pixels)) {
                out[p] = last[source];
            }
            let class = match (fields.missed[0][source], fields.missed[vector][source]) {
                (0.0, 0.0) => 0,
                (_, unexplained) => 1 + others.div_ceil(2).min(2) + if unexplained == 0.0 { 0 } else { 3 },
            };
            trust[p] = class as f64;
        }
    }

    /// The pixel in the middle of every square.
    fn middles(&self, [_, height, width]: [usize; 3]) -> impl Iterator<Item = usize> + use<> {
        let block = self.block;
        let rows = (0..height / block).map(move |y| y * block + block / 2);
        rows.flat_map(move |y| (0..width / block).map(move |x| y * width + x * block + block / 2))
    }

    /// Half of the side of the window that is compared around a pixel, less the pixel itself: half as large again as a square.
    fn half(&self) -> usize {
        3 * self.block / 4
    }
}

/// The pixel from which a motion brings content to pixel `p`; beyond a frame its border goes on.
fn moved(p: usize, [dy, dx]: [isize; 2], [_, height, width]: [usize; 3]) -> usize {
    beside(p / width, -dy, height) * width + beside(p % width, -dx, width)
}

/// The index `by` places after `i`, or that of the border.
fn beside(i: usize, by: isize, size: usize) -> usize {
    i.saturating_add_signed(by).min(size - 1)
}

/// Two frames that are compared under one motion after the other.
struct Matching<'a> {
    size: [usize; 3],
    reach: usize,
    half: usize,
    /// The first frame with its border continued by `reach` pixels on every side.
    padded: Vec<f64>,
    last: &'a [f64],
    errors: Vec<f64>,
}

impl<'a> Matching<'a> {
    fn new(motion: &Motion, before: &[f64], last: &'a [f64], size: [usize; 3]) -> Self {
        let ([channels, height, width], reach) = (size, motion.reach);
        let mut padded = Vec::with_capacity(channels * (height + 2 * reach) * (width + 2 * reach));
        for frame in before.chunks_exact(height * width) {
            for y in 0..height + 2 * reach {
                let row = &frame[beside(y, -(reach as isize), height) * width..][..width];
                padded.extend((0..width + 2 * reach).map(|x| row[beside(x, -(reach as isize), width)]));
            }
        }
        Matching { size, reach, half: motion.half(), padded, last, errors: vec![0.0; height * width] }
    }

    /// `Σ_q (b(s+q) - a(s+q-m))²` over the window around every pixel `s`, for a motion `m` from the first frame `a` to the
    /// second one `b`.
    fn missed(&mut self, [dy, dx]: [isize; 2]) -> Vec<f64> {
        let [_, height, width] = self.size;
        let (high, wide) = (height + 2 * self.reach, width + 2 * self.reach);
        self.errors.fill(0.0);
        for (padded, last) in self.padded.chunks_exact(high * wide).zip(self.last.chunks_exact(height * width)) {
            let rows = self.errors.chunks_exact_mut(width).zip(last.chunks_exact(width));
            for (y, (errors, last)) in rows.enumerate() {
                let start = (y + self.reach).saturating_add_signed(-dy) * wide + self.reach.saturating_add_signed(-dx);
                let before = &padded[start..start + width];
                errors.iter_mut().zip(last.iter().zip(before)).for_each(|(e, (b, a))| *e += (b - a) * (b - a));
            }
        }
        self.window_sums()
    }

    /// The sums of the errors over the part of every pixel's window that lies in the frame: running sums down the columns,
    /// and of these along the rows. The errors are integers, so that nothing is lost.
    fn window_sums(&self) -> Vec<f64> {
        let [_, height, width] = self.size;
        let row = |y: usize| &self.errors[y * width..][..width];
        let mut columns = vec![0.0; width];
        let mut sums = Vec::with_capacity(height * width);
        for y in 0..self.half.min(height) {
            columns.iter_mut().zip(row(y)).for_each(|(sum, e)| *sum += e);
        }
        for y in 0..height {
            if y + self.half < height {
                columns.iter_mut().zip(row(y + self.half)).for_each(|(sum, e)| *sum += e);
            }
            if y > self.half {
                columns.iter_mut().zip(row(y - self.half - 1)).for_each(|(sum, e)| *sum -= e);
            }
            let mut sum: f64 = columns[..self.half.min(width)].iter().sum();
            for x in 0..width {
                sum += columns.get(x + self.half).copied().unwrap_or(0.0);
                if x > self.half {
                    sum -= columns[x - self.half - 1];
                }
                sums.push(sum);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_sums_are_those_of_the_definition() {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            f64::from((state >> 56) as u8)
        };
        let cases = [([1, 8, 12], 2, 4), ([3, 4, 4], 1, 2), ([1, 1, 6], 3, 1), ([2, 6, 6], 2, 6), ([1, 3, 3], 6, 3)];
        for (size, reach, block) in cases {
            let (motion, [channels, height, width]) = (Motion::new(reach, block), size);
            let a: Vec<f64> = (0..channels * height * width).map(|_| byte()).collect();
            let b: Vec<f64> = a.iter().map(|_| byte()).collect();
            let mut matching = Matching::new(&motion, &a, &b, size);
            let half = motion.half() as isize;
            for [dy, dx] in motion.vectors() {
                let missed = matching.missed([dy, dx]);
                for (s, &missed) in missed.iter().enumerate() {
                    let (y, x) = ((s / width) as isize, (s % width) as isize);
                    let mut sum = 0.0;
                    for (qy, qx) in (-half..=half).flat_map(|qy| (-half..=half).map(move |qx| (y + qy, x + qx))) {
                        if !(0..height as isize).contains(&qy) || !(0..width as isize).contains(&qx) {
                            continue;
                        }
                        let at = qy as usize * width + qx as usize;
                        let from_y = (qy - dy).clamp(0, height as isize - 1) as usize;
                        let from_x = (qx - dx).clamp(0, width as isize - 1) as usize;
                        for c in 0..channels {
                            let plane = c * height * width;
                            sum += (b[plane + at] - a[plane + from_y * width + from_x]).powi(2);
                        }
                    }
                    assert_eq!(missed, sum, "{size:?} {motion:?} {dy} {dx} {s}");
                }
            }
        }
    }

    const SIZE: [usize; 3] = [1, 32, 32];

    /// Two squares that move over a ground that does not, at time `t`, the first by `by` a step.
    fn frame(t: isize, [dy, dx]: [isize; 2]) -> Vec<f64> {
        let inside = |v: isize, from: isize| (from..from + 8).contains(&v);
        let pixel = |y: isize, x: isize| match (y - t * dy, x - t * dx) {
            (v, u) if inside(v, 6) && inside(u, 6) => 255.0 - (v * 7 + u * 3) as f64,
            _ if inside(y, 20) && inside(x, 22 - t) => 128.0,
            _ => 10.0,
        };
        (0..32).flat_map(|y| (0..32).map(move |x| pixel(y, x))).collect()
    }

    #[test]
    fn what_moves_is_expected_to_go_on() {
        let motion = Motion::new(3, 4);
        let [a, b, c] = [0, 1, 2].map(|t| frame(t, [1, 2]));
        let fields = motion.fields([&a, &b], SIZE);
        // The squares at the first one's next place, at the second one's, and far from both.
        assert_eq!(
            [fields.expected[2 * 8 + 3], fields.expected[6 * 8 + 5], fields.expected[56]],
            [[1, 2], [0, -1], [0, 0]]
        );
        let motions = motion.found(&fields, [&b, &c], SIZE, 256.0);
        let (mut out, mut trust) = (vec![0.0; 1024], vec![0.0; 1024]);
        motion.carry(&fields, &motions, &b, SIZE, (&mut out, &mut trust));
        let wrong = out.iter().zip(&c).filter(|(a, b)| a != b).count();
        assert!(wrong <= 12, "{wrong}");
        assert_eq!([trust[31 * 32], trust[12 * 32 + 14]], [0.0, 1.0]);
    }

    #[test]
    fn a_new_motion_is_found() {
        let motion = Motion::new(3, 4);
        let [a, b] = [0, 1].map(|t| frame(t, [1, 2]));
        // From its second place the first square goes back to where it came from.
        let c = frame(0, [0, 0]);
        let fields = motion.fields([&a, &b], SIZE);
        let motions = motion.found(&fields, [&b, &c], SIZE, 256.0);
        assert_eq!(motions[2 * 8 + 2], [-1, -2]);
        assert_eq!(motions[56], [0, 0]);
    }

    #[test]
    fn what_stands_still_stays() {
        let still: Vec<f64> = (0..3 * 64).map(|i| f64::from(i * 37 % 251)).collect();
        let (motion, size) = (Motion::new(2, 4), [3, 8, 8]);
        let fields = motion.fields([&still, &still], size);
        assert_eq!(fields.expected, [[0, 0]; 4]);
        let motions = motion.found(&fields, [&still, &still], size, 256.0);
        let (mut out, mut trust) = (vec![1.0; 192], vec![1.0; 64]);
        motion.carry(&fields, &motions, &still, size, (&mut out, &mut trust));
        assert_eq!((out, trust), (still, vec![0.0; 64]));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        let shape = [1, 8, 12];
        assert!(Motion::new(4, 4).check(2, shape).is_ok());
        for (motion, past) in
            [(Motion::new(4, 4), 1), (Motion::new(0, 4), 2), (Motion::new(65, 4), 2), (Motion::new(4, 8), 2)]
        {
            assert!(motion.check(past, shape).is_err(), "{motion:?}");
        }
        assert!(Motion::new(4, 0).check(2, shape).is_err());
    }
}
