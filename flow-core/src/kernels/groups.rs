//! Rows of which several share parameters.

use super::Real;

/// Where fewer groups than this share parameters, their rows are divided, so that there is work for every thread.
const PARTS: usize = 16;

/// As many consecutive rows for each of the groups.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    pub(super) rows: usize,
    pub(super) groups: usize,
}

impl Groups {
    fn each(self) -> usize {
        self.rows / self.groups.max(1)
    }

    /// Into how many parts the rows of a group are divided: a number that depends on sizes alone, and so do sums over them.
    fn parts(self) -> usize {
        PARTS.div_ceil(self.groups.max(1)).min(self.each()).max(1)
    }

    /// What belongs to the rows of each part, of `width` numbers each, with the part's group and its first row; parts behind
    /// the last row are empty.
    pub(super) fn divided<T>(self, rows: &mut [T], width: usize) -> Vec<(usize, usize, &mut [T])> {
        self.divided_into(self.parts(), rows, width)
    }

    /// As [`Groups::divided`], where nothing is summed over parts, so that their number may depend on that of threads.
    pub(super) fn spread<T>(self, rows: &mut [T], width: usize) -> Vec<(usize, usize, &mut [T])> {
        let wanted = PARTS.max(4 * rayon::current_num_threads());
        self.divided_into(wanted.div_ceil(self.groups.max(1)).clamp(1, self.each().max(1)), rows, width)
    }

    fn divided_into<T>(self, parts: usize, rows: &mut [T], width: usize) -> Vec<(usize, usize, &mut [T])> {
        let (mut rest, mut first) = (rows, 0);
        let share = self.each().div_ceil(parts).max(1);
        let mut divided = Vec::with_capacity(self.groups * parts);
        for group in 0..self.groups {
            let end = first + self.each();
            for _ in 0..parts {
                let count = share.min(end - first);
                let (own, others) = rest.split_at_mut(count * width);
                divided.push((group, first, own));
                (first, rest) = (first + count, others);
            }
        }
        divided
    }

    /// The sums over the parts of each group, in their order, of `width` numbers for each part.
    pub(super) fn summed<T: Real>(self, partial: Vec<T>, width: usize) -> Vec<T> {
        let parts = self.parts();
        if parts == 1 {
            return partial;
        }
        let mut sums = Vec::with_capacity(partial.len() / parts);
        for group in partial.chunks_exact((parts * width).max(1)) {
            let (first, others) = group.split_at(width);
            let start = sums.len();
            sums.extend_from_slice(first);
            for other in others.chunks_exact(width) {
                sums[start..].iter_mut().zip(other).for_each(|(sum, &value)| *sum += value);
            }
        }
        sums
    }
}
