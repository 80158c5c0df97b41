//! Shapes that move in one of eight directions: a set whose randomness is known exactly.
//!
//! The rule is that of the "stochastic shapes" of VideoFlow (Kumar et al. 2020, <https://arxiv.org/abs/1903.01434>, section
//! 5.1, by the generator of tensor2tensor): a circle, square or triangle of one of six colours, with a half side uniform
//! between half a unit and one and a half of a canvas of ten units, begins in the middle of a black frame and goes one unit
//! a frame in one of eight directions, each as likely as the others.
//!
//! A unit is a whole number of pixels here, and every frame is the first one shifted by whole pixels. So everything after
//! the first frame follows from it and the direction: given the first frame, the entropy of the rest of a clip is exactly
//! [`Shapes::BITS`], three bits, whatever its length.

use flow_core::FlowRng;
use serde::{Deserialize, Serialize};

use super::{FPS, made};
use crate::data::{Clip, Clips, FrameShape, Splits};
use crate::{Error, Result};

/// Columns to the right and rows down a frame, in units.
const DIRECTIONS: [[i32; 2]; 8] = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]];

/// Blue, green, red, cyan, magenta, yellow.
const COLOURS: [[u8; 3]; 6] = [[0, 0, 255], [0, 128, 0], [255, 0, 0], [0, 191, 191], [191, 0, 191], [191, 191, 0]];

/// Samples along either axis of a pixel, for smooth edges.
const SAMPLES: usize = 4;

/// How shapes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shapes {
    /// Clips to train.
    pub clips: usize,
    /// Clips to validate.
    pub validation: usize,
    /// Clips to test.
    pub test: usize,
    /// Frames of a clip.
    pub frames: usize,
    /// Rows and columns of a frame.
    pub size: u32,
}

impl Default for Shapes {
    /// 64×64 as in the paper, 5 frames, 5,000 clips.
    fn default() -> Self {
        Shapes { clips: 5000, validation: 100, test: 500, frames: 5, size: 64 }
    }
}

impl Shapes {
    /// Entropy of a clip given its first frame, in bits: one of eight directions.
    pub const BITS: f64 = 3.0;

    /// Pixels that a shape moves in a frame along an axis.
    pub fn step(&self) -> usize {
        self.size as usize / 10
    }

    /// Whether there can be such clips.
    ///
    /// # Errors
    /// The number that is outside its domain, with the domain.
    pub fn check(&self) -> Result<()> {
        if !(16..=1024).contains(&self.size) {
            return Err(Error::config("shapes: size", format!("must be 16 to 1024, got {}", self.size)));
        }
        if !(2..=1000).contains(&self.frames) {
            return Err(Error::config("shapes: frames", format!("must be 2 to 1000, got {}", self.frames)));
        }
        Ok(())
    }

    /// Clip `index` of a part of this name: the same for the same seed, name and index.
    ///
    /// # Errors
    /// Those of [`Shapes::check`].
    pub fn clip(&self, part: &str, index: usize, seed: u64) -> Result<Clip> {
        Ok(self.clip_and_direction(part, index, seed)?.0)
    }

    /// The same clip with its direction told beside every frame: eight numbers, of which one is one.
    ///
    /// # Errors
    /// Those of [`Shapes::check`].
    pub fn told(&self, part: &str, index: usize, seed: u64) -> Result<Clip> {
        let (clip, direction) = self.clip_and_direction(part, index, seed)?;
        let one = |k: usize| if k == direction { 1.0 } else { 0.0 };
        let actions = (0..clip.frames()).flat_map(|_| (0..DIRECTIONS.len()).map(one)).collect();
        clip.with_actions(actions)
    }

    fn clip_and_direction(&self, part: &str, index: usize, seed: u64) -> Result<(Clip, usize)> {
        self.check()?;
        let mut rng = FlowRng::named(seed, &format!("shapes/{part}/{index}"));
        let (kind, colour) = (rng.below(3), COLOURS[rng.below(COLOURS.len())]);
        let half = (0.5 + rng.next_uniform()) * f64::from(self.size) / 10.0;
        let direction = rng.below(DIRECTIONS.len());
        let [right, down] = DIRECTIONS[direction];
        let size = self.size as usize;
        let first = self.first(kind, half, colour);
        let mut values = Vec::with_capacity(self.frames * first.len());
        for frame in 0..self.frames {
            let shift = |way: i32| way as i64 * (frame * self.step()) as i64;
            let (across, along) = (shift(right), shift(down));
            for row in 0..3 * size as i64 {
                let (plane, row) = (row / size as i64, row % size as i64);
                values.extend((0..size as i64).map(|column| {
                    let (y, x) = (row - along, column - across);
                    let inside = (0..size as i64).contains(&y) && (0..size as i64).contains(&x);
                    if inside { first[((plane * size as i64 + y) * size as i64 + x) as usize] } else { 0 }
                }));
            }
        }
        Ok((Clip::new(format!("{part}/{index}"), values, [3, size, size], Some(FPS))?, direction))
    }

    /// The first frame `[3, H, W]`: the shape in the middle.
    fn first(&self, kind: usize, half: f64, colour: [u8; 3]) -> Vec<u8> {
        let size = self.size as usize;
        let middle = f64::from(self.size) / 2.0;
        let covered = |row: usize, column: usize| -> f64 {
            let place = |pixel: usize, sample: usize| pixel as f64 + (sample as f64 + 0.5) / SAMPLES as f64 - middle;
            let samples = (0..SAMPLES).flat_map(|i| (0..SAMPLES).map(move |j| (i, j)));
            let hit = samples.filter(|&(i, j)| is_inside(kind, half, place(column, j), place(row, i))).count();
            hit as f64 / (SAMPLES * SAMPLES) as f64
        };
        let cover: Vec<f64> = (0..size * size).map(|pixel| covered(pixel / size, pixel % size)).collect();
        colour.iter().flat_map(|&c| cover.iter().map(move |share| (share * f64::from(c)).round() as u8)).collect()
    }

    /// `count` clips of a part of this name.
    ///
    /// # Errors
    /// Those of [`Shapes::check`].
    pub fn clips(&self, part: &str, count: usize, seed: u64) -> Result<Clips> {
        self.check()?;
        made(count, format!("moving shapes (seed {seed})"), |index| self.clip(part, index, seed))
    }

    /// Training, validation and test clips whose directions are told.
    ///
    /// # Errors
    /// Those of [`Shapes::check`].
    pub fn told_splits(&self, seed: u64) -> Result<Splits> {
        self.check()?;
        let source = format!("moving shapes (seed {seed}) with their directions");
        let part = |name: &str, count: usize| made(count, source.clone(), |index| self.told(name, index, seed));
        Ok(Splits {
            train: part("train", self.clips)?,
            validation: part("validation", self.validation)?,
            test: part("test", self.test)?,
        })
    }

    /// Training, validation and test clips.
    ///
    /// # Errors
    /// Those of [`Shapes::check`].
    pub fn splits(&self, seed: u64) -> Result<Splits> {
        Ok(Splits {
            train: self.clips("train", self.clips, seed)?,
            validation: self.clips("validation", self.validation, seed)?,
            test: self.clips("test", self.test, seed)?,
        })
    }

    /// In which of the eight directions the light of a frame has moved against another, counted from right over down; what
    /// a model has drawn may be judged by it. `None` where it moved less than half a step, or where one of them is black.
    ///
    /// # Shapes
    /// - `before`, `after`: `[C, H, W]` of `shape`.
    pub fn direction(&self, before: &[u8], after: &[u8], shape: FrameShape) -> Option<usize> {
        let [ax, ay] = centre(before, shape)?;
        let [bx, by] = centre(after, shape)?;
        let (dx, dy) = (bx - ax, by - ay);
        if dx.hypot(dy) < self.step() as f64 / 2.0 {
            return None;
        }
        let eighths = dy.atan2(dx) / std::f64::consts::FRAC_PI_4;
        Some(eighths.round().rem_euclid(8.0) as usize % 8)
    }
}

/// Whether a point, seen from the middle, lies in a circle, a square or a triangle that points upwards.
fn is_inside(kind: usize, half: f64, x: f64, y: f64) -> bool {
    match kind {
        0 => x * x + y * y <= half * half,
        1 => x.abs() <= half && y.abs() <= half,
        _ => y <= half && y >= -half && 2.0 * x.abs() <= y + half,
    }
}

/// Column and row of the middle of the light.
fn centre(frame: &[u8], [_, height, width]: FrameShape) -> Option<[f64; 2]> {
    let (mut sum, mut x, mut y) = (0.0, 0.0, 0.0);
    for (index, &value) in frame.iter().enumerate() {
        let weight = f64::from(value);
        let place = index % (height * width).max(1);
        sum += weight;
        x += weight * (place % width) as f64;
        y += weight * (place / width) as f64;
    }
    (sum > 0.0).then(|| [x / sum, y / sum])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_directions_are_eight_and_equally_likely() {
        let shapes = Shapes { frames: 2, size: 16, ..Shapes::default() };
        let set = shapes.clips("train", 16_000, 1).unwrap();
        let mut counts = [0u32; 8];
        for clip in set.iter() {
            counts[shapes.direction(clip.frame(0).unwrap(), clip.frame(1).unwrap(), clip.shape()).unwrap()] += 1;
        }
        // The statistic has seven degrees of freedom; one in a thousand fair generators exceeds 24.32.
        let statistic: f64 = counts.iter().map(|&n| (f64::from(n) - 2000.0).powi(2) / 2000.0).sum();
        assert!(statistic < 24.32, "{statistic}: {counts:?}");
    }

    #[test]
    fn the_future_is_the_first_frame_and_a_direction() {
        let shapes = Shapes { size: 20, frames: 4, ..Shapes::default() };
        let set = shapes.clips("train", 4000, 2).unwrap();
        // The futures of equal first frames: never more than eight, and one for each direction.
        let mut futures: BTreeMap<&[u8], BTreeSet<(usize, &[u8])>> = BTreeMap::new();
        for clip in set.iter() {
            let first = clip.frame(0).unwrap();
            let direction = shapes.direction(first, clip.frame(1).unwrap(), clip.shape()).unwrap();
            futures.entry(first).or_default().insert((direction, clip.range(1, 3).unwrap()));
        }
        assert!(futures.values().any(|found| found.len() == 8), "enough clips to see all futures of a frame");
        for found in futures.values() {
            let directions: BTreeSet<usize> = found.iter().map(|(direction, _)| *direction).collect();
            assert_eq!(directions.len(), found.len(), "a direction has one future");
        }
    }

    #[test]
    fn clips_are_coloured_shapes_that_start_in_the_middle() {
        let shapes = Shapes::default();
        assert_eq!(shapes.step(), 6);
        let set = shapes.clips("test", 60, 3).unwrap();
        assert_eq!((set.shape(), set.get(0).unwrap().frames()), ([3, 64, 64], 5));
        let mut colours = BTreeSet::new();
        for clip in set.iter() {
            let first = clip.frame(0).unwrap();
            let middle = |channel: usize| first[channel * 4096 + 32 * 64 + 32];
            colours.insert([middle(0), middle(1), middle(2)]);
            let lit = first.chunks(4096).map(|plane| plane.iter().filter(|&&v| v > 0).count()).max().unwrap();
            assert!((20..=500).contains(&lit), "{lit}");
        }
        assert_eq!(colours, COLOURS.into_iter().collect());
        assert_eq!(set, shapes.clips("test", 60, 3).unwrap());
        assert_eq!(set.get(7), shapes.clips("test", 8, 3).unwrap().get(7));
        assert!(Shapes { size: 15, ..shapes }.splits(0).is_err() && Shapes { frames: 1, ..shapes }.splits(0).is_err());
    }

    #[test]
    fn a_direction_is_told_from_noise() {
        let shapes = Shapes::default();
        let clip = shapes.clip("x", 0, 0).unwrap();
        let (first, second) = (clip.frame(0).unwrap(), clip.frame(1).unwrap());
        assert_eq!(shapes.direction(first, first, clip.shape()), None);
        assert_eq!(shapes.direction(first, &vec![0; first.len()], clip.shape()), None);
        let forth = shapes.direction(first, second, clip.shape()).unwrap();
        assert_eq!(shapes.direction(second, first, clip.shape()), Some((forth + 4) % 8));
    }
}
