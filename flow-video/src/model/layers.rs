//! What moves alike in the frames before: layers, found and followed.

use super::motion::Motion;
use super::plane::{Plane, Vector};

/// The most layers of a frame.
pub(super) const MOST: usize = 8;
/// A layer is found by at least one pixel in so many of a frame.
const LEAST: usize = 160;
/// How far around a pixel others say which layer it is of.
const AROUND: usize = 3;
/// How many pixels of a layer around another one make that one belong to it.
const JOINED: u32 = 2;

/// What is known of frames: their size, their levels, and which of these is the commonest in each channel.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) plane: Plane,
    pub(super) levels: f64,
    /// The commonest level of each channel; pixels that have it are of no layer.
    pub(super) common: Vec<f64>,
    adds: bool,
}

impl Ground {
    /// What frames `(C, H, W)` of levels say.
    fn new(frames: &[&[f64]], [channels, height, width]: [usize; 3], levels: f64, adds: bool) -> Self {
        let plane = Plane { height, width };
        let of_channel = |channel: usize| {
            let mut counts = vec![0_usize; levels as usize];
            for frame in frames {
                for &level in &frame[channel * plane.pixels()..][..plane.pixels()] {
                    if let Some(count) = counts.get_mut(level as usize) {
                        *count += 1;
                    }
                }
            }
            let most = counts.iter().max().copied();
            counts.iter().position(|count| Some(*count) == most).unwrap_or(0) as f64
        };
        Ground { plane, levels, common: (0..channels).map(of_channel).collect(), adds }
    }

    /// The levels of a pixel.
    fn at<'a>(&self, frame: &'a [f64], p: usize) -> impl Iterator<Item = f64> + 'a {
        frame.iter().skip(p).step_by(self.plane.pixels()).copied()
    }

    /// Whether a pixel has another level than the commonest.
    pub(super) fn stands_out(&self, frame: &[f64], p: usize) -> bool {
        self.at(frame, p).zip(&self.common).any(|(level, common)| level != *common)
    }

    /// What is missing of pixel `p` of `image` at pixel `q` of `frame`, in the channel where most is. Where light adds up
    /// there may be more than was expected.
    fn missing(&self, image: &[f64], p: usize, frame: &[f64], q: usize) -> f64 {
        let pairs = self.at(image, p).zip(self.at(frame, q)).zip(&self.common);
        let each = pairs.map(|((expected, seen), common)| match (self.adds, expected < *common) {
            (false, _) => (expected - seen).abs(),
            (true, false) => expected - seen,
            (true, true) => seen - expected,
        });
        each.fold(0.0, f64::max)
    }

    /// What may be missing of a pixel that is still the same.
    fn tolerance(&self) -> f64 {
        self.levels / 4.0
    }

    /// Whether pixel `q` of the frame before is the same as pixel `p` of the frame `now`.
    fn same(&self, before: &[f64], q: usize, now: &[f64], p: usize) -> bool {
        let pairs = self.at(before, q).zip(self.at(now, p));
        self.stands_out(before, q) && pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) <= self.tolerance()
    }
}

/// Pixels that move alike.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// How it came to the last frame.
    pub(super) motion: Vector,
    /// Its pixels in the last frame.
    pub(super) mask: Vec<bool>,
    /// What it looks like, `(C, H, W)`; outside of its pixels the commonest level.
    pub(super) image: Vec<f64>,
    /// How it came to the frames before and what it looked like there, the oldest first.
    pub(super) trail: Vec<(Vector, Vec<f64>)>,
}

impl Layer {
    fn new(ground: &Ground, motion: Vector) -> Self {
        let pixels = ground.plane.pixels();
        let image = ground.common.iter().flat_map(|common| std::iter::repeat_n(*common, pixels)).collect();
        Layer { motion, mask: vec![false; pixels], image, trail: Vec::new() }
    }

    /// Takes pixel `p` in, which looks like that of one of two images that has less light.
    fn take(&mut self, ground: &Ground, p: usize, [(a, at), (b, bt)]: [(&[f64], usize); 2]) {
        let pixels = ground.plane.pixels();
        self.mask[p] = true;
        for (channel, common) in ground.common.iter().enumerate() {
            let (a, b) = (a[channel * pixels + at], b[channel * pixels + bt]);
            self.image[channel * pixels + p] = if (a - common).abs() <= (b - common).abs() { a } else { b };
        }
    }

    pub(super) fn pixels(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.mask.len()).filter(|&p| self.mask[p])
    }

    fn is_empty(&self) -> bool {
        !self.mask.contains(&true)
    }

    /// Where its pixels are once it has moved.
    fn moved(&self, plane: Plane, by: Vector) -> impl Iterator<Item = (usize, Option<usize>)> + '_ {
        self.pixels().map(move |p| (p, plane.moved(p, by)))
    }
}

/// The layers of the last of some frames.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) ground: Ground,
    /// No two of the same motion to the last frame.
    pub(super) layers: Vec<Layer>,
    /// What was last seen where nothing moved, `(C, H, W)`.
    pub(super) behind: Vec<f64>,
    /// Where the last two frames differ, or next to that.
    pub(super) restless: Vec<bool>,
}

impl Motion {
    /// The layers of frames `(C, H, W)` of so many levels, two at least, the oldest first.
    pub(super) fn scene(&self, frames: &[&[f64]], size: [usize; 3], levels: f64) -> Scene {
        let ground = Ground::new(frames, size, levels, self.adds);
        let plane = ground.plane;
        let behind = ground.common.iter().flat_map(|common| std::iter::repeat_n(*common, plane.pixels())).collect();
        let mut scene = Scene { ground, layers: Vec::new(), behind, restless: Vec::new() };
        for pair in frames.windows(2) {
            let [before, now] = [pair[0], pair[1]];
            let motions = self.found(&scene, now);
            self.follow(&mut scene, &motions, [before, now]);
        }
        if let [.., before, last] = frames {
            let differs = |p: usize| scene.ground.at(before, p).zip(scene.ground.at(last, p)).any(|(a, b)| a != b);
            let differ: Vec<bool> = (0..plane.pixels()).map(differs).collect();
            scene.restless = plane.counts_around(&differ, 1).into_iter().map(|count| count > 0).collect();
        }
        scene
    }

    /// The motion of every layer to the next frame `now`: that of which least is missing there. Of equal ones it is the motion
    /// it had, else the slowest.
    pub(super) fn found(&self, scene: &Scene, now: &[f64]) -> Vec<Vector> {
        let (vectors, ground) = (self.vectors(), &scene.ground);
        let most = 2.0 * ground.tolerance();
        let of_layer = |layer: &Layer| {
            let missing = |vector: Vector| -> f64 {
                let pixels = layer.moved(ground.plane, vector);
                pixels.map(|(p, q)| q.map_or(most, |q| ground.missing(&layer.image, p, now, q).min(most))).sum()
            };
            let first = (layer.motion, missing(layer.motion));
            let best = vectors.iter().fold(first, |best, &vector| {
                let missing = missing(vector);
                if missing < best.1 { (vector, missing) } else { best }
            });
            best.0
        };
        scene.layers.iter().map(of_layer).collect()
    }

    /// Goes on to the frame `now`, to which the layers came with these motions.
    fn follow(&self, scene: &mut Scene, motions: &[Vector], [before, now]: [&[f64]; 2]) {
        let ground = &scene.ground;
        let pixels = ground.plane.pixels();
        for (layer, _) in
            scene.layers.iter().zip(motions).filter(|(layer, motion)| layer.motion == [0, 0] && **motion != [0, 0])
        {
            for p in layer.pixels() {
                ground.common.iter().enumerate().for_each(|(c, common)| scene.behind[c * pixels + p] = *common);
            }
        }
        let mut layers = moved(ground, &scene.layers, motions, now);
        let out = |p: &usize| ground.stands_out(now, *p) && !layers.iter().any(|layer| layer.mask[*p]);
        let mut free = vec![false; ground.plane.pixels()];
        (0..free.len()).filter(out).for_each(|p| free[p] = true);
        join(ground, &mut layers, &mut free, [before, now]);
        for (vector, mask) in self.detect(ground, &free, [before, now]) {
            let known = layers.iter().position(|layer| layer.motion == vector);
            if known.is_none() && layers.len() == MOST {
                continue;
            }
            let index = known.unwrap_or_else(|| {
                layers.push(Layer::new(ground, vector));
                layers.len() - 1
            });
            for p in (0..mask.len()).filter(|&p| mask[p]) {
                if let Some(q) = ground.plane.moved(p, back(vector)) {
                    layers[index].take(ground, p, [(now, p), (before, q)]);
                }
            }
        }
        for p in 0..pixels {
            let mut of = layers.iter().filter(|layer| layer.mask[p]).map(|layer| layer.motion != [0, 0]).peekable();
            let known = of.peek().is_some() || !ground.stands_out(now, p);
            if known && !of.any(|moves| moves) {
                (0..ground.common.len()).for_each(|c| scene.behind[c * pixels + p] = now[c * pixels + p]);
            }
        }
        scene.layers = layers;
    }

    /// Motions that explain what is `free` in the frame `now`, each that which explains most of what the others left, and the
    /// pixels that each explains. A pixel that several explain is of those that explain enough around it alone.
    fn detect(&self, ground: &Ground, free: &[bool], [before, now]: [&[f64]; 2]) -> Vec<(Vector, Vec<bool>)> {
        let plane = ground.plane;
        let least = (plane.pixels() / LEAST).max(1);
        let mut open = free.to_vec();
        if open.iter().filter(|open| **open).count() < least {
            return Vec::new();
        }
        let out: Vec<usize> = (0..plane.pixels()).filter(|&p| free[p]).collect();
        let explained = |vector: Vector| -> Vec<usize> {
            let comes = |p: &usize| plane.moved(*p, back(vector)).is_some_and(|q| ground.same(before, q, now, *p));
            out.iter().copied().filter(comes).collect()
        };
        let all: Vec<(Vector, Vec<usize>)> = self.vectors().into_iter().map(|v| (v, explained(v))).collect();
        let mut masks: Vec<(Vector, Vec<bool>)> = Vec::new();
        while masks.len() < MOST {
            let gain = |pixels: &[usize]| pixels.iter().filter(|&&p| open[p]).count();
            let best = all.iter().map(|(vector, pixels)| (vector, pixels, gain(pixels)));
            let best = best.fold(None, |best: Option<(_, _, usize)>, next| match best {
                Some(best) if best.2 >= next.2 => Some(best),
                _ => Some(next),
            });
            let Some((vector, pixels, gain)) = best else { break };
            if gain < least {
                break;
            }
            let mut mask = vec![false; plane.pixels()];
            for &p in pixels {
                (mask[p], open[p]) = (true, false);
            }
            masks.push((*vector, mask));
        }
        divide(plane, &mut masks, least);
        masks
    }
}

/// Leaves pixels that several masks have to those that have at least half as many around it alone as each other, and to the
/// first where none has any. Motions to which less than `least` is left were made up of what others explain, and go.
fn divide(plane: Plane, masks: &mut Vec<(Vector, Vec<bool>)>, least: usize) {
    let shared: Vec<bool> = (0..plane.pixels()).map(|p| masks.iter().filter(|(_, mask)| mask[p]).count() > 1).collect();
    let alone = |mask: &[bool]| {
        let own: Vec<bool> = mask.iter().zip(&shared).map(|(own, shared)| *own && !shared).collect();
        plane.counts_around(&own, AROUND)
    };
    let around: Vec<Vec<u32>> = masks.iter().map(|(_, mask)| alone(mask)).collect();
    for p in (0..plane.pixels()).filter(|&p| shared[p]) {
        let most = masks.iter().zip(&around).filter(|((_, mask), _)| mask[p]).map(|(_, around)| around[p]).max();
        let (most, mut first) = (most.unwrap_or(0), true);
        for ((_, mask), around) in masks.iter_mut().zip(&around).filter(|((_, mask), _)| mask[p]) {
            mask[p] = if most > 0 { 2 * around[p] >= most } else { first };
            first = false;
        }
    }
    masks.retain(|(_, mask)| mask.iter().filter(|own| **own).count() >= least);
}

/// Layers in the frame `now`, to which they came with these motions, without the pixels of which too much is missing there.
/// Layers that move alike become one.
fn moved(ground: &Ground, layers: &[Layer], motions: &[Vector], now: &[f64]) -> Vec<Layer> {
    let mut all: Vec<Layer> = Vec::new();
    for (layer, &motion) in layers.iter().zip(motions) {
        let known = all.iter().position(|other| other.motion == motion);
        let mut next = match known {
            Some(known) => all.swap_remove(known),
            None => {
                let mut next = Layer::new(ground, motion);
                next.trail.clone_from(&layer.trail);
                next.trail.push((layer.motion, layer.image.clone()));
                next
            }
        };
        for (p, q) in layer.moved(ground.plane, motion) {
            let Some(q) = q.filter(|&q| !next.mask[q] && ground.stands_out(now, q)) else { continue };
            if ground.missing(&layer.image, p, now, q) <= ground.tolerance() {
                next.take(ground, q, [(&layer.image, p), (now, q)]);
            }
        }
        if !next.is_empty() {
            all.push(next);
        }
    }
    all
}

/// Gives free pixels that a layer's motion explains to the layer of which most is around them.
fn join(ground: &Ground, layers: &mut [Layer], free: &mut [bool], [before, now]: [&[f64]; 2]) {
    let around: Vec<Vec<u32>> = layers.iter().map(|layer| ground.plane.counts_around(&layer.mask, AROUND)).collect();
    for p in 0..free.len() {
        if !free[p] {
            continue;
        }
        let explains = |index: usize| {
            let from = ground.plane.moved(p, back(layers[index].motion))?;
            (around[index][p] >= JOINED && ground.same(before, from, now, p)).then_some((index, from))
        };
        let best = (0..layers.len()).filter_map(explains).min_by_key(|(index, _)| std::cmp::Reverse(around[*index][p]));
        if let Some((index, from)) = best {
            layers[index].take(ground, p, [(now, p), (before, from)]);
            free[p] = false;
        }
    }
}

/// The way back.
fn back([dy, dx]: Vector) -> Vector {
    [-dy, -dx]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Frames of 40 × 48: dots that go down and dots that go right, through them; their light adds up.
    pub(in super::super) fn crossing(count: usize, plain: f64) -> Vec<Vec<f64>> {
        let dot = |y: usize, x: usize, seed: usize| scattered(y * 31 + x + seed, 100) < 40;
        let frame = |t: usize| {
            let pixel = |p: usize| {
                let (y, x) = (p / 48, p % 48);
                let down =
                    y.checked_sub(t).is_some_and(|y| (2..14).contains(&y) && (16..30).contains(&x) && dot(y, x, 5));
                let right = x.checked_sub(3 * t).is_some_and(|x| x < 12 && (8..20).contains(&y) && dot(y, x, 77));
                plain + 40.0 * f64::from(u8::from(down)) + 50.0 * f64::from(u8::from(right))
            };
            (0..40 * 48).map(pixel).collect()
        };
        (0..count).map(frame).collect()
    }

    /// A number below `count` without a pattern.
    pub(in super::super) fn scattered(seed: usize, count: usize) -> usize {
        let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 33) as usize % count
    }

    fn scene(frames: &[Vec<f64>], adds: bool) -> (Motion, Scene) {
        let motion = Motion { adds, ..Motion::new(3, 4) };
        let frames: Vec<&[f64]> = frames.iter().map(Vec::as_slice).collect();
        (motion, motion.scene(&frames, [1, 40, 48], 100.0))
    }

    #[test]
    fn what_moves_alike_is_a_layer_also_where_two_meet() {
        for last in 3..9 {
            let frames = crossing(last + 1, 0.0);
            let (motion, scene) = scene(&frames[last - 3..last], true);
            let mut motions: Vec<_> = scene.layers.iter().map(|layer| layer.motion).collect();
            motions.sort_unstable();
            assert_eq!(motions, [[0, 3], [1, 0]], "frame {last}");
            let mut found = motion.found(&scene, &frames[last]);
            found.sort_unstable();
            assert_eq!(found, motions, "frame {last}");
            assert!(scene.layers.iter().all(|layer| layer.trail.len() == 1));
        }
    }

    #[test]
    fn a_new_motion_is_found() {
        let frames = crossing(4, 0.0);
        let (motion, scene) = scene(&frames, true);
        let turned = crossing(4, 0.0).swap_remove(2);
        let found = motion.found(&scene, &turned);
        let back: Vec<_> = scene.layers.iter().map(|layer| layer.motion.map(|along| -along)).collect();
        assert_eq!(found, back);
    }

    /// Two bars, each with more beside it, and a motion that explains the bars alone.
    #[test]
    fn a_motion_that_others_make_up_is_none() {
        let plane = Plane { height: 12, width: 30 };
        let mask =
            |inside: &dyn Fn(usize, usize) -> bool| -> Vec<bool> { (0..360).map(|p| inside(p / 30, p % 30)).collect() };
        let bars = mask(&|y, x| y == 5 && ((2..8).contains(&x) || (20..26).contains(&x)));
        let one = mask(&|y, x| (4..6).contains(&y) && (2..8).contains(&x));
        let other = mask(&|y, x| (5..7).contains(&y) && (20..26).contains(&x));
        let mut masks = vec![([0, 1], bars), ([1, 0], one.clone()), ([2, 0], other.clone())];
        divide(plane, &mut masks, 2);
        assert_eq!(masks, [([1, 0], one), ([2, 0], other)]);
    }

    #[test]
    fn an_empty_frame_has_no_layers_and_a_still_one_has_one() {
        let (_, scene_of_none) = scene(&vec![vec![7.0; 1920]; 4], false);
        assert!(scene_of_none.layers.is_empty());
        let still: Vec<f64> = (0..1920).map(|p| scattered(p, 100) as f64).collect();
        let (motion, scene) = scene(&vec![still.clone(); 4], false);
        assert_eq!(scene.layers.len(), 1);
        assert_eq!(motion.found(&scene, &still), [[0, 0]]);
        assert!(scene.restless.iter().all(|restless| !restless));
    }
}
