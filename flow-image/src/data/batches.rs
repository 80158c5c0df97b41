//! The order in which images are seen.
//!
//! The engine's [`EpochCursor`] says which images come next; a [`BatchCursor`] makes tensors of them.

use std::ops::Range;

use candle_core::{Device, Tensor};
use flow_core::Share;
use flow_core::train::{BatchIndices, CursorState, EpochCursor};

use super::dataset::levels_tensor;
use super::{Augment, Dataset};
use crate::{Error, Result};

/// The serialisable place of a [`BatchCursor`].
pub type BatchState = CursorState;

/// One batch of training data.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Integer levels, `(B, C, H, W)`, f32.
    pub images: Tensor,
    /// Class indices, `(B,)`, u32, where the data set has labels.
    pub labels: Option<Tensor>,
    /// The images' places in the data set.
    pub indices: Vec<usize>,
}

/// Shuffled batches without end; the last, incomplete batch of an epoch is dropped.
#[derive(Debug, Clone)]
pub struct BatchCursor(EpochCursor);

impl BatchCursor {
    /// A cursor at the start of the first epoch over `count` images.
    ///
    /// # Errors
    /// A batch of zero, or larger than the data set.
    pub fn new(count: usize, batch: usize, seed: u64) -> Result<Self> {
        Ok(BatchCursor(EpochCursor::new(count, batch, seed)?))
    }

    /// A cursor at a saved place.
    ///
    /// # Errors
    /// A batch of zero or larger than the data set, or a position beyond its end: the state belongs to another set.
    pub fn restore(count: usize, batch: usize, state: BatchState) -> Result<Self> {
        Ok(BatchCursor(EpochCursor::restore(count, batch, state)?))
    }

    /// The place to save; restoring it gives the same next batch.
    pub fn state(&self) -> BatchState {
        self.0.state()
    }

    /// Epochs completed, with the fraction of the current one.
    pub fn epochs(&self) -> f64 {
        self.0.epochs()
    }

    /// The places of the next batch in the data set.
    pub fn next_indices(&mut self) -> Vec<usize> {
        self.0.next_batch().indices
    }

    /// The next batch, augmented where asked.
    ///
    /// # Errors
    /// A data set smaller than the cursor was made for, or a failure of the device.
    pub fn next_batch(&mut self, set: &Dataset, augment: Option<&Augment>, device: &Device) -> Result<Batch> {
        self.next_share(Share::whole(self.0.batch_size()), set, augment, device)
    }

    /// Some images of the next batch, the same that they are in the whole batch; the cursor passes over all of it.
    ///
    /// # Errors
    /// As [`BatchCursor::next_batch`], and for a share of another batch.
    pub fn next_share(
        &mut self,
        share: Share,
        set: &Dataset,
        augment: Option<&Augment>,
        device: &Device,
    ) -> Result<Batch> {
        let BatchIndices { indices, rng } = self.0.next_batch();
        let beyond = || Error::config("share of a batch", format!("{:?} of {}", share.range(), indices.len()));
        let indices = indices.get(share.range()).ok_or_else(beyond)?.to_vec();
        let mut values = set.gather(&indices)?;
        if let Some(augment) = augment {
            let size = set.image_size();
            rng.for_rows(share).per_row(indices.len(), |row, rng| {
                augment.apply(&mut values[row * size..(row + 1) * size], set.shape(), rng)
            })?;
        }
        let images = levels_tensor(&values, set.shape(), device)?;
        Ok(Batch { images, labels: set.label_batch(&indices, device)?, indices })
    }
}

/// Every image once, in order: ranges of at most `batch` (at least one) images.
pub fn sequential(count: usize, batch: usize) -> impl Iterator<Item = Range<usize>> {
    let batch = batch.max(1);
    (0..count).step_by(batch).map(move |start| start..count.min(start.saturating_add(batch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_image_once_and_drops_the_rest() {
        let mut cursor = BatchCursor::new(10, 3, 5).unwrap();
        let mut epochs = Vec::new();
        for _ in 0..2 {
            let mut seen: Vec<usize> = (0..3).flat_map(|_| cursor.next_indices()).collect();
            epochs.push(seen.clone());
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 9);
        }
        assert_ne!(epochs[0], epochs[1], "every epoch has its own order");
        assert_eq!(cursor.state(), BatchState { seed: 5, epoch: 1, position: 9 });
        assert!((cursor.epochs() - 1.9).abs() < 1e-12);
    }

    #[test]
    fn a_restored_cursor_continues_bit_for_bit() {
        let set = Dataset::new((0..250).collect(), [1, 5, 5], 256, "x").unwrap();
        let augment = Augment { flip: true, shift: 0.2, ..Augment::default() };
        let mut whole = BatchCursor::new(set.len(), 4, 9).unwrap();
        for step in 0..9 {
            let saved = serde_json::to_string(&whole.state()).unwrap();
            let mut resumed = BatchCursor::restore(set.len(), 4, serde_json::from_str(&saved).unwrap()).unwrap();
            let a = whole.next_batch(&set, Some(&augment), &Device::Cpu).unwrap();
            let b = resumed.next_batch(&set, Some(&augment), &Device::Cpu).unwrap();
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!((a.indices, values(&a.images)), (b.indices, values(&b.images)), "step {step}");
        }
    }

    #[test]
    fn shares_of_a_batch_are_the_batch() {
        let set = Dataset::new((0..250).collect(), [1, 5, 5], 256, "x").unwrap();
        let augment = Augment { flip: true, shift: 0.4, ..Augment::default() };
        let values = |batch: Batch| batch.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut whole = BatchCursor::new(set.len(), 5, 9).unwrap();
        let mut ranks = vec![whole.clone(); 3];
        for _ in 0..4 {
            let expected = values(whole.next_batch(&set, Some(&augment), &Device::Cpu).unwrap());
            let parts = ranks.iter_mut().enumerate().flat_map(|(rank, cursor)| {
                values(cursor.next_share(Share::part(5, rank, 3), &set, Some(&augment), &Device::Cpu).unwrap())
            });
            assert_eq!(parts.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn augmentation_changes_what_is_seen_but_not_what_is_stored() {
        let set = Dataset::new((0..100).collect(), [1, 10, 10], 256, "x").unwrap();
        let mut cursor = BatchCursor::new(1, 1, 0).unwrap();
        let augment = Augment::default();
        let mut sums = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let batch = cursor.next_batch(&set, Some(&augment), &Device::Cpu).unwrap();
            sums.insert(batch.images.sum_all().unwrap().to_scalar::<f32>().unwrap() as u64);
        }
        assert!(sums.len() > 3, "{sums:?}");
        assert_eq!(set.images(), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn impossible_cursors_are_errors() {
        assert!(BatchCursor::new(10, 0, 0).is_err());
        assert!(BatchCursor::new(10, 11, 0).is_err());
        assert!(BatchCursor::restore(10, 2, BatchState { seed: 0, epoch: 0, position: 11 }).is_err());
        let end = BatchState { seed: 0, epoch: 3, position: 10 };
        assert_eq!(BatchCursor::restore(10, 2, end).unwrap().next_indices().len(), 2);
    }

    #[test]
    fn sequential_ranges_cover_everything_once() {
        assert_eq!(sequential(7, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
        assert_eq!(sequential(0, 3).count(), 0);
        assert_eq!(sequential(2, 0).count(), 2);
        assert_eq!(sequential(5, usize::MAX).next(), Some(0..5));
    }
}
