//! Which rows of a common batch are at hand.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Consecutive rows `first..first + count` of the `of` rows of a batch that several processes share out, or that one
/// process takes in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The place of the first row in the whole batch.
    pub first: usize,
    /// Rows at hand; there may be none.
    pub count: usize,
    /// Rows of the whole batch.
    pub of: usize,
}

impl Share {
    /// All rows of a batch.
    pub fn whole(of: usize) -> Self {
        Share { first: 0, count: of, of }
    }

    /// The rows of number `rank` among `ranks`, which take consecutive parts that differ by at most one row; with fewer
    /// rows than ranks some have none.
    ///
    /// ```
    /// use flow_core::Share;
    ///
    /// let parts: Vec<_> = (0..4).map(|rank| Share::part(10, rank, 4).range()).collect();
    /// assert_eq!(parts, [0..2, 2..5, 5..7, 7..10]);
    /// ```
    pub fn part(of: usize, rank: usize, ranks: usize) -> Self {
        let ranks = ranks.max(1);
        // In 128 bits, where the product of two sizes always fits.
        let bound = |rank: usize| (of as u128 * rank.min(ranks) as u128 / ranks as u128) as usize;
        let first = bound(rank);
        Share { first, count: bound(rank.saturating_add(1)) - first, of }
    }

    /// The places of the rows in the whole batch.
    pub fn range(self) -> Range<usize> {
        self.first..self.first + self.count
    }

    /// Whether no row is here.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Whether every row is here.
    pub fn is_whole(self) -> bool {
        self.count == self.of
    }

    /// The rows at hand cut into parts of at most `size` (at least one), each with its place in the whole batch.
    pub fn parts(self, size: usize) -> impl Iterator<Item = Share> {
        let size = size.max(1);
        self.range().step_by(size).map(move |first| Share {
            first,
            count: size.min(self.first + self.count - first),
            of: self.of,
        })
    }

    /// The rows at hand where each of these rows stands for `each` consecutive ones.
    #[must_use]
    pub fn times(self, each: usize) -> Self {
        Share { first: self.first * each, count: self.count * each, of: self.of * each }
    }

    /// What the rows at hand have in common with the first `count` rows of the batch, as a share of those.
    #[must_use]
    pub fn within_first(self, count: usize) -> Self {
        let (first, end) = (self.first.min(count), (self.first + self.count).min(count));
        Share { first, count: end - first, of: count.min(self.of) }
    }
}
