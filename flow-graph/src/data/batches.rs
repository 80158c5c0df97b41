//! The order in which molecules are seen.
//!
//! A [`BatchCursor`] is a place in an endless, seeded sequence of epochs. Its whole state is three numbers,
//! from which the order of an epoch is derived, so that a resumed run sees exactly what an uninterrupted one
//! would have seen.

use std::ops::Range;

use flow_core::FlowRng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The serialisable place of a [`BatchCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchState {
    /// Seed of all epochs.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Molecules of the current epoch already seen.
    pub position: usize,
}

/// Shuffled batches without end; the last, incomplete batch of an epoch is dropped.
#[derive(Debug, Clone)]
pub struct BatchCursor {
    state: BatchState,
    indices: Vec<usize>,
    /// Places in `indices` in the order of the epoch.
    order: Vec<usize>,
    batch: usize,
}

impl BatchCursor {
    /// A cursor at the start of the first epoch over some indices, such as [`Splits::train`](super::Splits).
    ///
    /// # Errors
    /// A batch of zero, or larger than the number of indices.
    pub fn new(indices: Vec<usize>, batch: usize, seed: u64) -> Result<Self> {
        Self::restore(indices, batch, BatchState { seed, epoch: 0, position: 0 })
    }

    /// A cursor at a saved place.
    ///
    /// # Errors
    /// Those of [`BatchCursor::new`], or a position beyond the end: the state belongs to another set.
    pub fn restore(indices: Vec<usize>, batch: usize, state: BatchState) -> Result<Self> {
        let count = indices.len();
        if batch == 0 || batch > count {
            return Err(Error::config(
                "batch size",
                format!("must be 1 to {count}, the number of molecules, got {batch}"),
            ));
        }
        if state.position > count {
            let reason =
                format!("{} lies beyond the {count} molecules; the state is of another data set", state.position);
            return Err(Error::config("position in the data", reason));
        }
        Ok(BatchCursor { order: epoch_order(state, count), indices, state, batch })
    }

    /// The place to save; restoring it gives the same next batch.
    pub fn state(&self) -> BatchState {
        self.state
    }

    /// Epochs completed, with the fraction of the current one.
    pub fn epochs(&self) -> f64 {
        self.state.epoch as f64 + self.state.position as f64 / self.order.len() as f64
    }

    /// The indices of the next batch.
    pub fn next_indices(&mut self) -> Vec<usize> {
        if self.order.len() - self.state.position < self.batch {
            self.state = BatchState { epoch: self.state.epoch.saturating_add(1), position: 0, ..self.state };
            self.order = epoch_order(self.state, self.order.len());
        }
        let start = self.state.position;
        self.state.position += self.batch;
        self.order[start..self.state.position].iter().map(|&place| self.indices[place]).collect()
    }
}

fn epoch_order(state: BatchState, count: usize) -> Vec<usize> {
    FlowRng::named(state.seed, &format!("epoch {}", state.epoch)).permutation(count)
}

/// Every molecule once, in order: ranges of at most `batch` (at least one) molecules.
pub fn sequential(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    let batch = batch.max(1);
    (0..count).step_by(batch).map(move |start| start..count.min(start.saturating_add(batch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_index_once_and_drops_the_rest() {
        let mut cursor = BatchCursor::new((100..110).collect(), 3, 5).unwrap();
        let mut epochs = Vec::new();
        for _ in 0..2 {
            let mut seen: Vec<usize> = (0..3).flat_map(|_| cursor.next_indices()).collect();
            epochs.push(seen.clone());
            seen.sort_unstable();
            seen.dedup();
            assert!(seen.len() == 9 && seen.iter().all(|i| (100..110).contains(i)));
        }
        assert_ne!(epochs[0], epochs[1], "every epoch has its own order");
        assert_eq!(cursor.state(), BatchState { seed: 5, epoch: 1, position: 9 });
        assert!((cursor.epochs() - 1.9).abs() < 1e-12);
    }

    #[test]
    fn a_restored_cursor_continues_as_if_never_stopped() {
        let indices: Vec<usize> = (0..10).map(|i| i * i).collect();
        let mut whole = BatchCursor::new(indices.clone(), 4, 9).unwrap();
        for step in 0..9 {
            let saved = serde_json::to_string(&whole.state()).unwrap();
            let mut resumed = BatchCursor::restore(indices.clone(), 4, serde_json::from_str(&saved).unwrap()).unwrap();
            assert_eq!(whole.next_indices(), resumed.next_indices(), "step {step}");
        }
    }

    #[test]
    fn impossible_cursors_are_errors() {
        let indices = || (0..10).collect::<Vec<_>>();
        assert!(BatchCursor::new(indices(), 0, 0).is_err());
        assert!(BatchCursor::new(indices(), 11, 0).is_err());
        assert!(BatchCursor::restore(indices(), 2, BatchState { seed: 0, epoch: 0, position: 11 }).is_err());
        let end = BatchState { seed: 0, epoch: u64::MAX, position: 10 };
        assert_eq!(BatchCursor::restore(indices(), 2, end).unwrap().next_indices().len(), 2);
    }

    #[test]
    fn sequential_ranges_cover_everything_once() {
        assert_eq!(sequential(7, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
        assert_eq!(sequential(0, 3).count(), 0);
        assert_eq!(sequential(5, usize::MAX).next(), Some(0..5));
    }
}
