//! Moving MNIST from any set of digits.
//!
//! Two published rules:
//!
//! - [`Bounce::Stochastic`], Stochastic Moving MNIST (Denton & Fergus 2018, <https://arxiv.org/abs/1802.07687>; taken over
//!   by SRVP, Franceschi et al. 2020): positions and velocities are whole pixels, uniform; a digit that has crossed a wall
//!   is put back to it and gets **both** velocities anew, the one across the wall pointing inwards. Digits add up, clipped
//!   at white.
//! - [`Bounce::Deterministic`], the original Moving MNIST (Srivastava et al. 2015, <https://arxiv.org/abs/1502.04681>): a
//!   direction uniform on the circle, a constant speed, walls reflect. Where digits overlap the brighter one is seen.

use flow_core::FlowRng;
use flow_image::data::{Dataset, Splits as Digits};
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma};
use serde::{Deserialize, Serialize};

use super::{FPS, made};
use crate::data::{Clip, Clips, Splits};
use crate::{Error, Result};

/// What happens at a wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Bounce {
    /// Both velocities are drawn anew, the one across the wall pointing inwards.
    #[default]
    Stochastic,
    /// The velocity across the wall changes its sign.
    Deterministic,
}

/// How digits move.
///
/// ```
/// use flow_video::data::generate::MovingDigits;
///
/// # fn main() -> flow_video::Result<()> {
/// let moving = MovingDigits { clips: 3, ..MovingDigits::builtin() };
/// let splits = moving.splits(&flow_image::data::builtin::digits()?, 7)?;
/// assert_eq!((splits.train.len(), splits.train.shape()), (3, [1, 32, 32]));
/// assert_eq!(splits, moving.splits(&flow_image::data::builtin::digits()?, 7)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MovingDigits {
    /// Clips to train, made of the training digits.
    pub clips: usize,
    /// Clips to validate, made of the validation digits.
    pub validation: usize,
    /// Clips to test, made of the test digits.
    pub test: usize,
    /// Frames of a clip.
    pub frames: usize,
    /// Rows and columns of a frame.
    pub size: u32,
    /// Rows and columns of a digit, scaled with straight lines between its pixels; at most `size - 1`.
    pub digit: u32,
    /// Digits in a clip.
    pub digits: usize,
    /// Pixels a frame: the greatest along either axis, a whole number, where velocities are random; else the speed.
    pub speed: f64,
    /// What happens at a wall.
    pub bounce: Bounce,
}

impl Default for MovingDigits {
    fn default() -> Self {
        MovingDigits::builtin()
    }
}

impl MovingDigits {
    /// For the built-in digits of 8×8 pixels: two of 12×12 in 32×32, up to 2 pixels a frame, random at the walls; 2,000
    /// clips of 20 frames.
    pub fn builtin() -> Self {
        MovingDigits {
            clips: 2000,
            validation: 100,
            test: 200,
            frames: 20,
            size: 32,
            digit: 12,
            digits: 2,
            speed: 2.0,
            bounce: Bounce::Stochastic,
        }
    }

    /// Stochastic Moving MNIST: two digits, scaled from 28×28 to 32×32, in 64×64, up to 4 pixels a frame; 5,000 clips of 20
    /// frames.
    pub fn mnist() -> Self {
        MovingDigits { clips: 5000, validation: 100, test: 500, size: 64, digit: 32, speed: 4.0, ..Self::builtin() }
    }

    /// The original Moving MNIST: two digits of 28×28 in 64×64 that bounce like balls, 3.6 pixels a frame (a tenth of the
    /// way from wall to wall).
    pub fn original() -> Self {
        MovingDigits { digit: 28, speed: 3.6, bounce: Bounce::Deterministic, ..Self::mnist() }
    }

    /// Whether there can be such clips.
    ///
    /// # Errors
    /// The number that is outside its domain, with the domain.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, reason: String| Err(Error::config(format!("moving digits: {what}"), reason));
        if !(4..=1024).contains(&self.size) {
            return refuse("size", format!("must be 4 to 1024, got {}", self.size));
        }
        if !(1..self.size).contains(&self.digit) {
            return refuse(
                "digit",
                format!("must be 1 to {}, to have room to move, got {}", self.size - 1, self.digit),
            );
        }
        if !(1..=10_000).contains(&self.frames) {
            return refuse("frames", format!("must be 1 to 10000, got {}", self.frames));
        }
        if !(1..=16).contains(&self.digits) {
            return refuse("digits", format!("must be 1 to 16, got {}", self.digits));
        }
        let most = f64::from(self.size - self.digit);
        if !(self.speed > 0.0 && self.speed <= most) {
            return refuse("speed", format!("must be above 0 and at most {most}, got {}", self.speed));
        }
        if self.bounce == Bounce::Stochastic && self.speed.fract() != 0.0 {
            return refuse("speed", format!("random velocities are whole pixels a frame, got {}", self.speed));
        }
        Ok(())
    }

    /// The digits of a set, scaled to [`MovingDigits::digit`] pixels.
    ///
    /// # Errors
    /// Those of [`MovingDigits::check`], no digits, or images that are not grey and square.
    pub fn sprites(&self, digits: &Dataset) -> Result<Sprites> {
        self.check()?;
        let [channels, height, width] = digits.shape();
        if channels != 1 || height != width {
            let reason = format!("expected grey square images of digits, got {:?}", digits.shape());
            return Err(Error::config(digits.source(), reason));
        }
        if digits.is_empty() {
            return Err(Error::config(digits.source(), "there are no digits to move"));
        }
        let white = (digits.levels() - 1) as f32;
        let side = height as u32;
        let scaled = |image: &[u8]| -> Vec<u8> {
            let values: Vec<f32> = image.iter().map(|&v| f32::from(v) / white).collect();
            let picture: ImageBuffer<Luma<f32>, Vec<f32>> =
                ImageBuffer::from_raw(side, side, values).unwrap_or_default();
            let scaled = if side == self.digit {
                picture
            } else {
                resize(&picture, self.digit, self.digit, FilterType::Triangle)
            };
            scaled.into_raw().into_iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
        };
        let images = digits.images().chunks_exact(height * width).map(scaled).collect();
        Ok(Sprites { images, side: self.digit as usize })
    }

    /// Clip `index` of a part of this name: the same for the same sprites, seed, name and index.
    ///
    /// # Errors
    /// Those of [`MovingDigits::check`], or sprites of another size.
    pub fn clip(&self, sprites: &Sprites, part: &str, index: usize, seed: u64) -> Result<Clip> {
        self.check()?;
        if sprites.side != self.digit as usize {
            let reason = format!("were made {} pixels large, expected {}", sprites.side, self.digit);
            return Err(Error::config("sprites", reason));
        }
        let mut rng = FlowRng::named(seed, &format!("moving digits/{part}/{index}"));
        let size = self.size as usize;
        let mut values = vec![0u8; self.frames * size * size];
        for _ in 0..self.digits {
            let sprite = &sprites.images[rng.below(sprites.images.len())];
            for (frame, [x, y]) in values.chunks_exact_mut(size * size).zip(self.path(&mut rng)) {
                self.draw(frame, sprite, x, y);
            }
        }
        Clip::new(format!("{part}/{index}"), values, [1, size, size], Some(FPS))
    }

    /// `count` clips of a part of this name.
    ///
    /// # Errors
    /// Those of [`MovingDigits::sprites`].
    pub fn clips(&self, digits: &Dataset, part: &str, count: usize, seed: u64) -> Result<Clips> {
        let sprites = self.sprites(digits)?;
        let source = format!("moving digits of {} (seed {seed})", digits.source());
        made(count, source, |index| self.clip(&sprites, part, index, seed))
    }

    /// Training, validation and test clips, each made of the digits of its part alone.
    ///
    /// # Errors
    /// Those of [`MovingDigits::sprites`], or clips of a part without digits.
    pub fn splits(&self, digits: &Digits, seed: u64) -> Result<Splits> {
        let part = |digits: &Dataset, name: &str, count: usize| {
            // A part without digits and without clips takes its shape from other digits, which nobody sees.
            let digits = if digits.is_empty() { &digits_of(digits, count)? } else { digits };
            self.clips(digits, name, count, seed)
        };
        Ok(Splits {
            train: part(&digits.train, "train", self.clips)?,
            validation: part(&digits.validation, "validation", self.validation)?,
            test: part(&digits.test, "test", self.test)?,
        })
    }

    /// Where a digit is in every frame: the column and row of its upper left corner.
    fn path(&self, rng: &mut FlowRng) -> Vec<[usize; 2]> {
        match self.bounce {
            Bounce::Stochastic => self.stochastic_path(rng),
            Bounce::Deterministic => self.deterministic_path(rng),
        }
    }

    fn stochastic_path(&self, rng: &mut FlowRng) -> Vec<[usize; 2]> {
        let (room, speed) = (i64::from(self.size - self.digit), self.speed as i64);
        // A whole number of `low..=high`.
        let mut between = |low: i64, high: i64| low + rng.below((high - low + 1) as usize) as i64;
        let mut at = [between(0, room - 1), between(0, room - 1)];
        let mut velocity = [between(-speed, speed), between(-speed, speed)];
        let mut path = Vec::with_capacity(self.frames);
        for _ in 0..self.frames {
            // Rows before columns, as in the published code: it matters in a corner.
            for axis in [1, 0] {
                if at[axis] < 0 {
                    at[axis] = 0;
                    velocity[axis] = between(1, speed);
                    velocity[1 - axis] = between(-speed, speed);
                } else if at[axis] >= room {
                    at[axis] = room - 1;
                    velocity[axis] = between(-speed, -1);
                    velocity[1 - axis] = between(-speed, speed);
                }
            }
            path.push(at.map(|place| place as usize));
            at = [at[0] + velocity[0], at[1] + velocity[1]];
        }
        path
    }

    fn deterministic_path(&self, rng: &mut FlowRng) -> Vec<[usize; 2]> {
        let room = f64::from(self.size - self.digit);
        let mut at = [rng.next_uniform(), rng.next_uniform()];
        let angle = rng.next_uniform() * std::f64::consts::TAU;
        let step = self.speed / room;
        let mut velocity = [step * angle.cos(), step * angle.sin()];
        let mut path = Vec::with_capacity(self.frames);
        for _ in 0..self.frames {
            for axis in [0, 1] {
                at[axis] += velocity[axis];
                if at[axis] <= 0.0 || at[axis] >= 1.0 {
                    at[axis] = at[axis].clamp(0.0, 1.0);
                    velocity[axis] = -velocity[axis];
                }
            }
            path.push(at.map(|place| (place * room) as usize));
        }
        path
    }

    fn draw(&self, frame: &mut [u8], sprite: &[u8], x: usize, y: usize) {
        let (size, side) = (self.size as usize, self.digit as usize);
        for (row, line) in sprite.chunks_exact(side).enumerate() {
            let start = (y + row) * size + x;
            for (below, &value) in frame[start..start + side].iter_mut().zip(line) {
                *below = match self.bounce {
                    Bounce::Stochastic => below.saturating_add(value),
                    Bounce::Deterministic => value.max(*below),
                };
            }
        }
    }
}

/// One black digit for a part that has none and wants none.
fn digits_of(empty: &Dataset, count: usize) -> Result<Dataset> {
    if count > 0 {
        let reason = format!("no digits were held out for the {count} clips of this part");
        return Err(Error::config(empty.source(), reason));
    }
    let size = empty.image_size();
    Ok(Dataset::new(vec![0; size], empty.shape(), empty.levels(), empty.source())?)
}

/// Digits scaled to the size that they move with.
#[derive(Debug, Clone, PartialEq)]
pub struct Sprites {
    /// `[side, side]` each.
    images: Vec<Vec<u8>>,
    side: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One white digit of 2x2.
    fn white() -> Dataset {
        Dataset::new(vec![255; 4], [1, 2, 2], 256, "white").unwrap()
    }

    fn small(bounce: Bounce, speed: f64) -> MovingDigits {
        let (size, digit, digits, frames) = (10, 2, 1, 200);
        MovingDigits { size, digit, digits, frames, speed, bounce, ..MovingDigits::builtin() }
    }

    #[test]
    fn digits_move_by_whole_pixels_inside_the_frame_and_bounce_inwards() {
        let moving = small(Bounce::Stochastic, 3.0);
        let (mut bounces, mut turns) = (0, 0);
        for seed in 0..50 {
            let path = moving.path(&mut FlowRng::seed_from(seed));
            for steps in path.windows(3) {
                for axis in [0, 1] {
                    let place = |i: usize| steps[i][axis] as i64;
                    assert!((0..8).contains(&place(0)));
                    assert!((place(1) - place(0)).abs() <= 3);
                    let (before, after) = (place(1) - place(0), place(2) - place(1));
                    let at_wall = [0, 7].contains(&place(1));
                    turns += usize::from(before != after && !at_wall && ![0, 7].contains(&place(2)));
                    bounces += usize::from(before != after && at_wall);
                }
            }
        }
        assert!(bounces > 1000, "{bounces}");
        // Along the wall the velocity is new as well, which is seen one axis away from it.
        assert!(turns > 100, "{turns}");
    }

    #[test]
    fn the_original_bounces_like_a_ball() {
        let moving = MovingDigits::original();
        let path = moving.path(&mut FlowRng::seed_from(3));
        let speed = path.windows(2).map(|p| {
            let d = |axis: usize| p[1][axis] as f64 - p[0][axis] as f64;
            d(0).hypot(d(1))
        });
        // Rounded down to pixels, and shorter where a wall was in the way.
        assert!(speed.clone().all(|s| s <= 3.6 + 2f64.sqrt()), "{:?}", speed.collect::<Vec<_>>());
        assert!(path.iter().flatten().all(|&p| p <= 36));
        let again = moving.path(&mut FlowRng::seed_from(3));
        assert_eq!(path, again);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_an_index_its_clip() {
        let moving = small(Bounce::Stochastic, 2.0);
        let few = moving.clips(&white(), "train", 3, 5).unwrap();
        let many = moving.clips(&white(), "train", 6, 5).unwrap();
        assert_eq!(few, many.subset(0..3).unwrap());
        assert_ne!(few, moving.clips(&white(), "train", 3, 6).unwrap());
        assert_ne!(
            few.get(0).unwrap().values(),
            moving.clips(&white(), "test", 1, 5).unwrap().get(0).unwrap().values()
        );
        let clip = few.get(0).unwrap();
        assert_eq!((clip.frames(), clip.shape(), clip.name()), (200, [1, 10, 10], "train/0"));
        assert!(clip.values().chunks(100).all(|frame| frame.iter().filter(|&&v| v == 255).count() == 4));
    }

    #[test]
    fn overlapping_digits_add_up_or_hide_each_other() {
        let grey = Dataset::new(vec![100; 4], [1, 2, 2], 256, "grey").unwrap();
        for (bounce, brightest) in [(Bounce::Stochastic, 200), (Bounce::Deterministic, 100)] {
            let moving = MovingDigits { digits: 2, size: 4, ..small(bounce, 1.0) };
            let clip = moving.clips(&grey, "x", 1, 0).unwrap();
            assert_eq!(clip.get(0).unwrap().values().iter().max(), Some(&brightest));
        }
    }

    #[test]
    fn digits_are_scaled_smoothly_and_levels_fill_the_range() {
        let digits = flow_image::data::builtin::digits().unwrap();
        let sprites = MovingDigits::builtin().sprites(&digits.train).unwrap();
        assert_eq!((sprites.images.len(), sprites.images[0].len()), (1500, 144));
        let most = sprites.images.iter().flatten().max();
        assert_eq!(most, Some(&255));
        let mean =
            |values: &[u8], white: f64| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64 / white;
        let (before, after) = (mean(digits.train.images(), 16.0), mean(&sprites.images.concat(), 255.0));
        assert!((before - after).abs() < 0.02, "{before} {after}");
    }

    #[test]
    fn parts_have_their_own_digits_and_nonsense_is_refused() {
        let digits = flow_image::data::builtin::digits().unwrap();
        let moving = MovingDigits { clips: 2, validation: 0, test: 1, frames: 3, ..MovingDigits::builtin() };
        let splits = moving.splits(&digits, 0).unwrap();
        assert_eq!([splits.train.len(), splits.validation.len(), splits.test.len()], [2, 0, 1]);
        assert_eq!(splits.validation.shape(), [1, 32, 32]);
        for bad in [
            MovingDigits { size: 3, ..moving },
            MovingDigits { digit: 32, ..moving },
            MovingDigits { digit: 0, ..moving },
            MovingDigits { digits: 0, ..moving },
            MovingDigits { frames: 0, ..moving },
            MovingDigits { speed: 0.0, ..moving },
            MovingDigits { speed: 1.5, ..moving },
            MovingDigits { speed: 21.0, ..moving },
            MovingDigits { speed: f64::NAN, ..moving },
        ] {
            assert!(bad.splits(&digits, 0).unwrap_err().to_string().contains("moving digits"), "{bad:?}");
        }
        let flat = Dataset::new(vec![0; 6], [1, 2, 3], 256, "flat").unwrap();
        assert!(moving.sprites(&flat).unwrap_err().to_string().contains("square"));
    }
}
