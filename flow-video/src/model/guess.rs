//! What layers that move make of the next frame.

use super::layers::{Layer, Scene};
use super::motion::Motion;
use super::plane::Vector;

/// How many kinds of pixels a guess has: see [`Motion::guess`].
pub(super) const KINDS: usize = 7;

impl Motion {
    /// The guess of the next frame `(C, H, W)` that motions of the layers of the frame `last` make, and the kind of each of its
    /// pixels `(H, W)`:
    ///
    /// 0. nothing has changed around it and nothing comes near it,
    /// 1. something has, or does;
    /// 2. one layer comes there, and to all pixels next to it,
    /// 3. one layer comes there, and not to all next to it,
    /// 4. several layers come there;
    /// 5. a layer has left it;
    /// 6. what stands out there is of no layer.
    pub(super) fn guess(&self, scene: &Scene, motions: &[Vector], last: &[f64], out: (&mut [f64], &mut [f64])) {
        let (guess, kinds) = out;
        let (ground, plane) = (&scene.ground, scene.ground.plane);
        let pixels = plane.pixels();
        guess.copy_from_slice(last);
        let moving: Vec<(&Layer, Vector)> = scene
            .layers
            .iter()
            .zip(motions)
            .filter(|(layer, motion)| layer.motion != [0, 0] || **motion != [0, 0])
            .map(|(layer, motion)| (layer, *motion))
            .collect();
        let mut left = vec![false; pixels];
        for (layer, _) in &moving {
            for p in layer.pixels() {
                left[p] = true;
                for (channel, common) in ground.common.iter().enumerate() {
                    let p = channel * pixels + p;
                    guess[p] = if layer.motion == [0, 0] { *common } else { scene.behind[p] };
                }
            }
        }
        let mut coming = vec![0_u8; pixels];
        for (layer, motion) in &moving {
            for p in layer.pixels() {
                let Some(q) = plane.moved(p, *motion) else { continue };
                self.cover(scene, &layer.image, p, guess, q, coming[q] > 0);
                coming[q] += 1;
            }
        }
        let here: Vec<bool> = coming.iter().map(|&count| count > 0).collect();
        let around = plane.counts_around(&here, 1);
        let owned = |p: usize| scene.layers.iter().any(|layer| layer.mask[p]);
        for (p, kind) in kinds.iter_mut().enumerate() {
            let number = match coming[p] {
                0 if left[p] => 5,
                0 if ground.stands_out(last, p) && !owned(p) => 6,
                0 if around[p] > 0 || scene.restless[p] => 1,
                0 => 0,
                1 if around[p] < 9 => 3,
                1 => 2,
                _ => 4,
            };
            *kind = f64::from(number);
        }
    }

    /// Puts pixel `p` of a layer over pixel `q` of a guess, where others may have come before.
    fn cover(&self, scene: &Scene, image: &[f64], p: usize, guess: &mut [f64], q: usize, others: bool) {
        let (ground, pixels) = (&scene.ground, scene.ground.plane.pixels());
        let difference = |frame: &[f64], p: usize| -> f64 {
            ground.common.iter().enumerate().map(|(c, common)| (frame[c * pixels + p] - common).abs()).sum()
        };
        if !self.adds && others && difference(image, p) <= difference(guess, q) {
            return;
        }
        for (channel, common) in ground.common.iter().enumerate() {
            let (from, to) = (image[channel * pixels + p], &mut guess[channel * pixels + q]);
            *to = if self.adds { (*to + from - common).clamp(0.0, ground.levels - 1.0) } else { from };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::{crossing, scattered};
    use super::*;

    fn guessed(motion: &Motion, frames: &[Vec<f64>], size: [usize; 3], levels: f64) -> (Vec<f64>, Vec<f64>) {
        let past: Vec<&[f64]> = frames.iter().map(Vec::as_slice).collect();
        let scene = motion.scene(&past, size, levels);
        let motions: Vec<Vector> = scene.layers.iter().map(|layer| layer.motion).collect();
        let (mut guess, mut kinds) = (vec![0.0; past[0].len()], vec![0.0; size[1] * size[2]]);
        motion.guess(&scene, &motions, past[past.len() - 1], (&mut guess, &mut kinds));
        (guess, kinds)
    }

    fn wrong(guess: &[f64], seen: &[f64]) -> usize {
        guess.iter().zip(seen).filter(|(guess, seen)| guess != seen).count()
    }

    #[test]
    fn layers_go_on_where_they_meet() {
        let motion = Motion { adds: true, ..Motion::new(3, 4) };
        for (last, plain) in [(4, 0.0), (5, 0.0), (6, 0.0), (8, 0.0), (6, 5.0)] {
            let frames = crossing(last + 1, plain);
            let (guess, kinds) = guessed(&motion, &frames[last - 4..last], [1, 40, 48], 101.0);
            let (moved, still) = (wrong(&guess, &frames[last]), wrong(&frames[last - 1], &frames[last]));
            assert!(3 * moved <= still, "frame {last} on {plain}: {moved} {still}");
            for kind in [0.0, 1.0, 3.0, 5.0] {
                assert!(kinds.contains(&kind), "{kind} {last}");
            }
        }
    }

    /// A block that goes past a picture, in colour: what it leaves is what was there before it came.
    #[test]
    fn what_was_hidden_comes_back() {
        let frame = |t: usize| -> Vec<f64> {
            let pixel = |i: usize| {
                let (channel, y, x) = (i / 800, i / 40 % 20, i % 40);
                let of = |seed: usize, least: usize| (least + 90 * scattered(3 * seed + channel, 2)) as f64;
                let inside = |x: usize, from: usize, to: usize| (from..to).contains(&x) && (6..15).contains(&y);
                match x.checked_sub(3 * t) {
                    Some(of_block) if inside(of_block, 0, 6) => of(y * 40 + of_block, 160),
                    _ if inside(x, 12, 22) => of(y * 40 + x + 1000, 40),
                    _ => 10.0 + channel as f64,
                }
            };
            (0..3 * 800).map(pixel).collect()
        };
        let frames: Vec<Vec<f64>> = (0..9).map(frame).collect();
        let motion = Motion::new(3, 6);
        for last in 6..9 {
            let (guess, kinds) = guessed(&motion, &frames[last - 6..last], [3, 20, 40], 256.0);
            let (moved, still) = (wrong(&guess, &frames[last]), wrong(&frames[last - 1], &frames[last]));
            assert!(3 * moved <= still, "frame {last}: {moved} {still}");
            assert!([2.0, 5.0].iter().all(|kind| kinds.contains(kind)));
        }
    }
}
