//! The order in which samples are seen.

use serde::{Deserialize, Serialize};

use crate::{Error, FlowRng, Result};

/// The serialisable place of an [`EpochCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorState {
    /// Seed of all epochs.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Samples of the current epoch already seen.
    pub position: usize,
}

/// A place in an endless, seeded sequence of shuffled epochs; the last, incomplete batch of an epoch is dropped.
///
/// Its whole state is three numbers: the order of an epoch and the randomness of a batch are derived from
/// them, so that a resumed run sees exactly what an uninterrupted one would have seen.
///
/// ```
/// # fn main() -> flow_core::Result<()> {
/// use flow_core::train::EpochCursor;
///
/// let mut cursor = EpochCursor::new(10, 3, 7)?;
/// let first = cursor.next_batch().indices;
/// let mut again = EpochCursor::restore(10, 3, cursor.state())?;
/// assert_eq!(cursor.next_batch().indices, again.next_batch().indices);
/// assert_eq!(first.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EpochCursor {
    state: CursorState,
    order: Vec<usize>,
    batch: usize,
}

/// One batch of an [`EpochCursor`].
#[derive(Debug, Clone)]
pub struct BatchIndices {
    /// Places in the data set.
    pub indices: Vec<usize>,
    /// A generator for whatever is random about this batch, augmentation for example.
    pub rng: FlowRng,
}

impl EpochCursor {
    /// A cursor at the start of the first epoch over `count` samples.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch of zero, or larger than the data set.
    pub fn new(count: usize, batch: usize, seed: u64) -> Result<Self> {
        Self::restore(count, batch, CursorState { seed, epoch: 0, position: 0 })
    }

    /// A cursor at a saved place.
    ///
    /// # Errors
    /// [`Error::Config`] for a batch of zero or larger than the data set, or a position beyond its end: then the
    /// state belongs to another data set.
    pub fn restore(count: usize, batch: usize, state: CursorState) -> Result<Self> {
        if batch == 0 || batch > count {
            let reason = format!("must be 1 to {count}, the number of training samples, got {batch}");
            return Err(Error::config("batch size", reason));
        }
        if state.position > count {
            let reason =
                format!("{} lies beyond the {count} samples; the state is of another data set", state.position);
            return Err(Error::config("position in the data", reason));
        }
        Ok(EpochCursor { order: epoch_order(state, count), state, batch })
    }

    /// The place to save; restoring it gives the same next batch.
    pub fn state(&self) -> CursorState {
        self.state
    }

    /// Samples of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Epochs completed, with the fraction of the current one.
    pub fn epochs(&self) -> f64 {
        self.state.epoch as f64 + self.state.position as f64 / self.order.len() as f64
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> BatchIndices {
        if self.state.position + self.batch > self.order.len() {
            self.state = CursorState { epoch: self.state.epoch.saturating_add(1), position: 0, ..self.state };
            self.order = epoch_order(self.state, self.order.len());
        }
        let CursorState { seed, epoch, position } = self.state;
        let indices = self.order[position..position + self.batch].to_vec();
        self.state.position += self.batch;
        BatchIndices { indices, rng: FlowRng::named(seed, &format!("augment {epoch} {position}")) }
    }
}

fn epoch_order(state: CursorState, count: usize) -> Vec<usize> {
    FlowRng::named(state.seed, &format!("epoch {}", state.epoch)).permutation(count)
}
