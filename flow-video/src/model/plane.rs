//! Pixels of a frame and their neighbours.

/// A motion in whole pixels, down and to the right.
pub(super) type Vector = [isize; 2];

/// The size of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Plane {
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Where a motion brings pixel `p`, if that is in the frame.
    pub(super) fn moved(&self, p: usize, [dy, dx]: Vector) -> Option<usize> {
        let (y, x) = ((p / self.width).checked_add_signed(dy)?, (p % self.width).checked_add_signed(dx)?);
        (y < self.height && x < self.width).then_some(y * self.width + x)
    }

    /// How many pixels of a mask are in the square of side `2·radius + 1` around each pixel.
    pub(super) fn counts_around(&self, mask: &[bool], radius: usize) -> Vec<u32> {
        let along = |values: &[u32], at: usize, stride: usize, count: usize, base: usize| -> u32 {
            let (from, to) = (at.saturating_sub(radius), (at + radius).min(count - 1));
            (from..=to).map(|i| values[base + i * stride]).sum()
        };
        let mask: Vec<u32> = mask.iter().map(|&set| u32::from(set)).collect();
        let pixels = 0..self.pixels();
        let rows: Vec<u32> =
            pixels.clone().map(|p| along(&mask, p % self.width, 1, self.width, p - p % self.width)).collect();
        pixels.map(|p| along(&rows, p / self.width, self.width, self.height, p % self.width)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_around_are_counted() {
        let plane = Plane { height: 5, width: 7 };
        let mask: Vec<bool> = (0..35).map(|p| p * 11 % 3 == 0).collect();
        for radius in 0..4 {
            let counts = plane.counts_around(&mask, radius);
            for (p, count) in counts.into_iter().enumerate() {
                let near = |q: &usize| (q / 7).abs_diff(p / 7) <= radius && (q % 7).abs_diff(p % 7) <= radius;
                assert_eq!(count as usize, (0..35).filter(near).filter(|&q| mask[q]).count());
            }
        }
    }

    #[test]
    fn what_leaves_the_frame_is_gone() {
        let plane = Plane { height: 2, width: 3 };
        assert_eq!(plane.moved(4, [-1, 1]), Some(2));
        assert_eq!([[-1, 0], [0, 2], [2, 0], [0, -2]].map(|by| plane.moved(1, by)), [None; 4]);
    }
}
